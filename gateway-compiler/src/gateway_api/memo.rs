//! What one compilation leaves for the next, so that a change costs what changed.
//!
//! Law: it decides how much is worked out anew and nothing else; with any memo, or none, the result is the same. A route
//! is converted again when it was read anew, when a Service or Backend that it names was, and when a grant or a policy
//! changed. A service is looked up again when its object or one of its slices was read anew. Everything else is done
//! every time: what the number of routes does not multiply is cheap.

use super::endpoints::Manner;
use super::route::Converted;
use super::{Work, endpoints, external};
use crate::objects::kinds::ServicePort;
use crate::objects::{Key, Kind, Object, Objects, Reading};
use crate::{Diagnostic, Settings};
use gateway_core::ir::{BackendTls, ListenerName, Service, ServiceName, VirtualHost};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// The rest of one compilation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo {
    settings: Settings,
    grants: Vec<Reading>,
    policies: Vec<Answer>,
    /// Services and Backends.
    backends: Vec<Reading>,
    routes: HashMap<usize, Arc<Converted>, BuildHasherDefault<DefaultHasher>>,
    services: BTreeMap<ServiceName, Made>,
    pub(super) hosts: BTreeMap<ListenerName, Vec<Arc<VirtualHost>>>,
}

/// A target of policies, and how it is spoken to.
pub(super) type Answer = ((Key, Option<String>), Result<Arc<BackendTls>, String>);

/// Which of the objects that routes refer to are the same as before.
#[derive(Clone, Copy, Default)]
pub(super) struct Same {
    /// Whatever decides about references besides their targets.
    terms: bool,
    /// Every target.
    backends: bool,
}

/// What a route asked for while it was converted.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Targets of its references, as they were.
    looked: Vec<(Kind, Key, Option<Reading>)>,
    wants: Vec<Arc<Want>>,
    /// Services that it sends to.
    pub reached: BTreeSet<Key>,
}

/// A service that a rule sends to, by what it is made of.
#[derive(Debug)]
pub(super) enum Want {
    Service(Key, ServicePort, Manner, Option<Arc<BackendTls>>),
    /// An ExternalName Service: host and port.
    Outside(Key, String, u16, Option<Arc<BackendTls>>),
    Backend(Key),
}

/// A service that was made, with its twins.
#[derive(Clone, Debug)]
struct Made {
    tls: Option<Arc<BackendTls>>,
    /// The object and its slices.
    of: Vec<Reading>,
    services: Vec<Service>,
    found: Vec<Diagnostic>,
}

impl Memo {
    /// What the next compilation can compare itself with.
    pub(super) fn begin(objects: &Objects, settings: &Settings, policies: Vec<Answer>) -> Self {
        Self {
            settings: settings.clone(),
            grants: readings(objects.reference_grants.values()),
            policies,
            backends: [readings(objects.services.values()), readings(objects.backends.values())].concat(),
            ..Self::default()
        }
    }

    pub(super) fn compare(&self, now: &Memo) -> Same {
        let same = |a: &[Reading], b: &[Reading]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is(b));
        Same {
            terms: self.settings == now.settings && self.policies == now.policies && same(&self.grants, &now.grants),
            backends: same(&self.backends, &now.backends),
        }
    }

    pub(super) fn keep(&mut self, converted: &Arc<Converted>) {
        self.routes.insert(converted.reading.address(), Arc::clone(converted));
    }
}

fn readings<'o, T: 'o>(objects: impl Iterator<Item = &'o Object<T>>) -> Vec<Reading> {
    objects.map(|object| object.reading.clone()).collect()
}

/// What a route came to before, if it would come to the same now.
pub(super) fn known<T>(work: &Work<'_>, object: &Object<T>) -> Option<Arc<Converted>> {
    let known = work.before.routes.get(&object.reading.address())?;
    let unmoved =
        |(kind, key, reading): &(Kind, Key, Option<Reading>)| match (target(work.objects, *kind, key), reading) {
            (Some(now), Some(then)) => now.is(then),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
    let holds = work.same.terms && (work.same.backends || known.asked.looked.iter().all(unmoved));
    holds.then(|| Arc::clone(known))
}

fn target<'o>(objects: &'o Objects, kind: Kind, key: &Key) -> Option<&'o Reading> {
    match kind {
        Kind::Backend => objects.backends.get(key).map(|object| &object.reading),
        _ => objects.services.get(key).map(|object| &object.reading),
    }
}

