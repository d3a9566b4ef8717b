//! DBA_, ALL_ and USER_ views: users, tables, columns, keys, triggers,
//! sequences, privileges.
//!
//! `ALL_` shows what `USER_` shows and what was granted; `USER_` keeps the
//! OWNER column, which Oracle leaves out.

use super::super::datum::Datum;
use super::super::sessions::SessionKey;
use super::super::state::State;
use super::super::storage::{Rule, Table};
use super::super::triggers::Timing;
use super::{D, N, T, View, v};
use crate::api::Kind;

const USERS: &[(&str, Kind)] = &[
    ("USERNAME", v(128)),
    ("USER_ID", N),
    ("ACCOUNT_STATUS", v(32)),
    ("LOCK_DATE", D),
    ("EXPIRY_DATE", D),
    ("DEFAULT_TABLESPACE", v(30)),
    ("CREATED", D),
    ("PROFILE", v(128)),
    ("AUTHENTICATION_TYPE", v(8)),
    ("COMMON", v(3)),
    ("ORACLE_MAINTAINED", v(1)),
    ("LAST_LOGIN", T),
];
const TABLES: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("TABLE_NAME", v(128)),
    ("TABLESPACE_NAME", v(30)),
    ("STATUS", v(8)),
    ("NUM_ROWS", N),
    ("TEMPORARY", v(1)),
    ("NESTED", v(3)),
    ("SECONDARY", v(1)),
    ("DROPPED", v(3)),
    ("READ_ONLY", v(3)),
];
const COLUMNS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("TABLE_NAME", v(128)),
    ("COLUMN_NAME", v(128)),
    ("DATA_TYPE", v(128)),
    ("DATA_LENGTH", N),
    ("DATA_PRECISION", N),
    ("DATA_SCALE", N),
    ("NULLABLE", v(1)),
    ("COLUMN_ID", N),
    ("DATA_DEFAULT", v(4000)),
    ("CHAR_LENGTH", N),
    ("CHAR_USED", v(1)),
    ("IDENTITY_COLUMN", v(3)),
    ("VIRTUAL_COLUMN", v(3)),
    ("HIDDEN_COLUMN", v(3)),
];
const IDENTITY_COLUMNS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("TABLE_NAME", v(128)),
    ("COLUMN_NAME", v(128)),
    ("GENERATION_TYPE", v(10)),
];
const CONSTRAINTS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("CONSTRAINT_NAME", v(128)),
    ("CONSTRAINT_TYPE", v(1)),
    ("TABLE_NAME", v(128)),
    ("R_OWNER", v(128)),
    ("R_CONSTRAINT_NAME", v(128)),
    ("DELETE_RULE", v(9)),
    ("STATUS", v(8)),
    ("VALIDATED", v(13)),
    ("INDEX_NAME", v(128)),
];
const CONS_COLUMNS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("CONSTRAINT_NAME", v(128)),
    ("TABLE_NAME", v(128)),
    ("COLUMN_NAME", v(4000)),
    ("POSITION", N),
];
const INDEXES: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("INDEX_NAME", v(128)),
    ("TABLE_OWNER", v(128)),
    ("TABLE_NAME", v(128)),
    ("UNIQUENESS", v(9)),
    ("STATUS", v(8)),
];
const TRIGGERS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("TRIGGER_NAME", v(128)),
    ("TRIGGER_TYPE", v(16)),
    ("TRIGGERING_EVENT", v(246)),
    ("TABLE_OWNER", v(128)),
    ("BASE_OBJECT_TYPE", v(18)),
    ("TABLE_NAME", v(128)),
    ("STATUS", v(8)),
    ("ACTION_TYPE", v(11)),
    ("TRIGGER_BODY", v(4000)),
];
const SEQUENCES: &[(&str, Kind)] = &[
    ("SEQUENCE_OWNER", v(128)),
    ("SEQUENCE_NAME", v(128)),
    ("MIN_VALUE", N),
    ("MAX_VALUE", N),
    ("INCREMENT_BY", N),
    ("CYCLE_FLAG", v(1)),
    ("ORDER_FLAG", v(1)),
    ("CACHE_SIZE", N),
    ("LAST_NUMBER", N),
];
const LOG_GROUPS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("LOG_GROUP_NAME", v(128)),
    ("TABLE_NAME", v(128)),
    ("LOG_GROUP_TYPE", v(19)),
    ("ALWAYS", v(11)),
    ("GENERATED", v(14)),
];
const EXTERNAL_TABLES: &[(&str, Kind)] = &[("OWNER", v(128)), ("TABLE_NAME", v(128))];
const PENDING: &[(&str, Kind)] = &[
    ("LOCAL_TRAN_ID", v(22)),
    ("GLOBAL_TRAN_ID", v(169)),
    ("STATE", v(16)),
    ("MIXED", v(3)),
    ("FAIL_TIME", D),
    ("HOST", v(128)),
    ("DB_USER", v(128)),
];
const DB_LINKS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("DB_LINK", v(128)),
    ("USERNAME", v(128)),
    ("HOST", v(2000)),
    ("CREATED", D),
];
const LINK_SOURCES: &[(&str, Kind)] = &[
    ("SOURCE_ID", N),
    ("DB_NAME", v(256)),
    ("HOST_NAME", v(256)),
    ("IP_ADDRESS", v(128)),
    ("USERNAME", v(128)),
    ("LAST_LOGON_TIME", T),
    ("LOGON_COUNT", N),
];
const QUEUES: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("NAME", v(128)),
    ("QUEUE_TABLE", v(128)),
    ("QUEUE_TYPE", v(20)),
    ("ENQUEUE_ENABLED", v(7)),
    ("DEQUEUE_ENABLED", v(7)),
];
const ROLE_PRIVS: &[(&str, Kind)] = &[
    ("GRANTEE", v(128)),
    ("GRANTED_ROLE", v(128)),
    ("ADMIN_OPTION", v(3)),
    ("DEFAULT_ROLE", v(3)),
];
const SYS_PRIVS: &[(&str, Kind)] = &[
    ("GRANTEE", v(128)),
    ("PRIVILEGE", v(40)),
    ("ADMIN_OPTION", v(3)),
];
const TAB_PRIVS: &[(&str, Kind)] = &[
    ("GRANTEE", v(128)),
    ("OWNER", v(128)),
    ("TABLE_NAME", v(128)),
    ("PRIVILEGE", v(40)),
    ("GRANTABLE", v(3)),
];
const SESSION_PRIVS: &[(&str, Kind)] = &[("PRIVILEGE", v(40))];
const OBJECTS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("OBJECT_NAME", v(128)),
    ("OBJECT_TYPE", v(23)),
    ("STATUS", v(7)),
];

