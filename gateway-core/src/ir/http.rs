//! Rules of HTTP listeners.

use super::{
    CertificateName, Destination, ListenerName, ListenerTls, RuleName, SecretBytes, ServiceName, StreamRule, Weighted,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Everything behind one HTTP or HTTPS port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRules {
    /// HTTPS when true: the certificates are in the scopes.
    pub tls: bool,
    /// One per Gateway API listener on this port, most specific hostname first. A request belongs to the first
    /// scope whose hostname matches and is never seen by another one (listener isolation).
    pub scopes: Vec<HttpScope>,
    /// Only with TLS: rules of TLS listeners on the same port. A connection belongs to the most specific hostname of
    /// scopes and these that matches the name in its ClientHello.
    pub streams: Vec<StreamRule>,
}

/// One Gateway API listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpScope {
    pub listener: ListenerName,
    pub hostname: HostPattern,
    /// First is the default; empty without TLS.
    pub certificates: Vec<CertificateName>,
    /// Its defaults without TLS.
    pub tls: ListenerTls,
    /// In any order: lowering ranks hostnames by specificity. One per hostname, unless routes whose own hostnames are
    /// not equally specific meet the listener's in the same one: then the rules of the earlier one take precedence.
    /// Shared with the revision before where nothing changed, as rules are: equal ones are mostly the same ones.
    pub hosts: Arc<Vec<Arc<VirtualHost>>>,
    /// Who is asked before a route is looked for, in this order, about every request: rules that match nothing and go
    /// nowhere, of which the [`Filter::ExternalAuth`] is meant. A rule without one lets nothing pass.
    pub guards: Vec<Arc<HttpRule>>,
}

/// The rules of all routes attached under one hostname.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    pub hostname: HostPattern,
    /// In tie-break order (oldest route first, then `namespace/name`, then rule index); lowering ranks the matches.
    pub rules: Vec<Arc<HttpRule>>,
}

impl VirtualHost {
    pub fn new(hostname: HostPattern, rules: impl IntoIterator<Item = HttpRule>) -> Arc<Self> {
        let rules = rules.into_iter().map(Arc::new).collect();
        Arc::new(Self { hostname, rules })
    }
}

/// A hostname to match: exact, `*.suffix`, or anything. Lower case, no trailing dot, no port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.com` is held as `.example.com`; matches one or more labels before it.
    Suffix(String),
    Any,
}

impl HostPattern {
    /// From a Gateway API hostname; `None` is any host.
    pub fn parse(hostname: Option<&str>) -> Self {
        match hostname {
            None | Some("" | "*") => HostPattern::Any,
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => HostPattern::Suffix(suffix.to_ascii_lowercase()),
                None => HostPattern::Exact(name.to_ascii_lowercase()),
            },
        }
    }

    /// `host` must be lower case and without port.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => name == host,
            HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            HostPattern::Any => true,
        }
    }

    /// Sorts the more specific pattern first: exact, then longer suffixes, then any.
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            HostPattern::Exact(name) => (2, name.len()),
            HostPattern::Suffix(suffix) => (1, suffix.len()),
            HostPattern::Any => (0, 0),
        }
    }

    /// What both patterns match, or `None`: how a route's hostnames meet its listener's.
    pub fn intersect(&self, other: &HostPattern) -> Option<HostPattern> {
        match (self, other) {
            (HostPattern::Any, x) | (x, HostPattern::Any) => Some(x.clone()),
            (HostPattern::Exact(name), x) | (x, HostPattern::Exact(name)) => {
                x.matches(name).then(|| HostPattern::Exact(name.clone()))
            }
            (HostPattern::Suffix(a), HostPattern::Suffix(b)) => {
                let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                long.ends_with(short.as_str())
                    .then(|| HostPattern::Suffix(long.clone()))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Suffix(suffix) => write!(f, "*{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

/// One rule of an HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
    pub name: RuleName,
    pub kind: RouteKind,
    /// Any of them suffices; never empty.
    pub matches: Vec<HttpMatch>,
    pub filters: Vec<Filter>,
    pub destinations: Vec<Weighted<HttpDestination>>,
    pub timeouts: Timeouts,
    /// `None`: only what was provably not processed is sent again.
    pub retry: Option<Retry>,
    pub session: Option<Session>,
}

impl HttpRule {
    /// Every service it sends something to.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        let asked = self.filters.iter().filter_map(|filter| match filter {
            Filter::Mirror(mirror) => Some(&mirror.to),
            Filter::ExternalAuth(auth) => Some(&auth.to),
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Redirect(_)
            | Filter::Rewrite(_)
            | Filter::Cors(_) => None,
        });
        let shares = self.destinations.iter().map(|share| &share.to.to);
        shares.chain(asked).filter_map(|to| match to {
            Destination::Service(name) => Some(name),
            Destination::Fail { .. } => None,
        })
    }
}

