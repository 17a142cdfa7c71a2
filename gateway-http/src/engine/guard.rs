//! Floods: what a peer may do cheaply, counted per connection.
//!
//! # Laws
//! * Every kind has its bound in [`Limits`] and its word in [`Flood`]; who goes over it loses the connection.
//! * What a peer does in answer to us (WINDOW_UPDATE, PING for DATA), or pays for with requests that are served, is
//!   covered by that: a busy honest connection never runs into a bound that a quiet one keeps.
//! * Nothing here costs a request that behaves: a DATA frame is one comparison, the rest is asked when such a frame
//!   comes.

use crate::flood::Flood;
use crate::limits::Limits;
use gateway_core::time::Moment;
use std::time::Duration;

/// DATA of at most this many bytes costs more to handle than it carries.
pub const SMALL_DATA_BYTES: usize = 16;
/// A stream that is reset younger than this was reset prematurely.
pub const PREMATURE: Duration = Duration::from_secs(1);
/// Resets around a call's own deadline are no flood when the call was older than this, and as early or late as this.
pub const OVERDUE: Duration = Duration::from_millis(20);
/// WINDOW_UPDATE that are free, and what the streams and the DATA to the peer are counted for, as in Envoy.
const UPDATES_FREE: u64 = 5;
const UPDATES_PER_UNIT: u64 = 2;

/// `burst` at once, and `per_second` more: when the bucket is full again says how full it is now.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bucket {
    full_at: u64,
}

impl Bucket {
    fn step(per_second: u32) -> u64 {
        1_000_000_000 / u64::from(per_second.max(1))
    }

    /// Takes one; `false`, and nothing taken, when it is empty.
    pub fn take(&mut self, burst: u32, per_second: u32, now: Moment) -> bool {
        let step = Self::step(per_second);
        let full_at = self.full_at.max(now.nanos()).saturating_add(step);
        let allowed = full_at - now.nanos() <= step.saturating_mul(u64::from(burst));
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }

    /// Puts `count` back.
    pub fn put(&mut self, count: u64, per_second: u32) {
        let back = Self::step(per_second).saturating_mul(count);
        self.full_at = self.full_at.saturating_sub(back);
    }
}

/// How much of something grew since it was looked at last.
fn grown(seen: &mut u64, now: u64) -> u64 {
    now.saturating_sub(std::mem::replace(seen, now.max(*seen)))
}

/// A reset stream, and the streams of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    /// Its request was not answered yet, and its deadline was not near.
    pub unanswered: bool,
    /// It was over already: the answer and the reset crossed.
    pub late: bool,
    /// It lived for less than [`PREMATURE`].
    pub young: bool,
    /// Streams of the connection that ended, this one included.
    pub ended: u64,
}

/// What one connection did.
#[derive(Clone, Copy, Default)]
pub struct Guard {
    resets: Bucket,
    made_resets: Bucket,
    refused: Bucket,
    pings: Bucket,
    settings: Bucket,
    small: Bucket,
    resets_total: u64,
    late_total: u64,
    premature_total: u64,
    served_seen: u64,
    updates_total: u64,
    /// DATA frames that went to the peer, and how many of them have covered something.
    data_sent: u64,
    data_spent: u64,
    data_seen: u64,
    priorities_total: u64,
    unknown_total: u64,
    empty_in_a_row: u32,
}

/// Within the bound, or which one is passed.
pub type Verdict = Result<(), Flood>;

fn within(allowed: bool, flood: Flood) -> Verdict {
    if allowed { Ok(()) } else { Err(flood) }
}

impl Guard {
    /// A DATA frame goes to the peer.
    #[inline]
    pub fn data_sent(&mut self) {
        self.data_sent += 1;
    }