/// Notes that the route which is converted looked for this object.
pub(super) fn looked(work: &mut Work<'_>, kind: Kind, key: &Key) {
    let reading = target(work.objects, kind, key).cloned();
    work.asked.looked.push((kind, key.clone(), reading));
}

/// Does again what a conversion did besides its result.
pub(super) fn replay(work: &mut Work<'_>, converted: &Converted) {
    work.found.extend(converted.found.iter().cloned());
    for want in &converted.asked.wants {
        supply(work, want);
    }
}

/// Has a service made, and says its name.
pub(super) fn want(work: &mut Work<'_>, want: Want) -> ServiceName {
    let want = Arc::new(want);
    let name = supply(work, &want);
    work.asked.wants.push(want);
    name
}

/// Makes a service unless it is there.
fn supply(work: &mut Work<'_>, want: &Want) -> ServiceName {
    let name = want.name();
    if work.services.contains_key(&name) {
        return name;
    }
    let of = want.made_of(work);
    let known = work.before.services.get(&name);
    let same = |made: &&Made| {
        let mut both = made.of.iter().zip(&of);
        // What stands outside of the cluster depends on its name's addresses too.
        let inside = matches!(want, Want::Service(_, _, _, tls) if *tls == made.tls);
        work.same.terms && inside && made.of.len() == of.len() && both.all(|(a, b)| a.is(b))
    };
    let made = match known.filter(same) {
        Some(made) => {
            let services = made
                .services
                .iter()
                .map(|service| (service.name.clone(), service.clone()));
            work.services.extend(services);
            made.clone()
        }
        None => {
            let before = work.found.len();
            want.make(work);
            let twins = [true, false].map(|ipv4| endpoints::of_family(&name, ipv4));
            let services = [&name, &twins[0], &twins[1]].into_iter();
            Made {
                tls: want.tls().cloned(),
                of,
                services: services.filter_map(|name| work.services.get(name).cloned()).collect(),
                found: work.found.split_off(before),
            }
        }
    };
    work.found_of_services.extend(made.found.iter().cloned());
    work.after.services.insert(name.clone(), made);
    name
}

impl Want {
    fn name(&self) -> ServiceName {
        match self {
            Want::Service(key, port, manner, _) => manner.of(endpoints::name(key, port)),
            Want::Outside(key, _, port, _) => external::name(key, *port),
            Want::Backend(key) => external::name_of_backend(key),
        }
    }

    fn tls(&self) -> Option<&Arc<BackendTls>> {
        match self {
            Want::Service(_, _, _, tls) | Want::Outside(_, _, _, tls) => tls.as_ref(),
            Want::Backend(_) => None,
        }
    }

    fn made_of(&self, work: &Work<'_>) -> Vec<Reading> {
        let (Want::Service(key, ..) | Want::Outside(key, ..) | Want::Backend(key)) = self;
        let object = match self {
            Want::Backend(_) => target(work.objects, Kind::Backend, key),
            Want::Service(..) | Want::Outside(..) => target(work.objects, Kind::Service, key),
        };
        let slices = work.slices.get(&(key.namespace.as_str(), key.name.as_str()));
        let slices = slices.into_iter().flatten().map(|slice| &slice.reading);
        object.into_iter().chain(slices).cloned().collect()
    }

    fn make(&self, work: &mut Work<'_>) {
        let objects = work.objects;
        match self {
            Want::Service(key, port, manner, tls) => {
                if let Some(object) = objects.services.get(key) {
                    endpoints::service(work, object, port, *manner, tls.clone());
                }
            }
            Want::Outside(key, host, port, tls) => {
                if let Some(object) = objects.services.get(key) {
                    external::service(work, object, host, *port, tls.clone());
                }
            }
            Want::Backend(key) => {
                if let Some(object) = objects.backends.get(key) {
                    external::backend(work, object);
                }
            }
        }
    }
}
