//! HTTP/2 frames that carry no message: SETTINGS, PING, RST_STREAM, WINDOW_UPDATE, GOAWAY, PRIORITY.

use super::Engine;
use super::connection::Connection;
use super::guard::{OVERDUE, PREMATURE, Reset};
use super::http2::broken;
use super::read::Done;
use super::stream::{DOWN, UP, Wait};
use crate::h2::frame::{self, ErrorCode, Header, Kind, WINDOW_MAX, flags};
use crate::h2::settings::Sender;
use gateway_core::fault::Fault;
use gateway_core::model::Side;

impl Engine {
    pub(super) fn on_control(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        match header.kind {
            Kind::Settings => self.on_settings(c, header, bytes),
            Kind::WindowUpdate => self.on_window_update(c, header, bytes),
            Kind::RstStream => self.on_rst_stream(c, header, bytes),
            Kind::Ping => self.on_ping(c, header, bytes),
            Kind::GoAway => self.on_goaway(c, header, bytes),
            Kind::Priority => self.on_priority(c, header, bytes),
            Kind::PushPromise => broken(ErrorCode::ProtocolError, "PUSH_PROMISE was not permitted"),
            // RFC 9113 5.5: ignored.
            Kind::Unknown(_) => self.on_unknown(c),
            Kind::Data | Kind::Headers | Kind::Continuation => Ok(()),
        }
    }

    /// A frame that means nothing to us.
    fn on_unknown(&mut self, c: &mut Connection) -> Done {
        let streams = c.streams_total;
        let verdict = c.http2().guard.unknown(streams, &self.limits);
        self.keep_calm(verdict)
    }

