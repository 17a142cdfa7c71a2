//! The tables against a naive truth: every match that holds, sorted by precedence, first wins.

use super::host::HOST_BYTES_MAX;
use super::*;
use crate::ir::{FieldMatch, HostPattern, HttpMatch, HttpRule, PathMatch, RouteKind, Timeouts, ValueMatch};
use proptest::prelude::*;
use std::cmp::Reverse;

struct List<'a>(&'a [(&'a str, &'a str)]);

impl Fields for List<'_> {
    fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(field, _)| field.as_bytes() == name)
            .map(|(_, value)| value.as_bytes())
    }
}

/// `METHOD host/path?query`, and fields.
fn find(table: &HostTable, request: &str, fields: &[(&str, &str)], tally: &mut impl Tally) -> Option<(u32, u16)> {
    let (method, target) = request.split_once(' ').unwrap();
    let (target, query) = target
        .split_once('?')
        .map_or((target, None), |(target, query)| (target, Some(query)));
    let (host, path) = target.split_at(target.find(['/', '*']).unwrap());
    let head = RequestHead {
        method: method.as_bytes(),
        host,
        path: path.as_bytes(),
        query: query.map(str::as_bytes),
        fields: &List(fields),
    };
    table
        .find_tallied(&head, tally)
        .map(|matched| (matched.rule.0, matched.prefix_len))
}

