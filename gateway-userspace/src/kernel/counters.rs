//! Verdicts of the programs, by VIP and reason, summed over the CPUs.

use super::load::Maps;
use gateway_common::abi::counters::{NO_VIP, REASONS};
use gateway_common::abi::{Reason, counter_index};
use std::io;

/// The cells of these VIPs and of packets that belong to none, those that are not zero.
pub fn read(maps: &Maps, vips: impl Iterator<Item = u32>) -> io::Result<Vec<(u32, Reason, u64)>> {
    let mut counters = Vec::new();
    for vip in vips.chain([NO_VIP]) {
        let cells = maps.counters.sums(vip * REASONS, Reason::ALL.len() as u32)?;
        debug_assert_eq!(counter_index(vip, Reason::ALL[0]), vip * REASONS);
        let named = Reason::ALL.into_iter().zip(cells).filter(|(_, packets)| *packets > 0);
        counters.extend(named.map(|(reason, packets)| (vip, reason, packets)));
    }
    Ok(counters)
}
