//! Which table holds which kind: the one place that says so for everything that treats all kinds alike.

/// Expands `$each!(table)` with the name of the table of [`Objects`](super::Objects) that holds objects of `$kind`.
macro_rules! of_kind {
    ($kind:expr, $each:ident) => {
        match $kind {
            Kind::GatewayClass => $each!(gateway_classes),
            Kind::GatewayClassConfig => $each!(gateway_class_configs),
            Kind::Gateway => $each!(gateways),
            Kind::ListenerSet => $each!(listener_sets),
            Kind::HttpRoute => $each!(http_routes),
            Kind::GrpcRoute => $each!(grpc_routes),
            Kind::TcpRoute => $each!(tcp_routes),
            Kind::TlsRoute => $each!(tls_routes),
            Kind::UdpRoute => $each!(udp_routes),
            Kind::ReferenceGrant => $each!(reference_grants),
            Kind::Service => $each!(services),
            Kind::EndpointSlice => $each!(endpoint_slices),
            Kind::Secret => $each!(secrets),
            Kind::ConfigMap => $each!(config_maps),
            Kind::BackendTlsPolicy => $each!(backend_tls_policies),
            Kind::Backend => $each!(backends),
            Kind::ClusterTrustBundle => $each!(cluster_trust_bundles),
            Kind::CertificateFile => $each!(certificate_files),
            Kind::Namespace => $each!(namespaces),
            Kind::Node => $each!(nodes),
        }
    };
}