const ROLES: &[(&str, Kind)] = &[
    ("ROLE", v(128)),
    ("ROLE_ID", N),
    ("PASSWORD_REQUIRED", v(8)),
    ("AUTHENTICATION_TYPE", v(11)),
    ("COMMON", v(3)),
    ("ORACLE_MAINTAINED", v(1)),
];

/// Which owners a reader sees.
struct Seen<'s> {
    st: &'s State,
    user: String,
    all: bool,
    granted: bool,
}

impl Seen<'_> {
    fn owner(&self, owner: &str) -> bool {
        self.all || owner == self.user
    }

    fn object(&self, owner: &str, name: &str) -> bool {
        self.owner(owner)
            || (self.granted
                && self.st.users.get(&self.user).is_some_and(|user| {
                    user.objects
                        .contains_key(&(owner.to_owned(), name.to_owned()))
                }))
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.st
            .live_tables()
            .filter(|table| self.object(&table.owner, &table.name))
    }
}

/// The view of that name.
pub fn make(st: &State, key: SessionKey, name: &str) -> Option<View> {
    if name == "SESSION_PRIVS" || name == "SESSION_ROLES" {
        return Some(View {
            cols: SESSION_PRIVS,
            rows: session_privileges(st, key, name),
        });
    }
    let (prefix, rest) = ["DBA_", "ALL_", "USER_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix).map(|rest| (*prefix, rest)))?;
    let dba = prefix == "ALL_" && st.is_dba(key);
    let seen = Seen {
        st,
        user: st.acting_user(key),
        all: prefix == "DBA_" || dba,
        granted: prefix == "ALL_",
    };
    let (cols, rows) = match rest {
        "USERS" => (USERS, users(&seen)),
        "TABLES" => (TABLES, seen.tables().map(|one| table(&seen, one)).collect()),
        "TAB_COLUMNS" | "TAB_COLS" => (
            COLUMNS,
            seen.tables().flat_map(|one| columns(&seen, one)).collect(),
        ),
        "TAB_IDENTITY_COLS" => (IDENTITY_COLUMNS, st.environment.identities()),
        "CONSTRAINTS" => (CONSTRAINTS, constraints(&seen)),
        "CONS_COLUMNS" => (CONS_COLUMNS, constraint_columns(&seen)),
        "INDEXES" => (INDEXES, indexes(&seen)),
        "TRIGGERS" => (TRIGGERS, triggers(&seen)),
        "SEQUENCES" => (SEQUENCES, sequences(&seen)),
        "LOG_GROUPS" => (LOG_GROUPS, log_groups(&seen)),
        "OBJECTS" => (OBJECTS, objects(&seen)),
        "ROLES" if seen.all && !dba => (ROLES, roles(st)),
        "ROLE_PRIVS" => (ROLE_PRIVS, grants(&seen, true)),
        "SYS_PRIVS" => (SYS_PRIVS, grants(&seen, false)),
        "TAB_PRIVS" => (TAB_PRIVS, object_grants(&seen)),
        "2PC_PENDING" => (PENDING, st.environment.pending()),
        "DB_LINKS" => (DB_LINKS, st.environment.links()),
        "DB_LINK_SOURCES" => (
            LINK_SOURCES,
            st.environment.sources(super::super::clock::now()),
        ),
        // There are no queues and no external tables: nothing in them.
        "QUEUES" => (QUEUES, Vec::new()),
        "EXTERNAL_TABLES" => (EXTERNAL_TABLES, Vec::new()),
        _ => return None,
    };
    Some(View { cols, rows })
}

fn users(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    let seconds = |at: jiff::civil::DateTime| {
        Datum::Date(at.with().subsec_nanosecond(0).build().unwrap_or(at))
    };
    // ALL_USERS shows everybody, whoever asks.
    seen.st
        .users
        .iter()
        .filter(|(name, _)| seen.granted || seen.owner(name))
        .map(|(name, user)| {
            vec![
                Datum::text(name.as_str()),
                Datum::int(user.id),
                Datum::text(if user.locked.is_some() {
                    "LOCKED"
                } else {
                    "OPEN"
                }),
                user.locked.map_or(Datum::Null, seconds),
                Datum::Null,
                Datum::text("USERS"),
                seconds(user.created),
                Datum::text("DEFAULT"),
                Datum::text(if user.password.is_some() {
                    "PASSWORD"
                } else {
                    "NONE"
                }),
                Datum::text("NO"),
                Datum::text(if user.maintained { "Y" } else { "N" }),
                user.last_login.map_or(Datum::Null, Datum::Timestamp),
            ]
        })
        .collect()
}

fn table(seen: &Seen<'_>, table: &Table) -> Vec<Datum> {
    let mut read_only = seen.st.environment.read_only.iter();
    let read_only = read_only.any(|(owner, name)| *owner == table.owner && *name == table.name);
    vec![
        Datum::text(table.owner.as_str()),
        Datum::text(table.name.as_str()),
        Datum::text("USERS"),
        Datum::text("VALID"),
        // No statistics are ever gathered here.
        Datum::Null,
        Datum::text("N"),
        Datum::text("NO"),
        Datum::text("N"),
        Datum::text("NO"),
        Datum::text(if read_only { "YES" } else { "NO" }),
    ]
}

fn columns(seen: &Seen<'_>, table: &Table) -> Vec<Vec<Datum>> {
    let environment = &seen.st.environment;
    table
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let (name, length, precision, scale) = describe(column.kind);
            let chars = match column.kind {
                Kind::Varchar2(width) | Kind::Char(width) => Datum::int(width),
                _ => Datum::int(0),
            };
            vec![
                Datum::text(table.owner.as_str()),
                Datum::text(table.name.as_str()),
                Datum::text(column.name.as_str()),
                Datum::text(name),
                Datum::int(length),
                precision.map_or(Datum::Null, Datum::int),
                scale.map_or(Datum::Null, Datum::int),
                Datum::text(if column.nullable { "Y" } else { "N" }),
                Datum::int(at as i64 + 1),
                Datum::opt(column.default.as_ref().map(ToString::to_string)),
                chars,
                Datum::opt(matches!(column.kind, Kind::Varchar2(_) | Kind::Char(_)).then_some("B")),
                Datum::text("NO"),
                Datum::text(
                    if environment.computes(&table.owner, &table.name, &column.name) {
                        "YES"
                    } else {
                        "NO"
                    },
                ),
                Datum::text("NO"),
            ]
        })
        .collect()
}

