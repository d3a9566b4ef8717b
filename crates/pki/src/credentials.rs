//! Certificate and trust anchors of this process, reloaded when the files change.
//!
//! Every connection uses the configuration that is current when it begins.
//! Changed files take effect within [`POLL_INTERVAL`]; inconsistent files (a
//! certificate replaced before its key) are ignored, with a warning, until they are
//! consistent. Open connections are verified against each new state.

use crate::certificate;
use crate::identity::{Identity, IdentityError, SpiffeId, TrustDomain};
use crate::refusal::Refusal;
use crate::revocation::RevocationLists;
use crate::verifier::{CoordinatorVerifier, PartyVerifier};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// Interval at which the files are checked for changes, and thus the longest delay
/// of a revocation. Each check costs four `stat` calls.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum size of a PEM file in bytes: enough for a hundred CAs or a revocation list
/// of ten thousand entries, and a guard against a wrong path to a huge file.
const MAX_FILE: u64 = 1024 * 1024;

/// HTTP/2, the only protocol used inside TLS.
const ALPN: &[u8] = b"h2";

/// Paths of the PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    pub ca: PathBuf,
    /// The party's certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// The key of the certificate, readable only by its owner and group.
    pub key: PathBuf,
    /// Revocation lists. If set, they must cover the whole chain.
    pub crl: Option<PathBuf>,
}

impl CredentialFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key]
            .into_iter()
            .chain(&self.crl)
            .map(PathBuf::as_path)
    }
}

/// One consistent state of the files.
#[derive(Debug)]
pub struct Loaded {
    id: SpiffeId,
    not_after: Option<SystemTime>,
    fingerprint: String,
    own: Arc<Own>,
    roots: Arc<RootCertStore>,
    parties: Arc<PartyVerifier>,
    coordinators: Arc<CoordinatorVerifier>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Loaded {
    /// Identity of this process.
    pub fn identity(&self) -> &Identity {
        &self.id.identity
    }

    /// Trust domain of this process and all its peers.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.id.trust_domain
    }

    /// End of validity of this process's certificate.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// SHA-256 of this process's certificate, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Configuration of a server, whose clients must prove an identity of the trust
    /// domain.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Configuration of a client, whose server must prove that it is a coordinator of
    /// the trust domain.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Whether a coordinator with this chain would be accepted now.
    pub(crate) fn verify_coordinator(&self, chain: &[CertificateDer<'_>]) -> Result<(), Refusal> {
        let (end_entity, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        self.coordinators
            .verify(end_entity, intermediates, UnixTime::now())
            .map_err(|error| Refusal::of_tls(&error))
    }

    /// Whether a client with this chain would be accepted now.
    pub(crate) fn verify_party(&self, chain: &[CertificateDer<'_>]) -> Result<(), Refusal> {
        let (end_entity, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        self.parties
            .verify_client_cert(end_entity, intermediates, UnixTime::now())
            .map(drop)
            .map_err(|error| Refusal::of_tls(&error))
    }
}

/// Certificate and key of this process.
#[derive(Debug)]
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The current state of the files; clones share it.
#[derive(Debug, Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
    /// The only coordinator to connect to.
    coordinator: Option<Arc<str>>,
}

#[derive(Debug)]
struct Shared {
    files: CredentialFiles,
    current: watch::Sender<Arc<Loaded>>,
    /// State of the files at the last read, successful or not, so that an
    /// inconsistent set is reported only once.
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// Metadata that changes when a file is written or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: u64,
}

impl Credentials {
    /// Reads the files once, which suffices for a short-lived command.
    ///
    /// # Errors
    /// A file is unreadable or invalid.
    pub fn load(files: CredentialFiles) -> Result<Self, CredentialsError> {
        let seen = stamps(&files);
        let loaded = read(&files)?;
        let (current, _) = watch::channel(Arc::new(loaded));
        Ok(Self {
            shared: Arc::new(Shared {
                files,
                current,
                seen: Mutex::new(seen),
            }),
            coordinator: None,
        })
    }

    /// Connects to the coordinator of this name only.
    #[must_use]
    pub fn pinned_to(mut self, coordinator: Option<&str>) -> Self {
        self.coordinator = coordinator.map(Into::into);
        self
    }

    /// The name of the only coordinator to connect to, if one is pinned.
    pub(crate) fn coordinator(&self) -> Option<&str> {
        self.coordinator.as_deref()
    }

    /// Reads the files and reloads them on changes until the credentials are dropped.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`Credentials::load`]. Later errors are logged; the last valid state then
    /// remains in effect.
    pub fn follow(files: CredentialFiles) -> Result<Self, CredentialsError> {
        let credentials = Self::load(files)?;
        tokio::spawn(poll(Arc::downgrade(&credentials.shared)));
        Ok(credentials)
    }

    /// The state currently in effect.
    pub fn current(&self) -> Arc<Loaded> {
        self.shared.current.borrow().clone()
    }

    /// A receiver that is notified of each new state.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Loaded>> {
        self.shared.current.subscribe()
    }

    /// Reads the files again if they have changed, and returns whether a new state
    /// is in effect.
    ///
    /// # Errors
    /// The files are invalid or inconsistent; the last valid state remains in effect,
    /// with the new revocations if their file is valid.
    pub fn reload(&self) -> Result<bool, CredentialsError> {
        self.shared.reload()
    }
}

impl Shared {
    fn reload(&self) -> Result<bool, CredentialsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Stamps are taken before reading, so a write in between is detected next time.
        let now = stamps(&self.files);
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        let before = self.current.borrow().clone();
        let error = match read(&self.files) {
            Ok(loaded) if loaded.id == before.id => {
                self.current.send_replace(Arc::new(loaded));
                return Ok(true);
            }
            Ok(loaded) => CredentialsError::AnotherIdentity {
                cert: self.files.cert.clone(),
                found: loaded.id.to_string(),
                expected: before.id.to_string(),
            },
            Err(error) => error,
        };
        // Whatever is wrong with the other files, an expired certificate of this
        // process for one, revocations count.
        if let Some(loaded) = with_new_revocations(&self.files, &before) {
            self.current.send_replace(Arc::new(loaded));
        }
        Err(error)
    }
}

async fn poll(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let outcome = tokio::task::spawn_blocking(move || {
            let outcome = shared.reload();
            (outcome, shared.current.borrow().clone())
        })
        .await;
        match outcome {
            Ok((Ok(false), _)) => {}
            Ok((Ok(true), loaded)) => tracing::info!(
                identity = %loaded.identity(),
                fingerprint = loaded.fingerprint(),
                "certificate files reloaded"
            ),
            Ok((Err(error), loaded)) => tracing::warn!(
                fingerprint = loaded.fingerprint(),
                error = &error as &dyn std::error::Error,
                "changed certificate files can't be used; the previous ones remain in effect, \
                 except for revocations"
            ),
            // The runtime is shutting down.
            Err(_) => return,
        }
    }
}

