//! The whole database: what is shared by the instances and what each has.

use super::environment::Environment;
use super::errors::ora;
use super::faults::Fault;
use super::jobs::Job;
use super::observe::Observed;
use super::params::Parameters;
use super::redolog::RedoLogs;
use super::sequences::Sequence;
use super::sessions::{SessionKey, SessionState};
use super::storage::Table;
use super::triggers::Trigger;
use super::txn::{Committed, Scn, Transactions, TxnId};
use super::{clock, prepare, privileges};
use crate::api::OraError;
use crate::config::Config;
use jiff::civil;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Where the database's SCN starts: a database that has been in use.
const FIRST_SCN: Scn = 2_300_000;
/// An idle database's SCN moves on about this often (seconds), because its
/// own housekeeping commits.
const IDLE_SCN_SECONDS: i64 = 3;

#[derive(Debug)]
pub struct User {
    /// Password, as typed: O5LOGON's verifier is made from it.
    pub password: Option<String>,
    /// When the account was locked.
    pub locked: Option<civil::DateTime>,
    pub maintained: bool,
    /// When it was made.
    pub created: civil::DateTime,
    /// LAST_LOGIN, to the second; administrative logins don't count.
    pub last_login: Option<civil::DateTime>,
    /// System privileges and roles, upper case.
    pub grants: BTreeSet<String>,
    /// Privileges on objects: `(owner, name)` to privileges.
    pub objects: BTreeMap<(String, String), BTreeSet<String>>,
    pub id: u32,
}

#[derive(Debug, Default)]
pub struct Role {
    pub maintained: bool,
    /// System privileges and other roles, upper case.
    pub grants: BTreeSet<String>,
    /// Privileges on objects: `(owner, name)` to privileges.
    pub objects: BTreeMap<(String, String), BTreeSet<String>>,
}

#[derive(Debug)]
pub struct Instance {
    pub name: String,
    pub host: String,
    pub started: civil::DateTime,
    pub restricted: bool,
    /// Started with a server parameter file.
    pub spfile: bool,
    next_sid: u32,
}

/// Supplemental logging of the whole database.
#[derive(Debug, Default)]
pub struct Supplemental {
    /// ADD SUPPLEMENTAL LOG DATA without more.
    pub minimal: bool,
    /// `ALL`, `PRIMARY KEY`, `UNIQUE`, `FOREIGN KEY`, as far as added.
    pub columns: BTreeSet<&'static str>,
}

impl Supplemental {
    /// SUPPLEMENTAL_LOG_DATA_MIN: any columns bring it with them.
    pub fn minimal(&self) -> &'static str {
        match (self.minimal, self.columns.is_empty()) {
            (true, _) => "YES",
            (false, false) => "IMPLICIT",
            (false, true) => "NO",
        }
    }
}

/// Everything behind the one lock.
#[derive(Debug)]
pub struct State {
    pub database: String,
    pub dbid: u64,
    /// The instances, number 1 first.
    pub instances: Vec<Instance>,
    pub users: BTreeMap<String, User>,
    /// Roles by name, with what they were given.
    pub roles: BTreeMap<String, Role>,
    /// Tables by number; dropped ones keep theirs.
    pub tables: Vec<Table>,
    names: HashMap<String, HashMap<String, usize>>,
    /// Triggers by owner and name.
    pub triggers: BTreeMap<(String, String), Trigger>,
    /// Sequences by owner and name.
    pub sequences: BTreeMap<(String, String), Sequence>,
    /// Scheduler jobs by owner and name.
    pub jobs: BTreeMap<(String, String), Job>,
    pub sessions: BTreeMap<SessionKey, SessionState>,
    /// Open and committed transactions.
    pub transactions: Transactions,
    pub scn: Scn,
    scn_moved: i64,
    /// Parameters in memory and in the server parameter file.
    pub parameters: Parameters,
    /// Redo log groups and archived logs.
    pub logs: RedoLogs,
    /// What the range asks about afterwards.
    pub observed: Observed,
    /// Faults the range has put in.
    pub faults: Vec<Fault>,
    /// What lies around the database.
    pub environment: Environment,
    /// What supplemental logging the whole database has.
    pub supplemental: Supplemental,
    pub cache: prepare::Cache,
    next_serial: u32,
    /// How deep triggers have fired triggers.
    pub trigger_depth: usize,
    /// Alert log lines waiting to be written.
    pub alerts: Vec<String>,
}

