//! BackendTLSPolicies: how the endpoints of Services are spoken to over TLS.
//!
//! A policy that cannot be used fails what it targets; nothing falls back to plain text. Of several policies for one
//! target the oldest counts, then the first by name; one for a port goes before one for the whole Service.

use super::authority::{self, REFS_MAX, Reasons};
use super::condition::condition;
use super::gateway::Gateway;
use super::memo::Answer;
use super::tables::Table;
use super::{Work, hostname};
use crate::diagnostic::Severity;
use crate::objects::kinds::{BackendTlsPolicy, SubjectAltName};
use crate::objects::{Key, Kind, Object, Subject};
use crate::status::{ConditionKind, ObjectStatus, ParentName, ParentStatus, Status, reason};
use gateway_core::ir::{Authorities, BackendTls, SubjectName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most targets and names of one policy (Gateway API).
const TARGETS_MAX: usize = 16;
const NAMES_MAX: usize = 5;

/// Why a condition does not hold.
type Told = (&'static str, String);

/// All policies, and whose which target is.
#[derive(Default)]
pub(super) struct Policies<'o> {
    policies: Vec<Policy<'o>>,
    /// By Service and, when one was named, the name of its port.
    targets: BTreeMap<(Key, Option<String>), usize>,
}

struct Policy<'o> {
    subject: Subject<'o>,
    services: BTreeSet<Key>,
    tls: Result<Arc<BackendTls>, String>,
    unaccepted: Option<Told>,
    unresolved: Option<Told>,
}

impl Policies<'_> {
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// How each target is spoken to.
    pub fn answers(&self) -> Vec<Answer> {
        let answer =
            |(target, index): (&(Key, Option<String>), &usize)| (target.clone(), self.policies[*index].tls.clone());
        self.targets.iter().map(answer).collect()
    }

    /// How the endpoints behind a port are spoken to. `None`: as the Service says; `Err`: not at all, and why.
    pub fn of(&self, service: &Key, port: &str) -> Option<Result<&Arc<BackendTls>, String>> {
        let of_port = self.targets.get(&(service.clone(), Some(port.to_owned())));
        let index = of_port.or_else(|| self.targets.get(&(service.clone(), None)))?;
        let policy = &self.policies[*index];
        let name = policy.subject.id;
        Some(
            policy
                .tls
                .as_ref()
                .map_err(|why| format!("{name} cannot be used: {why}")),
        )
    }
}

/// Reads all policies.
pub(super) fn policies<'o>(work: &mut Work<'o>) -> Policies<'o> {
    let mut objects: Vec<&'o Object<BackendTlsPolicy>> = work.objects.backend_tls_policies.values().collect();
    objects.sort_by(|a, b| a.subject().age().cmp(&b.subject().age()));
    let mut all = Policies::default();
    for object in objects {
        let index = all.policies.len();
        let mut policy = one(work, object);
        for (at, target) in object.body.spec.target_refs.iter().enumerate().take(TARGETS_MAX) {
            let field = format!("spec.targetRefs[{at}]");
            if (target.group.as_str(), target.kind.as_str()) != ("", "Service") {
                let problem = format!(
                    "a {} of group {:?} is nothing a policy is served for",
                    target.kind, target.group
                );
                let finding = policy.subject.finding(
                    Severity::Error,
                    format!("{field}.kind"),
                    problem.as_str(),
                    "name a Service",
                );
                work.found.push(finding);
                policy.unaccepted.get_or_insert((reason::INVALID, problem));
                continue;
            }
            let service = Key::new(&object.id.namespace, &target.name);
            if !work.objects.services.contains_key(&service) {
                let problem = format!("there is no Service {service}");
                let finding = policy.subject.finding(
                    Severity::Warning,
                    format!("{field}.name"),
                    problem,
                    "add it or correct the name",
                );
                work.found.push(finding);
            }
            policy.services.insert(service.clone());
            let section = target.section_name.clone().filter(|name| !name.is_empty());
            match all.targets.get(&(service.clone(), section.clone())) {
                None => _ = all.targets.insert((service, section), index),
                Some(first) if *first == index => {}
                Some(first) => {
                    let problem = format!("{} targets it already", all.policies[*first].subject.id);
                    let remedy = "remove one of the two, or name different ports";
                    work.found
                        .push(policy.subject.finding(Severity::Error, field, problem.as_str(), remedy));
                    policy.unaccepted = Some((reason::CONFLICTED, problem));
                }
            }
        }
        all.policies.push(policy);
    }
    all
}

