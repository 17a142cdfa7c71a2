//! The control loop's part in a cluster: its changes come in, and what became of its objects goes back.
//!
//! What is told is what was compiled, corrected by what this machine could not do: a listener whose address or port
//! cannot be had is not programmed.

use super::Control;
use super::Message;
use super::succession::Standing;
use crate::source::kube::{Cluster, Verdict};
use gateway_compiler::objects::Kind;
use gateway_compiler::status::{Condition, ConditionKind, ObjectStatus, Status, reason};
use gateway_core::ir::Ir;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

impl Control {
    /// From now on the cluster's objects count too; nothing is applied before they are all there.
    pub fn join_cluster(&mut self, cluster: Arc<Cluster>) {
        self.configuration.wait_for_cluster();
        self.cluster = Some(cluster);
    }

    /// Waits for the cluster's objects, if there is a cluster; true to leave. However long that takes, what an earlier
    /// process left in the kernel is served on.
    pub fn await_cluster(&mut self, messages: &Receiver<Message>) -> bool {
        while self.cluster.as_ref().is_some_and(|cluster| !cluster.complete()) {
            if self.step(messages) {
                return true;
            }
        }
        self.take_in()
    }

    /// Applies what changed in the cluster.
    pub(super) fn take_in(&mut self) -> bool {
        let Some(cluster) = self.cluster.clone().filter(|cluster| cluster.complete()) else {
            return false;
        };
        match &mut self.standing {
            Standing::Ours => {}
            Standing::Yielded { reload, .. } => {
                *reload = true;
                return false;
            }
            Standing::Given => return false,
        }
        let began = Instant::now();
        let batch = cluster.take();
        if batch.changes.is_empty() && !self.configuration.waits() {
            return false;
        }
        let since = batch.since;
        let ir = self.configuration.take_in(batch);
        self.configure(ir, began, since)
    }

    /// Hands over what the objects are told, and when it is true.
    pub(super) fn tell_cluster(&self, since: Option<Instant>) {
        let Some(cluster) = &self.cluster else { return };
        let ir = self.state.served().cloned().unwrap_or_default();
        cluster.tell(Verdict {
            revision: self.snapshot.revision.0,
            statuses: corrected(self.configuration.verdicts(), &self.unserved(&ir)),
            broken: Arc::new(self.configuration.broken()),
            generated: self.configuration.generated(),
            since,
        });
    }

    /// Why listeners are not served.
    fn unserved(&self, ir: &Ir) -> Unserved {
        let mut unserved = BTreeMap::new();
        for (bind, why) in self.unprogrammed(ir) {
            let names = ir.listeners.get(&bind).map(|listener| listener.names.as_slice());
            for name in names.unwrap_or_default() {
                unserved.extend(whose(name.as_str()).map(|name| (name, why.clone())));
            }
        }
        unserved
    }
}

/// Whose listener, as `namespace/object/section`, is not served, and why.
type Unserved = BTreeMap<(Kind, String), String>;

/// A listener's name is `namespace/gateway/section`, or `namespace/gateway/namespace/set/section` of a ListenerSet.
fn whose(listener: &str) -> Option<(Kind, String)> {
    let parts: Vec<&str> = listener.split('/').collect();
    match parts.as_slice() {
        [namespace, gateway, section] => Some((Kind::Gateway, format!("{namespace}/{gateway}/{section}"))),
        [_, _, namespace, set, section] => Some((Kind::ListenerSet, format!("{namespace}/{set}/{section}"))),
        _ => None,
    }
}

/// Statuses in which listeners that are not served are not programmed, nor Gateways that have only such.
fn corrected(statuses: Arc<Vec<Arc<ObjectStatus>>>, unserved: &Unserved) -> Arc<Vec<Arc<ObjectStatus>>> {
    if unserved.is_empty() {
        return statuses;
    }
    let mut statuses = statuses.as_ref().clone();
    let has_listeners = |one: &&mut Arc<ObjectStatus>| matches!(one.object.kind, Kind::Gateway | Kind::ListenerSet);
    for one in statuses.iter_mut().filter(has_listeners) {
        let ObjectStatus { object, status } = Arc::make_mut(one);
        let (Status::Gateway {
            conditions, listeners, ..
        }
        | Status::ListenerSet { conditions, listeners }) = status
        else {
            continue;
        };
        let mut last = None;
        for listener in listeners.iter_mut() {
            let name = format!("{}/{}/{}", object.namespace, object.name, listener.name);
            if let Some(why) = unserved.get(&(object.kind, name)) {
                fail(&mut listener.conditions, reason::PENDING, why);
                last = Some(why);
            }
        }
        let programmed = |conditions: &[Condition]| {
            let found = conditions.iter().find(|one| one.kind == ConditionKind::Programmed);
            found.is_some_and(|one| one.holds)
        };
        if let Some(why) = last
            && !listeners.iter().any(|listener| programmed(&listener.conditions))
        {
            fail(conditions, reason::INVALID, why);
        }
    }
    Arc::new(statuses)
}

fn fail(conditions: &mut [Condition], reason: &'static str, why: &str) {
    let programmed = conditions
        .iter_mut()
        .filter(|one| one.kind == ConditionKind::Programmed && one.holds);
    for condition in programmed {
        condition.holds = false;
        condition.reason = reason;
        condition.message = why.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_compiler::objects::ObjectId;
    use gateway_compiler::status::ListenerStatus;

    fn programmed() -> Vec<Condition> {
        vec![Condition {
            kind: ConditionKind::Programmed,
            holds: true,
            reason: reason::PROGRAMMED,
            message: String::new(),
            observed_generation: 3,
        }]
    }

    fn gateway() -> Arc<Vec<Arc<ObjectStatus>>> {
        let listener = |name: &str| ListenerStatus {
            name: name.to_owned(),
            supported_kinds: Vec::new(),
            attached_routes: 0,
            conditions: programmed(),
        };
        let status = ObjectStatus {
            object: ObjectId::new(Kind::Gateway, Some("n"), "g"),
            status: Status::Gateway {
                conditions: programmed(),
                addresses: Vec::new(),
                listeners: vec![listener("a"), listener("b")],
                attached_listener_sets: 0,
            },
        };
        Arc::new(vec![Arc::new(status)])
    }

    /// Who is programmed: the Gateway, then its listeners.
    fn who(statuses: &[Arc<ObjectStatus>]) -> Vec<bool> {
        let Status::Gateway {
            conditions, listeners, ..
        } = &statuses[0].status
        else {
            panic!("a Gateway");
        };
        let lists = std::iter::once(conditions).chain(listeners.iter().map(|one| &one.conditions));
        lists.map(|conditions| conditions[0].holds).collect()
    }

    #[test]
    fn a_listener_that_is_not_served_is_not_programmed_and_a_gateway_without_any_other_neither() {
        let why = |names: &[&str]| -> Unserved {
            let names = names.iter().filter_map(|name| whose(&format!("n/g/{name}")));
            names.map(|name| (name, "port taken".to_owned())).collect()
        };
        let statuses = gateway();
        assert!(Arc::ptr_eq(&corrected(statuses.clone(), &BTreeMap::new()), &statuses));
        assert_eq!(who(&corrected(statuses.clone(), &why(&["b"]))), [true, true, false]);
        assert_eq!(
            who(&corrected(statuses.clone(), &why(&["a", "b"]))),
            [false, false, false]
        );
        assert_eq!(
            who(&corrected(statuses, &why(&["m/set/a"]))),
            [true, true, true],
            "a set's listener of that name"
        );
    }
}
