//! What one compilation leaves for the next, so that a change costs what changed.
//!
//! Law: it decides how much is worked out anew and nothing else; with any memo, or none, the result is the same. A route
//! is converted again when it was read anew, when a Service or Backend that it names was, and when a grant or a policy
//! changed; it is attached again when it was converted, and when what may be attached to was read anew
//! ([`attach`](super::attach)). A service is made again when its object or one of its slices was read anew. What the
//! number of routes does not multiply is done every time.

use super::roster::Places;
use super::tables::{Hosts, Table};
use super::wanted::Made;
use crate::Settings;
use crate::objects::{Key, Object, Objects, Reading};
use gateway_core::ir::{BackendTls, ListenerName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rest of one compilation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo {
    terms: Terms,
    pub(super) routes: Places,
    /// By the places of Gateways and their listeners.
    pub(super) tables: Vec<Vec<Table>>,
    /// What was behind listeners before what they are was read anew.
    pub(super) hosts: BTreeMap<ListenerName, Hosts>,
    pub(super) made: Made,
}

/// What decides about routes besides the routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    settings: Settings,
    grants: Vec<Reading>,
    policies: Vec<Answer>,
    /// Services and Backends.
    backends: Vec<Reading>,
    slices: Vec<Reading>,
    /// Whatever says which listeners there are, and whose routes they take.
    stage: Vec<Reading>,
}

/// A target of policies, and how it is spoken to.
pub(super) type Answer = ((Key, Option<String>), Result<Arc<BackendTls>, String>);

/// What is as it was in the compilation before.
#[derive(Clone, Copy, Default)]
pub(super) struct Same {
    /// Whatever decides about references besides their targets.
    pub terms: bool,
    /// Every target.
    pub backends: bool,
    pub slices: bool,
    /// Whatever decides about attaching besides the routes.
    pub stage: bool,
}

impl Terms {
    pub fn new(objects: &Objects, settings: &Settings, policies: Vec<Answer>) -> Self {
        Self {
            settings: settings.clone(),
            grants: readings(&objects.reference_grants),
            policies,
            backends: [readings(&objects.services), readings(&objects.backends)].concat(),
            slices: readings(&objects.endpoint_slices),
            stage: [
                readings(&objects.gateway_classes),
                readings(&objects.gateway_class_configs),
                readings(&objects.gateways),
                readings(&objects.listener_sets),
                readings(&objects.namespaces),
            ]
            .concat(),
        }
    }
}

fn readings<T>(table: &BTreeMap<Key, Object<T>>) -> Vec<Reading> {
    table.values().map(|object| object.reading.clone()).collect()
}

impl Memo {
    /// Begins a compilation under these terms.
    pub(super) fn begin(&mut self, now: Terms) -> Same {
        let then = &self.terms;
        let found = Same {
            terms: then.settings == now.settings
                && then.policies == now.policies
                && Reading::are(&then.grants, &now.grants),
            backends: Reading::are(&then.backends, &now.backends),
            slices: Reading::are(&then.slices, &now.slices),
            stage: then.settings == now.settings && Reading::are(&then.stage, &now.stage),
        };
        self.terms = now;
        found
    }
}
