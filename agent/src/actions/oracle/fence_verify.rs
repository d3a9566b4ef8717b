//! `oracle.fence.verify`: proves that Oracle is no longer used.
//!
//! A closed port doesn't end existing sessions and doesn't prevent local logins.
//! So after the applications have started on PostgreSQL, the fence is checked
//! again over its window: no application session on any instance, no
//! transaction, and accounts, jobs and listeners closed. The action changes
//! nothing: sessions are reported by machine and program, and not killed.

use super::fence;
use super::listeners::Listeners;
use super::required_permissions;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::VerifyFence;
use serde_json::Value;

pub struct FenceVerify;

/// The remedy of the watch's error is a rollback, which is no longer possible
/// here.
fn still_used(error: ActionError) -> ActionError {
    if error.code() != Code::LS2250 {
        return error;
    }
    ActionError::new(Code::LS2252, "Oracle is not as closed as it has to be")
        .state_left(
            "nobody was killed and nothing was changed; what is written to Oracle is in no proof",
        )
        .remedy(
            "find the named client by its machine and program, stop it or switch it to \
             PostgreSQL, close the listener that it came through, then retry",
        )
        .source(error)
}

#[async_trait]
impl Action for FenceVerify {
    type Params = VerifyFence;

    fn required_permissions(&self, params: &VerifyFence) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &VerifyFence) -> Result<Probe, ActionError> {
        // One check proves nothing about a window, so it is always pending.
        Session::open(cx, &params.resource).await?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &VerifyFence,
    ) -> Result<Description, ActionError> {
        Ok(Description::of([format!(
            "verify for {} s that no session that counts and no transaction is in Oracle, and \
             that its listeners and accounts are closed",
            params.window_secs
        )]))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &VerifyFence,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let listeners = Listeners::of(cx, &params.resource).await?;
        fence::hold(cx, &session, &listeners, params)
            .await
            .map_err(still_used)?;
        cx.note(format!(
            "no session has been in Oracle for {} s",
            params.window_secs
        ));
        Ok(Outputs::new())
    }
}
