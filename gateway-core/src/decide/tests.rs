//! Requests and connections through a whole configuration.

use super::*;
use crate::ir::{BalancePolicy, Destination, HttpRule, Ir, Plane, Readiness, Redirect, Service};
use crate::lower::sample::{fail, http, ir, lowered, on_port, rule, scope, service, stream, to_service};
use proptest::prelude::*;

struct NoFields;

impl Fields for NoFields {
    fn field(&self, _: &[u8]) -> Option<&[u8]> {
        None
    }
}

fn get<'a>(host: &'a str, path: &'a str) -> RequestHead<'a, NoFields> {
    RequestHead {
        method: b"GET",
        host,
        path: path.as_bytes(),
        query: None,
        fields: &NoFields,
    }
}

/// Any client.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const ECHO: &str = "default/echo:80";

fn echo() -> Service {
    service(ECHO, &[(11, 1), (12, 1), (13, 1), (14, 1)])
}

/// A snapshot with one worker's balancers; the only listener is on port 8080.
struct Gateway {
    snapshot: Snapshot,
    balancers: Balancers,
    listener: ListenerId,
}

impl Gateway {
    fn new(ir: &Ir) -> Self {
        let (snapshot, ids) = lowered(ir);
        Self {
            snapshot,
            balancers: Balancers::new(0),
            listener: ids.listener(&on_port(8080)).unwrap(),
        }
    }

    fn of(plane: Plane) -> Self {
        Self::new(&ir(vec![(on_port(8080), plane)], vec![echo()]))
    }

    fn of_rule(rule: HttpRule) -> Self {
        Self::of(http(vec![scope(None, vec![rule])]))
    }

