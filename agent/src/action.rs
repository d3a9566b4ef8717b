//! What an action is: one kind of local work, in four parts.
//!
//! *Probe* looks first and captures the state before any change. *Describe*
//! says in words what would be done. *Execute* does it. *Undo* restores the
//! capture. An action is one file under `actions/`; it reaches the outside
//! world only through the wrappers under `host/`.
//!
//! The driver, not the action, journals intent and outcome, decides what is
//! retried, and checks the policy before any part is called.

use crate::host::Host;
use crate::policy::Need;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a task gives to later steps, by name.
pub type Outputs = BTreeMap<String, Value>;

/// One kind of local work. `Params` is its type in the catalogue of the plan.
#[async_trait]
pub trait Action: Send + Sync + 'static {
    /// Its parameters.
    type Params: DeserializeOwned + Send + Sync;

    /// What it needs permission for.
    fn needs(&self, params: &Self::Params) -> Vec<Need>;

    /// Looks; changes nothing. Called for the vote, again right before the
    /// work starts, and after a crash, so it must tell a partial effect
    /// (`Todo`) from a complete one (`Already`).
    async fn probe(&self, cx: &Context, params: &Self::Params) -> Result<Probe, ActionError>;

    /// Says what would be done and what stands in the way; changes nothing.
    async fn describe(
        &self,
        cx: &Context,
        params: &Self::Params,
    ) -> Result<Description, ActionError>;

    /// Does it. Starting from a partial effect must be fine: a retry does.
    async fn execute(
        &self,
        cx: &Context,
        params: &Self::Params,
        capture: Option<&Value>,
    ) -> Result<Outputs, ActionError>;

    /// Restores the capture, absolute values by compare-and-set (R7). Called
    /// also where the work failed half-way or is unknown.
    async fn undo(
        &self,
        _cx: &Context,
        _params: &Self::Params,
        _capture: &Value,
    ) -> Result<Undone, ActionError> {
        Ok(Undone::Nothing)
    }

    /// For a watch: what goes on after `execute` has found the fence to hold.
    fn watch(&self) -> Option<&dyn Watch<Self::Params>> {
        None
    }
}

/// The part of an action that lives on.
#[async_trait]
pub trait Watch<P>: Send + Sync {
    /// Watches until cancelled; sends one sentence for every breach.
    /// `after_gap`: nobody has watched for a while; unless Oracle itself
    /// disproves it, that is a breach (R16).
    async fn watch(
        &self,
        cx: &Context,
        params: &P,
        after_gap: bool,
        breaches: mpsc::Sender<String>,
    );

    /// Looks now: `None` where nothing is breached.
    async fn attest(&self, cx: &Context, params: &P) -> Result<Option<String>, ActionError>;
}

/// What an undo came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// The captured state was put back.
    Restored,
    /// There was nothing to put back.
    Nothing,
    /// Somebody else has changed it since; it was left alone.
    Drifted(String),
}

/// What an action would do, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The SQL, the command, the API call, a line each.
    pub would_do: Vec<String>,
    /// What stands in the way, a sentence each, with remedy.
    pub obstacles: Vec<String>,
    /// Worth knowing, but no obstacle.
    pub remarks: Vec<String>,
}

impl Description {
    /// A description of these lines, with nothing in the way.
    pub fn of<S: Into<String>>(lines: impl IntoIterator<Item = S>) -> Self {
        Self {
            would_do: lines.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// A finding without a capture.
pub fn found(finding: Finding) -> Probe {
    Probe {
        finding,
        capture: None,
    }
}

/// A finding with the state to restore.
///
/// # Errors
/// Where the capture can't be written as JSON.
pub fn captured(finding: Finding, capture: &impl Serialize) -> Result<Probe, ActionError> {
    let capture = serde_json::to_value(capture).map_err(|e| {
        ActionError::new(
            "LS2003",
            "the state before the change can't be written down",
        )
        .left("nothing was changed")
        .source(e)
    })?;
    Ok(Probe {
        finding,
        capture: Some(capture),
    })
}

/// Reads a capture back.
///
/// # Errors
/// Where it isn't one: the journal is from another version.
pub fn recalled<T: DeserializeOwned>(capture: &Value) -> Result<T, ActionError> {
    serde_json::from_value(capture.clone()).map_err(|e| {
        ActionError::new("LS2004", "the captured state can't be read")
            .left("nothing was restored")
            .next("restore it by hand from the run's events, then skip this task")
            .source(e)
    })
}

/// What an action has to work with.
#[derive(Clone)]
pub struct Context {
    /// Policy, resources, wrappers.
    pub host: Arc<Host>,
    /// `RUN/STEP/ATTEMPT`: the name of its work in every tool (R22).
    pub tag: Tag,
    /// Cancelled when the task's time is up.
    pub cancel: CancellationToken,
    /// Where live lines go.
    pub progress: Progress,
}

impl Context {
    /// Says something about the work, live.
    pub fn note(&self, line: impl Into<String>) {
        self.progress.send(Line::Note(line.into()));
    }

    /// Passes on a line of a tool's output, live.
    pub fn output(&self, line: impl Into<String>) {
        self.progress.send(Line::Output(line.into()));
    }
}

/// The name of a task's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The run.
    pub run: String,
    /// The step.
    pub step: String,
    /// The attempt.
    pub attempt: u32,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.step, self.attempt)
    }
}