    /// RFC 9113 6.5.
    fn on_settings(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        if header.stream != 0 {
            return broken(ErrorCode::ProtocolError, "SETTINGS on a stream");
        }
        let side = c.side();
        let http2 = c.http2();
        if let Err(flood) = http2.guard.settings(&self.limits, self.now) {
            return self.flood(flood);
        }
        if header.has(flags::ACK) {
            return if bytes.is_empty() {
                Ok(())
            } else {
                broken(ErrorCode::FrameSizeError, "SETTINGS acknowledgement with a payload")
            };
        }
        let sender = if side == Side::Downstream {
            Sender::Client
        } else {
            Sender::Server
        };
        let before = http2.peer.window;
        if let Err(code) = http2.peer.apply(bytes, sender) {
            return broken(code, "malformed SETTINGS");
        }
        http2.settings_seen = true;
        http2.settings_changed();
        let delta = i64::from(http2.peer.window) - i64::from(before);
        http2.queue.control += 1;
        frame::put_settings_ack(c.out.tail(&mut self.pool));
        self.turn.mark(c);
        if delta != 0 {
            self.shift_windows(c, delta)?;
        }
        if side == Side::Upstream {
            let id = c.id;
            self.open_waiting(c, id);
        }
        Ok(())
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE changed: so do the windows of all open streams (RFC 9113 6.9.2).
    fn shift_windows(&mut self, c: &mut Connection, delta: i64) -> Done {
        let me = if c.is_downstream() { DOWN } else { UP };
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        indices.extend(c.http2().ids.values());
        let mut done = Ok(());
        for index in &indices {
            let key = self.streams.key(*index);
            let leg = &mut self.streams[*index].legs[me];
            leg.send_window += delta;
            if leg.send_window > WINDOW_MAX {
                done = broken(ErrorCode::FlowControlError, "SETTINGS make a window too large");
                break;
            }
            if leg.wait == Wait::Stream && leg.send_window > 0 {
                leg.wait = Wait::Connection;
                c.wait_in_ring(key);
            }
        }
        self.indices = indices;
        done?;
        self.pump_ring(c);
        Ok(())
    }

    /// RFC 9113 6.9.
    fn on_window_update(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        let (4, Some(increment)) = (bytes.len(), frame::u31(bytes)) else {
            return broken(ErrorCode::FrameSizeError, "WINDOW_UPDATE has four bytes");
        };
        let side = c.side();
        let streams = c.streams_total;
        let http2 = c.http2();
        if let Err(flood) = http2.guard.window_update(streams, &self.limits) {
            return self.flood(flood);
        }
        if header.stream == 0 {
            if increment == 0 {
                return broken(ErrorCode::ProtocolError, "a window update of nothing");
            }
            http2.send_window += i64::from(increment);
            if http2.send_window > WINDOW_MAX {
                return broken(ErrorCode::FlowControlError, "the connection's window is too large");
            }
            self.pump_ring(c);
            return Ok(());
        }
        let Some(index) = http2.ids.get(header.stream) else {
            return if http2.is_idle(header.stream, side) {
                broken(ErrorCode::ProtocolError, "WINDOW_UPDATE on an idle stream")
            } else {
                Ok(())
            };
        };
        if increment == 0 {
            return self.stream_error(c, header.stream, ErrorCode::ProtocolError);
        }
        let me = if side == Side::Downstream { DOWN } else { UP };
        let key = self.streams.key(index);
        let leg = &mut self.streams[index].legs[me];
        leg.send_window += i64::from(increment);
        if leg.send_window > WINDOW_MAX {
            return self.stream_error(c, header.stream, ErrorCode::FlowControlError);
        }
        match leg.wait {
            Wait::Stream if leg.send_window > 0 => {
                leg.wait = Wait::Connection;
                c.wait_in_ring(key);
                self.pump_ring(c);
            }
            Wait::Stream | Wait::Connection | Wait::Answer | Wait::No => {}
        }
        Ok(())
    }

    /// RFC 9113 6.4.
    fn on_rst_stream(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        if header.stream == 0 {
            return broken(ErrorCode::ProtocolError, "RST_STREAM on stream 0");
        }
        let Ok(code) = <[u8; 4]>::try_from(bytes) else {
            return broken(ErrorCode::FrameSizeError, "RST_STREAM has four bytes");
        };
        let side = c.side();
        let http2 = c.http2();
        if http2.is_idle(header.stream, side) {
            return broken(ErrorCode::ProtocolError, "RST_STREAM on an idle stream");
        }
        let me = if side == Side::Downstream { DOWN } else { UP };
        let index = http2.ids.get(header.stream);
        if me == DOWN {
            let reset = match index.map(|index| &self.streams[index]) {
                Some(stream) => {
                    let age = self.now.since(stream.started);
                    // The client's clock and ours end a call at the same time, within some milliseconds.
                    let overdue =
                        age >= OVERDUE && stream.deadline.is_some_and(|deadline| self.now + OVERDUE >= deadline);
                    Reset {
                        unanswered: !stream.legs[DOWN].sent_head && !overdue,
                        young: age < PREMATURE && !overdue,
                        late: false,
                        ended: c.streams_total - u64::from(c.streams) + 1,
                    }
                }
                None => Reset {
                    unanswered: false,
                    young: false,
                    late: true,
                    ended: c.streams_total - u64::from(c.streams),
                },
            };
            let verdict = c.http2().guard.reset(reset, &self.limits, self.now);
            self.keep_calm(verdict)?;
        }
        if let Some(index) = index {
            self.on_reset(c, index, me, ErrorCode::from_code(u32::from_be_bytes(code)));
        }
        Ok(())
    }

    /// RFC 9113 6.7.
    fn on_ping(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        if header.stream != 0 {
            return broken(ErrorCode::ProtocolError, "PING on a stream");
        }
        let Ok(opaque) = <[u8; 8]>::try_from(bytes) else {
            return broken(ErrorCode::FrameSizeError, "PING has eight bytes");
        };
        if header.has(flags::ACK) && (self.on_probe_answer(c, opaque) || self.on_ping_answer(c, opaque)) {
            return Ok(());
        }
        let http2 = c.http2();
        if let Err(flood) = http2.guard.ping(&self.limits, self.now) {
            return self.flood(flood);
        }
        if !header.has(flags::ACK) {
            http2.queue.control += 1;
            frame::put_ping_ack(c.out.tail(&mut self.pool), opaque);
            self.turn.mark(c);
        }
        Ok(())
    }

    /// RFC 9113 6.8.
    fn on_goaway(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        if header.stream != 0 {
            return broken(ErrorCode::ProtocolError, "GOAWAY on a stream");
        }
        let Some((last, _)) = frame::goaway(bytes) else {
            return broken(ErrorCode::FrameSizeError, "GOAWAY has at least eight bytes");
        };
        if c.is_downstream() {
            // The client opens nothing new; what it has goes on.
            if c.streams == 0 {
                Self::close_after_flush(c, &mut self.turn);
            }
            return self.on_unknown(c);
        }
        self.retire(c);
        self.move_waiting(c);
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        indices.extend(c.http2().ids.values());
        // They go again in the order they came in.
        indices.sort_unstable_by_key(|index| self.streams[*index].legs[UP].id);
        for index in &indices {
            let stream = &mut self.streams[*index];
            let leg = &mut stream.legs[UP];
            if stream.live && leg.conn == Some(c.id) && leg.id > last {
                // Not processed, and known to be so on both sides: no RST_STREAM.
                leg.received_end = true;
                leg.sent_end = true;
                self.fail(c, *index, Fault::Refused);
            }
        }
        self.indices = indices;
        Ok(())
    }

    /// Streams that waited to be opened on `c` go elsewhere.
    pub(super) fn move_waiting(&mut self, c: &mut Connection) {
        while let Some(key) = c.http2().waiting.pop_front() {
            if self.waits_on(key, c.id) {
                self.fail(c, key.index, Fault::Refused);
            }
        }
    }

    /// RFC 9113 6.3: deprecated, checked, ignored.
    fn on_priority(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        if header.stream == 0 {
            return broken(ErrorCode::ProtocolError, "PRIORITY on stream 0");
        }
        if bytes.len() != 5 {
            return self.stream_error(c, header.stream, ErrorCode::FrameSizeError);
        }
        if frame::u31(bytes) == Some(header.stream) {
            return self.stream_error(c, header.stream, ErrorCode::ProtocolError);
        }
        let streams = c.streams_total;
        let verdict = c.http2().guard.priority(streams, &self.limits);
        self.keep_calm(verdict)
    }
}
