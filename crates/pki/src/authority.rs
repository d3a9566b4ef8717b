//! A private certificate authority for installations without a PKI of their own.
//!
//! It is a directory with `ca.pem`, `ca-key.pem`, `crl.pem` and a pair of files
//! for each party. Keys are ECDSA P-256. No file is ever overwritten except the
//! revocation list, which is replaced atomically.

use crate::certificate;
use crate::identity::{Identity, Role, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, X509Certificate};

/// Backdating of `not_before`. It must exceed the clock differences between hosts.
const BACKDATING: Duration = Duration::from_secs(5 * 60);

/// Validity of the authority itself: longer than any migration project, so that it
/// does not expire during one.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// `nextUpdate` of a revocation list. Peers accept an outdated list, because
/// rejecting it would lock out the whole fleet.
const NEXT_LIST: Duration = Duration::from_secs(30 * 24 * 3600);

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CRL: &str = "crl.pem";

/// An open certificate authority, able to issue and revoke certificates.
pub struct Authority {
    dir: PathBuf,
    trust_domain: TrustDomain,
    not_after: SystemTime,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

// Debug output must not contain the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("dir", &self.dir)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Creates an authority in a directory, which is created if necessary.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`] if the directory already has one; it is not changed.
    pub fn create(dir: &Path, trust_domain: TrustDomain) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(|source| AuthorityError::Write {
            path: dir.to_owned(),
            source,
        })?;
        for name in [CA, CA_KEY, CRL] {
            refuse_existing(&dir.join(name))?;
        }
        let key = new_key()?;
        let mut params = CertificateParams::default();
        let not_after = set_validity(&mut params, AUTHORITY_VALIDITY);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Lockstep {trust_domain}"));
        // The URI of the authority is that of the trust domain, without a path.
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = params
            .self_signed(&key)
            .map_err(AuthorityError::Sign)?
            .pem();
        write_new(&dir.join(CA_KEY), key.serialize_pem().as_bytes(), 0o600)?;
        write_new(&dir.join(CA), ca_pem.as_bytes(), 0o644)?;
        let issuer = Issuer::new(params, key);
        let authority = Self {
            dir: dir.to_owned(),
            trust_domain,
            not_after,
            ca_pem,
            issuer,
        };
        authority.write_list(1, Vec::new())?;
        Ok(authority)
    }

    /// Opens the authority in a directory.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (ca_path, key_path) = (dir.join(CA), dir.join(CA_KEY));
        let ca_pem = read_text(&ca_path)?;
        let broken = |what: String| AuthorityError::Broken {
            path: ca_path.clone(),
            what,
        };
        let certificates = certificate::certificates(ca_pem.as_bytes())
            .map_err(|error| broken(error.to_string()))?;
        let der = certificates
            .first()
            .ok_or_else(|| broken("it contains no certificate".to_owned()))?;
        let trust_domain = trust_domain_of(der)
            .ok_or_else(|| broken("the certificate has no URI spiffe://DOMAIN".to_owned()))?;
        let not_after = certificate::not_after(der)
            .ok_or_else(|| broken("the end of validity can't be read".to_owned()))?;
        let key =
            KeyPair::from_pem(&read_text(&key_path)?).map_err(|source| AuthorityError::Key {
                path: key_path,
                source,
            })?;
        if !certificate::has_key(der, key.public_key_raw()) {
            return Err(broken(format!("it doesn't match the key in {CA_KEY}")));
        }
        let issuer =
            Issuer::from_ca_cert_der(der, key).map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            dir: dir.to_owned(),
            trust_domain,
            not_after,
            ca_pem,
            issuer,
        })
    }

    /// The trust domain of all its certificates.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Path of the revocation list.
    pub fn crl_path(&self) -> PathBuf {
        self.dir.join(CRL)
    }

    /// The authority's own certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Creates a key and a certificate. Only a coordinator's certificate allows
    /// server use and may contain host names and IP addresses (`names`), which only
    /// third-party tools verify.
    ///
    /// # Errors
    /// [`AuthorityError::Outlives`] if the certificate would outlive the authority,
    /// [`AuthorityError::NamesOfClient`] for host names of a client.
    pub fn issue(
        &self,
        identity: &Identity,
        validity: Duration,
        names: &[String],
    ) -> Result<Issued, AuthorityError> {
        let id = identity.clone().within(self.trust_domain.clone());
        let coordinator = identity.role() == Role::Coordinator;
        if !coordinator && !names.is_empty() {
            return Err(AuthorityError::NamesOfClient {
                identity: identity.clone(),
            });
        }
        let mut params = CertificateParams::new(names.to_vec()).map_err(AuthorityError::Sign)?;
        let not_after = set_validity(&mut params, validity);
        if not_after > self.not_after {
            return Err(AuthorityError::Outlives {
                identity: identity.clone(),
            });
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, identity.to_string());
        params.subject_alt_names.push(uri(&id.to_string())?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if coordinator {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::Sign)?;
        Ok(Issued {
            identity: identity.clone(),
            not_after,
            fingerprint: certificate::fingerprint(certificate.der()),
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Adds a certificate to the revocation list. Daemons with this list
    /// reject the certificate from then on and close its connections. Returns
    /// whether the list has changed; revoking a certificate again is not an error.
    ///
    /// # Errors
    /// The certificate isn't this authority's, or a file can't be read or written.
    pub fn revoke(&self, cert_pem: &Path) -> Result<bool, AuthorityError> {
        let pem = read_text(cert_pem)?;
        let broken = |what: String| AuthorityError::Broken {
            path: cert_pem.to_owned(),
            what,
        };
        let certificates =
            certificate::certificates(pem.as_bytes()).map_err(|error| broken(error.to_string()))?;
        let der = certificates
            .first()
            .ok_or_else(|| broken("it contains no certificate".to_owned()))?;
        let (_, parsed) =
            X509Certificate::from_der(der).map_err(|error| broken(error.to_string()))?;
        let ours = certificate::certificates(self.ca_pem.as_bytes()).unwrap_or_default();
        let ours = ours
            .first()
            .and_then(|ca| X509Certificate::from_der(ca).ok());
        let issued_here =
            ours.is_some_and(|(_, ca)| parsed.verify_signature(Some(ca.public_key())).is_ok());
        if !issued_here {
            return Err(AuthorityError::Foreign {
                path: cert_pem.to_owned(),
            });
        }
        let (number, mut revoked) = self.read_list()?;
        let serial = SerialNumber::from_slice(parsed.raw_serial());
        if revoked.iter().any(|entry| entry.serial_number == serial) {
            return Ok(false);
        }
        revoked.push(RevokedCertParams {
            serial_number: serial,
            revocation_time: wall_clock().into(),
            reason_code: None,
            invalidity_date: None,
        });
        self.write_list(number + 1, revoked)?;
        Ok(true)
    }

    /// The list's number and entries.
    fn read_list(&self) -> Result<(u64, Vec<RevokedCertParams>), AuthorityError> {
        let path = self.crl_path();
        let pem = read_text(&path)?;
        let broken = |what: String| AuthorityError::Broken {
            path: path.clone(),
            what,
        };
        let lists = certificate::revocation_lists(pem.as_bytes())
            .map_err(|error| broken(error.to_string()))?;
        let [der] = &lists[..] else {
            return Err(broken(format!(
                "it contains {} revocation lists instead of one",
                lists.len()
            )));
        };
        let (_, list) =
            CertificateRevocationList::from_der(der).map_err(|error| broken(error.to_string()))?;
        let number = list
            .crl_number()
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| broken("the list has no number".to_owned()))?;
        let revoked = list
            .iter_revoked_certificates()
            .map(|entry| RevokedCertParams {
                serial_number: SerialNumber::from_slice(entry.raw_serial()),
                revocation_time: entry.revocation_date.to_datetime(),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        Ok((number, revoked))
    }

    fn write_list(
        &self,
        number: u64,
        revoked: Vec<RevokedCertParams>,
    ) -> Result<(), AuthorityError> {
        let now = wall_clock();
        let list = CertificateRevocationListParams {
            this_update: (now - BACKDATING).into(),
            next_update: (now + NEXT_LIST).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list
            .signed_by(&self.issuer)
            .and_then(|list| list.pem())
            .map_err(AuthorityError::Sign)?;
        // Readers see either the old or the new list, never a partial one.
        let path = self.crl_path();
        let new = self.dir.join(format!(".{CRL}.new"));
        let failed = |source| AuthorityError::Write {
            path: path.clone(),
            source,
        };
        fs::write(&new, pem).map_err(failed)?;
        fs::rename(&new, &path).map_err(failed)
    }
}

/// A new certificate and its key, not yet written to disk.
pub struct Issued {
    pub identity: Identity,
    pub not_after: SystemTime,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    pub cert_pem: String,
    pub key_pem: String,
}

// Debug output must not contain the key.
impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("identity", &self.identity)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME-key.pem` (0600) into a directory.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`] if either file exists; nothing is written then.
    pub fn write(&self, dir: &Path) -> Result<IssuedFiles, AuthorityError> {
        let name = self.identity.name();
        let files = IssuedFiles {
            cert: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}-key.pem")),
        };
        refuse_existing(&files.cert)?;
        refuse_existing(&files.key)?;
        fs::create_dir_all(dir).map_err(|source| AuthorityError::Write {
            path: dir.to_owned(),
            source,
        })?;
        write_new(&files.key, self.key_pem.as_bytes(), 0o600)?;
        write_new(&files.cert, self.cert_pem.as_bytes(), 0o644)?;
        Ok(files)
    }
}

/// Paths of the files of a party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Sign)
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    text.try_into()
        .map(SanType::URI)
        .map_err(AuthorityError::Sign)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the validity of certificates is checked against the wall clock"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn set_validity(params: &mut CertificateParams, validity: Duration) -> SystemTime {
    let now = wall_clock();
    let not_after = now + validity;
    params.not_before = (now - BACKDATING).into();
    params.not_after = not_after.into();
    not_after
}

fn trust_domain_of(der: &[u8]) -> Option<TrustDomain> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://")?.parse().ok(),
            _ => None,
        })
}

