//! ListenerSets: more listeners for a Gateway, written by others than its owner.
//!
//! A Gateway says whose sets it takes; nobody's when it says nothing. Its own listeners come first, then those of its
//! sets, the oldest first: who comes later gives way.

use super::Work;
use super::condition::Problem;
use super::gateway::{Gateway, LISTENERS_MAX, ListenerSet, listeners};
use super::selector::selects;
use crate::diagnostic::Severity;
use crate::objects::kinds::{self, RouteNamespaces};
use crate::objects::{Key, Kind, Object, Objects, Subject};
use crate::status::reason;

/// Most listeners of a Gateway and its sets together.
const MERGED_MAX: usize = 1024;

/// Adds the listeners of every set to the Gateway it names.
pub(super) fn merge<'o>(work: &mut Work<'o>, gateways: &mut [Gateway<'o>]) {
    let mut sets: Vec<&'o Object<kinds::ListenerSet>> = work.objects.listener_sets.values().collect();
    sets.sort_by(|a, b| a.subject().age().cmp(&b.subject().age()));
    for set in sets {
        let Some(gateway) = parent(work, gateways, set) else {
            continue;
        };
        let subject = set.subject();
        let allowed = &gateway.body.spec.allowed_listeners.namespaces;
        if !allows(work.objects, allowed, gateway.subject, subject) {
            let message = format!("{} takes no ListenerSets of this namespace", gateway.subject.id);
            let remedy = "see spec.allowedListeners of the Gateway";
            work.found
                .push(subject.finding(Severity::Error, "spec.parentRef", message.as_str(), remedy));
            let refused = Some(Problem {
                reason: reason::NOT_ALLOWED,
                message,
            });
            gateway.sets.push(ListenerSet { subject, refused });
            continue;
        }
        gateway.sets.push(ListenerSet { subject, refused: None });
        let rank = gateway.sets.len();
        let mut more = listeners(
            work,
            gateway.subject,
            gateway.body,
            (subject, rank),
            &set.body.spec.listeners,
        );
        let room = MERGED_MAX.saturating_sub(gateway.listeners.len());
        for listener in more.iter_mut().skip(room) {
            let message = format!("the Gateway has {MERGED_MAX} listeners already, {LISTENERS_MAX} a set at most");
            let remedy = "attach the set to another Gateway";
            let finding = subject.finding(Severity::Error, listener.field.as_str(), message.as_str(), remedy);
            work.found.push(finding);
            listener.refused.get_or_insert(Problem {
                reason: reason::TOO_MANY_LISTENERS,
                message,
            });
        }
        gateway.listeners.extend(more);
    }
}

/// The Gateway of ours that a set names.
fn parent<'g, 'o>(
    work: &mut Work<'o>,
    gateways: &'g mut [Gateway<'o>],
    set: &Object<kinds::ListenerSet>,
) -> Option<&'g mut Gateway<'o>> {
    let to = &set.body.spec.parent_ref;
    let (group, kind) = (
        to.group.as_deref().unwrap_or(Kind::Gateway.group()),
        to.kind.as_deref().unwrap_or(Kind::Gateway.name()),
    );
    if (group, kind) != (Kind::Gateway.group(), Kind::Gateway.name()) {
        let problem = format!("a parent of kind {kind} has no listeners to add to");
        let finding = set
            .subject()
            .finding(Severity::Error, "spec.parentRef.kind", problem, "name a Gateway");
        work.found.push(finding);
        return None;
    }
    let namespace = to.namespace.as_deref().unwrap_or(&set.id.namespace);
    let ours = gateways.iter_mut().find(|gateway| {
        let id = gateway.subject.id;
        (id.namespace.as_str(), id.name.as_str()) == (namespace, to.name.as_str())
    });
    if ours.is_none() && !work.objects.gateways.contains_key(&Key::new(namespace, &to.name)) {
        let problem = format!("there is no Gateway {namespace}/{}: the set serves nothing", to.name);
        let remedy = "add it or correct the name";
        let finding = set
            .subject()
            .finding(Severity::Error, "spec.parentRef.name", problem, remedy);
        work.found.push(finding);
    }
    ours
}

fn allows(objects: &Objects, allowed: &RouteNamespaces, gateway: Subject<'_>, set: Subject<'_>) -> bool {
    match (allowed.from.as_deref().unwrap_or("None"), &allowed.selector) {
        ("All", _) => true,
        ("Same", _) => gateway.id.namespace == set.id.namespace,
        ("Selector", Some(selector)) => selects(objects, selector, &set.id.namespace),
        _ => false,
    }
}
