//! Dense ids for names. The kernel and the workers know no names.
//!
//! An id outlives a revision: the same name keeps it while it is configured, and a freed id is given to another name
//! only after a quarantine ([`crate::lower::Ids`]).

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl $name {
            /// As an index into a table of these.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

ids! {
    /// A bound port (`ir::Bind`).
    ListenerId,
    /// A service.
    ServiceId,
    /// An endpoint: one address of one service.
    EndpointId,
    /// A rule of a route.
    RuleId,
}