impl State {
    /// An empty database with its instances open.
    pub fn new(config: &Config) -> Self {
        let instances: Vec<Instance> = config
            .instances
            .iter()
            .map(|instance| Instance {
                name: instance.name.clone(),
                host: instance.host.clone(),
                started: clock::now(),
                restricted: false,
                spfile: instance.spfile,
                next_sid: 0,
            })
            .collect();
        let mut state = Self {
            database: config.database.to_uppercase(),
            dbid: 1_700_000_001,
            parameters: Parameters::new(&config.database, &instances),
            logs: RedoLogs::new(instances.len(), FIRST_SCN),
            instances,
            users: BTreeMap::new(),
            roles: privileges::own_roles(),
            tables: Vec::new(),
            names: HashMap::new(),
            triggers: BTreeMap::new(),
            sequences: BTreeMap::new(),
            jobs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            transactions: Transactions::default(),
            scn: FIRST_SCN,
            scn_moved: clock::epoch_ms(),
            observed: Observed::default(),
            faults: Vec::new(),
            environment: Environment::default(),
            supplemental: Supplemental::default(),
            cache: prepare::Cache::default(),
            next_serial: 100,
            trigger_depth: 0,
            alerts: Vec::new(),
        };
        for (name, password) in [("SYS", config.sys_password.clone()), ("SYSTEM", None)] {
            state.add_user(name, password, true);
            if let Some(user) = state.users.get_mut(name) {
                user.grants.insert("DBA".to_owned());
            }
        }
        state.start_background();
        state
    }

    /// The background processes of every instance.
    fn start_background(&mut self) {
        for at in 0..self.instances.len() {
            let host = self.instances[at].host.clone();
            for process in [
                "PMON", "PSP0", "DBW0", "LGWR", "CKPT", "SMON", "RECO", "ARC0", "CJQ0", "QM00",
            ] {
                let session = SessionState::of_server(&host, process, None);
                self.add_session(at as u32 + 1, session);
            }
        }
    }

    pub fn add_user(&mut self, name: &str, password: Option<String>, maintained: bool) {
        let id = self.users.len() as u32 + if maintained { 0 } else { 100 };
        let user = User {
            password,
            locked: None,
            maintained,
            created: clock::now(),
            last_login: None,
            grants: BTreeSet::new(),
            objects: BTreeMap::new(),
            id,
        };
        self.users.insert(name.to_owned(), user);
    }

    /// Adds a session to an instance and gives it SID and SERIAL#.
    pub fn add_session(&mut self, inst: u32, mut session: SessionState) -> SessionKey {
        self.next_serial += 7;
        session.serial = self.next_serial;
        session.audsid = if session.is_background() {
            0
        } else {
            400_000 + self.next_serial
        };
        let instance = &mut self.instances[inst as usize - 1];
        instance.next_sid += 1;
        let key = SessionKey {
            inst,
            sid: instance.next_sid,
        };
        session.pid = 1000 + key.sid;
        self.sessions.insert(key, session);
        key
    }

    pub fn session(&self, key: SessionKey) -> Option<&SessionState> {
        self.sessions.get(&key)
    }

    pub fn instance(&self, inst: u32) -> &Instance {
        &self.instances[inst as usize - 1]
    }

    /// The number of a table.
    pub fn find_table(&self, owner: &str, name: &str) -> Option<usize> {
        self.names.get(owner)?.get(name).copied()
    }

    pub fn add_table(&mut self, table: Table) -> usize {
        let number = self.tables.len();
        self.names
            .entry(table.owner.clone())
            .or_default()
            .insert(table.name.clone(), number);
        self.tables.push(table);
        number
    }

    /// Forgets a table's name; its number and redo stay.
    pub fn drop_table(&mut self, number: usize) {
        let table = &mut self.tables[number];
        table.dropped = true;
        if let Some(names) = self.names.get_mut(&table.owner) {
            names.remove(&table.name);
        }
    }

