//! `oracle.ready`: checks the prerequisites of a cutover in Oracle, and reports
//! all obstacles at once.
//!
//! Output `clients`: connected clients by machine, program, user and service,
//! without DMS and administrative sessions.

use super::clients::{self, Clients};
use super::dms_listener::DmsListener;
use super::fence::{self, InDoubt};
use super::login_times;
use super::names::Qualified;
use super::required_permissions;
use super::session_class::{self, DbSession, SessionClass};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::command;
use crate::host::oracle::{Bind, Session};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::OracleReady;
use serde_json::Value;
use std::collections::BTreeMap;

/// The database as a whole (Oracle Database Reference, V$DATABASE).
const DATABASE: &str = "SELECT LOG_MODE, OPEN_MODE, DATABASE_ROLE, FS_FAILOVER_STATUS, \
     SUPPLEMENTAL_LOG_DATA_MIN, SUPPLEMENTAL_LOG_DATA_PK, SUPPLEMENTAL_LOG_DATA_ALL \
     FROM V$DATABASE";
/// Since Oracle 12.1; before it there are no container databases.
const CONTAINER: &str = "SELECT CDB FROM V$DATABASE";
const TABLE_COLUMNS: &str =
    "SELECT COLUMN_NAME FROM DBA_TAB_COLUMNS WHERE OWNER = :1 AND TABLE_NAME = :2";
const LOG_GROUPS: &str =
    "SELECT LOG_GROUP_TYPE FROM DBA_LOG_GROUPS WHERE OWNER = :1 AND TABLE_NAME = :2";
/// The server parameter file of each instance; none if it was started with a
/// text file.
const FILES: &str = "SELECT i.INSTANCE_NAME, p.VALUE FROM GV$PARAMETER p \
     JOIN GV$INSTANCE i ON i.INST_ID = p.INST_ID WHERE p.NAME = 'spfile' ORDER BY p.INST_ID";
/// Age in seconds of each transaction, with its session. Both times are from
/// the database's clock.
const AGES: &str = "SELECT t.INST_ID, s.SID, s.SERIAL#, s.USERNAME, s.MACHINE, s.PROGRAM, \
     s.MODULE, s.STATUS, s.TYPE, s.SERVICE_NAME, ROUND((SYSDATE - t.START_DATE) * 86400) \
     FROM GV$TRANSACTION t JOIN GV$SESSION s ON s.INST_ID = t.INST_ID AND s.SADDR = t.SES_ADDR";

/// Columns of the marker table.
const MARKER: &[&str] = &["RUN_ID", "TASK_ID", "NONCE", "SCN", "WRITTEN_AT"];
/// Columns of the canary table that PostgreSQL writes and `oracle.canary.await`
/// reads.
const CANARY: &[&str] = &["NONCE"];

/// Log groups that log the key of a marker row, so that it can be replicated.
const LOGGED: [&str; 2] = ["ALL COLUMN LOGGING", "PRIMARY KEY LOGGING"];

pub struct Ready;

#[derive(Default)]
struct Report {
    obstacles: Vec<String>,
    remarks: Vec<String>,
    clients: Clients,
}

struct Age {
    session: DbSession,
    seconds: i64,
}

impl oracle::RowValue for Age {
    fn get(row: &oracle::Row) -> oracle::Result<Self> {
        Ok(Self {
            session: <DbSession as oracle::RowValue>::get(row)?,
            seconds: row.get(10)?,
        })
    }
}

impl Report {
    async fn make(cx: &Context, params: &OracleReady) -> Result<Self, ActionError> {
        let session = Session::anew(cx, &params.resource).await?;
        let mut report = Self::default();
        // After a new login, which is when Oracle's client changes SIGCHLD.
        if let Err(e) = command::prove_exit_statuses(cx).await {
            report.obstacles.push(format!(
                "the exit status of programs that this agent runs is lost ({e}), so listeners \
                 can't be controlled; set BEQUEATH_DETACH=YES in the sqlnet.ora that the agent's \
                 sessions read, and restart the agent"
            ));
        }
        let all_logged = report.database(&session).await?;
        if params.durable {
            report.files(&session).await?;
        }
        report.marker(&session, params, all_logged).await?;
        if let Some(table) = &params.canary_table {
            report.table(&session, "canary", table, CANARY).await?;
        }
        let dms_listener = DmsListener::look(cx, &session, params).await?;
        report.obstacles.extend(dms_listener.obstacles);
        report.remarks.extend(dms_listener.remarks);
        report.transactions(&session, params).await?;
        report.remarks.extend(clients::links(&session).await?);
        report.sessions(&session, params).await?;
        let unseen = login_times::limits(&session).await?.into_iter();
        let remark = |limit| format!("the fence won't see every login: {limit}");
        report.remarks.extend(unseen.map(remark));
        Ok(report)
    }

