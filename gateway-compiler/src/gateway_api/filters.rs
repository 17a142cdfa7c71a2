//! Route filters to IR filters: one error case per way to be wrong.

pub(super) mod auth;
mod cors;
mod mirror;

pub(super) use self::cors::for_grpc as cors_for_grpc;

use super::hostname;
use crate::objects::kinds::{
    BackendRef, HeaderFilterSpec, HeaderSpec, PathModifierSpec, RedirectSpec, RewriteSpec, RouteFilter,
};
use crate::status::reason;
use gateway_core::ir::{Destination, FieldEdits, Filter, PathRewrite, Redirect, Rewrite, UpstreamProtocol};

/// Most filters of one rule or backendRef (Gateway API).
const FILTERS_MAX: usize = 16;
/// Most edits of one kind in one filter (Gateway API).
const EDITS_MAX: usize = 16;

/// Where the filters stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    HttpRule,
    GrpcRule,
    HttpBackend,
    GrpcBackend,
}

/// Why a filter cannot be used: below the filters' own field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadFilter {
    pub reason: &'static str,
    pub field: String,
    pub problem: String,
    pub remedy: &'static str,
}

fn bad(reason: &'static str, field: impl Into<String>, problem: impl Into<String>, remedy: &'static str) -> BadFilter {
    BadFilter {
        reason,
        field: field.into(),
        problem: problem.into(),
        remedy,
    }
}

/// What a filter refers to, resolved.
pub(super) struct Referred {
    pub to: Destination,
    /// What the rule speaks to it.
    pub protocol: UpstreamProtocol,
    /// What the Service itself says.
    pub asked: Option<UpstreamProtocol>,
}

/// Converts a list. `prefixes`: every match of the rule is a path prefix, so that it can be replaced. `resolve` finds
/// the Service that a filter refers to; the text is the reference's field below the filters'.
pub(super) fn convert(
    filters: &[RouteFilter],
    place: Place,
    prefixes: bool,
    resolve: &mut dyn FnMut(&BackendRef, String) -> Referred,
) -> Result<Vec<Filter>, BadFilter> {
    if filters.len() > FILTERS_MAX {
        return Err(bad(
            reason::UNSUPPORTED_VALUE,
            "",
            format!("more than {FILTERS_MAX} filters"),
            "remove some",
        ));
    }
    let mut converted: Vec<Filter> = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        let filter = one(filter, index, place, prefixes, resolve)?;
        for earlier in &converted {
            if let Some(problem) = clash(earlier, &filter) {
                let field = format!("[{index}]");
                return Err(bad(reason::INCOMPATIBLE_FILTERS, field, problem, "keep one of them"));
            }
        }
        converted.push(filter);
    }
    Ok(converted)
}

/// Why two filters cannot stand together.
fn clash(a: &Filter, b: &Filter) -> Option<&'static str> {
    match (a, b) {
        (Filter::RequestHeaders(_), Filter::RequestHeaders(_)) => Some("RequestHeaderModifier is given twice"),
        (Filter::ResponseHeaders(_), Filter::ResponseHeaders(_)) => Some("ResponseHeaderModifier is given twice"),
        (Filter::Redirect(_), Filter::Redirect(_)) => Some("RequestRedirect is given twice"),
        (Filter::Rewrite(_), Filter::Rewrite(_)) => Some("URLRewrite is given twice"),
        (Filter::Redirect(_), Filter::Rewrite(_)) | (Filter::Rewrite(_), Filter::Redirect(_)) => {
            Some("RequestRedirect and URLRewrite exclude each other")
        }
        (Filter::Redirect(_), Filter::ExternalAuth(_)) | (Filter::ExternalAuth(_), Filter::Redirect(_)) => {
            Some("RequestRedirect answers before ExternalAuth could ask anybody")
        }
        (Filter::Cors(_), Filter::Cors(_)) => Some("CORS is given twice"),
        (Filter::ExternalAuth(_), Filter::ExternalAuth(_)) => Some("ExternalAuth is given twice"),
        (
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Redirect(_)
            | Filter::Rewrite(_)
            | Filter::Cors(_)
            | Filter::Mirror(_)
            | Filter::ExternalAuth(_),
            _,
        ) => None,
    }
}

