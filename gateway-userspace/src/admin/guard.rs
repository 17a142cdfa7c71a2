//! Who may ask over TCP.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// Refuses requests whose `Host` is a name other than `localhost`, or whose `Origin` is another site.
pub async fn browser(request: Request, next: Next) -> Response {
    if let Err(why) = allowed(request.headers()) {
        return (StatusCode::FORBIDDEN, format!("{why}\n")).into_response();
    }
    next.run(request).await
}

fn allowed(headers: &HeaderMap) -> Result<(), &'static str> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"))
    };
    match text(header::HOST) {
        Some(host) if is_local_name(host) => {}
        Some(_) => return Err("the Host header names another site: ask by address or as localhost"),
        None => return Err("a Host header is needed"),
    }
    match text(header::ORIGIN) {
        None => Ok(()),
        Some(origin) => {
            let host = origin.split_once("://").map_or(origin, |(_, rest)| rest);
            if is_local_name(host) {
                Ok(())
            } else {
                Err("requests from other sites' pages are refused")
            }
        }
    }
}

/// `localhost` or an address literal, with or without a port.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_may_be_asked_for() {
        let rows = [
            ("127.0.0.1:9901", None, true),
            ("localhost", None, true),
            ("[::1]:9901", None, true),
            ("evil.example:9901", None, false),
            ("127.0.0.1.evil.example", None, false),
            ("127.0.0.1:9901", Some("http://localhost:3000"), true),
            ("127.0.0.1:9901", Some("https://evil.example"), false),
            ("127.0.0.1:9901", Some("null"), false),
        ];
        for (host, origin, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header value"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a header value"));
            }
            assert_eq!(allowed(&headers).is_ok(), expected, "{host} {origin:?}");
        }
    }
}
