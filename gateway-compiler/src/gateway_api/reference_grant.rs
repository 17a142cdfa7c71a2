//! References across namespaces: allowed only by a ReferenceGrant in the namespace they point into.

use crate::objects::{Kind, Objects};
use std::borrow::Cow;

/// The grant that is missing, to be put into a file as it stands.
pub(super) fn missing(
    (from, from_namespace): (Kind, &str),
    (to, namespace, name): (Kind, &str, &str),
) -> Cow<'static, str> {
    let (from_group, to_group) = (from.group(), to.group());
    Cow::Owned(format!(
        "add {{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {{name: {from_namespace}-to-{name}, \
         namespace: {namespace}}}, spec: {{from: [{{group: {from_group}, kind: {from}, namespace: {from_namespace}}}], \
         to: [{{group: {to_group:?}, kind: {to}, name: {name}}}]}}}}"
    ))
}

/// Whether objects of `from` in `from_namespace` may refer to the object `to` named `name` in `namespace`.
pub(super) fn allows(
    objects: &Objects,
    (from, from_namespace): (Kind, &str),
    (to, namespace, name): (Kind, &str, &str),
) -> bool {
    if from_namespace == namespace {
        return true;
    }
    objects
        .reference_grants
        .values()
        .filter(|grant| grant.id.namespace == namespace)
        .any(|grant| {
            let spec = &grant.body.spec;
            let from_fits = |f: &crate::objects::kinds::GrantFrom| {
                f.group == from.group() && f.kind == from.name() && f.namespace == from_namespace
            };
            let to_fits = |t: &crate::objects::kinds::GrantTo| {
                let named = t.name.as_deref().filter(|wanted| !wanted.is_empty());
                t.group == to.group() && t.kind == to.name() && named.is_none_or(|wanted| wanted == name)
            };
            spec.from.iter().any(from_fits) && spec.to.iter().any(to_fits)
        })
}
