//! Where everything meets that the watches show and the status writer needs.
//!
//! Changes wait here by object, the newest of each: a control loop that is busy finds one batch, not a queue.

use super::seen::{Known, Seen, Sight, has_status};
use super::{Batch, Hooks, KubeOptions, SETTLE, SETTLE_MAX};
use crate::telemetry::cluster::ClusterFacts;
use gateway_compiler::objects::{Change, Kind, ObjectId};
use kube::core::ApiResource;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tracing::{error, info};

/// Most objects of a cluster that are read.
pub const OBJECTS_MAX: usize = 200_000;

/// Shared by every task of the source.
pub struct World {
    pub facts: Arc<ClusterFacts>,
    pub options: KubeOptions,
    pub hooks: Hooks,
    state: Mutex<State>,
    /// Changes came.
    changed: Notify,
    /// A status came, or went, that the writer has to look at.
    pub touched: Notify,
}

#[derive(Default)]
struct State {
    seen: Seen,
    /// What the API server calls the kinds it serves.
    resources: BTreeMap<Kind, ApiResource>,
    /// Watches that have not had their first list yet.
    awaited: BTreeSet<(Kind, Option<String>)>,
    /// What the server serves is known.
    discovered: bool,
    waiting: BTreeMap<ObjectId, Change>,
    since: Option<Instant>,
    /// Objects whose status changed.
    touched: BTreeSet<ObjectId>,
    full: bool,
}

impl World {
    pub fn new(facts: Arc<ClusterFacts>, options: KubeOptions, hooks: Hooks) -> Self {
        Self {
            facts,
            options,
            hooks,
            state: Mutex::default(),
            changed: Notify::new(),
            touched: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch begins; the first batch waits for it.
    pub fn expect(&self, kind: Kind, namespace: Option<&str>, resource: ApiResource) {
        let mut state = self.state();
        state.resources.insert(kind, resource);
        if !self.facts.complete() {
            state.awaited.insert((kind, namespace.map(ToOwned::to_owned)));
        }
    }

    /// Every watch there is to be has been expected.
    pub fn discovered(&self) {
        self.state().discovered = true;
        self.settle_start();
    }

    /// A watch that the server refuses for good is not waited for.
    pub fn give_up(&self, kind: Kind, namespace: Option<&str>) -> bool {
        let awaited = self.state().awaited.remove(&(kind, namespace.map(ToOwned::to_owned)));
        self.settle_start();
        awaited
    }

    /// Watches that are still waited for.
    pub fn awaited(&self) -> Vec<Kind> {
        self.state().awaited.iter().map(|(kind, _)| *kind).collect()
    }

    fn settle_start(&self) {
        let state = self.state();
        if state.discovered && state.awaited.is_empty() && !self.facts.complete() {
            info!(objects = state.seen.len(), "the cluster's objects are read");
            self.facts.set_complete();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The whole list of a watch: what it does not show is gone.
    pub fn list(&self, kind: Kind, namespace: Option<&str>, sights: Vec<Sight>) {
        let listed: BTreeSet<ObjectId> = sights.iter().map(|sight| sight.id.clone()).collect();
        {
            let mut state = self.state();
            for id in state.seen.missing(kind, namespace, &listed) {
                state.gone(&id);
            }
            for sight in sights {
                state.put(kind, sight);
            }
            state.awaited.remove(&(kind, namespace.map(ToOwned::to_owned)));
        }
        self.count();
        self.settle_start();
        self.tell();
    }

    /// One object as it is now.
    pub fn put(&self, kind: Kind, sight: Sight) {
        let new = {
            let mut state = self.state();
            let before = state.seen.len();
            state.put(kind, sight);
            state.seen.len() != before
        };
        if new {
            self.count();
        }
        self.tell();
    }

    /// One object less.
    pub fn gone(&self, id: &ObjectId) {
        self.state().gone(id);
        self.count();
        self.tell();
    }

    fn tell(&self) {
        let state = self.state();
        let (changes, touched) = (!state.waiting.is_empty(), !state.touched.is_empty());
        drop(state);
        if changes {
            self.changed.notify_one();
        }
        if touched {
            self.touched.notify_one();
        }
    }

    fn count(&self) {
        let state = self.state();
        let served = state.resources.keys();
        let counts = served.map(|kind| (kind.name(), state.seen.of(*kind, None).count() as u64));
        let counts = counts.collect();
        drop(state);
        self.facts.say(|said| said.objects = counts);
    }

    pub fn take(&self) -> Batch {
        if !self.facts.complete() {
            return Batch::default();
        }
        let mut state = self.state();
        Batch {
            changes: std::mem::take(&mut state.waiting).into_values().collect(),
            since: state.since.take(),
        }
    }

    /// Tells the control loop of changes, a little later than they came.
    pub async fn pace(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            if !self.facts.complete() {
                continue;
            }
            let until = tokio::time::Instant::now() + SETTLE_MAX;
            let more = async { while tokio::time::timeout(SETTLE, self.changed.notified()).await.is_ok() {} };
            // Either way it is time.
            let _ = tokio::time::timeout_at(until, more).await;
            while !(self.hooks.nudge)() {
                tokio::time::sleep(SETTLE_MAX).await;
            }
        }
    }

    pub fn resource(&self, kind: Kind) -> Option<ApiResource> {
        self.state().resources.get(&kind).cloned()
    }

    pub fn known(&self, id: &ObjectId) -> Option<Known> {
        self.state().seen.get(id).cloned()
    }

    /// Objects whose status was seen to change since the last call.
    pub fn take_touched(&self) -> BTreeSet<ObjectId> {
        std::mem::take(&mut self.state().touched)
    }

    /// Every object whose status is ours to write.
    pub fn with_status(&self) -> BTreeSet<ObjectId> {
        let state = self.state();
        let kinds = Kind::all().filter(|kind| has_status(*kind));
        kinds
            .flat_map(|kind| state.seen.of(kind, None).map(|(id, _)| id.clone()))
            .collect()
    }
}

impl State {
    fn put(&mut self, kind: Kind, sight: Sight) {
        let Sight { id, known, object } = sight;
        if self.seen.len() >= OBJECTS_MAX && self.seen.get(&id).is_none() {
            if !std::mem::replace(&mut self.full, true) {
                error!(
                    "the cluster has more than {OBJECTS_MAX} objects: the rest is not read; watch fewer namespaces with --kube-namespace"
                );
            }
            return;
        }
        let news = self.seen.put(&id, known);
        if news.content
            && let Some(change) = Change::put(kind, &object)
        {
            self.wait(change);
        }
        if (news.content || news.status) && has_status(kind) {
            self.touched.insert(id);
        }
    }

    fn gone(&mut self, id: &ObjectId) {
        if self.seen.remove(id) {
            self.touched.remove(id);
            self.wait(Change::gone(id.kind, Some(&id.namespace), &id.name));
        }
    }

    fn wait(&mut self, change: Change) {
        self.since.get_or_insert_with(Instant::now);
        self.waiting.insert(change.id().clone(), change);
    }
}
