//! Digests of file contents, as before-images and messages carry them.
//!
//! A before-image leaves the host. From the digest of a file that holds little besides
//! a password, the password can be guessed; so the digest of a file that not everybody
//! may read is made with a key that never leaves this host.

use super::place::Node;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What a digest that was made with the key begins with.
const KEYED: &str = "keyed:";

/// Bytes of the key.
const KEY: usize = 32;

/// File that holds the key, in the agent's state directory.
const KEY_FILE: &str = "digest-key";

/// The key of this host, made when it is first needed.
#[derive(Debug)]
pub struct DigestKey {
    file: PathBuf,
    key: OnceLock<[u8; KEY]>,
}

impl DigestKey {
    /// The key in this state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self {
            file: state_dir.join(KEY_FILE),
            key: OnceLock::new(),
        }
    }

    fn get(&self) -> io::Result<&[u8; KEY]> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let key = self.read_or_create()?;
        Ok(self.key.get_or_init(|| key))
    }

    fn read_or_create(&self) -> io::Result<[u8; KEY]> {
        match fs::read(&self.file) {
            Ok(bytes) => {
                return bytes.try_into().map_err(|_| {
                    io::Error::other(format!("{} is not {KEY} bytes long", self.file.display()))
                });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let mut key = [0; KEY];
        fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        // Under a name of its own first: two tasks may need the key at once, and the
        // one that is linked first is the key.
        let new = self.file.with_extension(uuid::Uuid::new_v4().to_string());
        let linked = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&key)?;
            file.sync_all()?;
            fs::hard_link(&new, &self.file)
        };
        let outcome = linked();
        let _ = fs::remove_file(&new);
        match outcome {
            Ok(()) => Ok(key),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let bytes = fs::read(&self.file)?;
                bytes
                    .try_into()
                    .map_err(|_| io::ErrorKind::InvalidData.into())
            }
            Err(e) => Err(e),
        }
    }
}

/// The digest of a file's content. One that was read from a record has one form, one
/// that was computed has both where it can, so that either record is compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ContentDigest {
    /// SHA-256, hex.
    plain: Option<String>,
    /// SHA-256 of the key and the content, hex.
    keyed: Option<String>,
    /// Not everybody may read the file: the plain form is never written.
    secret: bool,
}

impl ContentDigest {
    /// Reads a file's content. `secret`: not everybody may read it.
    pub(super) fn of(node: &Node, key: &DigestKey, secret: bool) -> io::Result<Self> {
        let mut file = node.open()?;
        let key = if secret || key.file.exists() {
            Some(key.get()?)
        } else {
            None
        };
        let (mut plain, mut keyed) = (Sha256::new(), Sha256::new());
        keyed.update(key.map_or(&[][..], |key| key));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            plain.update(bytes);
            keyed.update(bytes);
        }
        Ok(Self {
            plain: Some(hex::encode(plain.finalize())),
            keyed: key.map(|_| hex::encode(keyed.finalize())),
            secret,
        })
    }

    /// The same content, of which a copy is made that is as secret as either file.
    #[must_use]
    pub fn as_secret_as(mut self, other: &Self) -> Self {
        self.secret |= other.secret && self.keyed.is_some();
        self
    }

    /// Whether the digests are of the same content, as far as both have the same form.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.keyed, &other.keyed) {
            (Some(mine), Some(other)) => mine == other,
            _ => self.plain.is_some() && self.plain == other.plain,
        }
    }

    /// For messages and the record of changes.
    pub fn shown(&self) -> String {
        match &self.plain {
            Some(plain) if !self.secret => format!("SHA-256 {plain}"),
            _ => "content that not everybody may read".to_owned(),
        }
    }
}

impl PartialEq for ContentDigest {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for ContentDigest {}

impl From<String> for ContentDigest {
    fn from(text: String) -> Self {
        match text.strip_prefix(KEYED) {
            Some(keyed) => Self {
                plain: None,
                keyed: Some(keyed.to_owned()),
                secret: true,
            },
            None => Self {
                plain: Some(text),
                keyed: None,
                secret: false,
            },
        }
    }
}

impl From<ContentDigest> for String {
    fn from(digest: ContentDigest) -> Self {
        match (digest.secret, digest.plain, digest.keyed) {
            (false, Some(plain), _) => plain,
            (_, _, keyed) => format!("{KEYED}{}", keyed.unwrap_or_default()),
        }
    }
}
