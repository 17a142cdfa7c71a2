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
mod reference_grant;
mod retry;
mod route;
mod selector;
mod session;
mod stream_route;
mod told;
mod topology;

use crate::objects::{EndpointSlices, Key, ObjectId, Objects};
use crate::{Compiled, Diagnostic, Settings};
use gateway_core::ir::{Certificate, CertificateName, Service, ServiceName};
use memo::{Asked, Memo, Same};
use std::collections::{BTreeMap, BTreeSet};

/// What every step reads and adds to.
pub(crate) struct Work<'o> {
    objects: &'o Objects,
    settings: &'o Settings,
    slices: EndpointSlices<'o>,
    services: BTreeMap<ServiceName, Service>,
    certificates: BTreeMap<CertificateName, Certificate>,
    policies: backend_tls::Policies<'o>,
    /// Services that each route names.
    reached: BTreeMap<ObjectId, BTreeSet<Key>>,
    found: Vec<Diagnostic>,
    /// About services rather than the routes that name them.
    found_of_services: Vec<Diagnostic>,
    /// By the route that is converted.
    asked: Asked,
    before: &'o Memo,
    same: Same,
    after: Memo,
}

/// With what the compilation before left, and what this one leaves.
pub(crate) fn compile(objects: &Objects, settings: &Settings, before: &Memo) -> (Compiled, Memo) {
    let settings = &settings.located(objects);
    let mut work = Work {
        objects,
        settings,
        slices: objects.endpoint_slices_by_service(),
        services: BTreeMap::new(),
        certificates: BTreeMap::new(),
        policies: backend_tls::Policies::default(),
        reached: BTreeMap::new(),
        found: Vec::new(),
        found_of_services: Vec::new(),
        asked: Asked::default(),
        before,
        same: Same::default(),
        after: Memo::default(),
    };
    work.policies = backend_tls::policies(&mut work);
    work.after = Memo::begin(objects, settings, work.policies.answers());
    work.same = before.compare(&work.after);
    let (classes, mut statuses) = class::classes(&mut work);
    let balancers = load_balancer::all(&work);
    let wanting = balancers.iter().map(|one| one.wanting(&work)).collect();
    let (mut gateways, placed) = gateway::gateways(&mut work, &classes, wanting);
    listener_set::merge(&mut work, &mut gateways);
    conflict::settle(&mut gateways, &mut work.found);
    for route in route::all(&mut work) {
        statuses.extend(attach::attach(&mut work, &mut gateways, route));
    }
    let (ir, balancers) = assemble::assemble(&mut work, &gateways, std::iter::zip(balancers, placed));
    statuses.extend(balancers);
    statuses.extend(gateways.iter().flat_map(told::gateway));
    statuses.extend(backend_tls::statuses(&work.policies, &gateways, &work.reached));
    work.found.append(&mut work.found_of_services);
    let compiled = Compiled {
        ir,
        statuses,
        generated: gateways.iter().map(infrastructure::service).collect(),
        diagnostics: work.found,
    };
    (compiled, work.after)
}