fn refuse_existing(path: &Path) -> Result<(), AuthorityError> {
    match path.symlink_metadata() {
        Ok(_) => Err(AuthorityError::Exists {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(AuthorityError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(AuthorityError::Exists {
            path: path.to_owned(),
        }),
        Err(source) => Err(AuthorityError::Write {
            path: path.to_owned(),
            source,
        }),
    }
}

fn read_text(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Why an operation on the authority failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The operation would overwrite a file.
    #[error("{} already exists and is not overwritten; move it away or use another directory", path.display())]
    Exists { path: PathBuf },
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file can't be written.
    #[error("can't write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A file has unexpected content.
    #[error("{} can't be used: {what}", path.display())]
    Broken { path: PathBuf, what: String },
    /// The authority's key can't be used.
    #[error("{} contains no usable private key", path.display())]
    Key { path: PathBuf, source: rcgen::Error },
    /// Agents and operators are only clients; their certificates need no host names.
    #[error("{identity} is only a client, so its certificate can't have host names")]
    NamesOfClient { identity: Identity },
    /// The certificate would outlive the authority.
    #[error("the certificate of {identity} would outlive its authority; choose a shorter validity")]
    Outlives { identity: Identity },
    #[error("{} wasn't issued by this authority", path.display())]
    Foreign { path: PathBuf },
    /// Creating or signing a certificate failed.
    #[error("can't create the certificate")]
    Sign(#[source] rcgen::Error),
}
