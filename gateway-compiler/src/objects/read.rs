//! Documents to objects.

use super::known::{Known, Unread, judge, known, newest, without_indexes};
use super::rules;
use super::{Kind, Metadata, Object, ObjectId, Objects, Origin, Reading, Source, Table};
use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::yaml::decode::{Report, decode};
use crate::yaml::{self, Mark, Node, Value};
use serde::Deserialize;
use std::sync::Arc;

/// Most objects of all sources together.
pub(super) const OBJECTS_MAX: usize = 200_000;

/// Most octets of keys and values of one object: what an API server takes in one request.
const OBJECT_BYTES_MAX: usize = 3 << 20;

pub(super) fn read(sources: &[Source]) -> Objects {
    // Which of two objects of one name wins must not depend on the order of the sources.
    let mut sorted: Vec<&Source> = sources.iter().collect();
    sorted.sort_by_key(|source| &source.name);
    let mut reader = Reader::default();
    for source in sorted {
        let file: Arc<str> = Arc::from(source.name.as_str());
        for document in yaml::read(&source.text) {
            for remark in document.remarks {
                let position = place(Some(&file), remark.mark);
                reader.report(Severity::Warning, position, None, "", remark.problem, remark.remedy);
            }
            match document.root {
                Ok(node) => reader.document(&file, node),
                Err(error) => {
                    reader.objects.unreadable.insert(file.clone());
                    let position = place(Some(&file), error.mark);
                    reader.report(Severity::Error, position, None, "", error.problem, error.remedy);
                }
            }
        }
    }
    reader.objects.diagnostics.sort();
    reader.objects
}

/// Reads one object of a cluster: what is kept of it, or what is wrong with it. `None` when it has no name.
pub(super) fn read_one(kind: Kind, tree: &Node) -> Option<(ObjectId, Objects)> {
    let mut reader = Reader::default();
    let text = |node: Option<&Node>| node.and_then(Node::text).map(ToOwned::to_owned);
    let name = text(tree.get("metadata").and_then(|metadata| metadata.get("name")))?;
    let namespace = text(tree.get("metadata").and_then(|metadata| metadata.get("namespace")));
    reader.read(Origin::Cluster, kind, tree);
    Some((identity(kind, namespace.as_deref(), &name), reader.objects))
}

fn place(file: Option<&Arc<str>>, mark: Mark) -> Option<Position> {
    file.map(|file| Position {
        file: file.clone(),
        line: mark.line,
        column: mark.column,
    })
}

#[derive(Default)]
struct Reader {
    objects: Objects,
    count: usize,
}

/// The two fields that say what an object is.
struct Named<'n> {
    api_version: &'n str,
    kind: &'n str,
}

impl Reader {
    fn report(
        &mut self,
        severity: Severity,
        position: Option<Position>,
        object: Option<ObjectId>,
        field: &str,
        problem: String,
        remedy: String,
    ) {
        let field = field.to_owned();
        self.objects.diagnostics.push(Diagnostic {
            position,
            severity,
            object,
            field,
            problem,
            remedy,
        });
    }

    fn document(&mut self, file: &Arc<str>, node: Node) {
        let list = node.get("kind").and_then(Node::text) == Some("List");
        if list && let Some(Value::Sequence(items)) = node.get("items").map(|items| &items.value) {
            for item in items {
                self.object(file, item.clone());
            }
            return;
        }
        self.object(file, node);
    }

