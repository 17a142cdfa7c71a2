//! Which of two routes wins (Gateway API, "conflicts").

use crate::objects::{Key, Kind, Object, Objects, Subject};

/// By what routes win: the oldest, then the first by name, then by kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    created: String,
    namespace: String,
    name: String,
    kind: Kind,
}

impl Rank {
    pub fn of(route: &Subject<'_>) -> Self {
        Self {
            created: route.meta.creation_timestamp.clone(),
            namespace: route.id.namespace.clone(),
            name: route.id.name.clone(),
            kind: route.id.kind,
        }
    }

    pub fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// The route, which is there as long as its rank is in a table.
    pub fn subject<'o>(&self, objects: &'o Objects) -> Option<Subject<'o>> {
        let key = Key::new(&self.namespace, &self.name);
        match self.kind {
            Kind::HttpRoute => objects.http_routes.get(&key).map(Object::subject),
            Kind::GrpcRoute => objects.grpc_routes.get(&key).map(Object::subject),
            _ => None,
        }
    }
}
