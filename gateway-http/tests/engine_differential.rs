//! Random messages from the `h2` crate through the engine to the `h2` crate and back: what goes in comes out, field by
//! field and octet by octet, whatever sizes of HPACK tables, frames and windows the peers say.

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
use config::Config;
use gateway_http::limits::Limits;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use proptest::collection::vec;
use proptest::prelude::*;
use rig::Rig;
use std::sync::Arc;
use tokio::task::JoinSet;

/// A field: name, value, whether it may enter no table (RFC 7541 6.2.3; the crate writes that and does not tell it when
/// it reads).
type Fields = Vec<(String, Vec<u8>, bool)>;

#[derive(Clone, Debug)]
struct Message {
    fields: Fields,
    body: usize,
    trailers: Option<Fields>,
}

#[derive(Clone, Debug)]
struct Exchange {
    method: &'static str,
    status: u16,
    request: Message,
    response: Message,
}

/// What a peer says in its SETTINGS. The crate follows the table sizes that a block announces and does not insist on its
/// own; `hpack.rs` has decoders that do.
#[derive(Clone, Copy, Debug)]
struct Says {
    table: u32,
    frame: u32,
    window: u32,
}

/// Names and values that repeat often, so that tables are used, and sometimes do not.
fn field() -> impl Strategy<Value = (String, Vec<u8>, bool)> {
    let name = prop_oneof![
        4 => prop::sample::select(vec!["accept", "user-agent", "etag", "x-a", "x-b", "authorization", "cookie"])
            .prop_map(str::to_owned),
        1 => "x-[a-z0-9.-]{1,30}".prop_map(|name| name.replace("x-forwarded", "x-other")),
    ];
    let value = prop_oneof![
        4 => prop::sample::select(vec!["", "*/*", "gzip, deflate", "a value of more than twenty bytes"])
            .prop_map(|value| value.as_bytes().to_vec()),
        2 => "[!-~]([ -~]{0,60}[!-~])?".prop_map(String::into_bytes),
        1 => vec(0x80u8..=0xff, 1..20),
        1 => "[!-~]{300,2000}".prop_map(String::into_bytes),
    ];
    (name, value, prop::bool::weighted(0.1))
}

fn message() -> impl Strategy<Value = Message> {
    let body = prop_oneof![2 => Just(0), 3 => 1usize..3000, 1 => 3000usize..100_000];
    // What decides how a request is handled goes through in no trailer (RFC 9110 6.5.1).
    let trailer = field().prop_map(|(name, value, sensitive)| {
        let name = name.replace("authorization", "x-c").replace("cookie", "x-d");
        (name, value, sensitive)
    });
    let trailers = prop::option::of(vec(trailer, 1..6));
    (vec(field(), 0..14), body, trailers).prop_map(|(fields, body, trailers)| Message { fields, body, trailers })
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "PATCH", "PURGE"]);
    let status = prop::sample::select(vec![200u16, 201, 301, 404, 418, 500, 503, 599]);
    (method, status, message(), message()).prop_map(|(method, status, request, response)| Exchange {
        method,
        status,
        request,
        response,
    })
}

fn says() -> impl Strategy<Value = Says> {
    let table = prop_oneof![prop::sample::select(vec![0u32, 1, 64, 200, 4096, 65_536]), 0u32..5000];
    let frame = prop::sample::select(vec![16_384u32, 20_000, 1 << 20]);
    let window = prop_oneof![Just(65_535u32), 1u32..300_000];
    (table, frame, window).prop_map(|(table, frame, window)| Says { table, frame, window })
}

/// `len` octets that are not those of another exchange.
fn body(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(seed + 7) >> 3) as u8).collect()
}

fn map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value, sensitive) in fields {
        let mut value = HeaderValue::from_bytes(value).expect("a value");
        value.set_sensitive(*sensitive);
        map.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
    }
    map
}

/// Fields by name, values in their order; without those the engine adds.
fn sorted<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    let mut sorted: Vec<(String, Vec<u8>)> = fields
        .filter(|(name, _)| !name.starts_with("x-forwarded-") && !["x-request-id", "date"].contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted
}

