//! `postgres.roles.close`, `postgres.roles.verify`, `postgres.roles.open`: the
//! right of application roles to log in.
//!
//! Closing takes the right to log in from every role in one transaction, then
//! ends their sessions until none is left: a session that exists outlives
//! `NOLOGIN`. It leaves passwords, memberships and grants alone.

use super::{listed, role_limits};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::host::postgres::{Session, quoted};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{CloseRoles, OpenRoles, PostgresRoles, VerifyRoles};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

pub struct Close;

/// Proves that applications still can't write: the roles are closed, without
/// sessions.
pub struct Verify;

pub struct Open;

/// `rolcanlogin` by role: the before-image of both.
type Logins = BTreeMap<String, bool>;

/// Interval between two checks of the sessions.
const POLL: Duration = Duration::from_millis(100);

/// Consecutive checks that must find no session: one that was logging in while
/// `NOLOGIN` was committed appears in between.
const CALM_LOOKS: u32 = 5;

/// Checks before giving up, 30 s: a backend notices its termination at once
/// unless it hangs in the kernel.
const LOOKS: u32 = 300;

async fn logins(session: &Session, params: &PostgresRoles) -> Result<Logins, ActionError> {
    let sql = "SELECT rolname::text, rolcanlogin FROM pg_roles WHERE rolname = ANY($1)";
    let rows = session.rows(sql, &[&params.roles]).await?;
    let logins: Logins = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let missing: Vec<&str> = params
        .roles
        .iter()
        .map(String::as_str)
        .filter(|role| !logins.contains_key(*role))
        .collect();
    if missing.is_empty() {
        return Ok(logins);
    }
    Err(ActionError::new(
        Code::LS2311,
        format!(
            "no such roles in {}: {}",
            session.server(),
            listed(&missing)
        ),
    )
    .state_left("nothing was changed")
    .remedy("correct them in the plan, or create them"))
}

/// Since PostgreSQL 16 CREATEROLE reaches only roles that one administers;
/// before, all but superusers and roles with REPLICATION.
const ADMINISTERED: i32 = 160_000;

/// The agent's privileges over the roles.
struct Powers {
    me: String,
    superuser: bool,
    create: bool,
    /// Member of pg_signal_backend, directly or not.
    member: bool,
    /// It may end the sessions of every one of the roles.
    signal: bool,
    own: bool,
    version: i32,
    superusers: Vec<String>,
    replicating: Vec<String>,
    foreign: Vec<String>,
}

impl Powers {
    /// A membership alone is not enough to end a session: its privileges must
    /// be inherited (`pg_terminate_backend`, PostgreSQL documentation, "Server
    /// Signaling Functions").
    async fn of(session: &Session, roles: &[String]) -> Result<Self, ActionError> {
        let sql = "WITH t AS (SELECT oid, rolname::text AS name, rolsuper, rolreplication \
                     FROM pg_roles WHERE rolname = ANY($1)) \
                   SELECT r.rolname::text, r.rolsuper, r.rolcreaterole, \
                   pg_has_role(r.oid, 'pg_signal_backend', 'MEMBER'), \
                   pg_has_role(r.oid, 'pg_signal_backend', 'USAGE') \
                     OR (SELECT bool_and(pg_has_role(r.oid, t.oid, 'USAGE')) FROM t), \
                   r.rolname = ANY($1), current_setting('server_version_num')::int, \
                   ARRAY(SELECT name FROM t WHERE rolsuper), \
                   ARRAY(SELECT name FROM t WHERE rolreplication AND NOT rolsuper), \
                   ARRAY(SELECT name FROM t WHERE NOT rolsuper \
                     AND NOT pg_has_role(r.oid, t.oid, 'MEMBER WITH ADMIN OPTION')) \
                   FROM pg_roles r WHERE r.rolname = current_user";
        let row = session.row(sql, &[&roles]).await?;
        Ok(Self {
            me: row.get(0),
            superuser: row.get(1),
            create: row.get(2),
            member: row.get(3),
            signal: row.get::<_, Option<bool>>(4).unwrap_or(false),
            own: row.get(5),
            version: row.get(6),
            superusers: row.get(7),
            replicating: row.get(8),
            foreign: row.get(9),
        })
    }

