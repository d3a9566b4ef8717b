//! This process's own certificate and what it trusts, followed on disk.
//!
//! Every connection takes the configuration that is current when it begins.
//! New files take effect within [`POLL_INTERVAL`]; files that don't fit together
//! (a certificate replaced before its key) are left alone, with a warning, until
//! they do. A connection that stands is checked against each new state.

use crate::certificate;
use crate::identity::{Identity, IdentityError, SpiffeId, TrustDomain};
use crate::refusal::Refusal;
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

/// How often the files' modification times are looked at. A revocation counts
/// within this time, and four `stat` calls are nothing beside a heartbeat.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Largest file that is read as PEM: a bundle of a hundred CAs or a revocation
/// list of ten thousand entries fits, a wrong path to a disk image doesn't.
const MAX_FILE: u64 = 1024 * 1024;

/// HTTP/2, the only protocol spoken inside.
const ALPN: &[u8] = b"h2";

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The certificate authorities that are trusted.
    pub ca: PathBuf,
    /// The party's certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// The certificate's key, readable by nobody but its owner and group.
    pub key: PathBuf,
    /// Revocation lists. With a list, the whole chain must be covered by one.
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
    parties: Arc<PartyVerifier>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Loaded {
    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.id.identity
    }

    /// The domain that this process and all its peers belong to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.id.trust_domain
    }

    /// When the own certificate ceases to be valid.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// SHA-256 of the own certificate, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// For accepting: clients must prove an identity of the trust domain.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For dialling: the server must prove to be a coordinator of the trust domain.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
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

/// The current state of the files; clones share it.
#[derive(Debug, Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: CredentialFiles,
    current: watch::Sender<Arc<Loaded>>,
    /// What the files looked like when they were last read, successfully or not,
    /// so that a set that doesn't fit together is reported once.
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: u64,
}

impl Credentials {
    /// Reads the files once: enough for a command that ends soon.
    ///
    /// # Errors
    /// [`CredentialsError`] says which file is wrong and how.
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
        })
    }

    /// Reads the files and follows them for as long as the credentials are held.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`Credentials::load`]; later trouble is logged and leaves the last
    /// good state in force.
    pub fn follow(files: CredentialFiles) -> Result<Self, CredentialsError> {
        let credentials = Self::load(files)?;
        tokio::spawn(poll(Arc::downgrade(&credentials.shared)));
        Ok(credentials)
    }

    /// The state in force now.
    pub fn current(&self) -> Arc<Loaded> {
        self.shared.current.borrow().clone()
    }

    /// A receiver that wakes at each new state.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Loaded>> {
        self.shared.current.subscribe()
    }

    /// Reads the files again if they have changed, and says whether a new state
    /// is in force.
    ///
    /// # Errors
    /// The files don't form a valid whole; the last good state stays in force.
    pub fn reload(&self) -> Result<bool, CredentialsError> {
        self.shared.reload()
    }
}

impl Shared {
    fn reload(&self) -> Result<bool, CredentialsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The stamps come before the reading: a write in between shows next time.
        let now = stamps(&self.files);
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        let loaded = read(&self.files)?;
        self.current.send_replace(Arc::new(loaded));
        Ok(true)
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
                "changed certificate files can't be used; the previous ones stay in force"
            ),
            // Only at the end of the runtime.
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
    let own = chain.first().ok_or_else(|| CredentialsError::Empty {
        path: files.cert.clone(),
        what: "certificate",
    })?;
    let id = SpiffeId::of_certificate(own).map_err(|source| CredentialsError::Identity {
        path: files.cert.clone(),
        source,
    })?;
    let crls = match &files.crl {
        Some(path) => read_crls(path)?,
        None => Vec::new(),
    };
    let key = read_key(&files.key)?;
    let parties = PartyVerifier::new(roots.clone(), crls.clone(), id.trust_domain.clone());
    let parties = parties.map_err(|source| CredentialsError::Trust {
        path: files.ca.clone(),
        source: Box::new(source),
    })?;
    let coordinators = CoordinatorVerifier::new(roots, &crls, id.trust_domain.clone());
    let coordinators = coordinators.map_err(|source| CredentialsError::Trust {
        path: files.crl.clone().unwrap_or_default(),
        source: Box::new(source),
    })?;
    let parties = Arc::new(parties);
    let configs = configs(&chain, &key, parties.clone(), Arc::new(coordinators));
    let (server, client) = configs.map_err(|source| CredentialsError::KeyMismatch {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })?;
    let loaded = Loaded {
        id,
        not_after: certificate::not_after(own),
        fingerprint: certificate::fingerprint(own),
        parties,
        server: Arc::new(server),
        client: Arc::new(client),
    };
    // Each party is a client at some time. What our own rules refuse, every peer
    // would refuse as well, with less said about why.
    loaded
        .verify_party(&chain)
        .map_err(|source| CredentialsError::Refused {
            cert: files.cert.clone(),
            ca: files.ca.clone(),
            source,
        })?;
    Ok(loaded)
}

/// TLS 1.3 only, since both ends are ours. No resumption: a resumed session
/// would not look at the certificate again and so outlive its revocation.
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
        // Read as "nothing is revoked", an emptied file would undo every revocation.
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
    /// The file system refused.
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Not a PEM file of this size.
    #[error("{} has {length} bytes; a PEM file here has at most {MAX_FILE}", path.display())]
    TooLarge {
        path: PathBuf,
        /// Its size in bytes.
        length: u64,
    },
    /// The PEM armour or its content is broken.
    #[error("{} is not valid PEM", path.display())]
    Pem {
        path: PathBuf,
        /// What the reader says.
        source: pem::Error,
    },
    /// Valid, but without the part that it is there for.
    #[error("{} holds no {what} in PEM", path.display())]
    Empty { path: PathBuf, what: &'static str },
    /// The key is open to everybody on the host.
    #[error(
        "every user of this host can use the private key {} (mode {mode:04o}); chmod 0600 it, and issue a new one if others may have read it",
        path.display()
    )]
    KeyExposed { path: PathBuf, mode: u32 },
    /// The certificate names no party.
    #[error("{} doesn't name a party", path.display())]
    Identity {
        path: PathBuf,
        source: IdentityError,
    },
    /// A CA or a revocation list can't be used.
    #[error("{} can't be used to verify others", path.display())]
    Trust {
        path: PathBuf,
        /// What the TLS library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key belongs to another certificate.
    #[error("the key {} and the certificate {} don't belong together", key.display(), cert.display())]
    KeyMismatch {
        cert: PathBuf,
        key: PathBuf,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// The own certificate would be refused by everybody.
    #[error("the certificate {} is not valid under {}", cert.display(), ca.display())]
    Refused {
        cert: PathBuf,
        ca: PathBuf,
        source: Refusal,
    },
}
