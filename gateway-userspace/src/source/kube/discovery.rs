//! Which of our kinds the API server serves, in which version, and whether it answers at all.
//!
//! A kind whose definition is missing (the standard channel has no TCPRoute) is looked for again: it may be installed
//! while we run.

use super::pause::Pauses;
use super::watch;
use super::world::World;
use gateway_compiler::objects::Kind;
use kube::Client;
use kube::api::GetParams;
use kube::core::{ApiResource, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// Between two looks for kinds that are missing.
const LOOK: Duration = Duration::from_secs(10);
/// Between two signs of life.
const PULSE: Duration = Duration::from_secs(2);
/// The API server is not reachable when it does not answer within this.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Pauses while what is served cannot be learned.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often it is said that the first list is waited for.
const REMIND: Duration = Duration::from_secs(10);

/// Begins a watch for every kind that is served, and for those that come to be.
pub async fn run(world: Arc<World>, client: Client) {
    let own_node = world.options.node.is_some();
    let watched = |kind: &Kind| *kind != Kind::CertificateFile && (*kind != Kind::Node || own_node);
    let mut missing: Vec<Kind> = Kind::all().filter(watched).collect();
    let mut pauses = Pauses::new(PAUSE_FIRST, PAUSE_MAX);
    let reminder = tokio::spawn(remind(world.clone()));
    loop {
        if !world.facts.complete() && !is_ready(&client).await {
            tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
            continue;
        }
        match served(&client, &missing).await {
            Ok(found) => {
                missing.retain(|kind| !found.contains_key(kind));
                if found.contains_key(&Kind::Gateway) {
                    world.has_routability(routability(&client).await);
                }
                for (kind, resource) in found {
                    begin(&world, &client, kind, resource);
                }
                if !world.facts.complete() {
                    world.discovered(api_version(&client).await);
                }
                world
                    .facts
                    .say(|said| said.absent = missing.iter().map(|kind| kind.name()).collect());
                if missing.is_empty() {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => {
                tracing::debug!("what the API server serves cannot be learned: {error}");
                tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
            }
        }
    }
    // It ends by itself, once everything is read.
    drop(reminder);
}

fn begin(world: &Arc<World>, client: &Client, kind: Kind, resource: ApiResource) {
    info!("watching {} ({})", resource.plural, resource.api_version);
    let namespaces: Vec<Option<String>> = match kind.namespaced() && !world.options.namespaces.is_empty() {
        true => world.options.namespaces.iter().cloned().map(Some).collect(),
        false => vec![None],
    };
    for namespace in namespaces {
        world.expect(kind, namespace.as_deref(), resource.clone());
        let watching = watch::run(world.clone(), client.clone(), kind, resource.clone(), namespace);
        tokio::spawn(watching);
    }
}

/// An API server that has just started does not know its custom kinds yet: taken at its word, the cluster would look
/// empty.
async fn is_ready(client: &Client) -> bool {
    let Ok(request) = Request::new("").get("readyz", &GetParams::default()) else {
        return true;
    };
    match tokio::time::timeout(ANSWER_MAX, client.request_text(request)).await {
        Ok(Ok(_)) => true,
        // Who may not ask, or finds no such path, cannot know better.
        Ok(Err(kube::Error::Api(status))) => matches!(status.code, 401 | 403 | 404),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// The version of the Gateway API that the definition of GatewayClass says it is of. Who may not read it does without.
async fn api_version(client: &Client) -> Option<String> {
    let definition = definition(client, "gatewayclasses.gateway.networking.k8s.io").await?;
    let version = &definition["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"];
    version.as_str().map(str::to_owned)
}

/// Whether Gateways have a place for the routability of their addresses (experimental, v1.7). Who may not read it says
/// nothing of it.
async fn routability(client: &Client) -> bool {
    let Some(definition) = definition(client, "gateways.gateway.networking.k8s.io").await else {
        return false;
    };
    let place = "/schema/openAPIV3Schema/properties/status/properties/addresses/items/properties/routability";
    let versions = definition["spec"]["versions"].as_array();
    let v1 = versions.into_iter().flatten().find(|version| version["name"] == "v1");
    v1.is_some_and(|version| version.pointer(place).is_some())
}

async fn definition(client: &Client, name: &str) -> Option<serde_json::Value> {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let request = Request::new(path).get(name, &GetParams::default()).ok()?;
    let answer = tokio::time::timeout(ANSWER_MAX, client.request::<serde_json::Value>(request)).await;
    answer.ok()?.ok()
}

/// Of `kinds`, those that are served, each in the newest version that we know.
async fn served(client: &Client, kinds: &[Kind]) -> kube::Result<BTreeMap<Kind, ApiResource>> {
    let groups = client.list_api_groups().await?;
    let mut lists = BTreeMap::new();
    let mut found = BTreeMap::new();
    for kind in kinds {
        for version in kind.versions() {
            let group = kind.group();
            let api_version = match group {
                "" => (*version).to_owned(),
                _ => format!("{group}/{version}"),
            };
            let offered = group.is_empty()
                || groups
                    .groups
                    .iter()
                    .any(|one| one.versions.iter().any(|version| version.group_version == api_version));
            if !offered {
                continue;
            }
            if !lists.contains_key(&api_version) {
                let list = match group {
                    "" => client.list_core_api_resources(&api_version).await?,
                    _ => client.list_api_group_resources(&api_version).await?,
                };
                lists.insert(api_version.clone(), list.resources);
            }
            let resource = lists[&api_version]
                .iter()
                .find(|one| one.kind == kind.name() && !one.name.contains('/'));
            if let Some(resource) = resource {
                let resource = ApiResource {
                    group: group.to_owned(),
                    version: (*version).to_owned(),
                    api_version,
                    kind: kind.name().to_owned(),
                    plural: resource.name.clone(),
                };
                found.insert(*kind, resource);
                break;
            }
        }
    }
    Ok(found)
}

/// Asks for a sign of life now and then, and says when it stops and when it comes back.
pub async fn pulse(world: Arc<World>, client: Client) {
    loop {
        let answer = tokio::time::timeout(ANSWER_MAX, client.apiserver_version()).await;
        let trouble = match answer {
            Ok(Ok(_)) => None,
            // It answers; what it says is another matter.
            Ok(Err(kube::Error::Api(_))) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some(format!("no answer within {ANSWER_MAX:?}")),
        };
        if world.facts.set_reachable(trouble.is_none(), trouble.clone()) {
            match trouble {
                None => info!("the API server answers"),
                Some(why) => warn!("the API server cannot be reached: {why}; what was served last is served on"),
            }
        }
        tokio::time::sleep(PULSE).await;
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

async fn remind(world: Arc<World>) {
    loop {
        tokio::time::sleep(REMIND).await;
        if world.facts.complete() {
            return;
        }
        let awaited: Vec<&str> = world.awaited().iter().map(|kind| kind.name()).collect();
        match awaited.is_empty() {
            true => warn!("nothing is served from the cluster yet: the API server has not said what it serves"),
            false => warn!(
                "nothing is served from the cluster yet: lists of {} are missing",
                awaited.join(", ")
            ),
        }
    }
}
