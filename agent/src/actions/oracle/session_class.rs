//! Classifies sessions: the fence counts those that could write on behalf of an
//! application.
//!
//! Not counted, and never killed: background processes (TYPE other than USER);
//! SYS and the other administrative users, as which RMAN, Data Guard and
//! Clusterware work; sessions of Lockstep; and those that the plan exempts, by
//! user *and* machine. A session without a user name has not finished logging
//! in and can't write yet. A killed session that has been terminated isn't
//! counted either, although its row stays until its client uses it, which an
//! idle pool may never do.

use crate::host::oracle::{MODULE, OracleError, Session};
use lockstep_plan::catalogue::ExemptSessions;
use oracle::{Row, RowValue};
use std::fmt;

/// Users of administrative connections (Oracle Database Security Guide,
/// "Administrative Privileges"). SYSOPER is shown as PUBLIC, as which no other
/// login is possible; redo transport may use it.
const ADMINISTRATIVE: [&str; 6] = ["SYS", "SYSBACKUP", "SYSDG", "SYSKM", "SYSRAC", "PUBLIC"];

/// Prefix of the program of Recovery Manager, whatever its user.
const RMAN: &str = "rman@";

/// User sessions on every instance; background processes have another TYPE.
///
/// The last column is 1 for a killed session that has been terminated: its
/// client gets ORA-00028 at its next call, and the row is removed only then. A
/// server other than PSEUDO means that it is only marked for kill, because it is
/// in a call or rolls back (Database Administrator's Guide, "Terminating
/// Sessions"). TADDR is the address of its transaction (Database Reference,
/// V$SESSION).
const SESSIONS: &str = "SELECT INST_ID, SID, SERIAL#, USERNAME, MACHINE, PROGRAM, MODULE, STATUS, \
     TYPE, SERVICE_NAME, CASE WHEN STATUS = 'KILLED' AND SERVER = 'PSEUDO' AND TADDR IS NULL \
     THEN 1 ELSE 0 END FROM GV$SESSION WHERE TYPE = 'USER' ORDER BY INST_ID, SID";

/// A session as most of the columns of [`SESSIONS`] show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DbSession {
    pub inst_id: i64,
    pub sid: i64,
    /// SERIAL#, which distinguishes it from later sessions with the same SID.
    pub serial: i64,
    /// `None` during login and for background processes.
    pub username: Option<String>,
    pub machine: Option<String>,
    pub program: Option<String>,
    /// The name that the client has set for itself.
    pub module: Option<String>,
    /// ACTIVE, INACTIVE, KILLED and others.
    pub status: Option<String>,
    pub kind: Option<String>,
    /// The service to which it connected.
    pub service: Option<String>,
}

impl RowValue for DbSession {
    fn get(row: &Row) -> oracle::Result<Self> {
        Ok(Self {
            inst_id: row.get(0)?,
            sid: row.get(1)?,
            serial: row.get(2)?,
            username: row.get(3)?,
            machine: row.get(4)?,
            program: row.get(5)?,
            module: row.get(6)?,
            status: row.get(7)?,
            kind: row.get(8)?,
            service: row.get(9)?,
        })
    }
}

impl fmt::Display for DbSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        write!(
            f,
            "{},{},@{} of {} from {} ({})",
            self.sid,
            self.serial,
            self.inst_id,
            text(&self.username),
            text(&self.machine),
            text(&self.program)
        )
    }
}

/// How the fence treats a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionClass {
    /// It could write for an application.
    Application,
    /// Exempted by the plan: DMS.
    Exempt,
    Lockstep,
    /// Background process, administrative, or not logged in yet.
    Internal,
}

impl DbSession {
    pub fn role(&self, exempt: &ExemptSessions) -> SessionClass {
        if self.kind.as_deref() != Some("USER") {
            return SessionClass::Internal;
        }
        let Some(user) = self.username.as_deref() else {
            return SessionClass::Internal;
        };
        if ADMINISTRATIVE.contains(&user) {
            let own = self.module.as_deref() == Some(MODULE);
            return if own {
                SessionClass::Lockstep
            } else {
                SessionClass::Internal
            };
        }
        let rman = |program: &str| program.to_lowercase().starts_with(RMAN);
        if self.program.as_deref().is_some_and(rman) {
            return SessionClass::Internal;
        }
        if is_exempt(user, self.machine.as_deref().unwrap_or(""), exempt) {
            return SessionClass::Exempt;
        }
        SessionClass::Application
    }

    /// Killed, although its client learns that only at its next call.
    pub fn is_killed(&self) -> bool {
        self.status.as_deref() == Some("KILLED")
    }
}

fn is_exempt(user: &str, machine: &str, exempt: &ExemptSessions) -> bool {
    is_exempt_user(user, exempt)
        && (exempt.machines.is_empty()
            || exempt
                .machines
                .iter()
                .any(|named| same_machine(named, machine)))
}

/// Whether the plan exempts sessions of that user, at least from some machine.
pub fn is_exempt_user(user: &str, exempt: &ExemptSessions) -> bool {
    exempt
        .users
        .iter()
        .any(|named| named.eq_ignore_ascii_case(user))
}