    fn decide(&mut self) -> Decide<'_> {
        Decide {
            snapshot: &self.snapshot,
            balancers: &mut self.balancers,
        }
    }

    fn get(&mut self, host: &str, path: &str) -> Decision {
        let listener = self.listener;
        self.decide().request(listener, &get(host, path), Moment::ZERO)
    }

    fn reply(&mut self, host: &str, path: &str) -> Reply {
        match self.get(host, path) {
            Decision::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn forward(&mut self, path: &str) -> Forward {
        match self.get("h", path) {
            Decision::Forward(forward) => forward,
            other => panic!("{other:?}"),
        }
    }

    fn connection(&mut self, server_name: Option<&str>) -> Result<&str, Refusal> {
        let listener = self.listener;
        let (rule, _) = self.decide().connection(listener, CLIENT, server_name, Moment::ZERO)?;
        let plan = self.snapshot.listener(listener).and_then(ListenerPlan::stream).unwrap();
        Ok(plan.rules.iter().find(|of| of.id == rule).unwrap().name.as_str())
    }
}

#[test]
fn a_request_goes_to_its_rule_and_round_its_endpoints() {
    let mut gateway = Gateway::of_rule(rule("a", "/api", &[(1, to_service(ECHO))]));
    let forwards: Vec<Forward> = (0..5).map(|_| gateway.forward("/api/x")).collect();
    assert_eq!(gateway.snapshot.rule(forwards[0].rule).unwrap().name.as_str(), "a");
    assert_eq!(
        forwards.iter().map(|forward| forward.endpoint.0).collect::<Vec<_>>(),
        [0, 1, 2, 3, 0]
    );
    assert_eq!((forwards[0].prefix_len, forwards[0].destination), (4, 0));
    assert_eq!(
        (forwards[0].protocol, forwards[0].deadline),
        (UpstreamProtocol::H2c, None)
    );
}

#[test]
fn what_no_host_or_route_matches_says_which() {
    let mut gateway = Gateway::of(http(vec![
        scope(Some("*.example.com"), vec![rule("any", "/", &[(1, to_service(ECHO))])]),
        scope(Some("a.example.com"), vec![rule("a", "/a", &[(1, to_service(ECHO))])]),
    ]));
    assert_eq!(gateway.reply("other.org", "/"), Reply::NoHost);
    assert!(matches!(gateway.get("b.example.com", "/x"), Decision::Forward(_)));
    // Isolation: the wildcard listener would have a route.
    assert_eq!(gateway.reply("a.example.com", "/x"), Reply::NoRoute);
    gateway.listener = ListenerId(77);
    assert_eq!(gateway.reply("b.example.com", "/"), Reply::NoHost);
}

#[test]
fn a_rule_that_can_go_nowhere_answers_500_and_a_service_without_endpoints_503() {
    let broken = |status| Reply::Broken {
        rule: RuleId(0),
        status,
    };
    let reply = |destinations: &[(u32, Destination)]| Gateway::of_rule(rule("a", "/", destinations)).reply("h", "/");
    assert_eq!(reply(&[]), broken(500));
    assert_eq!(reply(&[(0, to_service(ECHO)), (0, fail(503))]), broken(500));
    assert_eq!(reply(&[(1, fail(500))]), broken(500));
    assert_eq!(reply(&[(1, fail(503))]), broken(503));
    assert_eq!(reply(&[(1, to_service("default/unknown:80"))]), broken(500));

    let mut draining = echo();
    draining
        .endpoints
        .iter_mut()
        .for_each(|endpoint| endpoint.readiness = Readiness::Draining);
    let plane = http(vec![scope(None, vec![rule("a", "/", &[(1, to_service(ECHO))])])]);
    let mut gateway = Gateway::new(&ir(vec![(on_port(8080), plane)], vec![draining]));
    assert_eq!(gateway.reply("h", "/"), Reply::NoEndpoint { rule: RuleId(0) });
}

#[test]
fn a_broken_destination_answers_exactly_its_share() {
    let mut gateway = Gateway::of_rule(rule("a", "/", &[(9, to_service(ECHO)), (1, fail(500))]));
    let broken = (0..1000)
        .filter(|_| matches!(gateway.get("h", "/"), Decision::Reply(_)))
        .count();
    assert_eq!(broken, 100);
}

#[test]
fn a_redirect_of_a_rule_or_of_a_destination_answers() {
    let redirect = Redirect {
        scheme: Some("https".to_owned()),
        hostname: None,
        path: None,
        port: None,
        status: 301,
    };
    let expected = |location: &str| Reply::Redirect {
        rule: RuleId(0),
        status: 301,
        location: location.to_owned(),
    };
    let mut of_rule = rule("a", "/", &[]);
    of_rule.filters.push(Filter::Redirect(redirect.clone()));
    assert_eq!(
        Gateway::of_rule(of_rule).reply("example.org", "/x"),
        expected("https://example.org/x")
    );

    let mut of_destination = rule("a", "/", &[(1, to_service(ECHO))]);
    of_destination.destinations[0]
        .to
        .filters
        .push(Filter::Redirect(Redirect {
            scheme: None,
            ..redirect
        }));
    let reply = Gateway::of_rule(of_destination).reply("example.org", "/x");
    assert_eq!(reply, expected("http://example.org:8080/x"));
}

#[test]
fn the_deadline_is_the_requests_and_each_attempt_has_its_own_and_zero_is_none() {
    let times = |request, backend_request| {
        let mut of = rule("a", "/", &[(1, to_service(ECHO))]);
        let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
        of.timeouts = Timeouts {
            request: ms(request),
            backend_request: ms(backend_request),
        };
        let forward = Gateway::of_rule(of).forward("/");
        (forward.deadline, forward.attempt_timeout)
    };
    let (deadline, attempt) = (Moment::from_millis(500), Duration::from_millis(200));
    assert_eq!(times(None, None), (None, None));
    assert_eq!(times(Some(0), Some(0)), (None, None));
    assert_eq!(times(Some(500), None), (Some(deadline), None));
    assert_eq!(times(Some(500), Some(200)), (Some(deadline), Some(attempt)));
    assert_eq!(times(Some(0), Some(200)), (None, Some(attempt)));
}

#[test]
fn another_attempt_goes_to_who_was_not_tried_then_to_anybody_but_the_last() {
    let mut gateway = Gateway::of_rule(rule("a", "/", &[(1, to_service(ECHO))]));
    let forward = gateway.forward("/");
    let mut tried = vec![forward.endpoint];
    for _ in 0..3 {
        let next = gateway.decide().retry(&forward, &tried, Moment::ZERO).unwrap();
        assert!(!tried.contains(&next));
        tried.push(next);
    }
    let next = gateway.decide().retry(&forward, &tried, Moment::ZERO).unwrap();
    assert_ne!(Some(&next), tried.last());
    let all = ir(
        vec![(
            on_port(8080),
            http(vec![scope(None, vec![rule("a", "/", &[(1, to_service(ECHO))])])]),
        )],
        vec![service(ECHO, &[(11, 1)])],
    );
    let mut alone = Gateway::new(&all);
    let forward = alone.forward("/");
    let again = alone.decide().retry(&forward, &[forward.endpoint], Moment::ZERO);
    assert_eq!(again, Some(forward.endpoint), "better the same one than nobody");
}

#[test]
fn the_budget_of_a_service_is_taken_by_all_its_rules() {
    let allowance = Allowance {
        percent: 20,
        per_second: 1,
    };
    let rules = vec![
        rule("a", "/a", &[(1, to_service(ECHO))]),
        rule("b", "/b", &[(1, to_service(ECHO))]),
    ];
    let mut gateway = Gateway::of(http(vec![scope(None, rules)]));
    let (a, b) = (gateway.forward("/a"), gateway.forward("/b"));
    gateway.decide().allow_retries(&a, allowance, Moment::ZERO);
    let taken = |gateway: &mut Gateway, of| {
        (0..20)
            .filter(|_| gateway.decide().take_retry(of, allowance, Moment::ZERO))
            .count()
    };
    assert_eq!(taken(&mut gateway, &a), 10);
    assert_eq!(taken(&mut gateway, &b), 0);
}

#[test]
fn a_request_that_was_not_processed_goes_to_another_endpoint_until_there_is_none() {
    let mut gateway = Gateway::of_rule(rule("a", "/", &[(1, to_service(ECHO))]));
    let forward = gateway.forward("/");
    let mut tried = vec![forward.endpoint];
    while let Some(next) = gateway.decide().again(&forward, &tried, Moment::ZERO) {
        assert!(!tried.contains(&next));
        tried.push(next);
    }
    assert_eq!(tried.len(), 4);
}

#[test]
fn a_connection_goes_by_its_server_name() {
    let to = || to_service(ECHO);
    let rules = [
        (Some("*.example.com"), "wild", to()),
        (Some("a.example.com"), "a", to()),
    ];
    let mut gateway = Gateway::of(Plane::Splice(stream(Recognise::Sni, &rules)));
    assert_eq!(gateway.connection(Some("a.example.com")), Ok("a"));
    assert_eq!(gateway.connection(Some("b.example.com")), Ok("wild"));
    assert_eq!(gateway.connection(Some("example.com")), Err(Refusal::NoServerName));
    assert_eq!(gateway.connection(None), Err(Refusal::NoServerName));

    let mut gateway = Gateway::of(Plane::Splice(stream(Recognise::Sni, &[(None, "any", to())])));
    assert_eq!(gateway.connection(None), Ok("any"));
}

#[test]
fn a_connection_to_a_relay_needs_no_name_and_says_why_it_is_refused() {
    let relay = |rules: &[_]| Gateway::of(Plane::Kernel(stream(Recognise::Nothing, rules)));
    assert_eq!(relay(&[(None, "tcp", to_service(ECHO))]).connection(None), Ok("tcp"));
    assert_eq!(
        relay(&[(None, "tcp", fail(500))]).connection(None),
        Err(Refusal::Broken)
    );
    assert_eq!(relay(&[]).connection(None), Err(Refusal::Broken));
    let mut http = Gateway::of(http(vec![]));
    assert_eq!(http.connection(None), Err(Refusal::NoListener));

    let empty = Plane::Splice(stream(Recognise::Nothing, &[(None, "tcp", to_service(ECHO))]));
    let mut gateway = Gateway::new(&ir(vec![(on_port(8080), empty)], vec![service(ECHO, &[])]));
    assert_eq!(gateway.connection(None), Err(Refusal::NoEndpoint));
}

#[test]
fn a_connection_that_reached_nobody_gets_another_endpoint_of_the_same_service() {
    let plane = Plane::Splice(stream(Recognise::Nothing, &[(None, "tcp", to_service(ECHO))]));
    let mut gateway = Gateway::of(plane);
    let listener = gateway.listener;
    let (_, first) = gateway
        .decide()
        .connection(listener, CLIENT, None, Moment::ZERO)
        .unwrap();
    let second = gateway
        .decide()
        .connection_again(first, CLIENT, &[first], Moment::ZERO)
        .unwrap();
    assert_ne!(first, second);
    let all: Vec<EndpointId> = (0..4).map(EndpointId).collect();
    assert_eq!(
        gateway.decide().connection_again(first, CLIENT, &all, Moment::ZERO),
        None
    );
}

proptest! {
    #[test]
    fn the_same_snapshot_state_and_arguments_give_the_same_decisions(
        requests in prop::collection::vec((0usize..3, 0usize..4, 0u64..40_000, any::<bool>()), 1..80),
    ) {
        let rules = vec![
            rule("a", "/a", &[(3, to_service(ECHO)), (1, fail(500))]),
            rule("b", "/", &[(1, to_service(ECHO)), (2, to_service("default/other:80"))]),
        ];
        let plane = || http(vec![scope(Some("*.com"), rules.clone())]);
        let other = service("default/other:80", &[(21, 1), (22, 3)]);
        let configured = ir(vec![(on_port(8080), plane())], vec![echo(), other]);
        let run = || {
            let mut gateway = Gateway::new(&configured);
            let listener = gateway.listener;
            let mut decisions = Vec::new();
            for (host, path, ms, fails) in &requests {
                let head = get(["a.com", "b.com", "c.org"][*host], ["/", "/a", "/a/b", "/ab"][*path]);
                let now = Moment::from_millis(*ms);
                let decision = gateway.decide().request(listener, &head, now);
                if let (Decision::Forward(forward), true) = (&decision, fails) {
                    gateway.balancers.failed(forward.endpoint, now);
                }
                decisions.push(decision);
            }
            decisions
        };
        prop_assert_eq!(run(), run());
    }
}

struct Listed(Vec<(&'static [u8], &'static [u8])>);

impl Fields for Listed {
    fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|field| field.0 == name).map(|field| field.1)
    }
}

