//! Keeping the last good version of what broke.
//!
//! An object that is named in the new sources but cannot be used keeps its last version. A document that cannot even
//! be named might be any object of its file: every object that came from that file and is missing now is kept. An
//! object that is gone from good files is gone. A Secret or a pair of files that held a certificate and holds none any
//! more counts as broken, so that a half-written renewal cuts nobody off.

use super::{Kind, Object, ObjectId, Objects, Table};
use crate::diagnostic::{Diagnostic, Severity};
use crate::pem;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn update(previous: &Objects, mut next: Objects) -> Objects {
    let mut kept = Vec::new();
    let (broken, unreadable) = (next.broken.clone(), next.unreadable.clone());
    let mut keeper = Keeper {
        broken: &broken,
        unreadable: &unreadable,
        kept: &mut kept,
    };
    macro_rules! keep {
        ($table:ident) => {
            keeper.keep(&previous.$table, &mut next.$table)
        };
    }
    for kind in Kind::all() {
        of_kind!(kind, keep);
    }
    keep_secrets(previous, &mut next, &mut kept);
    keep_files(previous, &mut next, &mut kept);
    next.diagnostics.extend(kept);
    next.diagnostics.sort();
    next
}

/// A Secret that held a certificate and holds none any more is broken too.
fn keep_secrets(previous: &Objects, next: &mut Objects, kept: &mut Vec<Diagnostic>) {
    let of_files = previous.secrets.iter().filter(|(_, old)| old.origin.file().is_some());
    for (key, old) in of_files {
        let Some(new) = next.secrets.get_mut(key) else { continue };
        let Err(unusable) = pem::of_secret(&new.body) else {
            continue;
        };
        if new.body != old.body && pem::of_secret(&old.body).is_ok() {
            let problem = format!("{}: its last good version stays in use", unusable.problem);
            kept.push(new.subject().finding(Severity::Error, "data", problem, unusable.remedy));
            new.body = old.body.clone();
        }
    }
}

/// Certificate and key on disk are replaced one after the other: until both are good the last good pair stays.
fn keep_files(previous: &Objects, next: &mut Objects, kept: &mut Vec<Diagnostic>) {
    let pair = |objects: &Objects, paths: &[String; 2]| {
        let [certificate, key] = paths.each_ref().map(|path| objects.file(path));
        match (certificate?, key?) {
            (Ok(certificate), Ok(key)) => pem::of_parts(certificate, key).ok().map(drop),
            (Err(_), _) | (_, Err(_)) => None,
        }
    };
    let mut restore = Vec::new();
    for object in next.certificate_files.values() {
        let (Some(certificate), Some(key)) = (object.body.cert_path(), object.body.key_path()) else {
            continue;
        };
        let paths = [object.path(certificate), object.path(key)];
        if pair(next, &paths).is_none() && pair(previous, &paths).is_some() {
            let problem = "its files hold no certificate and key: the last good pair stays in use";
            kept.push(
                object
                    .subject()
                    .finding(Severity::Error, "", problem, "write both files"),
            );
            restore.extend(paths);
        }
    }
    for path in restore {
        if let Some(contents) = previous.files.get(&path) {
            next.files.insert(path, contents.clone());
        }
    }
}

struct Keeper<'u> {
    broken: &'u BTreeSet<ObjectId>,
    unreadable: &'u BTreeSet<Arc<str>>,
    kept: &'u mut Vec<Diagnostic>,
}

impl Keeper<'_> {
    /// The file, or a folder it is in, could not be read.
    fn lost(&self, file: &str) -> bool {
        self.unreadable
            .iter()
            .any(|lost| std::path::Path::new(file).starts_with(&**lost))
    }

    fn keep<T: Clone>(&mut self, previous: &Table<T>, next: &mut Table<T>) {
        for (key, object) in previous {
            let Some(file) = object.origin.file() else { continue };
            if next.contains_key(key) {
                continue;
            }
            if self.broken.contains(&object.id) || self.lost(file) {
                self.kept.push(note(object));
                next.insert(key.clone(), object.clone());
            }
        }
    }
}

