//! `lockstep pki issue`.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view::moment;
use jiff::Timestamp;
use lockstep_api::Exit;
use lockstep_pki::{Authority, Identity};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Creates a certificate and its key.
#[derive(Debug, clap::Args)]
pub struct Issue {
    /// Identity in the certificate: agent/NAME, coordinator/NAME or operator/NAME.
    identity: Identity,
    /// The authority's directory.
    #[arg(long, default_value = "pki")]
    dir: PathBuf,
    /// Directory for NAME.pem and NAME-key.pem, by default the authority's.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Validity in days; at most five years, the validity of the authority.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=1825))]
    days: u32,
    /// Host name or IP address of a coordinator, for third-party tools that verify
    /// it; may be repeated.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

impl Issue {
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        let validity = Duration::from_secs(u64::from(self.days) * 24 * 3600);
        let issued = Authority::open(&self.dir)
            .and_then(|authority| authority.issue(&self.identity, validity, &self.hosts))
            .map_err(|error| super::failure(&error))?;
        let out = self.out.as_ref().unwrap_or(&self.dir);
        let files = issued.write(out).map_err(|error| super::failure(&error))?;
        let until = Timestamp::try_from(issued.not_after).ok();
        match format {
            Format::Table => output::text(&format!(
                "created the certificate of {}, valid until {}:\n  {}\n  {}  (secret)\n",
                issued.identity,
                moment(until),
                files.cert.display(),
                files.key.display(),
            ))?,
            Format::Json | Format::Jsonl => output::value(
                format,
                &json!({
                    "identity": issued.identity.to_string(),
                    "cert": files.cert, "key": files.key,
                    "not_after": until, "fingerprint": issued.fingerprint,
                }),
            )?,
        }
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[test]
    fn the_validity_is_at_most_five_years() {
        let parse = |days| {
            crate::args::Arguments::try_parse_from([
                "lockstep", "pki", "issue", "agent/a", "--days", days,
            ])
        };
        parse("1825").unwrap();
        parse("1826").unwrap_err();
        parse("99999999").unwrap_err();
    }
}
