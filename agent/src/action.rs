//! An action: one kind of local work, in four parts.
//!
//! *Probe* checks whether there is anything to do, and captures the state
//! before any change. *Describe* lists what would be done, for people.
//! *Execute* does it. *Undo* restores the before-image. An action is one file under
//! `actions/`; it reaches the outside world only through the wrappers under
//! `host/`.
//!
//! The driver, not the action, journals intent and outcome, decides what is
//! retried, and checks the policy before it calls any part.

pub use crate::error::ActionError;
pub use crate::host::context::{Context, Line, Progress, WorkId};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::actions::ActionSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Outputs of a task for later steps, by name.
pub type Outputs = BTreeMap<String, Value>;

/// One kind of local work. `Params` is its type in the plan's catalogue, which
/// gives the action its name.
#[async_trait]
pub trait Action: Send + Sync + 'static {
    type Params: ActionSpec;

    /// The permissions that it needs.
    fn required_permissions(&self, params: &Self::Params) -> Vec<Permission>;

    /// Changes nothing. Called for the vote, again right before the work
    /// starts, and after a crash, so it must distinguish a partial effect
    /// (`Pending`) from a complete one (`Satisfied`).
    async fn probe(&self, cx: &Context, params: &Self::Params) -> Result<Probe, ActionError>;

    /// Lists what would be done and the obstacles; changes nothing.
    async fn describe(
        &self,
        cx: &Context,
        params: &Self::Params,
    ) -> Result<Description, ActionError>;

    /// As [`Action::describe`], while outputs that only the run gives are
    /// missing: `params` has the plan's references in their place. Checks what
    /// can be checked without them, so that obstacles are found before the
    /// outage.
    async fn describe_unresolved(
        &self,
        _cx: &Context,
        _params: &Self::Params,
    ) -> Result<Description, ActionError> {
        Ok(Description::default())
    }

    /// Does the work. It must be able to start from a partial effect, as a
    /// retry does.
    async fn execute(
        &self,
        cx: &Context,
        params: &Self::Params,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError>;

    /// Restores the before-image, absolute values by compare-and-set (R7). Also
    /// called where the work failed half-way or its outcome is unknown.
    async fn undo(
        &self,
        _cx: &Context,
        _params: &Self::Params,
        _before_image: &Value,
    ) -> Result<Undone, ActionError> {
        Ok(Undone::Unchanged)
    }

    /// Whether a preflight can probe it: not where the probe checks a state
    /// that only the run itself creates.
    fn probe_in_preflight(&self) -> bool {
        true
    }

    /// Whether the state that the action reaches is in effect, for a later phase that
    /// relies on it.
    async fn in_effect(&self, cx: &Context, params: &Self::Params) -> Result<bool, ActionError> {
        Ok(self.probe(cx, params).await?.finding == Finding::Satisfied)
    }

    /// For a watch: the part that runs on after `execute` has found the fence
    /// to hold.
    fn watch(&self) -> Option<&dyn Watch<Self::Params>> {
        None
    }
}

/// The part of a watch that runs on after its task is armed.
#[async_trait]
pub trait Watch<P>: Send + Sync {
    /// Watches until cancelled; sends one sentence for every breach.
    /// `after_gap`: the watch has been interrupted, which is a breach unless
    /// Oracle disproves it (R16).
    async fn watch(
        &self,
        cx: &Context,
        params: &P,
        after_gap: bool,
        breaches: mpsc::Sender<String>,
    );

    /// Checks now; `None` where there is no breach.
    async fn attest(&self, cx: &Context, params: &P) -> Result<Option<String>, ActionError>;
}

/// Result of an undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// The before-image was restored.
    Restored,
    /// There was nothing to put back.
    Unchanged,
    /// Someone else has changed it since, so it was not changed.
    Drifted(String),
}

impl Undone {
    /// `Restored` if the undo has changed anything.
    pub fn restored_if(changed: bool) -> Self {
        if changed {
            Self::Restored
        } else {
            Self::Unchanged
        }
    }
}

/// What an action would do, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The SQL, the command, the API call, a line each.
    pub would_do: Vec<String>,
    /// Obstacles, a sentence each, with remedy.
    pub obstacles: Vec<String>,
    /// Remarks that are no obstacle.
    pub remarks: Vec<String>,
    /// Outputs that are known before the task runs, so that a preflight can check
    /// the tasks that consume them.
    pub foreseen: Outputs,
}

