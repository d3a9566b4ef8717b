//! `lockstep pki revoke`.

use crate::failure::Failure;
use crate::output::{self, Format};
use lockstep_api::Exit;
use lockstep_pki::Authority;
use serde_json::json;
use std::path::PathBuf;

/// Revokes a certificate.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The certificate, PEM.
    certificate: PathBuf,
    /// The authority's directory.
    #[arg(long, default_value = "pki")]
    dir: PathBuf,
}

impl Revoke {
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        let authority = Authority::open(&self.dir).map_err(|error| super::failure(&error))?;
        let changed = authority
            .revoke(&self.certificate)
            .map_err(|error| super::failure(&error))?;
        let crl = authority.crl_path();
        match format {
            Format::Table => {
                let what = if changed {
                    "revoked"
                } else {
                    "was already revoked"
                };
                output::text(&format!(
                    "{} {what}; copy {} to the hosts; daemons reload it without a restart\n",
                    self.certificate.display(),
                    crl.display(),
                ))?;
            }
            Format::Json | Format::Jsonl => {
                output::value(format, &json!({"changed": changed, "crl": crl}))?;
            }
        }
        Ok(Exit::Done)
    }
}
