//! A decision allocates nothing once its route and its balancers are warm.

use gateway_core::balance::Balancers;
use gateway_core::decide::{Decide, Decision, Fields, RequestHead};
use gateway_core::ids::ListenerId;
use gateway_core::ir::*;
use gateway_core::lower::{Ids, snapshot::lower};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

struct List(&'static [(&'static [u8], &'static [u8])]);

impl Fields for List {
    fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(field, _)| *field == name).map(|(_, value)| *value)
    }
}

fn matches(path: PathMatch, header: Option<ValueMatch>) -> HttpMatch {
    let header = header.map(|value| FieldMatch {
        name: "x-tenant".to_owned(),
        value,
    });
    let query = vec![FieldMatch {
        name: "v".to_owned(),
        value: ValueMatch::Exact("2".to_owned()),
    }];
    HttpMatch {
        path,
        method: Some("GET".to_owned()),
        headers: header.into_iter().collect(),
        query,
    }
}

/// 1,000 routes by exact path, prefix, pattern and header, over two weighted services of three endpoints.
fn configuration() -> Ir {
    let service = |name: &str, balance| {
        let endpoint = |last| Endpoint {
            name: EndpointName::new(format!("be{last}")),
            addr: ([198, 18, 2, last], 80).into(),
            weight: 1,
            readiness: Readiness::Serving,
        };
        Service {
            name: ServiceName::from(name),
            endpoints: (11..14).map(endpoint).collect(),
            balance,
            tls: None,
        }
    };
    let destination = |name: &str, weight| Weighted {
        weight,
        to: HttpDestination {
            to: Destination::Service(ServiceName::from(name)),
            protocol: UpstreamProtocol::H2c,
            filters: Vec::new(),
        },
    };
    let rule = |n: u32| {
        let path = match n % 3 {
            0 => PathMatch::Exact(format!("/e/{n}")),
            1 => PathMatch::Prefix(format!("/p/{n}")),
            _ => PathMatch::Regex(format!("/r/{}/[a-z]+", n % 100)),
        };
        HttpRule {
            name: RuleName::new(n.to_string()),
            kind: RouteKind::Http,
            matches: vec![matches(
                path,
                n.is_multiple_of(2).then(|| ValueMatch::Regex("[a-z]{1,9}".to_owned())),
            )],
            filters: Vec::new(),
            destinations: vec![destination("a", 3), destination("b", 1)],
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        }
    };
    let host = |name: &str| VirtualHost::new(HostPattern::parse(Some(name)), (0..1000).map(rule));
    let scope = HttpScope {
        listener: ListenerName::from("default/gw/http"),
        hostname: HostPattern::Any,
        certificates: Vec::new(),
        tls: Default::default(),
        hosts: vec![host("a.example.com"), host("*.example.com")].into(),
        guards: Vec::new(),
    };
    let bind = Bind {
        addr: None,
        port: 80,
        transport: Transport::Tcp,
    };
    let plane = Plane::Http(HttpRules {
        tls: false,
        scopes: vec![scope],
        streams: Vec::new(),
    });
    let listener = Listener {
        bind,
        names: Vec::new(),
        plane,
        why: String::new(),
        exposure: Default::default(),
    };
    let services = [
        service("a", BalancePolicy::RoundRobin),
        service("b", BalancePolicy::LeastRequest),
    ];
    Ir {
        listeners: [(bind, listener)].into(),
        services: services.map(|service| (service.name.clone(), service.into())).into(),
        certificates: Default::default(),
    }
}

fn decide(snapshot: &Snapshot, balancers: &mut Balancers, host: &str, path: &str, now: Moment) -> bool {
    let fields = List(&[(b"accept", b"*/*"), (b"x-tenant", b"red")]);
    let head = RequestHead {
        method: b"GET",
        host,
        path: path.as_bytes(),
        query: Some(b"u=1&v=2"),
        fields: &fields,
    };
    match (Decide { snapshot, balancers }).request(ListenerId(0), &head, now) {
        Decision::Reply(_) | Decision::Ask(_) => false,
        Decision::Forward(forward) => {
            balancers.started(forward.endpoint);
            balancers.answered(forward.endpoint);
            balancers.finished(forward.endpoint);
            true
        }
    }
}

#[test]
fn a_warm_decision_does_not_allocate() {
    let ir = configuration();
    let mut ids = Ids::default();
    ids.assign(&ir);
    let snapshot = lower(&ir, Revision(1), &ids);
    let mut balancers = Balancers::new(0);
    let paths = [
        "/e/6",
        "/e/9",
        "/p/10/x/y",
        "/p/7",
        "/r/5/abc",
        "/r/99/z",
        "/none",
        "/",
        "/p/10x",
    ];
    let mut round = |ms: u64| {
        let mut forwarded = 0;
        for (host, path) in ["a.example.com", "b.c.example.com", "other.org"]
            .iter()
            .flat_map(|h| paths.map(|p| (h, p)))
        {
            forwarded += u32::from(decide(&snapshot, &mut balancers, host, path, Moment::from_millis(ms)));
        }
        forwarded
    };
    assert_eq!((0..8).map(&mut round).collect::<Vec<_>>(), [12; 8]);
    let region = Region::new(COUNTED);
    let forwarded: u32 = (8..1000).map(&mut round).sum();
    let change = region.change();
    assert_eq!(forwarded, 992 * 12);
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}
