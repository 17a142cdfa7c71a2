//! Of plans: names, what is kept, what is refused.

use super::*;
use gateway_core::ir::{Certificate, ClientValidation, HostPattern, SecretBytes};
use gateway_core::snapshot::HttpPlan;
use gateway_core::snapshot::ListenerPlan;
use rcgen::{CertificateParams, KeyPair};

fn certificate(name: &str) -> Arc<Certificate> {
    until(name, 2100)
}

/// Valid until the first day of `year`.
fn until(name: &str, year: i32) -> Arc<Certificate> {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    Arc::new(Certificate {
        chain: vec![params.self_signed(&key).unwrap().der().to_vec()],
        key: SecretBytes::new(key.serialize_der()),
    })
}

fn asking(authority: &Certificate, mode: ClientMode) -> ListenerTls {
    ListenerTls {
        clients: Some(ClientValidation {
            authorities: vec![authority.chain[0].clone()],
            mode,
        }),
        ..ListenerTls::default()
    }
}

fn snapshot_of(scopes: &[(&str, &str, ListenerTls)], certificates: &[(&str, &Arc<Certificate>)]) -> Snapshot {
    let scope = |(host, certificate, tls): &(&str, &str, ListenerTls)| ScopePlan {
        listener: (*host).into(),
        hostname: HostPattern::parse(Some(host)),
        certificates: vec![(*certificate).into()],
        tls: tls.clone(),
        hosts: Default::default(),
        guards: Vec::new(),
    };
    let listener = ListenerPlan {
        bind: Bind::tcp("192.0.2.1:443".parse().unwrap()),
        names: vec![],
        why: String::new(),
        exposure: Default::default(),
        serve: Serve::Http(HttpPlan::new(true, scopes.iter().map(scope).collect())),
    };
    Snapshot {
        listeners: vec![Some(listener)],
        certificates: certificates
            .iter()
            .map(|(name, it)| ((*name).into(), (*it).clone()))
            .collect(),
        ..Snapshot::default()
    }
}

fn snapshot(scopes: &[(&str, &str)], certificates: &[(&str, &Arc<Certificate>)]) -> Snapshot {
    let scopes: Vec<_> = scopes
        .iter()
        .map(|(host, certificate)| (*host, *certificate, ListenerTls::default()))
        .collect();
    snapshot_of(&scopes, certificates)
}

fn compiler() -> TlsCompiler {
    TlsCompiler::new(TlsSettings::default())
}

fn leaf(plans: &TlsPlans, name: Option<&str>) -> Option<Vec<u8>> {
    let names = &plans.listener(ListenerId(0)).unwrap().names;
    Some(names.of(name)?.first()?.cert[0].to_vec())
}

#[test]
fn a_name_finds_its_exact_scope_then_the_longest_wildcard_then_any() {
    let (exact, long, short, any) = (certificate("a"), certificate("b"), certificate("c"), certificate("d"));
    let scopes = [
        ("a.b.example.com", "exact"),
        ("*.b.example.com", "long"),
        ("*.example.com", "short"),
        ("*", "any"),
    ];
    let all = [("exact", &exact), ("long", &long), ("short", &short), ("any", &any)];
    let plans = compiler().compile(&snapshot(&scopes, &all));
    assert_eq!(plans.problems, []);
    for (name, expected) in [
        ("a.b.example.com", &exact),
        ("x.b.example.com", &long),
        ("y.x.b.example.com", &long),
        ("b.example.com", &short),
        ("example.com", &any),
    ] {
        assert_eq!(leaf(&plans, Some(name)).as_ref(), Some(&expected.chain[0]), "{name}");
    }
    assert_eq!(leaf(&plans, None).as_ref(), Some(&any.chain[0]));
}

#[test]
fn a_name_of_no_scope_gets_nothing_and_no_name_gets_the_default() {
    let one = certificate("a");
    let plans = compiler().compile(&snapshot(&[("a.example.com", "one")], &[("one", &one)]));
    assert_eq!(leaf(&plans, Some("b.example.com")), None);
    assert!(leaf(&plans, None).is_some());
}

#[test]
fn an_unchanged_listener_keeps_its_configuration_and_a_changed_one_does_not() {
    let (one, two) = (certificate("a"), certificate("a"));
    let mut compiler = compiler();
    let mut config = |certificate| {
        let plans = compiler.compile(&snapshot(&[("a.example.com", "it")], &[("it", certificate)]));
        Arc::clone(&plans.listener(ListenerId(0)).unwrap().only().unwrap().config)
    };
    let first = config(&one);
    let copy = Arc::new((*one).clone());
    assert!(Arc::ptr_eq(&first, &config(&copy)));
    let renewed = config(&two);
    assert!(!Arc::ptr_eq(&first, &renewed));
    assert!(
        Arc::ptr_eq(&first.ticketer, &renewed.ticketer),
        "a renewal keeps the tickets good"
    );
}

#[test]
fn a_broken_certificate_costs_its_scope_and_says_why_and_no_wildcard_answers_for_it() {
    let good = certificate("a");
    let bad = Arc::new(Certificate {
        chain: good.chain.clone(),
        key: SecretBytes::new(vec![1, 2, 3]),
    });
    let foreign = Arc::new(Certificate {
        chain: good.chain.clone(),
        key: certificate("b").key.clone(),
    });
    let scopes = [
        ("b.example.com", "bad"),
        ("c.example.com", "foreign"),
        ("*.example.com", "good"),
    ];
    let all = [("good", &good), ("bad", &bad), ("foreign", &foreign)];
    let plans = compiler().compile(&snapshot(&scopes, &all));
    assert!(leaf(&plans, Some("a.example.com")).is_some());
    assert_eq!(leaf(&plans, Some("b.example.com")), None);
    let whys: Vec<_> = plans.problems.iter().map(|problem| problem.why.as_str()).collect();
    assert_eq!(whys.len(), 4, "{whys:?}");
    assert!(whys[0].contains("neither PKCS#8"), "{whys:?}");
    assert!(whys[2].contains("does not belong"), "{whys:?}");
}

