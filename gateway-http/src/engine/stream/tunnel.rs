//! A tunnel that a stream is asked for or has (`engine/tunnel.rs` works in it).

use super::words::Words;
use gateway_core::time::Moment;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// The protocols in `upgrade`.
    Protocol,
    /// CONNECT.
    Connect,
}

/// How far it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Asked,
    Open,
    /// The endpoint answered as it would any request.
    Refused,
}

/// A stream's tunnel, asked for or open.
pub struct Tunnel {
    pub(in crate::engine) asked: Asked,
    pub(in crate::engine) stage: Stage,
    /// What the endpoint must answer to a key that is not the client's.
    pub(in crate::engine) accept: Option<[u8; 28]>,
    /// What is said in it by the gateway itself; WebSocket only.
    pub(in crate::engine) words: Option<Words>,
    /// When bytes went through last.
    pub(in crate::engine) active: Moment,
}

impl Tunnel {
    pub(in crate::engine) fn new(asked: Asked, now: Moment) -> Box<Self> {
        Box::new(Self {
            asked,
            stage: Stage::Asked,
            accept: None,
            words: None,
            active: now,
        })
    }

    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    pub fn is_refused(&self) -> bool {
        self.stage == Stage::Refused
    }

    /// For the admin.
    pub fn kind(&self) -> &'static str {
        match (self.stage, self.asked, &self.words) {
            (Stage::Asked | Stage::Refused, _, _) => "request",
            (Stage::Open, Asked::Connect, _) => "connect",
            (Stage::Open, Asked::Protocol, Some(_)) => "websocket",
            (Stage::Open, Asked::Protocol, None) => "upgrade",
        }
    }
}