    fn require(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.obstacles.push(otherwise.into());
        }
    }

    /// Returns whether the primary keys of all tables are logged.
    async fn database(&mut self, session: &Session) -> Result<bool, ActionError> {
        type Database = (
            String,
            String,
            String,
            Option<String>,
            String,
            String,
            String,
        );
        let (log_mode, open_mode, role, failover, minimal, keys, all): Database =
            session.row(DATABASE, &[]).await?;
        let container: String = match session.row(CONTAINER, &[]).await {
            Err(e) if e.ora() == Some(login_times::NO_COLUMN) => "NO".to_owned(),
            container => container?,
        };
        self.require(
            log_mode == "ARCHIVELOG",
            format!("the database is in {log_mode} mode; replication needs ARCHIVELOG"),
        );
        self.require(
            open_mode == "READ WRITE" && role == "PRIMARY",
            format!("the database is {open_mode} as {role}; run against the open primary"),
        );
        let failover = failover.unwrap_or_else(|| "DISABLED".to_owned());
        self.require(
            failover == "DISABLED",
            format!(
                "fast-start failover is {failover}: the observer may open a standby to \
                 applications while this database is closed; disable it for the cutover"
            ),
        );
        self.require(
            minimal != "NO",
            "the database has no minimal supplemental logging; \
             ALTER DATABASE ADD SUPPLEMENTAL LOG DATA",
        );
        self.require(
            container == "NO",
            "this is a container database; sessions of this version stay in its root and don't \
             see the tables of a pluggable database",
        );
        Ok(keys == "YES" || all == "YES")
    }

    /// `oracle.freeze.persist` writes to the file after the point of no return,
    /// when it is too late to discover that there is none.
    async fn files(&mut self, session: &Session) -> Result<(), ActionError> {
        let files: Vec<(String, Option<String>)> = session.rows(FILES, &[]).await?;
        for (instance, file) in files {
            self.require(
                file.is_some_and(|file| !file.is_empty()),
                format!(
                    "the instance {instance} runs without a server parameter file, so its jobs \
                     can't be kept off after a restart (ORA-32001); CREATE SPFILE FROM PFILE and \
                     restart the instance"
                ),
            );
        }
        Ok(())
    }

    async fn table(
        &mut self,
        session: &Session,
        what: &str,
        table: &str,
        columns: &[&str],
    ) -> Result<(), ActionError> {
        let name = Qualified::read(table)?;
        let there: Vec<String> = session.rows(TABLE_COLUMNS, &binds(&name)).await?;
        if there.is_empty() {
            self.obstacles
                .push(format!("the {what} table {table} doesn't exist; create it"));
            return Ok(());
        }
        let missing: Vec<&str> = columns
            .iter()
            .copied()
            .filter(|column| !there.iter().any(|found| found == column))
            .collect();
        self.require(
            missing.is_empty(),
            format!("the {what} table {table} lacks {}", missing.join(", ")),
        );
        Ok(())
    }

    async fn marker(
        &mut self,
        session: &Session,
        params: &OracleReady,
        all_logged: bool,
    ) -> Result<(), ActionError> {
        self.table(session, "marker", &params.marker_table, MARKER)
            .await?;
        let name = Qualified::read(&params.marker_table)?;
        let groups: Vec<Option<String>> = session.rows(LOG_GROUPS, &binds(&name)).await?;
        let logged = groups
            .iter()
            .flatten()
            .any(|group| LOGGED.contains(&group.as_str()));
        self.require(
            all_logged || logged,
            format!(
                "the marker table has no supplemental logging of its key; \
                 ALTER TABLE {} ADD SUPPLEMENTAL LOG DATA (PRIMARY KEY) COLUMNS",
                params.marker_table
            ),
        );
        Ok(())
    }

    async fn transactions(
        &mut self,
        session: &Session,
        params: &OracleReady,
    ) -> Result<(), ActionError> {
        for InDoubt { id, state } in fence::in_doubt(session).await? {
            self.obstacles.push(format!(
                "the distributed transaction {id} is in doubt ({state}); resolve it with \
                 COMMIT FORCE or ROLLBACK FORCE"
            ));
        }
        let bound = i64::try_from(params.oldest_transaction_secs).unwrap_or(i64::MAX);
        let ages: Vec<Age> = session.rows(AGES, &[]).await?;
        for Age { session, seconds } in ages {
            // Oracle's internal transactions end by themselves.
            let user = session.kind.as_deref() == Some("USER");
            self.require(
                !user || seconds <= bound,
                format!(
                    "a transaction has been open for {seconds} s in the session {session}; a \
                     replicator has to read from its start on; let it end"
                ),
            );
        }
        Ok(())
    }

    async fn sessions(
        &mut self,
        session: &Session,
        params: &OracleReady,
    ) -> Result<(), ActionError> {
        let mut unrestricted: BTreeMap<(String, String), u64> = BTreeMap::new();
        for seen in session_class::all(session).await?.present {
            match seen.role(&params.exempt) {
                SessionClass::Exempt => {
                    let text = |value: &Option<String>| value.clone().unwrap_or_default();
                    let from = (text(&seen.username), text(&seen.machine));
                    *unrestricted.entry(from).or_default() += 1;
                    self.remarks.push(format!("a session of DMS: {seen}"));
                }
                SessionClass::Application => {
                    let user = seen.username.clone().unwrap_or_default();
                    self.require(
                        !session_class::is_exempt_user(&user, &params.exempt),
                        format!(
                            "the session {seen} has a user of DMS but not its machine, and would \
                             be killed; name its machine in the plan if it is DMS"
                        ),
                    );
                    self.clients.add(&seen);
                }
                SessionClass::Lockstep | SessionClass::Internal => {}
            }
        }
        if params.exempt.machines.is_empty() {
            self.remarks.extend(unrestricted.iter().map(from_anywhere));
        }
        if unrestricted.is_empty() && !params.exempt.users.is_empty() {
            self.remarks.push(format!(
                "no session of DMS ({}) is there now",
                params.exempt.users.join(", ")
            ));
        }
        self.remarks
            .extend(self.clients.sentences(&params.accounts));
        Ok(())
    }

    fn verdict(&self) -> Result<(), ActionError> {
        if self.obstacles.is_empty() {
            return Ok(());
        }
        Err(ActionError::new(
            Code::LS2223,
            format!("Oracle is not ready: {}", self.obstacles.join("; ")),
        )
        .state_left("nothing was changed")
        .remedy("clear away what is named, then check again"))
    }
}

