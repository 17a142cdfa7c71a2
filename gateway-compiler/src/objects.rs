//! Source objects: typed, named, each with the place of every field.
//!
//! Reading never fails: a document that is no YAML, an object that does not fit its kind, a name given twice are
//! diagnostics beside the objects that are good. The result does not depend on the order of the sources.

#[macro_use]
mod tables;
mod cluster;
pub mod id;
pub mod kinds;
mod known;
mod read;
mod rules;
mod update;

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::yaml::Node as Tree;
use kinds::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use cluster::Change;
pub use id::{Key, ObjectId};
pub use known::Kind;

/// A text with a name: a file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As the user named it; positions carry it.
    pub name: String,
    pub text: String,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// One object of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<T> {
    pub id: ObjectId,
    pub meta: Metadata,
    pub body: T,
    origin: Origin,
    /// Which reading of it this is.
    pub(crate) reading: Reading,
}

/// Tells one reading of an object from every other, as long as it is kept, so that what follows from it is worked out
/// once. It is no part of what an object says.
#[derive(Clone, Default)]
pub(crate) struct Reading(Arc<()>);

impl Reading {
    pub fn is(&self, other: &Reading) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether these are those, one by one.
    pub fn are(these: &[Reading], those: &[Reading]) -> bool {
        these.len() == those.len() && these.iter().zip(those).all(|(this, that)| this.is(that))
    }
}

impl PartialEq for Reading {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

/// Label of a Node: the zone it stands in (Kubernetes, "Well-Known Labels").
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Where an object was written.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    Text {
        file: Arc<str>,
        tree: Arc<Tree>,
    },
    /// An API server holds it: it has no lines, and nothing of its text is kept.
    Cluster,
}

impl<T> Object<T> {
    pub fn key(&self) -> Key {
        Key::new(&self.id.namespace, &self.id.name)
    }

    /// The object without its kind's own fields.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            id: &self.id,
            meta: &self.meta,
            origin: &self.origin,
        }
    }
}

/// Any object, as far as every kind has it: what findings are about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'o> {
    pub id: &'o ObjectId,
    pub meta: &'o Metadata,
    origin: &'o Origin,
}

