//! Who may do what: SYS everything, others their own and what was granted.
//!
//! Roles are DBA, CONNECT, RESOURCE and SELECT_CATALOG_ROLE with their usual
//! meaning; other roles can be granted and are recorded, but carry nothing.

use super::errors::{Outcome, no_privilege, no_table, ora};
use super::exec::Exec;
use super::sessions::SessionKey;
use super::state::State;
use crate::api::OraError;

/// What CONNECT and RESOURCE carry.
const ROLES: [(&str, &[&str]); 2] = [
    ("CONNECT", &["CREATE SESSION"]),
    (
        "RESOURCE",
        &[
            "CREATE TABLE",
            "CREATE SEQUENCE",
            "CREATE TRIGGER",
            "CREATE JOB",
        ],
    ),
];

impl State {
    /// In whose name a session acts: its user, or a running trigger's owner.
    pub fn acting_user(&self, key: SessionKey) -> String {
        let Some(session) = self.session(key) else {
            return String::new();
        };
        let acting = session.acting.clone().or_else(|| session.user.clone());
        acting.unwrap_or_else(|| "SYS".to_owned())
    }

    /// Whether a session may do everything.
    pub fn is_dba(&self, key: SessionKey) -> bool {
        let user = self.acting_user(key);
        user == "SYS"
            || self
                .users
                .get(&user)
                .is_some_and(|user| user.grants.contains("DBA"))
    }

    /// Whether a session has a system privilege or role.
    pub fn has(&self, key: SessionKey, privilege: &str) -> bool {
        if self.is_dba(key) {
            return true;
        }
        let Some(user) = self.users.get(&self.acting_user(key)) else {
            return false;
        };
        user.grants.contains(privilege)
            || ROLES
                .iter()
                .any(|(role, carries)| user.grants.contains(*role) && carries.contains(&privilege))
    }

    /// ORA-01031 unless a session has a system privilege.
    pub fn require(&self, key: SessionKey, privilege: &str) -> Result<(), OraError> {
        if self.has(key, privilege) {
            Ok(())
        } else {
            Err(no_privilege())
        }
    }
}

/// Whether a session may use an object; ORA-00942 where it may not even know
/// of it, ORA-01031 where it lacks this privilege.
pub fn may_use(
    state: &State,
    key: SessionKey,
    owner: &str,
    name: &str,
    privilege: &str,
    any: &str,
) -> Outcome<()> {
    let user = state.acting_user(key);
    if user == owner || state.has(key, any) {
        return Ok(());
    }
    let object = (owner.to_owned(), name.to_owned());
    match state
        .users
        .get(&user)
        .and_then(|user| user.objects.get(&object))
    {
        Some(granted) if granted.contains(privilege) || granted.contains("ALL") => Ok(()),
        Some(granted) if !granted.is_empty() => Err(no_privilege().into()),
        _ => Err(no_table().into()),
    }
}

/// The same for a table by its number.
pub fn may_use_table(state: &State, key: SessionKey, table: usize, privilege: &str) -> Outcome<()> {
    let table = &state.tables[table];
    // The owner and SYS are by far the most frequent: no names are built for them.
    if state
        .session(key)
        .is_some_and(|s| s.acting.is_none() && s.user.as_deref() == Some(&table.owner))
    {
        return Ok(());
    }
    may_use(
        state,
        key,
        &table.owner,
        &table.name,
        privilege,
        &format!("{privilege} ANY TABLE"),
    )
}

/// Whether a session sees the dictionary and the V$ views.
pub fn may_see_view(state: &State, key: SessionKey, view: &str) -> bool {
    if ["SELECT ANY DICTIONARY", "SELECT_CATALOG_ROLE"]
        .iter()
        .any(|p| state.has(key, p))
    {
        return true;
    }
    // V$SESSION is granted as SYS.V_$SESSION.
    let real = view
        .strip_prefix("V$")
        .map(|rest| format!("V_${rest}"))
        .or_else(|| view.strip_prefix("GV$").map(|rest| format!("GV_${rest}")));
    let name = real.unwrap_or_else(|| view.to_owned());
    state
        .users
        .get(&state.acting_user(key))
        .is_some_and(|user| user.objects.contains_key(&("SYS".to_owned(), name)))
}

impl Exec<'_> {
    /// USER: the session's user.
    pub fn user(&self) -> String {
        self.st
            .session(self.key)
            .and_then(|session| session.user.clone())
            .unwrap_or_default()
    }

    /// SYS_CONTEXT('USERENV', …).
    pub fn sys_context(&self, namespace: &str, parameter: &str) -> Outcome<super::datum::Datum> {
        use super::datum::Datum;
        if namespace != "USERENV" {
            return Ok(Datum::Null);
        }
        let Some(session) = self.st.session(self.key) else {
            return Ok(Datum::Null);
        };
        let instance = self.st.instance(self.key.inst);
        Ok(match parameter {
            "SID" => Datum::int(self.key.sid),
            "SESSIONID" => Datum::int(session.audsid),
            "INSTANCE" => Datum::int(self.key.inst),
            "INSTANCE_NAME" => Datum::text(instance.name.as_str()),
            "SERVER_HOST" => Datum::text(instance.host.as_str()),
            "SESSION_USER" | "CURRENT_USER" => Datum::text(self.user()),
            "CURRENT_SCHEMA" => Datum::text(session.schema.as_str()),
            "DB_NAME" | "DB_UNIQUE_NAME" | "CON_NAME" => Datum::text(self.st.database.as_str()),
            "CON_ID" => Datum::int(0),
            "SERVICE_NAME" => Datum::text(session.service.as_str()),
            "HOST" => Datum::text(session.machine.as_str()),
            "OS_USER" => Datum::text(session.os_user.as_str()),
            "IP_ADDRESS" => Datum::text(session.address.as_str()),
            "MODULE" => Datum::opt(session.module.as_deref()),
            "ACTION" => Datum::opt(session.action.as_deref()),
            "CLIENT_INFO" => Datum::opt(session.client_info.as_deref()),
            "CLIENT_IDENTIFIER" => Datum::opt(session.client_identifier.as_deref()),
            "ISDBA" => Datum::text(if session.sysdba { "TRUE" } else { "FALSE" }),
            "DATABASE_ROLE" => Datum::text("PRIMARY"),
            _ => return Err(ora(2003, "invalid USERENV parameter").into()),
        })
    }
}
