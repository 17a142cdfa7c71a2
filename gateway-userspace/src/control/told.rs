//! What the workers found wrong with a certificate, said of the object that holds it, where that was written.

use crate::worker::TlsProblem;
use gateway_compiler::Severity;
use gateway_compiler::objects::{Key, Objects, Subject};
use gateway_core::ir::CertificateName;

pub const REMEDY: &str = "give a certificate that holds, with the key it was made for";

/// One line: with file, line and remedy where it is about an object.
pub fn line(objects: &Objects, problem: &TlsProblem) -> String {
    let subject = problem.certificate.as_ref().and_then(|name| subject(objects, name));
    match subject {
        Some(subject) => subject
            .finding(Severity::Error, "", problem.to_string(), REMEDY)
            .to_string(),
        None => problem.to_string(),
    }
}

/// The object that a certificate is called after.
pub fn subject<'o>(objects: &'o Objects, name: &CertificateName) -> Option<Subject<'o>> {
    let (file, name) = match name.as_str().strip_prefix("CertificateFile/") {
        Some(name) => (true, name),
        None => (false, name.as_str()),
    };
    let (namespace, name) = name.split_once('/')?;
    let key = Key::new(namespace, name);
    match file {
        true => objects.certificate_files.get(&key).map(|object| object.subject()),
        false => objects.secrets.get(&key).map(|object| object.subject()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_compiler::{Source, parse};

    #[test]
    fn a_certificate_that_cannot_be_used_is_said_where_its_object_stands() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n";
        let objects = parse(&[Source::new("f.yaml", secret)]);
        let problem = |name: &str| TlsProblem {
            at: "192.0.2.1:443".to_owned(),
            certificate: Some(CertificateName::new(name)),
            why: "no".to_owned(),
        };
        let told = line(&objects, &problem("default/a"));
        assert!(
            told.starts_with("f.yaml:1:1: error: Secret default/a: 192.0.2.1:443: no (mend: "),
            "{told}"
        );
        assert_eq!(line(&objects, &problem("default/b")), "192.0.2.1:443: no");
    }
}
