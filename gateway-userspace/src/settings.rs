//! What a run of the gateway is told besides its configuration objects: parsed, checked, typed.

pub mod tls;
pub mod tunables;

use anyhow::{Context, Result, anyhow, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where the admin listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminAddr {
    Tcp(SocketAddr),
    Unix(PathBuf),
    None,
}

impl FromStr for AdminAddr {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(AdminAddr::None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                bail!("`unix:` needs a path, as in unix:/run/sluice/admin.sock");
            }
            return Ok(AdminAddr::Unix(path.into()));
        }
        let addr = text.parse().with_context(|| {
            format!("`{text}` is no admin address: write HOST:PORT (127.0.0.1:9901), unix:PATH or none")
        })?;
        Ok(AdminAddr::Tcp(addr))
    }
}

/// The default admin address.
pub const ADMIN_DEFAULT: &str = "127.0.0.1:9901";

/// A duration as users write it: `30s`, `500ms`, `2m`, `1h`, `1m30s` (Gateway API durations, GEP-2257).
pub fn duration(text: &str) -> Result<Duration> {
    let wrong = || anyhow!("`{text}` is no duration: write a number and ms, s, m or h, as in 30s or 1m30s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let more = number.checked_mul(unit_ms).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(more)).ok_or_else(wrong)?;
    }
    Ok(total)
}

/// A `--set PATH=VALUE`, split; who knows the path checks the value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    pub path: String,
    pub value: String,
}

impl FromStr for Assignment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, value) = text
            .split_once('=')
            .ok_or_else(|| anyhow!("`{text}` is no setting: write PATH=VALUE, as in log.access=json"))?;
        Ok(Self {
            path: path.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// What `--set` can change.
#[derive(Clone, Debug)]
pub struct Tunables {
    pub limits: gateway_http::limits::Limits,
    pub access_log: AccessLogFormat,
    /// A file for the access log; standard output without.
    pub access_log_path: Option<PathBuf>,
    /// How long a successor may take from the old process's yielding to its own readiness.
    pub handover: Duration,
    /// How long a worker may go without a turn before the process ends; zero is for ever.
    pub watchdog: Duration,
    pub tls: tls::TlsSettings,
    /// Collector of traces, as in `http://127.0.0.1:4318`; none: requests are not traced.
    pub tracing_endpoint: Option<String>,
    /// Share of the traces that begin here, 0 to 1.
    pub tracing_ratio: f64,
}

/// Format of the access log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessLogFormat {
    Off,
    Text,
    Json,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            limits: gateway_http::limits::Limits::default(),
            access_log: AccessLogFormat::Text,
            access_log_path: None,
            handover: Duration::from_secs(30),
            watchdog: Duration::from_secs(10),
            tls: tls::TlsSettings::default(),
            tracing_endpoint: None,
            tracing_ratio: 0.01,
        }
    }
}

impl Tunables {
    /// Applies one assignment; an unknown path or a bad value says what would be right.
    pub fn set(&mut self, assignment: &Assignment) -> Result<()> {
        let Assignment { path, value } = assignment;
        match path.as_str() {
            "accessLog" => {
                self.access_log = match value.as_str() {
                    "off" => AccessLogFormat::Off,
                    "text" => AccessLogFormat::Text,
                    "json" => AccessLogFormat::Json,
                    _ => bail!("accessLog={value}: off, text or json"),
                };
            }
            "accessLogPath" => self.access_log_path = (value != "-").then(|| value.into()),
            "timeouts.handover" => self.handover = duration(value)?,
            "timeouts.watchdog" => self.watchdog = duration(value)?,
            tls if tls.starts_with("tls.") => {
                if !self.tls.set(path, value)? {
                    bail!(
                        "--set {path}: no such setting. There are tls.minVersion, tls.cipherSuites, tls.clientCertificate"
                    )
                }
            }
            "tracing.endpoint" => self.tracing_endpoint = Some(value.clone()),
            "tracing.sampling" => {
                let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
                let wrong = || anyhow!("tracing.sampling={value}: a share of 0 to 1 is needed, as in 0.01");
                self.tracing_ratio = ratio.ok_or_else(wrong)?;
            }
            _ => tunables::set(&mut self.limits, path, value)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_gateway_api_writes_them() {
        let rows = [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1h", Some(3_600_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("3x", None),
            ("99999999999999999999s", None),
        ];
        for (text, ms) in rows {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn an_unknown_setting_is_refused_and_the_message_names_the_known_ones() {
        let mut tunables = Tunables::default();
        let error = tunables
            .set(&"limits.nothing=1".parse().expect("has an equals sign"))
            .expect_err("unknown");
        assert!(error.to_string().contains("limits.connections, "), "{error}");
        tunables
            .set(&"limits.streams=100".parse().expect("fine"))
            .expect("known");
        assert_eq!(tunables.limits.streams_max, 100);
    }

    #[test]
    fn admin_addresses_are_tcp_unix_or_none() {
        assert_eq!("none".parse::<AdminAddr>().expect("none"), AdminAddr::None);
        assert_eq!(
            "unix:/a".parse::<AdminAddr>().expect("unix"),
            AdminAddr::Unix("/a".into())
        );
        assert!("unix:".parse::<AdminAddr>().is_err());
        assert!("9901".parse::<AdminAddr>().is_err());
    }
}
