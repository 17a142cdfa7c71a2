//! Keeping the last good version of what broke.
//!
//! An object that is named in the new sources but cannot be used keeps its last version. A document that cannot even
//! be named might be any object of its file: every object that came from that file and is missing now is kept. An
//! object that is gone from good files is gone.

use super::{Kind, Object, ObjectId, Objects, Table};
use crate::diagnostic::{Diagnostic, Severity};
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
    for kind in [
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TcpRoute,
        Kind::TlsRoute,
        Kind::UdpRoute,
        Kind::ReferenceGrant,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Secret,
        Kind::CertificateFile,
        Kind::Namespace,
    ] {
        match kind {
            Kind::GatewayClass => keeper.keep(&previous.gateway_classes, &mut next.gateway_classes),
            Kind::Gateway => keeper.keep(&previous.gateways, &mut next.gateways),
            Kind::HttpRoute => keeper.keep(&previous.http_routes, &mut next.http_routes),
            Kind::GrpcRoute => keeper.keep(&previous.grpc_routes, &mut next.grpc_routes),
            Kind::TcpRoute => keeper.keep(&previous.tcp_routes, &mut next.tcp_routes),
            Kind::TlsRoute => keeper.keep(&previous.tls_routes, &mut next.tls_routes),
            Kind::UdpRoute => keeper.keep(&previous.udp_routes, &mut next.udp_routes),
            Kind::ReferenceGrant => keeper.keep(&previous.reference_grants, &mut next.reference_grants),
            Kind::Service => keeper.keep(&previous.services, &mut next.services),
            Kind::EndpointSlice => keeper.keep(&previous.endpoint_slices, &mut next.endpoint_slices),
            Kind::Secret => keeper.keep(&previous.secrets, &mut next.secrets),
            Kind::CertificateFile => keeper.keep(&previous.certificate_files, &mut next.certificate_files),
            Kind::Namespace => keeper.keep(&previous.namespaces, &mut next.namespaces),
        }
    }
    // A file that cannot be read any more keeps its last contents.
    for (path, contents) in &previous.files {
        if contents.is_ok() && !matches!(next.files.get(path), Some(Ok(_))) && next.files_wanted().contains(path) {
            next.files.insert(path.clone(), contents.clone());
        }
    }
    next.diagnostics.extend(kept);
    next.diagnostics.sort();
    next
}

struct Keeper<'u> {
    broken: &'u BTreeSet<ObjectId>,
    unreadable: &'u BTreeSet<Arc<str>>,
    kept: &'u mut Vec<Diagnostic>,
}

impl Keeper<'_> {
    fn keep<T: Clone>(&mut self, previous: &Table<T>, next: &mut Table<T>) {
        for (key, object) in previous {
            if next.contains_key(key) {
                continue;
            }
            if self.broken.contains(&object.id) || self.unreadable.contains(&object.origin.file) {
                self.kept.push(note(object));
                next.insert(key.clone(), object.clone());
            }
        }
    }
}

fn note<T>(object: &Object<T>) -> Diagnostic {
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
    fn an_object_that_is_gone_is_gone() {
        let now = Objects::update(&read(GOOD), read(&GOOD[..GOOD.find("---").unwrap()]));
        assert_eq!(now.services.len(), 1);
    }
}
