//! What routes and load balancers want made: services, each made once for all who want it, and kept while somebody does.
//!
//! Law: a service is what its object and its slices make of it now, however long ago somebody came to want it.

use super::endpoints::Manner;
use super::{Work, endpoints, external};
use crate::Diagnostic;
use crate::objects::kinds::ServicePort;
use crate::objects::{Key, Kind, Objects, Reading};
use gateway_core::ir::{BackendTls, Service, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is made, from one compilation to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    wanted: BTreeMap<ServiceName, Wanted>,
    /// Those that are wanted, with their twins.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
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

/// A service that is made.
#[derive(Clone, Debug)]
struct Wanted {
    want: Arc<Want>,
    /// How many wants of routes it answers.
    routes: usize,
    /// Something else wants it in this compilation.
    besides: bool,
    /// The object and its slices.
    of: Vec<Reading>,
    found: Vec<Diagnostic>,
}

/// Whether a route would come to the same now.
pub(super) fn holds(work: &Work<'_>, asked: &Asked) -> bool {
    let unmoved =
        |(kind, key, reading): &(Kind, Key, Option<Reading>)| match (target(work.objects, *kind, key), reading) {
            (Some(now), Some(then)) => now.is(then),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
    work.same.terms && (work.same.backends || asked.looked.iter().all(unmoved))
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

/// Has a service made for the route which is converted, and says its name.
pub(super) fn want(work: &mut Work<'_>, want: Want) -> ServiceName {
    let want = Arc::new(want);
    let name = want.name();
    supply(work, &name, &want).routes += 1;
    work.asked.wants.push(want);
    name
}

/// Has a service made for this compilation, and says its name.
pub(super) fn want_besides(work: &mut Work<'_>, want: Want) -> ServiceName {
    let name = want.name();
    supply(work, &name, &Arc::new(want)).besides = true;
    name
}

/// What asked for this is no route, and asks for it every time.
pub(super) fn besides(work: &mut Work<'_>, asked: &Asked) {
    for want in &asked.wants {
        if let Some(wanted) = work.memo.made.wanted.get_mut(&want.name()) {
            (wanted.routes, wanted.besides) = (wanted.routes - 1, true);
        }
    }
}

/// A route that asked for this does so no longer.
pub(super) fn release(work: &mut Work<'_>, asked: &Asked) {
    for want in &asked.wants {
        if let Some(wanted) = work.memo.made.wanted.get_mut(&want.name()) {
            wanted.routes -= 1;
        }
    }
}

/// Makes anew what was made of something else, for those routes that are as they were.
pub(super) fn refresh(work: &mut Work<'_>) {
    let mut wanted = std::mem::take(&mut work.memo.made.wanted);
    wanted.retain(|name, one| {
        one.besides = false;
        // What stands outside of the cluster depends on its name's addresses too.
        let inside = matches!(*one.want, Want::Service(..));
        let unmoved = || (work.same.backends && work.same.slices) || Reading::are(&one.of, &one.want.made_of(work));
        if work.same.terms && inside && unmoved() {
            return true;
        }
        let stays = one.routes > 0;
        match stays {
            true => (one.of, one.found) = make(work, name, &one.want),
            false => remove(work, name),
        }
        stays
    });
    work.memo.made.wanted = wanted;
}

/// Ends a compilation: what nobody wanted is forgotten, and what was found about the rest is told.
pub(super) fn end(work: &mut Work<'_>) {
    let mut wanted = std::mem::take(&mut work.memo.made.wanted);
    wanted.retain(|name, one| {
        let stays = one.routes > 0 || one.besides;
        match stays {
            true => work.found.extend(one.found.iter().cloned()),
            false => remove(work, name),
        }
        stays
    });
    work.memo.made.wanted = wanted;
}

/// Makes a service unless it is there. How it is spoken to is said by who comes first, and routes come first.
fn supply<'w>(work: &'w mut Work<'_>, name: &ServiceName, want: &Arc<Want>) -> &'w mut Wanted {
    let known = work.memo.made.wanted.get(name);
    if !known.is_some_and(|known| known.routes > 0 || known.besides || known.want.tls() == want.tls()) {
        let (of, found) = make(work, name, want);
        let wanted = Wanted {
            want: Arc::clone(want),
            routes: 0,
            besides: false,
            of,
            found,
        };
        work.memo.made.wanted.insert(name.clone(), wanted);
    }
    let there = work.memo.made.wanted.get_mut(name);
    there.expect("it was put there unless it was there")
}

/// The service itself, and one for each family.
fn with_twins(name: &ServiceName) -> [ServiceName; 3] {
    let twin = |ipv4| endpoints::of_family(name, ipv4);
    [name.clone(), twin(true), twin(false)]
}

fn remove(work: &mut Work<'_>, name: &ServiceName) {
    for name in with_twins(name) {
        work.memo.made.services.remove(&name);
    }
}

/// Makes a service; of what, and what was found. One that comes out as it was is the very same.
fn make(work: &mut Work<'_>, name: &ServiceName, want: &Want) -> (Vec<Reading>, Vec<Diagnostic>) {
    let names = with_twins(name);
    let before = names.clone().map(|name| work.memo.made.services.remove(&name));
    let found = work.found.len();
    want.make(work);
    for (name, before) in names.iter().zip(before) {
        if let (Some(now), Some(before)) = (work.memo.made.services.get_mut(name), before)
            && *now == before
        {
            *now = before;
        }
    }
    (want.made_of(work), work.found.split_off(found))
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
        let slices = work.slices().get(&(key.namespace.as_str(), key.name.as_str()));
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
