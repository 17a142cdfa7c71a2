//! `spec.tls.frontend` of a Gateway and `tls.options` of its listeners: what clients must show and what may be agreed on.
//!
//! What is broken closes the listener; it never opens it to clients without certificates.

use super::Work;
use super::authority::{self, REFS_MAX, Reasons};
use crate::objects::Subject;
use crate::objects::kinds::{FrontendValidation, Gateway};
use crate::status::reason;
use gateway_core::ir::{ClientMode, ClientValidation, TlsTerms, TlsVersion};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// `sluice.dev/tls-min-version`: `1.2` or `1.3`.
const VERSION_MIN: &str = "sluice.dev/tls-min-version";
/// `sluice.dev/tls-cipher-suites`: names, separated by commas, in order of preference.
const SUITES: &str = "sluice.dev/tls-cipher-suites";
/// `sluice.dev/client-certificate`: `required` (the default), or `optional`.
const CLIENT: &str = "sluice.dev/client-certificate";

/// What is wrong with a listener's TLS, where, and how bad it is.
pub(super) struct Finding {
    pub reason: &'static str,
    /// From the Gateway's root, or from the listener when it begins with a dot.
    pub field: String,
    pub problem: String,
    pub remedy: Cow<'static, str>,
    pub weight: Weight,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The listener is not served.
    Closes,
    /// A reference does not resolve; what does is used.
    Unresolved,
    /// It has no effect.
    Idle,
}

/// The validation for listeners on a port, and where it stands.
pub(super) fn of_port(gateway: &Gateway, port: u16) -> Option<(&FrontendValidation, String)> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    match frontend.per_port.iter().position(|one| one.port == port) {
        Some(index) => {
            let field = format!("spec.tls.frontend.perPort[{index}].tls.validation");
            frontend.per_port[index].tls.validation.as_ref().map(|it| (it, field))
        }
        None => {
            let field = "spec.tls.frontend.default.validation".to_owned();
            frontend.default.validation.as_ref().map(|it| (it, field))
        }
    }
}

/// Whether any port lets clients in whose certificates do not hold.
pub(super) fn is_insecure(gateway: &Gateway) -> bool {
    let Some(frontend) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else {
        return false;
    };
    let ports = frontend.per_port.iter().map(|one| &one.tls);
    ports
        .chain([&frontend.default])
        .filter_map(|port| port.validation.as_ref())
        .any(|validation| validation.mode.as_deref() == Some("AllowInsecureFallback"))
}

/// Reads a validation.
pub(super) fn clients(
    work: &Work<'_>,
    gateway: Subject<'_>,
    field: &str,
    spec: &FrontendValidation,
    found: &mut Vec<Finding>,
) -> Option<ClientValidation> {
    let mode = match spec.mode.as_deref().unwrap_or("AllowValidOnly") {
        "AllowValidOnly" => ClientMode::Required,
        "AllowInsecureFallback" => ClientMode::Unchecked,
        other => {
            found.push(Finding {
                reason: reason::UNSUPPORTED_VALUE,
                field: format!("{field}.mode"),
                problem: format!("{other:?} is no mode of validation"),
                remedy: "write AllowValidOnly or AllowInsecureFallback".into(),
                weight: Weight::Closes,
            });
            return None;
        }
    };
    let mut authorities = Vec::new();
    for (index, to) in spec.authority_refs.iter().enumerate().take(REFS_MAX) {
        let reasons = Reasons {
            kind: reason::INVALID_CA_CERTIFICATE_KIND,
        };
        match authority::resolve(work, gateway, to, reasons) {
            Ok(certificates) => authorities.extend(certificates),
            Err(bad) => found.push(Finding {
                reason: bad.reason,
                field: format!("{field}.caCertificateRefs[{index}]"),
                problem: bad.problem,
                remedy: bad.remedy,
                weight: Weight::Unresolved,
            }),
        }
    }
    authorities.sort_unstable();
    authorities.dedup();
    if authorities.is_empty() {
        found.push(Finding {
            reason: reason::NO_VALID_CA_CERTIFICATE,
            field: format!("{field}.caCertificateRefs"),
            problem: "no reference gives an authority to check clients by: the listener is not served".to_owned(),
            remedy: "name a ConfigMap with ca.crt".into(),
            weight: Weight::Closes,
        });
        return None;
    }
    Some(ClientValidation { authorities, mode })
}

/// Reads a listener's options; `clients` may be softened by one of them.
pub(super) fn options(
    options: &BTreeMap<String, String>,
    clients: &mut Option<ClientValidation>,
    found: &mut Vec<Finding>,
) -> TlsTerms {
    let mut terms = TlsTerms::default();
    let mut wrong = |key: &str, problem: String, remedy: &'static str, weight| {
        found.push(Finding {
            reason: reason::UNSUPPORTED_VALUE,
            field: format!(".tls.options[{key}]"),
            problem,
            remedy: remedy.into(),
            weight,
        });
    };
    for (key, value) in options {
        match key.as_str() {
            VERSION_MIN => match TlsVersion::parse(value) {
                Some(version) => terms.version_min = Some(version),
                None => wrong(
                    key,
                    format!("{value:?} is no version served here"),
                    "write 1.2 or 1.3",
                    Weight::Closes,
                ),
            },
            SUITES => match TlsTerms::parse_suites(value) {
                Ok(suites) => terms.suites = Some(suites),
                Err(problem) => wrong(
                    key,
                    problem,
                    "write names such as TLS_AES_128_GCM_SHA256,ECDHE-RSA-AES128-GCM-SHA256",
                    Weight::Closes,
                ),
            },
            CLIENT => match (value.as_str(), clients.as_mut()) {
                ("required", Some(_)) => {}
                ("optional", Some(clients)) if clients.mode == ClientMode::Required => {
                    clients.mode = ClientMode::Optional;
                }
                ("optional", Some(_)) => {}
                ("required" | "optional", None) => wrong(
                    key,
                    "nothing says by which authorities clients are checked".to_owned(),
                    "add spec.tls.frontend to the Gateway",
                    Weight::Closes,
                ),
                (other, _) => wrong(
                    key,
                    format!("{other:?} says nothing about client certificates"),
                    "write required or optional",
                    Weight::Closes,
                ),
            },
            other => wrong(
                other,
                "nothing here reads this option: it has no effect".to_owned(),
                "there are sluice.dev/tls-min-version, sluice.dev/tls-cipher-suites and sluice.dev/client-certificate",
                Weight::Idle,
            ),
        }
    }
    if let Some(problem) = terms.contradiction() {
        wrong(
            SUITES,
            problem.to_owned(),
            "add a suite of TLS 1.3, or lower the version",
            Weight::Closes,
        );
    }
    terms
}
