//! SETTINGS (RFC 9113 6.5): what a peer says, checked and typed.

use super::frame::{ErrorCode, PAYLOAD_MAX, WINDOW_DEFAULT, WINDOW_MAX};

/// One parameter, as we send it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    HeaderTableSize(u32),
    EnablePush(bool),
    MaxConcurrentStreams(u32),
    InitialWindowSize(u32),
    MaxFrameSize(u32),
    MaxHeaderListSize(u32),
    /// RFC 8441 3.
    EnableConnectProtocol(bool),
    /// RFC 9218 2.1.
    NoRfc7540Priorities(bool),
}

impl Setting {
    /// Identifier and value.
    pub const fn to_bytes(self) -> [u8; 6] {
        let (id, value) = match self {
            Setting::HeaderTableSize(size) => (1u16, size),
            Setting::EnablePush(on) => (2, on as u32),
            Setting::MaxConcurrentStreams(count) => (3, count),
            Setting::InitialWindowSize(size) => (4, size),
            Setting::MaxFrameSize(size) => (5, size),
            Setting::MaxHeaderListSize(size) => (6, size),
            Setting::EnableConnectProtocol(on) => (8, on as u32),
            Setting::NoRfc7540Priorities(on) => (9, on as u32),
        };
        let [i0, i1] = id.to_be_bytes();
        let [v0, v1, v2, v3] = value.to_be_bytes();
        [i0, i1, v0, v1, v2, v3]
    }
}

/// Most parameters of one frame: six are defined, a client with more than this plays with us.
pub const SETTINGS_MAX: usize = 64;

/// Who sent the frame: a server must not enable push (RFC 9113 6.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    Client,
    Server,
}

/// What a peer allows us at present. Starts with the defaults of RFC 9113 6.5.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerSettings {
    pub header_table_size: u32,
    /// `None` until said: unlimited by the letter, and up to us.
    pub streams_max: Option<u32>,
    pub window: u32,
    /// 16,384 to 16,777,215. We send no larger payload than [`PAYLOAD_MAX`] in any case.
    pub frame_size_max: u32,
    /// `None` until said: advice only.
    pub section_size_max: Option<u32>,
    pub connect_protocol: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table_size: 4096,
            streams_max: None,
            window: WINDOW_DEFAULT,
            frame_size_max: PAYLOAD_MAX as u32,
            section_size_max: None,
            connect_protocol: false,
        }
    }
}

impl PeerSettings {
    /// Takes the parameters of a SETTINGS frame over, in order. On an error the connection ends.
    pub fn apply(&mut self, payload: &[u8], sender: Sender) -> Result<(), ErrorCode> {
        let (parameters, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ErrorCode::FrameSizeError);
        }
        if parameters.len() > SETTINGS_MAX {
            return Err(ErrorCode::EnhanceYourCalm);
        }
        for [i0, i1, value @ ..] in parameters {
            self.one(u16::from_be_bytes([*i0, *i1]), u32::from_be_bytes(*value), sender)?;
        }
        Ok(())
    }

    fn one(&mut self, id: u16, value: u32, sender: Sender) -> Result<(), ErrorCode> {
        match id {
            1 => self.header_table_size = value,
            2 if value > 1 || (value == 1 && sender == Sender::Server) => return Err(ErrorCode::ProtocolError),
            3 => self.streams_max = Some(value),
            4 if i64::from(value) > WINDOW_MAX => return Err(ErrorCode::FlowControlError),
            4 => self.window = value,
            5 if !(PAYLOAD_MAX as u32..1 << 24).contains(&value) => return Err(ErrorCode::ProtocolError),
            5 => self.frame_size_max = value,
            6 => self.section_size_max = Some(value),
            // RFC 8441 3: 0 or 1, and not taken back.
            8 if value > 1 || (value == 0 && self.connect_protocol) => return Err(ErrorCode::ProtocolError),
            8 => self.connect_protocol = value == 1,
            // Unknown parameters are ignored (RFC 9113 6.5.2); we push nothing, so permission to is no news.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(settings: &[(u16, u32)], sender: Sender) -> Result<PeerSettings, ErrorCode> {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let mut peer = PeerSettings::default();
        peer.apply(&payload, sender).map(|()| peer)
    }

    #[test]
    fn values_are_taken_over_and_the_last_one_counts() {
        let peer = apply(
            &[(1, 0), (3, 7), (4, 1), (4, 2), (5, 20_000), (6, 9), (99, 1)],
            Sender::Client,
        );
        let want = PeerSettings {
            header_table_size: 0,
            streams_max: Some(7),
            window: 2,
            frame_size_max: 20_000,
            section_size_max: Some(9),
            connect_protocol: false,
        };
        assert_eq!(peer, Ok(want));
    }

    #[test]
    fn values_out_of_range_end_the_connection() {
        for (id, value, code) in [
            (2, 2, ErrorCode::ProtocolError),
            (4, 1 << 31, ErrorCode::FlowControlError),
            (5, 16_383, ErrorCode::ProtocolError),
            (5, 1 << 24, ErrorCode::ProtocolError),
            (8, 2, ErrorCode::ProtocolError),
        ] {
            assert_eq!(apply(&[(id, value)], Sender::Client), Err(code), "{id} = {value}");
        }
        assert!(apply(&[(2, 1)], Sender::Client).is_ok());
        assert_eq!(
            apply(&[(2, 1)], Sender::Server),
            Err(ErrorCode::ProtocolError),
            "a server cannot allow push"
        );
        assert_eq!(
            apply(&[(8, 1), (8, 0)], Sender::Server),
            Err(ErrorCode::ProtocolError),
            "not taken back"
        );
    }

    #[test]
    fn a_cut_or_overlong_frame_ends_the_connection() {
        assert_eq!(
            PeerSettings::default().apply(&[0; 5], Sender::Client),
            Err(ErrorCode::FrameSizeError)
        );
        assert_eq!(
            apply(&[(99, 0); SETTINGS_MAX + 1], Sender::Client),
            Err(ErrorCode::EnhanceYourCalm)
        );
    }

    #[test]
    fn what_we_write_is_what_a_peer_reads() {
        let mut payload = Vec::new();
        for setting in [
            Setting::HeaderTableSize(1),
            Setting::EnablePush(false),
            Setting::MaxFrameSize(16_384),
        ] {
            payload.extend_from_slice(&setting.to_bytes());
        }
        let mut peer = PeerSettings::default();
        assert_eq!(peer.apply(&payload, Sender::Server), Ok(()));
        assert_eq!((peer.header_table_size, peer.frame_size_max), (1, 16_384));
    }
}
