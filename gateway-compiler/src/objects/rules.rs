//! What an API server would refuse although our types can hold it: lengths, counts, patterns and unions of the CRDs
//! (Gateway API v1.7.0), for objects that come from files.
//!
//! What is harmless is served all the same; the finding says what a cluster would say. Rules that decide how something
//! is served are not here but where that is decided.

use super::{Kind, Metadata};
use crate::yaml::{Node, Value};

/// A rule that an object breaks.
pub(super) struct Broken {
    pub field: String,
    pub problem: String,
    pub remedy: &'static str,
    /// Only probably a mistake.
    pub mild: bool,
}

/// Annotations that mean something here; others under our domain are misspelled.
const ANNOTATIONS: [&str; 3] = [
    "sluice.dev/plane",
    "sluice.dev/cors-allow-origins",
    "sluice.dev/load-balancer-ips",
];

/// What the value at a path has to be.
#[derive(Clone, Copy)]
enum Rule {
    ItemsMax(usize),
    ItemsMin(usize),
    /// Of a text, in bytes.
    Length(usize, usize),
    Text(fn(&str) -> bool, &'static str),
    Port,
}

use Rule::*;

const ROUTES: &[Kind] = &[Kind::HttpRoute, Kind::GrpcRoute];
const HTTP: &[Kind] = &[Kind::HttpRoute];
const GRPC: &[Kind] = &[Kind::GrpcRoute];
const GATEWAY: &[Kind] = &[Kind::Gateway, Kind::ListenerSet];
const HEADER: Rule = Text(is_token, "letters, digits and any of !#$%&'*+-.^_`|~");
const LABEL: Rule = Text(is_subdomain, "a-z, 0-9, inner hyphens and dots, at most 253");

/// Kinds, path and rule; `[]` is every item.
const RULES: &[(&[Kind], &str, Rule)] = &[
    (&[Kind::Gateway], "spec.gatewayClassName", Length(1, 253)),
    (&[Kind::Gateway], "spec.addresses", ItemsMax(16)),
    (GATEWAY, "spec.listeners[].name", LABEL),
    (GATEWAY, "spec.listeners[].hostname", Length(1, 253)),
    (GATEWAY, "spec.listeners[].tls.certificateRefs", ItemsMax(64)),
    (GATEWAY, "spec.listeners[].tls.options", ItemsMax(16)),
    (GATEWAY, "spec.listeners[].allowedRoutes.kinds", ItemsMax(8)),
    (GATEWAY, "spec.listeners[].filters.requests", ItemsMax(16)),
    (ROUTES, "spec.hostnames[]", Length(1, 253)),
    (ROUTES, "spec.rules[].name", LABEL),
    (ROUTES, "spec.rules[].filters", ItemsMax(16)),
    (ROUTES, "spec.rules[].backendRefs[].filters", ItemsMax(16)),
    (ROUTES, "spec.rules[].matches[].headers", ItemsMax(16)),
    (ROUTES, "spec.rules[].matches[].headers[].name", HEADER),
    (ROUTES, "spec.rules[].matches[].headers[].name", Length(1, 256)),
    (ROUTES, "spec.rules[].matches[].headers[].value", Length(1, 4096)),
    (ROUTES, "spec.rules[].filters[].requestHeaderModifier.set", ItemsMax(16)),
    (ROUTES, "spec.rules[].filters[].requestHeaderModifier.add", ItemsMax(16)),
    (
        ROUTES,
        "spec.rules[].filters[].requestHeaderModifier.remove",
        ItemsMax(16),
    ),
    (
        ROUTES,
        "spec.rules[].filters[].responseHeaderModifier.set",
        ItemsMax(16),
    ),
    (
        ROUTES,
        "spec.rules[].filters[].responseHeaderModifier.add",
        ItemsMax(16),
    ),
    (
        ROUTES,
        "spec.rules[].filters[].responseHeaderModifier.remove",
        ItemsMax(16),
    ),
    (HTTP, "spec.rules", ItemsMin(1)),
    (GRPC, "spec.rules[].matches[].method.service", Length(1, 1024)),
    (GRPC, "spec.rules[].matches[].method.method", Length(1, 1024)),
    (HTTP, "spec.rules[].matches[].queryParams", ItemsMax(16)),
    (HTTP, "spec.rules[].matches[].queryParams[].value", Length(1, 1024)),
    (HTTP, "spec.rules[].matches[].path.value", Length(0, 1024)),
    (HTTP, "spec.rules[].filters[].urlRewrite.hostname", Length(1, 253)),
    (&[Kind::TlsRoute], "spec.hostnames", ItemsMin(1)),
    (
        &[Kind::TcpRoute, Kind::UdpRoute, Kind::TlsRoute],
        "spec.rules",
        ItemsMin(1),
    ),
    (&[Kind::ReferenceGrant], "spec.from", ItemsMin(1)),
    (&[Kind::ReferenceGrant], "spec.from", ItemsMax(16)),
    (&[Kind::ReferenceGrant], "spec.to", ItemsMin(1)),
    (&[Kind::ReferenceGrant], "spec.to", ItemsMax(16)),
    (&[Kind::BackendTlsPolicy], "spec.targetRefs", ItemsMin(1)),
    (&[Kind::BackendTlsPolicy], "spec.targetRefs", ItemsMax(16)),
    (
        &[Kind::BackendTlsPolicy],
        "spec.validation.subjectAltNames",
        ItemsMax(5),
    ),
    (&[Kind::Service], "spec.ports[].port", Port),
    (&[Kind::EndpointSlice], "ports[].port", Port),
    (&[Kind::EndpointSlice], "endpoints", ItemsMax(1000)),
];

/// Everything that an object breaks.
pub(super) fn broken(kind: Kind, meta: &Metadata, tree: &Node) -> Vec<Broken> {
    let mut found = Vec::new();
    for (_, path, rule) in RULES.iter().filter(|(kinds, ..)| kinds.contains(&kind)) {
        each(tree, path, String::new(), &mut |field, node| {
            if let Some((problem, remedy)) = rule.judge(node) {
                found.push(Broken::new(field, problem, remedy));
            }
        });
    }
    match kind {
        Kind::Gateway | Kind::ListenerSet => {
            each(tree, "spec.listeners[]", String::new(), &mut |field, node| {
                found.extend(listener(field, node));
            });
            each(
                tree,
                "spec.listeners[].filters.requests",
                String::new(),
                &mut |field, node| {
                    filters(field, node, &mut found);
                },
            );
        }
        Kind::HttpRoute | Kind::GrpcRoute => {
            each(tree, "spec.rules[]", String::new(), &mut |field, node| {
                retries(&field, node, &mut found);
            });
            for list in ["spec.rules[].filters", "spec.rules[].backendRefs[].filters"] {
                each(tree, list, String::new(), &mut |field, node| {
                    filters(field, node, &mut found);
                });
            }
            each(
                tree,
                "spec.rules[].matches[].path",
                String::new(),
                &mut |field, node| {
                    found.extend(path(field, node));
                },
            );
        }
        _ => {}
    }
    each(tree, "spec.rules[].backendRefs", String::new(), &mut |field, node| {
        found.extend(weights(field, node));
    });
    let ours = meta.annotations.keys().filter(|name| name.starts_with("sluice.dev/"));
    for name in ours.filter(|name| !ANNOTATIONS.contains(&name.as_str())) {
        let problem = "no annotation of this name means anything: it has no effect".to_owned();
        let field = format!("metadata.annotations[{name}]");
        let remedy = match nearest(name, ANNOTATIONS) {
            Some("sluice.dev/plane") => "write sluice.dev/plane",
            Some(_) => "write sluice.dev/cors-allow-origins",
            None => "remove it",
        };
        found.push(Broken::mild(field, problem, remedy));
    }
    found
}

impl Broken {
    fn mild(field: impl Into<String>, problem: impl Into<String>, remedy: &'static str) -> Self {
        let finding = Self::new(field, problem, remedy);
        Self { mild: true, ..finding }
    }