fn stamps(files: &CredentialFiles) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some(Stamp {
            modified: (meta.mtime(), meta.mtime_nsec()),
            length: meta.len(),
            inode: meta.ino(),
        })
    };
    files.paths().map(stamp).collect()
}

fn read(files: &CredentialFiles) -> Result<Loaded, CredentialsError> {
    let roots = Arc::new(read_roots(&files.ca)?);
    let chain = certificate::certificates(&read_file(&files.cert)?).map_err(|source| {
        CredentialsError::Pem {
            path: files.cert.clone(),
            source,
        }
    })?;
    let crls = read_revocations(files)?;
    let key = read_key(&files.key)?;
    let loaded = load(files, Arc::new(Own { chain, key }), roots, &crls)?;
    // Every party acts as a client. Peers would reject a certificate that fails this
    // check, with less information about the reason.
    loaded
        .verify_party(&loaded.own.chain)
        .map_err(|source| refused(files, source))?;
    Ok(loaded)
}

/// The previous state with the revocation lists that are in the file now, if they
/// are valid.
fn with_new_revocations(files: &CredentialFiles, before: &Loaded) -> Option<Loaded> {
    let crls = read_revocations(files).ok()?;
    load(files, before.own.clone(), before.roots.clone(), &crls).ok()
}

fn refused(files: &CredentialFiles, source: Refusal) -> CredentialsError {
    CredentialsError::Refused {
        cert: files.cert.clone(),
        ca: files.ca.clone(),
        source,
    }
}

