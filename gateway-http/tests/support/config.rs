//! Configurations to test with: one listener on port 8080, one service `echo` under `/`.

use gateway_core::ir::*;
use gateway_core::lower::{self, Ids};
use gateway_core::snapshot::Snapshot;
use std::net::SocketAddr;
use std::sync::Arc;

pub fn endpoint_addr(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 18, 2, 10 + number], 50_051))
}

/// A configuration under construction.
#[derive(Clone)]
pub struct Config {
    pub endpoints: Vec<SocketAddr>,
    pub rule: HttpRule,
    pub balance: BalancePolicy,
    /// Endpoints of the service `default/shadow:50051`.
    pub shadows: Vec<SocketAddr>,
    /// Rules beside `rule`.
    pub more: Vec<HttpRule>,
    /// Who is asked before a route is looked for.
    pub guards: Vec<HttpRule>,
    /// Whom the rules are for.
    pub hostname: HostPattern,
}

impl Config {
    /// `count` endpoints, speaking HTTP/2.
    pub fn new(count: u8) -> Self {
        let to = HttpDestination {
            to: Destination::Service(ServiceName::from("default/echo:50051")),
            protocol: UpstreamProtocol::H2c,
            filters: Vec::new(),
        };
        let rule = HttpRule {
            name: RuleName::from("HTTPRoute/default/echo/0"),
            kind: RouteKind::Http,
            matches: vec![HttpMatch {
                path: PathMatch::Prefix("/".to_owned()),
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
            }],
            filters: Vec::new(),
            destinations: vec![Weighted { weight: 1, to }],
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        };
        Self {
            endpoints: (1..=count).map(endpoint_addr).collect(),
            rule,
            more: Vec::new(),
            guards: Vec::new(),
            hostname: HostPattern::Any,
            balance: BalancePolicy::RoundRobin,
            shadows: Vec::new(),
        }
    }

    pub fn rule(mut self, change: impl FnOnce(&mut HttpRule)) -> Self {
        change(&mut self.rule);
        self
    }

    fn ir(&self) -> Ir {
        let bind = Bind {
            addr: None,
            port: 8080,
            transport: Transport::Tcp,
        };
        let rules = [std::slice::from_ref(&self.rule), &self.more[..]].concat();
        let host = VirtualHost::new(self.hostname.clone(), rules);
        let name = ListenerName::from("default/gw/http");
        let scope = HttpScope {
            listener: name.clone(),
            hostname: HostPattern::Any,
            certificates: Vec::new(),
            tls: Default::default(),
            hosts: vec![host].into(),
            guards: self.guards.iter().cloned().map(Arc::new).collect(),
        };
        let plane = Plane::Http(HttpRules {
            tls: false,
            scopes: vec![scope],
            streams: Vec::new(),
        });
        let listener = Listener {
            bind,
            names: vec![name],
            plane,
            why: String::new(),
            exposure: Default::default(),
        };
        let endpoint = |addr: &SocketAddr| Endpoint {
            name: EndpointName::new(addr.to_string()),
            addr: *addr,
            weight: 1,
            readiness: Readiness::Serving,
        };
        let service = Service {
            name: ServiceName::from("default/echo:50051"),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            balance: self.balance,
            tls: None,
        };
        let shadow = Service {
            name: ServiceName::from("default/shadow:50051"),
            endpoints: self.shadows.iter().map(endpoint).collect(),
            ..service.clone()
        };
        Ir {
            listeners: [(bind, listener)].into(),
            services: [service, shadow]
                .map(|service| (service.name.clone(), service.into()))
                .into(),
            certificates: Default::default(),
        }
    }

    /// Lowered with ids that outlive it.
    pub fn lower(&self, ids: &mut Ids, revision: u64) -> Arc<Snapshot> {
        let ir = self.ir();
        ids.assign(&ir);
        Arc::new(lower::snapshot::lower(&ir, Revision(revision), ids))
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.lower(&mut Ids::default(), 1)
    }
}
