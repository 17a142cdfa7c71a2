//! Sessions: clients that show a token come back to their endpoint, and to no other by any text of their own.

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

use config::{Config, endpoint_addr};
use gateway_core::ir::{Destination, HttpDestination, Retry, Session, SessionToken, Weighted};
use gateway_core::lower::Ids;
use gateway_core::session;
use gateway_http::limits::Limits;
use http::{Request, Response};
use peer::{Incoming, client, echo, endpoint, get};
use rig::Rig;
use std::collections::BTreeMap;
use std::time::Duration;

const NAMES: [&str; 4] = ["be1", "be2", "be3", "be4"];

fn cookie(absolute: Option<Duration>, idle: Option<Duration>) -> Session {
    Session {
        token: SessionToken::Cookie {
            name: "pinned".to_owned(),
            path: "/".to_owned(),
            permanent: false,
        },
        absolute,
        idle,
        key: session::key("a rule"),
    }
}

fn with(session: Session) -> Config {
    Config::new(3).rule(|rule| rule.session = Some(session))
}

async fn start(config: &Config) -> Rig {
    let rig = Rig::start(config.snapshot(), Limits::default());
    serve(&rig).await;
    rig
}

async fn serve(rig: &Rig) {
    for (number, name) in (1..).zip(NAMES) {
        drop(endpoint(rig, number, move |incoming| echo(name, incoming)).await);
    }
}

async fn ask(rig: &Rig, request: Request<()>) -> Response<h2::RecvStream> {
    client(rig).await.send_request(request, true).unwrap().0.await.unwrap()
}

/// Who answered, and the cookie that was given.
async fn visit(rig: &Rig, cookies: &[&str]) -> (String, Option<String>) {
    let mut request = get("/");
    for cookie in cookies {
        request.headers_mut().append("cookie", cookie.parse().unwrap());
    }
    let response = ask(rig, request).await;
    let text = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let given = text("set-cookie").map(|line| line.split(';').next().unwrap().to_owned());
    (text("x-endpoint").unwrap(), given)
}

#[tokio::test(start_paused = true)]
async fn who_shows_the_cookie_comes_back_to_the_same_endpoint() {
    let rig = start(&with(cookie(None, None))).await;
    let (first, given) = visit(&rig, &[]).await;
    let given = given.expect("a session began");
    for _ in 0..10 {
        // Each cookie may have a field of its own (RFC 9113 8.2.3).
        assert_eq!(visit(&rig, &["a=1", &given]).await, (first.clone(), None));
        assert_eq!(
            visit(&rig, &[&format!("a=1; {given}; b=2")]).await,
            (first.clone(), None)
        );
    }
    let mut others = BTreeMap::new();
    for _ in 0..9 {
        *others.entry(visit(&rig, &[]).await.0).or_insert(0) += 1;
    }
    assert_eq!(others.len(), 3, "who shows none is balanced");
}