fn one<'o>(work: &mut Work<'o>, object: &'o Object<BackendTlsPolicy>) -> Policy<'o> {
    let mut policy = Policy {
        subject: object.subject(),
        services: BTreeSet::new(),
        tls: Err(String::new()),
        unaccepted: None,
        unresolved: None,
    };
    let validation = &object.body.spec.validation;
    let mut wrong = |work: &mut Work<'o>, field: String, problem: String, remedy: &str| {
        let finding = policy.subject.finding(Severity::Error, field, problem.as_str(), remedy);
        work.found.push(finding);
        policy.unaccepted.get_or_insert((reason::INVALID, problem));
    };
    if let Err(problem) = hostname::precise(&validation.hostname) {
        let field = "spec.validation.hostname".to_owned();
        wrong(
            work,
            field,
            problem,
            "write the name the endpoint has a certificate for",
        );
    }
    let well_known = validation.well_known.as_deref().filter(|name| !name.is_empty());
    match (well_known, validation.authority_refs.is_empty()) {
        (Some("System"), true) | (None, false) => {}
        (Some("System"), false) => wrong(
            work,
            "spec.validation".to_owned(),
            "both caCertificateRefs and wellKnownCACertificates are given".to_owned(),
            "remove one of them",
        ),
        (Some(other), _) => wrong(
            work,
            "spec.validation.wellKnownCACertificates".to_owned(),
            format!("{other:?} are no authorities known here"),
            "write System",
        ),
        (None, true) => wrong(
            work,
            "spec.validation".to_owned(),
            "nothing says whose certificates are believed".to_owned(),
            "add caCertificateRefs, or wellKnownCACertificates: System",
        ),
    }
    let mut subjects = Vec::new();
    for (index, name) in validation.subject_alt_names.iter().enumerate().take(NAMES_MAX) {
        match subject_name(name) {
            Ok(name) => subjects.push(name),
            Err(problem) => {
                let field = format!("spec.validation.subjectAltNames[{index}]");
                wrong(
                    work,
                    field,
                    problem,
                    "write type Hostname with hostname, or type URI with uri",
                );
            }
        }
    }
    if subjects.is_empty() {
        // With names of its own the hostname is for the handshake alone (Gateway API, BackendTLSPolicyValidation).
        subjects.push(SubjectName::Dns(validation.hostname.clone()));
    }
    for key in object.body.spec.options.keys() {
        let (field, problem) = (
            format!("spec.options[{key}]"),
            "nothing here reads this option: it has no effect",
        );
        let finding = object.subject().finding(Severity::Warning, field, problem, "remove it");
        work.found.push(finding);
    }
    let authorities = match well_known {
        Some(_) => Authorities::System,
        None => Authorities::These(these(work, &mut policy, object)),
    };
    policy.tls = match &policy.unaccepted {
        Some((_, why)) => Err(why.clone()),
        None => Ok(Arc::new(BackendTls {
            server_name: validation.hostname.clone(),
            authorities,
            subjects,
            certificate: None,
        })),
    };
    policy
}

