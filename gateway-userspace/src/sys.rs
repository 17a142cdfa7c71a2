//! The operating system, in small honest wrappers: each file one subject, each function one system call or one
//! netlink question. No policy here.

pub mod addresses;
pub mod announce;
pub mod caps;
pub mod classifier;
pub mod clock;
pub mod datagrams;
pub mod interfaces;
pub mod memory;
pub mod neighbours;
pub mod netlink;
pub mod netns;
pub mod packets;
pub mod process;
pub mod routes;
pub mod sockets;
pub mod splice;