pub(super) fn note<T>(object: &Object<T>) -> Diagnostic {
    // The old text's lines are not the new text's: name the file alone.
    let mut finding = object
        .subject()
        .finding(Severity::Warning, "", "its last good version stays in use", "");
    if let Some(position) = &mut finding.position {
        (position.line, position.column) = (1, 1);
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::{Source, parse};
    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\n\
                        apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 81}]}\n";

    fn read(text: &str) -> Objects {
        parse(&[Source::new("f.yaml", text)])
    }

    #[test]
    fn a_broken_object_keeps_its_last_good_version_and_is_reported() {
        let good = read(GOOD);
        let now = Objects::update(&good, read(&GOOD.replace("port: 81", "port: x")));
        assert_eq!(now.services.len(), 2);
        assert_eq!(now.services.values().nth(1).unwrap().body.spec.ports[0].port, 81);
        assert!(
            now.diagnostics
                .iter()
                .any(|d| d.to_string().contains("its last good version stays in use"))
        );
        // And again: what was kept is kept on.
        let again = Objects::update(&now, read(&GOOD.replace("port: 81", "port: y")));
        assert_eq!(again.services.len(), 2);
    }

    #[test]
    fn a_file_with_a_syntax_error_keeps_what_it_held() {
        let now = Objects::update(&read(GOOD), read(&GOOD.replace("{port: 81}]}", "{port: 81")));
        assert_eq!(now.services.len(), 2);
    }

    #[test]
    fn a_source_that_cannot_be_read_keeps_what_it_held() {
        let good = parse(&[Source::new("conf/f.yaml", GOOD)]);
        for (lost, left) in [("conf/f.yaml", 2), ("conf", 2), ("con", 0)] {
            let mut next = parse(&[]);
            next.lose(lost);
            assert_eq!(Objects::update(&good, next).services.len(), left, "{lost}");
        }
    }

    #[test]
    fn an_object_that_is_gone_is_gone() {
        let now = Objects::update(&read(GOOD), read(&GOOD[..GOOD.find("---").unwrap()]));
        assert_eq!(now.services.len(), 1);
    }

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\\nMAA=\\n-----END PRIVATE KEY-----\\n";

    #[test]
    fn a_secret_that_lost_its_certificate_keeps_the_last_one() {
        let secret = |certificate: &str| {
            read(&format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\nstringData:\n  tls.crt: \"{certificate}\"\n  \
                 tls.key: \"{KEY}\"\n"
            ))
        };
        let good = secret(CERTIFICATE);
        let now = Objects::update(&good, secret("oops"));
        assert_eq!(
            now.secrets.values().next().unwrap().body,
            good.secrets.values().next().unwrap().body
        );
        assert!(
            now.diagnostics[0]
                .to_string()
                .contains("no PEM certificate in it: its last good version")
        );
        let renewed = CERTIFICATE.replace("MAA=", "MAEA");
        assert_eq!(Objects::update(&now, secret(&renewed)), secret(&renewed));
    }

    #[test]
    fn a_half_written_pair_of_files_keeps_the_last_pair() {
        let files = |certificate: Result<Vec<u8>, String>| {
            let text = "apiVersion: sluice.dev/v1alpha1\nkind: CertificateFile\nmetadata: {name: a}\n\
                        spec: {certFile: /c, keyFile: /k}\n";
            let mut objects = read(text);
            objects.supply("/c", certificate);
            objects.supply("/k", Ok(KEY.replace("\\n", "\n").into_bytes()));
            objects
        };
        let good = CERTIFICATE.replace("\\n", "\n").into_bytes();
        for broken in [Ok(good[..30].to_vec()), Err("gone".to_owned())] {
            let now = Objects::update(&files(Ok(good.clone())), files(broken));
            assert_eq!(now.file("/c"), Some(Ok(&good[..])));
            assert_eq!(now.diagnostics.len(), 1);
        }
    }
}
