//! Every bound of the engine, by name. Defaults are what a public listener should run with.

use std::time::Duration;

/// A slash that is percent-encoded (`%2F`) in a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EscapedSlashes {
    /// 400: endpoints disagree on whether it separates segments, so no route can guard what lies behind it.
    Reject,
    /// It stays, and is no separator in matching. Only where every endpoint sees it so.
    Keep,
    /// It is a slash, for matching and for the endpoint.
    Unescape,
}

/// Slashes that follow each other in a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slashes {
    /// They are one.
    Merge,
    /// They stay. Only where every endpoint tells `/a` from `//a`.
    Keep,
}

/// Requests whose field names have underscores, which CGI and its heirs cannot tell from hyphens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Underscores {
    /// 400.
    Reject,
    /// They go through, but for those that look like a field the gateway vouches for.
    Allow,
}

/// What clients say about whom they speak for: `forwarded`, `x-forwarded-*`, `x-real-ip`, `x-envoy-*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardedFields {
    /// Not believed: removed, and the gateway's own take their place.
    Replace,
    /// Believed: the client is a proxy one trusts. `x-forwarded-for` is continued, the others go through.
    Append,
}

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
    /// Flow-control window of a connection to an endpoint, bytes: what its clients may leave standing together.
    pub upstream_connection_window: u32,
    /// Bytes waiting to be written on a connection before its sources stop getting credit.
    pub out_bytes_max: usize,
    /// DATA payloads from this size on are referenced, not copied.
    pub borrow_bytes_min: usize,
    /// What a stream's window may grow to on a connection that keeps it full, bytes.
    pub stream_window_max: u32,
    /// The same for a connection's window, bytes.
    pub connection_window_max: u32,
    /// By how much all windows of a worker together may be grown, bytes.
    pub window_growth_max: u64,
    /// Uploads that wait for slow endpoints in a worker, bytes, before they hold up the connections they came on; bodies
    /// that authorization services are shown count too, and beyond it are answered 503.
    pub held_bytes_max: u64,
    /// The fields of a request's or response's head, or of a trailer section: names, values and 32 bytes each
    /// (RFC 9113 10.5.1), cookies and pseudo-fields included, in any version of HTTP.
    pub head_bytes_max: usize,
    /// Fields of a head or trailer section, without method, scheme, path, authority and status.
    pub fields_max: usize,
    /// A request's target, bytes (414).
    pub target_bytes_max: usize,
    /// CONTINUATION frames of one field block.
    pub continuations_max: u32,
    /// RST_STREAM frames for unanswered requests that a client may send at once ...
    pub resets_burst_max: u32,
    /// ... and per second after that; every request that was served gives one back.
    pub resets_per_second_max: u32,
    /// From so many ended streams on, more than half of them reset within a second end the connection.
    pub premature_streams_min: u32,
    /// Stream errors we had to send because of the client (MadeYouReset), at once ...
    pub made_resets_burst_max: u32,
    /// ... and per second after that.
    pub made_resets_per_second_max: u32,
    /// Streams a client may open above `streams_max`, at once ...
    pub refused_burst_max: u32,
    /// ... and per second after that.
    pub refused_per_second_max: u32,
    /// PING frames at once ...
    pub pings_burst_max: u32,
    /// ... and per second after that; beyond it one for every DATA frame to the peer.
    pub pings_per_second_max: u32,
    /// SETTINGS frames at once ...
    pub settings_burst_max: u32,
    /// ... and per second after that; beyond it one for every DATA frame to the peer.
    pub settings_per_second_max: u32,
    /// PRIORITY frames, and frames of unknown types, for every stream opened and one.
    pub idle_frames_per_stream_max: u32,
    /// WINDOW_UPDATE frames: 5, and 2 for every stream opened and for every one of this many per DATA frame to the peer.
    pub updates_per_data_max: u32,
    /// Empty DATA frames in a row.
    pub empty_data_max: u32,
    /// DATA frames of at most 16 bytes at once ...
    pub small_data_burst_max: u32,
    /// ... and per second after that; larger ones and DATA frames to the peer give some back.
    pub small_data_per_second_max: u32,
    /// Control frames waiting to be written to an HTTP/2 client.
    pub control_frames_max: u32,
    /// Heads and trailers waiting to be written to an HTTP/2 client.
    pub out_heads_max: u32,
    /// Bytes of control frames waiting to be written.
    pub control_bytes_max: usize,
    /// Endpoints tried for one request that was provably not processed.
    pub attempts_max: u8,
    /// Times a request goes again because an endpoint said that it did not look at it (REFUSED_STREAM, GOAWAY).
    pub replays_max: u8,
    /// Body bytes of a request kept until its response begins, so that it can be tried again, per stream.
    pub replay_bytes_max: usize,
    /// Further attempts that rules with a `retry` may make, of a worker at one service, for each hundred requests ...
    pub retry_percent: u32,
    /// ... and each second; ten seconds' worth is saved up.
    pub retries_per_second: u32,
    /// Requests under way in one worker; more are answered 503.
    pub requests_max: usize,
    /// Memory of the whole process, bytes; `None`: what its cgroup allows. Close to it the gateway takes less and less.
    pub memory_bytes_max: Option<u64>,
    /// HTTP/2 connections to one endpoint; another is opened only when every one is full.
    pub upstream_connections_max: usize,
    /// HTTP/1.1 connections to one endpoint.
    pub upstream_http1_max: usize,
    /// Requests that wait for a free stream of one endpoint; more are answered 503.
    pub upstream_pending_max: usize,
    /// Requests on one downstream connection; then it is told to go (GOAWAY, `connection: close`).
    pub connection_requests_max: Option<u64>,
    pub connect_timeout: Duration,
    /// An authorization service that has not answered after this has refused the request (403).
    pub auth_timeout: Duration,
    /// A downstream connection without a stream is closed after this.
    pub idle_timeout: Duration,
    /// A connection whose peer takes nothing of what is written to it for this long is closed; so is a stream whose
    /// response waits for its client's credit, of gRPC after `stream_idle_timeout`.
    pub stall_timeout: Duration,
    /// An open tunnel (WebSocket, CONNECT) through which nothing goes for this long is closed; `None`: never.
    pub tunnel_idle_timeout: Option<Duration>,
    /// A UDP flow that goes both ways without a datagram, in the kernel plane and in the relay; a flow of one question is
    /// forgotten after a minute at most.
    pub udp_idle_timeout: Duration,
    /// UDP flows that one worker relays; each has a socket.
    pub udp_sessions_max: usize,
    /// From accept, or from the first byte of an HTTP/1.1 head, to its end.
    pub head_timeout: Duration,
    /// From HEADERS to the last CONTINUATION of its field block.
    pub block_timeout: Duration,
    /// A client that owes its request's body, and may send it, may be slower than `body_bytes_per_second_min` for this
    /// long (408); not a gRPC client, unless an authorization service is shown its body, and not once the response began.
    pub body_timeout: Duration,
    /// Body bytes per second, of a request or of a response that waits, below which nothing moves; 0: any byte counts.
    pub body_bytes_per_second_min: u32,
    /// A stream on which nothing moves either way is ended after this: 408, 504 if the request is whole, else reset. Not
    /// one of gRPC, and not one with a timeout of its own.
    pub stream_idle_timeout: Duration,
    /// An HTTP/2 client with streams that is silent for this long is sent PING, and closed if it does not answer in 20 s.
    pub ping_after: Option<Duration>,
    /// An upstream connection without a stream is closed after this.
    pub upstream_idle_timeout: Duration,
    /// HTTP/1.1 keep-alive connections kept per endpoint.
    pub upstream_idle_max: usize,
    /// A downstream connection older than this is told to go, so that clients spread anew.
    pub connection_age_max: Option<Duration>,
    /// An endpoint with streams that is silent this long is asked whether it lives (PING). One that sends nothing in between is asked no more often than gRPC servers bear.
    pub upstream_ping_interval: Option<Duration>,
    /// A PING not answered for this long, nor anything else sent, ends the connection.
    pub ping_timeout: Duration,
    /// Between the first GOAWAY (no new connection wanted) and the second (last stream id).
    pub goaway_pause: Duration,
    /// `grpc-timeout` longer than this is cut to it.
    pub grpc_timeout_max: Duration,
    /// A request's body, bytes; of gRPC each message, not the whole stream. `None`: any.
    pub body_bytes_max: Option<u64>,
    /// A gRPC message in either direction, bytes. `None`: any.
    pub grpc_message_bytes_max: Option<u32>,
    pub path_slashes: Slashes,
    pub path_escaped_slashes: EscapedSlashes,
    pub underscores: Underscores,
    pub forwarded_fields: ForwardedFields,
}