    fn new(field: impl Into<String>, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            remedy,
            mild: false,
        }
    }
}

impl Rule {
    fn judge(self, node: &Node) -> Option<(String, &'static str)> {
        let items = match &node.value {
            Value::Sequence(items) => Some(items.len()),
            Value::Mapping(entries) => Some(entries.len()),
            Value::Scalar(_) => None,
        };
        let text = match &node.value {
            Value::Scalar(scalar) => Some(&*scalar.text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        };
        match (self, items, text) {
            (ItemsMax(max), Some(count), _) if count > max => Some((
                format!("{count} entries: an API server takes at most {max}"),
                "write fewer",
            )),
            (ItemsMin(min), Some(count), _) if count < min => Some((
                format!("{count} entries: an API server takes no fewer than {min}"),
                "add one",
            )),
            (Length(min, max), _, Some(text)) if !(min..=max).contains(&text.len()) => {
                let problem = format!("{} bytes: an API server takes {min} to {max}", text.len());
                Some((problem, "correct it, or leave the field out"))
            }
            (Text(holds, what), _, Some(text)) if !holds(text) => {
                Some((format!("an API server takes only {what}"), "write another one"))
            }
            (Port, _, Some("0")) => Some(("0 is no port".to_owned(), "write 1 to 65535")),
            (ItemsMax(_) | ItemsMin(_) | Length(..) | Text(..) | Port, _, _) => None,
        }
    }
}

/// Calls `see` with every node of a path, and where it is.
fn each(node: &Node, path: &str, field: String, see: &mut dyn FnMut(String, &Node)) {
    let Some((name, rest)) = path
        .split_once('.')
        .or(Some((path, "")))
        .filter(|(name, _)| !name.is_empty())
    else {
        return see(field, node);
    };
    let (name, all) = (name.trim_end_matches("[]"), name.ends_with("[]"));
    let Some(next) = node.get(name) else { return };
    let field = if field.is_empty() {
        name.to_owned()
    } else {
        format!("{field}.{name}")
    };
    match (&next.value, all) {
        (Value::Sequence(items), true) => {
            for (index, item) in items.iter().enumerate() {
                each(item, rest, format!("{field}[{index}]"), see);
            }
        }
        (_, true) => {}
        (_, false) => each(next, rest, field, see),
    }
}

/// Unions of a listener.
fn listener(field: String, node: &Node) -> Option<Broken> {
    let protocol = node.get("protocol").and_then(Node::text)?;
    if matches!(protocol, "HTTP" | "TCP" | "UDP") && node.get("tls").is_some() {
        let problem = format!("tls must not be specified for protocol {protocol}");
        return Some(Broken::new(
            format!("{field}.tls"),
            problem,
            "remove it, or use HTTPS or TLS",
        ));
    }
    let hostname = node.get("hostname").and_then(Node::text);
    if matches!(protocol, "TCP" | "UDP") && hostname.is_some() {
        let problem = format!("hostname must not be specified for protocol {protocol}");
        return Some(Broken::new(format!("{field}.hostname"), problem, "remove it"));
    }
    None
}

/// A filter's type, the field that belongs to it, and whether it may stand in a list twice.
const FILTERS: [(&str, &str, bool); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier", false),
    ("ResponseHeaderModifier", "responseHeaderModifier", false),
    ("RequestMirror", "requestMirror", true),
    ("RequestRedirect", "requestRedirect", false),
    ("URLRewrite", "urlRewrite", false),
    ("CORS", "cors", false),
    ("ExternalAuth", "externalAuth", true),
    ("ExtensionRef", "extensionRef", true),
];

fn filters(field: String, node: &Node, found: &mut Vec<Broken>) {
    let Value::Sequence(items) = &node.value else { return };
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(kind) = item.get("type").and_then(Node::text) else {
            continue;
        };
        let at = format!("{field}[{index}]");
        for (other, name, _) in FILTERS
            .iter()
            .filter(|(other, name, _)| *other != kind && item.get(name).is_some())
        {
            let problem = format!("{name} stands in a filter whose type is {kind}, not {other}");
            found.push(Broken::new(
                format!("{at}.{name}"),
                problem,
                "a filter is one type and its field",
            ));
        }
        let once = FILTERS.iter().any(|(name, _, twice)| *name == kind && !twice);
        if once && seen.contains(&kind) {
            let problem = format!("a list has at most one {kind}");
            found.push(Broken::new(format!("{at}.type"), problem, "make one of the two"));
        }
        seen.push(kind);
    }
}

