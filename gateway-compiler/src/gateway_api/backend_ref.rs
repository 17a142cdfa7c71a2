//! backendRefs to destinations. What cannot be resolved becomes [`Destination::Fail`] for its share of the traffic.

use super::endpoints::Manner;
use super::wanted::{self, Want};
use super::{Work, external, reference_grant};
use crate::diagnostic::Severity;
use crate::objects::kinds::BackendRef;
use crate::objects::{Key, Kind, Subject};
use crate::plane::{self, Wish};
use crate::status::reason;
use gateway_core::ir::{Destination, UpstreamProtocol};
use std::borrow::Cow;

/// Status of a request whose backend is missing (Gateway API, HTTPRouteRule.backendRefs).
pub(super) const FAIL_STATUS: u16 = 500;
/// Largest weight (Gateway API, BackendRef.weight).
const WEIGHT_MAX: u32 = 1_000_000;

/// Why a reference did not resolve, for the condition ResolvedRefs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub reason: &'static str,
    pub message: String,
}

/// What a backendRef is worth.
pub(super) struct Backend {
    pub to: Destination,
    /// Instead of `to` where the client's own TLS passes through: no policy has a say there.
    pub untouched: Destination,
    /// `None`: the Service does not say.
    pub protocol: Option<UpstreamProtocol>,
    pub weight: u32,
    /// What the Service asks of the listener's plane.
    pub wish: Option<Wish>,
    pub unresolved: Option<Unresolved>,
}

/// Why a reference cannot be used, and where in it.
struct BadRef {
    reason: &'static str,
    part: &'static str,
    problem: String,
    remedy: Cow<'static, str>,
}

/// Resolves the backendRef that stands at `field` of `route`.
pub(super) fn resolve<'o>(work: &mut Work<'o>, route: Subject<'o>, field: &str, backend: &BackendRef) -> Backend {
    let mut weight = backend.weight.unwrap_or(1);
    if weight > WEIGHT_MAX {
        let problem = format!("the weight {weight} is larger than {WEIGHT_MAX}, which is taken");
        work.found.push(route.finding(
            Severity::Error,
            format!("{field}.weight"),
            problem,
            "write a smaller one",
        ));
        weight = WEIGHT_MAX;
    }
    match service(work, route, field, backend) {
        Ok((to, untouched, protocol, wish)) => Backend {
            to,
            untouched,
            protocol,
            weight,
            wish,
            unresolved: None,
        },
        Err(bad) => {
            let field = format!("{field}{}", bad.part);
            work.found
                .push(route.finding(Severity::Error, field, bad.problem.as_str(), bad.remedy));
            let to = fail(bad.problem.clone());
            Backend {
                untouched: to.clone(),
                to,
                protocol: None,
                weight,
                wish: None,
                unresolved: Some(Unresolved {
                    reason: bad.reason,
                    message: bad.problem,
                }),
            }
        }
    }
}

type Found = (Destination, Destination, Option<UpstreamProtocol>, Option<Wish>);

