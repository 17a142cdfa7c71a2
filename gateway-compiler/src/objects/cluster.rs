//! Objects of an API server, one change at a time: one that changes costs what one costs, however many there are.
//!
//! An object is read by the same typed reader as a document of a file, so the same object gives the same `Ir` from
//! either. The last-good rules are those of files ([`update`](super::update)): what became unusable keeps its last good
//! version, and is reported. An object that files have too is the files'; that of the cluster waits behind it.

use super::read::read_one;
use super::update::note;
use super::{Kind, Object, ObjectId, Objects, Table};
use crate::diagnostic::{Diagnostic, Severity};
use crate::pem;
use crate::yaml::{DEPTH_MAX, Key as Word, Mark, NODES_MAX, Node, Scalar, Value};
use serde_json::Value as Json;
use std::sync::Arc;

/// Annotation in which kubectl keeps the whole object again.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What became of one object of a cluster, read already: reading needs no [`Objects`] and may be done elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    id: ObjectId,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    /// The object alone, or what is wrong with it.
    Put(Box<Objects>),
    Gone,
}

impl Change {
    /// An object as the API server writes it; `None` without a name. One that does not fit its kind is a change too.
    pub fn put(kind: Kind, object: &Json) -> Option<Self> {
        let mut nodes = 0;
        let tree = node(object, 0, &mut nodes);
        let (id, read) = match tree {
            Some(tree) => read_one(kind, &tree)?,
            None => too_large(kind, object)?,
        };
        Some(Self {
            id,
            what: What::Put(Box::new(read)),
        })
    }

    /// The object is gone.
    pub fn gone(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self {
            id: ObjectId::new(kind, namespace, name),
            what: What::Gone,
        }
    }

    pub fn id(&self) -> &ObjectId {
        &self.id
    }
}

impl Objects {
    /// Takes one change of the cluster.
    pub fn apply(&mut self, change: Change) {
        self.found.remove(&change.id);
        self.hidden.remove(&change.id);
        if self.of_file(&change.id) {
            if matches!(change.what, What::Put(_)) {
                self.hide(change);
            }
            return;
        }
        self.broken.remove(&change.id);
        match change.what {
            What::Put(read) => self.put(change.id, *read),
            What::Gone => {
                let key = change.id.key();
                macro_rules! remove {
                    ($table:ident) => {
                        drop(self.$table.remove(&key))
                    };
                }
                of_kind!(change.id.kind, remove);
            }
        }
    }

    /// Takes over the cluster's objects from `previous`, after files were read anew.
    pub fn carry_cluster(&mut self, previous: Objects) {
        let mut previous = previous;
        for kind in Kind::all() {
            macro_rules! carry {
                ($table:ident) => {
                    for (key, object) in std::mem::take(&mut previous.$table) {
                        if object.origin.file().is_some() {
                            continue;
                        }
                        if self.$table.contains_key(&key) {
                            let id = object.id.clone();
                            let mut alone = Objects::default();
                            alone.$table.insert(key, object);
                            let what = What::Put(Box::new(alone));
                            self.hide(Change { id, what });
                        } else {
                            if previous.broken.contains(&object.id) {
                                self.broken.insert(object.id.clone());
                            }
                            self.$table.insert(key, object);
                        }
                    }
                };
            }
            of_kind!(kind, carry);
        }
        for (id, found) in previous.found {
            if !self.hidden.contains_key(&id) && !previous.hidden.contains_key(&id) {
                self.found.insert(id, found);
            }
        }
        for change in previous.hidden.into_values() {
            self.apply(change);
        }
    }

    fn of_file(&self, id: &ObjectId) -> bool {
        let key = id.key();
        macro_rules! of_file {
            ($table:ident) => {
                self.$table
                    .get(&key)
                    .is_some_and(|object| object.origin.file().is_some())
            };
        }
        of_kind!(id.kind, of_file)
    }

    /// Keeps the cluster's version of an object until the files' is gone.
    fn hide(&mut self, change: Change) {
        let id = change.id.clone();
        let key = id.key();
        macro_rules! position {
            ($table:ident) => {
                self.$table
                    .get(&key)
                    .and_then(|object| object.origin.position("metadata.name"))
            };
        }
        let finding = Diagnostic {
            position: of_kind!(id.kind, position),
            severity: Severity::Warning,
            object: Some(id.clone()),
            field: "metadata.name".to_owned(),
            problem: "the cluster has this object too: the one of the file counts".to_owned(),
            remedy: "remove one of them".to_owned(),
        };
        self.found.insert(id.clone(), vec![finding]);
        self.hidden.insert(id, change);
    }

