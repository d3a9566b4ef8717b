//! Structured errors.

use super::{MAX_SENTENCE, some, truncated};
use crate::v1;
use lockstep_api::{Code, Diagnosis};
use prost::Message;

/// Metadata key of a rejected request: an encoded `v1.Diagnosis`.
pub const DIAGNOSIS_KEY: &str = "lockstep-diagnosis-bin";

/// A status with the structured diagnosis, and the diagnosis on one line as its
/// message.
pub fn diagnosis_to_status(code: tonic::Code, diagnosis: &Diagnosis) -> tonic::Status {
    let mut status = tonic::Status::new(code, diagnosis.to_string());
    let bytes = v1::Diagnosis::from(diagnosis.clone()).encode_to_vec();
    status.metadata_mut().insert_bin(
        DIAGNOSIS_KEY,
        tonic::metadata::MetadataValue::from_bytes(&bytes),
    );
    status
}

/// The diagnosis that a status carries; none where it carries none or one with
/// a code that this version doesn't know, and its message must do.
pub fn diagnosis_from_status(status: &tonic::Status) -> Option<Diagnosis> {
    let bytes = status.metadata().get_bin(DIAGNOSIS_KEY)?.to_bytes().ok()?;
    let diagnosis = v1::Diagnosis::decode(bytes).ok()?;
    Code::find(&diagnosis.code)?;
    Some(diagnosis.into())
}

impl From<Diagnosis> for v1::Diagnosis {
    fn from(diagnosis: Diagnosis) -> Self {
        Self {
            code: diagnosis.code.to_string(),
            what: diagnosis.what,
            causes: diagnosis.causes,
            state_left: diagnosis.state_left.unwrap_or_default(),
            remedy: diagnosis.remedy.unwrap_or_default(),
        }
    }
}

/// A code that this version doesn't have becomes LS4210 with the whole text: neither
/// an agent's outcome nor the status of a run may be lost to it.
impl From<v1::Diagnosis> for Diagnosis {
    fn from(diagnosis: v1::Diagnosis) -> Self {
        let (code, what) = match Code::find(&diagnosis.code) {
            Some(code) => (code, diagnosis.what),
            None => (
                Code::LS4210,
                format!("{}: {}", diagnosis.code, diagnosis.what),
            ),
        };
        Self {
            code,
            what,
            causes: diagnosis.causes,
            state_left: some(diagnosis.state_left),
            remedy: some(diagnosis.remedy),
        }
    }
}

/// A diagnosis from an agent, truncated like any text that is recorded in the journal.
pub fn from_agent(diagnosis: v1::Diagnosis) -> Diagnosis {
    short(diagnosis.into(), MAX_SENTENCE)
}

/// Truncates the texts of a diagnosis to so many bytes together. What happened and
/// what to do next have precedence over the causes.
pub fn short(diagnosis: Diagnosis, bytes: usize) -> Diagnosis {
    let mut room = bytes;
    let mut fit = |text: String| {
        let text = truncated(text, room);
        room = room.saturating_sub(text.len());
        text
    };
    let what = fit(diagnosis.what);
    let state_left = diagnosis.state_left.map(&mut fit).and_then(some);
    let remedy = diagnosis.remedy.map(&mut fit).and_then(some);
    let causes = diagnosis
        .causes
        .into_iter()
        .map(&mut fit)
        .filter(|cause| !cause.is_empty())
        .collect();
    Diagnosis {
        code: diagnosis.code,
        what,
        causes,
        state_left,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_its_diagnosis_in_parts() {
        let diagnosis = Diagnosis::new(Code::LS4306, "the phase – open – has no gate")
            .state_left("nothing was opened")
            .cause("it is released");
        let status = diagnosis_to_status(tonic::Code::FailedPrecondition, &diagnosis);
        assert_eq!(status.message(), diagnosis.to_string());
        assert_eq!(diagnosis_from_status(&status), Some(diagnosis));
        let bare = tonic::Status::internal("LS4306: in words");
        assert_eq!(diagnosis_from_status(&bare), None);
    }

    #[test]
    fn the_code_of_a_newer_agent_is_kept_in_the_text() {
        let wire = v1::Diagnosis {
            code: "LS2999".to_owned(),
            what: "it did not stop".to_owned(),
            remedy: "stop it".to_owned(),
            ..v1::Diagnosis::default()
        };
        let text = "LS4210: LS2999: it did not stop; stop it";
        assert_eq!(from_agent(wire).to_string(), text);
    }

    #[test]
    fn a_long_diagnosis_keeps_its_remedy() {
        let long = Diagnosis::new(Code::LS2103, "it did not stop")
            .remedy("stop it by hand")
            .cause("é".repeat(MAX_SENTENCE))
            .cause("another");
        let short = short(long, MAX_SENTENCE);
        assert!(short.to_string().len() <= MAX_SENTENCE + 64);
        assert_eq!(short.remedy.as_deref(), Some("stop it by hand"));
        assert_eq!(short.causes.len(), 1, "an empty cause is dropped");
        let long = Diagnosis::new(Code::LS2103, "é".repeat(MAX_SENTENCE)).remedy("stop it");
        assert_eq!(super::short(long, MAX_SENTENCE).remedy, None);
    }
}
