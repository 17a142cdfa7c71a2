//! Filters of a listener: they are asked before a route is looked for, in their order, about every request.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use config::{Config, endpoint_addr};
use gateway_core::fault::Fault;
use gateway_core::ir::{
    AuthSpeaks, Cors, Destination, ExternalAuth, FieldEdits, FieldMatch, Filter, HttpRule, OriginPattern, PathMatch,
    RouteKind, RuleName, ServiceName, UpstreamProtocol, ValueMatch,
};
use gateway_http::limits::Limits;
use http::{Request, Response};
use peer::{Incoming, body, client, endpoint, log, send_all};
use rig::Rig;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

/// The authorization service's one endpoint.
const AUTH: u8 = 9;

fn guard(name: &str, taken: &[&str]) -> HttpRule {
    let to = Destination::Service(ServiceName::from("default/shadow:50051"));
    HttpRule {
        name: RuleName::new(format!("Gateway/default/gw/http/{name}")),
        matches: Vec::new(),
        filters: vec![asks(to, &format!("/{name}"), taken)],
        destinations: Vec::new(),
        ..Config::new(1).rule
    }
}

fn asks(to: Destination, prefix: &str, taken: &[&str]) -> Filter {
    Filter::ExternalAuth(ExternalAuth {
        to,
        protocol: UpstreamProtocol::H2c,
        speaks: AuthSpeaks::Http {
            prefix: prefix.to_owned(),
            shown: vec!["x-one".to_owned(), "x-forwarded-for".to_owned()],
            taken: taken.iter().map(|name| (*name).to_owned()).collect(),
        },
        body_bytes_max: 0,
    })
}

/// Two guards, and on `/known` a rule for user ann and one for everybody else. Each says which it is.
fn config() -> Config {
    let mut config = Config::new(1);
    config.shadows = vec![endpoint_addr(AUTH)];
    config.guards = vec![guard("one", &["x-one"]), guard("two", &["x-user"])];
    let says = |rule: &mut HttpRule, name: &str| {
        let set = vec![("x-rule".to_owned(), name.to_owned())];
        rule.filters.push(Filter::RequestHeaders(FieldEdits {
            set,
            ..FieldEdits::default()
        }));
    };
    config.rule.matches[0].path = PathMatch::Prefix("/known".to_owned());
    let mut other = config.rule.clone();
    other.name = RuleName::from("HTTPRoute/default/other/0");
    says(&mut other, "other");
    config.rule.matches[0].headers.push(FieldMatch {
        name: "x-user".to_owned(),
        value: ValueMatch::Exact("ann".to_owned()),
    });
    says(&mut config.rule, "ann");
    config.more = vec![other];
    config
}

/// A service that answers by what it is asked, and the questions it got.
async fn service(rig: &Rig, answer: fn(&str) -> u16) -> UnboundedReceiver<http::request::Parts> {
    let (told, asked) = log();
    drop(
        endpoint(rig, AUTH, move |(request, mut respond): Incoming| {
            let head = request.into_parts().0;
            let status = answer(head.uri.path());
            told.send(head).unwrap();
            async move {
                sleep(Duration::from_millis(20)).await;
                let head = Response::builder().status(status);
                let head = head.header("x-one", "first").header("x-user", "ann").body(());
                let _ = respond.send_response(head.unwrap(), true);
            }
        })
        .await,
    );
    asked
}

fn paths(asked: &mut UnboundedReceiver<http::request::Parts>) -> Vec<String> {
    std::iter::from_fn(|| asked.try_recv().ok())
        .map(|head| head.uri.path().to_owned())
        .collect()
}

async fn send(rig: &Rig, request: Request<()>, payload: &'static [u8]) -> (u16, http::HeaderMap, Vec<u8>) {
    let mut client = client(rig).await;
    let (response, mut out) = client.send_request(request, payload.is_empty()).unwrap();
    if !payload.is_empty() {
        let _ = send_all(&mut out, Bytes::from_static(payload), true).await;
    }
    let (head, mut incoming) = response.await.unwrap().into_parts();
    let got = body(&mut incoming).await.map_or(Vec::new(), |got| got.0);
    (head.status.as_u16(), head.headers, got)
}

