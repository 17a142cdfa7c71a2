//! Workers on loopback, configured by a hand-made `Ir`.
#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use gateway_core::fault::Refusal;
use gateway_core::ir::{
    Bind, Certificate, Destination, Endpoint, EndpointName, HostPattern, HttpDestination, HttpMatch, HttpRule,
    HttpRules, HttpScope, Ir, Listener, PathMatch, Plane, Readiness, Recognise, Revision, RouteKind, RuleName, Service,
    StreamRule, StreamRules, Timeouts, UpstreamProtocol, VirtualHost, Weighted,
};
use gateway_core::lower::{self, Ids};
use sluice::telemetry::access_log::{AccessLogOptions, Format};
use sluice::worker::{Report, WorkerOptions, Workers};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The most that two connections can hold in the kernel, in both directions, and 1 MB of ours.
pub fn taken_max() -> usize {
    let max = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        text.split_whitespace().last().unwrap().parse::<usize>().unwrap()
    };
    2 * (max("tcp_rmem") + max("tcp_wmem")) + 1_000_000
}

/// An address of 127.0.0.1 that nobody listens on, and that no other test of this process gets.
pub fn free_addr() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if GIVEN.lock().unwrap().insert(addr.port()) {
            return addr;
        }
    }
}

pub fn service(name: &str, endpoints: &[SocketAddr]) -> Service {
    let endpoint = |addr: &SocketAddr| Endpoint {
        name: EndpointName::new(addr.to_string()),
        addr: *addr,
        weight: 1,
        readiness: Readiness::Serving,
    };
    let mut endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    endpoints.sort_by_key(|endpoint| endpoint.addr);
    Service {
        name: name.into(),
        endpoints,
        balance: Default::default(),
        tls: None,
    }
}

fn listener(bind: SocketAddr, plane: Plane) -> Listener {
    Listener {
        bind: Bind::tcp(bind),
        names: vec!["default/gw/it".into()],
        plane,
        why: String::new(),
        exposure: Default::default(),
    }
}

/// A TCP listener whose connections go to `service`.
pub fn relay(bind: SocketAddr, service: &str) -> Listener {
    let rules = StreamRules {
        recognise: Recognise::Nothing,
        rules: vec![stream_rule(None, service)],
    };
    listener(bind, Plane::Splice(rules))
}

/// A TLS passthrough listener: server names and where they go.
pub fn passthrough(bind: SocketAddr, names: &[(&str, &str)]) -> Listener {
    let rules = names
        .iter()
        .map(|(name, service)| stream_rule(Some(name), service))
        .collect();
    listener(
        bind,
        Plane::Splice(StreamRules {
            recognise: Recognise::Sni,
            rules,
        }),
    )
}

fn stream_rule(hostname: Option<&str>, service: &str) -> StreamRule {
    StreamRule {
        listener: "default/gw/it".into(),
        name: RuleName::new(format!("TCPRoute/default/{service}/0")),
        hostname: HostPattern::parse(hostname),
        destinations: vec![Weighted {
            weight: 1,
            to: Destination::Service(service.into()),
        }],
        terminate: None,
    }
}

/// An HTTP listener: path prefixes and where they go. With `certificate` it is HTTPS.
pub fn http(bind: SocketAddr, certificate: Option<&str>, routes: &[(&str, &str, UpstreamProtocol)]) -> Listener {
    let rule = |(prefix, service, protocol): &(&str, &str, UpstreamProtocol)| HttpRule {
        name: RuleName::new(format!("HTTPRoute/default/{service}/{prefix}")),
        kind: RouteKind::Http,
        matches: vec![HttpMatch {
            path: PathMatch::Prefix((*prefix).to_owned()),
            method: None,
            headers: vec![],
            query: vec![],
        }],
        filters: vec![],
        destinations: vec![Weighted {
            weight: 1,
            to: HttpDestination {
                to: Destination::Service((*service).into()),
                protocol: *protocol,
                filters: vec![],
            },
        }],
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    };
    let scope = HttpScope {
        listener: "default/gw/it".into(),
        hostname: HostPattern::Any,
        certificates: certificate.into_iter().map(Into::into).collect(),
        tls: Default::default(),
        hosts: vec![VirtualHost::new(HostPattern::Any, routes.iter().map(rule))].into(),
        guards: Vec::new(),
    };
    listener(
        bind,
        Plane::Http(HttpRules {
            tls: certificate.is_some(),
            scopes: vec![scope],
            streams: Vec::new(),
        }),
    )
}

pub fn ir(listeners: Vec<Listener>, services: Vec<Service>) -> Ir {
    Ir {
        listeners: listeners
            .into_iter()
            .map(|listener| (listener.bind, listener))
            .collect(),
        services: services
            .into_iter()
            .map(|service| (service.name.clone(), service.into()))
            .collect(),
        ..Ir::default()
    }
}

pub fn with_certificate(mut ir: Ir, name: &str, certificate: Certificate) -> Ir {
    ir.certificates.insert(name.into(), certificate);
    ir
}

/// Workers that serve an `Ir`.
pub struct Gateway {
    pub workers: Workers,
    ids: Ids,
    revision: u64,
}

/// Options for tests: one worker, no log.
pub fn options() -> WorkerOptions {
    let access_log = AccessLogOptions {
        format: Format::Off,
        ..AccessLogOptions::default()
    };
    WorkerOptions {
        access_log,
        ..WorkerOptions::default()
    }
}

impl Gateway {
    pub fn start(ir: &Ir, options: WorkerOptions) -> Self {
        let mut gateway = Self {
            workers: Workers::start(options).unwrap(),
            ids: Ids::default(),
            revision: 0,
        };
        gateway.publish(ir);
        gateway
    }

    /// Makes `ir` the configuration.
    pub fn publish(&mut self, ir: &Ir) {
        self.revision += 1;
        assert_eq!(self.ids.assign(ir), []);
        let snapshot = lower::snapshot::lower(ir, Revision(self.revision), &self.ids);
        let problems = self.workers.publish(&Arc::new(snapshot));
        assert!(problems.is_empty(), "{problems:?}");
        let binds: Vec<_> = ir.listeners.keys().copied().collect();
        let failed = self.workers.listen(&binds);
        assert!(failed.is_empty(), "{failed:?}");
    }

    /// The only worker's report.
    pub fn report(&self) -> Report {
        self.workers.inspect(true, PATIENCE).remove(0)
    }

    /// Waits until `refusal` was given `times` times.
    #[track_caller]
    pub fn expect_refused(&self, refusal: Refusal, times: u64) {
        self.expect(&format!("{times} refused as {}", refusal.name()), |report| {
            report.refusals.of(refusal) == times
        });
    }

    /// Waits until the only worker's report fits.
    #[track_caller]
    pub fn expect(&self, what: &str, fits: impl Fn(&Report) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let report = self.report();
            if fits(&report) {
                return;
            }
            assert!(Instant::now() < until, "never came: {what}; last: {report:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A connection that fails the test instead of hanging.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A server that gives each connection to `serve`, on a thread of its own.
pub fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    addr
}
