//! Every bound of the engine, by name. Defaults are what a public listener should run with.

use std::time::Duration;

/// Bounds of one worker's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Downstream connections of one worker.
    pub connections_max: usize,
    /// Streams open at once on a downstream connection (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub streams_max: u32,
    /// Flow-control window of a stream, bytes: a promise of memory.
    pub stream_window: u32,
    /// Flow-control window of a connection, bytes.
    pub connection_window: u32,
    /// Bytes waiting to be written on a connection before its sources stop getting credit.
    pub out_bytes_max: usize,
    /// DATA payloads from this size on are referenced, not copied.
    pub borrow_bytes_min: usize,
    /// A request's or response's field section, as decoded (RFC 9113 10.5.1), bytes.
    pub head_bytes_max: usize,
    /// Fields of a section.
    pub fields_max: usize,
    /// CONTINUATION frames of one field block.
    pub continuations_max: u32,
    /// RST_STREAM frames a client may send per second.
    pub resets_per_second_max: u32,
    /// PING frames per second.
    pub pings_per_second_max: u32,
    /// SETTINGS frames per second.
    pub settings_per_second_max: u32,
    /// Empty DATA frames, PRIORITY and other frames that do nothing, per second.
    pub idle_frames_per_second_max: u32,
    /// Stream errors we had to send because of the client, per second (MadeYouReset).
    pub made_resets_per_second_max: u32,
    /// Bytes of control frames waiting to be written.
    pub control_bytes_max: usize,
    /// Endpoints tried for one request that was provably not processed.
    pub attempts_max: u8,
    /// Body bytes of a request kept until its response begins, so that it can be tried again, per stream.
    pub replay_bytes_max: usize,
    pub connect_timeout: Duration,
    /// A downstream connection without a stream is closed after this.
    pub idle_timeout: Duration,
    /// A connection whose peer takes nothing of what is written to it for this long is closed.
    pub stall_timeout: Duration,
    /// From accept, or from the first byte of an HTTP/1.1 head, to its end.
    pub head_timeout: Duration,
    /// An upstream connection without a stream is closed after this.
    pub upstream_idle_timeout: Duration,
    /// HTTP/1.1 keep-alive connections kept per endpoint.
    pub upstream_idle_max: usize,
    /// Between the first GOAWAY (no new connection wanted) and the second (last stream id).
    pub goaway_pause: Duration,
    /// `grpc-timeout` longer than this is cut to it.
    pub grpc_timeout_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            streams_max: 256,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            out_bytes_max: 256 * 1024,
            borrow_bytes_min: 4096,
            head_bytes_max: 60 * 1024,
            fields_max: 256,
            continuations_max: 16,
            resets_per_second_max: 200,
            pings_per_second_max: 100,
            settings_per_second_max: 50,
            idle_frames_per_second_max: 1000,
            made_resets_per_second_max: 200,
            control_bytes_max: 1024 * 1024,
            attempts_max: 3,
            replay_bytes_max: 16 * 1024,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(15),
            upstream_idle_timeout: Duration::from_secs(60),
            upstream_idle_max: 256,
            goaway_pause: Duration::from_secs(1),
            grpc_timeout_max: Duration::from_secs(24 * 3600),
        }
    }
}