    fn object(&mut self, file: &Arc<str>, node: Node) {
        let Some(named) = self.named(file, &node) else { return };
        self.count += 1;
        if self.count > OBJECTS_MAX {
            if self.count == OBJECTS_MAX + 1 {
                let problem = format!("more than {OBJECTS_MAX} objects: the rest is not read");
                self.report(
                    Severity::Error,
                    place(Some(file), node.mark),
                    None,
                    "",
                    problem,
                    "split them".to_owned(),
                );
            }
            return;
        }
        match known(named.api_version, named.kind) {
            Known::Read(kind) if bytes(&node) > OBJECT_BYTES_MAX => {
                let id = self.unusable(Some(file), kind, &node);
                let problem = format!("the object has more than {OBJECT_BYTES_MAX} bytes");
                let remedy = "make it smaller: no API server would take it".to_owned();
                self.report(Severity::Error, place(Some(file), node.mark), id, "", problem, remedy);
            }
            Known::Read(kind) => {
                if let Some(newest) = newest(named.api_version, kind) {
                    let problem = format!("{} is an older version of {kind}", named.api_version);
                    let position = place(Some(file), node.locate("apiVersion"));
                    self.report(
                        Severity::Note,
                        position,
                        None,
                        "apiVersion",
                        problem,
                        format!("write {newest}"),
                    );
                }
                let tree = Arc::new(node);
                let origin = Origin::Text {
                    file: file.clone(),
                    tree: tree.clone(),
                };
                self.read(origin, kind, &tree);
            }
            Known::Misspelled(kind) => {
                let problem = format!("{} has no kind {}", named.api_version, named.kind);
                let position = place(Some(file), node.locate("kind"));
                let id = self.unusable(Some(file), kind, &node);
                self.report(Severity::Error, position, id, "kind", problem, format!("write {kind}"));
            }
            Known::NotServed => {
                let problem = format!(
                    "{} {} is not read by this gateway: the object has no effect",
                    named.api_version, named.kind
                );
                self.report(
                    Severity::Warning,
                    place(Some(file), node.locate("kind")),
                    None,
                    "kind",
                    problem,
                    instead_of(named.kind).to_owned(),
                );
            }
            Known::Version(kind, versions) => {
                let (group, _) = named.api_version.rsplit_once('/').unwrap_or(("", named.api_version));
                let slash = if group.is_empty() { "" } else { "/" };
                let problem = format!("{kind} has no version {}", named.api_version);
                let remedy = format!("write {group}{slash}{}", versions[0]);
                let position = place(Some(file), node.locate("apiVersion"));
                let id = self.unusable(Some(file), kind, &node);
                self.report(Severity::Error, position, id, "apiVersion", problem, remedy);
            }
            Known::Foreign => {
                let problem = format!("{} {} is not read by this gateway", named.api_version, named.kind);
                self.report(
                    Severity::Note,
                    place(Some(file), node.locate("kind")),
                    None,
                    "kind",
                    problem,
                    String::new(),
                );
            }
        }
    }

