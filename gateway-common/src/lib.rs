//! What the kernel programs and userspace share: map layouts and the packet decision functions.
//!
//! * [`abi`]: `repr(C)` keys and values of every BPF map. Network order stays network order: fields named
//!   `*_be` hold wire bytes in a word and are never swapped.
//! * [`datapath`]: what happens to a packet. Generic over [`datapath::Packet`] and [`datapath::Tables`], so the
//!   same function runs in the kernel (BPF maps) and in a test (`BTreeMap`s).
//!
//! No I/O, no clock, no allocation: time is a word that the caller read from somewhere.
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

#[cfg(target_endian = "big")]
compile_error!("halves of packet words are taken apart as on a little-endian machine");

pub mod abi;
pub mod checksum;
pub mod datapath;
pub mod maglev;
pub mod ring;
pub mod sweep;
#[cfg(any(test, feature = "twin"))]
pub mod twin;