fn one(
    filter: &RouteFilter,
    index: usize,
    place: Place,
    prefixes: bool,
    resolve: &mut dyn FnMut(&BackendRef, String) -> Referred,
) -> Result<Filter, BadFilter> {
    let missing = |field: &str| {
        let problem = format!("the filter says type {} but has no {field}", filter.kind);
        bad(reason::UNSUPPORTED_VALUE, format!("[{index}]"), problem, "add it")
    };
    let at = |field: &str| format!("[{index}].{field}");
    match (filter.kind.as_str(), place) {
        ("RequestHeaderModifier", _) => {
            let spec = filter
                .request_header_modifier
                .as_ref()
                .ok_or_else(|| missing("requestHeaderModifier"))?;
            edits(spec, &at("requestHeaderModifier")).map(Filter::RequestHeaders)
        }
        ("ResponseHeaderModifier", _) => {
            let spec = filter
                .response_header_modifier
                .as_ref()
                .ok_or_else(|| missing("responseHeaderModifier"))?;
            edits(spec, &at("responseHeaderModifier")).map(Filter::ResponseHeaders)
        }
        ("RequestRedirect", Place::HttpRule | Place::HttpBackend) => {
            let spec = filter
                .request_redirect
                .as_ref()
                .ok_or_else(|| missing("requestRedirect"))?;
            redirect(spec, &at("requestRedirect"), prefixes).map(Filter::Redirect)
        }
        ("URLRewrite", Place::HttpRule | Place::HttpBackend) => {
            let spec = filter.url_rewrite.as_ref().ok_or_else(|| missing("urlRewrite"))?;
            rewrite(spec, &at("urlRewrite"), prefixes).map(Filter::Rewrite)
        }
        ("CORS", Place::HttpRule) => {
            let spec = filter.cors.as_ref().ok_or_else(|| missing("cors"))?;
            cors::convert(spec, &at("cors")).map(Filter::Cors)
        }
        ("RequestMirror", Place::HttpRule | Place::GrpcRule) => {
            let spec = filter.request_mirror.as_ref().ok_or_else(|| missing("requestMirror"))?;
            mirror::convert(spec, &at("requestMirror"), resolve).map(Filter::Mirror)
        }
        ("ExternalAuth", Place::HttpRule | Place::GrpcRule) => {
            let spec = filter.external_auth.as_ref().ok_or_else(|| missing("externalAuth"))?;
            auth::convert(spec, &at("externalAuth"), resolve).map(Filter::ExternalAuth)
        }
        (kind, _) => {
            let problem = format!("the filter {kind} is not served here: the rule answers 500");
            Err(bad(reason::UNSUPPORTED_VALUE, at("type"), problem, "remove it"))
        }
    }
}

fn edits(spec: &HeaderFilterSpec, field: &str) -> Result<FieldEdits, BadFilter> {
    let mut edits = FieldEdits::default();
    for (list, name, into) in [(&spec.set, "set", &mut edits.set), (&spec.add, "add", &mut edits.add)] {
        bounded(list.len(), field, name)?;
        for (index, header) in list.iter().enumerate() {
            into.push(edit(header, &format!("{field}.{name}[{index}]"))?);
        }
    }
    bounded(spec.remove.len(), field, "remove")?;
    for (index, name) in spec.remove.iter().enumerate() {
        edits
            .remove
            .push(field_name(name, &format!("{field}.remove[{index}]"))?);
    }
    Ok(edits)
}