fn service<'o>(work: &mut Work<'o>, route: Subject<'o>, field: &str, backend: &BackendRef) -> Result<Found, BadRef> {
    let bad = |reason, part, problem, remedy: &'static str| BadRef {
        reason,
        part,
        problem,
        remedy: Cow::Borrowed(remedy),
    };
    let (group, kind) = (
        backend.group.as_deref().unwrap_or(""),
        backend.kind.as_deref().unwrap_or("Service"),
    );
    let referred = match (group, kind) {
        ("", "Service") => Kind::Service,
        ("gateway.envoyproxy.io", "Backend") => Kind::Backend,
        _ => {
            let problem = format!("a {kind} of group {group:?} is no backend served here");
            return Err(bad(reason::INVALID_KIND, ".kind", problem, "name a Service"));
        }
    };
    let namespace = backend.namespace.as_deref().unwrap_or(&route.id.namespace);
    let from = (route.id.kind, route.id.namespace.as_str());
    if !reference_grant::allows(work.objects, from, (referred, namespace, &backend.name)) {
        let problem = format!(
            "no ReferenceGrant in namespace {namespace} lets this {} use it",
            route.id.kind
        );
        return Err(BadRef {
            reason: reason::REF_NOT_PERMITTED,
            part: ".namespace",
            problem,
            remedy: reference_grant::missing(from, (referred, namespace, &backend.name)),
        });
    }
    let key = Key::new(namespace, &backend.name);
    wanted::looked(work, referred, &key);
    let objects = work.objects;
    if referred == Kind::Backend {
        let Some(object) = objects.backends.get(&key) else {
            let problem = format!("there is no Backend {key}");
            let remedy = "add it or correct the name";
            return Err(bad(reason::BACKEND_NOT_FOUND, ".name", problem, remedy));
        };
        let wish = plane::wish(object.subject(), &mut work.found);
        let protocol = external::protocol(&object.body.spec.app_protocols);
        let to = Destination::Service(wanted::want(work, Want::Backend(key)));
        return Ok((to.clone(), to, protocol, wish));
    }
    let Some(object) = objects.services.get(&key) else {
        let problem = format!("there is no Service {key}");
        return Err(bad(
            reason::BACKEND_NOT_FOUND,
            ".name",
            problem,
            "add it or correct the name",
        ));
    };
    let ports = &object.body.spec.ports;
    let Some(number) = backend.port else {
        let problem = "a backendRef to a Service needs a port".to_owned();
        return Err(bad(
            reason::BACKEND_NOT_FOUND,
            "",
            problem,
            "add the Service's port number",
        ));
    };
    let carries = match route.id.kind {
        Kind::UdpRoute => "UDP",
        _ => "TCP",
    };
    let fits = |protocol: &Option<String>| protocol.as_deref().unwrap_or("TCP") == carries;
    // A name outside of the cluster has whatever ports it has.
    let outside = object
        .body
        .spec
        .outside()
        .map(|host| (host, external::port(&object.body.spec, number)));
    let listed = ports.iter().find(|port| port.port == number && fits(&port.protocol));
    let Some(port) = outside.as_ref().map(|(_, port)| port).or(listed) else {
        let problem = format!("Service {key} has no {carries} port {number}");
        return Err(bad(
            reason::BACKEND_NOT_FOUND,
            ".port",
            problem,
            "name a port of the Service",
        ));
    };
    work.asked.reached.insert(key.clone());
    let found = |work: &mut Work<'o>, tls| {
        let want = match &outside {
            Some((host, _)) => Want::Outside(key.clone(), (*host).to_owned(), number, tls),
            None => Want::Service(key.clone(), port.clone(), Manner::default(), tls),
        };
        Destination::Service(wanted::want(work, want))
    };
    let tls = match work.policies.of(&key, &port.name) {
        // Datagrams are in no TLS session.
        _ if route.id.kind == Kind::UdpRoute => None,
        None => None,
        Some(Ok(tls)) => Some(tls.clone()),
        Some(Err(why)) => {
            let untouched = if route.id.kind == Kind::TlsRoute {
                found(work, None)
            } else {
                fail(why.clone())
            };
            return Ok((fail(why), untouched, None, None));
        }
    };
    let protocol = protocol(port.app_protocol.as_deref(), route.id.kind, tls.is_some()).map_err(|asked| {
        let problem = format!("Service {key} speaks {asked} on port {number}, and nothing says whom to believe there");
        bad(
            reason::UNSUPPORTED_PROTOCOL,
            ".port",
            problem,
            "add a BackendTLSPolicy for it, or name a port that speaks HTTP/1.1 or h2c",
        )
    })?;
    if matches!(route.id.kind, Kind::GrpcRoute) && protocol == Some(UpstreamProtocol::Http1) {
        let problem = "gRPC needs HTTP/2: h2c is spoken to this backend, whatever its appProtocol";
        work.found.push(route.finding(
            Severity::Warning,
            format!("{field}.port"),
            problem,
            "set appProtocol: kubernetes.io/h2c",
        ));
    }
    let wish = plane::wish(object.subject(), &mut work.found);
    let to = found(work, tls);
    Ok((to.clone(), to, protocol, wish))
}

fn fail(why: String) -> Destination {
    Destination::Fail {
        status: FAIL_STATUS,
        why,
    }
}

/// `appProtocol` (KEP-3726, and the plain words in use) to what we speak; `Err` names what we do not. Over TLS the
/// same words decide, and ALPN offers what they say.
fn protocol(app_protocol: Option<&str>, route: Kind, tls: bool) -> Result<Option<UpstreamProtocol>, String> {
    let stream = matches!(route, Kind::TcpRoute | Kind::TlsRoute | Kind::UdpRoute);
    match app_protocol {
        None => Ok(None),
        Some("kubernetes.io/h2c" | "h2c" | "grpc" | "http2") => Ok(Some(UpstreamProtocol::H2c)),
        Some("kubernetes.io/ws" | "http") => Ok(Some(UpstreamProtocol::Http1)),
        Some("kubernetes.io/wss" | "https" | "tls") if tls => Ok(None),
        Some(asked @ ("kubernetes.io/wss" | "https" | "tls")) if !stream => Err(asked.to_owned()),
        // Other words mean nothing to a gateway: what the route asks is spoken.
        Some(_) => Ok(None),
    }
}
