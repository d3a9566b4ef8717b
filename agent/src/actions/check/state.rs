//! `check.state`: whether the state that another action reaches is in effect.

use crate::action::{self, Action, ActionError, Context, Description, Outputs, found};
use crate::actions;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::CheckState;
use serde_json::Value;

pub struct State;

fn checked(params: &CheckState) -> Result<&'static dyn action::AnyAction, ActionError> {
    actions::find(&params.action).ok_or_else(|| {
        ActionError::new(
            Code::LS2007,
            format!("this agent has no action {}", params.action),
        )
        .state_left("nothing was done")
        .remedy("install the coordinator's version on this host")
    })
}

async fn check(cx: &Context, params: &CheckState) -> Result<(), ActionError> {
    if checked(params)?.in_effect(cx, &params.params).await? {
        return Ok(());
    }
    Err(ActionError::new(
        Code::LS2163,
        format!("the state that {} reaches is not in effect", params.action),
    )
    .state_left("nothing was changed by the check")
    .remedy("find out who or what changed it, restore it, then retry; or roll back"))
}

#[async_trait]
impl Action for State {
    type Params = CheckState;

    fn required_permissions(&self, params: &CheckState) -> Vec<Permission> {
        let action = actions::find(&params.action);
        action
            .and_then(|action| action.required_permissions(&params.params).ok())
            .unwrap_or_default()
    }

    /// A phase whose precondition isn't met is refused before its release.
    async fn probe(&self, cx: &Context, params: &CheckState) -> Result<Probe, ActionError> {
        check(cx, params).await?;
        Ok(found(Finding::Pending))
    }

    /// The run itself reaches that state.
    fn probe_in_preflight(&self) -> bool {
        false
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &CheckState,
    ) -> Result<Description, ActionError> {
        checked(params)?;
        Ok(Description::of([format!(
            "check that the state which {} reaches is in effect",
            params.action
        )]))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &CheckState,
    ) -> Result<Description, ActionError> {
        self.describe(cx, params).await
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &CheckState,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        check(cx, params).await?;
        cx.note(format!("{}: in effect", params.action));
        Ok(Outputs::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[tokio::test]
    async fn a_state_that_is_not_in_effect_refuses_the_phase() {
        let dir = tempfile::tempdir().unwrap();
        let crontab = dir.path().join("report");
        fs::write(&crontab, "* * * * * root report\n").unwrap();
        let files = json!({"files": [crontab.display().to_string()]});
        let params = CheckState {
            action: "cron.disable".to_owned(),
            params: files,
        };
        let shown = dir.path().display();
        let cx = Context::of_test(&format!("[policy]\npaths=['{shown}']\n"));
        let refused = State.probe(&cx, &params).await.unwrap_err();
        assert_eq!(refused.diagnosis().code, Code::LS2163);
        fs::rename(&crontab, dir.path().join(".report.lockstep-disabled")).unwrap();
        State.probe(&cx, &params).await.unwrap();
        State.execute(&cx, &params, None).await.unwrap();
        assert_eq!(
            State.required_permissions(&params),
            [Permission::Rename(crontab)],
            "checking needs what the action itself needs"
        );
    }
}
