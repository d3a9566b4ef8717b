//! The engine's handles: the whole, an instance's frontend side, a session.

use super::call::Call;
use super::environment::Environment;
use super::errors::ora;
use super::exec::{Exec, Variables};
use super::faults::Fault;
use super::prepare::{self, Body};
use super::sessions::{Life, SessionKey, SessionState};
use super::state::State;
use super::{clock, format, jobs, script};
use crate::api::{
    Bind, Canceller, Column, Credentials, Database, Login, OraError, Reply, Session, StatementKind,
    Tags,
};
use crate::config::Config;
use parking_lot::{Condvar, Mutex};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// The state and the signal that something in it has changed.
#[derive(Debug)]
pub struct Core {
    pub state: Mutex<State>,
    /// A transaction ended, a session was killed or cancelled.
    pub changed: Condvar,
    alert_log: PathBuf,
}

impl Core {
    /// Writes waiting alert lines out.
    pub fn flush_alerts(&self, state: &mut State) {
        if state.alerts.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut state.alerts);
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.alert_log);
        if let Ok(mut file) = file {
            for line in lines {
                // The alert log is a convenience; a full disk must not stop the rehearsal.
                let _ = writeln!(file, "{}\n{line}", clock::now());
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct Engine {
    core: Arc<Core>,
}

impl Engine {
    /// Opens an empty database with the configured instances and starts its
    /// job queue.
    #[must_use]
    pub fn start(config: &Config) -> Self {
        let core = Arc::new(Core {
            state: Mutex::new(State::new(config)),
            changed: Condvar::new(),
            alert_log: config
                .data_dir
                .join(format!("alert_{}.log", config.database)),
        });
        jobs::start_queue(&core);
        Self { core }
    }

    /// Runs a script as SYS, as SQL*Plus would.
    ///
    /// # Errors
    /// The first statement that fails, with its line.
    pub fn run_script(&self, text: &str) -> Result<(), script::ScriptError> {
        script::run(self, text)
    }

    /// The instance with that number, from 1, for its frontends.
    #[must_use]
    pub fn instance(&self, inst: u32) -> Arc<dyn Database> {
        Arc::new(Handle {
            core: Arc::clone(&self.core),
            inst,
        })
    }

    /// Whether `ALTER SYSTEM ENABLE RESTRICTED SESSION` holds on an instance:
    /// listeners refuse dynamically registered services then (ORA-12526).
    #[must_use]
    pub fn restricted(&self, inst: u32) -> bool {
        self.core.state.lock().instance(inst).restricted
    }

    /// What has happened, for the range's own account of the rehearsal.
    ///
    /// `{"scn", "instances": [{inst_id, name, host, restricted}], "sessions":
    /// [{inst_id, sid, serial, user, machine, program, status, listener}],
    /// "sessions_killed": [{inst_id, sid, serial, user, machine, program, at_ms}],
    /// "parameters": {"1": {name: value}}, "spfile": {"*": {name: value}},
    /// "accounts": {user: status}, "triggers": {"OWNER.NAME": status},
    /// "jobs": [{owner, name, enabled, state, runs}], "commits": {user: {count,
    /// last_scn, last_at_ms}}, "archived": [{thread, sequence, first_scn,
    /// next_scn}], "checkpoints": [{inst_id, scn, at_ms}], "statements":
    /// [{at_ms, inst_id, sid, user, sql}]}`; times are milliseconds since 1970.
    #[must_use]
    pub fn observe(&self) -> serde_json::Value {
        self.core.state.lock().observe()
    }

    /// Number of commits per user after an SCN.
    #[must_use]
    pub fn commits_after(&self, scn: u64) -> serde_json::Value {
        self.core.state.lock().commits_after(scn)
    }

    /// When the transaction with that commit SCN committed, in milliseconds
    /// since 1970; null when there is none.
    #[must_use]
    pub fn commit_at(&self, scn: u64) -> serde_json::Value {
        self.core.state.lock().commit_at(scn)
    }

    /// Puts a fault in: the next statements that contain a text fail.
    pub fn inject(&self, fault: Fault) {
        self.core.state.lock().faults.push(fault);
    }

    /// Says what lies around the database from now on.
    pub fn set_environment(&self, environment: Environment) {
        let mut state = self.core.state.lock();
        state.environment = environment;
        if !state.environment.slow_rollback {
            let killed = state.sessions.iter();
            let killed: Vec<SessionKey> = killed
                .filter(|(_, session)| session.life == Life::Killed && !session.in_call)
                .map(|(key, _)| *key)
                .collect();
            for key in killed {
                state.rollback_to(key, None);
            }
        }
    }

    /// Removes the file of an archived log; `false` where there is none.
    #[must_use]
    pub fn delete_archived(&self, thread: u32, sequence: u64) -> bool {
        self.core.state.lock().logs.delete(thread, sequence)
    }

    /// Cancels the running call of a session of the first instance.
    #[cfg(test)]
    pub fn cancel(&self, sid: u32, serial: u32) {
        let core = Arc::clone(&self.core);
        Cancel {
            core,
            key: SessionKey { inst: 1, sid },
            serial,
        }
        .cancel();
    }

    /// Takes every fault out.
    pub fn clear_faults(&self) {
        self.core.state.lock().faults.clear();
    }
}

/// One instance as the frontends hold it.
struct Handle {
    core: Arc<Core>,
    inst: u32,
}

impl Database for Handle {
    fn password_of(&self, user: &str) -> Option<String> {
        self.core.state.lock().users.get(user)?.password.clone()
    }

    fn connect(&self, login: Login) -> Result<Box<dyn Session>, OraError> {
        let mut state = self.core.state.lock();
        let user = authenticate(&state, &login)?;
        admit(&state, self.inst, &user, &login)?;
        let service = if login.service.is_empty() {
            "SYS$USERS".to_owned()
        } else {
            login.service.to_lowercase()
        };
        let recorded = state.environment.records_logins();
        if recorded
            && !login.sysdba
            && let Some(known) = state.users.get_mut(&user)
        {
            let now = clock::now();
            known.last_login = Some(now.with().subsec_nanosecond(0).build().unwrap_or(now));
        }
        let user = if login.sysdba { "SYS".to_owned() } else { user };
        let session = SessionState::of_login(&login, &user, service);
        let key = state.add_session(self.inst, session);
        let serial = state.session(key).map_or(0, |session| session.serial);
        let core = Arc::clone(&self.core);
        Ok(Box::new(Connection {
            core,
            key,
            serial,
            told: false,
            over: false,
        }))
    }

    fn prepare(&self, sql: &str) -> (StatementKind, Vec<String>) {
        match self.core.state.lock().prepared(sql) {
            Ok(prepared) => (prepared.kind, prepared.binds.clone()),
            // The error belongs to the execution; the kind is known anyhow.
            Err(_) => super::lex::lex(sql).map_or((StatementKind::Other, Vec::new()), |lexed| {
                (prepare::kind_of(&lexed.cursor()), lexed.cursor().binds())
            }),
        }
    }
}

/// Who a login is; ORA-01017 where that is not proved.
fn authenticate(state: &State, login: &Login) -> Result<String, OraError> {
    let denied = || ora(1017, "invalid username/password; logon denied");
    match &login.credentials {
        Credentials::OperatingSystem if login.sysdba => Ok("SYS".to_owned()),
        Credentials::OperatingSystem => Err(denied()),
        Credentials::Verified { user } => Ok(user.clone()),
        Credentials::Password { user, password } => {
            let name = user.trim_matches('"').to_uppercase();
            let known = state
                .users
                .get(&name)
                .and_then(|user| user.password.as_ref());
            if known == Some(password) {
                Ok(name)
            } else {
                Err(denied())
            }
        }
    }
}

/// Whether a proved user may come in.
fn admit(state: &State, inst: u32, user: &str, login: &Login) -> Result<(), OraError> {
    let Some(account) = state.users.get(user) else {
        return Err(ora(1017, "invalid username/password; logon denied"));
    };
    let granted = |privilege: &str| state.holds(user, privilege);
    if login.sysdba {
        if user != "SYS" && !granted("SYSDBA") {
            return Err(ora(1017, "invalid username/password; logon denied"));
        }
        return Ok(());
    }
    if user == "SYS" {
        return Err(ora(
            28009,
            "connection as SYS should be as SYSDBA or SYSOPER",
        ));
    }
    if account.locked.is_some() {
        return Err(ora(28000, "The account is locked."));
    }
    if !(granted("CREATE SESSION") || granted("DBA")) {
        let text = format!("user {user} lacks CREATE SESSION privilege; logon denied");
        return Err(ora(1045, text));
    }
    if state.instance(inst).restricted && !(granted("RESTRICTED SESSION") || granted("DBA")) {
        let text = "ORACLE only available to users with RESTRICTED SESSION privilege";
        return Err(ora(1035, text));
    }
    Ok(())
}

/// One session as a frontend holds it.
struct Connection {
    core: Arc<Core>,
    key: SessionKey,
    serial: u32,
    /// The client knows that it was killed.
    told: bool,
    over: bool,
}

impl Connection {
    /// Runs something as a call of this session.
    fn call<T>(
        &mut self,
        work: impl FnOnce(&mut Call<'_>) -> Result<T, OraError>,
    ) -> Result<T, OraError> {
        let mut state = self.core.state.lock();
        let alive = state
            .session(self.key)
            .is_some_and(|session| session.serial == self.serial && session.life == Life::Alive);
        if !alive {
            state.sessions.remove(&self.key);
            if std::mem::replace(&mut self.told, true) {
                return Err(ora(1012, "not logged on"));
            }
            return Err(ora(28, "your session has been killed"));
        }
        if let Some(session) = state.sessions.get_mut(&self.key) {
            session.in_call = true;
            session.cancelled = false;
            session.last_call = clock::now();
            format::use_nls(&session.nls);
        }
        let mut call = Call::new(&self.core, state, self.key);
        let result = work(&mut call);
        let killed = call.finish();
        if killed {
            self.told = true;
            return Err(ora(28, "your session has been killed"));
        }
        result
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let mut state = self.core.state.lock();
        state.rollback_to(self.key, None);
        state.sessions.remove(&self.key);
        self.core.changed.notify_all();
    }
}

impl Session for Connection {
    fn sid(&self) -> u32 {
        self.key.sid
    }

    fn serial(&self) -> u32 {
        self.serial
    }

    fn execute(&mut self, sql: &str, binds: &[Bind]) -> Result<Reply, OraError> {
        self.call(|call| call.execute(sql, binds))
    }

    fn describe(&mut self, sql: &str) -> Result<Vec<Column>, OraError> {
        self.call(|call| {
            let prepared = call.st.prepared(sql)?;
            let Body::Query(query) = &prepared.body else {
                return Ok(Vec::new());
            };
            let vars = Variables::new();
            let key = call.key;
            call.attempt(|st| {
                let mut exec = Exec::new(st, key, &vars);
                exec.describing = true;
                let relation = exec.query(query, None)?;
                Ok(super::call::columns(&relation))
            })
        })
    }

    fn commit(&mut self) -> Result<(), OraError> {
        self.call(|call| {
            call.commit();
            Ok(())
        })
    }

    fn rollback(&mut self) -> Result<(), OraError> {
        self.call(|call| {
            call.rollback();
            Ok(())
        })
    }

    fn ping(&mut self) -> Result<(), OraError> {
        self.call(|_| Ok(()))
    }

    fn tag(&mut self, tags: &Tags) {
        let mut state = self.core.state.lock();
        if let Some(session) = state.sessions.get_mut(&self.key) {
            let set = |into: &mut Option<String>, from: &Option<String>| {
                if let Some(text) = from {
                    *into = Some(text.clone()).filter(|text| !text.is_empty());
                }
            };
            set(&mut session.module, &tags.module);
            set(&mut session.action, &tags.action);
            set(&mut session.client_identifier, &tags.client_identifier);
            set(&mut session.client_info, &tags.client_info);
        }
    }

    fn in_transaction(&self) -> bool {
        self.core
            .state
            .lock()
            .session(self.key)
            .is_some_and(|session| session.txn.is_some())
    }

    fn canceller(&self) -> Box<dyn Canceller> {
        Box::new(Cancel {
            core: Arc::clone(&self.core),
            key: self.key,
            serial: self.serial,
        })
    }

    fn logoff(mut self: Box<Self>) {
        self.end();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

struct Cancel {
    core: Arc<Core>,
    key: SessionKey,
    serial: u32,
}

impl Canceller for Cancel {
    fn cancel(&self) {
        let mut state = self.core.state.lock();
        if let Some(session) = state.sessions.get_mut(&self.key)
            && session.serial == self.serial
            && session.in_call
        {
            session.cancelled = true;
            self.core.changed.notify_all();
        }
    }
}