fn check(what: &str, got: &HeaderMap, sent: &Fields) {
    let expected = sorted(sent.iter().map(|(name, value, _)| (&name[..], &value[..])));
    let arrived = sorted(got.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    assert_eq!(arrived, expected, "{what}");
}

async fn check_rest(what: &str, stream: &mut h2::RecvStream, seed: usize, sent: &Message) {
    let (got, trailers) = peer::body(stream).await.expect(what);
    assert!(got == body(seed, sent.body), "{what}: the body");
    check(
        &format!("{what}: trailers"),
        &trailers.unwrap_or_default(),
        sent.trailers.as_ref().unwrap_or(&Vec::new()),
    );
}

/// Whether the head is the whole message.
fn is_head_alone(message: &Message) -> bool {
    message.body == 0 && message.trailers.is_none()
}

async fn send_rest(out: &mut h2::SendStream<Bytes>, seed: usize, message: &Message) {
    if is_head_alone(message) {
        return;
    }
    let end = message.trailers.is_none();
    peer::send_all(out, body(seed, message.body).into(), end)
        .await
        .expect("the body is taken");
    if let Some(trailers) = &message.trailers {
        out.send_trailers(map(trailers)).expect("the trailers are taken");
    }
}

async fn serve(exchanges: Arc<Vec<Exchange>>, (request, mut respond): peer::Incoming) {
    let (parts, mut incoming) = request.into_parts();
    let seed: usize = parts.uri.path().trim_start_matches('/').parse().expect("a number");
    let exchange = &exchanges[seed];
    assert_eq!(parts.method, exchange.method);
    check("request", &parts.headers, &exchange.request.fields);
    check_rest("request", &mut incoming, seed, &exchange.request).await;
    let mut response = Response::builder().status(exchange.status).body(()).expect("valid");
    *response.headers_mut() = map(&exchange.response.fields);
    let mut out = respond
        .send_response(response, is_head_alone(&exchange.response))
        .expect("sent");
    send_rest(&mut out, seed, &exchange.response).await;
}

async fn ask(mut client: h2::client::SendRequest<Bytes>, seed: usize, exchange: Exchange) {
    let mut request = Request::builder()
        .method(exchange.method)
        .uri(format!("http://example.com/{seed}"))
        .body(())
        .expect("valid");
    *request.headers_mut() = map(&exchange.request.fields);
    let (response, mut out) = client
        .send_request(request, is_head_alone(&exchange.request))
        .expect("sent");
    let sent = exchange.request.clone();
    let sending = tokio::spawn(async move { send_rest(&mut out, seed, &sent).await });
    let response = response.await.expect("answered");
    sending.await.expect("all is sent");
    let (parts, mut incoming) = response.into_parts();
    assert_eq!(parts.status, exchange.status);
    check("response", &parts.headers, &exchange.response.fields);
    check_rest("response", &mut incoming, seed, &exchange.response).await;
}

async fn run(client_says: Says, endpoint_says: Says, socket_bytes: usize, exchanges: Vec<Exchange>) {
    let rig = Rig::start(Config::new(1).snapshot(), Limits::default());
    rig.with(move |driver| driver.socket_bytes = socket_bytes).await;
    let shared = Arc::new(exchanges.clone());
    let mut server = h2::server::Builder::new();
    server
        .header_table_size(endpoint_says.table)
        .max_frame_size(endpoint_says.frame)
        .initial_window_size(endpoint_says.window);
    let _endpoint = peer::endpoint_with(&rig, 1, server, move |incoming| serve(shared.clone(), incoming)).await;
    let mut builder = h2::client::Builder::new();
    builder
        .header_table_size(client_says.table)
        .max_frame_size(client_says.frame)
        .initial_window_size(client_says.window);
    let client = peer::client_with(&rig, builder).await;
    // A few at once, then the next few, so that blocks of both kinds of turns share the tables.
    for (batch, few) in exchanges.chunks(4).enumerate() {
        let mut calls = JoinSet::new();
        for (place, exchange) in few.iter().enumerate() {
            calls.spawn(ask(client.clone(), batch * 4 + place, exchange.clone()));
        }
        while let Some(call) = calls.join_next().await {
            call.expect("the exchange is as it was sent");
        }
    }
    let done = rig.done(exchanges.len()).await;
    assert!(done.iter().all(|done| (done.fault, done.attempts) == (None, 1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn what_goes_in_comes_out(
        client in says(),
        endpoint in says(),
        socket_bytes in prop::sample::select(vec![500usize, 5000, 64 * 1024]),
        exchanges in vec(exchange(), 1..16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(client, endpoint, socket_bytes, exchanges));
    }
}
