//! `oracle.logins.restrict` and `oracle.logins.open`: restricted session.
//!
//! Restricted mode also blocks local logins, except those of users with the
//! privilege RESTRICTED SESSION. It applies only to this agent's instance: a
//! cluster needs the step on each of its hosts. Without the privilege, DMS's user
//! gets ORA-01035; regardless of the privilege, the listener blocks dynamically
//! registered services (ORA-12526).

use super::required_permissions;
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{OpenLogins, RestrictLogins};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const RESTRICT: &str = "ALTER SYSTEM ENABLE RESTRICTED SESSION";
const OPEN: &str = "ALTER SYSTEM DISABLE RESTRICTED SESSION";
const LOGINS: &str = "SELECT LOGINS FROM V$INSTANCE";
const INSTANCES: &str = "SELECT COUNT(*) FROM GV$INSTANCE";

#[derive(Debug, Serialize, Deserialize)]
struct Before {
    restricted: bool,
}

/// `oracle.logins.restrict`
pub struct Restrict;

/// `oracle.logins.open`
pub struct Open;

async fn restricted(session: &Session) -> Result<bool, ActionError> {
    let logins: String = session.row(LOGINS, &[]).await?;
    Ok(logins == "RESTRICTED")
}

async fn elsewhere(session: &Session) -> Result<Option<String>, ActionError> {
    let instances: i64 = session.row(INSTANCES, &[]).await?;
    Ok((instances > 1).then(|| {
        "this is one of several instances; the restriction is this instance's own".to_owned()
    }))
}

#[async_trait]
impl Action for Restrict {
    type Params = RestrictLogins;

    fn required_permissions(&self, params: &RestrictLogins) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &RestrictLogins) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let restricted = restricted(&session).await?;
        let finding = satisfied_if(restricted);
        with_before_image(finding, &Before { restricted })
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestrictLogins,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let mut description = Description::of([RESTRICT]);
        description.remarks.extend(elsewhere(&session).await?);
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestrictLogins,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        session.execute(RESTRICT, &[]).await?;
        cx.effect(RESTRICT);
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &RestrictLogins,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Before = decode_before_image(before_image)?;
        let session = Session::open(cx, &params.resource).await?;
        if before.restricted || !restricted(&session).await? {
            return Ok(Undone::Unchanged);
        }
        session.execute(OPEN, &[]).await?;
        cx.effect(OPEN);
        Ok(Undone::Restored)
    }
}

#[async_trait]
impl Action for Open {
    type Params = OpenLogins;

    fn required_permissions(&self, params: &OpenLogins) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OpenLogins) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        Ok(found(if restricted(&session).await? {
            Finding::Pending
        } else {
            Finding::Satisfied
        }))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &OpenLogins,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let mut description = Description::of([OPEN]);
        description.remarks.extend(elsewhere(&session).await?);
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OpenLogins,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        session.execute(OPEN, &[]).await?;
        cx.effect(OPEN);
        Ok(Outputs::new())
    }
}