    /// `apiVersion` and `kind`, or a diagnostic.
    fn named<'n>(&mut self, file: &Arc<str>, node: &'n Node) -> Option<Named<'n>> {
        let field = |name| node.get(name).and_then(Node::text).filter(|text| !text.is_empty());
        match (field("apiVersion"), field("kind")) {
            (Some(api_version), Some(kind)) => Some(Named { api_version, kind }),
            (api_version, _) => {
                let field = if api_version.is_none() { "apiVersion" } else { "kind" };
                self.objects.unreadable.insert(file.clone());
                let problem = format!("this is no Kubernetes object: `{field}` is missing");
                let remedy = "begin it with apiVersion and kind".to_owned();
                self.report(
                    Severity::Error,
                    place(Some(file), node.mark),
                    None,
                    field,
                    problem,
                    remedy,
                );
                None
            }
        }
    }

    fn read(&mut self, origin: Origin, kind: Kind, tree: &Node) {
        let Some((id, meta)) = self.metadata(&origin, kind, tree) else {
            return;
        };
        let head = (id, meta, origin, tree);
        macro_rules! store {
            ($table:ident) => {
                self.store(head, |objects| &mut objects.$table)
            };
        }
        of_kind!(kind, store);
    }

    fn metadata(&mut self, origin: &Origin, kind: Kind, tree: &Node) -> Option<(ObjectId, Metadata)> {
        let mut report = Report::default();
        let decoded = match tree.get("metadata") {
            Some(node) => decode::<Metadata>(node, "metadata", &mut report),
            None => Ok(Metadata::default()),
        };
        let meta = match decoded {
            Ok(meta) => meta,
            Err(error) => {
                let id = self.unusable(origin.file(), kind, tree);
                let position = place(origin.file(), error.mark);
                self.report(
                    Severity::Error,
                    position,
                    id,
                    &error.path,
                    error.problem,
                    "correct this field".to_owned(),
                );
                return None;
            }
        };
        if meta.name.is_empty() {
            self.objects.unreadable.extend(origin.file().cloned());
            let problem = format!("this {kind} has no name");
            let position = origin.position("metadata.name");
            self.report(
                Severity::Error,
                position,
                None,
                "metadata.name",
                problem,
                "give it one".to_owned(),
            );
            return None;
        }
        let id = identity(kind, meta.namespace.as_deref(), &meta.name);
        for (field, text) in [("metadata.name", &id.name), ("metadata.namespace", &id.namespace)] {
            let asked = kind.namespaced() || !text.is_empty();
            // The name of a ClusterTrustBundle says its signer, with colons (KEP-3257).
            let colons = kind == Kind::ClusterTrustBundle;
            if asked && !rules::is_subdomain(text) && !(colons && text.split(':').all(rules::is_subdomain)) {
                self.objects.broken.insert(id.clone());
                let problem = format!("{text:?} is no name of an object");
                let remedy = "write a-z, 0-9, inner hyphens and dots, at most 253".to_owned();
                self.report(
                    Severity::Error,
                    origin.position(field),
                    Some(id.clone()),
                    field,
                    problem,
                    remedy,
                );
                return None;
            }
        }
        self.unread(&id, origin, tree, report);
        Some((id, meta))
    }

    /// Marks an object that cannot be used, by its name if it says one, so that its last good version is found.
    fn unusable(&mut self, file: Option<&Arc<str>>, kind: Kind, node: &Node) -> Option<ObjectId> {
        let field = |name| {
            node.get("metadata")
                .and_then(|metadata| metadata.get(name))
                .and_then(Node::text)
        };
        match field("name").filter(|name| !name.is_empty()) {
            Some(name) => {
                let id = identity(kind, field("namespace"), name);
                self.objects.broken.insert(id.clone());
                Some(id)
            }
            None => {
                self.objects.unreadable.extend(file.cloned());
                None
            }
        }
    }

    fn store<T>(&mut self, head: (ObjectId, Metadata, Origin, &Node), table: fn(&mut Objects) -> &mut Table<T>)
    where
        T: for<'de> Deserialize<'de> + PartialEq,
    {
        let (id, meta, origin, tree) = head;
        let mut report = Report::default();
        let body = match decode::<T>(tree, "", &mut report) {
            Ok(body) => body,
            Err(error) => {
                self.objects.broken.insert(id.clone());
                let position = place(origin.file(), error.mark);
                let remedy = "correct this field".to_owned();
                self.report(Severity::Error, position, Some(id), &error.path, error.problem, remedy);
                return;
            }
        };
        // What the type itself does not read stands in every object.
        report
            .unknown
            .retain(|(path, _)| !matches!(path.as_str(), "apiVersion" | "kind" | "metadata"));
        self.unread(&id, &origin, tree, report);
        if origin.file().is_some() {
            self.rules(&id, &meta, &origin, tree);
        }
        let object = Object {
            id,
            meta,
            body,
            origin,
            reading: Reading::default(),
        };
        let key = object.key();
        let Some(first) = table(&mut self.objects).get(&key) else {
            table(&mut self.objects).insert(key, object);
            return;
        };
        // Said twice in the same words, nothing of it is lost.
        let severity = match first.meta == object.meta && first.body == object.body {
            true => Severity::Warning,
            false => Severity::Error,
        };
        let first = first.subject().position("");
        let problem = format!(
            "this object is already at {}: the first one counts",
            first.map_or_else(String::new, |position| position.to_string())
        );
        let finding = object
            .subject()
            .finding(severity, "metadata.name", problem, "remove one of them");
        self.objects.diagnostics.push(finding);
    }

    /// Reports what an API server would refuse.
    fn rules(&mut self, id: &ObjectId, meta: &Metadata, origin: &Origin, tree: &Node) {
        for broken in rules::broken(id.kind, meta, tree) {
            let severity = if broken.mild {
                Severity::Warning
            } else {
                Severity::Error
            };
            let (position, remedy) = (origin.position(&broken.field), broken.remedy.to_owned());
            self.report(
                severity,
                position,
                Some(id.clone()),
                &broken.field,
                broken.problem,
                remedy,
            );
        }
    }

    /// Reports the fields nobody reads.
    fn unread(&mut self, id: &ObjectId, origin: &Origin, tree: &Node, report: Report) {
        for (path, _) in report.unknown {
            let (problem, remedy) = match judge(id.kind, &without_indexes(&path)) {
                Unread::Harmless => continue,
                // What an API server fills in.
                Unread::NotServed if tree.at(&path).and_then(Node::text) == Some("None") => continue,
                Unread::NotServed => (
                    "this field is not served yet: it has no effect".to_owned(),
                    "remove it, or see to it elsewhere".to_owned(),
                ),
                Unread::Unknown => (
                    format!("{} has no such field", id.kind),
                    "correct its name or remove it".to_owned(),
                ),
            };
            // Where the key was written, which is what a misspelling is about.
            let position = place(origin.file(), tree.locate_key(&path));
            self.report(Severity::Warning, position, Some(id.clone()), &path, problem, remedy);
        }
    }
}

