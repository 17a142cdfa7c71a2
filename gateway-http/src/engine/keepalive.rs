//! Whether the endpoint of a silent HTTP/2 connection lives: PING, and how long its answer may take (RFC 9113 6.7). And
//! connections that have lived long enough.
//!
//! # Laws
//! * A connection is asked only while it has streams and nothing comes from its peer; whatever comes is an answer.
//! * Nothing here is done when bytes come: the connection's timer compares counters.
//! * gRPC servers end a connection that PINGs more than twice within five minutes without their having sent anything
//!   in between (grpc/doc/keepalive.md, `too_many_pings`). So an endpoint gets one PING after each sign of life, and
//!   further ones only every [`QUIET_INTERVAL`].

use super::Engine;
use super::connection::{Closing, Codec, Connection};
use super::http2::Progress;
use crate::h2::frame;
use gateway_core::time::Moment;
use std::time::Duration;

/// Between PINGs to an endpoint that sends nothing but their answers.
pub const QUIET_INTERVAL: Duration = Duration::from_secs(310);
/// What our PINGs carry.
const OPAQUE: [u8; 8] = *b"sluice\0\x01";

/// What the timer has to do.
enum Next {
    Nothing,
    Ask,
    GiveUp,
}

impl Engine {
    /// When the peer has to be looked at.
    pub(super) fn keepalive_due(&self, c: &Connection) -> Option<Moment> {
        let interval = self.keepalive_interval(c)?;
        let Codec::Http2(http2) = &c.codec else { return None };
        let keepalive = &http2.keepalive;
        Some(match (keepalive.asked, keepalive.last) {
            (Some(asked), _) => asked + self.limits.ping_timeout,
            (None, Some((last, progress))) if progress == progress_of(c) => {
                (keepalive.heard.max(c.opened) + interval).max(last + QUIET_INTERVAL)
            }
            (None, _) => keepalive.heard.max(c.opened) + interval,
        })
    }

    fn keepalive_interval(&self, c: &Connection) -> Option<Duration> {
        if c.is_downstream() || c.is_connecting() || c.closing != Closing::No {
            return None;
        }
        self.limits.upstream_ping_interval
    }

    /// The connection's timer fired; `false` when the connection is lost by that.
    pub(super) fn keep_alive(&mut self, c: &mut Connection) -> bool {
        let now = self.now;
        let due = self.keepalive_due(c).is_some_and(|due| due <= now);
        let (bytes, streams) = (c.bytes_in, c.streams);
        let progress = progress_of(c);
        let Codec::Http2(http2) = &mut c.codec else { return true };
        let keepalive = &mut http2.keepalive;
        let next = if bytes != keepalive.bytes || (streams == 0 && keepalive.asked.is_none()) {
            keepalive.bytes = bytes;
            keepalive.heard = now;
            keepalive.asked = None;
            Next::Nothing
        } else if !due {
            Next::Nothing
        } else if keepalive.asked.is_some() {
            Next::GiveUp
        } else {
            keepalive.asked = Some(now);
            keepalive.last = Some((now, progress));
            Next::Ask
        };
        match next {
            Next::Nothing => true,
            Next::Ask => {
                frame::put_ping(c.out.tail(&mut self.pool), OPAQUE);
                self.turn.mark(c);
                true
            }
            Next::GiveUp => {
                self.metrics.keepalive_timeouts_total += 1;
                self.kill(c, true);
                false
            }
        }
    }

    /// A PING's answer came; `false` when it is to none of ours.
    pub(super) fn on_ping_answer(&mut self, c: &mut Connection, opaque: [u8; 8]) -> bool {
        let (now, bytes) = (self.now, c.bytes_in);
        let keepalive = &mut c.http2().keepalive;
        let ours = keepalive.asked.is_some() && opaque == OPAQUE;
        if ours {
            keepalive.bytes = bytes;
            keepalive.heard = now;
            keepalive.asked = None;
        }
        ours
    }

    // === Age ===

    /// When a downstream connection is to be told to go. Connections that came together do not go together: each has a
    /// share of up to a tenth more, by its number.
    pub(super) fn age_due(&self, c: &Connection) -> Option<Moment> {
        let age = self.limits.connection_age_max?;
        let later = age / 10 * (c.serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u32 / 256;
        c.is_downstream().then(|| c.opened + age + later)
    }
}

fn progress_of(c: &Connection) -> Progress {
    match &c.codec {
        Codec::Http2(http2) => (
            http2.recv_window,
            http2.unacked,
            c.streams_total.wrapping_sub(u64::from(c.streams)),
        ),
        Codec::Http1(_) | Codec::Detecting => (0, 0, 0),
    }
}
