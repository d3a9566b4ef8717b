//! `lockstep pki init`.

use crate::failure::Failure;
use crate::output::{self, Format};
use lockstep_api::Exit;
use lockstep_pki::{Authority, TrustDomain};
use serde_json::json;
use std::path::PathBuf;

/// Creates an authority.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Trust domain of all its certificates, such as example.org.
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: TrustDomain,
    /// The authority's directory.
    #[arg(long, default_value = "pki")]
    dir: PathBuf,
}

impl Init {
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        let authority = Authority::create(&self.dir, self.trust_domain)
            .map_err(|error| super::failure(&error))?;
        let (ca, key) = (self.dir.join("ca.pem"), self.dir.join("ca-key.pem"));
        match format {
            Format::Table => output::text(&format!(
                "created the authority for {}:\n  {}  to every host\n  {}  to every host that checks for \
                 revocation\n  {}  keep it off every host\n",
                authority.trust_domain(),
                ca.display(),
                authority.crl_path().display(),
                key.display(),
            ))?,
            Format::Json | Format::Jsonl => output::value(
                format,
                &json!({
                    "trust_domain": authority.trust_domain().as_str(),
                    "ca": ca, "ca_key": key, "crl": authority.crl_path(),
                }),
            )?,
        }
        Ok(Exit::Done)
    }
}
