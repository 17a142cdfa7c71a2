//! An authorization service that is called over gRPC: what it is asked, and answers by hand.

use crate::config::{Config, endpoint_addr};
use crate::peer::{Incoming, body, endpoint};
use crate::rig::Rig;
use bytes::Bytes;
use gateway_core::ir::{AuthSpeaks, Destination, ExternalAuth, Filter, ServiceName, UpstreamProtocol};
use http::{HeaderMap, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;

/// The authorization service's one endpoint.
pub const AUTH: u8 = 9;

/// A rule whose service is called, and shown bodies of so many octets.
pub fn called(body_bytes_max: u32) -> Config {
    guarded(AuthSpeaks::Grpc { shown: Vec::new() }, body_bytes_max)
}

/// The same over HTTP.
pub fn asked(body_bytes_max: u32) -> Config {
    let speaks = AuthSpeaks::Http {
        prefix: String::new(),
        shown: Vec::new(),
        taken: Vec::new(),
    };
    guarded(speaks, body_bytes_max)
}

fn guarded(speaks: AuthSpeaks, body_bytes_max: u32) -> Config {
    let mut config = Config::new(1);
    config.shadows = vec![endpoint_addr(AUTH)];
    config.rule.filters.push(Filter::ExternalAuth(ExternalAuth {
        to: Destination::Service(ServiceName::from("default/shadow:50051")),
        protocol: UpstreamProtocol::H2c,
        speaks,
        body_bytes_max,
    }));
    config
}

/// Requests that the endpoint behind the guard saw; it echoes them.
pub async fn counted(rig: &Rig) -> Arc<AtomicU32> {
    let seen = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&seen);
    endpoint(rig, 1, move |incoming| {
        counter.fetch_add(1, Ordering::Relaxed);
        crate::peer::echo("be", incoming)
    })
    .await;
    seen
}

/// A length-prefixed message.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// A field that is text or a message of less than 16 KiB.
pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len();
    let mut out = vec![number << 3 | 2, len as u8 & 0x7f | 0x80, (len >> 7) as u8];
    out.extend_from_slice(bytes);
    out
}

/// A `HeaderValueOption`.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

/// A `CheckResponse` that allows, with the fields of its `OkHttpResponse`.
pub fn allows(ok: &[Vec<u8>]) -> Vec<u8> {
    [field(1, b""), field(3, &ok.concat())].concat()
}

/// One that denies with a status of gRPC, and the fields of its `DeniedHttpResponse`.
pub fn denies(denied: &[Vec<u8>]) -> Vec<u8> {
    [field(1, b"\x08\x07"), field(2, &denied.concat())].concat()
}

/// Answers every call with these bytes and this `grpc-status`, and tells what it was called with.
pub async fn answers(rig: &Rig, bytes: Vec<u8>, status: &'static str) -> mpsc::UnboundedReceiver<(HeaderMap, Vec<u8>)> {
    let (told, asked) = mpsc::unbounded_channel();
    endpoint(rig, AUTH, move |(request, mut respond): Incoming| {
        let (told, bytes) = (told.clone(), Bytes::from(bytes.clone()));
        async move {
            let (head, mut incoming) = request.into_parts();
            assert_eq!(head.uri.path(), "/envoy.service.auth.v3.Authorization/Check");
            assert_eq!(
                head.uri.authority().map(|authority| authority.as_str()),
                Some("shadow.default:50051")
            );
            let Ok((message, _)) = body(&mut incoming).await else {
                return;
            };
            let _ = told.send((head.headers, message));
            let response = Response::builder().header("content-type", "application/grpc").body(());
            let Ok(mut out) = respond.send_response(response.expect("a response"), false) else {
                return;
            };
            let _ = crate::peer::send_all(&mut out, bytes, false).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().expect("a number"));
            let _ = out.send_trailers(trailers);
        }
    })
    .await;
    asked
}
