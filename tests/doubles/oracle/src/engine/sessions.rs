//! Sessions as the database knows them.

use super::datum::Datum;
use super::format::Nls;
use super::txn::TxnId;
use crate::api::{Frontend, Login};
use jiff::civil;
use std::collections::HashMap;

/// Instance and SID: what names a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Instance number, from 1.
    pub inst: u32,
    /// SID within the instance.
    pub sid: u32,
}

/// Whether and how a session was ended by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Alive,
    /// Marked for kill: its client has not been told yet (ORA-00028).
    Killed,
}

#[derive(Debug)]
pub struct SessionState {
    pub serial: u32,
    pub audsid: u32,
    /// V$SESSION.USERNAME; `None` for background processes.
    pub user: Option<String>,
    /// Whether it came AS SYSDBA.
    pub sysdba: bool,
    pub schema: String,
    pub service: String,
    /// The listener it came through; `None` for bequeath and background.
    pub listener: Option<String>,
    pub machine: String,
    pub program: String,
    pub os_user: String,
    pub process: String,
    pub address: String,
    pub module: Option<String>,
    pub action: Option<String>,
    pub client_info: Option<String>,
    pub client_identifier: Option<String>,
    /// When it logged on.
    pub logon_time: civil::DateTime,
    /// When its last call began or ended.
    pub last_call: civil::DateTime,
    /// The text of the running or last statement.
    pub sql: Option<String>,
    /// Whether a call is running.
    pub in_call: bool,
    /// The running call was cancelled.
    pub cancelled: bool,
    /// Whether it was killed.
    pub life: Life,
    pub txn: Option<TxnId>,
    /// The transaction whose lock it waits for.
    pub waits_for: Option<TxnId>,
    /// CURRVAL of the sequences it used.
    pub currvals: HashMap<(String, String), Datum>,
    pub nls: Nls,
    /// The owner of the trigger that runs, in whose name it acts.
    pub acting: Option<String>,
    /// The job it runs.
    pub job: Option<(String, String)>,
    /// The process's number, for V$PROCESS.
    pub pid: u32,
}

impl SessionState {
    /// The session of a login.
    pub fn of_login(login: &Login, user: &str, service: String) -> Self {
        let now = super::clock::now();
        Self {
            serial: 0,
            audsid: 0,
            user: Some(user.to_owned()),
            sysdba: login.sysdba,
            schema: user.to_owned(),
            service,
            listener: match &login.frontend {
                Frontend::Bequeath => None,
                Frontend::Listener(name) => Some(name.clone()),
            },
            machine: login.machine.clone(),
            program: login.program.clone(),
            os_user: login.os_user.clone(),
            process: login.process.clone(),
            address: login.address.clone(),
            module: Some(login.program.clone()).filter(|program| !program.is_empty()),
            action: None,
            client_info: None,
            client_identifier: None,
            logon_time: now,
            last_call: now,
            sql: None,
            in_call: false,
            cancelled: false,
            life: Life::Alive,
            txn: None,
            waits_for: None,
            currvals: HashMap::new(),
            nls: Nls::default(),
            acting: None,
            job: None,
            pid: 0,
        }
    }

    /// A session of the server itself: a background process or a job slave.
    pub fn of_server(host: &str, process: &str, user: Option<&str>) -> Self {
        let login = Login {
            credentials: crate::api::Credentials::OperatingSystem,
            sysdba: true,
            service: String::new(),
            frontend: Frontend::Bequeath,
            machine: host.to_owned(),
            program: format!("oracle@{host} ({process})"),
            os_user: "oracle".to_owned(),
            process: String::new(),
            address: String::new(),
        };
        let service = if user.is_some() {
            "SYS$USERS"
        } else {
            "SYS$BACKGROUND"
        };
        let mut session = Self::of_login(&login, user.unwrap_or("SYS"), service.to_owned());
        session.user = user.map(str::to_owned);
        session.sysdba = user.is_none();
        session.module = None;
        session
    }

    /// Whether it belongs to the server and not to a user.
    pub fn is_background(&self) -> bool {
        self.user.is_none()
    }
}
