//! Who may do what: SYS everything, others their own and what was granted.
//!
//! Roles are DBA, CONNECT, RESOURCE and SELECT_CATALOG_ROLE with their usual
//! meaning, and those of CREATE ROLE with what is granted to them. A role's
//! privileges hold in every session of its holder: SET ROLE is not there.

use super::errors::{Outcome, no_privilege, no_table, ora};
use super::exec::Exec;
use super::sessions::SessionKey;
use super::state::{Role, State};
use crate::api::OraError;
use std::collections::{BTreeMap, BTreeSet};

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

/// Roles that are there from the beginning.
const OWN_ROLES: [&str; 5] = [
    "CONNECT",
    "DBA",
    "EXECUTE_CATALOG_ROLE",
    "RESOURCE",
    "SELECT_CATALOG_ROLE",
];

/// Objects on whose kind a system privilege `CREATE ANY x` and the like exist.
const ANY: [(&str, &str); 16] = [
    ("CLUSTER", "CREATE ALTER DROP"),
    ("CONTEXT", "CREATE DROP"),
    ("DIMENSION", "CREATE ALTER DROP"),
    ("DIRECTORY", "CREATE DROP"),
    ("INDEX", "CREATE ALTER DROP"),
    ("MATERIALIZED VIEW", "CREATE ALTER DROP"),
    ("OPERATOR", "CREATE ALTER DROP EXECUTE"),
    ("PROCEDURE", "CREATE ALTER DROP EXECUTE DEBUG"),
    ("ROLE", "ALTER DROP GRANT"),
    ("SEQUENCE", "CREATE ALTER DROP SELECT"),
    ("SYNONYM", "CREATE DROP"),
    (
        "TABLE",
        "CREATE ALTER DROP SELECT READ INSERT UPDATE DELETE LOCK FLASHBACK BACKUP COMMENT",
    ),
    ("TRIGGER", "CREATE ALTER DROP"),
    ("TYPE", "CREATE ALTER DROP EXECUTE UNDER"),
    ("VIEW", "CREATE DROP UNDER MERGE"),
    ("JOB", "CREATE"),
];

/// The other system privileges (SQL Language Reference, GRANT, table 18-1);
/// those for features that a cutover does not meet are left out.
const SYSTEM: [&str; 58] = [
    "ADMINISTER ANY SQL TUNING SET",
    "ADMINISTER DATABASE TRIGGER",
    "ADMINISTER RESOURCE MANAGER",
    "ADMINISTER SQL MANAGEMENT OBJECT",
    "ADVISOR",
    "ALTER DATABASE",
    "ALTER PROFILE",
    "ALTER RESOURCE COST",
    "ALTER ROLLBACK SEGMENT",
    "ALTER SESSION",
    "ALTER SYSTEM",
    "ALTER TABLESPACE",
    "ALTER USER",
    "ANALYZE ANY",
    "ANALYZE ANY DICTIONARY",
    "AUDIT ANY",
    "AUDIT SYSTEM",
    "BECOME USER",
    "CHANGE NOTIFICATION",
    "CREATE CLUSTER",
    "CREATE DATABASE LINK",
    "CREATE EXTERNAL JOB",
    "CREATE JOB",
    "CREATE LIBRARY",
    "CREATE MATERIALIZED VIEW",
    "CREATE PROCEDURE",
    "CREATE PROFILE",
    "CREATE PUBLIC DATABASE LINK",
    "CREATE PUBLIC SYNONYM",
    "CREATE ROLE",
    "CREATE SEQUENCE",
    "CREATE SESSION",
    "CREATE SYNONYM",
    "CREATE TABLE",
    "CREATE TABLESPACE",
    "CREATE TRIGGER",
    "CREATE TYPE",
    "CREATE USER",
    "CREATE VIEW",
    "DEBUG CONNECT SESSION",
    "DROP PROFILE",
    "DROP PUBLIC SYNONYM",
    "DROP TABLESPACE",
    "DROP USER",
    "EXEMPT ACCESS POLICY",
    "FORCE ANY TRANSACTION",
    "FORCE TRANSACTION",
    "GRANT ANY OBJECT PRIVILEGE",
    "GRANT ANY PRIVILEGE",
    "LOGMINING",
    "MANAGE SCHEDULER",
    "MANAGE TABLESPACE",
    "ON COMMIT REFRESH",
    "RESTRICTED SESSION",
    "RESUMABLE",
    "SELECT ANY DICTIONARY",
    "SELECT ANY TRANSACTION",
    "UNLIMITED TABLESPACE",
];