fn rule(id: u32, matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule {
        name: RuleName::new(id.to_string()),
        kind: RouteKind::Http,
        matches,
        filters: Vec::new(),
        destinations: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}

fn compile(hosts: &[Arc<VirtualHost>]) -> HostTable {
    HostTable::compile(hosts, |name| name.as_str().parse().ok().map(RuleId), None)
}

fn on(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn exact(path: &str) -> HttpMatch {
    on(PathMatch::Exact(path.to_owned()))
}

fn prefix(path: &str) -> HttpMatch {
    on(PathMatch::Prefix(path.to_owned()))
}

fn regex(path: &str) -> HttpMatch {
    on(PathMatch::Regex(path.to_owned()))
}

fn field(name: &str, value: &str) -> FieldMatch {
    FieldMatch {
        name: name.to_owned(),
        value: ValueMatch::Exact(value.to_owned()),
    }
}

/// One host for all, one rule for each match, numbered from 0.
fn any_host(matches: Vec<HttpMatch>) -> HostTable {
    let rules = matches
        .into_iter()
        .zip(0..)
        .map(|(matches, id)| rule(id, vec![matches]));
    compile(&[VirtualHost::new(HostPattern::Any, rules)])
}

#[track_caller]
fn check(table: &HostTable, request: &str, expected: Option<(u32, u16)>) {
    assert_eq!(find(table, request, &[], &mut ()), expected, "{request}");
}

#[test]
fn paths_rank_exact_then_longest_prefix_then_pattern_then_root() {
    let table = any_host(vec![
        prefix("/"),
        regex("/a.*"),
        prefix("/a/b"),
        exact("/a/b"),
        prefix("/a/b/c/"),
    ]);
    check(&table, "GET h/a/b", Some((3, 0)));
    check(&table, "GET h/a/b/c", Some((4, 6)));
    check(&table, "GET h/a/b/x", Some((2, 4)));
    check(&table, "GET h/a/bx", Some((1, 0)));
    check(&table, "GET h/x", Some((0, 0)));
    check(&table, "OPTIONS h*", Some((0, 0)));
}

#[test]
fn an_exact_path_is_not_the_same_with_a_trailing_slash() {
    let table = any_host(vec![exact("/a")]);
    check(&table, "GET h/a", Some((0, 0)));
    check(&table, "GET h/a/", None);
}

#[test]
fn conditions_rank_method_then_headers_then_query_then_order() {
    let header = |count| (0..count).map(|n| field(&format!("h{n}"), "1")).collect();
    let table = any_host(vec![
        exact("/"),
        HttpMatch {
            query: vec![field("q", "1"), field("r", "1")],
            ..exact("/")
        },
        HttpMatch {
            headers: header(1),
            query: vec![field("q", "1")],
            ..exact("/")
        },
        HttpMatch {
            headers: header(2),
            ..exact("/")
        },
        HttpMatch {
            method: Some("PUT".to_owned()),
            ..exact("/")
        },
        exact("/"),
    ]);
    let all = [("h0", "1"), ("h1", "1")];
    for (request, fields, expected) in [
        ("PUT h/?q=1&r=1", &all[..], 4),
        ("GET h/?q=1&r=1", &all[..], 3),
        ("GET h/?q=1&r=1", &all[..1], 2),
        ("GET h/?q=1&r=1", &[][..], 1),
        ("GET h/?q=1", &[][..], 0),
    ] {
        assert_eq!(
            find(&table, request, fields, &mut ()),
            Some((expected, 0)),
            "{request} {fields:?}"
        );
    }
}

#[test]
fn hosts_rank_exact_then_longer_wildcards_and_give_way_when_no_rule_of_theirs_matches() {
    let host = |hostname: Option<&str>, id, path: &str| {
        VirtualHost::new(HostPattern::parse(hostname), [rule(id, vec![prefix(path)])])
    };
    let table = compile(&[
        host(None, 0, "/"),
        host(Some("*.example.com"), 1, "/w"),
        host(Some("*.a.example.com"), 2, "/w"),
        host(Some("x.a.example.com"), 3, "/x"),
    ]);
    check(&table, "GET x.a.example.com/x", Some((3, 2)));
    check(&table, "GET x.a.example.com/w", Some((2, 2)));
    check(&table, "GET a.example.com/w", Some((1, 2)));
    check(&table, "GET example.com/w", Some((0, 0)));
    check(&table, "GET .example.com/w", Some((0, 0)));
    let long = format!("GET {}.example.com/w", "a".repeat(HOST_BYTES_MAX));
    check(&table, &long, Some((0, 0)));
}

#[test]
fn of_two_hosts_with_the_same_name_the_earlier_is_asked_first() {
    let host = |id, path: PathMatch| {
        let name = HostPattern::parse(Some("a.example.com"));
        VirtualHost::new(name, [rule(id, vec![on(path)])])
    };
    let table = compile(&[
        host(0, PathMatch::Prefix("/".to_owned())),
        host(1, PathMatch::Exact("/x".to_owned())),
    ]);
    check(&table, "GET a.example.com/x", Some((0, 0)));
}

#[test]
fn a_pattern_that_can_not_be_compiled_never_matches() {
    let broken = ValueMatch::Regex("(".to_owned());
    let header = FieldMatch {
        name: "a".to_owned(),
        value: broken,
    };
    let table = any_host(vec![
        regex("/("),
        HttpMatch {
            headers: vec![header],
            ..exact("/")
        },
    ]);
    assert_eq!(find(&table, "GET h/", &[("a", "(")], &mut ()), None);
}

/// Found by chance: the order of their texts decided.
#[test]
fn patterns_of_equal_length_rank_by_their_conditions_and_then_by_order() {
    let put = HttpMatch {
        method: Some("PUT".to_owned()),
        ..regex("/.*b")
    };
    let table = any_host(vec![regex("/a.*"), regex("/.*c"), put]);
    check(&table, "GET h/abc", Some((0, 0)));
    check(&table, "PUT h/ab", Some((2, 0)));
}

/// Steps of a lookup, at worst, over hits and misses in a table of `routes` routes.
fn steps(routes: usize) -> u32 {
    let hosts: Vec<Arc<VirtualHost>> = (0..routes / 16)
        .map(|host| {
            let name = HostPattern::parse(Some(&format!("*.team-{host}.example.com")));
            let paths = (0..8).map(|n| prefix(&format!("/svc-{n}/v1"))).collect();
            VirtualHost::new(name, [rule(host as u32, paths)])
        })
        .chain([VirtualHost::new(
            HostPattern::Any,
            (0..routes / 2).map(|n| {
                let path = match n % 2 {
                    0 => prefix(&format!("/p/{n}")),
                    _ => exact(&format!("/e/{n}")),
                };
                rule(n as u32, vec![path])
            }),
        )])
        .collect();
    let table = compile(&hosts);
    let asked = (0..routes).step_by((routes / 500).max(1)).flat_map(|n| {
        [
            format!("GET a.b.team-{n}.example.com/svc-{}/v1/x", n % 8),
            format!("GET h.example.com/p/{n}/x"),
            format!("GET h.example.com/e/{n}"),
            format!("GET h.example.com/nothing/{n}"),
        ]
    });
    asked.map(|request| tallied(&table, &request)).max().unwrap()
}

fn tallied(table: &HostTable, request: &str) -> u32 {
    let mut tally = 0;
    find(table, request, &[], &mut tally);
    tally
}

#[test]
fn ten_thousand_routes_take_a_few_steps_more_than_thirty_two() {
    let (few, many) = (steps(32), steps(10_000));
    // A tree of 5,000 numbers is up to four digits deep, each found among ten by at most four comparisons.
    assert!(many <= few + 16, "{few} steps for 32 routes, {many} for 10,000");
    assert!(many <= 64, "{many}");
}

// === The naive truth ===

fn value_holds(expected: &ValueMatch, value: Option<&str>) -> bool {
    value.is_some_and(|value| match expected {
        ValueMatch::Exact(text) => text == value,
        ValueMatch::Regex(pattern) => ::regex::Regex::new(&format!("^(?:{pattern})$"))
            .unwrap()
            .is_match(value),
    })
}

fn path_rank(path: &PathMatch, asked: &str) -> Option<(u8, usize)> {
    match path {
        PathMatch::Exact(exact) => (exact == asked).then_some((3, 0)),
        PathMatch::Prefix(prefix) => {
            let prefix: Vec<&str> = prefix
                .split('/')
                .skip(1)
                .filter(|segment| !segment.is_empty())
                .collect();
            let asked: Vec<&str> = asked.split('/').skip(1).collect();
            let len = prefix.iter().map(|segment| segment.len() + 1).sum();
            asked
                .starts_with(&prefix)
                .then_some((if len == 0 { 0 } else { 2 }, len))
        }
        PathMatch::Regex(pattern) => {
            let regex = ::regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
            regex.is_match(asked).then_some((1, pattern.len()))
        }
    }
}

fn naive(hosts: &[Arc<VirtualHost>], asked: &Asked) -> Option<(u32, u16)> {
    let mut found = Vec::new();
    let mut order = 0;
    for (tier, host) in hosts.iter().enumerate() {
        for rule in &host.rules {
            for matches in &rule.matches {
                order += 1;
                let Some(rank) = path_rank(&matches.path, &asked.path) else {
                    continue;
                };
                let header = |name: &str| asked.fields.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
                let query = |name: &str| asked.query.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
                let holds = host.hostname.matches(asked.host)
                    && matches.method.as_deref().is_none_or(|method| method == asked.method)
                    && matches.headers.iter().all(|h| value_holds(&h.value, header(&h.name)))
                    && matches.query.iter().all(|q| value_holds(&q.value, query(&q.name)));
                if holds {
                    let conditions = (matches.method.is_some(), matches.headers.len(), matches.query.len());
                    let key = (
                        Reverse(host.hostname.specificity()),
                        tier,
                        Reverse(rank),
                        Reverse(conditions),
                        order,
                    );
                    let prefix_len = if matches!(matches.path, PathMatch::Prefix(_)) {
                        rank.1 as u16
                    } else {
                        0
                    };
                    found.push((key, rule.name.as_str().parse().unwrap(), prefix_len));
                }
            }
        }
    }
    found.into_iter().min().map(|(_, rule, prefix_len)| (rule, prefix_len))
}

// === Random tables and requests from small alphabets, so that they meet ===

#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    host: &'static str,
    path: String,
    query: Vec<(&'static str, &'static str)>,
    fields: Vec<(&'static str, &'static str)>,
}

fn a_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "abc"]);
    (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, slash)| {
        format!(
            "/{}{}",
            segments.join("/"),
            if slash && !segments.is_empty() { "/" } else { "" }
        )
    })
}