/// If the plan names no machine, any client with DMS's password is treated as
/// DMS.
fn from_anywhere(((user, machine), count): (&(String, String), &u64)) -> String {
    format!(
        "{user} is logged in from {machine} ({count} sessions) and exempt, because the plan names no \
         machine of DMS; name it in oracle.dms_machines if it is one, and find out who it is if not"
    )
}

fn binds(name: &Qualified) -> [Bind; 2] {
    [name.owner.as_str().into(), name.name.as_str().into()]
}

#[async_trait]
impl Action for Ready {
    type Params = OracleReady;

    fn required_permissions(&self, params: &OracleReady) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleReady) -> Result<Probe, ActionError> {
        Report::make(cx, params).await?.verdict()?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &OracleReady,
    ) -> Result<Description, ActionError> {
        let report = Report::make(cx, params).await?;
        Ok(Description {
            would_do: vec!["query V$DATABASE, GV$SESSION, GV$TRANSACTION and the tables".into()],
            obstacles: report.obstacles,
            remarks: report.remarks,
            ..Description::default()
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OracleReady,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let report = Report::make(cx, params).await?;
        report.verdict()?;
        for remark in &report.remarks {
            cx.note(remark.clone());
        }
        Ok(Outputs::from([(
            "clients".to_owned(),
            report.clients.json(),
        )]))
    }
}