/// Backends none of which gets anything.
fn weights(field: String, node: &Node) -> Option<Broken> {
    let Value::Sequence(items) = &node.value else {
        return None;
    };
    let nothing = |item: &Node| item.get("weight").and_then(Node::text) == Some("0");
    (!items.is_empty() && items.iter().all(nothing)).then(|| {
        let problem = "every weight is 0: no backend gets anything";
        Broken::mild(field, problem, "give one of them a weight")
    })
}

/// Retries without an end, and of requests that may have been carried out already.
fn retries(field: &str, rule: &Node, found: &mut Vec<Broken>) {
    let Some(retry) = rule
        .get("retry")
        .filter(|retry| retry.get("attempts").and_then(Node::text) != Some("0"))
    else {
        return;
    };
    let ends = |name| rule.get("timeouts").and_then(|timeouts| timeouts.get(name)).is_some();
    if !ends("request") && !ends("backendRequest") {
        let problem = "retries without a timeout: one slow endpoint is asked as long as it likes, again and again";
        found.push(Broken::mild(format!("{field}.retry"), problem, "add timeouts.request"));
    }
    let Some(Value::Sequence(matches)) = rule.get("matches").map(|matches| &matches.value) else {
        return;
    };
    let method = |one: &Node| one.get("method").and_then(Node::text).map(str::to_owned);
    // RFC 9110 9.2.2.
    let again = matches
        .iter()
        .filter_map(method)
        .find(|method| matches!(method.as_str(), "POST" | "PATCH"));
    if let (Some(method), true) = (again, retry.get("codes").is_some()) {
        let problem = format!("a {method} that failed may have been carried out: sent again it is carried out twice");
        found.push(Broken::mild(
            format!("{field}.retry.codes"),
            problem,
            "retry only what is idempotent",
        ));
    }
}