    /// The missing privileges for altering the roles.
    fn to_alter(&self) -> Vec<String> {
        let me = &self.me;
        let mut obstacles = Vec::new();
        if !self.create {
            obstacles.push(format!(
                "{me} may not alter roles: ALTER ROLE {me} CREATEROLE"
            ));
        }
        if !self.superusers.is_empty() {
            obstacles.push(format!(
                "only a superuser may close superusers, and {me} is none: ALTER ROLE … NOSUPERUSER \
                 for {}, or take them out",
                listed(&self.superusers)
            ));
        }
        if self.version < ADMINISTERED && !self.replicating.is_empty() {
            obstacles.push(format!(
                "before PostgreSQL 16 only a superuser may close roles with REPLICATION, and {me} \
                 is none: ALTER ROLE … NOREPLICATION for {}, or take them out",
                listed(&self.replicating)
            ));
        }
        if self.version >= ADMINISTERED && !self.foreign.is_empty() {
            obstacles.push(format!(
                "{me} doesn't administer {}: GRANT each TO {me} WITH ADMIN OPTION",
                listed(&self.foreign)
            ));
        }
        obstacles
    }

    /// The missing privileges for ending sessions.
    fn to_signal(&self) -> Option<String> {
        let me = &self.me;
        let remedy = match (self.signal, self.member) {
            (true, _) => return None,
            (false, false) => format!("GRANT pg_signal_backend TO {me}"),
            (false, true) if self.version >= ADMINISTERED => {
                format!("it doesn't inherit: GRANT pg_signal_backend TO {me} WITH INHERIT TRUE")
            }
            (false, true) => format!("it doesn't inherit: ALTER ROLE {me} INHERIT"),
        };
        Some(format!("{me} may not end sessions: {remedy}"))
    }
}

/// Missing privileges of the agent's role, a sentence each.
async fn obstacles(session: &Session, params: &PostgresRoles) -> Result<Vec<String>, ActionError> {
    let powers = Powers::of(session, &params.roles).await?;
    let mut obstacles = Vec::new();
    if powers.own {
        obstacles.push(format!(
            "{} is the agent's own role; it can't be an application role, take it out",
            powers.me
        ));
    }
    if !powers.superuser {
        obstacles.extend(powers.to_alter());
        obstacles.extend(powers.to_signal());
    }
    Ok(obstacles)
}

/// As [`obstacles`], as an error.
async fn permitted(session: &Session, params: &PostgresRoles) -> Result<(), ActionError> {
    let obstacles = obstacles(session, params).await?;
    if obstacles.is_empty() {
        return Ok(());
    }
    Err(ActionError::new(Code::LS2312, obstacles.join("; "))
        .state_left("nothing was changed")
        .remedy("do that as a superuser or as the database's master user, then retry"))
}

