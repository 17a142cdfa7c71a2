//! What happens to a packet. See the submodules: `ingress` (client to VIP), `reverse` (endpoint to client),
//! `lookup` (connection to worker).

use crate::abi::RING_SLOTS;

/// Index of a flow in a ring from its 32-bit hash, without a division the verifier cannot follow.
#[inline(always)]
pub const fn ring_index(hash: u32) -> u32 {
    ((hash as u64 * RING_SLOTS as u64) >> 32) as u32
}
