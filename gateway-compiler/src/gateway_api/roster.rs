//! The routes there are, from one compilation to the next: who is new, who is gone, and what each is told.
//!
//! Law: after [`compare`] and [`settle`] every route is attached as if all had come at once, oldest first.

use super::attach::attach;
use super::gateway::Gateway;
use super::rank::Rank;
use super::route::{self, Converted, Ready, Route};
use super::tables::{Join, Table};
use super::{Work, grpc_route, http_route, stream_route, wanted};
use crate::diagnostic::Diagnostic;
use crate::objects::kinds::ParentRef;
use crate::objects::{Kind, Object, ObjectId, Reading, Subject, Table as Objected};
use crate::status::ObjectStatus;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A route as it stands.
#[derive(Clone, Debug)]
pub(super) struct Known {
    reading: Reading,
    rank: Arc<Rank>,
    converted: Arc<Converted>,
    joins: Vec<Join>,
    status: Option<Arc<ObjectStatus>>,
    /// While it was converted and attached.
    found: Vec<Diagnostic>,
}

/// The routes of each kind, in order of their names. `None` is a place for one that is [`New`].
pub(super) type Places = BTreeMap<Kind, Vec<Option<Known>>>;

/// A route that is not known as it is.
pub(super) struct New<'o> {
    place: usize,
    subject: Subject<'o>,
    parents: &'o [ParentRef],
    reading: Reading,
    /// Only what it is attached to may be another.
    converted: Option<Arc<Converted>>,
    convert: Box<dyn FnOnce(&mut Work<'o>) -> Route + 'o>,
}

/// Finds out who is new, and lets go of who is not as before: what they asked for, and their places at listeners.
pub(super) fn compare<'o>(work: &mut Work<'o>) -> Vec<New<'o>> {
    let (objects, mut new) = (work.objects, Vec::new());
    let mut compare = Compare { work, new: &mut new };
    compare.kind(
        Kind::HttpRoute,
        &objects.http_routes,
        |it| &it.spec.parent_refs,
        http_route::convert,
    );
    compare.kind(
        Kind::GrpcRoute,
        &objects.grpc_routes,
        |it| &it.spec.parent_refs,
        grpc_route::convert,
    );
    let streams = [
        (Kind::TcpRoute, &objects.tcp_routes),
        (Kind::TlsRoute, &objects.tls_routes),
        (Kind::UdpRoute, &objects.udp_routes),
    ];
    for (kind, table) in streams {
        compare.kind(kind, table, |it| &it.spec.parent_refs, stream_route::convert);
    }
    new
}

/// Has every route attached to the listeners that take it. `new`: those that [`compare`] found.
pub(super) fn settle<'o>(work: &mut Work<'o>, gateways: &mut [Gateway<'o>], new: Vec<New<'o>>) {
    if !work.same.stage {
        new_tables(work, gateways);
    }
    for one in new {
        let (kind, place) = (one.subject.id.kind, one.place);
        let known = join(work, gateways, one);
        let places = work.memo.routes.get_mut(&kind);
        if let Some(empty) = places.and_then(|of_kind| of_kind.get_mut(place)) {
            *empty = Some(known);
        }
    }
    for (gateway, tables) in gateways.iter_mut().zip(&work.memo.tables) {
        for (listener, table) in gateway.listeners.iter_mut().zip(tables) {
            listener.accepted = table.accepted;
            listener.streams.extend(table.streams().cloned());
            listener.wishes.extend(table.wishes().cloned());
        }
    }
}

/// What routes are told, by kind and in order of their names; notes what was found about them.
pub(super) fn told(work: &mut Work<'_>) -> BTreeMap<Kind, Vec<Arc<ObjectStatus>>> {
    let mut told = BTreeMap::new();
    for (kind, routes) in &work.memo.routes {
        let routes = || routes.iter().flatten();
        work.found.extend(routes().flat_map(|route| &route.found).cloned());
        let statuses = routes().filter_map(|route| route.status.clone()).collect();
        told.insert(*kind, statuses);
    }
    told
}

