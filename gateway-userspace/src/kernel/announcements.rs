//! Which addresses the neighbours still have to be told about, and when.
//!
//! Nobody acknowledges an announcement and any of them may be lost, so each address is announced some times.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often an address is announced (RFC 5227 section 1.1, `ANNOUNCE_NUM`, plus one).
const ROUNDS: u8 = 3;
/// Between two of them (`ANNOUNCE_INTERVAL` is 2 s; switches learn sooner from this).
const INTERVAL: Duration = Duration::from_secs(1);

/// Announcements that are due. Holds no more addresses than the gateway has.
#[derive(Debug, Default)]
pub struct Announcements {
    waiting: BTreeMap<IpAddr, (u8, Instant)>,
    /// That it is not permitted was said.
    told: bool,
}

impl Announcements {
    /// From now on `addresses` are ours; those that were not before are announced.
    pub fn set<'a>(
        &mut self,
        new: impl Iterator<Item = &'a IpAddr>,
        gone: impl Iterator<Item = &'a IpAddr>,
        now: Instant,
    ) {
        for addr in gone {
            self.waiting.remove(addr);
        }
        self.waiting.extend(new.map(|addr| (*addr, (ROUNDS, now))));
    }

    /// The addresses to announce at `now`.
    pub fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut due = Vec::new();
        self.waiting.retain(|addr, (left, at)| {
            if now >= *at {
                due.push(*addr);
                (*left, *at) = (*left - 1, now + INTERVAL);
            }
            *left > 0
        });
        due
    }

    /// Whether a failure should be said: the first of them is enough.
    pub fn first_failure(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_announced_some_times_and_no_more_once_it_is_gone() {
        let (a, b): (IpAddr, IpAddr) = ("198.18.0.10".parse().unwrap(), "2001:2::a".parse().unwrap());
        let start = Instant::now();
        let mut announcements = Announcements::default();
        announcements.set([a, b].iter(), [].iter(), start);
        assert_eq!(announcements.due(start), [a, b]);
        assert!(announcements.due(start).is_empty());
        announcements.set([].iter(), [b].iter(), start);
        for round in 1..u32::from(ROUNDS) {
            assert_eq!(announcements.due(start + INTERVAL * round), [a]);
        }
        assert!(announcements.due(start + INTERVAL * 9).is_empty());
    }
}