/// Granted by name only, never by ALL PRIVILEGES.
const ADMINISTRATIVE: [&str; 6] = ["SYSBACKUP", "SYSDBA", "SYSDG", "SYSKM", "SYSOPER", "SYSRAC"];

const OBJECT: [&str; 13] = [
    "ALL",
    "ALTER",
    "DEBUG",
    "DELETE",
    "EXECUTE",
    "FLASHBACK",
    "INDEX",
    "INSERT",
    "ON COMMIT REFRESH",
    "READ",
    "REFERENCES",
    "SELECT",
    "UPDATE",
];

/// What ALL PRIVILEGES means.
pub fn all_system() -> impl Iterator<Item = String> {
    let any = ANY.iter().flat_map(|(kind, verbs)| {
        verbs
            .split(' ')
            .map(move |verb| format!("{verb} ANY {kind}"))
    });
    any.chain(SYSTEM.iter().map(|name| (*name).to_owned()))
}

/// Whether there is such a system privilege.
pub fn is_system(name: &str) -> bool {
    ADMINISTRATIVE.contains(&name) || all_system().any(|known| known == name)
}

/// Whether there is such a privilege on objects.
pub fn is_on_objects(name: &str) -> bool {
    OBJECT.contains(&name)
}

/// The roles of a new database.
pub fn own_roles() -> BTreeMap<String, Role> {
    let role = |name: &&str| {
        let maintained = true;
        let role = Role {
            maintained,
            ..Role::default()
        };
        ((*name).to_owned(), role)
    };
    OWN_ROLES.iter().map(role).collect()
}

impl State {
    /// The user or role, and every role that it holds, directly or through
    /// another one.
    fn with_roles(&self, grantee: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut next = vec![grantee.to_owned()];
        while let Some(name) = next.pop() {
            let grants = self.grants(&name);
            let roles = grants.into_iter().flatten();
            next.extend(roles.filter(|one| self.roles.contains_key(*one)).cloned());
            all.insert(name);
        }
        all
    }

    /// What was granted to a user or role itself.
    pub fn grants(&self, grantee: &str) -> Option<&BTreeSet<String>> {
        let user = self.users.get(grantee).map(|user| &user.grants);
        user.or_else(|| self.roles.get(grantee).map(|role| &role.grants))
    }

    /// Whether a user or role has a system privilege or role, directly or
    /// through another role.
    pub fn holds(&self, grantee: &str, privilege: &str) -> bool {
        let direct = self
            .grants(grantee)
            .is_some_and(|all| all.contains(privilege));
        direct
            || self.with_roles(grantee).iter().any(|holder| {
                self.grants(holder)
                    .is_some_and(|all| all.contains(privilege))
                    || ROLES
                        .iter()
                        .any(|(role, carries)| role == holder && carries.contains(&privilege))
            })
    }

    /// What a user may do with an object, by grants to it and its roles.
    fn on_object(&self, user: &str, object: &(String, String)) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for holder in self.with_roles(user) {
            let of_user = self.users.get(&holder).map(|user| &user.objects);
            let objects = of_user.or_else(|| self.roles.get(&holder).map(|role| &role.objects));
            all.extend(
                objects
                    .and_then(|o| o.get(object))
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        all
    }

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
        user == "SYS" || self.holds(&user, "DBA")
    }

    /// Whether a session has a system privilege or role.
    pub fn has(&self, key: SessionKey, privilege: &str) -> bool {
        if self.is_dba(key) {
            return true;
        }
        self.holds(&self.acting_user(key), privilege)
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
    let granted = state.on_object(&user, &object);
    if granted.contains(privilege) || granted.contains("ALL") {
        Ok(())
    } else if granted.is_empty() {
        Err(no_table().into())
    } else {
        Err(no_privilege().into())
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
    let granted = state.on_object(&state.acting_user(key), &("SYS".to_owned(), name));
    !granted.is_empty()
}

impl Exec<'_> {
    /// USER: the session's user.
    pub fn user(&self) -> String {
        self.st
            .session(self.key)
            .and_then(|session| session.user.clone())
            .unwrap_or_default()
    }

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
