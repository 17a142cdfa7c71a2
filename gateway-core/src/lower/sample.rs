//! A few words to write configurations in tests with.

use crate::ir::{
    BalancePolicy, Bind, Destination, Endpoint, EndpointName, HostPattern, HttpDestination, HttpMatch, HttpRule,
    HttpRules, HttpScope, Ir, Listener, ListenerName, PathMatch, Plane, Readiness, Recognise, Revision, RouteKind,
    RuleName, Service, ServiceName, StreamRule, StreamRules, Timeouts, Transport, UpstreamProtocol, VirtualHost,
    Weighted,
};
use crate::lower::Ids;
use crate::snapshot::Snapshot;

/// The snapshot of a configuration, with ids of its own.
pub fn lowered(ir: &Ir) -> (Snapshot, Ids) {
    let mut ids = Ids::default();
    assert_eq!(ids.assign(ir), []);
    (super::snapshot::lower(ir, Revision(1), &ids), ids)
}

/// TCP on every address.
pub fn on_port(port: u16) -> Bind {
    Bind {
        addr: None,
        port,
        transport: Transport::Tcp,
    }
}

/// A service whose endpoints serve, `(last byte of the address, weight)`.
pub fn service(name: &str, endpoints: &[(u8, u16)]) -> Service {
    let endpoint = |(last, weight): &(u8, u16)| Endpoint {
        name: EndpointName::new(format!("be{last}")),
        addr: ([198, 18, 2, *last], 80).into(),
        weight: *weight,
        readiness: Readiness::Serving,
    };
    Service {
        name: ServiceName::from(name),
        endpoints: endpoints.iter().map(endpoint).collect(),
        balance: BalancePolicy::RoundRobin,
        tls: None,
    }
}

pub fn to_service(name: &str) -> Destination {
    Destination::Service(ServiceName::from(name))
}

pub fn fail(status: u16) -> Destination {
    Destination::Fail {
        status,
        why: "Service default/gone does not exist".to_owned(),
    }
}

/// A rule for a path prefix, with weighted destinations.
pub fn rule(name: &str, prefix: &str, destinations: &[(u32, Destination)]) -> HttpRule {
    let destination = |(weight, to): &(u32, Destination)| {
        let to = HttpDestination {
            to: to.clone(),
            protocol: UpstreamProtocol::H2c,
            filters: Vec::new(),
        };
        Weighted { weight: *weight, to }
    };
    let path = PathMatch::Prefix(prefix.to_owned());
    HttpRule {
        name: RuleName::from(name),
        kind: RouteKind::Http,
        matches: vec![HttpMatch {
            path,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }],
        filters: Vec::new(),
        destinations: destinations.iter().map(destination).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}

/// A Gateway API listener with the rules of one hostname: its own.
pub fn scope(hostname: Option<&str>, rules: Vec<HttpRule>) -> HttpScope {
    let hostname = HostPattern::parse(hostname);
    HttpScope {
        listener: ListenerName::new(format!("default/gw/{hostname}")),
        hostname: hostname.clone(),
        certificates: Vec::new(),
        tls: Default::default(),
        hosts: vec![VirtualHost::new(hostname, rules)].into(),
        guards: Vec::new(),
    }
}

pub fn http(scopes: Vec<HttpScope>) -> Plane {
    Plane::Http(HttpRules {
        tls: false,
        scopes,
        streams: Vec::new(),
    })
}

/// Stream rules by hostname.
pub fn stream(recognise: Recognise, rules: &[(Option<&str>, &str, Destination)]) -> StreamRules {
    let rule = |(hostname, name, to): &(Option<&str>, &str, Destination)| StreamRule {
        listener: ListenerName::from("default/gw/tls"),
        name: RuleName::from(*name),
        hostname: HostPattern::parse(*hostname),
        destinations: vec![Weighted {
            weight: 1,
            to: to.clone(),
        }],
        terminate: None,
    };
    StreamRules {
        recognise,
        rules: rules.iter().map(rule).collect(),
    }
}

pub fn ir(listeners: Vec<(Bind, Plane)>, services: Vec<Service>) -> Ir {
    let listener = |(bind, plane)| {
        (
            bind,
            Listener {
                bind,
                names: vec![ListenerName::from("default/gw/a")],
                plane,
                why: String::new(),
                exposure: Default::default(),
            },
        )
    };
    Ir {
        listeners: listeners.into_iter().map(listener).collect(),
        services: services
            .into_iter()
            .map(|service| (service.name.clone(), service.into()))
            .collect(),
        certificates: Default::default(),
    }
}
