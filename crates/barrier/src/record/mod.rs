//! Records that coordinator and participant write to their journals.
//!
//! A state machine's durable state is the fold of these records alone. They are
//! stored as JSON, tagged by `record`. Deserialisation rejects an unknown record
//! or field: a coordinator that ignored part of a decision would decide again.
//!
//! The first record of a run ([`Record::Began`]) and of an agent's journal
//! ([`ParticipantRecord::Opened`]) states the [`FormatVersion`] of the whole
//! journal.

mod coordinator;
mod participant;

pub use coordinator::{
    Begin, Consumed, Ending, Failure, JournalPosition, OperatorRequest, OutstandingUndo,
    OutstandingUndoCause, PrepareReason, Record, Resolution, RollbackCause, SkipCause,
};
pub use participant::{ParticipantRecord, Tombstone};
use serde::{Deserialize, Serialize};

/// Version of the record format. It changes when a record that a build can decode
/// has another meaning in another build, or when an old record can't be decoded any
/// more. A new record, field or error code needs no new version, because a build
/// that doesn't have it rejects the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormatVersion(pub u32);

/// The journal has a format that this build doesn't support.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}; this version reads and writes format {}", found_text(*.found), .known.0)]
pub struct UnknownFormat {
    /// `None` if the first record has no version.
    pub found: Option<FormatVersion>,
    pub known: FormatVersion,
}

fn found_text(found: Option<FormatVersion>) -> String {
    match found {
        Some(FormatVersion(version)) => format!("it was written in format {version}"),
        None => "its first record names no format".to_owned(),
    }
}

impl FormatVersion {
    /// The version that this build writes, and the only one that it reads.
    pub const CURRENT: Self = Self(1);

    /// # Errors
    /// If this build doesn't support the version.
    pub fn check(self) -> Result<(), UnknownFormat> {
        if self == Self::CURRENT {
            return Ok(());
        }
        Err(UnknownFormat {
            found: Some(self),
            known: Self::CURRENT,
        })
    }

    /// Checks the version in the JSON text of a journal's first record, and
    /// parses nothing else of it. A store calls this before it decodes any
    /// record: records of another version may not be decodable, and the error
    /// "unknown field" would hide the cause.
    ///
    /// # Errors
    /// If this build doesn't support the version, or the record has none. Every
    /// released build writes it, so a journal without it has an unknown format.
    pub fn check_first_record(json: &str) -> Result<(), UnknownFormat> {
        #[derive(Deserialize)]
        struct First {
            format: Option<FormatVersion>,
        }
        let first = serde_json::from_str::<First>(json);
        let found = first.ok().and_then(|first| first.format);
        found.map_or(
            Err(UnknownFormat {
                found: None,
                known: Self::CURRENT,
            }),
            Self::check,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_records_and_fields_are_refused() {
        let known = r#"{"record":"completed","phase":{"track":"forward","index":3}}"#;
        assert!(serde_json::from_str::<Record>(known).is_ok());
        for text in [
            r#"{"record":"completed","phase":{"track":"forward","index":3},"also":1}"#,
            r#"{"record":"finished","phase":{"track":"forward","index":3}}"#,
            r#"{"record":"completed"}"#,
        ] {
            assert!(serde_json::from_str::<Record>(text).is_err(), "{text}");
        }
        let known = r#"{"record":"closed","run":"r"}"#;
        assert!(serde_json::from_str::<ParticipantRecord>(known).is_ok());
        let more = r#"{"record":"closed","run":"r","also":1}"#;
        assert!(serde_json::from_str::<ParticipantRecord>(more).is_err());
    }

    #[test]
    fn a_journal_of_another_format_is_named_as_one() {
        let check = FormatVersion::check_first_record;
        assert_eq!(check(r#"{"record":"opened","format":1}"#), Ok(()));
        let newer = check(r#"{"record":"created","format":2,"more":[]}"#);
        let newer = newer.map_err(|error| error.to_string());
        let message = "it was written in format 2; this version reads and writes format 1";
        assert_eq!(newer, Err(message.to_owned()));
        let unversioned = check(r#"{"record":"accepted"}"#).map_err(|error| error.found);
        assert_eq!(unversioned, Err(None));
    }
}
