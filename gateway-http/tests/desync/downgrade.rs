//! Requests over HTTP/2 that would be something else in HTTP/1.1.

use super::client::{self, block, frame};
use super::endpoint::Recorder;
use super::rig::Rig;
use super::table::{Row, rows};
use super::{UPSTREAMS, config};
use gateway_http::limits::Limits;

const ROWS: &str = include_str!("fixtures/http2_requests.txt");

type Field = (Vec<u8>, Vec<u8>);

/// `NAME: VALUE`; a name may begin with a colon.
pub fn field(cell: &[u8]) -> Field {
    let at = match cell.starts_with(b": ") {
        true => 0,
        false => {
            1 + cell[1..]
                .windows(2)
                .position(|pair| pair == b": ")
                .expect("NAME: VALUE")
        }
    };
    (cell[..at].to_vec(), cell[at + 2..].to_vec())
}

fn pseudo(method: &str) -> Vec<Field> {
    [
        (":method", method),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "example.com"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .to_vec()
}

/// The frames of stream 1 that a row stands for.
fn frames(row: &Row) -> Vec<u8> {
    let (mut head, mut end, mut rest) = (Vec::new(), 0, Vec::new());
    for cell in &row.cells {
        if cell == b"POST" || cell == b"GET" {
            head = pseudo(std::str::from_utf8(cell).expect("text"));
        } else if cell == b"END" {
            end = 1;
        } else if let Some(data) = cell.strip_prefix(b"DATA ") {
            rest.extend(frame(0, 0, 1, data));
        } else if let Some(data) = cell.strip_prefix(b"LAST ") {
            rest.extend(frame(0, 1, 1, data));
        } else if let Some(trailer) = cell.strip_prefix(b"TRAILER ") {
            rest.extend(frame(1, 4 | 1, 1, &block(&[field(trailer)])));
        } else if cell != b"RAW" {
            head.push(field(cell));
        }
    }
    [frame(1, 4 | end, 1, &block(&head)), rest].concat()
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_in_http_1_reaches_nobody() {
    let mut failures = Vec::new();
    for (protocol, name) in UPSTREAMS {
        for row in rows(ROWS, 75) {
            let rig = Rig::start(config(protocol).snapshot(), Limits::default());
            let recorder = Recorder::start(&rig, protocol).await;
            let reply = client::http2(&rig, &frames(&row)).await;
            let seen: Vec<usize> = recorder.whole().iter().map(|seen| seen.body.len()).collect();
            let smuggled = recorder.seen().iter().any(|seen| seen.target.contains("smuggled"));
            let right = match row.verdict.strip_prefix("ok ") {
                Some(length) => {
                    reply.status == Some(200) && reply.ended && seen == [length.parse::<usize>().expect("a length")]
                }
                None => {
                    assert_eq!(row.verdict, "refused", "{}", row.name);
                    let told = reply.status == Some(400) || reply.reset || reply.goaway;
                    told && reply.status.is_none_or(|status| status == 400) && seen.is_empty()
                }
            };
            if !right || smuggled {
                failures.push(format!(
                    "h2->{name} {}: {:?}, {reply:?}, {seen:?}",
                    row.name, row.verdict
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}
