//! The one error of everything an agent does on its host: it travels to the
//! operator as a story.

use std::fmt;

/// Why an action couldn't do its work: code, what, what was left, what next.
#[derive(Debug)]
pub struct ActionError {
    code: &'static str,
    what: String,
    left: String,
    next: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ActionError {
    /// An error with its code and what happened, where.
    pub fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            left: String::new(),
            next: String::new(),
            source: None,
        }
    }

    /// In which state things were left.
    #[must_use]
    pub fn left(mut self, left: impl Into<String>) -> Self {
        self.left = left.into();
        self
    }

    /// What to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The code, `LS2004`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The whole story in one text: this error, its chain, and the remedy.
    /// This is what travels to the coordinator.
    pub fn story(&self) -> String {
        let mut story = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            story.push_str(": ");
            story.push_str(error.to_string().trim());
            source = error.source();
        }
        for sentence in [&self.left, &self.next] {
            if !sentence.is_empty() {
                story.push_str("; ");
                story.push_str(sentence);
            }
        }
        story
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)
    }
}

impl std::error::Error for ActionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_whole_story_once() {
        let beneath = std::io::Error::other("disk full");
        let error = ActionError::new("LS2103", "the unit a.service on app-1 did not stop")
            .left("it is still running")
            .next("stop it by hand and retry")
            .source(beneath);
        assert_eq!(
            error.story(),
            "LS2103: the unit a.service on app-1 did not stop: disk full; \
             it is still running; stop it by hand and retry"
        );
        assert_eq!(
            error.to_string(),
            "LS2103: the unit a.service on app-1 did not stop"
        );
    }
}
