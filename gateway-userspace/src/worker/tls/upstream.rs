//! TLS to endpoints: whom we believe, whom we ask for, what we show.

use super::session::Session;
use super::x509;
use gateway_core::ir::{Authorities, BackendTls, SubjectName, UpstreamProtocol};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// How a worker speaks to an endpoint.
#[derive(Clone, Debug, Default)]
pub enum Upstream {
    Plain,
    Tls(Arc<UpstreamTls>),
    /// It should be TLS and cannot be; or nobody knows the endpoint. Never plain text instead.
    #[default]
    Broken,
}

/// TLS to the endpoints of one service. Sessions are resumed among them.
#[derive(Debug)]
pub struct UpstreamTls {
    pub name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// `key`: what we show when asked. `system`: the authorities of the host.
    pub fn new(
        tls: &BackendTls,
        key: Option<Arc<CertifiedKey>>,
        system: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let name = ServerName::try_from(tls.server_name.clone())
            .map_err(|_| format!("{:?} cannot be asked for in a handshake", tls.server_name))?;
        let roots = match &tls.authorities {
            Authorities::System => Arc::clone(system),
            Authorities::These(certificates) => Arc::new(roots(certificates)),
        };
        if roots.is_empty() {
            return Err("there is no authority to believe: endpoints are not spoken to".to_owned());
        }
        let mut subjects = Vec::new();
        for subject in &tls.subjects {
            subjects.push(match subject {
                SubjectName::Dns(name) if !name.starts_with("*.") => {
                    let name = ServerName::try_from(name.clone()).map_err(|_| format!("{name:?} is no DNS name"))?;
                    Subject::Host(name)
                }
                SubjectName::Dns(_) | SubjectName::Uri(_) => Subject::Literal(subject.clone()),
            });
        }
        let verifier = Arc::new(Verifier {
            roots,
            subjects,
            algorithms: provider.signature_verification_algorithms,
        });
        let config = |alpn: &[u8]| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .map_err(|error| error.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(verifier.clone());
            let mut config = match &key {
                Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key)))),
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok::<_, String>(Arc::new(config))
        };
        Ok(Self {
            name,
            http1: config(b"http/1.1")?,
            http2: config(b"h2")?,
        })
    }

    /// A connection whose bytes are relayed: offers `alpn`, or nothing.
    pub fn relay(&self, alpn: Option<&[u8]>) -> Result<Session, rustls::Error> {
        let alpn = alpn.map(<[u8]>::to_vec).into_iter().collect();
        Session::relay(Arc::clone(&self.http1), self.name.clone(), alpn)
    }

    /// ALPN offers what will be spoken, and nothing else.
    pub fn config(&self, protocol: UpstreamProtocol) -> &Arc<ClientConfig> {
        match protocol {
            UpstreamProtocol::Http1 => &self.http1,
            UpstreamProtocol::H2c => &self.http2,
        }
    }
}

/// The certificates that can be authorities.
pub fn roots(certificates: &[Vec<u8>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().map(|der| CertificateDer::from(der.clone())));
    roots
}

/// A name the endpoint's certificate may be for.
#[derive(Clone, Debug)]
enum Subject {
    /// By the rules for hosts, wildcards of the certificate included (RFC 9525).
    Host(ServerName<'static>),
    /// As it stands there.
    Literal(SubjectName),
}

/// Believes a chain to the authorities, for one of the subjects.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    subjects: Vec<Subject>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        let fits = self.subjects.iter().any(|subject| match subject {
            Subject::Host(name) => verify_server_name(&certificate, name).is_ok(),
            Subject::Literal(name) => x509::stands_in(name, end_entity),
        });
        match fits {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
