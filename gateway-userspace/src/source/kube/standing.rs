//! What stands in the cluster for each Gateway: a Service without a selector and its EndpointSlices, so that a Gateway's
//! addresses have a name and its `spec.infrastructure` has something to be on; and a Service for each address that is to
//! be a ClusterIP. The process that writes statuses writes
//! these too, by server-side apply: what is there already is not changed.

use super::world::World;
use super::{FIELD_OWNER, Verdict};
use gateway_compiler::generated::{ClusterIp, GatewayService};
use gateway_compiler::objects::ObjectId;
use gateway_core::ir::Transport;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as latest;
use tracing::{debug, warn};

/// Between two looks, when nothing else happens: who writes may have changed, and what failed is tried again.
const LOOK: Duration = Duration::from_secs(5);
/// One request.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Label of EndpointSlices that says who keeps them.
const KEEPER: &str = "sluice.dev";

/// Writes until the runtime ends.
pub async fn run(world: Arc<World>, client: Client, mut newest: latest::Receiver<Verdict>) {
    let mut writer = Writer {
        world,
        client,
        stands: BTreeMap::new(),
        warned: false,
    };
    loop {
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, newest.changed()).await {
            return;
        }
        let wanted = newest.borrow_and_update().generated.clone();
        if !writer.world.facts.leader() {
            writer.stands.clear();
            continue;
        }
        writer.settle(&wanted).await;
    }
}

fn key(service: &GatewayService) -> (ObjectId, String) {
    (service.gateway.clone(), service.name.clone())
}

struct Writer {
    world: Arc<World>,
    client: Client,
    /// What was written, by Gateway and name.
    stands: BTreeMap<(ObjectId, String), GatewayService>,
    warned: bool,
}

impl Writer {
    async fn settle(&mut self, wanted: &[GatewayService]) {
        let gone: Vec<GatewayService> = self
            .stands
            .values()
            .filter(|have| {
                !wanted
                    .iter()
                    .any(|one| one.gateway == have.gateway && one.name == have.name)
            })
            .cloned()
            .collect();
        for service in gone {
            let removed = self.remove(&service).await;
            self.note(&service, removed);
            self.stands.remove(&key(&service));
        }
        for service in wanted {
            if self.stands.get(&key(service)) == Some(service) {
                continue;
            }
            let written = self.write(service).await;
            if matches!(written, Ok(true)) {
                self.stands.insert(key(service), service.clone());
            }
            self.note(service, written.map(drop));
        }
    }

    fn note(&mut self, service: &GatewayService, outcome: kube::Result<()>) {
        match outcome {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                if !std::mem::replace(&mut self.warned, true) {
                    warn!(
                        "the Service of {} cannot be written: {} (mend: allow get, create, patch and delete of \
                         `services` and `endpointslices`)",
                        service.gateway, status.message
                    );
                }
            }
            Err(error) => debug!("the Service of {}: {error}", service.gateway),
        }
    }

    /// False where it has to wait, or where the name is somebody else's.
    async fn write(&self, service: &GatewayService) -> kube::Result<bool> {
        // The owner's identity comes with the watch of the Gateways.
        let Some(uid) = self.world.known(&service.gateway).and_then(|known| known.uid) else {
            return Ok(false);
        };
        let services = self.api(&SERVICE, service);
        if let Some(there) = bounded(services.get_opt(&service.name)).await?
            && !there.owner_references().iter().any(|owner| *owner.uid == *uid)
        {
            warn!(
                "Service {}/{} is not of {}: it is left alone",
                service.gateway.namespace, service.name, service.gateway
            );
            return Ok(true);
        }
        let parameters = PatchParams::apply(FIELD_OWNER).force();
        let body = service_body(service, &uid);
        bounded(services.patch(&service.name, &parameters, &Patch::Apply(&body))).await?;
        let slices = self.api(&SLICE, service);
        let before = self.stands.get(&key(service));
        for family in FAMILIES {
            let name = slice_name(service, family);
            if has(service, family) {
                let body = slice_body(service, family, &uid);
                bounded(slices.patch(&name, &parameters, &Patch::Apply(&body))).await?;
            } else if before.is_some_and(|before| has(before, family)) {
                gone(bounded(slices.delete(&name, &DeleteParams::default())).await)?;
            }
        }
        Ok(true)
    }

    /// A Gateway that is gone took it along; one that is somebody else's now did not.
    async fn remove(&self, service: &GatewayService) -> kube::Result<()> {
        let Some(uid) = self.world.known(&service.gateway).and_then(|known| known.uid) else {
            return Ok(());
        };
        let services = self.api(&SERVICE, service);
        let Some(there) = bounded(services.get_opt(&service.name)).await? else {
            return Ok(());
        };
        if !there.owner_references().iter().any(|owner| *owner.uid == *uid) {
            return Ok(());
        }
        let slices = self.api(&SLICE, service);
        for family in FAMILIES.into_iter().filter(|family| has(service, family)) {
            gone(bounded(slices.delete(&slice_name(service, family), &DeleteParams::default())).await)?;
        }
        let exactly = DeleteParams {
            preconditions: Some(Preconditions {
                uid: there.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        gone(bounded(services.delete(&service.name, &exactly)).await)
    }

    fn api(&self, kind: &Plain, service: &GatewayService) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: kind.group.to_owned(),
            version: "v1".to_owned(),
            api_version: kind.api_version.to_owned(),
            kind: kind.kind.to_owned(),
            plural: kind.plural.to_owned(),
        };
        Api::namespaced_with(self.client.clone(), &service.gateway.namespace, &resource)
    }
}