/// A live line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The task has started.
    Started,
    /// What the action says.
    Note(String),
    /// What a tool says.
    Output(String),
}

/// Where live lines go. Lines that don't fit are dropped and counted:
/// progress never holds up the work.
#[derive(Clone)]
pub struct Progress {
    send: Arc<dyn Fn(Line) + Send + Sync>,
}

impl Progress {
    /// Lines go to this function, which must not block.
    pub fn to(send: impl Fn(Line) + Send + Sync + 'static) -> Self {
        Self {
            send: Arc::new(send),
        }
    }

    /// Lines go nowhere: for probes and tests.
    pub fn silent() -> Self {
        Self::to(drop)
    }

    /// Sends a line.
    pub fn send(&self, line: Line) {
        (self.send)(line);
    }
}

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

    /// What lies beneath.
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

/// An action whose parameters are still JSON: what the driver and the table
/// of actions hold. Every [`Action`] is one.
#[async_trait]
pub trait AnyAction: Send + Sync {
    /// See [`Action::needs`].
    fn needs(&self, params: &Value) -> Result<Vec<Need>, ActionError>;
    /// See [`Action::probe`].
    async fn probe(&self, cx: &Context, params: &Value) -> Result<Probe, ActionError>;
    /// See [`Action::describe`].
    async fn describe(&self, cx: &Context, params: &Value) -> Result<Description, ActionError>;
    /// See [`Action::execute`].
    async fn execute(
        &self,
        cx: &Context,
        params: &Value,
        capture: Option<&Value>,
    ) -> Result<Outputs, ActionError>;
    /// See [`Action::undo`].
    async fn undo(
        &self,
        cx: &Context,
        params: &Value,
        capture: &Value,
    ) -> Result<Undone, ActionError>;
    /// See [`Watch::watch`]; gives `false` where it is no watch.
    async fn watch(
        &self,
        cx: &Context,
        params: &Value,
        after_gap: bool,
        breaches: mpsc::Sender<String>,
    ) -> Result<bool, ActionError>;
    /// See [`Watch::attest`].
    async fn attest(&self, cx: &Context, params: &Value) -> Result<Option<String>, ActionError>;
}

fn decode<P: DeserializeOwned>(params: &Value) -> Result<P, ActionError> {
    serde_json::from_value(params.clone()).map_err(|e| {
        ActionError::new("LS2002", "the parameters are not what this action takes")
            .left("nothing was done")
            .next("coordinator and agent may be of different versions; bring them to the same")
            .source(e)
    })
}

#[async_trait]
impl<A: Action> AnyAction for A {
    fn needs(&self, params: &Value) -> Result<Vec<Need>, ActionError> {
        Ok(Action::needs(self, &decode(params)?))
    }

    async fn probe(&self, cx: &Context, params: &Value) -> Result<Probe, ActionError> {
        Action::probe(self, cx, &decode(params)?).await
    }

    async fn describe(&self, cx: &Context, params: &Value) -> Result<Description, ActionError> {
        Action::describe(self, cx, &decode(params)?).await
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &Value,
        capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        Action::execute(self, cx, &decode(params)?, capture).await
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &Value,
        capture: &Value,
    ) -> Result<Undone, ActionError> {
        Action::undo(self, cx, &decode(params)?, capture).await
    }

    async fn watch(
        &self,
        cx: &Context,
        params: &Value,
        after_gap: bool,
        breaches: mpsc::Sender<String>,
    ) -> Result<bool, ActionError> {
        let params = decode(params)?;
        match Action::watch(self) {
            Some(watch) => {
                watch.watch(cx, &params, after_gap, breaches).await;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn attest(&self, cx: &Context, params: &Value) -> Result<Option<String>, ActionError> {
        let params = decode(params)?;
        match Action::watch(self) {
            Some(watch) => watch.attest(cx, &params).await,
            None => Ok(None),
        }
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