impl Limits {
    /// Bytes that may wait on a connection. DATA stops at `out_bytes_max`: what is above it are heads and answers to
    /// control frames.
    pub fn waiting_bytes_max(&self) -> usize {
        2 * self.out_bytes_max + self.control_bytes_max
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 50_000,
            streams_max: 100,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            upstream_connection_window: 2 * 1024 * 1024,
            out_bytes_max: 256 * 1024,
            borrow_bytes_min: 4096,
            stream_window_max: 1024 * 1024,
            connection_window_max: 4 * 1024 * 1024,
            window_growth_max: 64 * 1024 * 1024,
            held_bytes_max: 64 * 1024 * 1024,
            head_bytes_max: 64 * 1024,
            fields_max: 100,
            target_bytes_max: 16 * 1024,
            continuations_max: 8,
            resets_burst_max: 100,
            resets_per_second_max: 50,
            premature_streams_min: 500,
            made_resets_burst_max: 100,
            made_resets_per_second_max: 20,
            refused_burst_max: 1000,
            refused_per_second_max: 100,
            pings_burst_max: 20,
            pings_per_second_max: 10,
            settings_burst_max: 10,
            settings_per_second_max: 1,
            idle_frames_per_stream_max: 100,
            updates_per_data_max: 10,
            empty_data_max: 100,
            small_data_burst_max: 25_600,
            small_data_per_second_max: 100_000,
            control_frames_max: 1000,
            out_heads_max: 10_000,
            control_bytes_max: 1024 * 1024,
            attempts_max: 3,
            replays_max: 10,
            replay_bytes_max: 16 * 1024,
            retry_percent: 20,
            retries_per_second: 20,
            requests_max: 100_000,
            memory_bytes_max: None,
            upstream_connections_max: 8,
            upstream_http1_max: 1024,
            upstream_pending_max: 1024,
            connection_requests_max: None,
            connect_timeout: Duration::from_secs(2),
            auth_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(30),
            tunnel_idle_timeout: Some(Duration::from_secs(3600)),
            udp_idle_timeout: Duration::from_secs(300),
            udp_sessions_max: 16_384,
            head_timeout: Duration::from_secs(10),
            block_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            body_bytes_per_second_min: 100,
            stream_idle_timeout: Duration::from_secs(300),
            ping_after: Some(Duration::from_secs(60)),
            upstream_idle_timeout: Duration::from_secs(60),
            upstream_idle_max: 256,
            connection_age_max: None,
            upstream_ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Duration::from_secs(10),
            goaway_pause: Duration::from_secs(1),
            grpc_timeout_max: Duration::from_secs(24 * 3600),
            body_bytes_max: None,
            grpc_message_bytes_max: None,
            path_slashes: Slashes::Merge,
            path_escaped_slashes: EscapedSlashes::Reject,
            underscores: Underscores::Reject,
            forwarded_fields: ForwardedFields::Replace,
        }
    }
}
