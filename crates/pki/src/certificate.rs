//! Parsing of PEM files, and properties of certificates.

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// Whether the certificate is for this public key (the bits, without their
/// algorithm).
pub(crate) fn has_key(der: &[u8], public_key: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
        certificate.public_key().subject_public_key.data.as_ref() == public_key
    })
}