/// Empty tables, which everybody has to join. What was behind a listener of the same name may be the same again.
fn new_tables(work: &mut Work<'_>, gateways: &[Gateway<'_>]) {
    let before = std::mem::take(&mut work.memo.tables);
    let before = before.into_iter().flatten();
    work.memo.hosts = before.filter_map(Table::into_hosts).collect();
    let tables = gateways.iter().map(|gateway| {
        let listeners = gateway.listeners.iter();
        listeners.map(|listener| Table::new(listener.name.clone())).collect()
    });
    work.memo.tables = tables.collect();
}

struct Compare<'c, 'o> {
    work: &'c mut Work<'o>,
    new: &'c mut Vec<New<'o>>,
}

impl<'o> Compare<'_, 'o> {
    /// Finds out who is known among the routes of a kind; who is not any longer leaves.
    fn kind<T>(
        &mut self,
        kind: Kind,
        table: &'o Objected<T>,
        parents: fn(&'o T) -> &'o [ParentRef],
        convert: fn(&mut Work<'o>, &'o Object<T>) -> Route,
    ) {
        let before = self.work.memo.routes.remove(&kind).unwrap_or_default();
        let mut before = before.into_iter().flatten().peekable();
        let mut places = Vec::with_capacity(table.len());
        for object in table.values() {
            while let Some(gone) = before.next_if(|known| known.stands_before(object)) {
                self.leave(&gone);
                wanted::release(self.work, &gone.converted.asked);
            }
            let known = before.next_if(|known| known.is(object));
            let mut converted = None;
            if let Some(known) = known {
                let holds = known.reading.is(&object.reading) && wanted::holds(self.work, &known.converted.asked);
                if holds && self.work.same.stage {
                    places.push(Some(known));
                    continue;
                }
                self.leave(&known);
                match holds {
                    true => converted = Some(known.converted),
                    false => wanted::release(self.work, &known.converted.asked),
                }
            }
            self.new.push(New {
                place: places.len(),
                subject: object.subject(),
                parents: parents(&object.body),
                reading: object.reading.clone(),
                converted,
                convert: Box::new(move |work| convert(work, object)),
            });
            places.push(None);
        }
        for gone in before {
            self.leave(&gone);
            wanted::release(self.work, &gone.converted.asked);
        }
        self.work.memo.routes.insert(kind, places);
    }

    fn leave(&mut self, known: &Known) {
        // Tables of another stage are gone.
        if self.work.same.stage {
            for Join { at, hosts } in &known.joins {
                self.work.memo.tables[at.0][at.1].leave(&known.rank, &known.converted, hosts);
            }
        }
    }
}

impl Known {
    fn is<T>(&self, object: &Object<T>) -> bool {
        self.reading.is(&object.reading) || self.key() == key(&object.id)
    }

    fn stands_before<T>(&self, object: &Object<T>) -> bool {
        !self.reading.is(&object.reading) && self.key() < key(&object.id)
    }

    fn key(&self) -> (&str, &str) {
        self.rank.key()
    }
}

fn key(id: &ObjectId) -> (&str, &str) {
    (&id.namespace, &id.name)
}

fn join<'o>(work: &mut Work<'o>, gateways: &[Gateway<'o>], new: New<'o>) -> Known {
    let converted = match new.converted {
        Some(converted) => converted,
        None => route::converted(work, new.convert),
    };
    let ready = Ready {
        subject: new.subject,
        parents: new.parents,
        converted,
    };
    let begun = work.found.len();
    let (status, joins) = attach(work, gateways, &ready);
    let found = work.found.split_off(begun);
    let rank = Arc::new(Rank::of(&new.subject));
    for Join { at, hosts } in &joins {
        work.memo.tables[at.0][at.1].join(&rank, &ready.converted, hosts);
    }
    Known {
        reading: new.reading,
        rank,
        found: [ready.converted.found.as_slice(), &found].concat(),
        converted: ready.converted,
        joins,
        status: status.map(Arc::new),
    }
}