fn load(
    files: &CredentialFiles,
    own: Arc<Own>,
    roots: Arc<RootCertStore>,
    crls: &RevocationLists,
) -> Result<Loaded, CredentialsError> {
    let certificate = own.chain.first().ok_or_else(|| CredentialsError::Empty {
        path: files.cert.clone(),
        what: "certificate",
    })?;
    let id =
        SpiffeId::of_certificate(certificate).map_err(|source| CredentialsError::Identity {
            path: files.cert.clone(),
            source,
        })?;
    // Before the TLS library refuses the key for another reason.
    certificate::check_key(certificate).map_err(|weak| refused(files, weak.into()))?;
    let parties = PartyVerifier::new(&roots, crls, id.trust_domain.clone());
    let parties = Arc::new(parties.map_err(|source| CredentialsError::Trust {
        path: files.ca.clone(),
        source: Box::new(source),
    })?);
    let coordinators = CoordinatorVerifier::new(roots.clone(), crls, id.trust_domain.clone());
    let coordinators = Arc::new(coordinators.map_err(|source| CredentialsError::Trust {
        path: files.crl.clone().unwrap_or_default(),
        source: Box::new(source),
    })?);
    let configs = configs(&own.chain, &own.key, parties.clone(), coordinators.clone());
    let (server, client) = configs.map_err(|source| CredentialsError::KeyMismatch {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })?;
    Ok(Loaded {
        id,
        not_after: certificate::not_after(certificate),
        fingerprint: certificate::fingerprint(certificate),
        own: own.clone(),
        roots,
        parties,
        coordinators,
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

fn read_revocations(files: &CredentialFiles) -> Result<RevocationLists, CredentialsError> {
    let crls = match &files.crl {
        Some(path) => read_crls(path)?,
        None => Vec::new(),
    };
    RevocationLists::new(crls).map_err(|source| CredentialsError::Trust {
        path: files.crl.clone().unwrap_or_default(),
        source: Box::new(source),
    })
}

/// TLS 1.3 only, since both ends are Lockstep. No resumption: a resumed session
/// would not verify the certificate again and so outlive its revocation.
fn configs(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    parties: Arc<PartyVerifier>,
    coordinators: Arc<CoordinatorVerifier>,
) -> Result<(ServerConfig, ClientConfig), rustls::Error> {
    let mut server = ServerConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(parties)
        .with_single_cert(chain.to_vec(), key.clone_key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = ClientConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(coordinators)
        .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    Ok((server, client))
}

fn read_roots(path: &Path) -> Result<RootCertStore, CredentialsError> {
    let certificates =
        certificate::certificates(&read_file(path)?).map_err(|source| CredentialsError::Pem {
            path: path.to_owned(),
            source,
        })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        certificate::check_key(&certificate).map_err(|source| CredentialsError::Trust {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        roots
            .add(certificate)
            .map_err(|source| CredentialsError::Trust {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
    }
    if roots.is_empty() {
        return Err(CredentialsError::Empty {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(roots)
}

fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CredentialsError> {
    let crls = certificate::revocation_lists(&read_file(path)?).map_err(|source| {
        CredentialsError::Pem {
            path: path.to_owned(),
            source,
        }
    })?;
    if crls.is_empty() {
        // Accepting an empty file would undo every revocation.
        return Err(CredentialsError::Empty {
            path: path.to_owned(),
            what: "revocation list",
        });
    }
    Ok(crls)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let meta = fs::metadata(path).map_err(|source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = meta.mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(CredentialsError::KeyExposed {
            path: path.to_owned(),
            mode,
        });
    }
    PrivateKeyDer::from_pem_slice(&read_file(path)?).map_err(|source| CredentialsError::Pem {
        path: path.to_owned(),
        source,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let failed = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(CredentialsError::TooLarge {
            path: path.to_owned(),
            length,
        });
    }
    fs::read(path).map_err(failed)
}

/// Why the files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file can't be read.
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Too large for a PEM file.
    #[error("{} has {length} bytes; a PEM file here has at most {MAX_FILE}", path.display())]
    TooLarge { path: PathBuf, length: u64 },
    /// The PEM encoding is invalid.
    #[error("{} is not valid PEM", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    /// Valid PEM, but without the expected kind of object.
    #[error("{} contains no {what} in PEM", path.display())]
    Empty { path: PathBuf, what: &'static str },
    /// Every user of the host can read the key.
    #[error(
        "every user of this host can access the private key {} (mode {mode:04o}); set mode 0600, and issue a new key if others may have read it",
        path.display()
    )]
    KeyExposed { path: PathBuf, mode: u32 },
    /// The certificate does not identify a party.
    #[error("{} doesn't identify a party", path.display())]
    Identity {
        path: PathBuf,
        source: IdentityError,
    },
    /// A CA or a revocation list can't be used.
    #[error("{} can't be used to verify certificates", path.display())]
    Trust {
        path: PathBuf,
        /// Error of the TLS library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key belongs to another certificate.
    #[error("the key {} doesn't match the certificate {}", key.display(), cert.display())]
    KeyMismatch {
        cert: PathBuf,
        key: PathBuf,
        /// Error of the TLS library.
        source: rustls::Error,
    },
    /// A renewed certificate that names another party.
    #[error(
        "the certificate {} now belongs to {found}, and this process is {expected}", cert.display()
    )]
    AnotherIdentity {
        cert: PathBuf,
        found: String,
        expected: String,
    },
    /// Peers would reject this process's certificate.
    #[error("the certificate {} is not valid under {}", cert.display(), ca.display())]
    Refused {
        cert: PathBuf,
        ca: PathBuf,
        source: Refusal,
    },
}