impl Description {
    /// Adds the error, if any, to the obstacles.
    pub fn obstacle<T>(&mut self, looked: Result<T, ActionError>) -> Option<T> {
        looked.map_err(|e| self.obstacles.push(e.report())).ok()
    }

    /// A description of these lines, without obstacles.
    pub fn of<S: Into<String>>(lines: impl IntoIterator<Item = S>) -> Self {
        Self {
            would_do: lines.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// The finding of a probe that can tell whether the effect is complete.
pub fn satisfied_if(complete: bool) -> Finding {
    if complete {
        Finding::Satisfied
    } else {
        Finding::Pending
    }
}

/// A finding without a before-image.
pub fn found(finding: Finding) -> Probe {
    Probe {
        finding,
        before_image: None,
    }
}

/// A finding with the state to restore.
///
/// # Errors
/// Where the before-image can't be written as JSON.
pub fn with_before_image(
    finding: Finding,
    before_image: &impl Serialize,
) -> Result<Probe, ActionError> {
    let before_image = serde_json::to_value(before_image).map_err(|e| {
        ActionError::new(
            Code::LS2003,
            "the state before the change can't be written down",
        )
        .state_left("nothing was changed")
        .source(e)
    })?;
    Ok(Probe {
        finding,
        before_image: Some(before_image),
    })
}

/// Reads a before-image back.
///
/// # Errors
/// Where it isn't one: the journal is from another version.
pub fn decode_before_image<T: DeserializeOwned>(before_image: &Value) -> Result<T, ActionError> {
    serde_json::from_value(before_image.clone()).map_err(|e| {
        ActionError::new(Code::LS2004, "the before-image can't be read")
            .state_left("nothing was restored")
            .remedy("restore it by hand from the run's events, then skip this task")
            .source(e)
    })
}

/// An action whose parameters are still JSON: what the driver and the table
/// of actions hold. Every [`Action`] is one.
#[async_trait]
pub trait AnyAction: Send + Sync {
    /// See [`ActionSpec::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Action::probe_in_preflight`].
    fn probe_in_preflight(&self) -> bool;
    /// See [`Action::required_permissions`].
    fn required_permissions(&self, params: &Value) -> Result<Vec<Permission>, ActionError>;
    /// See [`Action::probe`].
    async fn probe(&self, cx: &Context, params: &Value) -> Result<Probe, ActionError>;
    /// See [`Action::describe`].
    async fn describe(&self, cx: &Context, params: &Value) -> Result<Description, ActionError>;
    /// See [`Action::describe_unresolved`].
    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &Value,
    ) -> Result<Description, ActionError>;
    /// See [`Action::execute`].
    async fn execute(
        &self,
        cx: &Context,
        params: &Value,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError>;
    /// See [`Action::undo`].
    async fn undo(
        &self,
        cx: &Context,
        params: &Value,
        before_image: &Value,
    ) -> Result<Undone, ActionError>;
    /// See [`Action::in_effect`].
    async fn in_effect(&self, cx: &Context, params: &Value) -> Result<bool, ActionError>;
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
        ActionError::new(
            Code::LS2002,
            "the parameters are not what this action takes",
        )
        .state_left("nothing was done")
        .remedy("coordinator and agent may be of different versions; bring them to the same")
        .source(e)
    })
}

#[async_trait]
impl<A: Action> AnyAction for A {
    fn name(&self) -> &'static str {
        A::Params::NAME
    }

    fn probe_in_preflight(&self) -> bool {
        Action::probe_in_preflight(self)
    }

    fn required_permissions(&self, params: &Value) -> Result<Vec<Permission>, ActionError> {
        Ok(Action::required_permissions(self, &decode(params)?))
    }

    async fn probe(&self, cx: &Context, params: &Value) -> Result<Probe, ActionError> {
        Action::probe(self, cx, &decode(params)?).await
    }

    async fn describe(&self, cx: &Context, params: &Value) -> Result<Description, ActionError> {
        Action::describe(self, cx, &decode(params)?).await
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &Value,
    ) -> Result<Description, ActionError> {
        Action::describe_unresolved(self, cx, &decode(params)?).await
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &Value,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        Action::execute(self, cx, &decode(params)?, before_image).await
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &Value,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        Action::undo(self, cx, &decode(params)?, before_image).await
    }

    async fn in_effect(&self, cx: &Context, params: &Value) -> Result<bool, ActionError> {
        Action::in_effect(self, cx, &decode(params)?).await
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
