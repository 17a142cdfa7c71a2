//! What the watches have shown of each object: enough to tell a change from an echo, and to write a status on top of
//! what is there. The objects themselves are held where they are compiled.

use gateway_compiler::objects::{Kind, ObjectId, ZONE_LABEL};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Longest value kept of a ConfigMap that holds no certificate, bytes.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// Annotation in which kubectl keeps the whole object again.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Kinds whose status is ours to write.
pub const fn has_status(kind: Kind) -> bool {
    match kind {
        Kind::GatewayClass
        | Kind::Gateway
        | Kind::ListenerSet
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::UdpRoute
        | Kind::Service
        | Kind::BackendTlsPolicy => true,
        Kind::GatewayClassConfig
        | Kind::ReferenceGrant
        | Kind::Backend
        | Kind::EndpointSlice
        | Kind::Secret
        | Kind::ConfigMap
        | Kind::ClusterTrustBundle
        | Kind::CertificateFile
        | Kind::Namespace
        | Kind::Node => false,
    }
}

/// What is kept of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of everything but the status and what the server keeps for itself.
    pub hash: u64,
    /// `metadata.resourceVersion`.
    pub version: Box<str>,
    /// `metadata.uid` of a Gateway, which other objects may belong to.
    pub uid: Option<Box<str>>,
    /// A Service of type LoadBalancer: the only one that may have addresses in its status.
    pub balancer: bool,
    /// JSON; `None` for kinds whose status is not ours.
    pub status: Option<Box<str>>,
}

/// One object as a watch showed it.
pub struct Sight {
    pub id: ObjectId,
    pub known: Known,
    /// The object without what nobody reads.
    pub object: Value,
}

impl Sight {
    /// `None` for an object without a name, which no API server sends.
    pub fn of(kind: Kind, mut object: DynamicObject) -> Option<Self> {
        let uid = object.metadata.uid.take().filter(|_| kind == Kind::Gateway);
        slim(kind, &mut object);
        let name = object.metadata.name.clone()?;
        let id = ObjectId::new(kind, object.metadata.namespace.as_deref(), &name);
        let version = object.metadata.resource_version.take().unwrap_or_default().into();
        let status = match object.data.as_object_mut() {
            Some(fields) => fields.remove("status"),
            None => None,
        };
        // Who has addresses keeps them.
        let field = match kind {
            Kind::Gateway => "addresses",
            Kind::Service => "loadBalancer",
            _ => "",
        };
        if let Some(addresses) = status.as_ref().and_then(|status| status.get(field)) {
            object.data["status"] = json!({field: addresses});
        }
        let status = has_status(kind).then(|| status.unwrap_or_default().to_string().into());
        let object = serde_json::to_value(&object).ok()?;
        let mut hasher = DefaultHasher::new();
        hash(&object, &mut hasher);
        let balancer = kind == Kind::Service && object["spec"]["type"] == "LoadBalancer";
        let known = Known {
            balancer,
            hash: hasher.finish(),
            version,
            uid: uid.map(Into::into),
            status,
        };
        Some(Self { id, known, object })
    }
}

/// Takes out what nobody reads, so that it is neither kept nor taken for a change.
fn slim(kind: Kind, object: &mut DynamicObject) {
    let metadata = &mut object.metadata;
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.finalizers = None;
    metadata.self_link = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    match kind {
        Kind::Secret => metadata.annotations = None,
        Kind::ConfigMap => {
            metadata.annotations = None;
            if let Some(data) = object.data.get_mut("data").and_then(Value::as_object_mut) {
                data.retain(|_, value| value.as_str().is_some_and(is_kept));
            }
        }
        Kind::Node => {
            metadata.annotations = None;
            if let Some(labels) = &mut metadata.labels {
                labels.retain(|name, _| name == ZONE_LABEL);
            }
            // All that is read of it is where it is.
            object.data = json!({});
        }
        // Their only time is the last change of a Pod, and it changes with nothing else.
        Kind::EndpointSlice => metadata.annotations = None,
        Kind::GatewayClass
        | Kind::GatewayClassConfig
        | Kind::Gateway
        | Kind::ListenerSet
        | Kind::Backend
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::UdpRoute
        | Kind::ReferenceGrant
        | Kind::Service
        | Kind::BackendTlsPolicy
        | Kind::ClusterTrustBundle
        | Kind::CertificateFile
        | Kind::Namespace => {}
    }
}