/// DATA_TYPE, DATA_LENGTH, DATA_PRECISION, DATA_SCALE.
fn describe(kind: Kind) -> (String, u32, Option<u8>, Option<i8>) {
    match kind {
        Kind::Varchar2(width) => ("VARCHAR2".to_owned(), width, None, None),
        Kind::Char(width) => ("CHAR".to_owned(), width, None, None),
        Kind::Number(0, -127) => ("NUMBER".to_owned(), 22, None, None),
        Kind::Number(precision, scale) => ("NUMBER".to_owned(), 22, Some(precision), Some(scale)),
        Kind::Date => ("DATE".to_owned(), 7, None, None),
        Kind::Timestamp(digits) => (format!("TIMESTAMP({digits})"), 11, None, Some(digits as i8)),
        Kind::Raw(width) => ("RAW".to_owned(), width, None, None),
    }
}

fn constraints(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for table in seen.tables() {
        for constraint in &table.constraints {
            let (kind, parent) = match &constraint.rule {
                Rule::Primary => ("P", None),
                Rule::Unique => ("U", None),
                Rule::Foreign {
                    parent,
                    columns,
                    cascade,
                } => {
                    let parent = &seen.st.tables[*parent];
                    let key = parent
                        .constraints
                        .iter()
                        .find(|key| key.columns == *columns)
                        .map(|key| key.name.clone());
                    ("R", Some((parent.owner.clone(), key, *cascade)))
                }
            };
            let foreign = parent.is_some();
            let (owner, key, cascade) =
                parent.map_or((None, None, false), |(o, k, c)| (Some(o), k, c));
            rows.push(vec![
                Datum::text(table.owner.as_str()),
                Datum::text(constraint.name.as_str()),
                Datum::text(kind),
                Datum::text(table.name.as_str()),
                Datum::opt(owner),
                Datum::opt(key),
                Datum::opt(foreign.then_some(if cascade { "CASCADE" } else { "NO ACTION" })),
                Datum::text(if constraint.enabled {
                    "ENABLED"
                } else {
                    "DISABLED"
                }),
                Datum::text(if constraint.enabled {
                    "VALIDATED"
                } else {
                    "NOT VALIDATED"
                }),
                Datum::opt((!foreign).then_some(constraint.name.as_str())),
            ]);
        }
    }
    rows
}

