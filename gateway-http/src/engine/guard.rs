//! Floods: what a peer may do cheaply, counted per second and connection.
//!
//! Each kind has its limit in [`Limits`]; the connection that passes one is ended with ENHANCE_YOUR_CALM
//! (RFC 9113 10.5). Counts are of the current second, so an attack is cut after at most two limits' worth.

use crate::limits::Limits;
use gateway_core::time::Moment;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cheap {
    /// RST_STREAM from the peer for a stream just opened (rapid reset, CVE-2023-44487).
    Reset,
    /// A stream we had to reset because of the peer (MadeYouReset, CVE-2025-8671).
    MadeReset,
    /// PING beyond what DATA to the peer explains.
    Ping,
    Settings,
    /// Frames that do nothing: empty DATA, PRIORITY, unknown types, window updates beyond what DATA explains.
    Idle,
}

/// Counters of one connection.
#[derive(Clone, Copy, Default)]
pub struct Guard {
    second: u32,
    counts: [u32; 5],
}

impl Guard {
    /// Counts one; `false` when that is too many.
    #[inline]
    pub fn allows(&mut self, what: Cheap, limits: &Limits, now: Moment) -> bool {
        let second = (now.nanos() / 1_000_000_000) as u32;
        if second != self.second {
            *self = Guard { second, counts: [0; 5] };
        }
        let (count, max) = match what {
            Cheap::Reset => (&mut self.counts[0], limits.resets_per_second_max),
            Cheap::MadeReset => (&mut self.counts[1], limits.made_resets_per_second_max),
            Cheap::Ping => (&mut self.counts[2], limits.pings_per_second_max),
            Cheap::Settings => (&mut self.counts[3], limits.settings_per_second_max),
            Cheap::Idle => (&mut self.counts[4], limits.idle_frames_per_second_max),
        };
        *count += 1;
        *count <= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_refused_and_the_next_second_starts_anew() {
        let limits = Limits {
            pings_per_second_max: 3,
            ..Limits::default()
        };
        let mut guard = Guard::default();
        let now = Moment::from_millis(5_100);
        for _ in 0..3 {
            assert!(guard.allows(Cheap::Ping, &limits, now));
        }
        assert!(!guard.allows(Cheap::Ping, &limits, now));
        assert!(guard.allows(Cheap::Reset, &limits, now), "kinds are counted apart");
        assert!(guard.allows(Cheap::Ping, &limits, Moment::from_millis(6_000)));
    }
}
