//! Spoilt certificates, keys and authorities: each is told in the Gateway API's words where it is referred to, with a
//! remedy, and costs no other listener and no other backend anything.

use base64::Engine as _;
use gateway_compiler::status::{Condition, ObjectStatus, Status};
use gateway_compiler::{Compiled, Settings, Severity, Source, compile, parse};
use gateway_core::ir::Ir;
use serde_json::{Value as Json, json};
use std::process::{Command, Stdio};

/// What the object that refers is told.
const REF: &str = "ResolvedRefs=False InvalidCertificateRef";
const AUTHORITY: &str = "ResolvedRefs=False InvalidCACertificateRef";
const NO_AUTHORITY: &str = "Accepted=False NoValidCACertificate";

/// Everything of the first name is spoilt, one after the other; the second must not notice.
const BASE: &str = r#"
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a}, spec: {gatewayClassName: sluice, addresses: [{type: IPAddress, value: 192.0.2.1}],
 tls: {frontend: {default: {validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: clients}]}}}},
 listeners: [{name: spoilt, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: spoilt}]}}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: b}, spec: {gatewayClassName: sluice, addresses: [{type: IPAddress, value: 192.0.2.2}],
 listeners: [{name: good, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: good}]}}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: b}, spec: {parentRefs: [{name: a}, {name: b}],
 rules: [{matches: [{path: {value: /spoilt}}], backendRefs: [{name: spoilt, port: 443}]}, {backendRefs: [{name: good, port: 443}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: spoilt}, spec: {ports: [{port: 443}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: good}, spec: {ports: [{port: 443}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: good, labels: {kubernetes.io/service-name: good}}, addressType: IPv4,
 ports: [{port: 8443}], endpoints: [{addresses: [10.9.9.9]}]}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: spoilt, labels: {kubernetes.io/service-name: spoilt}}, addressType: IPv4,
 ports: [{port: 8443}], endpoints: [{addresses: [10.9.9.8]}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: spoilt}, spec: {targetRefs: [{group: "", kind: Service, name: spoilt}],
 validation: {hostname: a.example, caCertificateRefs: [{group: KIND_GROUP, kind: KIND, name: spoilt}]}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: good}, spec: {targetRefs: [{group: "", kind: Service, name: good}],
 validation: {hostname: a.example, caCertificateRefs: [{group: "", kind: ConfigMap, name: good}]}}}
"#;

/// A certificate for itself and its key, made by openssl.
fn pair(subject: &str) -> (String, String) {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "30", "-subj", subject, "-keyout", "-", "-out", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("openssl, which `cargo xtask setup` installs");
    let text = String::from_utf8(output.stdout).expect("PEM");
    let at = text.find("-----BEGIN CERTIFICATE").expect("a certificate");
    let begin = text.find("-----BEGIN PRIVATE").expect("a key");
    let (certificate, key) = match at > begin {
        true => (&text[at..], &text[begin..at]),
        false => (&text[at..begin], &text[begin..]),
    };
    (certificate.to_owned(), key.to_owned())
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(body).expect("PEM")
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn secret(name: &str, certificate: &str, key: &str) -> Json {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
           "stringData": {"tls.crt": certificate, "tls.key": key}})
}

fn authority(kind: &str, name: &str, bundle: &str) -> Json {
    match kind {
        "ClusterTrustBundle" => {
            json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": kind, "metadata": {"name": name},
                                       "spec": {"trustBundle": bundle}})
        }
        "Secret" => {
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "stringData": {"ca.crt": bundle}})
        }
        _ => json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": {"ca.crt": bundle}}),
    }
}

/// `kind` is what the spoilt policy refers to.
fn compiled(kind: &str, objects: &[Json]) -> Compiled {
    let group = match kind {
        "ClusterTrustBundle" => "certificates.k8s.io",
        _ => "\"\"",
    };
    let base = BASE.replace("KIND_GROUP", group).replace("KIND", kind);
    let objects = objects.iter().map(Json::to_string).collect::<Vec<_>>().join("\n---\n");
    let sources = [Source::new("base.yaml", base), Source::new("spoilt.yaml", objects)];
    compile(&parse(&sources), &Settings::default())
}

/// What the good ones have.
fn others(ir: &Ir) -> String {
    let listeners = ir
        .listeners
        .iter()
        .filter(|(bind, _)| bind.to_string().starts_with("192.0.2.2"));
    let services = ir.services.iter().filter(|(name, _)| name.as_str().contains("/good"));
    format!("{:?} {:?}", listeners.collect::<Vec<_>>(), services.collect::<Vec<_>>())
}

