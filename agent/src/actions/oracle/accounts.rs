//! `oracle.accounts.lock` and `oracle.accounts.restore`.
//!
//! Unlike stopped listeners, a lock persists through a bounce and blocks local
//! logins; it doesn't end sessions. An account that was permanently locked
//! before stays locked.

use super::fence::{accounts, is_locked};
use super::{names, required_permissions, saved_state};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::actions::combine_errors;
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{LockAccounts, RestoreAccounts};
use serde_json::Value;
use std::collections::BTreeMap;

const KIND: &str = "accounts";

/// Statuses by account, as in DBA_USERS.
pub(super) type Statuses = BTreeMap<String, String>;

/// `oracle.accounts.lock`
pub struct Lock;

/// `oracle.accounts.restore`
pub struct Restore;

/// The statement that locks an account.
///
/// # Errors
/// If it must not be locked, or can't be a name.
pub(super) fn lock(account: &str) -> Result<String, ActionError> {
    refuse_sys(account)?;
    Ok(format!(
        "ALTER USER {} ACCOUNT LOCK",
        names::quoted(account)?
    ))
}

fn unlock(account: &str) -> Result<String, ActionError> {
    Ok(format!(
        "ALTER USER {} ACCOUNT UNLOCK",
        names::quoted(account)?
    ))
}

/// Locking SYS doesn't keep applications out, and locks out the DBA.
///
/// # Errors
/// If it is SYS.
pub(super) fn refuse_sys(account: &str) -> Result<(), ActionError> {
    if !account.eq_ignore_ascii_case("SYS") {
        return Ok(());
    }
    Err(
        ActionError::new(Code::LS2221, "the account SYS is not to be locked")
            .state_left("nothing was done")
            .remedy("take it out of the plan's accounts"),
    )
}

/// The statuses of these accounts.
///
/// # Errors
/// LS2220 if one doesn't exist, LS2221 if it is SYS.
pub(super) async fn statuses(session: &Session, names: &[String]) -> Result<Statuses, ActionError> {
    let mut all = accounts(session).await?;
    let mut statuses = Statuses::new();
    for account in names {
        refuse_sys(account)?;
        let status = all.remove(account).ok_or_else(|| {
            ActionError::new(Code::LS2220, format!("Oracle has no account {account}"))
                .state_left("nothing was done")
                .remedy("write it as DBA_USERS does (mostly upper case), or take it out")
        })?;
        statuses.insert(account.clone(), status);
    }
    Ok(statuses)
}

/// Saves the statuses for `oracle.accounts.restore` and locks the accounts that
/// are not permanently locked.
///
/// # Errors
/// If the state can't be saved, or a lock fails; accounts before it remain
/// locked.
pub(super) async fn lock_all(
    cx: &Context,
    resource: &str,
    session: &Session,
    statuses: &Statuses,
) -> Result<(), ActionError> {
    let open = statuses.iter().filter(|(_, status)| !is_locked(status));
    let statements: Vec<String> = open
        .map(|(account, _)| lock(account))
        .collect::<Result<_, _>>()?;
    saved_state::save(cx, resource, KIND, statuses)?;
    for statement in statements {
        session.execute(&statement, &[]).await?;
        cx.effect(statement);
    }
    Ok(())
}

/// Unlocks the accounts that were not permanently locked before, and removes
/// the saved state.
///
/// # Errors
/// If an account can't be unlocked; the others are unlocked nevertheless.
pub(super) async fn undo(
    cx: &Context,
    resource: &str,
    session: &Session,
    before: &Statuses,
) -> Result<Undone, ActionError> {
    let undone = restore(cx, session, before).await?;
    saved_state::done::<Statuses>(cx, resource, KIND, &undone)?;
    Ok(undone)
}