    /// RST_STREAM. Streams that were served give back what resets took: a proxy in front of us that cancels a
    /// hundredth of a great many requests is no attacker.
    pub fn reset(&mut self, reset: Reset, limits: &Limits, now: Moment) -> Verdict {
        let (burst, rate) = (limits.resets_burst_max, limits.resets_per_second_max);
        if reset.late {
            // A stream can be over and be reset once.
            self.late_total += 1;
            return within(self.late_total <= reset.ended + u64::from(burst), Flood::Resets);
        }
        self.resets_total += 1;
        self.premature_total += u64::from(reset.young);
        let served = reset.ended.saturating_sub(self.resets_total);
        let back = grown(&mut self.served_seen, served);
        self.resets.put(back, limits.resets_per_second_max);
        if reset.ended >= u64::from(limits.premature_streams_min) && self.premature_total * 2 > reset.ended {
            return Err(Flood::PrematureResets);
        }
        within(!reset.unanswered || self.resets.take(burst, rate, now), Flood::Resets)
    }

    /// A stream is reset because of what the peer did.
    pub fn made_reset(&mut self, limits: &Limits, now: Moment) -> Verdict {
        let (burst, rate) = (limits.made_resets_burst_max, limits.made_resets_per_second_max);
        within(self.made_resets.take(burst, rate, now), Flood::MadeResets)
    }

    /// A stream above the limit.
    pub fn refused(&mut self, limits: &Limits, now: Moment) -> Verdict {
        let (burst, rate) = (limits.refused_burst_max, limits.refused_per_second_max);
        within(self.refused.take(burst, rate, now), Flood::RefusedStreams)
    }

    /// Whether a DATA frame that went to the peer explains one more frame of its.
    fn covered(&mut self) -> bool {
        let covered = self.data_spent < self.data_sent;
        self.data_spent += u64::from(covered);
        covered
    }

    /// PING: beyond its rate it must measure the DATA it gets, as gRPC's peers do.
    pub fn ping(&mut self, limits: &Limits, now: Moment) -> Verdict {
        let (burst, rate) = (limits.pings_burst_max, limits.pings_per_second_max);
        within(self.pings.take(burst, rate, now) || self.covered(), Flood::Pings)
    }

    /// SETTINGS: the same, because the window follows what is measured.
    pub fn settings(&mut self, limits: &Limits, now: Moment) -> Verdict {
        let (burst, rate) = (limits.settings_burst_max, limits.settings_per_second_max);
        within(self.settings.take(burst, rate, now) || self.covered(), Flood::Settings)
    }

    /// PRIORITY, on a connection that opened so many streams.
    pub fn priority(&mut self, streams: u64, limits: &Limits) -> Verdict {
        self.priorities_total += 1;
        let max = u64::from(limits.idle_frames_per_stream_max) * (1 + streams);
        within(self.priorities_total <= max, Flood::Priorities)
    }

    /// A frame that means nothing to us.
    pub fn unknown(&mut self, streams: u64, limits: &Limits) -> Verdict {
        self.unknown_total += 1;
        let max = u64::from(limits.idle_frames_per_stream_max) * (1 + streams);
        within(self.unknown_total <= max, Flood::UnknownFrames)
    }

    /// WINDOW_UPDATE: two for every stream, and so many for every DATA frame to the peer.
    pub fn window_update(&mut self, streams: u64, limits: &Limits) -> Verdict {
        self.updates_total += 1;
        let answers = u64::from(limits.updates_per_data_max).saturating_mul(self.data_sent);
        let max = UPDATES_PER_UNIT
            .saturating_mul(streams.saturating_add(answers))
            .saturating_add(UPDATES_FREE);
        within(self.updates_total <= max, Flood::WindowUpdates)
    }

    /// DATA of `len` bytes that ends nothing. Small ones are paid for by time, by larger ones and by DATA to the peer:
    /// a stream of small messages goes on for ever, a flood of them does not.
    #[inline]
    pub fn data(&mut self, len: usize, limits: &Limits, now: Moment) -> Verdict {
        if len > SMALL_DATA_BYTES {
            self.empty_in_a_row = 0;
            if self.small.full_at > now.nanos() {
                self.small
                    .put((len / SMALL_DATA_BYTES) as u64, limits.small_data_per_second_max);
            }
            return Ok(());
        }
        self.small_data(len, limits, now)
    }