fn bounded(count: usize, field: &str, name: &str) -> Result<(), BadFilter> {
    match count <= EDITS_MAX {
        true => Ok(()),
        false => {
            let problem = format!("more than {EDITS_MAX} edits");
            Err(bad(
                reason::UNSUPPORTED_VALUE,
                format!("{field}.{name}"),
                problem,
                "remove some",
            ))
        }
    }
}

/// Fields that frame a message or belong to one hop: editing them would break it (RFC 9110 7.6.1, RFC 9112 6).
const FRAMING: [&str; 6] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

fn edit(header: &HeaderSpec, field: &str) -> Result<(String, String), BadFilter> {
    let name = field_name(&header.name, &format!("{field}.name"))?;
    // RFC 9110 5.5: visible characters, spaces and tabs inside, and what older systems wrote.
    let fine = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    let value = header.value.trim_matches([' ', '\t']);
    match value.bytes().all(fine) {
        true => Ok((name, value.to_owned())),
        false => {
            let problem = "the value has a control character";
            Err(bad(
                reason::UNSUPPORTED_VALUE,
                format!("{field}.value"),
                problem,
                "remove it",
            ))
        }
    }
}

fn field_name(name: &str, field: &str) -> Result<String, BadFilter> {
    if !is_token(name) {
        let problem = format!("{name:?} is no field name");
        return Err(bad(
            reason::UNSUPPORTED_VALUE,
            field,
            problem,
            "use letters, digits and hyphens",
        ));
    }
    let name = name.to_ascii_lowercase();
    match FRAMING.contains(&name.as_str()) {
        true => {
            let problem = format!("{name} belongs to one hop and cannot be edited");
            Err(bad(reason::UNSUPPORTED_VALUE, field, problem, "remove this edit"))
        }
        false => Ok(name),
    }
}

/// RFC 9110 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn redirect(spec: &RedirectSpec, field: &str, prefixes: bool) -> Result<Redirect, BadFilter> {
    if let Some(scheme) = spec
        .scheme
        .as_deref()
        .filter(|scheme| !matches!(*scheme, "http" | "https"))
    {
        let problem = format!("{scheme:?} is no scheme to redirect to");
        return Err(bad(
            reason::UNSUPPORTED_VALUE,
            format!("{field}.scheme"),
            problem,
            "write http or https",
        ));
    }
    let status = spec.status_code.unwrap_or(302);
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let problem = format!("{status} is no redirect");
        return Err(bad(
            reason::UNSUPPORTED_VALUE,
            format!("{field}.statusCode"),
            problem,
            "write 301, 302, 303, 307 or 308",
        ));
    }
    if spec.port == Some(0) {
        return Err(bad(
            reason::UNSUPPORTED_VALUE,
            format!("{field}.port"),
            "0 is no port",
            "write 1 to 65535",
        ));
    }
    Ok(Redirect {
        scheme: spec.scheme.clone(),
        hostname: precise(spec.hostname.as_deref(), field)?,
        path: spec
            .path
            .as_ref()
            .map(|path| path_rewrite(path, field, prefixes))
            .transpose()?,
        port: spec.port,
        status,
    })
}

fn rewrite(spec: &RewriteSpec, field: &str, prefixes: bool) -> Result<Rewrite, BadFilter> {
    Ok(Rewrite {
        hostname: precise(spec.hostname.as_deref(), field)?,
        path: spec
            .path
            .as_ref()
            .map(|path| path_rewrite(path, field, prefixes))
            .transpose()?,
    })
}

fn precise(name: Option<&str>, field: &str) -> Result<Option<String>, BadFilter> {
    let Some(name) = name else { return Ok(None) };
    match hostname::precise(name) {
        Ok(()) => Ok(Some(name.to_owned())),
        Err(problem) => {
            let problem = format!("{name:?} is no hostname: {problem}");
            Err(bad(
                reason::UNSUPPORTED_VALUE,
                format!("{field}.hostname"),
                problem,
                "write a hostname without wildcard",
            ))
        }
    }
}

