//! Which plane really carries each listener: what the configuration asks, unless packets cannot do it.

use super::{ControlOptions, Reach};
use crate::ir::{Ir, Listener, Plane};
use crate::lower::kernel::{self, KernelIndexes};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Endpoints whose return path decides about a listener.
pub(super) fn endpoints_to_probe(ir: &Ir, options: &ControlOptions) -> BTreeSet<SocketAddr> {
    if options.ingress.is_err() {
        return BTreeSet::new();
    }
    let fit = ir
        .listeners
        .values()
        .filter(|listener| kernel::unfit(ir, listener).is_none());
    fit.flat_map(|listener| kernel::kernel_endpoints(ir, listener))
        .collect()
}

/// `ir` with every kernel listener that packets cannot serve moved to the splice plane.
pub(super) fn serve(ir: &Ir, options: &ControlOptions, reach: &Reach, indexes: &KernelIndexes) -> Ir {
    let mut served = ir.clone();
    let mut carried = BTreeSet::new();
    for listener in served.listeners.values_mut() {
        let Plane::Kernel(rules) = &listener.plane else {
            continue;
        };
        let endpoints = kernel::kernel_endpoints(ir, listener);
        let mut all = carried.clone();
        all.extend(&endpoints);
        let reason = not_by_packets(ir, listener, &endpoints, options, reach).or_else(|| {
            let full = !indexes.has_room_for(&all);
            full.then(|| "the kernel plane has no room for its endpoints".to_owned())
        });
        match reason {
            None => carried = all,
            Some(reason) => {
                listener.why = format!("splice, not kernel: {reason}");
                listener.plane = Plane::Splice(rules.clone());
            }
        }
    }
    served
}

/// Why packets cannot serve a kernel listener; `None` if they can.
fn not_by_packets(
    ir: &Ir,
    listener: &Listener,
    endpoints: &BTreeSet<SocketAddr>,
    options: &ControlOptions,
    reach: &Reach,
) -> Option<String> {
    if let Err(why) = &options.ingress {
        return Some(why.clone());
    }
    kernel::unfit(ir, listener).or_else(|| {
        endpoints.iter().find_map(|addr| match reach.get(addr) {
            Some(Ok(())) => None,
            Some(Err(why)) => Some(format!("endpoint {addr}: {why}")),
            None => Some(format!("endpoint {addr}: its route is not known")),
        })
    })
}
