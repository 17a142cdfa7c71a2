//! What each object is told about itself, as values in the shape of Gateway API statuses.
//!
//! Whoever writes them says Accepted and Programmed only after the data plane has the revision.

use crate::objects::{Kind, ObjectId};
use std::fmt;
use std::net::IpAddr;

/// The status of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    pub object: ObjectId,
    pub status: Status,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Class {
        conditions: Vec<Condition>,
        /// Names of Gateway API features, in ascending order.
        supported_features: &'static [&'static str],
    },
    Gateway {
        conditions: Vec<Condition>,
        addresses: Vec<GatewayAddress>,
        listeners: Vec<ListenerStatus>,
        /// ListenerSets that are accepted.
        attached_listener_sets: u32,
    },
    ListenerSet {
        conditions: Vec<Condition>,
        listeners: Vec<ListenerStatus>,
    },
    /// One entry for each parentRef that names one of our Gateways, or a ListenerSet of one.
    Route { parents: Vec<ParentStatus> },
    /// Of a Service of type LoadBalancer that is ours.
    Balancer {
        addresses: Vec<IpAddr>,
        conditions: Vec<Condition>,
    },
    /// One entry for each Gateway of ours that sends traffic to what the policy is about.
    Policy { ancestors: Vec<ParentStatus> },
}

/// Where a Gateway is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    pub addr: IpAddr,
    /// From where; empty: nothing is promised (Gateway API, GEP-5093).
    pub routability: &'static str,
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.routability {
            "" => write!(f, "{}", self.addr),
            routability => write!(f, "{} ({routability})", self.addr),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    pub name: String,
    /// Route kinds this listener takes.
    pub supported_kinds: Vec<&'static str>,
    pub attached_routes: u32,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    pub parent: ParentName,
    pub conditions: Vec<Condition>,
}

/// A parentRef as the route wrote it, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParentName {
    /// Gateway or ListenerSet.
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub section: Option<String>,
    pub port: Option<u16>,
}

impl fmt::Display for ParentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Gateway => {}
            kind => write!(f, "{kind} ")?,
        }
        write!(f, "{}/{}", self.namespace, self.name)?;
        if let Some(section) = &self.section {
            write!(f, "/{section}")?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: ConditionKind,
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
    /// `metadata.generation` of the object this was decided from.
    pub observed_generation: i64,
}

/// `type` of a condition. Closed: what the Gateway API names and we set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    Accepted,
    SupportedVersion,
    Conflicted,
    ResolvedRefs,
    PartiallyInvalid,
    Programmed,
    OverlappingTlsConfig,
    InsecureFrontendValidationMode,
    /// Ours alone: whether a Service of type LoadBalancer has what it asks for.
    Served,
    AddressesAssigned,
}

impl ConditionKind {
    pub const fn name(self) -> &'static str {
        match self {
            ConditionKind::Accepted => "Accepted",
            ConditionKind::SupportedVersion => "SupportedVersion",
            ConditionKind::Conflicted => "Conflicted",
            ConditionKind::ResolvedRefs => "ResolvedRefs",
            ConditionKind::PartiallyInvalid => "PartiallyInvalid",
            ConditionKind::Programmed => "Programmed",
            ConditionKind::OverlappingTlsConfig => "OverlappingTLSConfig",
            ConditionKind::InsecureFrontendValidationMode => "InsecureFrontendValidationMode",
            ConditionKind::Served => "sluice.dev/Served",
            ConditionKind::AddressesAssigned => "AddressesAssigned",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = if self.holds { "True" } else { "False" };
        write!(f, "{}={holds} {}", self.kind.name(), self.reason)?;
        match self.message.as_str() {
            "" => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}

/// Reasons, in the words of the Gateway API.
pub mod reason {
    pub const ACCEPTED: &str = "Accepted";
    pub const PROGRAMMED: &str = "Programmed";
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    pub const NO_CONFLICTS: &str = "NoConflicts";
    pub const INVALID: &str = "Invalid";
    pub const PENDING: &str = "Pending";
    // GatewayClass
    pub const SUPPORTED_VERSION: &str = "SupportedVersion";
    pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";
    // Gateway, ListenerSet
    pub const INVALID_PARAMETERS: &str = "InvalidParameters";
    pub const ADDRESS_NOT_USABLE: &str = "AddressNotUsable";
    pub const NOT_ALLOWED: &str = "NotAllowed";
    pub const PARENT_NOT_ACCEPTED: &str = "ParentNotAccepted";
    pub const PARENT_NOT_PROGRAMMED: &str = "ParentNotProgrammed";
    pub const TOO_MANY_LISTENERS: &str = "TooManyListeners";
    pub const LISTENERS_NOT_VALID: &str = "ListenersNotValid";
    pub const LISTENERS_NOT_RESOLVED: &str = "ListenersNotResolved";
    pub const UNSUPPORTED_ADDRESS: &str = "UnsupportedAddress";
    pub const ADDRESS_NOT_ASSIGNED: &str = "AddressNotAssigned";
    pub const ADDRESSES_ASSIGNED: &str = "AddressesAssigned";
    pub const PARTIALLY_ASSIGNED: &str = "PartiallyAssigned";
    pub const NOT_ASSIGNED: &str = "NotAssigned";
    // Listener
    pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
    pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
    pub const PROTOCOL_CONFLICT: &str = "ProtocolConflict";
    pub const HOSTNAME_CONFLICT: &str = "HostnameConflict";
    pub const INVALID_CERTIFICATE_REF: &str = "InvalidCertificateRef";
    pub const INVALID_LISTENER_FILTER: &str = "InvalidListenerFilter";
    pub const INVALID_LISTENER_FILTER_REF: &str = "InvalidListenerFilterRef";
    pub const INVALID_ROUTE_KINDS: &str = "InvalidRouteKinds";
    pub const NO_VALID_CA_CERTIFICATE: &str = "NoValidCACertificate";
    pub const INVALID_CA_CERTIFICATE_REF: &str = "InvalidCACertificateRef";
    pub const INVALID_CA_CERTIFICATE_KIND: &str = "InvalidCACertificateKind";
    pub const OVERLAPPING_HOSTNAMES: &str = "OverlappingHostnames";
    // TLS of Gateways, policies
    pub const INVALID_CLIENT_CERTIFICATE_REF: &str = "InvalidClientCertificateRef";
    pub const CONFIGURATION_CHANGED: &str = "ConfigurationChanged";
    pub const CONFLICTED: &str = "Conflicted";
    // References
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    pub const INVALID_KIND: &str = "InvalidKind";
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
    // Route
    pub const NO_MATCHING_PARENT: &str = "NoMatchingParent";
    pub const NOT_ALLOWED_BY_LISTENERS: &str = "NotAllowedByListeners";
    pub const NO_MATCHING_LISTENER_HOSTNAME: &str = "NoMatchingListenerHostname";
    pub const INCOMPATIBLE_FILTERS: &str = "IncompatibleFilters";
    // Service
    pub const SERVED: &str = "Served";
    pub const PARTLY_SERVED: &str = "PartlyServed";
    pub const NO_ADDRESS_POOL: &str = "NoAddressPool";
    pub const INVALID_SOURCE_RANGES: &str = "InvalidSourceRanges";
}
