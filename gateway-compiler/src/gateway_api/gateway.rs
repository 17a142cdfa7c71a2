//! Gateways: which are ours, and what each of them is before any route is attached.

use super::address::{self, Field, Placed, Wanting};
use super::class::Classes;
use super::condition::Problem;
use super::listener::{self, Listener};
use super::parameters::{self, Parameters};
use super::{Work, certificate, frontend_tls, routability};
use crate::diagnostic::Severity;
use crate::objects::{Object, Subject, kinds};
use crate::plane;
use crate::status::reason;
use gateway_core::ir::CertificateName;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most listeners of one Gateway or ListenerSet (Gateway API).
pub(super) const LISTENERS_MAX: usize = 64;

/// A Gateway of ours.
pub(super) struct Gateway<'o> {
    pub subject: Subject<'o>,
    pub body: &'o kinds::Gateway,
    /// Where it is reached; `None` is every address of the host. Empty: nowhere.
    pub addresses: Vec<Option<IpAddr>>,
    /// Why it cannot be accepted, whatever its listeners are.
    pub refused: Option<Problem>,
    /// Of its addresses, those that are more than an address of a pool.
    pub routability: BTreeMap<IpAddr, &'static str>,
    /// Why it cannot be programmed.
    pub unplaced: Option<Problem>,
    /// What it has not of the addresses it asked for; `None`: nobody looked for any.
    pub unassigned: Option<Vec<String>>,
    /// Its own, then those of its sets, in order of precedence.
    pub listeners: Vec<Listener<'o>>,
    /// Those that name it, oldest first.
    pub sets: Vec<ListenerSet<'o>>,
    /// What endpoints that ask are shown; `Err`: why it cannot be had. `None`: nothing was asked for.
    pub certificate: Option<Result<CertificateName, Problem>>,
    /// Clients are let in whose certificates do not hold.
    pub insecure: bool,
}

/// A ListenerSet whose parent is a Gateway of ours.
pub(super) struct ListenerSet<'o> {
    pub subject: Subject<'o>,
    /// Why its listeners are none of the Gateway's.
    pub refused: Option<Problem>,
}

/// Our Gateways with their listeners, oldest first. Addresses are given to them and to `others` together: what those got
/// comes back in their order.
pub(super) fn gateways<'o>(
    work: &mut Work<'o>,
    classes: &Classes<'_>,
    others: Vec<Wanting<'o>>,
) -> (Vec<Gateway<'o>>, Vec<Placed>) {
    let objects = work.objects;
    let mut ours: Vec<(&'o Object<kinds::Gateway>, Option<Problem>)> = Vec::new();
    let mut wanting = Vec::new();
    for gateway in objects.gateways.values() {
        let class = gateway.body.spec.gateway_class_name.as_str();
        if let Some(defaults) = classes.get(class) {
            let (pools, refused) = match of_class(work, gateway, class, defaults) {
                Ok(parameters) => (parameters.pools.unwrap_or(work.settings.address_pools.clone()), None),
                Err(problem) => (Vec::new(), Some(problem)),
            };
            let asks = &gateway.body.spec.addresses;
            let standing = routability::standing(&gateway.id, class, asks);
            wanting.push(Wanting {
                field: Field::Addresses,
                cluster: routability::had(objects, &gateway.id, &standing),
                subject: gateway.subject(),
                asks: Cow::Borrowed(asks),
                has: Cow::Borrowed(&gateway.body.status.addresses),
                pools,
            });
            ours.push((gateway, refused));
        } else if !objects.gateway_classes.values().any(|known| known.id.name == class) {
            let problem = format!("there is no GatewayClass {class}: the Gateway is not served");
            let remedy = format!("write gatewayClassName: {}", work.settings.class);
            work.found.push(
                gateway
                    .subject()
                    .finding(Severity::Warning, "spec.gatewayClassName", problem, remedy),
            );
        }
    }
    wanting.extend(others);
    let mut placed = address::place(work, &wanting);
    let of_others = placed.split_off(ours.len());
    let mut gateways: Vec<Gateway<'o>> = std::iter::zip(ours, placed)
        .map(|((gateway, refused), placed)| read(work, gateway, refused, placed))
        .collect();
    gateways.sort_by(|a, b| a.subject.age().cmp(&b.subject.age()));
    (gateways, of_others)
}

/// The parameters of a Gateway: its own before those of its class.
fn of_class(
    work: &mut Work<'_>,
    gateway: &Object<kinds::Gateway>,
    class: &str,
    defaults: &Result<Parameters, String>,
) -> Result<Parameters, Problem> {
    let refused = |message: String| Problem {
        reason: reason::INVALID_PARAMETERS,
        message,
    };
    let to = gateway.body.spec.infrastructure.as_ref();
    let own = match to.and_then(|it| it.parameters_ref.as_ref()) {
        Some(to) => {
            let (field, namespace) = ("spec.infrastructure.parametersRef", Some(gateway.id.namespace.as_str()));
            parameters::read(work, gateway.subject(), field, to, namespace).map_err(refused)?
        }
        None => Parameters::default(),
    };
    let defaults = defaults
        .as_ref()
        .map_err(|why| refused(format!("GatewayClass {class} is not accepted: {why}")))?;
    Ok(Parameters {
        pools: own.pools.or_else(|| defaults.pools.clone()),
    })
}

fn read<'o>(
    work: &mut Work<'o>,
    object: &'o Object<kinds::Gateway>,
    refused: Option<Problem>,
    placed: Placed,
) -> Gateway<'o> {
    let subject = object.subject();
    let listeners = listeners(work, subject, &object.body, (subject, 0), &object.body.spec.listeners);
    let looked = refused.is_none();
    // Without its parameters nobody knows where it should be; an address of another type takes nothing from the others.
    let addresses = if refused.is_some() {
        Vec::new()
    } else {
        placed.addresses
    };
    Gateway {
        subject,
        body: &object.body,
        addresses,
        refused: refused.or(placed.unsupported),
        unplaced: placed.unplaced,
        unassigned: looked.then_some(placed.unassigned),
        routability: placed.routability,
        listeners,
        sets: Vec::new(),
        certificate: client_certificate(work, subject, &object.body),
        insecure: frontend_tls::is_insecure(&object.body),
    }
}