fn path_rewrite(spec: &PathModifierSpec, field: &str, prefixes: bool) -> Result<PathRewrite, BadFilter> {
    let (name, value) = match spec.kind.as_str() {
        "ReplaceFullPath" => ("replaceFullPath", &spec.replace_full_path),
        "ReplacePrefixMatch" => ("replacePrefixMatch", &spec.replace_prefix_match),
        other => {
            let problem = format!("{other:?} is no way to replace a path");
            let remedy = "write ReplaceFullPath or ReplacePrefixMatch";
            return Err(bad(
                reason::UNSUPPORTED_VALUE,
                format!("{field}.path.type"),
                problem,
                remedy,
            ));
        }
    };
    let at = format!("{field}.path.{name}");
    let Some(value) = value else {
        return Err(bad(
            reason::UNSUPPORTED_VALUE,
            format!("{field}.path"),
            format!("{name} is missing"),
            "add it",
        ));
    };
    if value.len() > 1024 || !value.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = "the path has characters that no request may carry, or is longer than 1024 bytes";
        return Err(bad(reason::UNSUPPORTED_VALUE, at, problem, "percent-encode it"));
    }
    match (name, prefixes) {
        ("replaceFullPath", _) => Ok(PathRewrite::Full(value.clone())),
        (_, true) => Ok(PathRewrite::Prefix(value.clone())),
        (_, false) => {
            let problem = "a prefix can only be replaced where every match of the rule is a PathPrefix";
            Err(bad(
                reason::INCOMPATIBLE_FILTERS,
                at,
                problem,
                "match by PathPrefix, or use ReplaceFullPath",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(filters: &[RouteFilter], place: Place, prefixes: bool) -> Result<Vec<Filter>, BadFilter> {
        super::convert(filters, place, prefixes, &mut |_, _| panic!("no mirror here"))
    }

    fn header(kind: &str, name: &str, value: &str) -> RouteFilter {
        let edits = HeaderFilterSpec {
            set: vec![HeaderSpec {
                name: name.to_owned(),
                value: value.to_owned(),
            }],
            ..HeaderFilterSpec::default()
        };
        RouteFilter {
            kind: kind.to_owned(),
            request_header_modifier: Some(edits),
            ..RouteFilter::default()
        }
    }

    #[test]
    fn header_names_are_lowered_and_values_cannot_inject() {
        let filters = [header("RequestHeaderModifier", "X-Test", " a b ")];
        let edits = FieldEdits {
            set: vec![("x-test".into(), "a b".into())],
            ..FieldEdits::default()
        };
        assert_eq!(
            convert(&filters, Place::HttpRule, true),
            Ok(vec![Filter::RequestHeaders(edits)])
        );
        for (name, value) in [
            ("x y", "a"),
            ("", "a"),
            (":path", "a"),
            ("x", "a\r\nb: c"),
            ("content-length", "0"),
        ] {
            assert!(
                convert(
                    &[header("RequestHeaderModifier", name, value)],
                    Place::HttpBackend,
                    true
                )
                .is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_not_served_says_so() {
        for (kind, place) in [
            ("CORS", Place::GrpcRule),
            ("ExtensionRef", Place::HttpRule),
            ("ExternalAuth", Place::HttpBackend),
            ("URLRewrite", Place::GrpcRule),
            ("URLRewrite", Place::GrpcBackend),
            ("CORS", Place::HttpBackend),
        ] {
            let error = convert(&[header(kind, "x", "y")], place, true).unwrap_err();
            assert_eq!(
                (error.reason, error.field.as_str()),
                ("UnsupportedValue", "[0].type"),
                "{kind}"
            );
        }
    }

    #[test]
    fn a_filter_given_twice_is_incompatible() {
        let twice = [
            header("RequestHeaderModifier", "x", "y"),
            header("RequestHeaderModifier", "z", "y"),
        ];
        assert_eq!(
            convert(&twice, Place::HttpRule, true).unwrap_err().reason,
            "IncompatibleFilters"
        );
    }
}
