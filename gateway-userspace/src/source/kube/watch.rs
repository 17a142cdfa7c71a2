//! One watch: the objects of one kind, in one namespace or in all.
//!
//! A list counts when it is whole; then what it does not show is gone. After an error the watch goes on where it was,
//! or lists again when the server has forgotten that place (410).

use super::pause::Pauses;
use super::seen::Sight;
use super::world::World;
use gateway_compiler::objects::{Kind, ObjectId};
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_stream::StreamExt;
use tracing::{debug, warn};

/// Between two tries of a watch.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Length of one watch request, seconds: a connection that died silently is noticed this late at the latest.
const WATCH_SECONDS: u32 = 120;
/// Tries that the server refuses before the first batch stops waiting for a watch.
const REFUSALS_MAX: u32 = 3;
/// Secrets that hold no certificate are not asked for: some are large, and none is used.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                       type!=kubernetes.io/dockercfg,type!=kubernetes.io/dockerconfigjson,\
                       type!=bootstrap.kubernetes.io/token";

/// Watches until the runtime ends.
pub async fn run(world: Arc<World>, client: Client, kind: Kind, resource: ApiResource, namespace: Option<String>) {
    let api: Api<DynamicObject> = match &namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    if kind == Kind::Secret {
        config = config.fields(SECRETS);
    }
    if let (Kind::Node, Some(node)) = (kind, &world.options.node) {
        config = config.fields(&format!("metadata.name={node}"));
    }
    let mut stream = pin!(watcher(api, config).backoff(Pauses::new(PAUSE_FIRST, PAUSE_MAX)));
    let namespace = namespace.as_deref();
    let (mut listing, mut refusals) = (Vec::new(), 0_u32);
    world.facts.watch_starts.fetch_add(1, Ordering::Relaxed);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if std::mem::take(&mut refusals) > 0 {
                    world
                        .facts
                        .say(|said| said.refused.retain(|line| !line.starts_with(kind.name())));
                }
                take(&world, kind, namespace, event, &mut listing);
            }
            Err(error) => {
                world.facts.watch_errors.fetch_add(1, Ordering::Relaxed);
                debug!("watch of {kind}: {error}");
                if let Some(why) = refusal(&error) {
                    refusals += 1;
                    if refusals == REFUSALS_MAX {
                        refused(&world, kind, namespace, &resource, &why);
                    }
                }
            }
        }
    }
}

fn take(world: &World, kind: Kind, namespace: Option<&str>, event: Event<DynamicObject>, listing: &mut Vec<Sight>) {
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(object) => listing.extend(Sight::of(kind, object)),
        Event::InitDone => {
            world.facts.lists.fetch_add(1, Ordering::Relaxed);
            world.list(kind, namespace, std::mem::take(listing));
        }
        Event::Apply(object) => {
            world.facts.events.fetch_add(1, Ordering::Relaxed);
            if let Some(sight) = Sight::of(kind, object) {
                world.put(kind, sight);
            }
        }
        Event::Delete(object) => {
            world.facts.events.fetch_add(1, Ordering::Relaxed);
            world.gone(&ObjectId::new(kind, object.namespace().as_deref(), &object.name_any()));
        }
    }
}

/// The server answered, and does not want to.
fn refusal(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if matches!(status.code, 401 | 403 | 404 | 405) =>
        {
            Some(format!("{} {}", status.code, status.message))
        }
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    }
}

/// Goes on without the kind, says so, and keeps trying.
fn refused(world: &World, kind: Kind, namespace: Option<&str>, resource: &ApiResource, why: &str) {
    let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
    let group = if resource.group.is_empty() {
        "core"
    } else {
        &resource.group
    };
    warn!(
        "{kind} objects{place} cannot be watched: {why} (mend: allow get, list and watch of `{}` in group {group})",
        resource.plural
    );
    world
        .facts
        .say(|said| said.refused.push(format!("{kind}{place}: {why}")));
    if world.give_up(kind, namespace) {
        warn!("going on without {kind} objects{place}");
    }
}
