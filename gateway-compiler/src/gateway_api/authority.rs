//! caCertificateRefs to the certificates of authorities: ConfigMaps (the Gateway API's own way) and Secrets, key
//! `ca.crt`, and ClusterTrustBundles.

use super::certificate::BadRef;
use super::{Work, reference_grant};
use crate::objects::kinds::ObjectRef;
use crate::objects::{Key, Kind, Subject};
use crate::pem;
use crate::status::reason;
use base64::Engine as _;

/// Most references of one list (Gateway API: 16 of a Gateway, 8 of a policy).
pub(super) const REFS_MAX: usize = 16;
const BUNDLE: &str = "ca.crt";

/// The words of whoever refers for a reference that cannot be used.
#[derive(Clone, Copy)]
pub(super) struct Reasons {
    pub kind: &'static str,
}

/// The certificates that `to` names.
pub(super) fn resolve(
    work: &Work<'_>,
    by: Subject<'_>,
    to: &ObjectRef,
    reasons: Reasons,
) -> Result<Vec<Vec<u8>>, BadRef> {
    let bad = |reason, problem: String, remedy: &'static str| BadRef {
        reason,
        problem,
        remedy: remedy.into(),
    };
    let kind = match (
        to.group.as_deref().unwrap_or(""),
        to.kind.as_deref().unwrap_or("ConfigMap"),
    ) {
        ("", "ConfigMap") => Kind::ConfigMap,
        ("", "Secret") => Kind::Secret,
        ("certificates.k8s.io", "ClusterTrustBundle") => Kind::ClusterTrustBundle,
        (group, kind) => {
            let problem = format!("authorities cannot be a {kind} of group {group:?}");
            return Err(bad(
                reasons.kind,
                problem,
                "name a ConfigMap, a Secret or a ClusterTrustBundle",
            ));
        }
    };
    if kind == Kind::ClusterTrustBundle {
        return of_cluster(work, to)
            .map_err(|(problem, remedy)| bad(reason::INVALID_CA_CERTIFICATE_REF, problem, remedy));
    }
    let namespace = to.namespace.as_deref().unwrap_or(&by.id.namespace);
    let from = (by.id.kind, by.id.namespace.as_str());
    if !reference_grant::allows(work.objects, from, (kind, namespace, &to.name)) {
        let problem = format!(
            "no ReferenceGrant in namespace {namespace} lets this {} use {kind} {}",
            by.id.kind, to.name
        );
        return Err(BadRef {
            reason: reason::REF_NOT_PERMITTED,
            problem,
            remedy: reference_grant::missing(from, (kind, namespace, &to.name)),
        });
    }
    let key = Key::new(namespace, &to.name);
    let invalid = |problem: String, remedy| bad(reason::INVALID_CA_CERTIFICATE_REF, problem, remedy);
    let missing = || invalid(format!("there is no {kind} {key}"), "add it or correct the name");
    let bundle: Vec<u8> = match kind {
        Kind::Secret => {
            let secret = work.objects.secrets.get(&key).ok_or_else(missing)?;
            pem::part(&secret.body, BUNDLE)
                .map_err(|unusable| invalid(format!("Secret {key}: {}", unusable.problem), unusable.remedy))?
        }
        _ => {
            let body = &work.objects.config_maps.get(&key).ok_or_else(missing)?.body;
            let binary = || {
                let dense: String = body.binary_data.get(BUNDLE)?.split_ascii_whitespace().collect();
                base64::engine::general_purpose::STANDARD.decode(dense).ok()
            };
            let text = body.data.get(BUNDLE).map(|text| text.clone().into_bytes());
            text.or_else(binary).ok_or_else(|| {
                let problem = format!("ConfigMap {key} has no {BUNDLE}");
                invalid(problem, "put the PEM certificates under this key")
            })?
        }
    };
    pem::authorities(&bundle).map_err(|unusable| {
        invalid(
            format!("{BUNDLE} of {kind} {key}: {}", unusable.problem),
            unusable.remedy,
        )
    })
}

/// Authorities of the whole cluster need no grant: they are in no namespace.
fn of_cluster(work: &Work<'_>, to: &ObjectRef) -> Result<Vec<Vec<u8>>, (String, &'static str)> {
    if to.namespace.is_some() {
        let problem = format!("ClusterTrustBundle {} is in no namespace, and one is named", to.name);
        return Err((problem, "remove the namespace"));
    }
    let missing = || {
        let problem = format!("there is no ClusterTrustBundle {}", to.name);
        (problem, "add it or correct the name")
    };
    let bundles = &work.objects.cluster_trust_bundles;
    let bundle = bundles.get(&Key::new("", &to.name)).ok_or_else(missing)?;
    pem::authorities(bundle.body.spec.trust_bundle.as_bytes())
        .map_err(|bad| (format!("ClusterTrustBundle {}: {}", to.name, bad.problem), bad.remedy))
}
