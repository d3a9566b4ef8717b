//! Verification of clients and of the server: first the chain, then the identity.
//!
//! Host names are not verified. The server's chain is verified for server use and,
//! like a client's, against the revocation lists. Its SPIFFE ID must then identify a
//! coordinator of our trust domain.

use crate::certificate;
use crate::identity::{IdentityError, Role, TrustDomain, identity_of};
use crate::revocation::{self, RevocationLists};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use webpki::{CertRevocationList, EndEntityCert, KeyUsage};

/// Verifies the certificates of agents and operators.
#[derive(Debug)]
pub(crate) struct PartyVerifier {
    /// One for each selection of revocation lists; never empty.
    chains: Vec<Arc<dyn ClientCertVerifier>>,
    trust_domain: TrustDomain,
}

impl PartyVerifier {
    pub(crate) fn new(
        roots: &Arc<RootCertStore>,
        crls: &RevocationLists,
        trust_domain: TrustDomain,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let chain = |crls: &Vec<_>| {
            // Clients have only one certificate, so a list of acceptable CAs would be
            // useless.
            WebPkiClientVerifier::builder_with_provider(roots.clone(), crate::provider())
                .with_crls(crls.iter().cloned())
                .clear_root_hint_subjects()
                .build()
        };
        let chains = crls
            .selections
            .iter()
            .map(chain)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            chains,
            trust_domain,
        })
    }
}

impl ClientCertVerifier for PartyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_keys(end_entity, intermediates)?;
        let verify = |chain: &Arc<dyn ClientCertVerifier>| {
            chain.verify_client_cert(end_entity, intermediates, now)
        };
        let verified = revocation::joined(self.chains.iter().map(verify))?;
        identity_of(end_entity, &self.trust_domain).map_err(identity_error)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Verifies the certificate of the coordinator.
#[derive(Debug)]
pub(crate) struct CoordinatorVerifier {
    roots: Arc<RootCertStore>,
    /// Selections of revocation lists; never empty.
    crls: Vec<Vec<CertRevocationList<'static>>>,
    trust_domain: TrustDomain,
}

impl CoordinatorVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        crls: &RevocationLists,
        trust_domain: TrustDomain,
    ) -> Result<Self, webpki::Error> {
        let crls = crls.parsed()?;
        Ok(Self {
            roots,
            crls,
            trust_domain,
        })
    }

    /// Verifies the certificate of a coordinator.
    pub(crate) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        check_keys(end_entity, intermediates)?;
        revocation::joined(self.crls.iter().map(|crls| {
            self.verify_chain(crls, end_entity, intermediates, now)
                .map_err(chain_error)
        }))?;
        let found = identity_of(end_entity, &self.trust_domain).map_err(identity_error)?;
        if found.role() != Role::Coordinator {
            let expected = Role::Coordinator;
            return Err(identity_error(IdentityError::WrongRole { found, expected }));
        }
        Ok(())
    }

    fn verify_chain(
        &self,
        crls: &[CertRevocationList<'static>],
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let crls: Vec<_> = crls.iter().collect();
        // The builder rejects an empty set, and without lists no certificate is revoked.
        let revocation = webpki::RevocationOptionsBuilder::new(&crls)
            .ok()
            .map(|builder| builder.build());
        EndEntityCert::try_from(end_entity)?.verify_for_usage(
            algorithms().all,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            revocation,
            None,
        )?;
        Ok(())
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

/// A signature with a weak key is refused as if it were invalid, so the reason is
/// found first.
fn check_keys(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Error> {
    let mut chain = std::iter::once(end_entity).chain(intermediates);
    chain.try_for_each(|der| {
        certificate::check_key(der)
            .map_err(|weak| CertificateError::Other(OtherError(Arc::new(weak))).into())
    })
}

fn identity_error(error: IdentityError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// Maps the cases that have a TLS alert of their own, so that the peer receives it;
/// other errors are preserved for the log.
fn chain_error(error: webpki::Error) -> Error {
    use webpki::Error as Chain;
    match error {
        Chain::CertExpired { .. } => CertificateError::Expired,
        Chain::CertNotValidYet { .. } => CertificateError::NotValidYet,
        Chain::UnknownIssuer => CertificateError::UnknownIssuer,
        Chain::CertRevoked => CertificateError::Revoked,
        Chain::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        Chain::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Chain::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
    .into()
}