    #[cold]
    fn small_data(&mut self, len: usize, limits: &Limits, now: Moment) -> Verdict {
        if len == 0 {
            self.empty_in_a_row += 1;
            return within(self.empty_in_a_row <= limits.empty_data_max, Flood::EmptyData);
        }
        self.empty_in_a_row = 0;
        let (burst, rate) = (limits.small_data_burst_max, limits.small_data_per_second_max);
        let back = grown(&mut self.data_seen, self.data_sent);
        self.small.put(back, rate);
        within(self.small.take(burst, rate, now), Flood::SmallData)
    }

    /// A head came: empty DATA before it was another message's.
    #[inline]
    pub fn head(&mut self) {
        self.empty_in_a_row = 0;
    }
}

/// Frames queued on a connection since its output was empty, or since what was queued then has gone. DATA is not
/// counted: it stops at `out_bytes_max` and waits at its sender.
#[derive(Clone, Copy, Default, Debug)]
pub struct Queue {
    pub control: u32,
    pub heads: u32,
    /// Where in the connection's output what was queued at the last look ends.
    mark: u64,
}

impl Queue {
    /// Everything is out.
    #[inline]
    pub fn drained(&mut self) {
        (self.control, self.heads) = (0, 0);
    }

    /// Whether a look is due.
    #[inline]
    pub fn is_long(&self, limits: &Limits) -> bool {
        self.control > limits.control_frames_max / 2 || self.heads > limits.out_heads_max / 2
    }