fn constraint_columns(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for table in seen.tables() {
        for constraint in &table.constraints {
            for (position, at) in constraint.columns.iter().enumerate() {
                rows.push(vec![
                    Datum::text(table.owner.as_str()),
                    Datum::text(constraint.name.as_str()),
                    Datum::text(table.name.as_str()),
                    Datum::text(table.columns[*at].name.as_str()),
                    Datum::int(position as i64 + 1),
                ]);
            }
        }
    }
    rows
}

fn indexes(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for table in seen.tables() {
        for constraint in &table.constraints {
            if matches!(constraint.rule, Rule::Foreign { .. }) {
                continue;
            }
            rows.push(vec![
                Datum::text(table.owner.as_str()),
                Datum::text(constraint.name.as_str()),
                Datum::text(table.owner.as_str()),
                Datum::text(table.name.as_str()),
                Datum::text("UNIQUE"),
                Datum::text("VALID"),
            ]);
        }
    }
    rows
}

fn triggers(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    seen.st
        .triggers
        .iter()
        .filter(|((owner, _), _)| seen.owner(owner))
        .map(|((owner, name), trigger)| {
            let table = &seen.st.tables[trigger.table];
            let timing = match trigger.timing {
                Timing::Before => "BEFORE EACH ROW",
                Timing::After => "AFTER EACH ROW",
            };
            let events: Vec<&str> = trigger.events.iter().map(|event| event.name()).collect();
            vec![
                Datum::text(owner.as_str()),
                Datum::text(name.as_str()),
                Datum::text(timing),
                Datum::text(events.join(" OR ")),
                Datum::text(table.owner.as_str()),
                Datum::text("TABLE"),
                Datum::text(table.name.as_str()),
                Datum::text(if trigger.enabled {
                    "ENABLED"
                } else {
                    "DISABLED"
                }),
                Datum::text("PL/SQL"),
                Datum::text(trigger.text.as_str()),
            ]
        })
        .collect()
}

