//! Gateway API objects to the IR.
//!
//! Gateways become listeners, conflicts are settled, routes are converted and attached, and what stands on one
//! address and port is merged. Every step adds to statuses and diagnostics; none can fail.

mod address;
mod assemble;
mod attach;
mod authority;
mod backend_ref;
mod backend_tls;
mod certificate;
mod class;
mod client_certificate;
mod condition;
mod conflict;
mod duration;
mod endpoints;
mod external;
mod features;
mod filters;
mod frontend_tls;
mod gateway;
mod grpc_route;
mod hostname;
mod http_route;
mod infrastructure;
mod listener;
mod listener_filters;
mod listener_set;
mod load_balancer;
mod matches;
pub(crate) mod memo;
mod packets;
mod parameters;
mod rank;
mod reference_grant;
mod retry;
mod roster;
mod routability;
mod route;
mod selector;
mod session;
mod shadowed;
mod stream_route;
mod tables;
mod told;
mod topology;
mod wanted;

use crate::objects::{EndpointSlices, Objects};
use crate::{Compiled, Diagnostic, Settings};
use gateway_core::ir::{Certificate, CertificateName, Service, ServiceName};
use memo::{Memo, Same, Terms};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wanted::Asked;

/// What every step reads and adds to.
pub(crate) struct Work<'o> {
    objects: &'o Objects,
    settings: &'o Settings,
    slices: OnceCell<EndpointSlices<'o>>,
    /// Services that show a certificate, beside those of the memo.
    shown: BTreeMap<ServiceName, Arc<Service>>,
    /// Services that some listener names.
    named: BTreeSet<ServiceName>,
    certificates: BTreeMap<CertificateName, Certificate>,
    policies: backend_tls::Policies<'o>,
    found: Vec<Diagnostic>,
    /// By the route that is converted.
    asked: Asked,
    memo: Memo,
    same: Same,
}

impl<'o> Work<'o> {
    fn slices(&self) -> &EndpointSlices<'o> {
        self.slices.get_or_init(|| self.objects.endpoint_slices_by_service())
    }

    fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.memo.made.services.get(name).or_else(|| self.shown.get(name))
    }
}

/// With what the compilation before left, and what this one leaves.
pub(crate) fn compile(objects: &Objects, settings: &Settings, memo: Memo) -> (Compiled, Memo) {
    let settings = &settings.located(objects);
    let mut work = Work {
        objects,
        settings,
        slices: OnceCell::new(),
        shown: BTreeMap::new(),
        named: BTreeSet::new(),
        certificates: BTreeMap::new(),
        policies: backend_tls::Policies::default(),
        found: Vec::new(),
        asked: Asked::default(),
        memo,
        same: Same::default(),
    };
    work.policies = backend_tls::policies(&mut work);
    let terms = Terms::new(objects, settings, work.policies.answers());
    work.same = work.memo.begin(terms);
    let new = roster::compare(&mut work);
    wanted::refresh(&mut work);
    let (classes, mut statuses) = class::classes(&mut work);
    let balancers = load_balancer::all(&work);
    let wanting = balancers.iter().map(|one| one.wanting(&work)).collect();
    let (mut gateways, placed) = gateway::gateways(&mut work, &classes, wanting);
    listener_set::merge(&mut work, &mut gateways);
    conflict::settle(&mut gateways, &mut work.found);
    roster::settle(&mut work, &mut gateways, new);
    let (ir, balancers) = assemble::assemble(&mut work, &gateways, std::iter::zip(balancers, placed));
    statuses.extend(balancers);
    statuses.extend(gateways.iter().flat_map(told::gateway));
    statuses.extend(backend_tls::statuses(&work, &gateways));
    let mut told = roster::told(&mut work);
    statuses.sort_by(|a, b| a.object.cmp(&b.object));
    for status in statuses {
        told.entry(status.object.kind).or_default().push(Arc::new(status));
    }
    wanted::end(&mut work);
    let compiled = Compiled {
        ir,
        statuses: told.into_values().flatten().collect(),
        generated: gateways.iter().flat_map(infrastructure::services).collect(),
        diagnostics: work.found,
    };
    (compiled, work.memo)
}
