//! Parsing of PEM files, and properties of certificates.

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// The certificates in a PEM text, in their order.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// The revocation lists in a PEM text, in their order.
pub(crate) fn revocation_lists(
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, pem::Error> {
    CertificateRevocationListDer::pem_slice_iter(pem).collect()
}

/// SHA-256 of the certificate in hexadecimal; distinguishes certificates of the same
/// identity in logs.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

/// End of validity; `None` if it can't be read.
pub(crate) fn not_after(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A certificate whose key is too short for the signatures made with it to count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key of a certificate is too weak: RSA with {bits} bits, of which {MIN_RSA_BITS} are \
     needed; issue a certificate for a new key"
)]
pub struct WeakKey {
    /// Length of its modulus.
    pub bits: usize,
}

/// The shortest RSA keys whose signatures the TLS library verifies.
const MIN_RSA_BITS: usize = 2_048;

/// Reports a certificate with a key that is too short.
pub(crate) fn check_key(der: &[u8]) -> Result<(), WeakKey> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        // Verification reports what can't be read.
        return Ok(());
    };
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => Err(WeakKey {
            bits: key.key_size(),
        }),
        _ => Ok(()),
    }
}

/// Whether the certificate is for this public key (the bits, without their
/// algorithm).
pub(crate) fn has_key(der: &[u8], public_key: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
        certificate.public_key().subject_public_key.data.as_ref() == public_key
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;
    use crate::revocation::RevocationLists;
    use crate::verifier::{CoordinatorVerifier, PartyVerifier};
    use rcgen::{CertificateParams, Issuer, KeyPair, SanType, SubjectPublicKeyInfo};
    use rustls::RootCertStore;
    use rustls::server::danger::ClientCertVerifier;
    use rustls_pki_types::UnixTime;
    use std::sync::Arc;

    /// `openssl genrsa 1024`.
    const WEAK: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCu5P11nS1DRiAEu8rv62bChUf3
Se+G0oyDHC6nMbLTijkqfu8NW1X/1j+uy23lzr3zq71l9hRE+avHPTCtWmNqCYRG
LLEAJaKatKfaDqjHOmEg1krS4gXUn+yIEBKsBlk7FiZXxeduuvmaIY1wq7R18bHX
dO4wLIHI3YdQufdqZwIDAQAB
-----END PUBLIC KEY-----
";

    #[test]
    fn a_weak_key_is_not_reported_as_a_forged_signature() {
        let mut ca = CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = ca.self_signed(&key).unwrap();
        let mut leaf = CertificateParams::default();
        let uri = "spiffe://example.org/agent/a".try_into().unwrap();
        leaf.subject_alt_names = vec![SanType::URI(uri)];
        let weak = SubjectPublicKeyInfo::from_pem(WEAK).unwrap();
        let leaf = leaf.signed_by(&weak, &Issuer::new(ca, key)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let lists = RevocationLists::new(Vec::new()).unwrap();
        let domain: crate::TrustDomain = "example.org".parse().unwrap();
        let now = UnixTime::now();
        let parties = PartyVerifier::new(&roots, &lists, domain.clone()).unwrap();
        let party = parties.verify_client_cert(leaf.der(), &[], now);
        let coordinators = CoordinatorVerifier::new(roots, &lists, domain).unwrap();
        let coordinator = coordinators.verify(leaf.der(), &[], now);
        for error in [party.unwrap_err(), coordinator.unwrap_err()] {
            let refusal = Refusal::of_tls(&error);
            assert_eq!(refusal, Refusal::WeakKey(WeakKey { bits: 1024 }));
        }
        assert_eq!(check_key(root.der()), Ok(()));
    }
}