/// A kind of Kubernetes itself.
struct Plain {
    group: &'static str,
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const SERVICE: Plain = Plain {
    group: "",
    api_version: "v1",
    kind: "Service",
    plural: "services",
};
const SLICE: Plain = Plain {
    group: "discovery.k8s.io",
    api_version: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
};
/// As EndpointSlices call them.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = |_| kube::Error::Service("no answer in time".into());
    tokio::time::timeout(ANSWER_MAX, request).await.map_err(late)?
}

/// What is gone already needs no removal.
fn gone<T>(removed: kube::Result<T>) -> kube::Result<()> {
    match removed {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn of_family(service: &GatewayService, family: &str) -> Vec<String> {
    let matching = |addr: &&IpAddr| addr.is_ipv4() == (family == "IPv4");
    service
        .addresses
        .iter()
        .filter(matching)
        .map(ToString::to_string)
        .collect()
}

fn has(service: &GatewayService, family: &str) -> bool {
    !of_family(service, family).is_empty()
}

fn slice_name(service: &GatewayService, family: &str) -> String {
    format!("{}-{}", service.name, family.to_lowercase())
}

fn metadata(service: &GatewayService, name: &str, uid: &str) -> Value {
    json!({
        "name": name,
        "namespace": service.gateway.namespace,
        "labels": service.labels,
        "annotations": service.annotations,
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": service.gateway.name, "uid": uid,
            "controller": true,
        }],
    })
}

fn ports(service: &GatewayService) -> Vec<Value> {
    let ports = service.ports.iter().map(|(port, transport)| {
        let (name, protocol) = match transport {
            Transport::Tcp => ("tcp", "TCP"),
            Transport::Udp => ("udp", "UDP"),
        };
        json!({"name": format!("{name}-{port}"), "port": port, "protocol": protocol})
    });
    ports.collect()
}

fn service_body(service: &GatewayService, uid: &str) -> Value {
    let mut spec = json!({"type": "ClusterIP", "ports": ports(service)});
    match service.cluster_ip {
        ClusterIp::Headless => spec["clusterIP"] = json!("None"),
        // It has one from its first writing on.
        ClusterIp::Any => {}
        ClusterIp::This(addr) => {
            spec["clusterIP"] = json!(addr.to_string());
            spec["ipFamilies"] = json!([if addr.is_ipv4() { "IPv4" } else { "IPv6" }]);
        }
    }
    json!({
        "apiVersion": SERVICE.api_version, "kind": SERVICE.kind,
        "metadata": metadata(service, &service.name, uid), "spec": spec,
    })
}

fn slice_body(service: &GatewayService, family: &str, uid: &str) -> Value {
    let mut metadata = metadata(service, &slice_name(service, family), uid);
    metadata["labels"]["kubernetes.io/service-name"] = json!(service.name);
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = json!(KEEPER);
    let endpoints = of_family(service, family).into_iter();
    let endpoints = endpoints.map(|addr| json!({"addresses": [addr], "conditions": {"ready": true}}));
    json!({
        "apiVersion": SLICE.api_version, "kind": SLICE.kind, "metadata": metadata,
        "addressType": family, "endpoints": endpoints.collect::<Vec<_>>(), "ports": ports(service),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_compiler::objects::Kind;

    #[test]
    fn a_gateway_s_service_names_its_owner_ports_and_addresses_by_family() {
        let service = GatewayService {
            gateway: ObjectId::new(Kind::Gateway, Some("n"), "g"),
            name: "g-sluice".to_owned(),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            annotations: BTreeMap::new(),
            ports: [(53, Transport::Udp), (80, Transport::Tcp)].into(),
            addresses: vec![
                "192.0.2.1".parse().expect("an address"),
                "2001:db8::1".parse().expect("an address"),
            ],
            cluster_ip: ClusterIp::Headless,
        };
        let body = service_body(&service, "u-1");
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(body["metadata"]["labels"], json!({"a": "b"}));
        let expected = json!([
            {"name": "udp-53", "port": 53, "protocol": "UDP"}, {"name": "tcp-80", "port": 80, "protocol": "TCP"},
        ]);
        assert_eq!(
            body["spec"],
            json!({"type": "ClusterIP", "clusterIP": "None", "ports": expected.clone()})
        );
        let of_cluster = |cluster_ip| {
            let service = GatewayService {
                cluster_ip,
                ..service.clone()
            };
            service_body(&service, "u-1")["spec"].clone()
        };
        assert_eq!(
            of_cluster(ClusterIp::Any),
            json!({"type": "ClusterIP", "ports": expected})
        );
        let this = of_cluster(ClusterIp::This("10.96.0.9".parse().expect("an address")));
        assert_eq!(
            (&this["clusterIP"], &this["ipFamilies"]),
            (&json!("10.96.0.9"), &json!(["IPv4"]))
        );
        let slice = slice_body(&service, "IPv6", "u-1");
        assert_eq!(
            (&slice["addressType"], &slice["metadata"]["name"]),
            (&json!("IPv6"), &json!("g-sluice-ipv6"))
        );
        assert_eq!(
            slice["endpoints"],
            json!([{"addresses": ["2001:db8::1"], "conditions": {"ready": true}}])
        );
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "g-sluice");
    }
}
