//! `LISTENERS`: the SOCKMAP of the workers' listening sockets. `LOAD`: their live connections. `CONFIG`: how many
//! workers there are.

/// Most workers (one thread per core).
pub const WORKERS_MAX: u32 = 64;
/// Entries of `LISTENERS`: one IPv4 and one IPv6 socket a worker.
pub const LISTENERS_MAX: u32 = WORKERS_MAX * 2;

/// Words of `CONFIG`.
pub const CONFIG_WORDS: u32 = 4;
/// Index in `CONFIG` of the number of workers whose sockets are in `LISTENERS`, `0..=WORKERS_MAX`.
/// Written after the sockets are in place; 0 drops new connections to VIPs ([`super::Reason::NoSocket`]).
pub const CONFIG_WORKERS: u32 = 0;

/// Index in `CONFIG` of the idle limit of UDP flows that go both ways, in ticks; 0 means
/// [`super::flow::STREAMING_TICKS`]. Written before the first packet is taken.
pub const CONFIG_UDP_IDLE: u32 = 1;

/// Index of a worker's socket. `worker` in `0..WORKERS_MAX`.
#[inline(always)]
pub const fn binding_index(worker: u32, ipv6: bool) -> u32 {
    worker * 2 + ipv6 as u32
}
