//! `oracle.triggers.disable` and `oracle.triggers.restore`.
//!
//! The reverse task applies rows for which PostgreSQL's triggers have already
//! fired; Oracle's triggers would fire a second time. The actions cover all
//! triggers of the given owners, and other owners' triggers on their tables, but
//! not those of dropped tables in the recycle bin, which can't be changed
//! (ORA-38301). Triggers that were disabled before stay disabled.

use super::{names, required_permissions, saved_state, schemas};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::actions::combine_errors;
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{DisableOracleTriggers, RestoreOracleTriggers};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const KIND: &str = "triggers";

const TRIGGERS: &str = "SELECT OWNER, TRIGGER_NAME, STATUS, TABLE_OWNER FROM DBA_TRIGGERS \
     WHERE OWNER = :1 OR TABLE_OWNER = :2 ORDER BY OWNER, TRIGGER_NAME";

/// A trigger and its state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Trigger {
    owner: String,
    name: String,
    enabled: bool,
    /// Owner of its table; absent in files of an older version.
    #[serde(default)]
    table_owner: Option<String>,
}

impl Trigger {
    fn is(&self, other: &Self) -> bool {
        self.owner == other.owner && self.name == other.name
    }

    /// Whether it belongs to one of these owners or is on one of their tables.
    fn is_of(&self, schemas: &[String]) -> bool {
        schemas.contains(&self.owner)
            || self
                .table_owner
                .as_ref()
                .is_some_and(|owner| schemas.contains(owner))
    }

    fn alter(&self, to: &str) -> Result<String, ActionError> {
        let (owner, name) = (names::quoted(&self.owner)?, names::quoted(&self.name)?);
        Ok(format!("ALTER TRIGGER {owner}.{name} {to}"))
    }
}

/// `oracle.triggers.disable`
pub struct Disable;

/// `oracle.triggers.restore`
pub struct Restore;

async fn triggers(session: &Session, schemas: &[String]) -> Result<Vec<Trigger>, ActionError> {
    schemas::require(session, schemas.iter().map(String::as_str)).await?;
    let mut all = Vec::new();
    for schema in schemas {
        let binds = [schema.as_str().into(), schema.as_str().into()];
        type Row = (String, String, String, Option<String>);
        let found: Vec<Row> = session.rows(TRIGGERS, &binds).await?;
        let saved = found.into_iter().filter(|(_, name, ..)| !is_recycled(name));
        all.extend(saved.map(|(owner, name, status, table_owner)| Trigger {
            owner,
            name,
            enabled: status == "ENABLED",
            table_owner,
        }));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Whether it is a name from the recycle bin: `BIN$`, a unique identifier, `$`
/// and a version (Oracle Database Administrator's Guide, "Object Naming in the
/// Recycle Bin").
fn is_recycled(name: &str) -> bool {
    name.strip_prefix("BIN$").is_some_and(|id| id.contains('$'))
}

/// Enables the triggers that were enabled before, continuing after failures.
async fn restore(
    cx: &Context,
    session: &Session,
    before: &[Trigger],
    schemas: &[String],
) -> Result<Undone, ActionError> {
    let now = triggers(session, schemas).await?;
    let (mut changed, mut drifted, mut failures) = (0_usize, Vec::new(), Vec::new());
    for was in before {
        let found = now.iter().find(|now| now.is(was));
        match found {
            None => drifted.push(format!(
                "the trigger {}.{} no longer exists",
                was.owner, was.name
            )),
            Some(now) if was.enabled && !now.enabled => match enable(cx, session, was).await {
                Ok(()) => changed += 1,
                Err(e) => failures.push(e),
            },
            Some(now) if !was.enabled && now.enabled => drifted.push(format!(
                "the trigger {}.{} was disabled before and has been enabled since",
                was.owner, was.name
            )),
            Some(_) => {}
        }
    }
    combine_errors(failures, Code::LS2260, "triggers are not enabled again")?;
    Ok(match (drifted.is_empty(), changed) {
        (false, _) => Undone::Drifted(drifted.join("; ")),
        (true, 0) => Undone::Unchanged,
        (true, _) => Undone::Restored,
    })
}

async fn enable(cx: &Context, session: &Session, trigger: &Trigger) -> Result<(), ActionError> {
    let statement = trigger.alter("ENABLE")?;
    session.execute(&statement, &[]).await?;
    cx.effect(statement);
    Ok(())
}

#[async_trait]
impl Action for Disable {
    type Params = DisableOracleTriggers;

    fn required_permissions(&self, params: &DisableOracleTriggers) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &DisableOracleTriggers,
    ) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas).await?;
        let so = triggers.iter().all(|trigger| !trigger.enabled);
        with_before_image(satisfied_if(so), &triggers)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DisableOracleTriggers,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let mut description = Description::default();
        for trigger in triggers(&session, &params.schemas).await? {
            if trigger.enabled {
                description.would_do.push(trigger.alter("DISABLE")?);
            } else {
                description.remarks.push(format!(
                    "{}.{} is disabled already and stays so in a rollback",
                    trigger.owner, trigger.name
                ));
            }
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DisableOracleTriggers,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas).await?;
        saved_state::save(cx, &params.resource, KIND, &triggers)?;
        for trigger in triggers.iter().filter(|trigger| trigger.enabled) {
            let statement = trigger.alter("DISABLE")?;
            session.execute(&statement, &[]).await?;
            cx.effect(statement);
        }
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DisableOracleTriggers,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Vec<Trigger> = decode_before_image(before_image)?;
        let session = Session::open(cx, &params.resource).await?;
        let undone = restore(cx, &session, &before, &params.schemas).await?;
        saved_state::done::<Vec<Trigger>>(cx, &params.resource, KIND, &undone)?;
        Ok(undone)
    }
}

