//! `parametersRef` of GatewayClasses and Gateways: a GatewayClassConfig of ours, or a ConfigMap with the same words.
//!
//! A Gateway's own parameters go before those of its class, and those before the settings.

use super::Work;
use crate::diagnostic::Severity;
use crate::objects::kinds::ObjectRef;
use crate::objects::{Key, Subject};
use ipnet::IpNet;

/// The key of a ConfigMap: blocks of addresses between commas or white space.
const POOLS: &str = "addressPools";
/// Most blocks of addresses.
const POOLS_MAX: usize = 64;

/// What parameters say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Where addresses come from, one of each; `None`: nothing is said about it.
    pub pools: Option<Vec<IpNet>>,
}

/// Reads what `to`, written at `field` of `by`, names; what is wrong is reported and returned.
pub(super) fn read(
    work: &mut Work<'_>,
    by: Subject<'_>,
    field: &str,
    to: &ObjectRef,
    namespace: Option<&str>,
) -> Result<Parameters, String> {
    resolve(work, to, namespace).map_err(|(problem, remedy)| {
        work.found
            .push(by.finding(Severity::Error, field, problem.as_str(), remedy));
        problem
    })
}

type Bad = (String, &'static str);

fn resolve(work: &Work<'_>, to: &ObjectRef, namespace: Option<&str>) -> Result<Parameters, Bad> {
    let (group, kind) = (to.group.as_deref().unwrap_or(""), to.kind.as_deref().unwrap_or(""));
    let name = to.name.as_str();
    let missing = |what: &str| (format!("there is no {what} {name}"), "add it or correct the name");
    let pools = match (group, kind) {
        ("sluice.dev", "GatewayClassConfig") => {
            let config = work.objects.gateway_class_configs.get(&Key::new("", name));
            let config = config.ok_or_else(|| missing("GatewayClassConfig"))?;
            config.body.spec.address_pools.clone()
        }
        ("", "ConfigMap") => {
            let namespace = namespace.ok_or((
                "a ConfigMap is in a namespace, and none is named".to_owned(),
                "add the namespace",
            ))?;
            let map = work.objects.config_maps.get(&Key::new(namespace, name));
            let map = &map
                .ok_or_else(|| missing(&format!("ConfigMap in namespace {namespace} named")))?
                .body;
            if let Some(key) = map.data.keys().chain(map.binary_data.keys()).find(|key| *key != POOLS) {
                let problem = format!("ConfigMap {namespace}/{name} has the key {key:?}, which means nothing here");
                return Err((problem, "there is addressPools"));
            }
            let words = |text: &String| {
                text.split([',', ' ', '\n', '\t'])
                    .filter(|word| !word.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            map.data.get(POOLS).map(words)
        }
        _ => {
            let problem = format!("parameters cannot be a {kind} of group {group:?}");
            return Err((problem, "name a GatewayClassConfig of sluice.dev, or a ConfigMap"));
        }
    };
    let pools = pools.map(|words: Vec<String>| blocks(&words)).transpose()?;
    Ok(Parameters { pools })
}

/// Blocks of addresses; a single address is one of its own.
fn blocks(words: &[String]) -> Result<Vec<IpNet>, Bad> {
    if words.is_empty() || words.len() > POOLS_MAX {
        let problem = format!("{} address pools: 1 to {POOLS_MAX} are possible", words.len());
        return Err((problem, "write some, or leave addressPools out"));
    }
    let block = |word: &String| {
        let alone = || word.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        word.parse::<IpNet>().ok().or_else(alone).ok_or_else(|| {
            (
                format!("{word:?} is no block of addresses"),
                "write one such as 192.0.2.0/24",
            )
        })
    };
    words.iter().map(block).collect()
}
