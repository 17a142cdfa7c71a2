//! Names of configured things. Cheap to clone, ordered, printed as users wrote them.

use std::fmt;
use std::sync::Arc;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
    )+};
}

names! {
    /// `namespace/gateway/section`.
    ListenerName,
    /// `Kind/namespace/name/rule-index`: one rule of one route.
    RuleName,
    /// `namespace/name:port`, or another backend kind's own form.
    ServiceName,
    /// `namespace/secret`.
    CertificateName,
    /// What an endpoint calls itself: its target's name, else its address and port.
    EndpointName,
}
