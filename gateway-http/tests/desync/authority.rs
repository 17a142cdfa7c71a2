//! One authority: what routes are matched with, what is logged, and what the endpoint gets.

use super::client::{self, block, frame};
use super::endpoint::Recorder;
use super::logged;
use super::rig::Rig;
use super::table::rows;
use super::{UPSTREAMS, config};
use gateway_core::ir::HostPattern;
use gateway_http::limits::Limits;

const ROWS: &str = include_str!("fixtures/authorities.txt");

#[tokio::test(start_paused = true)]
async fn route_log_and_endpoint_agree_on_the_authority() {
    let mut failures = Vec::new();
    for row in rows(ROWS, 55) {
        for (protocol, name) in UPSTREAMS {
            for http2 in [false, true] {
                // Over HTTP/2 the first cell is the authority, where it is one.
                let (target, hosts) = row.cells.split_first().expect("a target");
                if http2 && (target.as_slice() != b"/" || hosts.len() != 1) {
                    continue;
                }
                for exact in [false, true] {
                    let mut config = config(protocol);
                    if exact {
                        config.hostname = HostPattern::Exact("example.com".into());
                    }
                    let rig = Rig::start(config.snapshot(), Limits::default());
                    let recorder = Recorder::start(&rig, protocol).await;
                    let status = if http2 {
                        let head = [
                            (&b":method"[..], &b"GET"[..]),
                            (b":scheme", b"http"),
                            (b":path", b"/"),
                            (b":authority", hosts[0].trim_ascii()),
                        ];
                        let head = head.map(|(name, value)| (name.to_vec(), value.to_vec()));
                        client::http2(&rig, &frame(1, 5, 1, &block(&head)))
                            .await
                            .status
                            .unwrap_or(400)
                    } else {
                        let mut request = [b"GET ", &target[..], b" HTTP/1.1\r\n"].concat();
                        for host in hosts {
                            request.extend([b"Host: ", &host[..], b"\r\n"].concat());
                        }
                        request.extend(b"\r\n");
                        client::http1(&rig, &request)
                            .await
                            .statuses()
                            .first()
                            .copied()
                            .unwrap_or(0)
                    };
                    let seen = recorder.whole();
                    let logged = logged(&rig).await.map_or(String::new(), |done| done.authority);
                    let right = match row.verdict.as_str() {
                        "400" => status == 400 && seen.is_empty(),
                        want => {
                            let host = want
                                .rsplit_once(':')
                                .filter(|_| !want.ends_with(']'))
                                .map_or(want, |(host, _)| host);
                            let routed = !exact || host == "example.com";
                            let expected = if routed { (200, Some(want)) } else { (404, None) };
                            let got = (status, seen.first().map(|seen| seen.authority.as_str()));
                            got == expected && logged == want
                        }
                    };
                    if !right {
                        failures.push(format!(
                            "{} h{}->{name} exact {exact}: {status}, logged {logged:?}, saw {seen:?}",
                            row.name,
                            if http2 { 2 } else { 1 }
                        ));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}