fn sequences(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    seen.st
        .sequences
        .iter()
        .filter(|((owner, name), _)| seen.object(owner, name))
        .map(|((owner, name), sequence)| {
            vec![
                Datum::text(owner.as_str()),
                Datum::text(name.as_str()),
                Datum::int(sequence.minimum),
                Datum::int(sequence.maximum),
                Datum::int(sequence.increment),
                Datum::text(if sequence.cycle { "Y" } else { "N" }),
                Datum::text(if sequence.ordered { "Y" } else { "N" }),
                Datum::int(sequence.cache),
                Datum::int(sequence.last_number),
            ]
        })
        .collect()
}

fn log_groups(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for table in seen.tables() {
        for (group, kind) in &table.log_groups {
            rows.push(vec![
                Datum::text(table.owner.as_str()),
                Datum::text(group.as_str()),
                Datum::text(table.name.as_str()),
                Datum::text(kind.as_str()),
                Datum::text("ALWAYS"),
                Datum::text("GENERATED NAME"),
            ]);
        }
    }
    rows
}

fn objects(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    let row = |owner: &str, name: &str, kind: &str| {
        vec![
            Datum::text(owner),
            Datum::text(name),
            Datum::text(kind),
            Datum::text("VALID"),
        ]
    };
    let tables = seen
        .tables()
        .map(|table| row(&table.owner, &table.name, "TABLE"));
    let sequences = seen
        .st
        .sequences
        .keys()
        .filter(|(owner, name)| seen.object(owner, name))
        .map(|(owner, name)| row(owner, name, "SEQUENCE"));
    let triggers = seen
        .st
        .triggers
        .keys()
        .filter(|(owner, _)| seen.owner(owner))
        .map(|(owner, name)| row(owner, name, "TRIGGER"));
    tables.chain(sequences).chain(triggers).collect()
}

fn roles(st: &State) -> Vec<Vec<Datum>> {
    let row = |((name, role), id): ((&String, &super::super::state::Role), i64)| {
        vec![
            Datum::text(name.as_str()),
            Datum::int(id),
            Datum::text("NO"),
            Datum::text("NONE"),
            Datum::text("NO"),
            Datum::text(if role.maintained { "Y" } else { "N" }),
        ]
    };
    st.roles.iter().zip(1..).map(row).collect()
}

fn grants(seen: &Seen<'_>, roles: bool) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    let users = seen
        .st
        .users
        .iter()
        .map(|(name, user)| (name, &user.grants));
    let of_roles = seen
        .st
        .roles
        .iter()
        .map(|(name, role)| (name, &role.grants));
    for (name, granted) in users.chain(of_roles).filter(|(name, _)| seen.owner(name)) {
        for grant in granted
            .iter()
            .filter(|grant| seen.st.roles.contains_key(*grant) == roles)
        {
            let mut row = vec![
                Datum::text(name.as_str()),
                Datum::text(grant.as_str()),
                Datum::text("NO"),
            ];
            if roles {
                row.push(Datum::text("YES"));
            }
            rows.push(row);
        }
    }
    rows
}

fn object_grants(seen: &Seen<'_>) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    let users = seen
        .st
        .users
        .iter()
        .map(|(name, user)| (name, &user.objects));
    let of_roles = seen
        .st
        .roles
        .iter()
        .map(|(name, role)| (name, &role.objects));
    for (name, objects) in users.chain(of_roles).filter(|(name, _)| seen.owner(name)) {
        for ((owner, object), privileges) in objects {
            for privilege in privileges {
                rows.push(vec![
                    Datum::text(name.as_str()),
                    Datum::text(owner.as_str()),
                    Datum::text(object.as_str()),
                    Datum::text(privilege.as_str()),
                    Datum::text("NO"),
                ]);
            }
        }
    }
    rows
}

fn session_privileges(st: &State, key: SessionKey, name: &str) -> Vec<Vec<Datum>> {
    let roles = name == "SESSION_ROLES";
    let Some(user) = st.users.get(&st.acting_user(key)) else {
        return Vec::new();
    };
    let own = user
        .grants
        .iter()
        .filter(|grant| st.roles.contains_key(*grant) == roles);
    let mut rows: Vec<Vec<Datum>> = own.map(|grant| vec![Datum::text(grant.as_str())]).collect();
    if !roles && st.is_dba(key) {
        for privilege in [
            "ALTER SYSTEM",
            "ALTER USER",
            "CREATE SESSION",
            "RESTRICTED SESSION",
            "SELECT ANY DICTIONARY",
            "SELECT ANY TABLE",
            "SYSDBA",
        ] {
            rows.push(vec![Datum::text(privilege)]);
        }
    }
    rows
}
