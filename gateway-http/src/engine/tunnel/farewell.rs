//! What the gateway says to a WebSocket client itself: 1001, Going Away, when it drains (RFC 6455 7.4.1).
//!
//! The word stands between two frames of the endpoint's. After it the endpoint has nothing more to say to this client;
//! the client's own close frame reaches the endpoint, which closes the tunnel as it always does.

use super::super::Engine;
use super::super::connection::{Codec, Connection};
use super::super::stream::{DOWN, Wait};
use crate::websocket::{Frames, GOING_AWAY};

/// The frames to a client, and whether it was told.
#[derive(Default)]
pub(super) struct Words {
    frames: Frames,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// There is nothing to say.
    #[default]
    Silent,
    /// At the end of the frame that is under way.
    Soon,
    Said,
}

/// What becomes of bytes that came.
pub(super) struct Passed {
    /// So many go to the client.
    pub bytes: usize,
    /// Then the farewell.
    pub farewell: bool,
}

impl Words {
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Passed {
        let farewell = match self.stage {
            Stage::Silent => {
                self.frames.follow(bytes);
                false
            }
            Stage::Soon => {
                let used = self.frames.next_boundary(bytes);
                if self.leave() {
                    return Passed {
                        bytes: used,
                        farewell: true,
                    };
                }
                self.frames.follow(&bytes[used..]);
                false
            }
            Stage::Said => {
                return Passed {
                    bytes: 0,
                    farewell: false,
                };
            }
        };
        Passed {
            bytes: bytes.len(),
            farewell,
        }
    }

    /// The gateway leaves; `true` when it can be said here.
    fn leave(&mut self) -> bool {
        if self.frames.is_closed() || self.stage == Stage::Said {
            return false;
        }
        let now = self.frames.at_boundary();
        self.stage = if now { Stage::Said } else { Stage::Soon };
        now
    }
}

impl Engine {
    /// Says farewell to the WebSocket clients on `c`, each at the end of the frame under way.
    pub(in crate::engine) fn leave_tunnels(&mut self, c: &mut Connection) {
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        match &c.codec {
            Codec::Http2(http2) => indices.extend(http2.ids.values()),
            Codec::Http1(http1) => indices.extend(http1.stream),
            Codec::Detecting => {}
        }
        for index in &indices {
            self.leave_tunnel(c, *index);
        }
        self.indices = indices;
    }

    pub(super) fn leave_tunnel(&mut self, c: &mut Connection, index: u32) {
        let tunnel = self.streams[index].tunnel.as_mut().filter(|tunnel| tunnel.is_open());
        if tunnel
            .and_then(|tunnel| tunnel.words.as_mut())
            .is_some_and(Words::leave)
        {
            self.say_going_away(c, index);
        }
    }

    /// The farewell, behind what waits for the client already.
    pub(super) fn say_going_away(&mut self, c: &mut Connection, index: u32) {
        let stream = &mut self.streams[index];
        let leg = &mut stream.legs[DOWN];
        if leg.sent_end || leg.pending_end {
            return;
        }
        stream.bytes_down += GOING_AWAY.len() as u64;
        self.pool.arm(&mut leg.pending);
        leg.pending.extend_from_slice(&GOING_AWAY);
        // Nobody sent it: nobody gets credit for it.
        leg.surplus -= GOING_AWAY.len() as isize;
        if leg.wait == Wait::No {
            self.pump_and_wait(c, index, DOWN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farewell_stands_between_frames_and_nothing_after_it() {
        let mut words = Words::default();
        assert_eq!(words.pass(&[0x81, 5, b'h', b'e']).bytes, 4);
        assert!(!words.leave(), "in the middle of a frame");
        let passed = words.pass(b"l");
        assert_eq!((passed.bytes, passed.farewell), (1, false));
        let passed = words.pass(&[b'l', b'o', 0x81, 1, b'x']);
        assert_eq!((passed.bytes, passed.farewell), (2, true));
        assert_eq!(words.pass(&[0x81, 1, b'x']).bytes, 0);
        assert!(!words.leave(), "once");
    }

    #[test]
    fn who_closes_already_is_not_interrupted() {
        let mut words = Words::default();
        words.pass(&GOING_AWAY);
        assert!(!words.leave());
        assert_eq!(words.pass(b"x").bytes, 1);
    }
}