#[test]
fn a_preflight_is_answered_by_the_rule_of_the_request_it_asks_about() {
    let mut rule = rule("HTTPRoute/default/a/0", "/", &[(1, to_service(ECHO))]);
    rule.matches[0].method = Some("PUT".to_owned());
    rule.filters.push(Filter::Cors(crate::ir::Cors {
        origins: vec![crate::ir::OriginPattern::Any],
        methods: vec!["PUT".to_owned()],
        headers: vec![],
        exposed: vec![],
        credentials: false,
        max_age_s: 5,
    }));
    let mut gateway = Gateway::of_rule(rule);
    let listener = gateway.listener;
    let mut ask = |method: &'static [u8], wanted: &'static [u8]| {
        let fields = Listed(vec![
            (b"origin", b"https://a.example"),
            (b"access-control-request-method", wanted),
        ]);
        let head = RequestHead {
            method,
            host: "h",
            path: b"/x",
            query: None,
            fields: &fields,
        };
        gateway.decide().request(listener, &head, Moment::ZERO)
    };
    let Decision::Reply(Reply::Preflight { fields, .. }) = ask(b"OPTIONS", b"PUT") else {
        panic!("not answered")
    };
    assert!(fields.contains(&("access-control-allow-methods", "PUT".to_owned())));
    assert_eq!(ask(b"OPTIONS", b"GET"), Decision::Reply(Reply::NoRoute));
    assert!(matches!(ask(b"PUT", b"PUT"), Decision::Forward(_)));
}