fn conditions(object: &ObjectStatus) -> Vec<&Condition> {
    match &object.status {
        Status::Class { conditions, .. } => conditions.iter().collect(),
        Status::Gateway {
            conditions, listeners, ..
        }
        | Status::ListenerSet { conditions, listeners } => {
            let own = listeners.iter().flat_map(|listener| &listener.conditions);
            conditions.iter().chain(own).collect()
        }
        Status::Route { parents: told } | Status::Policy { ancestors: told } => {
            told.iter().flat_map(|parent| &parent.conditions).collect()
        }
        Status::Balancer { .. } => Vec::new(),
    }
}

/// Whether `object` is told `word`, and an error with a remedy and a place is found.
fn is_told(found: &Compiled, object: &str, word: &str) -> bool {
    let statuses = found
        .statuses
        .iter()
        .filter(|status| status.object.to_string() == object);
    let told = statuses
        .flat_map(|status| conditions(status))
        .any(|condition| condition.to_string().starts_with(word));
    let errors = found.diagnostics.iter().filter(|one| one.severity == Severity::Error);
    let mut about = errors.filter(|one| one.object.as_ref().is_some_and(|it| it.to_string() == object));
    told && about.any(|one| one.position.is_some() && !one.remedy.is_empty())
}

#[test]
fn a_spoilt_certificate_closes_its_listener_with_the_word_of_the_specification_and_no_other() {
    let (certificate, key) = pair("/CN=a.example");
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let cut = |text: &str| der(text)[..100].to_vec();
    let long = [der(&certificate), vec![0]].concat();
    let bundle = certificate.repeat(10_000);
    let legacy = key.replacen(
        "KEY-----\n",
        "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n",
        1,
    );
    let plain = |data: Json| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "spoilt"}, "type": "kubernetes.io/tls", "data": data});
    let base64 = |text: &[u8]| base64::engine::general_purpose::STANDARD.encode(text);
    let typed = |kind: &str| {
        let mut secret = secret("spoilt", &certificate, &key);
        secret["type"] = json!(kind);
        secret
    };
    let rows: Vec<(&str, Json)> = vec![
        ("the certificate cut off", secret("spoilt", &half(&certificate), &key)),
        ("the key cut off", secret("spoilt", &certificate, &half(&key))),
        (
            "DER cut off within PEM",
            secret("spoilt", &pem("CERTIFICATE", &cut(&certificate)), &key),
        ),
        (
            "DER and something after it",
            secret("spoilt", &pem("CERTIFICATE", &long), &key),
        ),
        ("no certificate", secret("spoilt", "", &key)),
        ("no key", secret("spoilt", &certificate, "")),
        ("white space", secret("spoilt", " \n\n", " \n")),
        (
            "key and certificate in each other's place",
            secret("spoilt", &key, &certificate),
        ),
        ("a certificate for a key", secret("spoilt", &certificate, &certificate)),
        (
            "a request for a certificate",
            secret(
                "spoilt",
                &certificate.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
                &key,
            ),
        ),
        (
            "a public key",
            secret("spoilt", &certificate, &key.replace("PRIVATE", "PUBLIC")),
        ),
        (
            "an encrypted key",
            secret("spoilt", &certificate, &key.replace("PRIVATE", "ENCRYPTED PRIVATE")),
        ),
        ("a key encrypted the old way", secret("spoilt", &certificate, &legacy)),
        ("10,000 certificates", secret("spoilt", &bundle, &key)),
        (
            "letters that are no base64",
            secret("spoilt", &certificate.replacen("MII", "M!!", 1), &key),
        ),
        (
            "DER in the place of PEM",
            plain(json!({"tls.crt": base64(&der(&certificate)), "tls.key": base64(&der(&key))})),
        ),
        (
            "PEM that is not encoded",
            plain(json!({"tls.crt": certificate, "tls.key": key})),
        ),
        (
            "another field",
            plain(json!({"cert": base64(certificate.as_bytes()), "key": base64(key.as_bytes())})),
        ),
        (
            "zeros",
            plain(json!({"tls.crt": base64(&[0; 4096]), "tls.key": base64(&[0; 4096])})),
        ),
        ("an opaque Secret", typed("Opaque")),
        ("a Secret of a registry", typed("kubernetes.io/dockerconfigjson")),
    ];
    let good = [
        secret("good", &certificate, &key),
        authority("ConfigMap", "clients", &certificate),
        authority("ConfigMap", "good", &certificate),
        authority("ConfigMap", "spoilt", &certificate),
    ];
    let with = |secret: &Json| compiled("ConfigMap", &[&good[..], std::slice::from_ref(secret)].concat());
    let before = with(&secret("spoilt", &certificate, &key));
    assert_eq!(before.diagnostics, []);
    for (what, secret) in &rows {
        let after = with(secret);
        assert!(
            is_told(&after, "Gateway default/a", REF),
            "{what}: {:#?}",
            after.diagnostics
        );
        assert_eq!(others(&before.ir), others(&after.ir), "{what}");
        assert!(
            !after
                .ir
                .listeners
                .keys()
                .any(|bind| bind.to_string().starts_with("192.0.2.1")),
            "{what}"
        );
    }
    println!("{} spoilt certificates and keys", rows.len());
}

