//! HTTPRoute and GRPCRoute matches to IR matches.

use super::filters::is_token;
use crate::objects::kinds::{FieldMatchSpec, GrpcMethodMatch, GrpcRouteMatch, HttpRouteMatch, PathMatchSpec};
use gateway_core::ir::{FieldMatch, HttpMatch, PathMatch, ValueMatch};
use gateway_core::route::Pattern;

/// Longest path, and longest value of a field, in a match (Gateway API).
const PATH_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 4096;
/// Most header or query conditions of one match (Gateway API).
const FIELDS_MAX: usize = 16;

/// Why a match cannot be used: below the match's own field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadMatch {
    pub field: String,
    pub problem: String,
    pub remedy: &'static str,
}

fn bad(field: impl Into<String>, problem: impl Into<String>, remedy: &'static str) -> BadMatch {
    BadMatch {
        field: field.into(),
        problem: problem.into(),
        remedy,
    }
}

/// Matches every request.
pub(super) fn everything() -> HttpMatch {
    HttpMatch {
        path: PathMatch::Prefix("/".to_owned()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

pub(super) fn http(spec: &HttpRouteMatch) -> Result<HttpMatch, BadMatch> {
    const METHODS: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    if let Some(method) = spec.method.as_deref().filter(|method| !METHODS.contains(method)) {
        let problem = format!("{method:?} is no method the Gateway API knows");
        return Err(bad(".method", problem, "write it in capitals: GET, POST, ..."));
    }
    Ok(HttpMatch {
        path: spec
            .path
            .as_ref()
            .map_or_else(|| Ok(PathMatch::Prefix("/".to_owned())), path)?,
        method: spec.method.clone(),
        headers: fields(&spec.headers, ".headers", true)?,
        query: fields(&spec.query_params, ".queryParams", false)?,
    })
}

fn path(spec: &PathMatchSpec) -> Result<PathMatch, BadMatch> {
    let value = spec.value.clone().unwrap_or_else(|| "/".to_owned());
    if value.len() > PATH_BYTES_MAX {
        return Err(bad(
            ".path.value",
            format!("longer than {PATH_BYTES_MAX} bytes"),
            "shorten it",
        ));
    }
    match spec.kind.as_deref().unwrap_or("PathPrefix") {
        "RegularExpression" => {
            regex(&value).map_err(|problem| bad(".path.value", problem, "correct the expression (RE2 syntax)"))?;
            return Ok(PathMatch::Regex(value));
        }
        "Exact" => literal(&value).map(|()| PathMatch::Exact(value.clone())),
        "PathPrefix" => literal(&value).map(|()| {
            // A prefix is of whole segments: `/a/` is `/a`.
            let trimmed = value.trim_end_matches('/');
            PathMatch::Prefix(if trimmed.is_empty() {
                "/".to_owned()
            } else {
                trimmed.to_owned()
            })
        }),
        other => {
            let problem = format!("{other:?} is no way to match a path");
            return Err(bad(
                ".path.type",
                problem,
                "write Exact, PathPrefix or RegularExpression",
            ));
        }
    }
    .map_err(|problem| bad(".path.value", problem, "write the path as requests carry it"))
}

/// What the Gateway API's schema asks of a literal path.
fn literal(value: &str) -> Result<(), String> {
    if !value.starts_with('/') {
        return Err(format!("{value:?} does not begin with /"));
    }
    let lower = value.to_ascii_lowercase();
    let inner = ["//", "/./", "/../", "%2f", "#"]
        .into_iter()
        .find(|part| lower.contains(part));
    if let Some(part) = inner.or(["/..", "/."].into_iter().find(|part| lower.ends_with(part))) {
        return Err(format!("{value:?} contains {part}, which no normalized path has"));
    }
    match value.bytes().all(|b| b.is_ascii_graphic() && b != b'?') {
        true => Ok(()),
        false => Err(format!("{value:?} has characters that no path carries")),
    }
}

/// Checks an expression as the data plane will compile it.
fn regex(pattern: &str) -> Result<(), String> {
    match Pattern::new(pattern) {
        Ok(_) => Ok(()),
        // The last line of a syntax error says what, the ones before draw where.
        Err(error) => {
            let error = error.to_string();
            let what = error.lines().last().unwrap_or_default();
            Err(format!(
                "{pattern:?} is no regular expression: {}",
                what.trim_start_matches("error: ")
            ))
        }
    }
}

/// Conditions on headers (names lowered) or query parameters. Of one name the first counts (Gateway API).
fn fields(specs: &[FieldMatchSpec], field: &str, headers: bool) -> Result<Vec<FieldMatch>, BadMatch> {
    if specs.len() > FIELDS_MAX {
        return Err(bad(field, format!("more than {FIELDS_MAX} conditions"), "remove some"));
    }
    let mut fields: Vec<FieldMatch> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let at = |part: &str| format!("{field}[{index}].{part}");
        if !is_token(&spec.name) {
            return Err(bad(
                at("name"),
                format!("{:?} is no name", spec.name),
                "use letters, digits and hyphens",
            ));
        }
        if spec.value.len() > VALUE_BYTES_MAX {
            return Err(bad(
                at("value"),
                format!("longer than {VALUE_BYTES_MAX} bytes"),
                "shorten it",
            ));
        }
        let value = match spec.kind.as_deref().unwrap_or("Exact") {
            "Exact" => ValueMatch::Exact(spec.value.clone()),
            "RegularExpression" => {
                regex(&spec.value).map_err(|problem| bad(at("value"), problem, "correct the expression"))?;
                ValueMatch::Regex(spec.value.clone())
            }
            other => {
                let problem = format!("{other:?} is no way to match a value");
                return Err(bad(at("type"), problem, "write Exact or RegularExpression"));
            }
        };
        let name = if headers {
            spec.name.to_ascii_lowercase()
        } else {
            spec.name.clone()
        };
        if !fields.iter().any(|earlier| earlier.name == name) {
            fields.push(FieldMatch { name, value });
        }
    }
    Ok(fields)
}

pub(super) fn grpc(spec: &GrpcRouteMatch) -> Result<HttpMatch, BadMatch> {
    let path = spec
        .method
        .as_ref()
        .map_or_else(|| Ok(PathMatch::Prefix("/".to_owned())), grpc_path)?;
    Ok(HttpMatch {
        path,
        method: None,
        headers: fields(&spec.headers, ".headers", true)?,
        query: Vec::new(),
    })
}

/// A gRPC method is the path `/service/method` (gRPC over HTTP/2, "Requests").
fn grpc_path(spec: &GrpcMethodMatch) -> Result<PathMatch, BadMatch> {
    let part = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (part(&spec.service), part(&spec.method));
    if [&service, &method]
        .into_iter()
        .flatten()
        .any(|text| text.len() > PATH_BYTES_MAX)
    {
        return Err(bad(
            ".method",
            format!("longer than {PATH_BYTES_MAX} bytes"),
            "shorten it",
        ));
    }
    let kind = spec.kind.as_deref().unwrap_or("Exact");
    match (kind, service, method) {
        (_, None, None) => Err(bad(
            ".method",
            "neither service nor method is given",
            "give one of them",
        )),
        ("Exact", service, method) => {
            for (text, at) in [(&service, ".method.service"), (&method, ".method.method")] {
                let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b'-';
                if let Some(text) = text.as_deref().filter(|text| !text.bytes().all(word)) {
                    let problem = format!("{text:?} is no name of a gRPC service or method");
                    return Err(bad(at, problem, "write it as in the .proto file"));
                }
            }
            Ok(match (service, method) {
                (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
                (Some(service), None) => PathMatch::Prefix(format!("/{service}")),
                (None, Some(method)) => PathMatch::Regex(format!("/[^/]+/{}", escape(&method))),
                (None, None) => PathMatch::Prefix("/".to_owned()),
            })
        }
        ("RegularExpression", service, method) => {
            let any = || "[^/]+".to_owned();
            let (service, method) = (service.unwrap_or_else(any), method.unwrap_or_else(any));
            for (text, at) in [(&service, ".method.service"), (&method, ".method.method")] {
                regex(text).map_err(|problem| bad(at, problem, "correct the expression (RE2 syntax)"))?;
            }
            let path = format!("/(?:{service})/(?:{method})");
            regex(&path).map_err(|problem| bad(".method", problem, "shorten the expressions"))?;
            Ok(PathMatch::Regex(path))
        }
        (other, _, _) => {
            let problem = format!("{other:?} is no way to match a method");
            Err(bad(".method.type", problem, "write Exact or RegularExpression"))
        }
    }
}

/// A name as an expression that matches it alone; names have only dots to escape.
fn escape(name: &str) -> String {
    name.replace('.', "\\.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(kind: &str, service: &str, method: &str) -> Result<PathMatch, BadMatch> {
        let text = |text: &str| Some(text.to_owned());
        grpc_path(&GrpcMethodMatch {
            kind: text(kind),
            service: text(service),
            method: text(method),
        })
    }

    #[test]
    fn a_grpc_method_is_a_path() {
        assert_eq!(method("Exact", "a.B", "C"), Ok(PathMatch::Exact("/a.B/C".to_owned())));
        assert_eq!(method("Exact", "a.B", ""), Ok(PathMatch::Prefix("/a.B".to_owned())));
        assert_eq!(method("Exact", "", "C"), Ok(PathMatch::Regex("/[^/]+/C".to_owned())));
        assert_eq!(
            method("RegularExpression", "a\\..*", ""),
            Ok(PathMatch::Regex("/(?:a\\..*)/(?:[^/]+)".to_owned()))
        );
        assert!(method("Exact", "", "").is_err());
        assert!(method("Exact", "a/b", "").is_err());
        assert!(method("RegularExpression", "(", "").is_err());
    }

    fn path_of(kind: &str, value: &str) -> Result<PathMatch, BadMatch> {
        path(&PathMatchSpec {
            kind: Some(kind.to_owned()),
            value: Some(value.to_owned()),
        })
    }

    #[test]
    fn a_prefix_is_of_whole_segments() {
        assert_eq!(path_of("PathPrefix", "/a/"), Ok(PathMatch::Prefix("/a".to_owned())));
        assert_eq!(path_of("PathPrefix", "/"), Ok(PathMatch::Prefix("/".to_owned())));
        assert_eq!(path_of("Exact", "/a/"), Ok(PathMatch::Exact("/a/".to_owned())));
    }

    #[test]
    fn a_path_no_request_carries_is_refused() {
        for value in [
            "a", "", "/a//b", "/a/../b", "/a/..", "/a%2Fb", "/a#b", "/a b", "/a?b", "/ä",
        ] {
            assert!(path_of("Exact", value).is_err(), "{value}");
        }
        assert!(path_of("RegularExpression", "/a(").is_err());
        assert!(path_of("RegularExpression", &"(".repeat(500)).is_err());
        assert!(path_of("Glob", "/a").is_err());
    }

    #[test]
    fn of_one_header_name_the_first_condition_counts() {
        let spec = |name: &str, value: &str| FieldMatchSpec {
            kind: None,
            name: name.into(),
            value: value.into(),
        };
        let found = fields(&[spec("X-A", "1"), spec("x-a", "2")], ".headers", true).unwrap();
        assert_eq!(
            found,
            [FieldMatch {
                name: "x-a".into(),
                value: ValueMatch::Exact("1".into())
            }]
        );
    }
}
