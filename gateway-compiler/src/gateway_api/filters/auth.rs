//! ExternalAuth: which Service is asked before a request goes anywhere, and what it is told.
//!
//! What is asked of it and is not served is an error, never left out: a guard with a hole is none.

use super::{BadFilter, Referred, bad, field_name};
use crate::objects::kinds::{BackendRef, ExternalAuthSpec};
use crate::status::reason;
use gateway_core::ir::{AuthSpeaks, ExternalAuth, UpstreamProtocol};

/// Names in one list (Gateway API).
const NAMES_MAX: usize = 64;
/// Bytes of a path that stands before others (Gateway API).
const PREFIX_BYTES_MAX: usize = 1024;
/// Octets of a body that is kept for a question: 16 MiB.
const BODY_BYTES_MAX: u32 = 16_777_216;

pub(in crate::gateway_api) fn convert(
    spec: &ExternalAuthSpec,
    field: &str,
    resolve: &mut dyn FnMut(&BackendRef, String) -> Referred,
) -> Result<ExternalAuth, BadFilter> {
    let wrong =
        |part: &str, problem: String, remedy| bad(reason::UNSUPPORTED_VALUE, format!("{field}{part}"), problem, remedy);
    let names = |names: &[String], part: &str| -> Result<Vec<String>, BadFilter> {
        if names.len() > NAMES_MAX {
            let problem = format!("more than {NAMES_MAX} names");
            return Err(wrong(part, problem, "remove some"));
        }
        let one = |(index, name): (usize, &String)| field_name(name, &format!("{field}{part}[{index}]"));
        names.iter().enumerate().map(one).collect()
    };
    let speaks = match spec.protocol.as_str() {
        "HTTP" if spec.grpc.is_some() => {
            return Err(wrong(
                ".grpc",
                "it is for protocol GRPC, and this says HTTP: every request is answered with 500".to_owned(),
                "remove it",
            ));
        }
        "HTTP" => {
            let http = spec.http.clone().unwrap_or_default();
            let prefix = prefix(&http.path).map_err(|problem| {
                let remedy = "write a path as RFC 3986 has it, without dot segments";
                wrong(".http.path", problem, remedy)
            })?;
            let shown = names(&http.allowed_headers, ".http.allowedHeaders")?;
            let taken = names(&http.allowed_response_headers, ".http.allowedResponseHeaders")?;
            if let Some(index) = taken.iter().position(|name| name == "host") {
                let problem = "an authorization service cannot say which host a request is for".to_owned();
                let part = format!(".http.allowedResponseHeaders[{index}]");
                return Err(wrong(&part, problem, "remove it"));
            }
            AuthSpeaks::Http { prefix, shown, taken }
        }
        "GRPC" if spec.http.is_some() => {
            return Err(wrong(
                ".http",
                "it is for protocol HTTP, and this says GRPC: every request is answered with 500".to_owned(),
                "remove it",
            ));
        }
        "GRPC" => {
            let grpc = spec.grpc.clone().unwrap_or_default();
            AuthSpeaks::Grpc {
                shown: names(&grpc.allowed_headers, ".grpc.allowedHeaders")?,
            }
        }
        other => {
            let problem = format!("{other:?} is no protocol of an authorization service");
            return Err(wrong(".protocol", problem, "write HTTP or GRPC"));
        }
    };
    let size = spec.forward_body.as_ref().map_or(0, |body| body.max_size);
    let body_bytes_max = u32::try_from(size).ok().filter(|size| *size <= BODY_BYTES_MAX);
    let Some(body_bytes_max) = body_bytes_max else {
        let problem = format!("a body of {size} octets is not kept for a question: every request is answered with 500");
        return Err(wrong(
            ".forwardBody.maxSize",
            problem,
            "write a number from 0 to 16777216",
        ));
    };
    let Referred { to, asked, .. } = resolve(&spec.backend_ref, format!("{field}.backendRef"));
    Ok(ExternalAuth {
        to,
        protocol: match speaks {
            // Not what the route speaks: the service has a mind of its own.
            AuthSpeaks::Http { .. } => asked.unwrap_or(UpstreamProtocol::Http1),
            AuthSpeaks::Grpc { .. } => UpstreamProtocol::H2c,
        },
        speaks,
        body_bytes_max,
    })
}

/// What stands before a path: empty, or a slash and more without one at the end.
fn prefix(path: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    if path.len() > PREFIX_BYTES_MAX || !path.bytes().all(fine) {
        return Err(format!("{path:?} is no path of at most {PREFIX_BYTES_MAX} bytes"));
    }
    let mut escapes = path.split('%');
    escapes.next();
    let hex = |escape: &str| {
        escape
            .as_bytes()
            .get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !escapes.all(hex) {
        return Err(format!("{path:?} has a % that escapes nothing"));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(format!("{path:?} has dot segments"));
    }
    let path = path.trim_matches('/');
    Ok(match path {
        "" => String::new(),
        path => format!("/{path}"),
    })
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn a_prefix_begins_with_a_slash_and_does_not_end_with_one() {
        for (path, want) in [
            ("", ""),
            ("/", ""),
            ("/auth", "/auth"),
            ("auth/v1/", "/auth/v1"),
            ("/a%2Fb", "/a%2Fb"),
        ] {
            assert_eq!(prefix(path).as_deref(), Ok(want));
        }
        for path in [
            "/a b",
            "/a?b",
            "/a#b",
            "/a%2",
            "/%zz",
            "/../a",
            "/a/.",
            "/a\r\nb",
            &"/a".repeat(600),
        ] {
            assert!(prefix(path).is_err(), "{path:?}");
        }
    }
}
