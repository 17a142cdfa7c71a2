//! TLS peers for tests, on rustls: an authority, certificates of it, servers and clients.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

use crate::support::{connect, serve};
use gateway_core::ir::{
    Authorities, BackendTls, Bind, Certificate, ClientMode, ClientValidation, Destination, HostPattern, Listener,
    ListenerTls, Plane, Recognise, RuleName, SecretBytes, Service, StreamRule, StreamRules, SubjectName, Termination,
    Weighted,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

pub type Client = StreamOwned<ClientConnection, TcpStream>;
pub type Server = StreamOwned<ServerConnection, TcpStream>;

/// Whom everybody in a test believes.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A certificate for `names`, and its key (PKCS#8).
    fn made(&self, names: &[&str]) -> (CertificateDer<'static>, Vec<u8>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer);
        (certificate.unwrap().der().clone(), key.serialize_der())
    }

    /// As the configuration has it.
    pub fn certificate(&self, names: &[&str]) -> Certificate {
        let (certificate, key) = self.made(names);
        Certificate {
            chain: vec![certificate.to_vec()],
            key: SecretBytes::new(key),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    /// A client that believes this authority; `shown`: the name of its own certificate.
    pub fn client_config(&self, shown: Option<&str>) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        match shown {
            None => config.with_no_client_auth(),
            Some(name) => {
                let (certificate, key) = self.made(&[name]);
                let key = PrivatePkcs8KeyDer::from(key).into();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        }
    }

    pub fn client(&self, bind: SocketAddr, name: &'static str) -> Client {
        connected(self.client_config(None), bind, name)
    }

    /// A server with a certificate for `names`, that gives each connection to `serve`.
    pub fn server(&self, names: &[&str], answer: impl Fn(Server) + Send + Sync + 'static) -> SocketAddr {
        let (certificate, key) = self.made(names);
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key).into())
            .unwrap();
        let config = Arc::new(config);
        serve(move |stream| answer(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)))
    }

    /// How the gateway speaks to endpoints with certificates for `name`.
    pub fn backend_tls(&self, name: &str) -> BackendTls {
        BackendTls {
            server_name: name.to_owned(),
            authorities: Authorities::These(vec![self.root.to_vec()]),
            subjects: vec![SubjectName::Dns(name.to_owned())],
            certificate: None,
        }
    }

    /// Clients have to show a certificate of this authority.
    pub fn validation(&self) -> ListenerTls {
        ListenerTls {
            clients: Some(ClientValidation {
                authorities: vec![self.root.to_vec()],
                mode: ClientMode::Required,
            }),
            ..ListenerTls::default()
        }
    }
}

pub fn connected(config: ClientConfig, bind: SocketAddr, name: &'static str) -> Client {
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    StreamOwned::new(session, connect(bind))
}

/// The service, spoken to over TLS.
pub fn sealed(mut service: Service, tls: BackendTls) -> Service {
    service.tls = Some(Arc::new(tls));
    service
}

/// TLS ends at the rule; its certificate is named `certificate`.
pub fn ends(certificate: &str, tls: ListenerTls) -> Option<Termination> {
    Some(Termination {
        certificates: vec![certificate.into()],
        tls,
    })
}

/// A rule of a TLS listener; without `service` it refuses.
pub fn rule(hostname: Option<&str>, service: Option<&str>, terminate: Option<Termination>) -> StreamRule {
    let to = |service: &str| Weighted {
        weight: 1,
        to: Destination::Service(service.into()),
    };
    StreamRule {
        listener: "default/gw/it".into(),
        name: RuleName::new(format!("TLSRoute/default/{}/0", service.unwrap_or("none"))),
        hostname: HostPattern::parse(hostname),
        terminate,
        destinations: service.map(to).into_iter().collect(),
    }
}

/// TLS listeners on one port.
pub fn tls_port(bind: SocketAddr, rules: Vec<StreamRule>) -> Listener {
    Listener {
        bind: Bind::tcp(bind),
        names: vec!["default/gw/it".into()],
        plane: Plane::Splice(StreamRules {
            recognise: Recognise::Sni,
            rules,
        }),
        why: String::new(),
        exposure: Default::default(),
    }
}
