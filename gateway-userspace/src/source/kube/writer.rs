//! The status writer: says on each object what became of it, once that is true.
//!
//! A [`Verdict`] waits until every worker has its revision. Then objects whose status would differ are written, each on
//! top of the version that was read (a merge patch of the status alone, with its `resourceVersion`): whoever wrote
//! meanwhile wins, is read again, and keeps what is theirs. Writes are bounded in rate, number at once, and tries.

use super::pause::Pauses;
use super::seen::Sight;
use super::shape::{Hand, mentions, merged};
use super::stamp;
use super::world::World;
use super::{FIELD_OWNER, Verdict};
use crate::telemetry::cluster::WriteFailure;
use gateway_compiler::objects::{Kind, ObjectId};
use gateway_compiler::status::Status;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch as latest;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

/// Writes under way at once.
const WRITES_MAX: usize = 16;
/// Writes a second, over time.
const RATE: f64 = 200.0;
/// Writes at once after a quiet time.
const BURST: f64 = 400.0;
/// Tries of one write that met somebody else's.
const CONFLICTS_MAX: u32 = 8;
/// One request.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether the workers have a revision.
const LOOK: Duration = Duration::from_millis(1);
/// A write that failed is tried again after the first of these, at last after every second.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Writes until the runtime ends.
pub async fn run(world: Arc<World>, client: Client, mut newest: latest::Receiver<Verdict>) {
    let mut writer = Writer {
        world,
        client,
        verdict: Verdict::default(),
        queue: BTreeSet::new(),
        later: BTreeMap::new(),
        writing: JoinSet::new(),
        under_way: BTreeSet::new(),
        passed: BTreeSet::new(),
        bucket: Bucket::new(Instant::now()),
        leads: false,
        told: false,
    };
    loop {
        let wake = writer.next_wake();
        tokio::select! {
            changed = newest.changed() => {
                if changed.is_err() {
                    return;
                }
                let verdict = newest.borrow_and_update().clone();
                writer.adopt(verdict).await;
            }
            () = writer.world.touched.notified() => writer.look_at_touched(),
            Some(done) = writer.writing.join_next() => writer.done(done),
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        writer.lead();
        writer.work();
    }
}

struct Writer {
    world: Arc<World>,
    client: Client,
    /// What is true of the data plane.
    verdict: Verdict,
    /// Objects to look at; most need no write.
    queue: BTreeSet<ObjectId>,
    /// Objects whose write failed: when to try again, and the pause after that.
    later: BTreeMap<ObjectId, (Instant, Pauses)>,
    writing: JoinSet<(ObjectId, Written)>,
    under_way: BTreeSet<ObjectId>,
    /// Objects to look at again when the write under way has ended.
    passed: BTreeSet<ObjectId>,
    bucket: Bucket,
    leads: bool,
    /// There was a verdict.
    told: bool,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// It said so already, or the object is gone.
    Needless,
    /// Try again later.
    Not,
    /// Not before something changes.
    Refused,
}

impl Writer {
    /// When there is something to do without an event.
    fn next_wake(&self) -> Instant {
        /// Between two looks at who leads.
        const IDLE: Duration = Duration::from_millis(250);
        let now = Instant::now();
        let mut wake = now + IDLE;
        if self.leads && !self.queue.is_empty() && self.writing.len() < WRITES_MAX {
            wake = wake.min(now + self.bucket.until_next(now));
        }
        self.later.values().map(|(at, _)| *at).fold(wake, Instant::min)
    }

    /// Waits until the verdict is true, then notes whom it tells something new.
    async fn adopt(&mut self, verdict: Verdict) {
        while (self.world.hooks.taken)() < verdict.revision {
            tokio::time::sleep(LOOK).await;
        }
        if let Some(since) = verdict.since {
            self.world.facts.count_applied(since.elapsed());
        }
        if self.told {
            self.queue.extend(differing(&self.verdict, &verdict));
        } else {
            self.queue.extend(self.world.with_status());
        }
        self.told = true;
        self.verdict = verdict;
    }

    fn look_at_touched(&mut self) {
        let touched = self.world.take_touched();
        if self.told {
            self.queue.extend(touched);
        }
    }

    fn lead(&mut self) {
        let leads = self.world.facts.leader();
        if leads && !self.leads && self.told {
            self.queue.extend(self.world.with_status());
        }
        self.leads = leads;
    }

    /// Starts as many writes as may be.
    fn work(&mut self) {
        let now = Instant::now();
        for (id, (at, _)) in self.later.iter_mut().filter(|(_, (at, _))| *at <= now) {
            // A write under way decides anew.
            *at = now + AGAIN_MAX;
            self.queue.insert(id.clone());
        }
        if !self.leads || !self.told {
            return;
        }
        while self.writing.len() < WRITES_MAX {
            let Some(id) = self.queue.pop_first() else { break };
            if self.under_way.contains(&id) {
                self.passed.insert(id);
                continue;
            }
            let ours = self.verdict.status(&id);
            if ours.is_none() && self.verdict.broken.contains(&id) {
                continue;
            }
            if outcome(&self.world, &id, ours.as_ref()).is_none() {
                self.later.remove(&id);
                continue;
            }
            if !self.bucket.take(now) {
                self.queue.insert(id);
                break;
            }
            self.under_way.insert(id.clone());
            let (world, client) = (self.world.clone(), self.client.clone());
            self.writing.spawn(async move {
                let written = write(&world, &client, &id, ours.as_ref()).await;
                (id, written)
            });
        }
    }

    fn done(&mut self, done: Result<(ObjectId, Written), tokio::task::JoinError>) {
        let (id, written) = match done {
            Ok(done) => done,
            Err(failure) => {
                error!("a status write ended: {failure}");
                return;
            }
        };
        self.under_way.remove(&id);
        if self.passed.remove(&id) {
            self.queue.insert(id.clone());
        }
        match written {
            Written::Yes => {
                self.world.facts.status_writes.fetch_add(1, Ordering::Relaxed);
                self.later.remove(&id);
            }
            Written::Needless | Written::Refused => _ = self.later.remove(&id),
            Written::Not => {
                let (at, pauses) = self
                    .later
                    .entry(id)
                    .or_insert_with(|| (Instant::now(), Pauses::new(AGAIN_FIRST, AGAIN_MAX)));
                *at = Instant::now() + pauses.next().unwrap_or(AGAIN_MAX);
            }
        }
    }
}

/// Objects that two verdicts do not say the same about.
fn differing(before: &Verdict, after: &Verdict) -> Vec<ObjectId> {
    let mut found = Vec::new();
    let (mut old, mut new) = (before.statuses.iter().peekable(), after.statuses.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(old), Some(new)) => old.object.cmp(&new.object),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return found,
        };
        match order {
            std::cmp::Ordering::Less => found.extend(old.next().map(|one| one.object.clone())),
            std::cmp::Ordering::Greater => found.extend(new.next().map(|one| one.object.clone())),
            std::cmp::Ordering::Equal => {
                let (old, new) = (old.next(), new.next());
                if old != new {
                    found.extend(new.map(|one| one.object.clone()));
                }
            }
        }
    }
}