/// Gateway API HTTPRouteRetry: attempts that failed are followed by others, as long as the request can be sent again and
/// no byte of an answer went to the client. A connection that could not be made, broke or timed out, and an attempt
/// that outlived `timeouts.backend_request`, always count as failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first; never 0.
    pub attempts: u32,
    /// Answers of these statuses are failures, 400..=599, ascending.
    pub statuses: Vec<u16>,
    /// gRPC statuses in trailers-only answers that are failures, ascending.
    pub grpc_statuses: Vec<u32>,
    /// The least time before another attempt; doubles with each, jittered upwards, to at most ten times.
    pub backoff: Duration,
}

/// Gateway API SessionPersistence: requests that show the token of a session go to its endpoint while that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub token: SessionToken,
    /// A session ends so long after it began; `None`: never.
    pub absolute: Option<Duration>,
    /// A session ends when it was not used for so long; `None`: never.
    pub idle: Option<Duration>,
    /// 16 bytes; the same for all nodes and revisions, so that tokens outlive both.
    pub key: SecretBytes,
}

/// Where a session's token travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionToken {
    /// RFC 6265. A permanent cookie lives as long as the session, another one as long as the browser.
    Cookie {
        name: String,
        path: String,
        permanent: bool,
    },
    /// Lower case, the same in requests and responses.
    Header { name: String },
}

/// Which route kind a rule came from; local errors of a GRPCRoute are gRPC statuses even for odd content types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteKind {
    Http,
    Grpc,
}

/// A backendRef of an HTTP rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDestination {
    pub to: Destination,
    pub protocol: UpstreamProtocol,
    /// Filters of the backendRef alone.
    pub filters: Vec<Filter>,
}

/// What is spoken to the endpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum UpstreamProtocol {
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 3.3).
    H2c,
}

/// Conditions that all have to hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpMatch {
    pub path: PathMatch,
    pub method: Option<String>,
    /// By lower-case name; no name twice.
    pub headers: Vec<FieldMatch>,
    /// By name, case-sensitive; no name twice.
    pub query: Vec<FieldMatch>,
}

/// A condition on the path (without query).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathMatch {
    Exact(String),
    /// Whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. `/` matches all.
    Prefix(String),
    /// Anchored, RE2 syntax; compiled and bounded when lowered.
    Regex(String),
}

/// A condition on a header or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldMatch {
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueMatch {
    Exact(String),
    /// Anchored, RE2 syntax.
    Regex(String),
}

/// What a rule does to a request or a response besides forwarding it. Closed: every phase matches every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    RequestHeaders(FieldEdits),
    ResponseHeaders(FieldEdits),
    Redirect(Redirect),
    Rewrite(Rewrite),
    Cors(Cors),
    Mirror(Mirror),
    ExternalAuth(ExternalAuth),
}

/// Gateway API HTTPExternalAuthFilter: a service is asked first. What it allows passes, what it refuses is answered as it
/// says, and no answer is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAuth {
    pub to: Destination,
    pub protocol: UpstreamProtocol,
    pub speaks: AuthSpeaks,
    /// Octets of a request's body that the service is shown; a longer body is refused. 0: it is shown none.
    pub body_bytes_max: u32,
}

/// How an authorization service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthSpeaks {
    /// With the request's own method and fields. A 200 lets it pass, another answer is the client's.
    Http {
        /// Stands before the request's path in the question: empty, or `/` and more without a slash at its end.
        prefix: String,
        /// Request fields the service is shown besides those of every question; lower case.
        shown: Vec<String>,
        /// Fields of its answer that are set in the request; lower case. Empty: all but those about the answer itself.
        taken: Vec<String>,
    },
    /// With a call of `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// Request fields the service is shown; lower case. Empty: all of them.
        shown: Vec<String>,
    },
}

/// Gateway API HTTPCORSFilter. In `methods` and `headers` the word `*` is whatever a preflight asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub origins: Vec<OriginPattern>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    /// Response fields that a page may read.
    pub exposed: Vec<String>,
    pub credentials: bool,
    /// How long a browser may keep the answer to a preflight, seconds.
    pub max_age_s: u32,
}

/// An origin to match (RFC 6454), lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    Any,
    Exact(String),
    /// `https://*.example.com`: the scheme with its `://`, and what must follow at least one label.
    Suffix {
        scheme: String,
        suffix: String,
    },
}

/// Gateway API HTTPRequestMirrorFilter: a share of the requests goes to a second service too, whose answers are
/// dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub to: Destination,
    pub protocol: UpstreamProtocol,
    /// `numerator` of `denominator` requests; the denominator is never 0.
    pub numerator: u32,
    pub denominator: u32,
}

/// Header edits in the order set, add, remove (Gateway API HTTPHeaderFilter). Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

/// Gateway API HTTPRequestRedirectFilter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub path: Option<PathRewrite>,
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Gateway API HTTPURLRewriteFilter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub hostname: Option<String>,
    pub path: Option<PathRewrite>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    Full(String),
    /// Replaces the matched prefix.
    Prefix(String),
}

/// Gateway API HTTPRouteTimeouts; `None` or zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request's head to the end of the response.
    pub request: Option<Duration>,
    /// One attempt upstream.
    pub backend_request: Option<Duration>,
}