/// Sessions of the roles, `role from client (application)` by process.
async fn sessions(
    session: &Session,
    roles: &[String],
) -> Result<BTreeMap<i32, String>, ActionError> {
    let sql = "SELECT pid, usename || ' from ' || coalesce(host(client_addr), 'this host') \
               || ' (' || coalesce(nullif(application_name, ''), backend_type, '-') || ')' \
               FROM pg_stat_activity WHERE usename = ANY($1) AND pid <> pg_backend_pid()";
    let rows = session.rows(sql, &[&roles]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A prepared transaction belongs to no session and may be committed by
/// anybody at any time: closed roles with one are not closed.
async fn prepared(session: &Session, roles: &[String]) -> Result<Vec<String>, ActionError> {
    let sql = "SELECT gid || ' of ' || owner FROM pg_prepared_xacts WHERE owner = ANY($1)";
    let rows = session.rows(sql, &[&roles]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn set_login(session: &Session, roles: &[&String], login: bool) -> Result<(), ActionError> {
    let word = if login { "LOGIN" } else { "NOLOGIN" };
    let statements: Vec<String> = roles
        .iter()
        .map(|role| format!("ALTER ROLE {} {word}", quoted(role)))
        .collect();
    session.transaction(&statements).await
}

/// Ends sessions until none is left and none reconnects.
async fn end_sessions(
    cx: &Context,
    session: &Session,
    roles: &[String],
) -> Result<(), ActionError> {
    let mut reported = BTreeMap::new();
    let mut calm = 0;
    let mut left = BTreeMap::new();
    for _ in 0..LOOKS {
        left = sessions(session, roles).await?;
        calm = if left.is_empty() { calm + 1 } else { 0 };
        if calm == CALM_LOOKS {
            return no_prepared(session, roles).await;
        }
        for (pid, who) in &left {
            if reported.insert(*pid, ()).is_none() {
                cx.effect(format!("ending session {pid}: {who}"));
            }
        }
        let pids: Vec<i32> = left.keys().copied().collect();
        session
            .rows(
                "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid",
                &[&pids],
            )
            .await?;
        session.pause(POLL).await?;
    }
    let who: Vec<&String> = left.values().collect();
    Err(ActionError::new(
        Code::LS2313,
        format!("sessions of application roles don't end: {}", listed(&who)),
    )
    .state_left("the roles can't log in any more, but these sessions can still write")
    .remedy("see what they hang on in pg_stat_activity, then retry"))
}

async fn no_prepared(session: &Session, roles: &[String]) -> Result<(), ActionError> {
    let prepared = prepared(session, roles).await?;
    if prepared.is_empty() {
        return Ok(());
    }
    Err(ActionError::new(
        Code::LS2314,
        format!(
            "prepared transactions of application roles: {}",
            listed(&prepared)
        ),
    )
    .state_left("the roles are closed and without sessions")
    .remedy("COMMIT PREPARED or ROLLBACK PREPARED each, then retry"))
}

#[async_trait]
impl Action for Close {
    type Params = CloseRoles;

    fn required_permissions(&self, params: &CloseRoles) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &CloseRoles) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let logins = logins(&session, params).await?;
        permitted(&session, params).await?;
        let closed = logins.values().all(|login| !login)
            && sessions(&session, &params.roles).await?.is_empty()
            && prepared(&session, &params.roles).await?.is_empty();
        let finding = satisfied_if(closed);
        with_before_image(finding, &logins)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &CloseRoles,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let logins = logins(&session, params).await?;
        let mut would_do: Vec<String> = logins
            .iter()
            .filter(|(_, login)| **login)
            .map(|(role, _)| format!("ALTER ROLE {} NOLOGIN", quoted(role)))
            .collect();
        for (pid, who) in sessions(&session, &params.roles).await? {
            would_do.push(format!("SELECT pg_terminate_backend({pid}) -- {who}"));
        }
        let mut obstacles = obstacles(&session, params).await?;
        for prepared in prepared(&session, &params.roles).await? {
            obstacles.push(format!(
                "prepared transaction {prepared}; commit it or roll it back"
            ));
        }
        Ok(Description {
            would_do,
            obstacles,
            ..Description::default()
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &CloseRoles,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let logins = logins(&session, params).await?;
        let open: Vec<&String> = logins.iter().filter(|(_, l)| **l).map(|(r, _)| r).collect();
        set_login(&session, &open, false).await?;
        end_sessions(cx, &session, &params.roles).await?;
        cx.effect(format!(
            "{}: closed, no session left",
            listed(&params.roles)
        ));
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &CloseRoles,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        restore(cx, params, &decode_before_image(before_image)?, false).await
    }
}

/// Ways in which applications can write although the roles were closed, a
/// sentence each.
async fn let_in(session: &Session, params: &PostgresRoles) -> Result<Vec<String>, ActionError> {
    let mut found: Vec<String> = logins(session, params)
        .await?
        .into_iter()
        .filter(|(_, login)| *login)
        .map(|(role, _)| format!("the role {role} may log in"))
        .collect();
    let connected = sessions(session, &params.roles).await?;
    found.extend(
        connected
            .iter()
            .map(|(pid, who)| format!("session {pid} of {who}")),
    );
    let prepared = prepared(session, &params.roles).await?;
    found.extend(
        prepared
            .iter()
            .map(|one| format!("prepared transaction {one}")),
    );
    Ok(found)
}

async fn still_closed(cx: &Context, params: &PostgresRoles) -> Result<(), ActionError> {
    let session = Session::open(cx, &params.resource).await?;
    let found = let_in(&session, params).await?;
    if found.is_empty() {
        return Ok(());
    }
    Err(ActionError::new(
        Code::LS2319,
        format!(
            "application roles are not closed any more, somebody else has opened them: {}",
            listed(&found)
        ),
    )
    .state_left("no role was opened by this run, but PostgreSQL may hold writes of theirs")
    .remedy(
        "find out who and what was written; ALTER ROLE … NOLOGIN and pg_terminate_backend for \
         each, then retry or roll back",
    ))
}

#[async_trait]
impl Action for Verify {
    type Params = VerifyRoles;

    fn required_permissions(&self, params: &VerifyRoles) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    /// The run closes them; at a preflight they are open, as expected.
    fn probe_in_preflight(&self) -> bool {
        false
    }

    async fn probe(&self, cx: &Context, params: &VerifyRoles) -> Result<Probe, ActionError> {
        still_closed(cx, params).await?;
        Ok(found(Finding::Satisfied))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &VerifyRoles,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        logins(&session, params).await?;
        Ok(Description::of([format!(
            "see that {} are closed and without sessions",
            listed(&params.roles)
        )]))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &VerifyRoles,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        still_closed(cx, params).await?;
        Ok(Outputs::new())
    }
}

#[async_trait]
impl Action for Open {
    type Params = OpenRoles;

    fn required_permissions(&self, params: &OpenRoles) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &OpenRoles) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let logins = logins(&session, params).await?;
        permitted(&session, params).await?;
        let open = logins.values().all(|login| *login);
        with_before_image(satisfied_if(open), &logins)
    }

    async fn describe(&self, cx: &Context, params: &OpenRoles) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        logins(&session, params).await?;
        // Every role, because at a preflight they are still open.
        let would_do = params
            .roles
            .iter()
            .map(|role| format!("ALTER ROLE {} LOGIN", quoted(role)))
            .collect();
        Ok(Description {
            would_do,
            obstacles: obstacles(&session, params).await?,
            remarks: role_limits::remarks(&session, &params.roles).await?,
            ..Description::default()
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OpenRoles,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let logins = logins(&session, params).await?;
        let shut: Vec<&String> = logins
            .iter()
            .filter(|(_, l)| !**l)
            .map(|(r, _)| r)
            .collect();
        set_login(&session, &shut, true).await?;
        cx.effect(format!("{}: open", listed(&params.roles)));
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &OpenRoles,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        restore(cx, params, &decode_before_image(before_image)?, true).await
    }
}

/// Restores every role to its before-image. `set` is the value that the action set:
/// a role that had it before and hasn't now was changed by someone else.
async fn restore(
    cx: &Context,
    params: &PostgresRoles,
    before: &Logins,
    set: bool,
) -> Result<Undone, ActionError> {
    let session = Session::open(cx, &params.resource).await?;
    let now = logins(&session, params).await?;
    let differs: Vec<&String> = before
        .iter()
        .filter(|(role, was)| now.get(*role).is_some_and(|is| is != *was))
        .map(|(role, _)| role)
        .collect();
    let foreign: Vec<&String> = differs
        .iter()
        .copied()
        .filter(|r| before[*r] == set)
        .collect();
    if !foreign.is_empty() {
        let word = if set { "closed" } else { "opened" };
        return Ok(Undone::Drifted(format!(
            "somebody else has {word} {}; no role was changed",
            listed(&foreign)
        )));
    }
    set_login(&session, &differs, !set).await?;
    if set {
        let roles: Vec<String> = differs.iter().map(|role| (*role).clone()).collect();
        end_sessions(cx, &session, &roles).await?;
    }
    Ok(if differs.is_empty() {
        Undone::Unchanged
    } else {
        Undone::Restored
    })
}
