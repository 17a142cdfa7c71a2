//! Every bound of the engine as `--set PATH=VALUE` and the config dump know it: one row each.
//!
//! A field of `Limits` without a row does not compile; how many, how large and how long is checked here, once.

use super::duration;
use anyhow::{Result, bail};
use gateway_http::limits::{EscapedSlashes, ForwardedFields, Limits, Slashes, Underscores};
use serde_json::{Value, json};
use std::time::Duration;

/// What a bound counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Things, by their plural.
    Count(&'static str),
    /// Bytes; written as a number, or with Ki, Mi or Gi.
    Bytes,
    /// Time; written as `500ms`, `30s`, `1m30s`.
    Time,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Count(things) => things,
            Unit::Bytes => "bytes",
            Unit::Time => "duration",
            Unit::Choice(_) => "choice",
        }
    }

    /// A value as users write it; times are held in milliseconds.
    fn show(self, raw: u64) -> Value {
        match self {
            Unit::Count(_) | Unit::Bytes => json!(raw),
            Unit::Time => json!(duration_text(raw)),
            Unit::Choice(words) => json!(usize::try_from(raw).ok().and_then(|raw| words.get(raw))),
        }
    }

    fn read(self, text: &str) -> Result<u64> {
        let (digits, factor) = match self {
            Unit::Time => return Ok(u64::try_from(duration(text)?.as_millis()).unwrap_or(u64::MAX)),
            Unit::Choice(words) => match words.iter().position(|word| *word == text) {
                Some(at) => return Ok(at as u64),
                None => bail!("one of {} is needed", words.join(", ")),
            },
            Unit::Count(_) => (text, 1),
            Unit::Bytes => [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)]
                .into_iter()
                .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))
                .unwrap_or((text, 1)),
        };
        match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
            Some(raw) => Ok(raw),
            None if self == Unit::Bytes => bail!("a whole number of bytes is needed, as in 65536 or 64Ki"),
            None => bail!("a whole number is needed"),
        }
    }
}

/// One bound.
pub struct Tunable {
    /// As in `--set PATH=VALUE`.
    pub path: &'static str,
    pub unit: Unit,
    /// Smallest and largest value, in the unit; milliseconds for times.
    pub range: (u64, u64),
    /// What it bounds.
    pub about: &'static str,
    /// Whether `off` is a value.
    pub optional: bool,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

impl Tunable {
    /// The value in force, as users write it.
    pub fn value(&self, limits: &Limits) -> Value {
        match (self.get)(limits) {
            0 if self.optional => json!("off"),
            raw => self.unit.show(raw),
        }
    }

    fn assign(&self, limits: &mut Limits, text: &str) -> Result<()> {
        let path = self.path;
        if self.optional && text == "off" {
            (self.set)(limits, 0);
            return Ok(());
        }
        let (least, most) = self.range;
        let or_off = if self.optional { ", or off" } else { "" };
        match self.unit.read(text) {
            Ok(raw) if (least..=most).contains(&raw) => (self.set)(limits, raw),
            Ok(_) => bail!(
                "--set {path}={text}: {} to {} {}{or_off}",
                shown(&self.unit.show(least)),
                shown(&self.unit.show(most)),
                if self.unit == Unit::Time { "" } else { self.unit.name() }
            ),
            Err(error) => bail!("--set {path}={text}: {error}{or_off}"),
        }
        Ok(())
    }

