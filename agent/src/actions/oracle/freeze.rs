//! `oracle.freeze.persist`: makes the freeze survive a restart of the instance.
//!
//! Before the point of no return, a restart of the instance must undo the
//! freeze; after it, a restart must not, because jobs would run and listeners
//! would accept applications. Account locks are stored in the dictionary and
//! persist, unless somebody has unlocked an account: each is checked, and locked
//! again if necessary.

use super::accounts::{self, Statuses};
use super::fence::{self, JOBS, is_locked};
use super::listener_checks;
use super::listeners::{Listeners, States};
use super::parameters::Values;
use super::required_permissions;
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::PersistFreeze;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub struct Persist;

#[derive(Serialize, Deserialize)]
struct Before {
    jobs: Option<Values>,
    listeners: States,
    /// Empty in a before-image of an older agent.
    #[serde(default)]
    accounts: Statuses,
}

/// Status of those accounts that exist: one may have been dropped since it was locked.
/// If none does, the names are wrong.
async fn statuses(session: &Session, names: &[String]) -> Result<Statuses, ActionError> {
    names
        .iter()
        .try_for_each(|name| accounts::refuse_sys(name))?;
    let mut statuses = fence::accounts(session).await?;
    statuses.retain(|account, _| names.contains(account));
    if statuses.is_empty() {
        return accounts::statuses(session, names).await;
    }
    Ok(statuses)
}

async fn look(
    cx: &Context,
    params: &PersistFreeze,
    listeners: &Listeners,
) -> Result<Before, ActionError> {
    let (mut jobs, mut accounts) = (None, Statuses::new());
    if params.jobs || !params.accounts.is_empty() {
        let session = Session::open(cx, &params.resource).await?;
        if params.jobs {
            jobs = Some(JOBS.values(&session).await?);
        }
        accounts = statuses(&session, &params.accounts).await?;
    }
    let listeners = listeners
        .states(cx, &listeners.except(&params.keep))
        .await?;
    Ok(Before {
        jobs,
        listeners,
        accounts,
    })
}

impl Before {
    /// Listeners that Clusterware would start again.
    fn enabled(&self) -> impl Iterator<Item = &String> {
        self.listeners
            .iter()
            .filter(|(_, state)| state.enabled == Some(true))
            .map(|(name, _)| name)
    }

    /// Accounts that are not locked.
    fn unlocked(&self) -> impl Iterator<Item = &String> {
        self.accounts
            .iter()
            .filter(|(_, status)| !is_locked(status))
            .map(|(account, _)| account)
    }

    fn is_durable(&self) -> bool {
        self.enabled().next().is_none()
            && self.unlocked().next().is_none()
            && self.jobs.as_ref().is_none_or(Values::is_off_in_file)
    }
}

#[async_trait]
impl Action for Persist {
    type Params = PersistFreeze;

    fn required_permissions(&self, params: &PersistFreeze) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &PersistFreeze) -> Result<Probe, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        let before = look(cx, params, &listeners).await?;
        let finding = satisfied_if(before.is_durable());
        with_before_image(finding, &before)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PersistFreeze,
    ) -> Result<Description, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        let before = look(cx, params, &listeners).await?;
        let mut description = Description::default();
        if let Some(values) = &before.jobs {
            description.would_do.extend(JOBS.off_in_file(values));
        }
        for account in before.unlocked() {
            description.would_do.push(accounts::lock(account)?);
        }
        for name in before.enabled() {
            description
                .would_do
                .push(format!("srvctl disable listener {name}"));
        }
        let enabled: Vec<String> = before.enabled().cloned().collect();
        listener_checks::permissions(cx, &listeners, &enabled, &['w'], &mut description).await?;
        if !listeners.clustered() {
            description.remarks.push(
                "nothing keeps a plain listener down durably: see that no start script of this \
                 host brings it up"
                    .to_owned(),
            );
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PersistFreeze,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        let before = look(cx, params, &listeners).await?;
        if let Some(values) = &before.jobs {
            let session = Session::open(cx, &params.resource).await?;
            for statement in JOBS.off_in_file(values) {
                session.execute(&statement, &[]).await?;
                cx.effect(statement);
            }
        }
        if before.unlocked().next().is_some() {
            let session = Session::open(cx, &params.resource).await?;
            accounts::lock_all(cx, &params.resource, &session, &before.accounts).await?;
        }
        for name in before.enabled() {
            listeners.set_enabled(cx, name, false).await?;
        }
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &PersistFreeze,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Before = decode_before_image(before_image)?;
        let listeners = Listeners::of(cx, &params.resource).await?;
        let mut changed = false;
        for name in before.enabled() {
            if listeners.state(cx, name).await?.enabled == Some(false) {
                listeners.set_enabled(cx, name, true).await?;
                changed = true;
            }
        }
        let mut undone = vec![if changed {
            Undone::Restored
        } else {
            Undone::Unchanged
        }];
        if before.unlocked().next().is_some() {
            let session = Session::open(cx, &params.resource).await?;
            undone.push(accounts::undo(cx, &params.resource, &session, &before.accounts).await?);
        }
        if let Some(values) = &before.jobs {
            let session = Session::open(cx, &params.resource).await?;
            // The values in memory belong to `oracle.jobs.disable`.
            let file_only = Values {
                memory: Vec::new(),
                file: values.file.clone(),
            };
            undone.push(JOBS.restore(cx, &session, &file_only, true).await?);
        }
        Ok(undone.into_iter().fold(Undone::Unchanged, both))
    }
}

/// The result of two undos together: a drift takes precedence, because a person
/// has to decide.
fn both(one: Undone, other: Undone) -> Undone {
    match (one, other) {
        (Undone::Drifted(one), Undone::Drifted(other)) => {
            Undone::Drifted(format!("{one}; {other}"))
        }
        (Undone::Unchanged, other) | (Undone::Restored, other @ Undone::Drifted(_)) => other,
        (one, _) => one,
    }
}