impl<'o> Subject<'o> {
    pub fn annotation(&self, name: &str) -> Option<&'o str> {
        self.meta.annotations.get(name).map(String::as_str)
    }

    /// Older objects come first where the Gateway API asks for a tie-break, then `namespace/name`.
    pub fn age(&self) -> (&'o str, &'o str, &'o str) {
        (&self.meta.creation_timestamp, &self.id.namespace, &self.id.name)
    }

    /// Where `field` was written, or the nearest thing around it; `None` for an object of a cluster.
    pub fn position(&self, field: &str) -> Option<Position> {
        self.origin.position(field)
    }

    /// A finding about `field` of this object.
    pub fn finding(
        &self,
        severity: Severity,
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Diagnostic {
        let field = field.into();
        Diagnostic {
            position: self.position(&field),
            severity,
            object: Some(self.id.clone()),
            field,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl Origin {
    fn position(&self, field: &str) -> Option<Position> {
        match self {
            Origin::Text { file, tree } => {
                let mark = tree.locate(field);
                Some(Position {
                    file: file.clone(),
                    line: mark.line,
                    column: mark.column,
                })
            }
            Origin::Cluster => None,
        }
    }

    /// The text it was written in.
    fn file(&self) -> Option<&Arc<str>> {
        match self {
            Origin::Text { file, .. } => Some(file),
            Origin::Cluster => None,
        }
    }
}

/// Objects of one kind by `namespace/name`.
pub type Table<T> = BTreeMap<Key, Object<T>>;

/// EndpointSlices by the Service they belong to.
pub(crate) type EndpointSlices<'o> = BTreeMap<(&'o str, &'o str), Vec<&'o Object<EndpointSlice>>>;

/// Everything that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    pub gateway_classes: Table<GatewayClass>,
    pub gateway_class_configs: Table<GatewayClassConfig>,
    pub gateways: Table<Gateway>,
    pub listener_sets: Table<ListenerSet>,
    pub http_routes: Table<HttpRoute>,
    pub grpc_routes: Table<GrpcRoute>,
    pub tcp_routes: Table<StreamRoute>,
    pub tls_routes: Table<StreamRoute>,
    pub udp_routes: Table<StreamRoute>,
    pub reference_grants: Table<ReferenceGrant>,
    pub services: Table<Service>,
    pub endpoint_slices: Table<EndpointSlice>,
    pub secrets: Table<Secret>,
    pub config_maps: Table<ConfigMap>,
    pub backend_tls_policies: Table<BackendTlsPolicy>,
    pub backends: Table<Backend>,
    pub cluster_trust_bundles: Table<ClusterTrustBundle>,
    pub certificate_files: Table<CertificateFile>,
    pub namespaces: Table<Namespace>,
    pub nodes: Table<Node>,
    /// What was wrong with the texts, in order of position.
    pub diagnostics: Vec<Diagnostic>,
    /// Contents of the files that objects name, as the rim supplied them.
    files: BTreeMap<String, Result<FileBytes, String>>,
    /// Addresses of the host names that objects want, as the rim resolved them.
    names: BTreeMap<String, Result<Vec<IpAddr>, String>>,
    /// Objects whose newest version could not be used.
    broken: BTreeSet<ObjectId>,
    /// Sources with a document that could not even be named.
    unreadable: BTreeSet<Arc<str>>,
    /// What is wrong with objects of a cluster, by object.
    found: BTreeMap<ObjectId, Vec<Diagnostic>>,
    /// Objects of a cluster that files have too: those of the files count.
    hidden: BTreeMap<ObjectId, Change>,
}

/// Contents of a file; may be a key, so `Debug` shows only the size.
#[derive(Clone, PartialEq, Eq)]
struct FileBytes(Arc<[u8]>);

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// Reads all sources.
pub fn parse(sources: &[Source]) -> Objects {
    read::read(sources)
}

impl Objects {
    /// The new objects, with the last good version of what broke: see [`update`](self::update).
    pub fn update(previous: &Objects, next: Objects) -> Objects {
        update::update(previous, next)
    }

    /// Files that objects name and the rim should read (and watch), by the path to open.
    pub fn files_wanted(&self) -> BTreeSet<String> {
        let mut wanted = BTreeSet::new();
        for object in self.certificate_files.values() {
            for path in [object.body.cert_path(), object.body.key_path()].into_iter().flatten() {
                wanted.insert(object.path(path));
            }
        }
        wanted
    }

    /// Takes the contents of a wanted file, or why it could not be read.
    pub fn supply(&mut self, path: impl Into<String>, contents: Result<Vec<u8>, String>) {
        self.files
            .insert(path.into(), contents.map(|bytes| FileBytes(bytes.into())));
    }

    /// Host names that the rim should resolve, and go on resolving: lower case, without trailing dot.
    pub fn names_wanted(&self) -> BTreeSet<String> {
        let services = self.services.values().filter_map(|service| service.body.spec.outside());
        let backends = self.backends.values().flat_map(|backend| &backend.body.spec.endpoints);
        let named = backends.filter_map(|endpoint| Some(endpoint.fqdn.as_ref()?.hostname.as_str()));
        services.chain(named).map(host_name).collect()
    }

    /// Takes what is known of names: their addresses, or why there are none. What was known before is forgotten.
    pub fn resolve(&mut self, names: BTreeMap<String, Result<Vec<IpAddr>, String>>) {
        self.names = names;
    }

    /// What a name resolved to; `None` when nobody looked yet.
    pub fn addresses_of(&self, name: &str) -> Option<Result<&[IpAddr], &str>> {
        let found = self.names.get(&host_name(name))?;
        Some(found.as_ref().map(Vec::as_slice).map_err(String::as_str))
    }

    /// Says that a source, or a folder of sources, could not be read at all: [`Objects::update`] keeps what came from
    /// it.
    pub fn lose(&mut self, source: &str) {
        self.unreadable.insert(Arc::from(source));
    }

    /// What was supplied for a path; `None` when nothing was.
    pub fn file(&self, path: &str) -> Option<Result<&[u8], &str>> {
        match self.files.get(path)? {
            Ok(bytes) => Some(Ok(&bytes.0)),
            Err(problem) => Some(Err(problem)),
        }
    }

    /// Zone of a node, as its labels say.
    pub fn zone_of(&self, node: &str) -> Option<&str> {
        let node = self.nodes.get(&Key::new("", node))?;
        node.meta.labels.get(ZONE_LABEL).map(String::as_str)
    }

    pub(crate) fn endpoint_slices_by_service(&self) -> EndpointSlices<'_> {
        let mut slices = EndpointSlices::new();
        for slice in self.endpoint_slices.values() {
            if let Some(service) = slice.meta.labels.get("kubernetes.io/service-name") {
                slices.entry((&slice.id.namespace, service)).or_default().push(slice);
            }
        }
        slices
    }

    /// Objects whose newest version could not be used.
    pub fn broken(&self) -> impl Iterator<Item = &ObjectId> {
        self.broken.iter()
    }

    /// What was wrong with what was read, of files and of a cluster.
    pub fn findings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().chain(self.found.values().flatten())
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        Kind::all().map(|kind| self.count(kind)).sum()
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        macro_rules! count {
            ($table:ident) => {
                self.$table.len()
            };
        }
        of_kind!(kind, count)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Names differ neither by case nor by the dot of the root (RFC 1034 section 3.1).
fn host_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl Object<CertificateFile> {
    /// A path of this object as the rim should open it: relative ones stand beside the file that names them.
    pub fn path(&self, path: &str) -> String {
        let folder = std::path::Path::new(self.origin.file().map_or("", |file| file))
            .parent()
            .unwrap_or(std::path::Path::new(""));
        folder.join(path).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_files_are_wanted_beside_the_file_that_names_them() {
        let text = "apiVersion: sluice.dev/v1alpha1\nkind: CertificateFile\nmetadata: {name: a}\n\
                    certFile: tls.crt\nspec: {keyFile: /etc/tls.key}\n";
        let mut objects = parse(&[Source::new("conf/a.yaml", text)]);
        assert_eq!(objects.diagnostics, vec![]);
        let wanted: Vec<_> = objects.files_wanted().into_iter().collect();
        assert_eq!(wanted, ["/etc/tls.key", "conf/tls.crt"]);
        objects.supply("conf/tls.crt", Ok(b"secret words".to_vec()));
        assert_eq!(objects.file("conf/tls.crt"), Some(Ok(&b"secret words"[..])));
        assert!(!format!("{objects:?}").contains("secret words"));
    }
}
