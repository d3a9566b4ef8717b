//! `postgres.jobs.disable`, `postgres.jobs.restore`: pg_cron and pgAgent.
//!
//! A job that runs during the outage writes to PostgreSQL although the
//! application roles are closed. Switching it off doesn't end a run that has begun, and
//! its role need not be one of those that are closed, so `disable` waits for it.
//! pg_cron's jobs are found in whichever database
//! of the server pg_cron is installed; pgAgent's only in the resource's own
//! database.

use super::listed;
use super::schedulers::{Jobs, Schedulers};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::host::state_file::StateFile;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{DisablePostgresJobs, RestorePostgresJobs};
use serde_json::Value;
use std::collections::BTreeSet;

pub struct Disable;

pub struct Restore;

/// Kind of the saved state: the jobs that `disable` has switched off.
const STATE_FILE: &str = "postgres-jobs";

#[async_trait]
impl Action for Disable {
    type Params = DisablePostgresJobs;

    fn required_permissions(&self, params: &DisablePostgresJobs) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &DisablePostgresJobs,
    ) -> Result<Probe, ActionError> {
        let schedulers = Schedulers::find(cx, &params.resource).await?;
        let jobs = schedulers.jobs().await?;
        let off = jobs.values().all(|active| !active) && schedulers.running().await?.is_empty();
        with_before_image(satisfied_if(off), &jobs)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DisablePostgresJobs,
    ) -> Result<Description, ActionError> {
        let schedulers = Schedulers::find(cx, &params.resource).await?;
        let jobs = schedulers.jobs().await?;
        let mut description = Description::of(
            jobs.iter()
                .filter(|(_, active)| **active)
                .map(|(job, _)| schedulers.set(job, false)),
        );
        for job in schedulers.running().await? {
            description.remarks.push(format!(
                "{job} is running now; the step waits for its end, and fails if its time is up before"
            ));
        }
        description.remarks.extend(schedulers.remark());
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DisablePostgresJobs,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let schedulers = Schedulers::find(cx, &params.resource).await?;
        let jobs = schedulers.jobs().await?;
        let active: Vec<&String> = jobs.iter().filter(|(_, a)| **a).map(|(j, _)| j).collect();
        // Saved before the change, so that a crash in between forgets nothing.
        let state_file = StateFile::of(cx, STATE_FILE, &params.resource);
        let mut off: BTreeSet<String> = state_file.read()?.unwrap_or_default();
        off.extend(active.iter().map(|job| (*job).clone()));
        state_file.write(&off)?;
        schedulers.switch(&active, false).await?;
        if !active.is_empty() {
            cx.effect(format!("jobs disabled: {}", listed(&active)));
        }
        schedulers.wait(cx).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DisablePostgresJobs,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Jobs = decode_before_image(before_image)?;
        let schedulers = Schedulers::find(cx, &params.resource).await?;
        let now = schedulers.jobs().await?;
        let foreign: Vec<&String> = now
            .iter()
            .filter(|(job, active)| **active && before.get(*job) != Some(&true))
            .map(|(job, _)| job)
            .collect();
        if !foreign.is_empty() {
            return Ok(Undone::Drifted(format!(
                "somebody else has switched on {}; no job was changed",
                listed(&foreign)
            )));
        }
        let off: Vec<&String> = now
            .iter()
            .filter(|(job, active)| !**active && before.get(*job) == Some(&true))
            .map(|(job, _)| job)
            .collect();
        schedulers.switch(&off, true).await?;
        StateFile::of(cx, STATE_FILE, &params.resource).forget()?;
        Ok(if off.is_empty() {
            Undone::Unchanged
        } else {
            Undone::Restored
        })
    }
}

/// Jobs that `disable` has switched off and that are still off.
async fn still_off(
    cx: &Context,
    params: &RestorePostgresJobs,
) -> Result<(Schedulers, Vec<String>), ActionError> {
    let state_file: Option<BTreeSet<String>> =
        StateFile::of(cx, STATE_FILE, &params.resource).read()?;
    let schedulers = Schedulers::find(cx, &params.resource).await?;
    let now = schedulers.jobs().await?;
    let off = state_file
        .unwrap_or_default()
        .into_iter()
        .filter(|job| now.get(job) == Some(&false))
        .collect();
    Ok((schedulers, off))
}

#[async_trait]
impl Action for Restore {
    type Params = RestorePostgresJobs;

    fn required_permissions(&self, params: &RestorePostgresJobs) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &RestorePostgresJobs,
    ) -> Result<Probe, ActionError> {
        let (_, off) = still_off(cx, params).await?;
        Ok(found(satisfied_if(off.is_empty())))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestorePostgresJobs,
    ) -> Result<Description, ActionError> {
        let (schedulers, off) = still_off(cx, params).await?;
        Ok(Description::of(
            off.iter().map(|job| schedulers.set(job, true)),
        ))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestorePostgresJobs,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let (schedulers, off) = still_off(cx, params).await?;
        let off: Vec<&String> = off.iter().collect();
        schedulers.switch(&off, true).await?;
        StateFile::of(cx, STATE_FILE, &params.resource).forget()?;
        cx.effect(format!("jobs enabled: {}", listed(&off)));
        Ok(Outputs::new())
    }
}