/// Unlocks the accounts that were not permanently locked before, one after the
/// other, continuing after failures.
async fn restore(
    cx: &Context,
    session: &Session,
    before: &Statuses,
) -> Result<Undone, ActionError> {
    let now = accounts(session).await?;
    let (mut changed, mut drifted, mut failures) = (false, Vec::new(), Vec::new());
    for (account, _) in before.iter().filter(|(_, was)| !is_locked(was)) {
        match now.get(account) {
            None => drifted.push(format!("the account {account} is no longer there")),
            Some(status) if !is_locked(status) => {}
            Some(_) => match open(cx, session, account).await {
                Ok(()) => changed = true,
                Err(e) => failures.push(e),
            },
        }
    }
    combine_errors(failures, Code::LS2224, "accounts are not unlocked again")?;
    Ok(match (drifted.is_empty(), changed) {
        (false, _) => Undone::Drifted(drifted.join("; ")),
        (true, true) => Undone::Restored,
        (true, false) => Undone::Unchanged,
    })
}

async fn open(cx: &Context, session: &Session, account: &str) -> Result<(), ActionError> {
    let statement = unlock(account)?;
    session.execute(&statement, &[]).await?;
    cx.effect(statement);
    Ok(())
}

#[async_trait]
impl Action for Lock {
    type Params = LockAccounts;

    fn required_permissions(&self, params: &LockAccounts) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &LockAccounts) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let statuses = statuses(&session, &params.accounts).await?;
        let so = statuses.values().all(|status| is_locked(status));
        with_before_image(satisfied_if(so), &statuses)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &LockAccounts,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let mut description = Description::default();
        for (account, status) in statuses(&session, &params.accounts).await? {
            if is_locked(&status) {
                let remark = format!("{account} is {status} already and stays so in a rollback");
                description.remarks.push(remark);
            } else {
                description.would_do.push(lock(&account)?);
            }
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &LockAccounts,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let statuses = statuses(&session, &params.accounts).await?;
        lock_all(cx, &params.resource, &session, &statuses).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &LockAccounts,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Statuses = decode_before_image(before_image)?;
        let session = Session::open(cx, &params.resource).await?;
        undo(cx, &params.resource, &session, &before).await
    }
}

impl Restore {
    /// For each account the status that the first step found.
    fn before(cx: &Context, params: &RestoreAccounts) -> Result<Statuses, ActionError> {
        let mut before = Statuses::new();
        let saved: Vec<Statuses> = saved_state::recall_all(cx, &params.resource, KIND)?;
        for (account, status) in saved.into_iter().flatten() {
            if params.accounts.contains(&account) {
                before.entry(account).or_insert(status);
            }
        }
        if before.is_empty() {
            return Err(saved_state::nothing(&params.resource, KIND));
        }
        Ok(before)
    }

    /// Other accounts are restored by another step.
    fn forget(cx: &Context, params: &RestoreAccounts) -> Result<(), ActionError> {
        let others = |mut saved: Statuses| {
            saved.retain(|account, _| !params.accounts.contains(account));
            (!saved.is_empty()).then_some(saved)
        };
        saved_state::forget_part(cx, &params.resource, KIND, others)
    }
}

#[async_trait]
impl Action for Restore {
    type Params = RestoreAccounts;

    fn required_permissions(&self, params: &RestoreAccounts) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &RestoreAccounts) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let now = statuses(&session, &params.accounts).await?;
        if now.values().all(|status| !is_locked(status)) {
            return Ok(found(Finding::Satisfied));
        }
        Self::before(cx, params)?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestoreAccounts,
    ) -> Result<Description, ActionError> {
        let before = Self::before(cx, params)?;
        let opened = before.iter().filter(|(_, was)| !is_locked(was));
        let would_do = opened.map(|(account, _)| unlock(account));
        Ok(Description::of(would_do.collect::<Result<Vec<_>, _>>()?))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestoreAccounts,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let before = Self::before(cx, params)?;
        let session = Session::open(cx, &params.resource).await?;
        restore(cx, &session, &before).await?;
        Self::forget(cx, params)?;
        Ok(Outputs::new())
    }
}
