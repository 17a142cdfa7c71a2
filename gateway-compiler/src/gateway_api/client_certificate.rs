//! `spec.tls.backend.clientCertificateRef`: what a Gateway shows to endpoints that ask who it is.
//!
//! The same Service behind another Gateway is spoken to without it, or with another. So rules and services of such a
//! Gateway stand under names of their own, `<name>@<namespace>/<gateway>`, and nothing is shared: neither connections
//! nor sessions.

use super::Work;
use crate::objects::Subject;
use gateway_core::ir::{CertificateName, Destination, Filter, HttpRule, RuleName, Service, ServiceName};
use std::sync::Arc;

/// The rule with those of its services that speak TLS replaced by ones that show `certificate`; they are added to
/// `shown`.
pub(super) fn present(
    work: &mut Work<'_>,
    gateway: Subject<'_>,
    certificate: &CertificateName,
    rule: &HttpRule,
) -> HttpRule {
    let mut rule = rule.clone();
    let mut changed = false;
    let destinations = rule.destinations.iter_mut().map(|share| &mut share.to.to);
    // Who gets a mirror's copy or is asked is an endpoint like any other.
    let aside = rule.filters.iter_mut().filter_map(|filter| match filter {
        Filter::Mirror(mirror) => Some(&mut mirror.to),
        Filter::ExternalAuth(auth) => Some(&mut auth.to),
        Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Redirect(_)
        | Filter::Rewrite(_)
        | Filter::Cors(_) => None,
    });
    for destination in destinations.chain(aside) {
        if let Destination::Service(name) = destination {
            changed |= present_to(work, gateway, certificate, name);
        }
    }
    if changed {
        rule.name = rule_name(gateway, &rule.name);
    }
    rule
}

/// Puts the service that shows `certificate` in the place of `name`, if that speaks TLS; says whether it did.
pub(super) fn present_to(
    work: &mut Work<'_>,
    gateway: Subject<'_>,
    certificate: &CertificateName,
    name: &mut ServiceName,
) -> bool {
    let service = work.service(name);
    let Some((service, tls)) = service.and_then(|it| Some((it, it.tls.as_ref()?))) else {
        return false;
    };
    let mut tls = (**tls).clone();
    tls.certificate = Some(certificate.clone());
    let mine = Service {
        name: ServiceName::new(format!("{name}{}", by(gateway))),
        tls: Some(Arc::new(tls)),
        ..Service::clone(service)
    };
    *name = mine.name.clone();
    work.shown.insert(mine.name.clone(), Arc::new(mine));
    true
}

/// What a rule of `gateway` is called whose services show its certificate.
pub(super) fn rule_name(gateway: Subject<'_>, name: &RuleName) -> RuleName {
    RuleName::new(format!("{name}{}", by(gateway)))
}

fn by(gateway: Subject<'_>) -> String {
    format!("@{}/{}", gateway.id.namespace, gateway.id.name)
}
