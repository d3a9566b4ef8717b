//! Certificates made by the product's own CA, by an attacker or by a careless CA.

#![expect(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of this module"
)]

use lockstep_pki::{Authority, CredentialFiles, Credentials, Identity, Listener, ListenerOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

pub const HOUR: i64 = 3600;
pub const DOMAIN: &str = "example.org";

/// A certificate with its chain, and the key that belongs to it.
pub struct Pair {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Content of a forged certificate.
#[derive(Clone)]
pub struct Leaf {
    pub uris: Vec<&'static str>,
    pub usages: Vec<Usage>,
    pub is_ca: IsCa,
    /// Validity in seconds from now.
    pub from: i64,
    pub until: i64,
}

impl Leaf {
    /// Content of a valid agent certificate; each case changes one property.
    pub fn agent() -> Self {
        Self {
            uris: vec!["spiffe://example.org/agent/a"],
            usages: vec![Usage::ClientAuth],
            is_ca: IsCa::ExplicitNoCa,
            from: -HOUR,
            until: HOUR,
        }
    }

    /// Content of a valid coordinator certificate.
    pub fn coordinator() -> Self {
        Self {
            uris: vec!["spiffe://example.org/coordinator/main"],
            usages: vec![Usage::ClientAuth, Usage::ServerAuth],
            ..Self::agent()
        }
    }

    pub fn uris(mut self, uris: &[&'static str]) -> Self {
        self.uris = uris.to_vec();
        self
    }

    pub fn usages(mut self, usages: &[Usage]) -> Self {
        self.usages = usages.to_vec();
        self
    }

    pub fn between(mut self, from: i64, until: i64) -> Self {
        (self.from, self.until) = (from, until);
        self
    }

    pub fn authority(mut self) -> Self {
        self.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "a forged certificate");
        params.subject_alt_names = self
            .uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        params.extended_key_usages = self.usages.clone();
        params.is_ca = self.is_ca;
        params.not_before = at(self.from).into();
        params.not_after = at(self.until).into();
        params
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the product checks these certificates against the wall clock"
)]
fn at(seconds: i64) -> SystemTime {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    if seconds < 0 {
        now - offset
    } else {
        now + offset
    }
}

/// A certificate authority, or a party that acts as one.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    above: Vec<CertificateDer<'static>>,
    pub pem: String,
}

impl Signer {
    /// The product's own authority, opened from its files.
    pub fn of_authority(dir: &Path) -> Self {
        let pem = fs::read_to_string(dir.join("ca.pem")).unwrap();
        let key = KeyPair::from_pem(&fs::read_to_string(dir.join("ca-key.pem")).unwrap()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).unwrap();
        Self {
            issuer,
            above: Vec::new(),
            pem,
        }
    }

    /// An unrelated authority with any name.
    pub fn stranger(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = Self::ca_params(name, BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            above: Vec::new(),
            pem,
        }
    }

    /// An intermediate authority below this one.
    pub fn intermediate(&self, name: &str, constraints: BasicConstraints) -> Self {
        self.below(Self::ca_params(name, constraints))
    }

    /// A party that issues certificates with its own, which isn't a CA certificate.
    pub fn party_as_ca(&self) -> Self {
        self.below(Leaf::agent().params())
    }

    fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut above = vec![certificate.der().clone()];
        above.extend(self.above.iter().cloned());
        Self {
            issuer: Issuer::new(params, key),
            above,
            pem: certificate.pem(),
        }
    }

    fn ca_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(constraints);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    pub fn sign(&self, leaf: &Leaf) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.params().signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.above.iter().cloned());
        Pair {
            chain,
            key: key.serialize_der().try_into().unwrap(),
        }
    }
}

pub fn self_signed(leaf: &Leaf) -> Pair {
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.params().self_signed(&key).unwrap();
    Pair {
        chain: vec![certificate.der().clone()],
        key: key.serialize_der().try_into().unwrap(),
    }
}

/// One trust domain in a directory: an authority, a coordinator and an agent.
pub struct Domain {
    pub dir: TempDir,
    pub authority: Authority,
}

impl Domain {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::create(dir.path(), DOMAIN.parse().unwrap()).unwrap();
        let domain = Self { dir, authority };
        domain.issue("coordinator/main");
        domain.issue("agent/a");
        domain
    }

    pub fn issue(&self, identity: &str) {
        let identity: Identity = identity.parse().unwrap();
        let issued = self
            .authority
            .issue(&identity, Duration::from_secs(24 * 3600), &[])
            .unwrap();
        issued.write(self.dir.path()).unwrap();
    }

    pub fn signer(&self) -> Signer {
        Signer::of_authority(self.dir.path())
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn files(&self, name: &str) -> CredentialFiles {
        CredentialFiles {
            ca: self.path("ca.pem"),
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}-key.pem")),
            crl: Some(self.path("crl.pem")),
        }
    }

    pub fn credentials(&self, name: &str) -> Credentials {
        Credentials::load(self.files(name)).unwrap()
    }

    pub fn listener(&self) -> Listener {
        let address = "127.0.0.1:0".parse().unwrap();
        Listener::bind(
            address,
            self.credentials("main"),
            ListenerOptions::default(),
        )
        .unwrap()
    }

    /// The certificate and key that the authority issued to a party.
    pub fn pair(&self, name: &str) -> Pair {
        use rustls_pki_types::pem::PemObject;
        let files = self.files(name);
        Pair {
            chain: CertificateDer::pem_file_iter(&files.cert)
                .unwrap()
                .map(Result::unwrap)
                .collect(),
            key: PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        }
    }
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client that accepts any server, as an attacker's would.
pub fn permissive_client(pair: Option<Pair>) -> ClientConfig {
    permissive_client_of(&rustls::version::TLS13, pair)
}

pub fn permissive_client_of(
    version: &'static rustls::SupportedProtocolVersion,
    pair: Option<Pair>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match pair {
        Some(pair) => builder.with_client_auth_cert(pair.chain, pair.key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A server that accepts any client.
pub fn permissive_server(
    version: &'static rustls::SupportedProtocolVersion,
    pair: Pair,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pair.chain, pair.key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