/// V$SESSION shows a host name with or without its domain. A replication
/// instance of AWS has a host name derived from its address: `ip-10-0-0-7`.
fn same_machine(named: &str, machine: &str) -> bool {
    let first = |name: &str| name.split('.').next().unwrap_or("").to_lowercase();
    if named.parse::<std::net::Ipv4Addr>().is_ok() {
        let by_address = format!("ip-{}", named.replace('.', "-"));
        return machine == named || first(machine) == by_address;
    }
    named.eq_ignore_ascii_case(machine)
        || (!(named.contains('.') && machine.contains('.')) && first(named) == first(machine))
}

/// A row of [`SESSIONS`].
struct Listed {
    session: DbSession,
    terminated: bool,
}

impl RowValue for Listed {
    fn get(row: &Row) -> oracle::Result<Self> {
        let terminated: i64 = row.get(10)?;
        Ok(Self {
            session: <DbSession as RowValue>::get(row)?,
            terminated: terminated == 1,
        })
    }
}

/// User sessions of all instances.
#[derive(Default)]
pub struct Sessions {
    pub present: Vec<DbSession>,
    /// Killed, and able to do nothing more, but still listed.
    pub terminated: Vec<DbSession>,
}

/// All user sessions.
///
/// # Errors
/// If the query fails.
pub async fn all(session: &Session) -> Result<Sessions, OracleError> {
    let listed: Vec<Listed> = session.rows(SESSIONS, &[]).await?;
    let mut sessions = Sessions::default();
    for one in listed {
        if one.terminated {
            sessions.terminated.push(one.session);
        } else {
            sessions.present.push(one.session);
        }
    }
    Ok(sessions)
}

/// The sessions with [`SessionClass::Application`].
///
/// # Errors
/// If the query fails.
pub async fn counting(session: &Session, exempt: &ExemptSessions) -> Result<Sessions, OracleError> {
    let mut seen = all(session).await?;
    let counts = |seen: &DbSession| seen.role(exempt) == SessionClass::Application;
    seen.present.retain(counts);
    seen.terminated.retain(counts);
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(user: Option<&str>, machine: &str, program: &str, module: &str) -> DbSession {
        DbSession {
            username: user.map(str::to_owned),
            machine: Some(machine.to_owned()),
            program: Some(program.to_owned()),
            module: Some(module.to_owned()),
            kind: Some("USER".to_owned()),
            ..DbSession::default()
        }
    }

    fn dms() -> ExemptSessions {
        ExemptSessions {
            users: vec!["DMS_USER".to_owned()],
            machines: vec!["10.0.0.7".to_owned(), "dms-1".to_owned()],
        }
    }

    #[test]
    fn sessions_are_told_apart() {
        for (session, role) in [
            (
                seen(Some("SHOP"), "app-1", "orders", ""),
                SessionClass::Application,
            ),
            (
                seen(Some("SHOP"), "app-1", "orders", MODULE),
                SessionClass::Application,
            ),
            (
                seen(Some("SYS"), "ora-1", "agent", MODULE),
                SessionClass::Lockstep,
            ),
            (
                seen(Some("SYS"), "ora-1", "sqlplus", ""),
                SessionClass::Internal,
            ),
            (
                seen(Some("PUBLIC"), "ora-2", "oracle@ora-2 (TNS V1-V3)", ""),
                SessionClass::Internal,
            ),
            (
                seen(Some("BACKUP"), "ora-1", "rman@ora-1 (TNS V1-V3)", ""),
                SessionClass::Internal,
            ),
            (seen(None, "app-1", "orders", ""), SessionClass::Internal),
            (
                seen(Some("DMS_USER"), "ip-10-0-0-7.ec2.internal", "dms", ""),
                SessionClass::Exempt,
            ),
            (
                seen(Some("DMS_USER"), "DMS-1.example.com", "dms", ""),
                SessionClass::Exempt,
            ),
            (
                seen(Some("DMS_USER"), "app-1", "sqlplus", ""),
                SessionClass::Application,
            ),
        ] {
            assert_eq!(session.role(&dms()), role, "{session}");
        }
        let background = DbSession {
            kind: Some("BACKGROUND".to_owned()),
            ..seen(Some("SHOP"), "ora-1", "oracle@ora-1 (PMON)", "")
        };
        assert_eq!(background.role(&dms()), SessionClass::Internal);
    }

    #[test]
    fn without_machines_the_user_is_enough() {
        let exempt = ExemptSessions {
            users: vec!["dms_user".to_owned()],
            machines: vec![],
        };
        assert_eq!(
            seen(Some("DMS_USER"), "any", "dms", "").role(&exempt),
            SessionClass::Exempt
        );
    }

    #[test]
    fn two_domains_are_two_machines() {
        assert!(!same_machine("dms-1.a.example", "dms-1.b.example"));
        assert!(same_machine("dms-1", "dms-1.b.example"));
    }
}
