//! A compilation as text: short enough to read in a review, complete enough that nothing changes unseen.
//!
//! Every struct is taken apart without `..`, so a new field must find its place here.

use gateway_compiler::generated::ClusterIp;
use gateway_compiler::status::{ListenerStatus, ParentStatus, Status};
use gateway_compiler::{Compiled, ObjectStatus};
use gateway_core::ir::{
    AuthSpeaks, Bind, Certificate, Cors, Destination, Endpoint, Exposure, ExternalAuth, FieldEdits, Filter,
    HttpDestination, HttpMatch, HttpRule, HttpRules, HttpScope, Ir, Listener, ListenerTls, Mirror, Plane, Redirect,
    Rewrite, Service, StreamRule, StreamRules, Termination, Timeouts, TlsTerms, VirtualHost, Weighted,
};
use std::fmt::Write as _;

/// The whole result.
pub fn compiled(compiled: &Compiled) -> String {
    let Compiled {
        ir,
        statuses,
        generated,
        diagnostics,
    } = compiled;
    let mut out = Out(String::new());
    let Ir {
        listeners,
        services,
        certificates,
    } = ir;
    listeners
        .iter()
        .for_each(|(bind, listener)| out.listener(bind, listener));
    services.values().for_each(|service| out.service(service));
    for (name, Certificate { chain, key }) in certificates {
        out.line(
            0,
            format!(
                "certificate {name}: {} in chain, key {} bytes",
                chain.len(),
                key.expose().len()
            ),
        );
    }
    statuses.iter().for_each(|status| out.status(status));
    generated
        .iter()
        .filter(|service| {
            let plain = service.annotations.is_empty() && service.labels.len() == 1;
            !plain || service.cluster_ip != ClusterIp::Headless
        })
        .for_each(|service| out.line(0, format!("{service:?}")));
    diagnostics
        .iter()
        .for_each(|diagnostic| out.line(0, diagnostic.to_string()));
    out.0
}

struct Out(String);

impl Out {
    fn line(&mut self, depth: usize, text: String) {
        let _ = writeln!(self.0, "{:width$}{text}", "", width = depth * 2);
    }

    fn listener(&mut self, at: &Bind, listener: &Listener) {
        let Listener {
            bind,
            names,
            plane,
            why,
            exposure: Exposure { elsewhere, clients },
        } = listener;
        assert_eq!(at, bind, "a listener stands under its own bind");
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        self.line(
            0,
            format!("listener {bind} {} [{}] because {why}", plane.name(), names.join(" ")),
        );
        if *elsewhere {
            self.line(1, "elsewhere".to_owned());
        }
        if !clients.is_empty() {
            self.line(1, format!("for {clients:?}"));
        }
        match plane {
            Plane::Kernel(rules) | Plane::Splice(rules) => self.stream_rules(rules),
            Plane::Http(HttpRules { tls, scopes, streams }) => {
                self.line(1, format!("tls {tls}"));
                scopes.iter().for_each(|scope| self.scope(scope));
                streams.iter().for_each(|rule| self.stream_rule(rule));
            }
        }
    }

    fn stream_rules(&mut self, rules: &StreamRules) {
        let StreamRules { recognise, rules } = rules;
        self.line(1, format!("recognise {recognise:?}"));
        rules.iter().for_each(|rule| self.stream_rule(rule));
    }

    fn stream_rule(&mut self, rule: &StreamRule) {
        let StreamRule {
            listener,
            name,
            hostname,
            terminate,
            destinations,
        } = rule;
        self.line(1, format!("rule {name} of {listener} for {hostname}"));
        if let Some(Termination { certificates, tls }) = terminate {
            self.line(2, format!("TLS ends here, certificates {certificates:?}, {tls:?}"));
        }
        for Weighted { weight, to } in destinations {
            self.line(2, format!("{weight} to {}", destination(to)));
        }
    }

    fn scope(&mut self, scope: &HttpScope) {
        let HttpScope {
            listener,
            hostname,
            certificates,
            tls,
            hosts,
            guards,
        } = scope;
        let ListenerTls {
            terms: TlsTerms { version_min, suites },
            clients,
        } = tls;
        self.line(
            1,
            format!("scope {listener} for {hostname}, certificates {certificates:?}"),
        );
        if version_min.is_some() || suites.is_some() {
            self.line(2, format!("least version {version_min:?}, suites {suites:?}"));
        }
        if let Some(clients) = clients {
            self.line(2, format!("client certificates {clients:?}"));
        }
        for guard in guards {
            self.line(2, format!("first {}", guard.name));
            guard
                .filters
                .iter()
                .for_each(|filter| self.line(3, format!("{filter:?}")));
        }
        for host in hosts.iter() {
            let VirtualHost { hostname, rules } = &**host;
            self.line(2, format!("host {hostname}"));
            rules.iter().for_each(|rule| self.rule(rule));
        }
    }

