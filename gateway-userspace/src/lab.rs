//! The laboratory: a client, the gateway and four gRPC backends in network namespaces of one machine, wired so that
//! the same load can be sent through the kernel plane and through the HTTP plane and compared.
//!
//! ```text
//!  sluice-client              sluice-gw                          sluice-be1 .. sluice-be4
//!  198.18.1.2       ----  client   be1 .. be4  ----              198.18.2.11 .. .14
//!  2001:2:0:1::2          198.18.1.1 198.18.2.1                  2001:2:0:2::11 .. ::14
//!                         VIP 198.18.0.10, 2001:2::a
//! ```
//!
//! Addresses are from the benchmarking ranges (RFC 2544, RFC 5180), so they never meet a real network. Everything it
//! makes is named `sluice-*` and goes away with `sluice lab down`, also after a crash.

pub mod backend;
pub mod certificate;
pub mod compare;
pub mod load;
pub mod place;
pub mod process;
pub mod report;
pub mod topology;

/// The demo service, generated from `proto/sluice/demo/v1/echo.proto`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("sluice.demo.v1");
    /// For server reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("sluice.demo.v1");
}

/// Namespace of the client.
pub const CLIENT: &str = "sluice-client";
/// Namespace of the gateway.
pub const GATEWAY: &str = "sluice-gw";
/// The backends: name, namespace, IPv4 and IPv6 address.
pub const BACKENDS: [Backend; 4] = [
    Backend {
        name: "be1",
        namespace: "sluice-be1",
        v4: "198.18.2.11",
        v6: "2001:2:0:2::11",
    },
    Backend {
        name: "be2",
        namespace: "sluice-be2",
        v4: "198.18.2.12",
        v6: "2001:2:0:2::12",
    },
    Backend {
        name: "be3",
        namespace: "sluice-be3",
        v4: "198.18.2.13",
        v6: "2001:2:0:2::13",
    },
    Backend {
        name: "be4",
        namespace: "sluice-be4",
        v4: "198.18.2.14",
        v6: "2001:2:0:2::14",
    },
];
/// The virtual addresses.
pub const VIP_V4: &str = "198.18.0.10";
pub const VIP_V6: &str = "2001:2::a";
/// Ports of `config/quickstart.yaml`.
pub const PORT_L4: u16 = 50051;
pub const PORT_L7: u16 = 50052;
pub const PORT_HTTP: u16 = 8080;
pub const PORT_HTTPS: u16 = 8443;

/// One backend of the laboratory.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pub name: &'static str,
    pub namespace: &'static str,
    pub v4: &'static str,
    pub v6: &'static str,
}
