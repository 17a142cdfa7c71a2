//! Certificates that are over, nearly over, or for other names than the listeners that show them.

use crate::control::told;
use crate::worker::tls::{keys, x509};
use gateway_compiler::objects::Objects;
use gateway_compiler::{Diagnostic, Severity};
use gateway_core::ir::{CertificateName, HostPattern, Ir, Plane};

/// What ends within so long should be renewed by now.
const SOON_S: i64 = 30 * DAY_S;
const DAY_S: i64 = 86_400;

/// Of every certificate that some listener shows. `now_s`: seconds since 1970.
pub(super) fn findings(ir: &Ir, objects: &Objects, now_s: i64) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, certificate) in &ir.certificates {
        let Some(subject) = told::subject(objects, name) else {
            continue;
        };
        let Some(facts) = certificate.chain.first().and_then(|der| x509::facts(der)) else {
            let remedy = "write the certificate anew";
            found.push(subject.finding(Severity::Error, "", "its certificate is no X.509 certificate", remedy));
            continue;
        };
        if let Some(why) = keys::fault(certificate) {
            found.push(subject.finding(Severity::Error, "", why, told::REMEDY));
        }
        found.extend(age(&facts, now_s).map(|(severity, problem)| subject.finding(severity, "", problem, "renew it")));
        let mut hostnames: Vec<&HostPattern> = shown_for(ir, name).filter(|host| !covers(&facts.dns, host)).collect();
        hostnames.sort();
        hostnames.dedup();
        for hostname in hostnames {
            let problem = format!(
                "a listener for {hostname} shows it, and it is for {}",
                listed(&facts.dns)
            );
            let remedy = "name a certificate for that hostname, or correct the listener's";
            found.push(subject.finding(Severity::Warning, "", problem, remedy));
        }
    }
    found
}

fn age(facts: &x509::CertificateFacts, now_s: i64) -> Option<(Severity, String)> {
    let days = |seconds: i64| seconds / DAY_S;
    if facts.not_after < now_s {
        let problem = format!("its certificate ended {} days ago", days(now_s - facts.not_after));
        return Some((Severity::Error, problem));
    }
    if facts.not_before > now_s {
        let problem = format!("its certificate begins in {} days", days(facts.not_before - now_s));
        return Some((Severity::Error, problem));
    }
    let left = facts.not_after - now_s;
    (left < SOON_S).then(|| {
        (
            Severity::Warning,
            format!("its certificate ends in {} days", days(left)),
        )
    })
}

/// Hostnames of the listeners that show a certificate first.
fn shown_for<'i>(ir: &'i Ir, name: &CertificateName) -> impl Iterator<Item = &'i HostPattern> {
    let rules = ir.listeners.values().filter_map(|listener| match &listener.plane {
        Plane::Http(rules) => Some(rules),
        Plane::Kernel(_) | Plane::Splice(_) => None,
    });
    let scopes = rules.flat_map(|rules| &rules.scopes);
    // Of several the client gets the one that fits: only a single one must.
    scopes
        .filter(move |scope| scope.certificates.len() == 1 && scope.certificates.contains(name))
        .map(|scope| &scope.hostname)
}

/// RFC 6125 6.4.3: a wildcard stands for one label.
fn covers(names: &[String], hostname: &HostPattern) -> bool {
    let wanted = match hostname {
        HostPattern::Any => return true,
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    };
    let parent = wanted.split_once('.').map(|(_, parent)| parent);
    names.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        name == wanted || (parent.is_some() && name.strip_prefix("*.") == parent)
    })
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "no name".to_owned(),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["*.example.com".to_owned(), "A.example.org".to_owned()];
        for (host, covered) in [
            ("a.example.com", true),
            ("*.example.com", true),
            ("a.b.example.com", false),
            ("example.com", false),
            ("a.example.org", true),
            ("*.example.org", false),
            ("*", true),
        ] {
            assert_eq!(covers(&names, &HostPattern::parse(Some(host))), covered, "{host}");
        }
    }

    #[test]
    fn what_is_over_is_an_error_and_what_ends_soon_a_warning() {
        let facts = |from_days: i64, to_days: i64| x509::CertificateFacts {
            not_before: from_days * DAY_S,
            not_after: to_days * DAY_S,
            ..x509::CertificateFacts::default()
        };
        let severity = |facts| age(&facts, 100 * DAY_S).map(|(severity, _)| severity);
        assert_eq!(severity(facts(0, 99)), Some(Severity::Error));
        assert_eq!(severity(facts(101, 400)), Some(Severity::Error));
        assert_eq!(severity(facts(0, 120)), Some(Severity::Warning));
        assert_eq!(severity(facts(0, 200)), None);
    }
}
