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
mod listener_set;
mod load_balancer;
mod matches;
mod parameters;
mod reference_grant;
mod retry;
mod route;
mod stream_route;
mod told;
mod topology;

use crate::objects::{EndpointSlices, Key, ObjectId, Objects};
use crate::{Compiled, Diagnostic, Settings};
use gateway_core::ir::{Certificate, CertificateName, Service, ServiceName};
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
}

pub(crate) fn compile(objects: &Objects, settings: &Settings) -> Compiled {
    let mut work = Work {
        objects,
        settings,
        slices: objects.endpoint_slices_by_service(),
        services: BTreeMap::new(),
        certificates: BTreeMap::new(),
        policies: backend_tls::Policies::default(),
        reached: BTreeMap::new(),
        found: Vec::new(),
    };
    work.policies = backend_tls::policies(&mut work);
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
    Compiled {
        ir,
        statuses,
        generated: gateways.iter().map(infrastructure::service).collect(),
        diagnostics: work.found,
    }
}