#[test]
fn a_mirror_copies_exactly_its_share() {
    let mirror = |numerator, denominator| {
        Filter::Mirror(crate::ir::Mirror {
            to: to_service(ECHO),
            protocol: crate::ir::UpstreamProtocol::H2c,
            numerator,
            denominator,
        })
    };
    let mut rule = rule("HTTPRoute/default/a/0", "/", &[(1, to_service(ECHO))]);
    rule.filters
        .extend([mirror(1, 1), mirror(25, 100), mirror(0, 100), mirror(3, 7)]);
    let mut gateway = Gateway::of_rule(rule);
    let id = gateway.snapshot.rules.iter().flatten().next().unwrap().id;
    let mut counts = [0; 5];
    for _ in 0..700 {
        for (index, count) in counts.iter_mut().enumerate() {
            *count += u32::from(gateway.decide().mirror(id, index, Moment::ZERO).is_some());
        }
    }
    assert_eq!(counts, [700, 175, 0, 300, 0]);
}

#[test]
fn by_client_address_a_client_stays_with_its_endpoint_and_only_those_of_one_that_left_move() {
    let relay = |names: &[(u8, u16)]| {
        let mut echo = service(ECHO, names);
        echo.balance = BalancePolicy::ClientAddress;
        let plane = Plane::Splice(stream(Recognise::Nothing, &[(None, "tcp", to_service(ECHO))]));
        lowered(&ir(vec![(on_port(80), plane)], vec![echo]))
    };
    let chosen = |all: &[(u8, u16)], worker: u16| -> Vec<SocketAddr> {
        let (snapshot, ids) = relay(all);
        let listener = ids.listener(&on_port(80)).unwrap();
        let mut balancers = Balancers::new(worker);
        let mut one = |client: u32| {
            let client = IpAddr::V4(client.into());
            let mut decide = Decide {
                snapshot: &snapshot,
                balancers: &mut balancers,
            };
            let (_, endpoint) = decide.connection(listener, client, None, Moment::ZERO).unwrap();
            let again = decide.connection_again(endpoint, client, &[endpoint], Moment::ZERO);
            assert_ne!(again, Some(endpoint), "one that was tried is not tried again");
            snapshot.endpoint(endpoint).unwrap().addr
        };
        (0..1000).map(|client| one(0x0a00_0000 + client)).collect()
    };
    let all = [(1, 1), (2, 1), (3, 1), (4, 1)];
    let before = chosen(&all, 0);
    assert_eq!(before, chosen(&all, 1), "every worker says the same");
    for addr in before.iter().collect::<std::collections::BTreeSet<_>>() {
        let share = before.iter().filter(|one| *one == addr).count();
        assert!((150..350).contains(&share), "{addr}: {share}");
    }
    let left = before[0];
    let rest: Vec<(u8, u16)> = all
        .into_iter()
        .filter(|(name, _)| service(ECHO, &[(*name, 1)]).endpoints[0].addr != left)
        .collect();
    let after = chosen(&rest, 0);
    assert!(before.iter().zip(&after).all(|(a, b)| a == b || *a == left));
}
