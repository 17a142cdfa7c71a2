//! Conditions of objects as lines: written when they are asked for, since there may be many of them.

use gateway_compiler::objects::ObjectId;
use gateway_compiler::status::{ListenerStatus, ObjectStatus, Status};
use std::sync::Arc;

/// One line for each condition of every object.
pub fn all(statuses: &[Arc<ObjectStatus>]) -> Vec<String> {
    statuses.iter().flat_map(|one| lines(one)).collect()
}

/// An object's conditions, as `Kind namespace/name: Type=True Reason: message`.
fn lines(status: &ObjectStatus) -> Vec<String> {
    let object = &status.object;
    match &status.status {
        Status::Class { conditions, .. } => conditions.iter().map(|one| format!("{object}: {one}")).collect(),
        Status::Gateway {
            conditions,
            addresses,
            listeners,
            attached_listener_sets,
        } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let mut lines: Vec<String> = conditions.iter().map(|one| format!("{object}: {one}")).collect();
            lines.push(format!("{object}: addresses {}", addresses.join(", ")));
            if *attached_listener_sets > 0 {
                lines.push(format!("{object}: {attached_listener_sets} ListenerSets attached"));
            }
            lines.extend(listeners.iter().flat_map(|one| lines_of_listener(object, one)));
            lines
        }
        Status::ListenerSet { conditions, listeners } => {
            let mut lines: Vec<String> = conditions.iter().map(|one| format!("{object}: {one}")).collect();
            lines.extend(listeners.iter().flat_map(|one| lines_of_listener(object, one)));
            lines
        }
        Status::Balancer { addresses, conditions } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let mut lines: Vec<String> = conditions.iter().map(|one| format!("{object}: {one}")).collect();
            lines.push(format!("{object}: addresses {}", addresses.join(", ")));
            lines
        }
        Status::Route { parents } | Status::Policy { ancestors: parents } => parents
            .iter()
            .flat_map(|parent| {
                parent
                    .conditions
                    .iter()
                    .map(move |one| format!("{object} at {}: {one}", parent.parent))
            })
            .collect(),
    }
}

fn lines_of_listener(object: &ObjectId, listener: &ListenerStatus) -> Vec<String> {
    let name = &listener.name;
    let conditions = listener.conditions.iter();
    let mut lines: Vec<String> = conditions
        .map(|one| format!("{object} listener {name}: {one}"))
        .collect();
    let routes = listener.attached_routes;
    lines.push(format!("{object} listener {name}: {routes} routes attached"));
    lines
}
