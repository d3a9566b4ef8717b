//! Digests of file contents, as before-images and messages carry them.
//!
//! A before-image leaves the host. From the digest of a file that holds little besides
//! a password, the password can be guessed; so the digest of a file that not everybody
//! may read is recorded salted and stretched (as PBKDF2 does, RFC 8018), and isn't shown
//! at all. A key of this host would hide it better, but a host that has lost its state
//! is restored from the coordinator's records (R10), and would have lost the key, too.

use super::place::Node;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, Read as _};

/// What a salted digest begins with: then the salt, a colon and the digest, all hex.
const SALTED: &str = "salted:";

/// Rounds of hashing: some milliseconds for one comparison, and as many times the cost
/// of guessing. Part of the format of records.
const ROUNDS: u32 = 50_000;

/// The digest of a file's content. One that was read from a record may be salted; one
/// that was computed is compared with either.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ContentDigest {
    form: Form,
    /// Not everybody may read the file: the plain digest is never recorded or shown.
    secret: bool,
}

#[derive(Debug, Clone)]
enum Form {
    /// SHA-256, hex.
    Plain(String),
    Salted {
        salt: String,
        hash: String,
    },
}

impl ContentDigest {
    /// Reads a file's content. `secret`: not everybody may read it.
    pub(super) fn of(node: &Node, secret: bool) -> io::Result<Self> {
        let mut file = node.open()?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            digest.update(bytes);
        }
        Ok(Self {
            form: Form::Plain(hex::encode(digest.finalize())),
            secret,
        })
    }

    /// The same content, of which a copy is made that is as secret as either file.
    #[must_use]
    pub fn as_secret_as(mut self, other: &Self) -> Self {
        self.secret |= other.secret;
        self
    }

    /// Whether the digests are of the same content. Two salted ones are the same only
    /// if one is a copy of the other.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.form, &other.form) {
            (Form::Plain(mine), Form::Plain(other)) => mine == other,
            (Form::Plain(plain), Form::Salted { salt, hash })
            | (Form::Salted { salt, hash }, Form::Plain(plain)) => *hash == stretched(salt, plain),
            (
                Form::Salted { salt, hash },
                Form::Salted {
                    salt: other_salt,
                    hash: other,
                },
            ) => (salt, hash) == (other_salt, other),
        }
    }

    /// For messages and the record of changes.
    pub fn shown(&self) -> String {
        match &self.form {
            Form::Plain(plain) if !self.secret => format!("SHA-256 {plain}"),
            Form::Plain(_) | Form::Salted { .. } => {
                "content that not everybody may read".to_owned()
            }
        }
    }
}

fn stretched(salt: &str, plain: &str) -> String {
    let mut hash = Sha256::new_with_prefix(salt).chain_update(plain).finalize();
    for _ in 0..ROUNDS {
        hash = Sha256::new_with_prefix(hash).chain_update(salt).finalize();
    }
    hex::encode(hash)
}

impl PartialEq for ContentDigest {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for ContentDigest {}

impl From<String> for ContentDigest {
    fn from(text: String) -> Self {
        let salted = text
            .strip_prefix(SALTED)
            .and_then(|rest| rest.split_once(':'));
        match salted {
            Some((salt, hash)) => Self {
                form: Form::Salted {
                    salt: salt.to_owned(),
                    hash: hash.to_owned(),
                },
                secret: true,
            },
            None => Self {
                form: Form::Plain(text),
                secret: false,
            },
        }
    }
}

impl From<ContentDigest> for String {
    fn from(digest: ContentDigest) -> Self {
        match digest.form {
            Form::Plain(plain) if !digest.secret => plain,
            Form::Plain(plain) => {
                let salt = uuid::Uuid::new_v4().simple().to_string();
                format!("{SALTED}{salt}:{}", stretched(&salt, &plain))
            }
            Form::Salted { salt, hash } => format!("{SALTED}{salt}:{hash}"),
        }
    }
}
