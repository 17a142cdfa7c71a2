//! Requests over HTTP/1.1 that are no requests, or not as many as they seem.

use super::client;
use super::endpoint::Recorder;
use super::rig::Rig;
use super::table::rows;
use super::{UPSTREAMS, config};
use gateway_http::limits::Limits;

const ROWS: &str = include_str!("fixtures/http1_requests.txt");
const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: a\r\n\r\n";

/// What must come of a row: body lengths of the requests before a refusal, and its status (0: none).
fn verdict(text: &str) -> (Vec<usize>, Option<u16>) {
    if text == "silence" {
        return (Vec::new(), Some(0));
    }
    let (fine, refused) = match text.strip_prefix("ok ") {
        Some(rest) => rest
            .split_once(" then ")
            .map_or((rest, None), |(fine, status)| (fine, Some(status))),
        None => ("", Some(text)),
    };
    let lengths = fine
        .split_whitespace()
        .map(|length| length.parse().expect("a length"))
        .collect();
    (lengths, refused.map(|status| status.parse().expect("a status")))
}

#[tokio::test(start_paused = true)]
async fn what_reaches_an_endpoint_is_exactly_what_was_meant() {
    let mut failures = Vec::new();
    for (protocol, name) in UPSTREAMS {
        for row in rows(ROWS, 95) {
            let rig = Rig::start(config(protocol).snapshot(), Limits::default());
            let recorder = Recorder::start(&rig, protocol).await;
            let bytes = [&row.cells[0][..], CANARY].concat();
            let answer = client::http1(&rig, &bytes).await;
            let (mut lengths, refused) = verdict(&row.verdict);
            let mut statuses = vec![200; lengths.len()];
            match refused {
                Some(0) => {}
                Some(status) => statuses.push(status),
                None => {
                    statuses.push(200);
                    lengths.push(0);
                }
            }
            let whole: Vec<_> = recorder.whole();
            let seen: Vec<usize> = whole.iter().map(|seen| seen.body.len()).collect();
            let canaries = whole.iter().filter(|seen| seen.target == "/canary").count();
            let right = answer.statuses() == statuses
                && seen == lengths
                && canaries == usize::from(refused.is_none())
                && answer.closed == refused.is_some();
            if !right {
                failures.push(format!(
                    "h1->{name} {}: want {statuses:?} {lengths:?}, got {:?} {seen:?}, {canaries} canaries, closed {}",
                    row.name,
                    answer.statuses(),
                    answer.closed
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_row_cut_in_two_anywhere_means_the_same() {
    for row in rows(ROWS, 95) {
        let bytes = [&row.cells[0][..], CANARY].concat();
        if bytes.len() > 400 {
            continue;
        }
        let (protocol, _) = UPSTREAMS[0];
        let whole = {
            let rig = Rig::start(config(protocol).snapshot(), Limits::default());
            let recorder = Recorder::start(&rig, protocol).await;
            let answer = client::http1(&rig, &bytes).await;
            (answer.statuses(), recorder.whole().len())
        };
        for cut in (1..bytes.len()).step_by(7) {
            let rig = Rig::start(config(protocol).snapshot(), Limits::default());
            let recorder = Recorder::start(&rig, protocol).await;
            let answer = client::http1_in_two(&rig, &bytes, cut).await;
            assert_eq!(recorder.whole().len(), whole.1, "{} cut at {cut}", row.name);
            // What does not look like HTTP from its first bytes on gets no answer.
            let silent = answer.closed && answer.bytes.is_empty() && whole.1 == 0;
            assert!(silent || answer.statuses() == whole.0, "{} cut at {cut}", row.name);
        }
    }
}