fn pairs() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let name = prop::sample::select(vec!["x", "y", "xy"]);
    prop::collection::vec((name, prop::sample::select(vec!["1", "2", ""])), 0..4)
}

fn field_matches() -> impl Strategy<Value = Vec<FieldMatch>> {
    let value = prop_oneof![
        3 => prop::sample::select(vec!["1", "2", ""]).prop_map(|value| ValueMatch::Exact(value.to_owned())),
        1 => prop::sample::select(vec!["[12]", "1|", ".*"]).prop_map(|value| ValueMatch::Regex(value.to_owned())),
    ];
    let names = prop::sample::subsequence(vec!["x", "y"], 0..=2);
    (names, prop::collection::vec(value, 2)).prop_map(|(names, values)| {
        names
            .into_iter()
            .zip(values)
            .map(|(name, value)| FieldMatch {
                name: name.to_owned(),
                value,
            })
            .collect()
    })
}

fn a_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        2 => a_path().prop_map(PathMatch::Exact),
        4 => a_path().prop_map(PathMatch::Prefix),
        1 => prop::sample::select(vec!["/a.*", "/[ab]/b", "/(a|ab)(/.*)?", "/.*c"])
            .prop_map(|pattern| PathMatch::Regex(pattern.to_owned())),
    ];
    let method = prop::option::weighted(0.3, prop::sample::select(vec!["GET".to_owned(), "PUT".to_owned()]));
    let some = |fields| prop_oneof![3 => Just(Vec::new()), 1 => fields];
    (
        path,
        method,
        some(field_matches().boxed()),
        some(field_matches().boxed()),
    )
        .prop_map(|(path, method, headers, query)| HttpMatch {
            path,
            method,
            headers,
            query,
        })
}

