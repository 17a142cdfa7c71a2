//! No way around a route: 120 targets, both protocols of clients, three kinds of routes, two ways of endpoints to read.
//!
//! A guarded route answers 403 by itself; everything else goes to an open one. A bypass is a request that reached the
//! open one and that an endpoint, reading the target in its own way, takes for a guarded path.

use super::client::{self, block, frame};
use super::config::Config;
use super::endpoint::Recorder;
use super::logged;
use super::rig::Rig;
use super::table::{Row, rows};
use super::{UPSTREAMS, config};
use gateway_core::ir::{Destination, HttpMatch, PathMatch, RuleName, UpstreamProtocol};
use gateway_http::limits::Limits;

const ROWS: &str = include_str!("fixtures/paths.txt");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guard {
    Exact,
    Prefix,
    Regex,
}

impl Guard {
    fn matcher(self) -> PathMatch {
        match self {
            Guard::Exact => PathMatch::Exact("/admin".to_owned()),
            Guard::Prefix => PathMatch::Prefix("/admin".to_owned()),
            Guard::Regex => PathMatch::Regex("/admin(/.*)?".to_owned()),
        }
    }

    /// What the route means, said without the engine.
    fn covers(self, path: &str) -> bool {
        path == "/admin" || (self != Guard::Exact && path.starts_with("/admin/"))
    }

    fn config(self, protocol: UpstreamProtocol) -> Config {
        let mut config = config(protocol);
        let mut guarded = config.rule.clone();
        guarded.name = RuleName::from("HTTPRoute/default/guard/0");
        guarded.matches = vec![HttpMatch {
            path: self.matcher(),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }];
        guarded.destinations[0].to.to = Destination::Fail {
            status: 403,
            why: "guarded".to_owned(),
        };
        config.more.push(guarded);
        config
    }
}

/// As nginx reads a target: decoded once, slashes merged, dot segments resolved.
fn as_nginx(target: &str) -> String {
    resolve(&decoded(target), true)
}

/// As Python's frameworks do: decoded once, dot segments resolved by some, slashes kept.
fn as_python(target: &str) -> String {
    resolve(&decoded(target), false)
}

fn decoded(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default().as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let digits = path.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (path[at], byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn resolve(path: &str, merges: bool) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "" if merges => {}
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let slash = if path.ends_with('/') && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{}", segments.join("/"), if merges { slash } else { "" })
}

/// Over HTTP/1.1 or 2; the status and what the endpoint saw.
async fn ask(http2: bool, target: &[u8], guard: Guard, protocol: UpstreamProtocol) -> (u16, Option<String>, String) {
    let rig = Rig::start(guard.config(protocol).snapshot(), Limits::default());
    let recorder = Recorder::start(&rig, protocol).await;
    let status = if http2 {
        let head = [
            (&b":method"[..], &b"GET"[..]),
            (b":scheme", b"http"),
            (b":path", target),
            (b":authority", b"example.com"),
        ];
        let head = head.map(|(name, value)| (name.to_vec(), value.to_vec()));
        client::http2(&rig, &frame(1, 5, 1, &block(&head)))
            .await
            .status
            .unwrap_or(0)
    } else {
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: example.com\r\n\r\n"].concat();
        client::http1(&rig, &request)
            .await
            .statuses()
            .first()
            .copied()
            .unwrap_or(0)
    };
    let seen = recorder.whole();
    assert!(seen.len() <= 1, "{seen:?}");
    let logged = logged(&rig).await.map_or(String::new(), |done| done.path);
    (status, seen.first().map(|seen| seen.target.clone()), logged)
}

#[tokio::test(start_paused = true)]
async fn no_way_of_writing_a_path_passes_by_the_route_that_guards_it() {
    let rows: Vec<Row> = rows(ROWS, 118);
    let (mut combinations, mut failures) = (0, Vec::new());
    for row in &rows {
        for http2 in [false, true] {
            for (at, guard) in [Guard::Exact, Guard::Prefix, Guard::Regex].into_iter().enumerate() {
                let (protocol, _) = UPSTREAMS[at % 2];
                let (status, seen, logged) = ask(http2, &row.cells[0], guard, protocol).await;
                // The absolute form is of HTTP/1.1 alone.
                let absolute = http2 && row.cells[0].starts_with(b"http");
                let want = (row.verdict != "400" && !absolute).then_some(row.verdict.as_str());
                let path = want.map(|want| want.split('?').next().unwrap_or_default());
                let right = match (want, path) {
                    (Some(want), Some(path)) if guard.covers(path) => status == 403 && seen.is_none() && logged == want,
                    (Some(want), _) => status == 200 && seen.as_deref() == Some(want) && logged == want,
                    (None, _) => matches!(status, 0 | 400) && seen.is_none(),
                };
                // The oracle does not know the column of wanted forms.
                let passed_by = seen.as_deref().is_some_and(|seen| {
                    guard.covers(&as_nginx(seen)) || guard.covers(&as_python(seen)) && !seen.ends_with('/')
                });
                combinations += 2;
                if !right || passed_by {
                    failures.push(format!(
                        "{} h{} {guard:?}: {status}, saw {seen:?}, logged {logged:?}, bypass {passed_by}",
                        row.name,
                        if http2 { 2 } else { 1 }
                    ));
                }
            }
        }
    }
    assert!(combinations >= 700, "{combinations}");
    assert!(
        failures.is_empty(),
        "{} of {combinations}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_one_method_is_not_passed_by_another_spelling() {
    // D3: what the request line says is the method; nothing else names one.
    for (method, more, status) in [
        ("DELETE", "", 403),
        ("delete", "", 200),
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("POST", "X-HTTP-Method-Override: DELETE\r\n", 200),
    ] {
        let (protocol, _) = UPSTREAMS[0];
        let mut config = Guard::Prefix.config(protocol);
        config.more[0].matches[0].method = Some("DELETE".to_owned());
        let rig = Rig::start(config.snapshot(), Limits::default());
        let recorder = Recorder::start(&rig, protocol).await;
        let request = format!("{method} /admin HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        let answer = client::http1(&rig, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{method}: {text}");
        let seen = recorder.whole();
        assert_eq!(
            seen.first().map(|seen| seen.method.as_str()),
            (status == 200).then_some(method)
        );
    }
}