/// The characters of an exact path or a prefix.
fn path(field: String, node: &Node) -> Option<Broken> {
    let value = node.get("value").and_then(Node::text)?;
    if node.get("type").and_then(Node::text) == Some("RegularExpression") {
        return None;
    }
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'%', [a, b, after @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => after,
            (byte, after) if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(byte) => after,
            _ => {
                let problem = format!("{value:?} has characters that no path has");
                return Some(Broken::new(format!("{field}.value"), problem, "write them as %XX"));
            }
        };
    }
    None
}

/// A name of an object (RFC 1123 subdomain).
pub(super) fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn is_token(name: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(tchar)
}

/// The word that differs from `wrong` by no more than two letters, the nearest first.
pub(super) fn nearest<'w>(wrong: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    const DISTANCE_MAX: usize = 2;
    const BYTES_MAX: usize = 64;
    if wrong.len() > BYTES_MAX {
        return None;
    }
    let near = words
        .into_iter()
        .map(|word| (distance(wrong.as_bytes(), word.as_bytes()), word));
    near.filter(|(distance, _)| *distance <= DISTANCE_MAX)
        .min()
        .map(|(_, word)| word)
}

/// How many letters have to be changed, added or removed (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = change.min(before + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let words = ["HTTPRoute", "GRPCRoute", "Gateway"];
        assert_eq!(nearest("HTTPRoutes", words), Some("HTTPRoute"));
        assert_eq!(nearest("HttpRoute", words), None);
        assert_eq!(nearest("Gatway", words), Some("Gateway"));
        assert_eq!(nearest("Deployment", words), None);
    }

    #[test]
    fn names_of_objects_are_subdomains() {
        for (name, good) in [
            ("a", true),
            ("a-b.c1", true),
            ("-a", false),
            ("a.", false),
            ("A", false),
            ("", false),
        ] {
            assert_eq!(is_subdomain(name), good, "{name:?}");
        }
        assert!(!is_subdomain(&"a".repeat(254)));
    }
}
