//! `postgres.triggers.enable`, `postgres.triggers.restore`.
//!
//! Triggers have been off since the load began, so their state before the run
//! is not what applications need: the plan's baseline defines the mode of each,
//! `origin` by default. Restore sets the modes that `enable` found, which the
//! agent has saved.

use super::{Table, listed, require_schemas};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::host::postgres::{Session, quoted};
use crate::host::state_file::StateFile;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{
    EnablePostgresTriggers, RestorePostgresTriggers, TriggerMode, TriggerSet,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub struct Enable;

pub struct Restore;

/// Modes by `schema.table.trigger`: the before-image, and the saved state.
type Modes = BTreeMap<String, TriggerMode>;

/// Kind of the saved state, which `enable` writes and `restore` reads.
const STATE_FILE: &str = "postgres-triggers";

/// A trigger as in pg_trigger.
struct Trigger {
    table: Table,
    name: String,
    mode: TriggerMode,
    /// The owner of the table, if the agent's role has not its privileges.
    foreign_owner: Option<String>,
}

impl Trigger {
    fn key(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// `ONLY`: a partition's copy of the trigger has a mode of its own.
    fn set(&self, mode: TriggerMode) -> String {
        let how = match mode {
            TriggerMode::Origin => "ENABLE",
            TriggerMode::Always => "ENABLE ALWAYS",
            TriggerMode::Replica => "ENABLE REPLICA",
            TriggerMode::Disabled => "DISABLE",
        };
        format!(
            "ALTER TABLE ONLY {} {how} TRIGGER {}",
            self.table.sql(),
            quoted(&self.name)
        )
    }
}

fn mode(tgenabled: &str) -> TriggerMode {
    match tgenabled {
        "A" => TriggerMode::Always,
        "R" => TriggerMode::Replica,
        "D" => TriggerMode::Disabled,
        _ => TriggerMode::Origin,
    }
}

async fn triggers(
    session: &Session,
    schemas: &[String],
    set: TriggerSet,
) -> Result<Vec<Trigger>, ActionError> {
    let sql = "SELECT n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled::text, \
               CASE WHEN NOT pg_has_role(c.relowner, 'USAGE') \
                 THEN pg_get_userbyid(c.relowner)::text END \
               FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
               JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'f') \
               AND ($2 OR NOT t.tgisinternal) ORDER BY 1, 2, 3";
    require_schemas(session, schemas).await?;
    let all = set == TriggerSet::All;
    let rows = session.rows(sql, &[&schemas, &all]).await?;
    Ok(rows
        .iter()
        .map(|row| Trigger {
            table: Table {
                schema: row.get(0),
                name: row.get(1),
            },
            name: row.get(2),
            mode: mode(row.get(3)),
            foreign_owner: row.get(4),
        })
        .collect())
}

fn wanted(params: &EnablePostgresTriggers, trigger: &Trigger) -> TriggerMode {
    params
        .baseline
        .get(&trigger.key())
        .copied()
        .unwrap_or(TriggerMode::Origin)
}

/// The obstacles, a sentence each.
async fn obstacles(
    session: &Session,
    params: &EnablePostgresTriggers,
    triggers: &[Trigger],
) -> Result<Vec<String>, ActionError> {
    let mut obstacles = Vec::new();
    let unknown: Vec<&String> = params
        .baseline
        .keys()
        .filter(|key| !triggers.iter().any(|trigger| trigger.key() == **key))
        .collect();
    if !unknown.is_empty() {
        obstacles.push(format!(
            "the baseline names triggers that don't exist: {}; correct the plan",
            listed(&unknown)
        ));
    }
    obstacles.extend(not_owned(params, triggers));
    let sql = "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
               ARRAY(SELECT d.datname || ': ' || setting \
                 FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase \
                 CROSS JOIN unnest(s.setconfig) AS setting \
                 WHERE s.setrole = 0 AND d.datname = current_database() \
                 AND setting LIKE 'session_replication_role=%' \
                 AND setting <> 'session_replication_role=origin')";
    let row = session.row(sql, &[]).await?;
    let (superuser, replica): (bool, Vec<String>) = (row.get(0), row.get(1));
    if params.set == TriggerSet::All && !superuser {
        obstacles.push(
            "foreign-key triggers can be switched by a superuser only; say `set: user` in the \
             plan, or give this resource a superuser"
                .to_owned(),
        );
    }
    if params.set == TriggerSet::User {
        let unenforced = unenforced_keys(session, &params.schemas).await?;
        if !unenforced.is_empty() {
            obstacles.push(format!(
                "foreign keys aren't enforced, because their internal triggers are disabled, which \
                 `set: user` doesn't switch: {}; say `set: all` with a superuser in this \
                 resource, or ALTER TABLE … ENABLE TRIGGER ALL as one, or drop these constraints \
                 and add them again",
                listed(&unenforced)
            ));
        }
    }
    if !replica.is_empty() {
        obstacles.push(format!(
            "triggers set to fire would not, by a setting of the database ({}): ALTER DATABASE \
             … RESET session_replication_role",
            listed(&replica)
        ));
    }
    Ok(obstacles)
}

/// Only the owner of a table may switch its triggers (PostgreSQL, ALTER TABLE).
fn not_owned(params: &EnablePostgresTriggers, triggers: &[Trigger]) -> Option<String> {
    let switched = triggers.iter().filter(|t| t.mode != wanted(params, t));
    let foreign: BTreeSet<String> = switched
        .filter_map(|t| {
            Some(format!(
                "{}, owned by {}",
                t.table,
                t.foreign_owner.as_ref()?
            ))
        })
        .collect();
    (!foreign.is_empty()).then(|| {
        format!(
            "the triggers of a table can be switched by its owner only, which the agent's role is \
             not of {}; GRANT the owner's role to it, with INHERIT",
            listed(&foreign.iter().collect::<Vec<_>>())
        )
    })
}

/// `table (constraint)` of the internal triggers that don't fire: those of
/// foreign keys on both tables, and of deferrable unique constraints. `ALTER
/// TABLE … DISABLE TRIGGER ALL` turns them off too (PostgreSQL, ALTER TABLE),
/// and `ENABLE TRIGGER USER` not on again.
async fn unenforced_keys(
    session: &Session,
    schemas: &[String],
) -> Result<Vec<String>, ActionError> {
    let sql = "SELECT DISTINCT n.nspname || '.' || c.relname \
                 || ' (' || coalesce(k.conname, t.tgname) || ')' \
               FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
               JOIN pg_namespace n ON n.oid = c.relnamespace \
               LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint \
               WHERE n.nspname = ANY($1) AND t.tgisinternal AND t.tgenabled IN ('D', 'R') \
               ORDER BY 1";
    let rows = session.rows(sql, &[&schemas]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Roles in whose sessions ordinary triggers don't fire. Right for the role
/// of a replication task, wrong for an application's.
async fn replica_roles(session: &Session) -> Result<Vec<String>, ActionError> {
    let sql = "SELECT DISTINCT r.rolname::text FROM pg_db_role_setting s \
               JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN unnest(s.setconfig) AS setting \
               WHERE setting = 'session_replication_role=replica' ORDER BY 1";
    let rows = session.rows(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn permitted(
    session: &Session,
    params: &EnablePostgresTriggers,
    triggers: &[Trigger],
) -> Result<(), ActionError> {
    let obstacles = obstacles(session, params, triggers).await?;
    if obstacles.is_empty() {
        return Ok(());
    }
    Err(ActionError::new(Code::LS2325, obstacles.join("; "))
        .state_left("nothing was changed")
        .remedy("fix them, then retry"))
}

/// Switches what differs from `target`, all or nothing.
async fn switch(
    cx: &Context,
    session: &Session,
    triggers: &[Trigger],
    target: impl Fn(&Trigger) -> Option<TriggerMode>,
) -> Result<usize, ActionError> {
    let mut statements = Vec::new();
    for trigger in triggers {
        if let Some(mode) = target(trigger).filter(|mode| *mode != trigger.mode) {
            statements.push(trigger.set(mode));
        }
    }
    session.transaction(&statements).await?;
    for statement in &statements {
        cx.effect(statement.clone());
    }
    Ok(statements.len())
}

#[async_trait]
impl Action for Enable {
    type Params = EnablePostgresTriggers;

    fn required_permissions(&self, params: &EnablePostgresTriggers) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &EnablePostgresTriggers,
    ) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas, params.set).await?;
        permitted(&session, params, &triggers).await?;
        let so = triggers.iter().all(|t| t.mode == wanted(params, t));
        let modes: Modes = triggers.iter().map(|t| (t.key(), t.mode)).collect();
        with_before_image(satisfied_if(so), &modes)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &EnablePostgresTriggers,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas, params.set).await?;
        let mut remarks = Vec::new();
        let replicas = replica_roles(&session).await?;
        if !replicas.is_empty() {
            remarks.push(format!(
                "in sessions of {} ordinary triggers don't fire (session_replication_role)",
                listed(&replicas)
            ));
        }
        Ok(Description {
            would_do: triggers
                .iter()
                .filter(|t| t.mode != wanted(params, t))
                .map(|t| t.set(wanted(params, t)))
                .collect(),
            obstacles: obstacles(&session, params, &triggers).await?,
            remarks,
            ..Description::default()
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &EnablePostgresTriggers,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas, params.set).await?;
        // The state that an earlier attempt saved is older, so it is not
        // overwritten.
        let state_file = StateFile::of(cx, STATE_FILE, &params.resource);
        let mut modes: Modes = state_file.read()?.unwrap_or_default();
        for trigger in triggers.iter().filter(|t| t.mode != wanted(params, t)) {
            modes.entry(trigger.key()).or_insert(trigger.mode);
        }
        state_file.write(&modes)?;
        switch(cx, &session, &triggers, |t| Some(wanted(params, t))).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &EnablePostgresTriggers,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Modes = decode_before_image(before_image)?;
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas, params.set).await?;
        let foreign: Vec<String> = triggers
            .iter()
            .filter(|t| {
                let was = before.get(&t.key()).copied();
                was != Some(t.mode) && t.mode != wanted(params, t)
            })
            .map(Trigger::key)
            .collect();
        if !foreign.is_empty() {
            return Ok(Undone::Drifted(format!(
                "somebody else has switched {}; no trigger was changed",
                listed(&foreign)
            )));
        }
        let switched = switch(cx, &session, &triggers, |t| before.get(&t.key()).copied()).await?;
        StateFile::of(cx, STATE_FILE, &params.resource).forget()?;
        Ok(if switched == 0 {
            Undone::Unchanged
        } else {
            Undone::Restored
        })
    }
}

#[async_trait]
impl Action for Restore {
    type Params = RestorePostgresTriggers;

    fn required_permissions(&self, params: &RestorePostgresTriggers) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &RestorePostgresTriggers,
    ) -> Result<Probe, ActionError> {
        let state_file: Option<Modes> = StateFile::of(cx, STATE_FILE, &params.resource).read()?;
        let Some(modes) = state_file else {
            // Nothing was switched by this agent.
            return Ok(found(Finding::Satisfied));
        };
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas, params.set).await?;
        let so = triggers
            .iter()
            .all(|t| modes.get(&t.key()).is_none_or(|mode| *mode == t.mode));
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestorePostgresTriggers,
    ) -> Result<Description, ActionError> {
        let modes: Modes = StateFile::of(cx, STATE_FILE, &params.resource)
            .read()?
            .unwrap_or_default();
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas, params.set).await?;
        Ok(Description::of(triggers.iter().filter_map(|t| {
            let mode = modes.get(&t.key()).filter(|mode| **mode != t.mode)?;
            Some(t.set(*mode))
        })))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestorePostgresTriggers,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let state_file = StateFile::of(cx, STATE_FILE, &params.resource);
        let modes: Modes = state_file.read()?.unwrap_or_default();
        let session = Session::open(cx, &params.resource).await?;
        let triggers = triggers(&session, &params.schemas, params.set).await?;
        switch(cx, &session, &triggers, |t| modes.get(&t.key()).copied()).await?;
        state_file.forget()?;
        Ok(Outputs::new())
    }
}