fn post(path: &str) -> Request<()> {
    let request = Request::post(format!("http://example.com{path}"));
    request
        .header("x-one", "forged")
        .header("x-user", "forged")
        .body(())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_the_services_say_in_turn_decides_the_route() {
    let rig = Rig::start(config().snapshot(), Limits::default());
    drop(endpoint(&rig, 1, |incoming| peer::echo("be", incoming)).await);
    let mut asked = service(&rig, |_| 200).await;
    let (status, head, got) = send(&rig, post("/known?q=1"), b"payload").await;
    assert_eq!((status, &got[..]), (200, &b"payload"[..]));
    assert_eq!(
        head["echo-x-rule"], "ann",
        "without its user it would have met the other rule"
    );
    assert_eq!(head["echo-x-user"], "ann");
    assert_eq!(head.get_all("echo-x-forwarded-for").iter().count(), 1);
    let from = head["echo-x-forwarded-for"].to_str().unwrap();
    assert!(!from.contains(','), "{from}");
    let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
    assert_eq!((first.uri.path(), second.uri.path()), ("/one/known", "/two/known"));
    assert_eq!(first.headers["x-one"], "forged");
    assert_eq!(
        second.headers["x-one"], "first",
        "it is asked about what the first one left"
    );
    assert_eq!(first.headers["x-forwarded-for"], from);
    assert!(asked.try_recv().is_err());
    let done = &rig.done(1).await[0];
    assert_eq!((done.status, done.attempts, done.fault), (200, 1, None));
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_learns_nothing_of_routes_and_nobody_else_is_asked() {
    for path in ["/known", "/unknown"] {
        let rig = Rig::start(config().snapshot(), Limits::default());
        drop(endpoint(&rig, 1, |incoming| peer::echo("be", incoming)).await);
        let mut asked = service(&rig, |path| if path.starts_with("/one") { 401 } else { 200 }).await;
        assert_eq!(send(&rig, post(path), b"body").await.0, 401);
        assert_eq!(paths(&mut asked), [format!("/one{path}")]);
        let done = &rig.done(1).await[0];
        assert_eq!((done.attempts, done.fault), (0, Some(Fault::AuthRequired)));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_route_and_preflights_are_asked_about_too() {
    let mut config = config();
    config.rule.matches[0].headers.clear();
    config.rule.matches[0].path = PathMatch::Prefix("/a".to_owned());
    config.rule.filters.push(Filter::Cors(Cors {
        origins: vec![OriginPattern::Any],
        methods: vec!["PUT".to_owned()],
        headers: Vec::new(),
        exposed: Vec::new(),
        credentials: false,
        max_age_s: 5,
    }));
    let rig = Rig::start(config.snapshot(), Limits::default());
    let mut asked = service(&rig, |_| 200).await;
    assert_eq!(send(&rig, post("/unknown"), b"").await.0, 404);
    assert_eq!(paths(&mut asked), ["/one/unknown", "/two/unknown"]);
    let request = Request::options("http://example.com/a").header("origin", "https://b.example");
    let request = request.header("access-control-request-method", "PUT").body(()).unwrap();
    let (status, head, _) = send(&rig, request, b"").await;
    assert_eq!(
        (status, head["access-control-allow-origin"].as_bytes()),
        (200, &b"https://b.example"[..])
    );
    assert_eq!(paths(&mut asked), ["/one/a", "/two/a"]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_cannot_be_asked_lets_nothing_pass() {
    // Nobody listens; no endpoint serves; the reference is broken; the rule asks nobody.
    let fail = Destination::Fail {
        status: 500,
        why: "no such Service".to_owned(),
    };
    let mut cases = [config(), config(), config(), config()].map(|config| (config, 500));
    cases[0].1 = 403;
    (cases[1].0.shadows, cases[1].1) = (Vec::new(), 403);
    cases[2].0.guards[0].filters = vec![asks(fail, "", &[])];
    cases[3].0.guards[0].filters.clear();
    for (config, status) in cases {
        let rig = Rig::start(config.snapshot(), Limits::default());
        drop(endpoint(&rig, 1, |_: Incoming| async { panic!("it reached the endpoint") }).await);
        assert_eq!(send(&rig, post("/known"), b"body").await.0, status);
        assert_eq!(send(&rig, post("/unknown"), b"").await.0, status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rules_own_question_follows_those_of_its_listener() {
    let mut config = config();
    let to = Destination::Service(ServiceName::from("default/shadow:50051"));
    config.rule.filters.push(asks(to, "/own", &["x-one"]));
    let rig = Rig::start(config.snapshot(), Limits::default());
    drop(endpoint(&rig, 1, |incoming| peer::echo("be", incoming)).await);
    let mut asked = service(&rig, |_| 200).await;
    assert_eq!(send(&rig, post("/known"), b"").await.0, 200);
    assert_eq!(paths(&mut asked), ["/one/known", "/two/known", "/own/known"]);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_web_body_that_came_before_its_rule_was_known_is_translated() {
    let mut config = config();
    config.rule.kind = RouteKind::Grpc;
    config.rule.matches[0].path = PathMatch::Prefix("/".to_owned());
    let rig = Rig::start(config.snapshot(), Limits::default());
    let (told, mut bodies) = log();
    drop(
        endpoint(&rig, 1, move |(request, mut respond): Incoming| {
            let told = told.clone();
            async move {
                let (head, mut incoming) = request.into_parts();
                told.send((head, body(&mut incoming).await.unwrap().0)).unwrap();
                let head = Response::builder().header("grpc-status", "0").body(()).unwrap();
                respond.send_response(head, true).unwrap();
            }
        })
        .await,
    );
    let _asked = service(&rig, |_| 200).await;
    let request = Request::post("http://example.com/pkg.Echo/Say")
        .header("content-type", "application/grpc-web-text")
        .body(())
        .unwrap();
    // A message of two bytes, in base64.
    assert_eq!(send(&rig, request, b"AAAAAAJoaQ==").await.0, 200);
    let (head, got) = bodies.recv().await.unwrap();
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(got, b"\0\0\0\0\x02hi");
    assert_eq!(rig.done(1).await[0].grpc_status, Some(0));
}

/// The service of a guard is shown bodies of so many octets.
fn shows(guard: &mut HttpRule, max: u32) {
    for filter in &mut guard.filters {
        if let Filter::ExternalAuth(auth) = filter {
            auth.body_bytes_max = max;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_shown_to_those_who_are_and_waits_for_those_who_are_not() {
    // What waits while the first one is asked fills its window; the second one is shown all of it, the rule's too.
    let sent: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
    for (first, second, third, want) in [
        (0, 700_000, 0, 200),
        (700_000, 0, 1_000_000, 200),
        (0, 0, 700_000, 200),
        (0, 699_999, 0, 413),
        (700_000, 300_000, 0, 413),
    ] {
        let mut config = config();
        shows(&mut config.guards[0], first);
        shows(&mut config.guards[1], second);
        let to = Destination::Service(ServiceName::from("default/shadow:50051"));
        config.rule.filters.push(asks(to, "/three", &[]));
        shows(&mut config.rule, third);
        let rig = Rig::start(config.snapshot(), Limits::default());
        drop(endpoint(&rig, 1, |incoming| peer::echo("be", incoming)).await);
        let (told, mut asked) = log();
        let service = endpoint(&rig, AUTH, move |(request, mut respond): Incoming| {
            let told = told.clone();
            async move {
                let (_, mut incoming) = request.into_parts();
                let got = body(&mut incoming).await.map_or(0, |got| got.0.len());
                told.send(got as u32).unwrap();
                sleep(Duration::from_secs(1)).await;
                let head = Response::builder().header("x-one", "1").header("x-user", "ann");
                let _ = respond.send_response(head.body(()).unwrap(), true);
            }
        });
        drop(service.await);
        let mut client = client(&rig).await;
        let request = Request::post("http://example.com/known").body(()).unwrap();
        let (response, mut out) = client.send_request(request, false).unwrap();
        let payload = Bytes::from(sent.clone());
        tokio::spawn(async move { send_all(&mut out, payload, true).await });
        let response = response.await.unwrap();
        assert_eq!(response.status(), want, "{first}, {second}, {third}");
        if want == 200 {
            let (got, _) = body(&mut response.into_body()).await.unwrap();
            assert!(got == sent, "{first}, {second}, {third}");
            for max in [first, second, third] {
                assert_eq!(asked.try_recv().ok(), Some(max.min(700_000)));
            }
        }
        sleep(Duration::from_secs(20)).await;
        let left = rig.with(|driver| (driver.engine.measure().held_bytes, driver.engine.live().1));
        assert_eq!(left.await, (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_shown_before_its_rule_was_known_is_translated_too() {
    for max in [12, 100_000] {
        let mut config = config();
        config.rule.kind = RouteKind::Grpc;
        config.rule.matches[0].path = PathMatch::Prefix("/".to_owned());
        shows(&mut config.guards[0], max);
        let rig = Rig::start(config.snapshot(), Limits::default());
        let (told, mut bodies) = log();
        let served = endpoint(&rig, 1, move |(request, mut respond): Incoming| {
            let told = told.clone();
            async move {
                let (_, mut incoming) = request.into_parts();
                told.send(body(&mut incoming).await.unwrap().0).unwrap();
                let head = Response::builder().header("grpc-status", "0").body(()).unwrap();
                respond.send_response(head, true).unwrap();
            }
        });
        drop(served.await);
        let _asked = service(&rig, |_| 200).await;
        let request = Request::post("http://example.com/pkg.Echo/Say")
            .header("content-type", "application/grpc-web-text")
            .body(())
            .unwrap();
        assert_eq!(send(&rig, request, b"AAAAAAJoaQ==").await.0, 200);
        assert_eq!(bodies.recv().await.unwrap(), b"\0\0\0\0\x02hi");
        sleep(Duration::from_secs(20)).await;
        let left = rig.with(|driver| (driver.engine.measure().held_bytes, driver.engine.live().1));
        assert_eq!(left.await, (0, 0));
    }
}