impl Restore {
    /// For each selected trigger the state that the first step found.
    fn before(cx: &Context, params: &RestoreOracleTriggers) -> Result<Vec<Trigger>, ActionError> {
        let mut before: Vec<Trigger> = Vec::new();
        let saved: Vec<Vec<Trigger>> = saved_state::recall_all(cx, &params.resource, KIND)?;
        for trigger in saved.into_iter().flatten() {
            if trigger.is_of(&params.schemas) && !before.iter().any(|was| was.is(&trigger)) {
                before.push(trigger);
            }
        }
        if before.is_empty() {
            return Err(saved_state::nothing(&params.resource, KIND));
        }
        Ok(before)
    }

    /// Other owners' triggers are restored by another step.
    fn forget(cx: &Context, params: &RestoreOracleTriggers) -> Result<(), ActionError> {
        let others = |mut saved: Vec<Trigger>| {
            saved.retain(|trigger| !trigger.is_of(&params.schemas));
            (!saved.is_empty()).then_some(saved)
        };
        saved_state::forget_part(cx, &params.resource, KIND, others)
    }
}

#[async_trait]
impl Action for Restore {
    type Params = RestoreOracleTriggers;

    fn required_permissions(&self, params: &RestoreOracleTriggers) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &RestoreOracleTriggers,
    ) -> Result<Probe, ActionError> {
        let before = Self::before(cx, params)?;
        let session = Session::open(cx, &params.resource).await?;
        let now = triggers(&session, &params.schemas).await?;
        let is_so = |was: &Trigger| {
            now.iter()
                .any(|now| now.is(was) && now.enabled == was.enabled)
        };
        let so = before.iter().all(is_so);
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestoreOracleTriggers,
    ) -> Result<Description, ActionError> {
        let before = Self::before(cx, params)?;
        let enabled = before.iter().filter(|was| was.enabled);
        let would_do = enabled.map(|trigger| trigger.alter("ENABLE"));
        Ok(Description::of(would_do.collect::<Result<Vec<_>, _>>()?))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestoreOracleTriggers,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let before = Self::before(cx, params)?;
        let session = Session::open(cx, &params.resource).await?;
        if let Undone::Drifted(drifted) = restore(cx, &session, &before, &params.schemas).await? {
            return Err(ActionError::new(Code::LS2261, drifted)
                .state_left("every trigger that was enabled before and is still there is enabled")
                .remedy("decide about those named, then skip this step"));
        }
        Self::forget(cx, params)?;
        Ok(Outputs::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_recycle_bin_is_told_from_what_fires() {
        assert!(is_recycled("BIN$0z8kFqyPQ1DgUwEAAH8vXg==$0"));
        assert!(!is_recycled("BINARY$AUDIT"));
        assert!(!is_recycled("BIN$ORDERS"));
        assert!(!is_recycled("ORDERS_BI"));
    }
}
