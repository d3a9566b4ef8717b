//! A structured error, whose parts each output format shows separately.

use crate::code::Code;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// An error as an operator sees it.
///
/// Displayed on one line as `CODE: what: cause: cause; state left; remedy`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diagnosis {
    pub code: Code,
    pub what: String,
    /// Underlying errors, outermost first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// State in which the system was left.
    #[serde(default)]
    pub state_left: Option<String>,
    /// Next step for the operator.
    #[serde(default)]
    pub remedy: Option<String>,
}

impl Diagnosis {
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            causes: Vec::new(),
            state_left: None,
            remedy: None,
        }
    }

    /// Sets the state in which the system was left; an empty text removes it.
    #[must_use]
    pub fn state_left(mut self, state_left: impl Into<String>) -> Self {
        self.state_left = Some(state_left.into()).filter(|text| !text.is_empty());
        self
    }

    /// Sets the next step for the operator; an empty text removes it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into()).filter(|text| !text.is_empty());
        self
    }

    /// Adds an innermost cause as text.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds an error and its chain of sources as causes.
    #[must_use]
    pub fn source(mut self, error: &(dyn Error + 'static)) -> Self {
        let chain = std::iter::successors(Some(error), |error| (*error).source());
        self.causes
            .extend(chain.map(|error| error.to_string().trim().to_owned()));
        self
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        for sentence in [&self.state_left, &self.remedy].into_iter().flatten() {
            write!(f, "; {sentence}")?;
        }
        Ok(())
    }
}

/// The causes are part of the text, so there is no source.
impl Error for Diagnosis {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_holds_every_part_once() {
        let beneath = std::io::Error::other("disk full");
        let diagnosis = Diagnosis::new(Code::LS2103, "the unit a.service on app-1 did not stop")
            .state_left("it is still running")
            .remedy("stop it by hand and retry")
            .source(&beneath);
        assert_eq!(
            diagnosis.to_string(),
            "LS2103: the unit a.service on app-1 did not stop: disk full; \
             it is still running; stop it by hand and retry"
        );
        let bare = Diagnosis::new(Code::LS2103, "it did not stop").remedy("");
        assert_eq!(bare.to_string(), "LS2103: it did not stop");
    }

    #[test]
    fn the_parts_are_apart_in_json() {
        let diagnosis = Diagnosis::new(Code::LS2012, "2 MiB are too much")
            .state_left("nothing was done")
            .cause("the unit has 9,000 drop-ins");
        let json = serde_json::to_value(&diagnosis).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "code": "LS2012",
                "what": "2 MiB are too much",
                "causes": ["the unit has 9,000 drop-ins"],
                "state_left": "nothing was done",
                "remedy": null,
            })
        );
        assert_eq!(
            serde_json::from_value::<Diagnosis>(json).unwrap(),
            diagnosis
        );
    }
}
