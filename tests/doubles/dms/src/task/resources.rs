//! ARNs, and what exists besides tasks: the instance and the endpoints.

use crate::config::{Config, EndpointConfig};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes ARNs of one account and region.
#[derive(Debug, Clone)]
pub struct Arns {
    region: String,
    account: String,
}

impl Arns {
    /// For the account and region of the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            region: config.region.clone(),
            account: config.account.clone(),
        }
    }

    /// `arn:aws:dms:REGION:ACCOUNT:KIND:RESOURCE`; the kinds are `rep`,
    /// `endpoint` and `task`.
    #[must_use]
    pub fn dms(&self, kind: &str, resource: &str) -> String {
        format!(
            "arn:aws:dms:{}:{}:{kind}:{resource}",
            self.region, self.account
        )
    }

    /// The ARN of something that the configuration names: the same at every start.
    #[must_use]
    pub fn dms_named(&self, kind: &str, identifier: &str) -> String {
        // FNV-1a, 128 bits: stable across builds, which a hasher of std isn't.
        let hash = identifier.bytes().fold(
            0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128,
            |hash, byte| {
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
            },
        );
        self.dms(kind, &resource_id(hash))
    }

    /// The ARN of an alarm.
    #[must_use]
    pub fn alarm(&self, name: &str) -> String {
        format!(
            "arn:aws:cloudwatch:{}:{}:alarm:{name}",
            self.region, self.account
        )
    }

    /// The ARN of a dashboard.
    #[must_use]
    pub fn dashboard(&self, name: &str) -> String {
        format!("arn:aws:cloudwatch::{}:dashboard/{name}", self.account)
    }
}

/// Twenty-six letters and digits, as DMS names its resources.
#[must_use]
pub fn resource_id(mut number: u128) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut id = String::with_capacity(26);
    for _ in 0..26 {
        id.push(char::from(ALPHABET[(number & 31) as usize]));
        number >>= 5;
    }
    id
}

/// The instance and the endpoints; they don't change while the double runs.
#[derive(Debug)]
pub struct Resources {
    /// `ReplicationInstanceArn`.
    pub instance_arn: String,
    /// `ReplicationInstanceIdentifier`.
    pub instance_identifier: String,
    /// `ReplicationInstanceClass`.
    pub instance_class: String,
    /// `EngineVersion`.
    pub engine_version: String,
    /// When the double started, epoch ms.
    pub created_ms: i64,
    pub endpoints: BTreeMap<String, Arc<EndpointConfig>>,
    pub arns: Arns,
}

impl Resources {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let arns = Arns::new(config);
        Self {
            instance_arn: arns.dms_named("rep", &config.instance.identifier),
            instance_identifier: config.instance.identifier.clone(),
            instance_class: config.instance.class.clone(),
            engine_version: config.instance.engine_version.clone(),
            created_ms: super::state::now_ms(),
            endpoints: config
                .endpoints
                .iter()
                .map(|e| {
                    (
                        arns.dms_named("endpoint", e.identifier()),
                        Arc::new(e.clone()),
                    )
                })
                .collect(),
            arns,
        }
    }

    /// The ARN of an endpoint of the configuration.
    #[must_use]
    pub fn endpoint_arn(&self, identifier: &str) -> Option<&str> {
        self.endpoints
            .iter()
            .find(|(_, e)| e.identifier() == identifier)
            .map(|(arn, _)| arn.as_str())
    }
}

/// Whether an identifier is one that DMS accepts for a task: 1 to 255 letters,
/// digits and single hyphens, beginning with a letter, not ending in a hyphen.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    (1..=255).contains(&text.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.ends_with('-')
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_ids_look_like_those_of_dms() {
        let id = resource_id(u128::MAX);
        assert_eq!(id.len(), 26);
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        );
    }

    #[test]
    fn identifiers_follow_the_documented_rule() {
        for (text, fits) in [
            ("forward", true),
            ("reverse-task-2", true),
            ("2nd", false),
            ("a--b", false),
            ("a-", false),
            ("", false),
            ("a_b", false),
        ] {
            assert_eq!(is_identifier(text), fits, "{text}");
        }
    }
}