    fn rule(&mut self, rule: &HttpRule) {
        let HttpRule {
            name,
            kind,
            matches,
            filters,
            destinations,
            timeouts,
            retry,
            session,
        } = rule;
        let Timeouts {
            request,
            backend_request,
        } = timeouts;
        let mut head = format!("rule {name} ({kind:?})");
        for (word, value) in [("request", request), ("backend", backend_request)] {
            if let Some(value) = value {
                let _ = write!(head, ", {word} timeout {value:?}");
            }
        }
        if let Some(retry) = retry {
            let _ = write!(head, ", {retry:?}");
        }
        if let Some(session) = session {
            let _ = write!(head, ", {session:?}");
        }
        self.line(3, head);
        for HttpMatch {
            path,
            method,
            headers,
            query,
        } in matches
        {
            let mut text = format!("match {path:?}");
            if let Some(method) = method {
                let _ = write!(text, ", method {method}");
            }
            for (word, fields) in [("header", headers), ("query", query)] {
                for field in fields {
                    let _ = write!(text, ", {word} {} {:?}", field.name, field.value);
                }
            }
            self.line(4, text);
        }
        filters.iter().for_each(|each| self.line(4, filter(each)));
        for Weighted {
            weight,
            to: HttpDestination { to, protocol, filters },
        } in destinations
        {
            self.line(4, format!("{weight} to {} over {protocol:?}", destination(to)));
            filters.iter().for_each(|each| self.line(5, filter(each)));
        }
    }

    fn service(&mut self, service: &Service) {
        let Service {
            name,
            endpoints,
            balance,
            tls,
        } = service;
        self.line(0, format!("service {name} {balance:?}"));
        if let Some(tls) = tls {
            self.line(1, format!("{tls:?}"));
        }
        for Endpoint {
            name,
            addr,
            weight,
            readiness,
        } in endpoints
        {
            self.line(1, format!("endpoint {name} {addr} weight {weight} {readiness:?}"));
        }
    }

    fn status(&mut self, status: &ObjectStatus) {
        let ObjectStatus { object, status } = status;
        self.line(0, format!("status {object}"));
        match status {
            Status::Class {
                conditions,
                supported_features,
            } => {
                conditions.iter().for_each(|c| self.line(1, c.to_string()));
                self.line(1, format!("{} features", supported_features.len()));
            }
            Status::Gateway {
                conditions,
                addresses,
                listeners,
                attached_listener_sets,
            } => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                self.line(1, format!("addresses [{}]", addresses.join(", ")));
                if *attached_listener_sets > 0 {
                    self.line(1, format!("{attached_listener_sets} listener sets"));
                }
                conditions.iter().for_each(|c| self.line(1, c.to_string()));
                listeners.iter().for_each(|each| self.listener_status(each));
            }
            Status::ListenerSet { conditions, listeners } => {
                conditions.iter().for_each(|c| self.line(1, c.to_string()));
                listeners.iter().for_each(|each| self.listener_status(each));
            }
            Status::Balancer { addresses, conditions } => {
                self.line(1, format!("addresses {addresses:?}"));
                conditions.iter().for_each(|c| self.line(1, c.to_string()));
            }
            Status::Route { parents } | Status::Policy { ancestors: parents } => {
                for ParentStatus { parent, conditions } in parents {
                    self.line(1, format!("parent {parent}"));
                    conditions.iter().for_each(|c| self.line(2, c.to_string()));
                }
            }
        }
    }
}

impl Out {
    fn listener_status(&mut self, status: &ListenerStatus) {
        let ListenerStatus {
            name,
            supported_kinds,
            attached_routes,
            conditions,
        } = status;
        self.line(
            1,
            format!("listener {name} takes {supported_kinds:?}, has {attached_routes}"),
        );
        conditions.iter().for_each(|c| self.line(2, c.to_string()));
    }
}

fn destination(to: &Destination) -> String {
    match to {
        Destination::Service(name) => name.to_string(),
        Destination::Fail { status, why } => format!("fail {status} ({why})"),
    }
}

fn filter(filter: &Filter) -> String {
    let edits = |FieldEdits { set, add, remove }: &FieldEdits| format!("set {set:?} add {add:?} remove {remove:?}");
    match filter {
        Filter::RequestHeaders(fields) => format!("request headers {}", edits(fields)),
        Filter::ResponseHeaders(fields) => format!("response headers {}", edits(fields)),
        Filter::Redirect(Redirect {
            scheme,
            hostname,
            path,
            port,
            status,
        }) => {
            format!("redirect {status} scheme {scheme:?} hostname {hostname:?} path {path:?} port {port:?}")
        }
        Filter::Rewrite(Rewrite { hostname, path }) => format!("rewrite hostname {hostname:?} path {path:?}"),
        Filter::Cors(Cors {
            origins,
            methods,
            headers,
            exposed,
            credentials,
            max_age_s,
        }) => format!(
            "cors origins {origins:?} methods {methods:?} headers {headers:?} exposed {exposed:?} credentials \
             {credentials} max-age {max_age_s} s"
        ),
        Filter::Mirror(Mirror {
            to,
            protocol,
            numerator,
            denominator,
        }) => format!(
            "mirror {numerator} of {denominator} to {} over {protocol:?}",
            destination(to)
        ),
        Filter::ExternalAuth(ExternalAuth {
            to,
            protocol,
            speaks,
            body_bytes_max,
        }) => {
            let how = match speaks {
                AuthSpeaks::Http { prefix, shown, taken } => {
                    format!("at {prefix:?}, showing {shown:?}, taking {taken:?}")
                }
                AuthSpeaks::Grpc { shown } => format!("by a call, showing {shown:?}"),
            };
            let body = match body_bytes_max {
                0 => String::new(),
                max => format!(", and bodies of {max}"),
            };
            format!("ask {} first over {protocol:?} {how}{body}", destination(to))
        }
    }
}