    /// The tables there are.
    pub fn live_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| !table.dropped)
    }

    /// The next SCN: for a commit and for DDL.
    pub fn next_scn(&mut self) -> Scn {
        self.scn += 1;
        self.scn_moved = clock::epoch_ms();
        self.scn
    }

    /// The current SCN for a reader; time alone moves it a little.
    pub fn read_scn(&mut self) -> Scn {
        let idle = (clock::epoch_ms() - self.scn_moved) / 1000 / IDLE_SCN_SECONDS;
        if idle > 0 {
            self.scn += idle.unsigned_abs();
            self.scn_moved = clock::epoch_ms();
        }
        self.next_scn()
    }

    /// The session's transaction, begun if there is none.
    pub fn transaction(&mut self, key: SessionKey) -> TxnId {
        if let Some(id) = self.session(key).and_then(|session| session.txn) {
            return id;
        }
        let id = self.transactions.begin(key, self.scn);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.txn = Some(id);
        }
        id
    }

    /// Commits a session's transaction; its rows become visible at one SCN.
    pub fn commit(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let user = session.user.clone().unwrap_or_default();
        let Some(id) = session.txn.take() else {
            return;
        };
        let Some(transaction) = self.transactions.open.remove(&id) else {
            return;
        };
        if transaction.changes.is_empty() {
            return;
        }
        let commit_scn = self.next_scn();
        for change in &transaction.changes {
            let row = &mut self.tables[change.table].rows[change.row];
            // Only the last change of a row in the transaction is still pending.
            if let Some((_, version)) = row.pending.take() {
                row.versions.push((commit_scn, version));
            }
        }
        let session = self.sessions.get(&key);
        self.observed.commit(&user, commit_scn, session);
        self.transactions.redo.push(Committed {
            id,
            commit_scn,
            at: clock::now(),
            user,
            changes: transaction.changes,
        });
    }

    /// Undoes a session's changes back to a mark; all of them ends the
    /// transaction.
    pub fn rollback_to(&mut self, key: SessionKey, mark: Option<usize>) {
        let Some(id) = self.session(key).and_then(|session| session.txn) else {
            return;
        };
        let Some(transaction) = self.transactions.open.get_mut(&id) else {
            return;
        };
        let undone = transaction.changes.split_off(mark.unwrap_or(0));
        transaction
            .savepoints
            .retain(|(_, at)| *at <= mark.unwrap_or(0));
        for change in undone.into_iter().rev() {
            let row = &mut self.tables[change.table].rows[change.row];
            row.pending = change.pending_before.map(|version| (id, version));
        }
        if mark.is_none() {
            self.forget_jobs_of(id);
            self.transactions.open.remove(&id);
            if let Some(session) = self.sessions.get_mut(&key) {
                session.txn = None;
            }
        }
    }

    pub fn savepoint(&mut self, key: SessionKey, name: &str) {
        let id = self.transaction(key);
        if let Some(transaction) = self.transactions.open.get_mut(&id) {
            transaction.savepoints.retain(|(other, _)| other != name);
            transaction
                .savepoints
                .push((name.to_owned(), transaction.changes.len()));
        }
    }

    /// Undoes the changes since a savepoint; ORA-01086 where it is not set.
    pub fn rollback_to_savepoint(&mut self, key: SessionKey, name: &str) -> Result<(), OraError> {
        let mark = self
            .session(key)
            .and_then(|session| session.txn)
            .and_then(|id| self.transactions.open.get(&id))
            .and_then(|txn| txn.savepoints.iter().find(|(other, _)| other == name))
            .map(|(_, mark)| *mark);
        let Some(mark) = mark else {
            let text =
                format!("savepoint '{name}' never established in this session or is invalid");
            return Err(ora(1086, text));
        };
        self.rollback_to(key, Some(mark));
        Ok(())
    }

    pub fn prepared(&mut self, text: &str) -> Result<Arc<prepare::Prepared>, OraError> {
        self.cache.get(text)
    }

    /// Writes a line to the alert log.
    pub fn alert(&mut self, line: impl Into<String>) {
        self.alerts.push(line.into());
    }
}