    fn put(&mut self, id: ObjectId, read: Objects) {
        let mut found = read.diagnostics;
        let broken = read.broken.contains(&id);
        if id.kind == Kind::Secret && !broken {
            let key = id.key();
            if let Some(new) = read.secrets.into_values().next() {
                let new = keep_secret(self.secrets.get(&key), new, &mut found);
                self.secrets.insert(key, new);
            }
        } else {
            macro_rules! put {
                ($table:ident) => {
                    put_one(&mut self.$table, read.$table, &id, &mut found)
                };
            }
            of_kind!(id.kind, put);
        }
        if broken {
            self.broken.insert(id.clone());
        }
        if !found.is_empty() {
            self.found.insert(id, found);
        }
    }
}

/// Replaces the object, or says that its last good version stays.
fn put_one<T>(table: &mut Table<T>, read: Table<T>, id: &ObjectId, found: &mut Vec<Diagnostic>) {
    match read.into_iter().next() {
        Some((key, object)) => drop(table.insert(key, object)),
        None => found.extend(table.get(&id.key()).map(note)),
    }
}

/// A Secret that held a certificate and holds none any more is broken: it keeps its contents.
fn keep_secret(
    old: Option<&Object<super::kinds::Secret>>,
    mut new: Object<super::kinds::Secret>,
    found: &mut Vec<Diagnostic>,
) -> Object<super::kinds::Secret> {
    let Some(old) = old.filter(|old| old.body != new.body && pem::of_secret(&old.body).is_ok()) else {
        return new;
    };
    if let Err(unusable) = pem::of_secret(&new.body) {
        let problem = format!("{}: its last good version stays in use", unusable.problem);
        found.push(new.subject().finding(Severity::Error, "data", problem, unusable.remedy));
        new.body = old.body.clone();
    }
    new
}

/// JSON as a tree without places; `None` beyond the bounds of a document. What is null is absent, as for the API server.
fn node(json: &Json, depth: usize, nodes: &mut usize) -> Option<Node> {
    *nodes += 1;
    if depth > DEPTH_MAX || *nodes > NODES_MAX {
        return None;
    }
    let scalar = |text: &str, plain| {
        Value::Scalar(Scalar {
            text: Arc::from(text),
            plain,
        })
    };
    let value = match json {
        Json::Null => scalar("null", true),
        Json::Bool(flag) => scalar(if *flag { "true" } else { "false" }, true),
        Json::Number(number) => scalar(&number.to_string(), true),
        Json::String(text) => scalar(text, false),
        Json::Array(items) => {
            let items = items.iter().map(|item| node(item, depth + 1, nodes));
            Value::Sequence(items.collect::<Option<_>>()?)
        }
        Json::Object(fields) => {
            let kept = fields.iter().filter(|(name, value)| {
                // Written by the cluster, read by nobody here, and as large as the object.
                !value.is_null() && !matches!(name.as_str(), "managedFields" | LAST_APPLIED)
            });
            let entries = kept.map(|(name, value)| {
                let key = Word {
                    mark: NOWHERE,
                    text: Arc::from(name.as_str()),
                };
                Some((key, node(value, depth + 1, nodes)?))
            });
            Value::Mapping(entries.collect::<Option<_>>()?)
        }
    };
    Some(Node { mark: NOWHERE, value })
}

/// A place there is none of; not the default, which says that it is not known yet.
const NOWHERE: Mark = Mark { line: 1, column: 1 };

fn too_large(kind: Kind, object: &Json) -> Option<(ObjectId, Objects)> {
    let metadata = object.get("metadata")?;
    let field = |name| metadata.get(name).and_then(Json::as_str);
    let id = ObjectId::new(kind, field("namespace"), field("name")?);
    let mut read = Objects::default();
    read.broken.insert(id.clone());
    read.diagnostics.push(Diagnostic {
        position: None,
        severity: Severity::Error,
        object: Some(id.clone()),
        field: String::new(),
        problem: format!("it is nested deeper than {DEPTH_MAX}, or has more than {NODES_MAX} values"),
        remedy: "make it smaller".to_owned(),
    });
    Some((id, read))
}

impl ObjectId {
    /// The namespace of a kind that has none is left out; without one it is `default`.
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        super::read::identity(kind, namespace, name)
    }

    fn key(&self) -> super::Key {
        super::Key::new(&self.namespace, &self.name)
    }
}

#[cfg(test)]
mod tests;