/// What the object's status has to become, and on top of which version; `None` when there is nothing to say.
fn outcome(world: &World, id: &ObjectId, ours: Option<&Status>) -> Option<(Value, Box<str>)> {
    let known = world.known(id)?;
    // A verdict may be older than the Service's type.
    let ours = ours.filter(|_| id.kind != Kind::Service || known.balancer);
    let text = known.status.as_deref()?;
    let controller = world.options.controller.as_str();
    let current: Value = serde_json::from_str(text).ok()?;
    if ours.is_none() && !mentions(&current, controller) {
        return None;
    }
    let now = stamp::now();
    let hand = Hand {
        controller,
        now: &now,
        routability: world.routability(),
    };
    let current = Some(&current).filter(|current| current.is_object());
    merged(id, ours, current, hand).map(|status| (status, known.version))
}

async fn write(world: &World, client: &Client, id: &ObjectId, ours: Option<&Status>) -> Written {
    let Some(resource) = world.resource(id.kind) else {
        return Written::Needless;
    };
    let api: Api<DynamicObject> = match id.kind.namespaced() {
        true => Api::namespaced_with(client.clone(), &id.namespace, &resource),
        false => Api::all_with(client.clone(), &resource),
    };
    let parameters = PatchParams {
        field_manager: Some(FIELD_OWNER.to_owned()),
        ..PatchParams::default()
    };
    for _ in 0..CONFLICTS_MAX {
        let Some((status, version)) = outcome(world, id, ours) else {
            return Written::Needless;
        };
        let patch = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"resourceVersion": version}, "status": status,
        });
        let patch = Patch::Merge(&patch);
        let answer = tokio::time::timeout(ANSWER_MAX, api.patch_status(&id.name, &parameters, &patch)).await;
        let failure = match answer {
            Ok(Ok(object)) => {
                learn(world, id, &version, object);
                return Written::Yes;
            }
            Ok(Err(kube::Error::Api(status))) => {
                let failure = failure(status.code);
                match failure {
                    WriteFailure::Refused => error!("{id}: the API server refuses its status: {}", status.message),
                    WriteFailure::Forbidden => warn!("{id}: its status may not be written: {}", status.message),
                    WriteFailure::Conflict | WriteFailure::Gone | WriteFailure::Unavailable => {
                        debug!("{id}: {}", status.message);
                    }
                }
                failure
            }
            Ok(Err(error)) => {
                debug!("{id}: {error}");
                WriteFailure::Unavailable
            }
            Err(_) => WriteFailure::Unavailable,
        };
        world.facts.count_failure(failure);
        match failure {
            WriteFailure::Conflict => {
                let read = tokio::time::timeout(ANSWER_MAX, api.get_opt(&id.name)).await;
                match read {
                    Ok(Ok(Some(object))) => learn(world, id, &version, object),
                    Ok(Ok(None)) => return Written::Needless,
                    Ok(Err(_)) | Err(_) => return Written::Not,
                }
            }
            WriteFailure::Gone => return Written::Needless,
            WriteFailure::Refused => return Written::Refused,
            WriteFailure::Forbidden | WriteFailure::Unavailable => return Written::Not,
        }
    }
    Written::Not
}

