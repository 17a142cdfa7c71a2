//! CORS: which pages of other origins may read a rule's answers.
//!
//! A GRPCRoute has no such filter (Gateway API v1.7), but a browser's gRPC-Web call needs one. The annotation
//! `sluice.dev/cors-allow-origins` on the route takes the origins, separated by commas, in the words of
//! `cors.allowOrigins`; pages of these may make every call of the route and read every field, without credentials.

use super::{BadFilter, bad, is_token};
use crate::diagnostic::{Diagnostic, Severity};
use crate::objects::Subject;
use crate::objects::kinds::CorsSpec;
use crate::status::reason;
use gateway_core::ir::{Cors, OriginPattern};

/// Most entries of each list (Gateway API).
const ITEMS_MAX: usize = 64;
/// Seconds a browser may keep the answer to a preflight when the filter does not say (Gateway API).
const MAX_AGE_S: u32 = 5;
/// How long a browser may keep the answer for a GRPCRoute, seconds: every call is to another path.
const GRPC_MAX_AGE_S: u32 = 600;
/// Methods that are allowed when none are named (Fetch, "CORS-safelisted method").
const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];

const ANNOTATION: &str = "sluice.dev/cors-allow-origins";

pub(super) fn convert(spec: &CorsSpec, field: &str) -> Result<Cors, BadFilter> {
    let mut origins = Vec::new();
    bounded(spec.allow_origins.len(), field, "allowOrigins")?;
    for (index, text) in spec.allow_origins.iter().enumerate() {
        match OriginPattern::parse(text) {
            Some(origin) => origins.push(origin),
            None => {
                let at = format!("{field}.allowOrigins[{index}]");
                return Err(bad(reason::UNSUPPORTED_VALUE, at, no_origin(text), WRITE_ORIGIN));
            }
        }
    }
    let mut methods = names(&spec.allow_methods, field, "allowMethods")?;
    if methods.is_empty() {
        methods = METHODS.map(str::to_owned).to_vec();
    }
    Ok(Cors {
        origins,
        methods,
        headers: names(&spec.allow_headers, field, "allowHeaders")?,
        exposed: names(&spec.expose_headers, field, "exposeHeaders")?,
        credentials: spec.allow_credentials.unwrap_or(false),
        max_age_s: spec.max_age.unwrap_or(MAX_AGE_S),
    })
}

/// What the annotation of a GRPCRoute asks for.
pub(in crate::gateway_api) fn for_grpc(route: Subject<'_>, found: &mut Vec<Diagnostic>) -> Option<Cors> {
    let text = route.annotation(ANNOTATION)?;
    let field = format!("metadata.annotations[{ANNOTATION}]");
    let mut origins = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .take(ITEMS_MAX)
    {
        match OriginPattern::parse(item) {
            Some(origin) => origins.push(origin),
            None => found.push(route.finding(Severity::Error, field.as_str(), no_origin(item), WRITE_ORIGIN)),
        }
    }
    if origins.is_empty() {
        return None;
    }
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Some(Cors {
        origins,
        methods: owned(&["POST"]),
        headers: owned(&["*"]),
        exposed: owned(&["grpc-status", "grpc-message", "grpc-status-details-bin", "*"]),
        credentials: false,
        max_age_s: GRPC_MAX_AGE_S,
    })
}

const WRITE_ORIGIN: &str = "write *, https://example.com or https://*.example.com";

fn no_origin(text: &str) -> String {
    format!("{text:?} is no origin")
}

fn names(list: &[String], field: &str, name: &str) -> Result<Vec<String>, BadFilter> {
    bounded(list.len(), field, name)?;
    for (index, text) in list.iter().enumerate() {
        if !is_token(text) {
            let at = format!("{field}.{name}[{index}]");
            let problem = format!("{text:?} is no name");
            return Err(bad(
                reason::UNSUPPORTED_VALUE,
                at,
                problem,
                "use letters, digits and hyphens, or *",
            ));
        }
    }
    Ok(list.to_vec())
}

fn bounded(count: usize, field: &str, name: &str) -> Result<(), BadFilter> {
    match count <= ITEMS_MAX {
        true => Ok(()),
        false => {
            let problem = format!("more than {ITEMS_MAX} entries");
            Err(bad(
                reason::UNSUPPORTED_VALUE,
                format!("{field}.{name}"),
                problem,
                "remove some",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_the_defaults_of_the_gateway_api() {
        let spec = CorsSpec {
            allow_origins: vec!["https://*.example.com".to_owned()],
            ..CorsSpec::default()
        };
        let cors = convert(&spec, "").unwrap();
        assert_eq!((cors.max_age_s, cors.credentials), (5, false));
        assert_eq!(cors.methods, METHODS);
        assert!(cors.origins[0].matches(b"https://a.example.com"));
    }

    #[test]
    fn what_is_no_origin_or_name_is_named() {
        let mut spec = CorsSpec {
            allow_origins: vec!["*".to_owned(), "example.com".to_owned()],
            ..CorsSpec::default()
        };
        assert_eq!(
            convert(&spec, "[0].cors").unwrap_err().field,
            "[0].cors.allowOrigins[1]"
        );
        spec.allow_origins.pop();
        spec.allow_headers = vec!["a b".to_owned()];
        assert_eq!(
            convert(&spec, "[0].cors").unwrap_err().field,
            "[0].cors.allowHeaders[0]"
        );
    }
}