/// The certificates of all references that resolve.
fn these<'o>(work: &mut Work<'o>, policy: &mut Policy<'o>, object: &'o Object<BackendTlsPolicy>) -> Vec<Vec<u8>> {
    let mut certificates = Vec::new();
    let refs = &object.body.spec.validation.authority_refs;
    for (index, to) in refs.iter().enumerate().take(REFS_MAX) {
        let reasons = Reasons {
            kind: reason::INVALID_KIND,
        };
        match authority::resolve(work, policy.subject, to, reasons) {
            Ok(found) => certificates.extend(found),
            Err(bad) => {
                let field = format!("spec.validation.caCertificateRefs[{index}]");
                let finding = policy
                    .subject
                    .finding(Severity::Error, field, bad.problem.as_str(), bad.remedy);
                work.found.push(finding);
                policy.unresolved.get_or_insert((bad.reason, bad.problem));
            }
        }
    }
    certificates.sort_unstable();
    certificates.dedup();
    if let (true, Some((_, why))) = (certificates.is_empty(), &policy.unresolved) {
        policy
            .unaccepted
            .get_or_insert((reason::NO_VALID_CA_CERTIFICATE, why.clone()));
    }
    certificates
}

fn subject_name(name: &SubjectAltName) -> Result<SubjectName, String> {
    match (name.kind.as_str(), name.hostname.as_deref(), name.uri.as_deref()) {
        ("Hostname", Some(name), None | Some("")) => {
            hostname::precise(name.strip_prefix("*.").unwrap_or(name))
                .map_err(|problem| format!("{name:?} is no hostname: {problem}"))?;
            Ok(SubjectName::Dns(name.to_owned()))
        }
        ("URI", None | Some(""), Some(uri)) => match uri.split_once(':') {
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(SubjectName::Uri(uri.to_owned())),
            _ => Err(format!("{uri:?} is no absolute URI")),
        },
        ("Hostname" | "URI", _, _) => Err(format!(
            "the name of type {} is missing, or has another one beside it",
            name.kind
        )),
        (kind, _, _) => Err(format!("{kind:?} is no type of names known here")),
    }
}

/// What each policy is told, for every Gateway that sends traffic to its targets.
pub(super) fn statuses(work: &Work<'_>, gateways: &[Gateway<'_>]) -> Vec<ObjectStatus> {
    let policies = &work.policies;
    if policies.is_empty() {
        return Vec::new();
    }
    let mut by_gateway: Vec<(ParentName, BTreeSet<&Key>)> = Vec::new();
    for (gateway, tables) in gateways.iter().zip(&work.memo.tables) {
        let routed = tables.iter().flat_map(Table::reached);
        let asked = gateway.listeners.iter().flat_map(|listener| &listener.guards.reached);
        let reached = routed.chain(asked).collect();
        let id = gateway.subject.id;
        let name = ParentName {
            kind: Kind::Gateway,
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            section: None,
            port: None,
        };
        by_gateway.push((name, reached));
    }
    by_gateway.sort_by(|a, b| a.0.cmp(&b.0));
    let mut statuses = Vec::new();
    for policy in &policies.policies {
        let generation = policy.subject.meta.generation;
        let holds = |told: &Option<Told>, good: &'static str| match told {
            Some((reason, message)) => (false, *reason, message.clone()),
            None => (true, good, String::new()),
        };
        let conditions = vec![
            condition(
                ConditionKind::Accepted,
                holds(&policy.unaccepted, reason::ACCEPTED),
                generation,
            ),
            condition(
                ConditionKind::ResolvedRefs,
                holds(&policy.unresolved, reason::RESOLVED_REFS),
                generation,
            ),
        ];
        let ancestors: Vec<ParentStatus> = by_gateway
            .iter()
            .filter(|(_, reached)| policy.services.iter().any(|service| reached.contains(service)))
            .map(|(parent, _)| ParentStatus {
                parent: parent.clone(),
                conditions: conditions.clone(),
            })
            .collect();
        if !ancestors.is_empty() {
            statuses.push(ObjectStatus {
                object: policy.subject.id.clone(),
                status: Status::Policy { ancestors },
            });
        }
    }
    statuses
}