/// Takes in an answer to a question about `version`: the next look starts from it.
fn learn(world: &World, id: &ObjectId, version: &str, object: DynamicObject) {
    if let Some(sight) = Sight::of(id.kind, object) {
        world.learn(id, version, sight.known);
    }
}

const fn failure(code: u16) -> WriteFailure {
    match code {
        409 => WriteFailure::Conflict,
        404 => WriteFailure::Gone,
        401 | 403 => WriteFailure::Forbidden,
        429 | 500..=599 => WriteFailure::Unavailable,
        _ => WriteFailure::Refused,
    }
}

/// Tokens for writes: they come at [`RATE`], and no more than [`BURST`] wait.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        self.at = now;
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }

    /// Until there is one.
    fn until_next(&self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let missing = 1.0 - (self.tokens + passed * RATE);
        Duration::from_secs_f64((missing / RATE).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_compiler::objects::Kind;
    use gateway_compiler::status::{GatewayAddress, ObjectStatus};

    #[test]
    fn writes_come_at_a_rate_after_a_burst() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(begin);
        assert_eq!((0..10_000).filter(|_| bucket.take(begin)).count(), BURST as usize);
        assert!(bucket.until_next(begin) > Duration::ZERO);
        let later = begin + Duration::from_secs(1);
        assert_eq!((0..10_000).filter(|_| bucket.take(later)).count(), RATE as usize);
        let idle = begin + Duration::from_secs(3600);
        assert_eq!((0..10_000).filter(|_| bucket.take(idle)).count(), BURST as usize);
    }

    #[test]
    fn only_objects_about_which_something_else_is_said_are_looked_at() {
        let verdict = |rows: &[(&str, usize)]| Verdict {
            statuses: Arc::new(
                rows.iter()
                    .map(|(name, parents)| ObjectStatus {
                        object: ObjectId::new(Kind::HttpRoute, Some("n"), name),
                        status: Status::Gateway {
                            conditions: Vec::new(),
                            addresses: vec![
                                GatewayAddress {
                                    addr: "::1".parse().expect("an address"),
                                    routability: "",
                                };
                                *parents
                            ],
                            listeners: Vec::new(),
                            attached_listener_sets: 0,
                        },
                    })
                    .map(Arc::new)
                    .collect(),
            ),
            ..Verdict::default()
        };
        let (before, after) = (
            verdict(&[("a", 1), ("b", 1), ("d", 1)]),
            verdict(&[("b", 1), ("c", 1), ("d", 2)]),
        );
        let names: Vec<String> = differing(&before, &after).into_iter().map(|id| id.name).collect();
        assert_eq!(names, ["a", "c", "d"]);
        assert_eq!(differing(&after, &after), []);
    }
}