    /// Everything about it, for `sluice get settings`.
    pub fn describe(&self, limits: &Limits) -> Value {
        json!({
            "name": self.path,
            "value": self.value(limits),
            "default": self.value(&Limits::default()),
            "unit": self.unit.name(),
            "least": self.unit.show(self.range.0),
            "most": self.unit.show(self.range.1),
            "about": self.about,
        })
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The row of a path.
pub fn find(path: &str) -> Option<&'static Tunable> {
    TABLE.iter().find(|row| row.path == path)
}

/// Applies one assignment; an unknown path names the known ones.
pub fn set(limits: &mut Limits, path: &str, value: &str) -> Result<()> {
    match find(path) {
        Some(row) => row.assign(limits, value),
        None => {
            let known: Vec<&str> = TABLE.iter().map(|row| row.path).collect();
            bail!(
                "--set {path}: no such setting. There are accessLog, {}",
                known.join(", ")
            )
        }
    }
}

/// Every bound and its value, as in `{"limits": {"streams": 100}, "timeouts": {"head": "10s"}}`.
pub fn values(limits: &Limits) -> Value {
    let mut all = json!({});
    for row in TABLE {
        if let Some((group, name)) = row.path.split_once('.') {
            all[group][name] = row.value(limits);
        }
    }
    all
}

/// A field's value as a number: what [`Unit`] says, 0 for `off`.
trait Raw {
    const OPTIONAL: bool = false;
    fn raw(&self) -> u64;
    fn from_raw(raw: u64) -> Self;
}

macro_rules! raw_integers {
    ($($integer:ty)*) => {$(
        impl Raw for $integer {
            fn raw(&self) -> u64 {
                u64::try_from(*self).unwrap_or(u64::MAX)
            }
            fn from_raw(raw: u64) -> Self {
                Self::try_from(raw).unwrap_or(Self::MAX)
            }
        }
    )*};
}

raw_integers! { u8 u16 u32 u64 usize }

macro_rules! raw_choices {
    ($($choice:ident: $($word:ident)*;)*) => {$(
        impl Raw for $choice {
            fn raw(&self) -> u64 {
                *self as u64
            }
            fn from_raw(raw: u64) -> Self {
                [$($choice::$word),*]
                    .into_iter()
                    .find(|word| *word as u64 == raw)
                    .expect("raw values are checked against the list of words")
            }
        }
    )*};
}

raw_choices! {
    Slashes: Merge Keep;
    EscapedSlashes: Reject Keep Unescape;
    Underscores: Reject Allow;
    ForwardedFields: Replace Append;
}

impl Raw for Duration {
    fn raw(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }
    fn from_raw(raw: u64) -> Self {
        Duration::from_millis(raw)
    }
}

impl<T: Raw> Raw for Option<T> {
    const OPTIONAL: bool = true;
    fn raw(&self) -> u64 {
        self.as_ref().map_or(0, T::raw)
    }
    fn from_raw(raw: u64) -> Self {
        (raw > 0).then(|| T::from_raw(raw))
    }
}

/// Milliseconds in the fewest words.
fn duration_text(ms: u64) -> String {
    let mut rest = ms;
    let mut text = String::new();
    for (letters, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= unit_ms {
            text.push_str(&format!("{}{letters}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Makes [`TABLE`], and a pattern that names every field of `Limits`.
macro_rules! tunables {
    ($($path:literal $field:ident: $unit:expr, $least:expr, $most:expr, $about:literal;)*) => {
        /// Every bound, in the order of `Limits`.
        pub static TABLE: &[Tunable] = &[$(Tunable {
            path: $path,
            unit: $unit,
            range: ($least, $most),
            about: $about,
            optional: optional(|limits: &Limits| &limits.$field),
            get: |limits| limits.$field.raw(),
            set: |limits, raw| limits.$field = Raw::from_raw(raw),
        }),*];

        /// A field of `Limits` that has no row above is an error here.
        const _: fn(&Limits) = |limits| {
            let Limits { $($field: _),* } = limits;
        };
    };
}

const fn optional<T: Raw>(_: fn(&Limits) -> &T) -> bool {
    T::OPTIONAL
}

/// The largest count.
const MANY: u64 = 1 << 30;
/// The largest buffer.
const GIB: u64 = 1 << 30;
/// The longest time.
const YEAR_MS: u64 = 365 * 24 * 3_600_000;
/// The largest flow-control window (RFC 9113 6.9.1).
const WINDOW_MAX: u64 = (1 << 31) - 1;

use Unit::{Bytes, Choice, Count, Time};

tunables! {
    "limits.connections" connections_max: Count("connections"), 1, MANY, "downstream connections of one worker";
    "limits.streams" streams_max: Count("streams"), 1, WINDOW_MAX, "streams open at once on a downstream connection";
    "limits.streamWindowBytes" stream_window: Bytes, 1024, WINDOW_MAX, "flow-control window of a stream";
    "limits.connectionWindowBytes" connection_window: Bytes, 65_535, WINDOW_MAX, "flow-control window of a connection";
    "limits.upstreamConnectionWindowBytes" upstream_connection_window: Bytes, 65_535, WINDOW_MAX, "flow-control window of a connection to an endpoint: what its clients may leave standing together";
    "limits.outBytes" out_bytes_max: Bytes, 16_384, GIB, "waiting to be written on a connection before its sources get no more credit";
    "limits.borrowBytes" borrow_bytes_min: Bytes, 1, GIB, "DATA payloads from this size on are not copied";
    "limits.streamWindowMaxBytes" stream_window_max: Bytes, 1024, WINDOW_MAX, "what a stream's window may grow to";
    "limits.connectionWindowMaxBytes" connection_window_max: Bytes, 65_535, WINDOW_MAX, "what a connection's window may grow to";
    "limits.windowGrowthBytes" window_growth_max: Bytes, 0, 1 << 40, "by how much all windows of a worker may be grown";
    "limits.heldBytes" held_bytes_max: Bytes, 0, 1 << 40, "of uploads that wait for slow endpoints before they hold up their connections, and of bodies shown to authorization services";
    "limits.headBytes" head_bytes_max: Bytes, 1024, 1 << 24, "a request's or response's fields, decoded";
    "limits.fields" fields_max: Count("fields"), 8, 65_535, "fields of a request or response";
    "limits.targetBytes" target_bytes_max: Bytes, 256, 1 << 24, "a request's target";
    "limits.continuations" continuations_max: Count("frames"), 0, 65_535, "CONTINUATION frames of one field block";
    "limits.resetsBurst" resets_burst_max: Count("frames"), 1, MANY, "RST_STREAM for unanswered requests, at once";
    "limits.resetsPerSecond" resets_per_second_max: Count("frames per second"), 1, MANY, "and after that; each request that was served gives one back";
    "limits.prematureStreams" premature_streams_min: Count("streams"), 1, MANY, "from so many on, more than half of them reset within a second end the connection";
    "limits.madeResetsBurst" made_resets_burst_max: Count("frames"), 1, MANY, "stream errors a client makes the gateway send, at once";
    "limits.madeResetsPerSecond" made_resets_per_second_max: Count("frames per second"), 1, MANY, "and after that";
    "limits.refusedStreamsBurst" refused_burst_max: Count("streams"), 1, MANY, "streams opened above limits.streams, at once";
    "limits.refusedStreamsPerSecond" refused_per_second_max: Count("streams per second"), 1, MANY, "and after that";
    "limits.pingsBurst" pings_burst_max: Count("frames"), 1, MANY, "PING frames from a peer, at once";
    "limits.pingsPerSecond" pings_per_second_max: Count("frames per second"), 1, MANY, "and after that; then one for each DATA frame to the peer";
    "limits.settingsBurst" settings_burst_max: Count("frames"), 2, MANY, "SETTINGS frames from a peer, at once";
    "limits.settingsPerSecond" settings_per_second_max: Count("frames per second"), 1, MANY, "and after that; then one for each DATA frame to the peer";
    "limits.idleFramesPerStream" idle_frames_per_stream_max: Count("frames"), 1, MANY, "PRIORITY, and frames of unknown types, for each stream opened and one";
    "limits.updatesPerData" updates_per_data_max: Count("frames"), 1, MANY, "half of the WINDOW_UPDATE that one DATA frame to the peer explains";
    "limits.emptyData" empty_data_max: Count("frames"), 1, MANY, "empty DATA frames in a row";
    "limits.smallDataBurst" small_data_burst_max: Count("frames"), 1, MANY, "DATA frames of at most 16 bytes, at once";
    "limits.smallDataPerSecond" small_data_per_second_max: Count("frames per second"), 1, MANY, "and after that; larger ones and DATA to the peer give some back";
    "limits.controlFrames" control_frames_max: Count("frames"), 16, MANY, "control frames waiting to be written to an HTTP/2 client";
    "limits.outHeads" out_heads_max: Count("frames"), 16, MANY, "heads and trailers waiting to be written to an HTTP/2 client";
    "limits.controlBytes" control_bytes_max: Bytes, 16_384, GIB, "control frames waiting to be written";
    "limits.attempts" attempts_max: Count("attempts"), 1, 255, "endpoints tried for a request that was provably not processed";
    "limits.replays" replays_max: Count("attempts"), 1, 255, "times a request goes again because an endpoint refused to look at it";
    "limits.replayBytes" replay_bytes_max: Bytes, 0, GIB, "of a request's body kept to try it again, per stream";
    "limits.retryPercent" retry_percent: Count("%"), 0, 1000, "retries by rules' policies, of a worker at one service, for each hundred requests";
    "limits.retriesPerSecond" retries_per_second: Count("retries per second"), 0, MANY, "and besides; ten seconds' worth is saved up";
    "limits.requests" requests_max: Count("requests"), 1, MANY, "under way in one worker";
    "limits.memoryBytes" memory_bytes_max: Bytes, 1 << 20, 1 << 50, "of the process; off: what its cgroup allows";
    "limits.upstreamConnections" upstream_connections_max: Count("connections"), 1, 1024, "HTTP/2 connections of a worker to one endpoint";
    "limits.upstreamHttp1Connections" upstream_http1_max: Count("connections"), 1, MANY, "HTTP/1.1 connections of a worker to one endpoint";
    "limits.upstreamPending" upstream_pending_max: Count("requests"), 0, MANY, "waiting for a free stream of one endpoint";
    "limits.connectionRequests" connection_requests_max: Count("requests"), 1, MANY, "on one downstream connection before it is told to go";
    "timeouts.connect" connect_timeout: Time, 1, YEAR_MS, "until an endpoint's connection is open";
    "timeouts.auth" auth_timeout: Time, 1, YEAR_MS, "until an authorization service has answered";
    "timeouts.idle" idle_timeout: Time, 1, YEAR_MS, "a downstream connection without a stream";
    "timeouts.stall" stall_timeout: Time, 1, YEAR_MS, "a connection whose peer takes nothing of what is written to it";
    "timeouts.tunnelIdle" tunnel_idle_timeout: Time, 1, YEAR_MS, "an open tunnel (WebSocket, CONNECT) through which nothing goes";
    "timeouts.udpIdle" udp_idle_timeout: Time, 100, YEAR_MS, "a UDP flow that goes both ways; one of a single question: a minute at most";
    "limits.udpSessions" udp_sessions_max: Count("flows"), 1, MANY, "UDP flows that one worker relays";
    "timeouts.head" head_timeout: Time, 1, YEAR_MS, "from accept, or a head's first byte, to its end";
    "timeouts.fieldBlock" block_timeout: Time, 1, YEAR_MS, "from HEADERS to the last CONTINUATION of its field block";
    "timeouts.body" body_timeout: Time, 10, YEAR_MS, "a request's body that comes slower than limits.bodyBytesPerSecond, until the response begins; not of gRPC, unless an authorization service is shown it";
    "limits.bodyBytesPerSecond" body_bytes_per_second_min: Count("bytes per second"), 0, MANY, "below it a body that is owed, or a response that waits, stands still";
    "timeouts.streamIdle" stream_idle_timeout: Time, 10, YEAR_MS, "a stream on which nothing moves, without a timeout of its own; not of gRPC";
    "timeouts.pingAfter" ping_after: Time, 10, YEAR_MS, "an HTTP/2 client with streams that is silent is sent PING, and closed 20s later";
    "timeouts.upstreamIdle" upstream_idle_timeout: Time, 1, YEAR_MS, "an upstream connection without a stream";
    "limits.upstreamIdleConnections" upstream_idle_max: Count("connections"), 0, MANY, "HTTP/1.1 keep-alive connections kept per endpoint";
    "timeouts.connectionAge" connection_age_max: Time, 1, YEAR_MS, "of a downstream connection before it is told to go";
    "timeouts.upstreamPing" upstream_ping_interval: Time, 1, YEAR_MS, "silence of an endpoint with streams before it is sent a PING";
    "timeouts.pingAnswer" ping_timeout: Time, 1, YEAR_MS, "for the answer to a PING";
    "timeouts.goawayPause" goaway_pause: Time, 0, YEAR_MS, "between the first GOAWAY and the one with the last stream id";
    "timeouts.grpcMax" grpc_timeout_max: Time, 1, YEAR_MS, "longer grpc-timeouts are cut to this";
    "limits.bodyBytes" body_bytes_max: Bytes, 1, 1 << 50, "a request's body; of gRPC each message";
    "limits.grpcMessageBytes" grpc_message_bytes_max: Bytes, 1, (1 << 32) - 1, "a gRPC message in either direction";
    "paths.slashes" path_slashes: Choice(&["merge", "keep"]), 0, 1, "slashes that follow each other";
    "paths.escapedSlashes" path_escaped_slashes: Choice(&["reject", "keep", "unescape"]), 0, 2, "%2F in a path";
    "fields.underscores" underscores: Choice(&["reject", "allow"]), 0, 1, "requests whose field names have underscores";
    "fields.forwarded" forwarded_fields: Choice(&["replace", "append"]), 0, 1, "forwarded, x-forwarded-*, x-real-ip and x-envoy-* from clients";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_takes_back_the_value_it_shows_and_refuses_what_is_out_of_range() {
        for row in TABLE {
            let mut limits = Limits::default();
            let default = (row.get)(&limits);
            let (least, most) = row.range;
            assert!(
                (least..=most).contains(&default) || (row.optional && default == 0),
                "{}: the default {default} is in range",
                row.path
            );
            for raw in [least, most, default] {
                let off = row.optional && raw == 0;
                let text = if off {
                    "off".to_owned()
                } else {
                    shown(&row.unit.show(raw))
                };
                row.assign(&mut limits, &text).expect("in range");
                assert_eq!((row.get)(&limits), raw, "{}={text}", row.path);
            }
            let above = shown(&row.unit.show(most + 1));
            assert!(row.assign(&mut limits, &above).is_err(), "{}={above}", row.path);
            assert!(row.assign(&mut limits, "much").is_err(), "{}", row.path);
        }
    }

    #[test]
    fn no_two_rows_have_one_path_and_all_are_in_the_dump() {
        let all = values(&Limits::default());
        for (at, row) in TABLE.iter().enumerate() {
            assert!(!TABLE[..at].iter().any(|other| other.path == row.path), "{}", row.path);
            let (group, name) = row.path.split_once('.').expect("a group and a name");
            assert!(
                ["limits", "timeouts", "paths", "fields"].contains(&group),
                "{}",
                row.path
            );
            assert_eq!(all[group][name], row.value(&Limits::default()));
        }
    }

    #[test]
    fn bytes_and_durations_are_read_with_their_units() {
        let mut limits = Limits::default();
        set(&mut limits, "limits.headBytes", "128Ki").expect("a quantity");
        set(&mut limits, "timeouts.head", "1m30s").expect("a duration");
        assert_eq!(limits.head_bytes_max, 128 * 1024);
        assert_eq!(limits.head_timeout, Duration::from_secs(90));
        let dump = values(&limits);
        assert_eq!(dump["limits"]["headBytes"], 131_072);
        assert_eq!(dump["timeouts"]["head"], "1m30s");
        let wrong = set(&mut limits, "limits.headBytes", "1").expect_err("too small");
        assert_eq!(wrong.to_string(), "--set limits.headBytes=1: 1024 to 16777216 bytes");
    }
}