fn virtual_hosts() -> impl Strategy<Value = Vec<Arc<VirtualHost>>> {
    let name = prop::sample::select(vec!["a.com", "b.a.com", "*.a.com", "*.b.a.com", "*.com", "*"]);
    let rules = prop::collection::vec(prop::collection::vec(a_match(), 1..3), 1..6);
    prop::collection::vec((name, rules), 1..5).prop_map(|hosts| {
        let mut id = 0..;
        let mut rules_of = |rules: Vec<Vec<HttpMatch>>| {
            rules
                .into_iter()
                .zip(&mut id)
                .map(|(matches, id)| rule(id, matches))
                .collect::<Vec<_>>()
        };
        hosts
            .into_iter()
            .map(|(name, rules)| VirtualHost::new(HostPattern::parse(Some(name)), rules_of(rules)))
            .collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let host = prop::sample::select(vec!["a.com", "b.a.com", "c.b.a.com", "x.com", "org", "com"]);
    (
        prop::sample::select(vec!["GET", "PUT", "POST"]),
        host,
        a_path(),
        pairs(),
        pairs(),
    )
        .prop_map(|(method, host, path, query, fields)| Asked {
            method,
            host,
            path,
            query,
            fields,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_tables_find_what_sorting_all_matches_finds(
        hosts in virtual_hosts(),
        requests in prop::collection::vec(asked(), 1..20),
    ) {
        let table = compile(&hosts);
        for asked in requests {
            let query: Vec<String> = asked.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let request = format!("{} {}{}?{}", asked.method, asked.host, asked.path, query.join("&"));
            prop_assert_eq!(find(&table, &request, &asked.fields, &mut ()), naive(&hosts, &asked), "{}", request);
        }
    }
}