    /// A look at a long queue: the bytes written so far, and those that wait. Half a bound is counted anew when what
    /// was there at the last look has gone; a peer that reads is never ended, one that does not is at the bound.
    pub fn look(&mut self, written: u64, waiting: usize, limits: &Limits) -> Verdict {
        if self.mark <= written {
            *self = Queue {
                mark: written + waiting as u64,
                ..Queue::default()
            };
            return Ok(());
        }
        let control = self.control > limits.control_frames_max / 2;
        Err(if control {
            Flood::OutboundControl
        } else {
            Flood::OutboundHeads
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate_and_never_more_than_its_burst_again() {
        let mut bucket = Bucket::default();
        let takes = |bucket: &mut Bucket, ms: u64| (0..1000).take_while(|_| bucket.take(100, 50, at(ms))).count();
        assert_eq!(takes(&mut bucket, 5_000), 100);
        assert_eq!(takes(&mut bucket, 5_019), 0);
        assert_eq!(takes(&mut bucket, 5_020), 1);
        assert_eq!(takes(&mut bucket, 6_020), 50);
        assert_eq!(takes(&mut bucket, 99_000), 100);
        bucket.put(7, 50);
        assert_eq!(takes(&mut bucket, 99_000), 7);
        bucket.put(1_000_000, 50);
        assert_eq!(takes(&mut bucket, 99_000), 100);
    }

    #[test]
    fn resets_are_cut_behind_their_burst_but_not_those_of_a_client_that_is_served() {
        let limits = Limits::default();
        let reset = |ended| Reset {
            unanswered: true,
            late: false,
            young: false,
            ended,
        };
        let mut guard = Guard::default();
        let cut = (1..1000).find(|n| guard.reset(reset(*n), &limits, at(1_000)).is_err());
        assert_eq!(cut, Some(101));
        // One of two requests is served.
        let mut guard = Guard::default();
        assert!((1..100_000).all(|n| guard.reset(reset(2 * n), &limits, at(1_000)).is_ok()));
    }

    #[test]
    fn an_answer_and_a_reset_may_cross_once_for_each_stream() {
        let (mut guard, limits) = (Guard::default(), Limits::default());
        let late = |ended| Reset {
            unanswered: false,
            late: true,
            young: false,
            ended,
        };
        for ended in 1..=10_000 {
            assert_eq!(guard.reset(late(ended), &limits, Moment::ZERO), Ok(()));
        }
        for _ in 0..limits.resets_burst_max {
            assert_eq!(guard.reset(late(10_000), &limits, Moment::ZERO), Ok(()));
        }
        assert_eq!(guard.reset(late(10_000), &limits, Moment::ZERO), Err(Flood::Resets));
    }

    #[test]
    fn resetting_most_streams_young_is_cut_after_enough_of_them() {
        let limits = Limits {
            resets_burst_max: 1_000_000,
            ..Limits::default()
        };
        let reset = |ended| Reset {
            unanswered: false,
            late: false,
            young: true,
            ended,
        };
        let mut guard = Guard::default();
        let cut = (1..10_000).find(|n| guard.reset(reset(*n), &limits, at(1_000)).is_err());
        assert_eq!(cut, Some(500));
        let mut guard = Guard::default();
        assert!((1..10_000).all(|n| guard.reset(reset(2 * n), &limits, at(1_000)).is_ok()));
    }

    #[test]
    fn pings_and_settings_have_a_burst_and_then_must_be_answers_to_data() {
        let limits = Limits::default();
        let mut guard = Guard::default();
        assert_eq!((0..100).take_while(|_| guard.ping(&limits, at(0)).is_ok()).count(), 20);
        assert_eq!(
            (0..100).take_while(|_| guard.settings(&limits, at(0)).is_ok()).count(),
            10
        );
        assert_eq!(guard.settings(&limits, at(999)), Err(Flood::Settings));
        assert_eq!(guard.settings(&limits, at(1_000)), Ok(()));
        guard.data_sent();
        assert_eq!(guard.ping(&limits, at(0)), Ok(()));
        assert_eq!(guard.ping(&limits, at(0)), Err(Flood::Pings));
    }

    #[test]
    fn window_updates_and_priorities_are_measured_by_streams_and_data() {
        let limits = Limits::default();
        let mut guard = Guard::default();
        let updates = |guard: &mut Guard, streams| {
            (0..1000)
                .take_while(|_| guard.window_update(streams, &limits).is_ok())
                .count()
        };
        assert_eq!(updates(&mut guard, 0), 5);
        guard.updates_total = 0;
        guard.data_sent();
        assert_eq!(updates(&mut guard, 3), 5 + 2 * (3 + 10));
        let priorities = (0..10_000).take_while(|_| guard.priority(2, &limits).is_ok()).count();
        assert_eq!(priorities, 300);
        let unknown = (0..10_000).take_while(|_| guard.unknown(0, &limits).is_ok()).count();
        assert_eq!(unknown, 100);
    }

    #[test]
    fn empty_data_is_counted_in_a_row() {
        let limits = Limits::default();
        let mut guard = Guard::default();
        for _ in 0..10 {
            assert!((0..100).all(|_| guard.data(0, &limits, at(0)).is_ok()));
            guard.data(17, &limits, at(0)).expect("useful");
        }
        assert!((0..100).all(|_| guard.data(0, &limits, at(0)).is_ok()));
        assert_eq!(guard.data(0, &limits, at(0)), Err(Flood::EmptyData));
    }

    #[test]
    fn small_data_floods_are_cut_and_streams_of_small_messages_are_not() {
        let limits = Limits::default();
        let mut flood = Guard::default();
        let count = (0..100_000)
            .take_while(|_| flood.data(1, &limits, at(0)).is_ok())
            .count();
        assert_eq!(count, 25_600);
        // 100,000 messages in ten seconds, one way.
        let mut slow = Guard::default();
        assert!((0..100_000).all(|n| slow.data(8, &limits, at(n / 10)).is_ok()));
        // As fast as the answers come.
        let mut answered = Guard::default();
        for _ in 0..200_000 {
            answered.data(8, &limits, at(0)).expect("answered");
            answered.data_sent();
        }
        // Between larger ones.
        let mut mixed = Guard::default();
        for _ in 0..100_000 {
            mixed.data(1, &limits, at(0)).expect("paid for");
            mixed.data(32, &limits, at(0)).expect("large");
        }
    }

    #[test]
    fn a_queue_is_too_long_only_when_nothing_of_it_goes() {
        let limits = Limits::default();
        let mut unread = Queue::default();
        let mut waiting = 0;
        let cut = (1..10_000).find(|_| {
            unread.control += 1;
            waiting += 17;
            unread.is_long(&limits) && unread.look(0, waiting, &limits).is_err()
        });
        assert_eq!(cut, Some(limits.control_frames_max as usize + 2));
        let mut read = Queue::default();
        for n in 1..100_000_u64 {
            read.control += 1;
            if read.is_long(&limits) {
                read.look(n * 17, 300 * 17, &limits)
                    .expect("what waited at the last look is out");
            }
        }
    }
}