#[test]
fn a_renewal_that_is_no_good_leaves_the_old_certificate_in_place_and_is_told() {
    let good = certificate("a");
    let foreign = Arc::new(Certificate {
        chain: certificate("a").chain.clone(),
        key: good.key.clone(),
    });
    for (renewal, word) in [(foreign, "does not belong"), (until("a", 2001), "expired")] {
        let mut compiler = compiler();
        let mut step = |it| compiler.compile(&snapshot(&[("a.example.com", "it")], &[("it", it)]));
        assert_eq!(step(&good).problems, []);
        let plans = step(&renewal);
        assert_eq!(leaf(&plans, Some("a.example.com")).as_ref(), Some(&good.chain[0]));
        assert!(plans.problems[0].why.contains(word), "{:?}", plans.problems);
        assert!(
            plans.problems[0].why.contains("the one before stays"),
            "{:?}",
            plans.problems
        );
        let next = certificate("a");
        let plans = step(&next);
        assert_eq!(
            (leaf(&plans, None), plans.problems.len()),
            (Some(next.chain[0].clone()), 0)
        );
    }
}

#[test]
fn listeners_that_ask_differently_share_neither_tickets_nor_configuration() {
    let (site, authority, other) = (certificate("a"), certificate("ca"), certificate("cb"));
    let scopes = [
        ("a.example.com", "site", asking(&authority, ClientMode::Required)),
        ("b.example.com", "site", ListenerTls::default()),
        ("c.example.com", "site", asking(&authority, ClientMode::Required)),
    ];
    let mut compiler = compiler();
    let plans = compiler.compile(&snapshot_of(&scopes, &[("site", &site)]));
    assert_eq!(plans.problems, []);
    let listener = plans.listener(ListenerId(0)).unwrap();
    assert!(listener.only().is_none());
    let class = |name| listener.of(Some(name)).unwrap();
    assert!(class("a.example.com").check.is_some() && class("b.example.com").check.is_none());
    assert!(Arc::ptr_eq(
        &class("a.example.com").config,
        &class("c.example.com").config
    ));
    let tickets = |name| Arc::clone(&class(name).config.ticketer);
    assert!(!Arc::ptr_eq(&tickets("a.example.com"), &tickets("b.example.com")));
    assert!(listener.of(Some("d.example.com")).is_none());
    // Another authority: what the old one vouched for opens nothing.
    let changed = [
        ("a.example.com", "site", asking(&other, ClientMode::Required)),
        scopes[1].clone(),
    ];
    let plans = compiler.compile(&snapshot_of(&changed, &[("site", &site)]));
    let now = plans
        .listener(ListenerId(0))
        .unwrap()
        .of(Some("a.example.com"))
        .unwrap();
    assert!(!Arc::ptr_eq(&tickets("a.example.com"), &now.config.ticketer));
    let same = plans
        .listener(ListenerId(0))
        .unwrap()
        .of(Some("b.example.com"))
        .unwrap();
    assert!(Arc::ptr_eq(&tickets("b.example.com"), &same.config.ticketer));
}

#[test]
fn clients_that_cannot_be_checked_close_the_listener() {
    let site = certificate("a");
    let nothing = Certificate {
        chain: vec![vec![0x30, 0]],
        key: SecretBytes::new(vec![]),
    };
    let scopes = [("a.example.com", "site", asking(&nothing, ClientMode::Required))];
    let plans = compiler().compile(&snapshot_of(&scopes, &[("site", &site)]));
    assert!(plans.listener(ListenerId(0)).is_none());
    assert!(
        plans.problems[0].why.contains("none of the authorities"),
        "{:?}",
        plans.problems
    );
}

#[test]
fn early_data_is_off_and_the_settings_bind_where_a_listener_is_silent() {
    let site = certificate("a");
    let mut settings = TlsSettings::default();
    settings.set("tls.minVersion", "1.3").unwrap();
    settings.set("tls.cipherSuites", "TLS_AES_256_GCM_SHA384").unwrap();
    let plans = TlsCompiler::new(settings).compile(&snapshot(&[("*", "site")], &[("site", &site)]));
    let config = &plans.listener(ListenerId(0)).unwrap().only().unwrap().config;
    assert_eq!(config.max_early_data_size, 0);
    let suites = &config.crypto_provider().cipher_suites;
    assert_eq!(suites.len(), 1);
    assert_eq!(u16::from(suites[0].suite()), 0x1302);
}

#[test]
fn a_name_among_a_thousand_costs_what_one_of_ten_costs() {
    // Lookups are counted, not timed: a hash each for the name and for each of its suffixes.
    let mut names = Names::default();
    for n in 0..1000 {
        names.push(&HostPattern::parse(Some(&format!("s{n}.example.com"))), Vec::new(), n);
    }
    for n in 0..1000 {
        assert_eq!(names.class_of(Some(&format!("s{n}.example.com"))), Some(n));
    }
    assert_eq!(names.class_of(Some("s1000.example.com")), None);
    let started = std::time::Instant::now();
    for _ in 0..100_000 {
        names.class_of(Some("s777.example.com"));
    }
    assert!(
        started.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}
