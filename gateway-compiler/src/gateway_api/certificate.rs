//! certificateRefs to certificates.

use super::{Work, reference_grant};
use crate::objects::kinds::ObjectRef;
use crate::objects::{Key, Kind, Object, Subject, kinds};
use crate::pem::{self, Unusable};
use crate::status::reason;
use gateway_core::ir::{Certificate, CertificateName};
use std::borrow::Cow;

/// Why a reference cannot be used.
pub(super) struct BadRef {
    pub reason: &'static str,
    pub problem: String,
    pub remedy: Cow<'static, str>,
}

impl From<Unusable> for BadRef {
    fn from(unusable: Unusable) -> Self {
        bad(reason::INVALID_CERTIFICATE_REF, unusable.problem, unusable.remedy)
    }
}

fn bad(reason: &'static str, problem: impl Into<String>, remedy: impl Into<Cow<'static, str>>) -> BadRef {
    BadRef {
        reason,
        problem: problem.into(),
        remedy: remedy.into(),
    }
}

/// Finds and reads what a listener's certificateRef names; it is then among `work.certificates`.
pub(super) fn resolve(work: &mut Work<'_>, by: Subject<'_>, to: &ObjectRef) -> Result<CertificateName, BadRef> {
    let kind = match (
        to.group.as_deref().unwrap_or(""),
        to.kind.as_deref().unwrap_or("Secret"),
    ) {
        ("", "Secret") => Kind::Secret,
        ("sluice.dev", "CertificateFile") => Kind::CertificateFile,
        (group, kind) => {
            let problem = format!("a certificate cannot be a {kind} of group {group:?}");
            return Err(bad(
                reason::INVALID_CERTIFICATE_REF,
                problem,
                "name a Secret, or a CertificateFile of sluice.dev",
            ));
        }
    };
    let namespace = to.namespace.as_deref().unwrap_or(&by.id.namespace);
    let from = (by.id.kind, by.id.namespace.as_str());
    if !reference_grant::allows(work.objects, from, (kind, namespace, &to.name)) {
        let problem = format!(
            "no ReferenceGrant in namespace {namespace} lets this {} use {kind} {}",
            by.id.kind, to.name
        );
        return Err(bad(
            reason::REF_NOT_PERMITTED,
            problem,
            reference_grant::missing(from, (kind, namespace, &to.name)),
        ));
    }
    let key = Key::new(namespace, &to.name);
    let name = match kind {
        Kind::CertificateFile => CertificateName::new(format!("CertificateFile/{key}")),
        _ => CertificateName::new(key.to_string()),
    };
    if work.certificates.contains_key(&name) {
        return Ok(name);
    }
    let objects = work.objects;
    // A CertificateFile may stand in for the Secret of the same name.
    let certificate = match (kind, objects.secrets.get(&key), objects.certificate_files.get(&key)) {
        (Kind::Secret, Some(secret), _) => pem::of_secret(&secret.body).map_err(BadRef::from),
        (_, _, Some(files)) => from_files(work, files),
        (_, _, None) => Err(bad(
            reason::INVALID_CERTIFICATE_REF,
            format!("there is no {kind} {key}"),
            "add it or correct the name",
        )),
    }?;
    work.certificates.insert(name.clone(), certificate);
    Ok(name)
}

fn from_files(work: &Work<'_>, files: &Object<kinds::CertificateFile>) -> Result<Certificate, BadRef> {
    let part = |path: Option<&str>, field: &str| -> Result<Vec<u8>, BadRef> {
        let Some(path) = path else {
            let problem = format!("CertificateFile {} has no {field}", files.key());
            return Err(bad(reason::INVALID_CERTIFICATE_REF, problem, "name the file"));
        };
        let path = files.path(path);
        let problem = match work.objects.file(&path) {
            Some(Ok(bytes)) => return Ok(bytes.to_vec()),
            Some(Err(problem)) => format!("{path}: {problem}"),
            None => format!("{path} was not read"),
        };
        Err(bad(
            reason::INVALID_CERTIFICATE_REF,
            problem,
            "make the file readable, or correct its path",
        ))
    };
    let (certificate, key) = (
        part(files.body.cert_path(), "certFile")?,
        part(files.body.key_path(), "keyFile")?,
    );
    Ok(pem::of_parts(&certificate, &key)?)
}