#[test]
fn spoilt_authorities_open_nothing_and_are_told_in_the_words_of_the_specification() {
    let (certificate, key) = pair("/CN=authority");
    let mut cut = der(&certificate);
    cut.truncate(100);
    let half = &certificate[..certificate.len() / 2];
    let long: String = (0..5_000u16)
        .map(|n| pem("CERTIFICATE", &[&[0x30, 2], &n.to_be_bytes()[..]].concat()))
        .collect();
    let rows: Vec<(&str, String)> = vec![
        ("cut off", half.to_owned()),
        ("nothing", String::new()),
        ("words", "Hello".to_owned()),
        ("a key", key),
        ("DER cut off", pem("CERTIFICATE", &cut)),
        (
            "a good one and one that is cut off",
            format!("{certificate}{}", pem("CERTIFICATE", &cut)),
        ),
        ("5,000 certificates", long),
        ("letters that are no base64", certificate.replacen("MII", "M!!", 1)),
        ("a list of the revoked", certificate.replace("CERTIFICATE", "X509 CRL")),
    ];
    let good = [
        secret("good", &certificate, &pair("/CN=b").1),
        secret("spoilt", &certificate, &pair("/CN=c").1),
        authority("ConfigMap", "good", &certificate),
    ];
    let mut count = 0;
    for kind in ["ConfigMap", "Secret", "ClusterTrustBundle"] {
        let clients = authority("ConfigMap", "clients", &certificate);
        // One Secret cannot be both.
        let of = |bundle: &str| match kind {
            "Secret" => {
                let mut both = good[1].clone();
                both["stringData"]["ca.crt"] = json!(bundle);
                vec![good[0].clone(), both, good[2].clone()]
            }
            _ => [&good[..], &[authority(kind, "spoilt", bundle)]].concat(),
        };
        let before = compiled(kind, &[of(&certificate), vec![clients.clone()]].concat());
        assert_eq!(before.diagnostics, [], "{kind}");
        for (what, bundle) in &rows {
            count += 1;
            let after = compiled(kind, &[of(bundle), vec![clients.clone()]].concat());
            for word in [AUTHORITY, NO_AUTHORITY] {
                assert!(
                    is_told(&after, "BackendTLSPolicy default/spoilt", word),
                    "{kind}, {what}: {:#?} {:#?}",
                    after.diagnostics,
                    after.statuses
                );
            }
            assert_eq!(others(&before.ir), others(&after.ir), "{kind}, {what}");
        }
    }
    for (what, bundle) in &rows {
        count += 1;
        let bundle = authority("ConfigMap", "clients", bundle);
        let rest = [&good[..], &[authority("ConfigMap", "spoilt", &certificate)]].concat();
        let before = compiled(
            "ConfigMap",
            &[&rest[..], &[authority("ConfigMap", "clients", &certificate)]].concat(),
        );
        let after = compiled("ConfigMap", &[&rest[..], &[bundle]].concat());
        // Clients that nobody can check are not let in.
        assert!(
            !after
                .ir
                .listeners
                .keys()
                .any(|bind| bind.to_string().starts_with("192.0.2.1")),
            "{what}"
        );
        for word in [AUTHORITY, NO_AUTHORITY] {
            assert!(
                is_told(&after, "Gateway default/a", word),
                "{what}: {:#?}",
                after.diagnostics
            );
        }
        assert_eq!(others(&before.ir), others(&after.ir), "{what}");
    }
    println!("{count} spoilt bundles of authorities");
}
