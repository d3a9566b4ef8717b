//! The error of every action: what the operator is shown.

use lockstep_api::{Code, Diagnosis};
use std::error::Error;
use std::fmt;

/// Why an action could not do its work.
#[derive(Debug)]
pub struct ActionError {
    /// Boxed: results carry the error by value.
    diagnosis: Box<Diagnosis>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ActionError {
    /// An error with its code and what happened, where.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            diagnosis: Box::new(Diagnosis::new(code, what)),
            source: None,
        }
    }

    /// In which state things were left.
    #[must_use]
    pub fn state_left(mut self, state_left: impl Into<String>) -> Self {
        self.diagnosis = Box::new(self.diagnosis.state_left(state_left));
        self
    }

    /// What to do next.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.diagnosis = Box::new(self.diagnosis.remedy(remedy));
        self
    }

    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn code(&self) -> Code {
        self.diagnosis.code
    }

    /// The error with its chain of causes, as it is sent to the coordinator.
    pub fn diagnosis(&self) -> Diagnosis {
        let diagnosis = (*self.diagnosis).clone();
        match Error::source(self) {
            Some(source) => diagnosis.source(source),
            None => diagnosis,
        }
    }

    /// The diagnosis on one line.
    pub fn report(&self) -> String {
        self.diagnosis().to_string()
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.diagnosis.code, self.diagnosis.what)
    }
}

impl Error for ActionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_whole_story_once() {
        let beneath = std::io::Error::other("disk full");
        let error = ActionError::new(Code::LS2103, "the unit a.service on app-1 did not stop")
            .state_left("it is still running")
            .remedy("stop it by hand and retry")
            .source(beneath);
        assert_eq!(
            error.report(),
            "LS2103: the unit a.service on app-1 did not stop: disk full; \
             it is still running; stop it by hand and retry"
        );
        assert_eq!(
            error.to_string(),
            "LS2103: the unit a.service on app-1 did not stop"
        );
    }
}
