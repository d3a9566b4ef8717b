//! Passwords and certificates, minted when the range starts and gone with it.

use super::error::Error;
use super::layout::Layout;
use lockstep_pki::{Authority, Identity, Role, TrustDomain};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// The range's trust domain.
pub const TRUST_DOMAIN: &str = "rehearsal.lockstep";

/// Longer than any rehearsal that is kept for a look around.
const VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);

/// The passwords, by account; Oracle's and PostgreSQL's each have their own.
#[derive(Debug)]
pub struct Passwords {
    /// Oracle's accounts, in lower case.
    pub oracle: BTreeMap<&'static str, String>,
    pub postgres: BTreeMap<&'static str, String>,
}

impl Passwords {
    /// Makes them and writes each to a file of its own.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn mint(layout: &Layout) -> Result<Self, Error> {
        let mint = |database: &str, accounts: [&'static str; 4]| {
            accounts
                .into_iter()
                .map(|account| {
                    let password = random_hex()?;
                    write(&layout.secret(&format!("{database}-{account}")), &password)?;
                    Ok((account, password))
                })
                .collect::<Result<BTreeMap<_, _>, Error>>()
        };
        let passwords = Self {
            oracle: mint("oracle", ["shop", "batch", "dms_user", "lockstep"])?,
            postgres: mint(
                "postgres",
                ["shop_app", "batch_app", "dms_user", "lockstep"],
            )?,
        };
        // The double takes any credentials; the SDK insists on having some.
        write(&layout.secret("aws-access-key-id"), "REHEARSAL")?;
        write(&layout.secret("aws-secret-access-key"), &random_hex()?)?;
        Ok(passwords)
    }
}

fn random_hex() -> Result<String, Error> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 12];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::file("read", path))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    }
    std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(Error::file("write", path))
}

/// Makes the CA and a certificate for the coordinator, for each agent and for
/// two operators: one who starts runs and one who approves them.
///
/// # Errors
/// [`Error::Certificate`].
pub fn certify(layout: &Layout, agents: &[String]) -> Result<(), Error> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |error: &dyn std::error::Error| Error::Certificate {
            name,
            detail: error.to_string(),
        }
    };
    let domain: TrustDomain = TRUST_DOMAIN.parse().map_err(|e| failed("the CA")(&e))?;
    let authority = Authority::create(&layout.pki(), domain).map_err(|e| failed("the CA")(&e))?;
    let local = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let parties = [
        (Role::Coordinator, "coordinator"),
        (Role::Operator, "operator"),
        (Role::Operator, "approver"),
    ]
    .into_iter()
    .map(|(role, name)| (role, name.to_owned()))
    .chain(agents.iter().map(|name| (Role::Agent, name.clone())));
    for (role, name) in parties {
        let names: &[String] = if role == Role::Coordinator {
            &local
        } else {
            &[]
        };
        let identity = Identity::new(role, &name).map_err(|e| failed(&name)(&e))?;
        authority
            .issue(&identity, VALIDITY, names)
            .and_then(|issued| issued.write(&layout.pki()))
            .map_err(|e| failed(&name)(&e))?;
    }
    Ok(())
}
