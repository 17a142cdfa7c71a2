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
    /// Of the Gateway API, as its definitions say.
    api_version: Option<String>,
    /// The definition of Gateway says where to write the routability of addresses.
    routability: bool,
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

    /// What the definition of Gateway has a place for.
    pub fn has_routability(&self, has: bool) {
        self.state().routability = has;
    }

    pub fn routability(&self) -> bool {
        self.state().routability
    }

    /// Every watch there is to be has been expected.
    pub fn discovered(&self, api_version: Option<String>) {
        let mut state = self.state();
        (state.discovered, state.api_version) = (true, api_version);
        drop(state);
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

    /// The status and version of an object, from an answer about `version` of it. An answer may come after a watch has
    /// shown that the object changed or is gone: then the watch is right, and what is compiled follows the watches alone.
    pub fn learn(&self, id: &ObjectId, version: &str, known: Known) {
        self.state().seen.learn(id, version, known);
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
        let counts = served.map(|kind| (kind.name(), state.seen.count(*kind)));
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
            api_version: state.api_version.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world() -> World {
        let options = KubeOptions {
            namespaces: Vec::new(),
            context: None,
            node: None,
            controller: "sluice.dev/gateway-controller".to_owned(),
            election: false,
        };
        let hooks = Hooks {
            nudge: Box::new(|| true),
            taken: Box::new(|| 0),
        };
        let world = World::new(Arc::default(), options, hooks);
        for kind in [Kind::Service, Kind::Namespace] {
            world.expect(kind, None, resource(kind));
        }
        world
    }

    fn resource(kind: Kind) -> ApiResource {
        ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: kind.name().to_owned(),
            plural: "any".to_owned(),
        }
    }

    fn service(name: &str, version: u32, port: u16) -> Sight {
        let object = json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()},
            "spec": {"ports": [{"port": port}]}});
        Sight::of(Kind::Service, serde_json::from_value(object).expect("an object")).expect("it has a name")
    }

    fn told(world: &World) -> Vec<String> {
        let changes = world.take().changes;
        changes.iter().map(|change| change.id().name.clone()).collect()
    }

    #[test]
    fn nothing_is_told_before_every_watch_had_its_whole_list() {
        let world = world();
        world.list(Kind::Service, None, vec![service("a", 1, 80)]);
        assert_eq!(
            (world.facts.complete(), told(&world).len()),
            (false, 0),
            "what is served is not known yet"
        );
        world.discovered(None);
        assert_eq!(
            (world.facts.complete(), told(&world).len()),
            (false, 0),
            "a list is missing"
        );
        world.list(Kind::Namespace, None, Vec::new());
        assert!(world.facts.complete());
        assert_eq!(told(&world), ["a"]);
        assert_eq!(told(&world).len(), 0, "once");
    }

    #[test]
    fn a_watch_that_is_refused_for_good_is_not_waited_for() {
        let world = world();
        world.discovered(None);
        world.list(Kind::Service, None, Vec::new());
        assert!(world.give_up(Kind::Namespace, None));
        assert!(world.facts.complete());
        assert!(!world.give_up(Kind::Namespace, None), "once");
    }

    #[test]
    fn a_list_read_anew_tells_what_changed_or_is_gone_and_nothing_else() {
        let world = world();
        world.discovered(None);
        world.list(Kind::Namespace, None, Vec::new());
        world.list(
            Kind::Service,
            None,
            vec![service("a", 1, 80), service("b", 2, 80), service("c", 3, 80)],
        );
        assert_eq!(told(&world), ["a", "b", "c"]);
        world.list(Kind::Service, None, vec![service("a", 9, 80), service("b", 9, 81)]);
        assert_eq!(told(&world), ["b", "c"]);
        assert_eq!(
            world
                .known(&ObjectId::new(Kind::Service, Some("n"), "a"))
                .map(|known| known.version),
            Some("9".into())
        );
    }

    #[test]
    fn of_changes_of_one_object_the_newest_is_told() {
        let world = world();
        world.discovered(None);
        world.list(Kind::Namespace, None, Vec::new());
        world.list(Kind::Service, None, Vec::new());
        for port in 1..100 {
            world.put(Kind::Service, service("a", u32::from(port), port));
        }
        let changes = world.take().changes;
        assert_eq!(
            changes,
            [Change::put(Kind::Service, &service("a", 0, 99).object).expect("it has a name")]
        );
        world.gone(&ObjectId::new(Kind::Service, Some("n"), "a"));
        assert_eq!(world.take().changes, [Change::gone(Kind::Service, Some("n"), "a")]);
    }
}
