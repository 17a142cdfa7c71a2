//! What a status becomes when ours is put into it.

use super::*;
use gateway_compiler::status::ConditionKind;

const HAND: Hand<'static> = Hand {
    controller: "sluice.dev/gateway-controller",
    now: "2026-11-21T12:00:00Z",
    routability: false,
};
const EARLIER: &str = "2020-01-01T00:00:00Z";

fn route() -> ObjectId {
    ObjectId::new(Kind::HttpRoute, Some("n"), "r")
}

fn said(kind: ConditionKind, holds: bool, observed_generation: i64) -> Condition {
    Condition {
        kind,
        holds,
        reason: "Because",
        message: "so".to_owned(),
        observed_generation,
    }
}

fn accepted(holds: bool, generation: i64) -> Vec<Condition> {
    vec![said(ConditionKind::Accepted, holds, generation)]
}

fn at(name: &str, section: Option<&str>, holds: bool, generation: i64) -> ParentStatus {
    ParentStatus {
        parent: ParentName {
            kind: Kind::Gateway,
            namespace: "n".to_owned(),
            name: name.to_owned(),
            section: section.map(ToOwned::to_owned),
            port: None,
        },
        conditions: accepted(holds, generation),
    }
}

fn parents(parents: &[ParentStatus]) -> Status {
    Status::Route {
        parents: parents.to_vec(),
    }
}

/// What is there, as the API server gives it back.
fn there(id: &ObjectId, ours: &Status, now: &str) -> Value {
    let hand = Hand { now, ..HAND };
    merged(id, Some(ours), None, hand).expect("there was nothing")
}

fn foreign() -> Value {
    json!({"parentRef": {"name": "theirs"}, "controllerName": "else.dev/c", "conditions": [
        {"type": "Accepted", "status": "True", "reason": "X", "message": "", "lastTransitionTime": EARLIER, "observedGeneration": 77},
    ]})
}

#[test]
fn a_new_entry_has_the_shape_of_the_api() {
    let status = there(&route(), &parents(&[at("g", Some("http"), true, 3)]), HAND.now);
    let expected = json!({"parents": [{
        "parentRef": {"group": GATEWAY_API, "kind": "Gateway", "namespace": "n", "name": "g", "sectionName": "http"},
        "controllerName": HAND.controller,
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Because", "message": "so",
            "observedGeneration": 3, "lastTransitionTime": HAND.now}],
    }]});
    assert_eq!(status, expected);
}

#[test]
fn what_says_so_already_is_not_written_again() {
    let ours = parents(&[at("g", None, true, 3), at("h", None, false, 3)]);
    let current = there(&route(), &ours, EARLIER);
    assert_eq!(merged(&route(), Some(&ours), Some(&current), HAND), None);
    // Nor an empty one where there is none.
    assert_eq!(merged(&route(), Some(&parents(&[])), None, HAND), None);
    assert_eq!(
        merged(&route(), None, Some(&json!({"parents": [foreign()]})), HAND),
        None
    );
}

#[test]
fn a_condition_keeps_its_time_until_it_changes_sides() {
    let current = there(&route(), &parents(&[at("g", None, true, 3)]), EARLIER);
    let time = |ours: &Status| {
        let status = merged(&route(), Some(ours), Some(&current), HAND).expect("it differs");
        let condition = &status["parents"][0]["conditions"][0];
        (
            condition["observedGeneration"].clone(),
            condition["lastTransitionTime"].clone(),
        )
    };
    assert_eq!(time(&parents(&[at("g", None, true, 4)])), (json!(4), json!(EARLIER)));
    assert_eq!(time(&parents(&[at("g", None, false, 4)])), (json!(4), json!(HAND.now)));
}

#[test]
fn entries_of_other_controllers_stay_byte_for_byte_where_they_are() {
    let mut current = there(
        &route(),
        &parents(&[at("g", None, true, 3), at("gone", None, true, 3)]),
        EARLIER,
    );
    let entries = current["parents"].as_array_mut().expect("entries");
    entries.insert(1, foreign());
    let ours = parents(&[at("g", None, true, 4), at("new", None, true, 4)]);
    let status = merged(&route(), Some(&ours), Some(&current), HAND).expect("it differs");
    let names: Vec<_> = (0..3)
        .map(|at| status["parents"][at]["parentRef"]["name"].clone())
        .collect();
    assert_eq!(names, ["g", "theirs", "new"]);
    assert_eq!(status["parents"][1], foreign());
    assert_eq!(status["parents"].as_array().map(Vec::len), Some(3));
    // A parent that is not ours any more takes our entry with it, and nobody else's.
    let status = merged(&route(), None, Some(&current), HAND).expect("ours goes");
    assert_eq!(status, json!({"parents": [foreign()]}));
}