/// Reads the listeners that `by`, the Gateway itself (rank 0) or its set of that rank, has in `specs`.
pub(super) fn listeners<'o>(
    work: &mut Work<'o>,
    gateway: Subject<'o>,
    body: &'o kinds::Gateway,
    (by, rank): (Subject<'o>, usize),
    specs: &'o [kinds::Listener],
) -> Vec<Listener<'o>> {
    let kind = by.id.kind;
    if specs.len() > LISTENERS_MAX {
        let problem = format!("more than {LISTENERS_MAX} listeners: the rest is left out");
        let remedy = format!("split the {kind}");
        work.found
            .push(by.finding(Severity::Error, "spec.listeners", problem, remedy));
    }
    if specs.is_empty() {
        let problem = format!("the {kind} has no listener: it serves nothing");
        work.found
            .push(by.finding(Severity::Error, "spec.listeners", problem, "add a listener"));
    }
    let mut wishes: Vec<_> = plane::wish(by, &mut work.found).into_iter().collect();
    if rank > 0 {
        // Whatever is wrong with the Gateway's own annotation was said already.
        wishes.extend(plane::wish(gateway, &mut Vec::new()));
    }
    let mut listeners: Vec<Listener<'o>> = Vec::new();
    for (index, spec) in specs.iter().enumerate().take(LISTENERS_MAX) {
        if listeners.iter().any(|listener| listener.section == spec.name) {
            let field = format!("spec.listeners[{index}].name");
            let problem = format!("there is a listener {:?} already: this one is left out", spec.name);
            work.found
                .push(by.finding(Severity::Error, field, problem, "give it another name"));
            continue;
        }
        let mut listener = listener::read(work, gateway, body, (by, rank), (index, spec));
        listener.wishes.extend(wishes.iter().cloned());
        listeners.push(listener);
    }
    listeners
}

/// What this Gateway shows to endpoints that ask who it is.
fn client_certificate(
    work: &mut Work<'_>,
    subject: Subject<'_>,
    body: &kinds::Gateway,
) -> Option<Result<CertificateName, Problem>> {
    let to = body
        .spec
        .tls
        .as_ref()?
        .backend
        .as_ref()?
        .client_certificate_ref
        .as_ref()?;
    Some(certificate::resolve(work, subject, to).map_err(|bad| {
        let reason = match bad.reason {
            reason::REF_NOT_PERMITTED => reason::REF_NOT_PERMITTED,
            _ => reason::INVALID_CLIENT_CERTIFICATE_REF,
        };
        let field = "spec.tls.backend.clientCertificateRef";
        work.found
            .push(subject.finding(Severity::Error, field, bad.problem.as_str(), bad.remedy));
        Problem {
            reason,
            message: bad.problem,
        }
    }))
}
