//! Label selectors on namespaces.

use crate::objects::kinds::LabelSelector;
use crate::objects::{Key, Objects};
use std::collections::BTreeMap;

/// Whether a label selector picks a namespace. Every namespace has its name as a label, as in a cluster.
pub(super) fn selects(objects: &Objects, selector: &LabelSelector, namespace: &str) -> bool {
    let none = BTreeMap::new();
    let object = objects.namespaces.get(&Key::new("", namespace));
    let labels = object.map_or(&none, |object| &object.meta.labels);
    let label = |key: &str| match (labels.get(key), key) {
        (Some(value), _) => Some(value.as_str()),
        (None, "kubernetes.io/metadata.name") => Some(namespace),
        (None, _) => None,
    };
    selector
        .match_labels
        .iter()
        .all(|(key, value)| label(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| {
            let value = label(&expression.key);
            let listed = value.is_some_and(|value| expression.values.iter().any(|v| v == value));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