fn is_kept(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX || value.contains("-----BEGIN")
}

fn hash(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Null => 0.hash(hasher),
        Value::Bool(flag) => (1, flag).hash(hasher),
        Value::Number(number) => (2, number.to_string()).hash(hasher),
        Value::String(text) => (3, text).hash(hasher),
        Value::Array(items) => {
            (4, items.len()).hash(hasher);
            items.iter().for_each(|item| hash(item, hasher));
        }
        Value::Object(fields) => {
            (5, fields.len()).hash(hasher);
            for (name, value) in fields {
                name.hash(hasher);
                hash(value, hasher);
            }
        }
    }
}

/// Objects by id.
#[derive(Debug, Default)]
pub struct Seen {
    objects: BTreeMap<ObjectId, Known>,
    counts: BTreeMap<Kind, u64>,
}

/// What a sight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Something that is compiled changed.
    pub content: bool,
    /// The status is another than the last one seen.
    pub status: bool,
}

impl Seen {
    pub fn get(&self, id: &ObjectId) -> Option<&Known> {
        self.objects.get(id)
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Takes in what an answer about `version` says of the status, unless a watch has shown another version since.
    pub fn learn(&mut self, id: &ObjectId, version: &str, known: Known) {
        if let Some(before) = self.objects.get_mut(id).filter(|before| &*before.version == version) {
            (before.version, before.status) = (known.version, known.status);
        }
    }

    /// Takes in what was seen, and says what is new about it.
    pub fn put(&mut self, id: &ObjectId, known: Known) -> News {
        match self.objects.get_mut(id) {
            Some(before) => {
                let news = News {
                    content: before.hash != known.hash,
                    status: before.status != known.status,
                };
                *before = known;
                news
            }
            None => {
                self.objects.insert(id.clone(), known);
                *self.counts.entry(id.kind).or_default() += 1;
                News {
                    content: true,
                    status: true,
                }
            }
        }
    }

    pub fn remove(&mut self, id: &ObjectId) -> bool {
        let had = self.objects.remove(id).is_some();
        if had && let Some(count) = self.counts.get_mut(&id.kind) {
            *count = count.saturating_sub(1);
        }
        had
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// Objects of a kind, in one namespace or in all.
    pub fn of(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = (&ObjectId, &Known)> {
        let first = ObjectId {
            kind,
            namespace: String::new(),
            name: String::new(),
        };
        self.objects
            .range(first..)
            .take_while(move |(id, _)| id.kind == kind)
            .filter(move |(id, _)| namespace.is_none_or(|namespace| id.namespace == namespace))
    }

    /// Those of a kind and namespace that a list did not show: they are gone.
    pub fn missing(&self, kind: Kind, namespace: Option<&str>, listed: &BTreeSet<ObjectId>) -> Vec<ObjectId> {
        let gone = self.of(kind, namespace).filter(|(id, _)| !listed.contains(*id));
        gone.map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(kind: Kind, value: Value) -> Sight {
        Sight::of(kind, serde_json::from_value(value).expect("an object")).expect("it has a name")
    }

    fn route(version: &str, path: &str, status: Value) -> Value {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "n", "resourceVersion": version, "generation": 1,
                "creationTimestamp": "2026-01-02T03:04:05Z", "managedFields": [{"manager": version}],
                "annotations": {LAST_APPLIED: version}},
            "spec": {"hostnames": [path]}, "status": status})
    }

    #[test]
    fn an_echo_of_our_own_status_is_no_change_of_the_object() {
        let mut seen = Seen::default();
        let first = sight(Kind::HttpRoute, route("1", "a", json!({"parents": []})));
        assert_eq!(first.object["metadata"]["creationTimestamp"], "2026-01-02T03:04:05Z");
        assert!(first.object.get("status").is_none());
        let id = first.id.clone();
        assert!(seen.put(&id, first.known).content);
        let echo = sight(Kind::HttpRoute, route("2", "a", json!({"parents": [1]}))).known;
        let news = News {
            content: false,
            status: true,
        };
        assert_eq!(seen.put(&id, echo), news);
        let changed = sight(Kind::HttpRoute, route("3", "b", json!({"parents": [1]}))).known;
        assert_eq!(
            seen.put(&id, changed),
            News {
                content: true,
                status: false
            }
        );
        assert_eq!(&*seen.get(&id).expect("seen").version, "3");
    }

    #[test]
    fn an_answer_that_comes_after_the_watch_changes_nothing() {
        let mut seen = Seen::default();
        let first = sight(Kind::HttpRoute, route("1", "a", json!({})));
        let answer = || sight(Kind::HttpRoute, route("2", "a", json!({"parents": [1]}))).known;
        let id = first.id.clone();
        seen.put(&id, first.known);
        seen.learn(&id, "1", answer());
        assert_eq!(&*seen.get(&id).expect("seen").version, "2");
        seen.put(&id, sight(Kind::HttpRoute, route("5", "b", json!({}))).known);
        seen.learn(&id, "2", answer());
        assert_eq!(&*seen.get(&id).expect("seen").version, "5");
        assert!(seen.remove(&id));
        seen.learn(&id, "5", answer());
        assert!(seen.get(&id).is_none(), "what is gone stays gone");
    }

    #[test]
    fn what_a_list_does_not_show_is_gone_from_that_namespace_alone() {
        let mut seen = Seen::default();
        for (namespace, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
            let object = json!({"metadata": {"name": name, "namespace": namespace}});
            let sight = sight(Kind::Service, object);
            seen.put(&sight.id, sight.known);
        }
        let listed = BTreeSet::from([ObjectId::new(Kind::Service, Some("a"), "x")]);
        let gone = seen.missing(Kind::Service, Some("a"), &listed);
        assert_eq!(gone, [ObjectId::new(Kind::Service, Some("a"), "y")]);
        assert_eq!(seen.missing(Kind::Service, None, &listed).len(), 2);
        assert_eq!((seen.count(Kind::Service), seen.count(Kind::Secret)), (3, 0));
        assert!(seen.remove(&gone[0]) && !seen.remove(&gone[0]));
        assert_eq!(seen.count(Kind::Service), 2);
        assert_eq!(seen.missing(Kind::Secret, None, &listed), []);
    }

    #[test]
    fn a_service_of_another_type_may_have_no_addresses() {
        let may = |kind: Kind, spec: Value| {
            sight(kind, json!({"metadata": {"name": "s"}, "spec": spec}))
                .known
                .balancer
        };
        assert!(may(Kind::Service, json!({"type": "LoadBalancer"})));
        assert!(!may(Kind::Service, json!({"type": "ClusterIP"})) && !may(Kind::Service, json!({})));
        assert!(!may(Kind::Gateway, json!({"type": "LoadBalancer"})));
    }

    #[test]
    fn of_a_node_its_zone_is_kept_and_a_heartbeat_is_no_change() {
        let node = |beat: &str| {
            json!({"metadata": {"name": "n", "annotations": {"beat": beat},
                "labels": {ZONE_LABEL: "east", "kubernetes.io/hostname": beat}},
                "spec": {"taints": [{"key": beat}]}, "status": {"conditions": [{"lastHeartbeatTime": beat}]}})
        };
        let (first, second) = (sight(Kind::Node, node("1")), sight(Kind::Node, node("2")));
        assert_eq!(first.known, second.known);
        assert_eq!(first.object["metadata"]["labels"], json!({ZONE_LABEL: "east"}));
    }

    #[test]
    fn large_values_of_config_maps_are_kept_only_when_they_hold_certificates() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        let object = json!({"metadata": {"name": "c", "namespace": "n", "annotations": {"leader": "me"}},
            "data": {"short": "x", "long": long, "ca.crt": format!("-----BEGIN CERTIFICATE-----{long}")}});
        let kept = sight(Kind::ConfigMap, object).object;
        let names: Vec<_> = kept["data"].as_object().expect("data").keys().cloned().collect();
        assert_eq!(names, ["ca.crt", "short"]);
        assert!(kept["metadata"].get("annotations").is_none());
    }
}