/// What to write instead of a kind that others read, as far as there is something.
fn instead_of(kind: &str) -> &'static str {
    match kind {
        "Ingress" | "VirtualService" => "write an HTTPRoute",
        "IngressClass" => "write a GatewayClass",
        "Gateway" => "write a Gateway of gateway.networking.k8s.io",
        "XListenerSet" => "write a ListenerSet",
        _ => "remove it, or see to it elsewhere: nothing here does what it asks for",
    }
}

/// Octets of all keys and values.
fn bytes(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(scalar) => scalar.text.len(),
        Value::Sequence(items) => items.iter().map(bytes).sum(),
        Value::Mapping(entries) => entries.iter().map(|(key, node)| key.text.len() + bytes(node)).sum(),
    }
}

pub(super) fn identity(kind: Kind, namespace: Option<&str>, name: &str) -> ObjectId {
    let namespace = match kind.namespaced() {
        true => namespace.filter(|ns| !ns.is_empty()).unwrap_or("default").to_owned(),
        false => String::new(),
    };
    ObjectId {
        kind,
        namespace,
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        parse(&[Source::new("f.yaml", text)])
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn one_broken_object_never_blocks_another() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: http}]}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n---\n}{\n";
        let objects = parse(&[Source::new("f.yaml", text)]);
        assert_eq!(objects.services.len(), 1);
        assert_eq!(
            objects.diagnostics[0].to_string(),
            "f.yaml:4:23: error: Service default/a: spec.ports[0].port: expected a whole number, found the text \
             \"http\" (mend: correct this field)"
        );
        assert_eq!(objects.diagnostics.len(), 2);
    }

    #[test]
    fn a_misspelled_field_is_a_warning_at_its_key() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  port: 80\n  clusterIP: None\n";
        assert_eq!(
            lines(text),
            [
                "f.yaml:5:3: warning: Service default/a: spec.port: Service has no such field (mend: correct its name or \
              remove it)"
            ]
        );
    }

    #[test]
    fn an_object_given_twice_counts_once_whatever_the_order_of_sources() {
        let text = |port| {
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: {port}}}]}}\n")
        };
        let (a, b) = (Source::new("a.yaml", text(1)), Source::new("b.yaml", text(2)));
        let forth = parse(&[a.clone(), b.clone()]);
        assert_eq!(forth, parse(&[b, a]));
        assert_eq!(forth.services.values().next().unwrap().body.spec.ports[0].port, 1);
        assert!(
            forth.diagnostics[0]
                .to_string()
                .starts_with("b.yaml:3:18: error: Service default/a: metadata.name")
        );
    }

    #[test]
    fn an_object_given_twice_in_the_same_words_loses_nothing() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
        let twice = lines(&format!("{text}---\n{text}"));
        assert_eq!(twice.len(), 1);
        assert!(
            twice[0].starts_with("f.yaml:8:18: warning: Service default/a"),
            "{twice:?}"
        );
    }

    #[test]
    fn a_number_that_does_not_fit_is_told_what_does() {
        for (port, told) in [("65536", "65536 is not 0 to 65535"), ("-1", "-1 is not 0 to 65535")] {
            let text =
                format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: {port}}}]}}\n");
            let found = lines(&text);
            assert!(
                found[0].contains(&format!("spec.ports[0].port: {told} (mend: ")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_list_is_its_items() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: x}\n";
        assert_eq!(parse(&[Source::new("f.yaml", text)]).namespaces.len(), 1);
    }

    #[test]
    fn what_is_no_object_of_ours_is_named() {
        let found = lines("kind: X\n---\napiVersion: apps/v1\nkind: Deployment\n---\n[]\n");
        assert_eq!(found.len(), 3);
        assert!(found[0].contains("`apiVersion` is missing"), "{found:?}");
        let policy = lines("apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\n");
        assert!(
            policy[0].contains("warning: kind: ") && policy[0].contains("(mend: "),
            "{policy:?}"
        );
        let report = lines("apiVersion: gateway.networking.k8s.io/v1\nkind: ConformanceReport\n");
        assert!(report[0].contains("note: kind: "), "{report:?}");
        assert!(found[1].contains("note: kind: apps/v1 Deployment"), "{found:?}");
    }
}