#[test]
fn conditions_of_other_types_stay_and_ours_that_are_not_said_any_more_go() {
    let gateway = ObjectId::new(Kind::Gateway, Some("n"), "g");
    let theirs = json!({"type": "their.dev/Fine", "status": "True", "reason": "X", "message": "", "lastTransitionTime": EARLIER});
    let stale = json!({"type": "OverlappingTLSConfig", "status": "True", "reason": "X", "message": "", "lastTransitionTime": EARLIER});
    let pending = json!({"type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z"});
    let current = json!({
        "conditions": [pending, theirs, stale],
        "listeners": [{"name": "http", "attachedRoutes": 0, "conditions": [theirs, stale]}, {"name": "old", "attachedRoutes": 1, "conditions": []}],
        "theirs": 1,
    });
    let ours = Status::Gateway {
        conditions: accepted(true, 1),
        addresses: [("192.0.2.1", "Cluster"), ("2001:db8::1", "")]
            .map(|(addr, routability)| GatewayAddress {
                addr: addr.parse().expect("an address"),
                routability,
            })
            .into(),
        listeners: vec![ListenerStatus {
            name: "http".to_owned(),
            supported_kinds: vec!["HTTPRoute"],
            attached_routes: 2,
            conditions: accepted(true, 1),
        }],
        attached_listener_sets: 0,
    };
    let status = merged(&gateway, Some(&ours), Some(&current), HAND).expect("it differs");
    let accepted = json!({"type": "Accepted", "status": "True", "reason": "Because", "message": "so",
        "observedGeneration": 1, "lastTransitionTime": HAND.now});
    let expected = json!({
        "conditions": [accepted, theirs],
        "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}, {"type": "IPAddress", "value": "2001:db8::1"}],
        "listeners": [{"name": "http", "attachedRoutes": 2, "supportedKinds": [{"group": GATEWAY_API, "kind": "HTTPRoute"}],
            "conditions": [theirs, accepted]}],
        "theirs": 1,
    });
    assert_eq!(status, expected);
    assert_eq!(merged(&gateway, Some(&ours), Some(&status), HAND), None);
    let newer = Hand {
        routability: true,
        ..HAND
    };
    let status = merged(&gateway, Some(&ours), Some(&status), newer).expect("it says more");
    let expected = json!([{"type": "IPAddress", "value": "192.0.2.1", "routability": "Cluster"},
        {"type": "IPAddress", "value": "2001:db8::1", "routability": ""}]);
    assert_eq!(status["addresses"], expected);
}

#[test]
fn a_process_that_is_behind_does_not_take_back_what_another_wrote() {
    let current = there(&route(), &parents(&[at("g", None, true, 5)]), EARLIER);
    let behind = parents(&[at("g", None, false, 4)]);
    assert_eq!(merged(&route(), Some(&behind), Some(&current), HAND), None);
}

#[test]
fn classes_name_their_features_and_policies_their_ancestors() {
    let class = ObjectId::new(Kind::GatewayClass, None, "c");
    let ours = Status::Class {
        conditions: accepted(true, 1),
        supported_features: &["Gateway", "HTTPRoute"],
    };
    let status = there(&class, &ours, HAND.now);
    assert_eq!(
        status["supportedFeatures"],
        json!([{"name": "Gateway"}, {"name": "HTTPRoute"}])
    );
    let policy = ObjectId::new(Kind::BackendTlsPolicy, Some("n"), "p");
    let many: Vec<ParentStatus> = (0..40).map(|n| at(&format!("g{n}"), None, true, 1)).collect();
    let status = there(&policy, &Status::Policy { ancestors: many }, HAND.now);
    assert_eq!(status["ancestors"].as_array().map(Vec::len), Some(ANCESTORS_MAX));
    assert_eq!(status["ancestors"][0]["ancestorRef"]["name"], "g0");
    assert!(mentions(&status, HAND.controller) && !mentions(&status, "else.dev/c"));
}

#[test]
fn a_balancer_s_address_stands_once_with_what_the_server_filled_in() {
    let service = ObjectId::new(Kind::Service, Some("n"), "s");
    let addresses = |list: &[&str]| Status::Balancer {
        addresses: list.iter().map(|addr| addr.parse().expect("an address")).collect(),
        conditions: Vec::new(),
    };
    let status = there(&service, &addresses(&["192.0.2.1"]), HAND.now);
    assert_eq!(status, json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}));
    let filled = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}});
    assert_eq!(
        merged(&service, Some(&addresses(&["192.0.2.1"])), Some(&filled), HAND),
        None
    );
    let none = merged(&service, Some(&addresses(&[])), Some(&filled), HAND);
    assert_eq!(none, Some(json!({"loadBalancer": {}})));
}

#[test]
fn a_service_has_one_condition_of_ours_which_leaves_with_us_and_those_of_others_stay() {
    let service = ObjectId::new(Kind::Service, Some("n"), "s");
    let theirs =
        json!({"type": "Ready", "status": "True", "reason": "X", "message": "", "lastTransitionTime": EARLIER});
    let ours = Status::Balancer {
        addresses: Vec::new(),
        conditions: vec![said(ConditionKind::Served, false, 0)],
    };
    let status = merged(&service, Some(&ours), Some(&json!({"conditions": [theirs]})), HAND).expect("it is new");
    assert_eq!(status["conditions"][0], theirs);
    assert_eq!(status["conditions"][1]["type"], "sluice.dev/Served");
    assert_eq!(merged(&service, Some(&ours), Some(&status), HAND), None);
    assert!(mentions(&status, HAND.controller));
    // Its type is another now.
    let after = merged(&service, None, Some(&status), HAND).expect("ours goes");
    assert_eq!(after["conditions"], json!([theirs]));
    assert!(!mentions(&after, HAND.controller));
}
