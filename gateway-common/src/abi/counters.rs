//! `COUNTERS`: one cell per VIP and reason, per CPU. Every packet that a program sees changes exactly one cell.

/// Why a packet (or a socket lookup) ended as it did. A closed set; `docs/faults.md` lists them for users.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// Ingress: rewritten and sent to an endpoint.
    Forwarded = 0,
    /// Reverse: rewritten and sent back to the client.
    Returned = 1,
    /// Passed: the VIP is handed to userspace through `sk_lookup`.
    HandOff = 2,
    /// Passed: not for us.
    NotOurs = 3,
    /// Passed: not IPv4 or IPv6.
    NotIp = 4,
    /// Passed: IPv4 options or IPv6 extension headers, to an address that owns no kernel VIP.
    Options = 5,
    /// Passed: neither TCP nor UDP (ICMP, ...).
    NotTransport = 6,
    /// Passed: a fragment to an address that owns no kernel VIP.
    Fragment = 7,
    /// Dropped: a fragment to an address that owns a kernel VIP.
    FragmentDropped = 8,
    /// Dropped: shorter than its headers say.
    Truncated = 9,
    /// Dropped: the VIP has no endpoint.
    NoEndpoint = 10,
    /// Dropped: no flow entry for a segment that does not open one, while its slot is unsettled.
    NoFlow = 11,
    /// Dropped: the flow table is full.
    TableFull = 12,
    /// Dropped: the endpoint already has a live flow with this client address and port, through another VIP.
    Conflict = 13,
    /// Passed to the stack: the endpoint's neighbour is not resolved yet (XDP only).
    NoNeighbour = 14,
    /// `sk_lookup`: socket assigned to a worker.
    Assigned = 15,
    /// `sk_lookup`: the address is ours and no worker's socket is there.
    NoSocket = 16,
    /// Dropped: a hop limit / TTL of 1 or 0 on a packet to forward.
    HopLimit = 17,
    /// Dropped: IPv4 options or IPv6 extension headers, to an address that owns a kernel VIP.
    OptionsDropped = 18,
}

/// What becomes of a packet (or of a socket lookup).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Rewritten, and sent out of the interface that the outcome names.
    Send,
    /// Left to the next program, or to the stack.
    Pass,
    /// A VIP is ours and this cannot be served: passing it on could reach someone else's socket.
    Drop,
    /// `sk_lookup`: given to a worker's socket.
    Assign,
}

/// Cells per VIP; a power of two, so that the index is a shift.
pub const REASONS: u32 = 32;
/// The row of packets that belong to no VIP: `COUNTERS` has `VIPS_MAX + 1` rows.
pub const NO_VIP: u32 = super::vip::VIPS_MAX;

/// Index into `COUNTERS`.
#[inline(always)]
pub const fn counter_index(vip: u32, reason: Reason) -> u32 {
    vip * REASONS + reason as u32
}

impl Reason {
    /// Every reason, in numeric order.
    pub const ALL: [Reason; 19] = [
        Reason::Forwarded,
        Reason::Returned,
        Reason::HandOff,
        Reason::NotOurs,
        Reason::NotIp,
        Reason::Options,
        Reason::NotTransport,
        Reason::Fragment,
        Reason::FragmentDropped,
        Reason::Truncated,
        Reason::NoEndpoint,
        Reason::NoFlow,
        Reason::TableFull,
        Reason::Conflict,
        Reason::NoNeighbour,
        Reason::Assigned,
        Reason::NoSocket,
        Reason::HopLimit,
        Reason::OptionsDropped,
    ];

    /// Name in metrics and in `docs/faults.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Forwarded => "forwarded",
            Reason::Returned => "returned",
            Reason::HandOff => "hand_off",
            Reason::NotOurs => "not_ours",
            Reason::NotIp => "not_ip",
            Reason::Options => "options",
            Reason::NotTransport => "not_transport",
            Reason::Fragment => "fragment",
            Reason::FragmentDropped => "fragment_dropped",
            Reason::Truncated => "truncated",
            Reason::NoEndpoint => "no_endpoint",
            Reason::NoFlow => "no_flow",
            Reason::TableFull => "table_full",
            Reason::Conflict => "conflict",
            Reason::NoNeighbour => "no_neighbour",
            Reason::Assigned => "assigned",
            Reason::NoSocket => "no_socket",
            Reason::HopLimit => "hop_limit",
            Reason::OptionsDropped => "options_dropped",
        }
    }

    /// What a program does for this reason.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self {
            Reason::Forwarded | Reason::Returned => Action::Send,
            Reason::HandOff
            | Reason::NotOurs
            | Reason::NotIp
            | Reason::Options
            | Reason::NotTransport
            | Reason::Fragment
            | Reason::NoNeighbour => Action::Pass,
            Reason::FragmentDropped
            | Reason::OptionsDropped
            | Reason::Truncated
            | Reason::NoEndpoint
            | Reason::NoFlow
            | Reason::TableFull
            | Reason::Conflict
            | Reason::HopLimit
            | Reason::NoSocket => Action::Drop,
            Reason::Assigned => Action::Assign,
        }
    }
}