#[tokio::test(start_paused = true)]
async fn a_text_that_was_not_given_chooses_nothing() {
    let rig = start(&with(cookie(None, None))).await;
    let mut forged = cookie(None, None);
    forged.key = session::key("another rule");
    let token = session::Token {
        endpoint: endpoint_addr(1),
        began_s: 0,
        made_s: 0,
    };
    let text = String::from_utf8(token.seal(&forged.key).to_vec()).unwrap();
    let mut seen = BTreeMap::new();
    for wrong in [
        format!("pinned={text}"),
        "pinned=".to_owned(),
        "pinned=198.18.2.11:50051".to_owned(),
    ] {
        for _ in 0..3 {
            let (endpoint, given) = visit(&rig, &[&wrong]).await;
            assert!(given.is_some(), "a new session begins");
            *seen.entry(endpoint).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_the_gateway_and_moves_when_its_endpoint_is_gone() {
    let mut ids = Ids::default();
    let config = with(cookie(None, None));
    let rig = Rig::start(config.lower(&mut ids, 1), Limits::default());
    serve(&rig).await;
    let (first, given) = visit(&rig, &[]).await;
    let given = given.unwrap();
    let another = start(&config).await;
    assert_eq!(visit(&another, &[&given]).await, (first.clone(), None));
    let mut smaller = config.clone();
    let gone = NAMES.iter().position(|name| **name == first).unwrap();
    smaller.endpoints.remove(gone);
    let snapshot = smaller.lower(&mut ids, 2);
    rig.with(move |driver| {
        let now = driver.now();
        driver.engine.publish(snapshot, now);
    })
    .await;
    let (second, renewed) = visit(&rig, &[&given]).await;
    assert_ne!(first, second);
    assert_eq!(visit(&rig, &[&renewed.expect("another token")]).await, (second, None));
}

#[tokio::test(start_paused = true)]
async fn sessions_end_by_age_and_by_disuse() {
    let second = Duration::from_secs(1);
    let rig = start(&with(cookie(Some(60 * second), None))).await;
    let (first, given) = visit(&rig, &[]).await;
    let given = given.unwrap();
    tokio::time::sleep(58 * second).await;
    assert_eq!(visit(&rig, &[&given]).await, (first, None));
    tokio::time::sleep(3 * second).await;
    assert!(visit(&rig, &[&given]).await.1.is_some(), "it is over");

    let rig = start(&with(cookie(Some(60 * second), Some(20 * second)))).await;
    let (first, mut given) = visit(&rig, &[]).await;
    for _ in 0..3 {
        tokio::time::sleep(15 * second).await;
        let (again, renewed) = visit(&rig, &[&given.unwrap()]).await;
        assert_eq!(again, first);
        given = Some(renewed.expect("each use renews it"));
    }
    tokio::time::sleep(16 * second).await;
    let late = visit(&rig, &[given.as_deref().unwrap()]).await;
    assert!(late.0 != first, "use does not make it live for ever");
}

#[tokio::test(start_paused = true)]
async fn a_header_carries_a_session_as_well() {
    let mut session = cookie(None, None);
    session.token = SessionToken::Header {
        name: "x-session".to_owned(),
    };
    let rig = start(&with(session)).await;
    let first = ask(&rig, get("/")).await;
    let token = first.headers()["x-session"].clone();
    for _ in 0..6 {
        let mut request = get("/");
        request.headers_mut().insert("x-session", token.clone());
        let again = ask(&rig, request).await;
        assert_eq!(again.headers()["x-endpoint"], first.headers()["x-endpoint"]);
        assert!(again.headers().get("x-session").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn weights_choose_the_service_and_a_session_only_its_endpoint() {
    let mut config = with(cookie(None, None));
    config.endpoints.truncate(2);
    config.shadows = vec![endpoint_addr(3), endpoint_addr(4)];
    let to = HttpDestination {
        to: Destination::Service("default/shadow:50051".into()),
        ..config.rule.destinations[0].to.clone()
    };
    config.rule.destinations[0].weight = 3;
    config.rule.destinations.push(Weighted { weight: 1, to });
    let rig = start(&config).await;
    let (_, given) = visit(&rig, &[]).await;
    let mut given = given.unwrap();
    let mut counts = BTreeMap::new();
    for _ in 0..40 {
        let (endpoint, renewed) = visit(&rig, &[&given]).await;
        let shadow = endpoint == "be3" || endpoint == "be4";
        *counts.entry(shadow).or_insert(0) += 1;
        given = renewed.unwrap_or(given);
    }
    assert_eq!(counts, BTreeMap::from([(false, 30), (true, 10)]));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_another_endpoint_answers_moves_the_session() {
    let config = with(cookie(None, None)).rule(|rule| {
        rule.retry = Some(Retry {
            attempts: 1,
            statuses: vec![503],
            grpc_statuses: Vec::new(),
            backoff: Duration::from_millis(1),
        });
    });
    let rig = start(&config).await;
    let (first, given) = visit(&rig, &[]).await;
    let given = given.unwrap();
    let number = 1 + NAMES.iter().position(|name| **name == first).unwrap() as u8;
    rig.with(|driver| driver.lose_upstream()).await;
    drop(
        endpoint(&rig, number, |(_, mut respond): Incoming| async move {
            let refused = Response::builder().status(503).body(()).unwrap();
            respond.send_response(refused, true).unwrap();
        })
        .await,
    );
    let (second, renewed) = visit(&rig, &[&given]).await;
    assert_ne!(first, second);
    assert_eq!(visit(&rig, &[&renewed.expect("another token")]).await.0, second);
}
