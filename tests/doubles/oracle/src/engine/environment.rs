//! What lies around the database and shows in its views: a standby with its
//! observer, other databases that links lead to or come from, coordinators of
//! distributed transactions. The range says what is there; the engine itself
//! does nothing with it.

use super::datum::Datum;
use serde::Deserialize;
use std::collections::BTreeMap;

/// If TRUE, a login leaves DBA_USERS.LAST_LOGIN as it is (fix of bug 33121934).
pub const UNRECORDED: &str = "_disable_last_successful_login_time";

/// All of it; nothing by default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    pub failover: String,
    /// DBA_2PC_PENDING.
    pub in_doubt: Vec<InDoubt>,
    pub links: Vec<Link>,
    pub link_sources: Vec<LinkSource>,
    /// Columns GENERATED ALWAYS AS IDENTITY, which CREATE TABLE refuses.
    pub identities: Vec<Identity>,
    /// Columns that are virtual, which CREATE TABLE refuses as well.
    pub virtual_columns: Vec<Identity>,
    /// Tables in read-only mode: owner and name. Only shown.
    pub read_only: Vec<(String, String)>,
    /// As before release 19c: jobs of DBMS_JOB are none of the scheduler.
    pub old_jobs_apart: bool,
    /// Blocks are cleaned out late: ORA_ROWSCN is above the commit's SCN.
    pub delayed_cleanout: bool,
    /// Hidden parameters, by name. [`UNRECORDED`] stops LAST_LOGIN.
    pub hidden: BTreeMap<String, String>,
    /// ARCHIVE LOG CURRENT waits.
    pub archiver_stuck: bool,
    /// The rollback of a killed session's transaction hasn't ended.
    pub slow_rollback: bool,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            failover: "DISABLED".to_owned(),
            in_doubt: Vec::new(),
            links: Vec::new(),
            link_sources: Vec::new(),
            identities: Vec::new(),
            virtual_columns: Vec::new(),
            read_only: Vec::new(),
            old_jobs_apart: false,
            delayed_cleanout: false,
            hidden: BTreeMap::new(),
            archiver_stuck: false,
            slow_rollback: false,
        }
    }
}

/// A distributed transaction whose coordinator hasn't told its end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InDoubt {
    pub id: String,
    /// STATE: collecting, prepared, committed, forced commit, forced rollback.
    pub state: String,
}

/// A database link to elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub owner: String,
    pub name: String,
    /// USERNAME, for a link of a fixed user.
    #[serde(default)]
    pub username: Option<String>,
    /// HOST: a connect string.
    pub host: String,
}

/// A column: a row of DBA_TAB_IDENTITY_COLS, or a virtual one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub owner: String,
    pub table: String,
    pub column: String,
}

/// A database that has opened links to this one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSource {
    pub database: String,
    pub host: String,
    /// USERNAME as which they log in here.
    pub username: String,
}

impl Environment {
    /// Whether a login moves LAST_LOGIN.
    pub fn records_logins(&self) -> bool {
        self.hidden
            .get(UNRECORDED)
            .is_none_or(|value| value != "TRUE")
    }

    /// Rows of X$KSPPI joined with X$KSPPCV by position: names and values.
    pub fn hidden(&self) -> impl Iterator<Item = (i64, &str, &str)> {
        let all = self.hidden.iter().zip(1..);
        all.map(|((name, value), at)| (at, name.as_str(), value.as_str()))
    }

    /// Rows of DBA_2PC_PENDING.
    pub fn pending(&self) -> Vec<Vec<Datum>> {
        let row = |one: &InDoubt| {
            vec![
                Datum::text(one.id.as_str()),
                Datum::text(format!("REMOTE.{}", one.id)),
                Datum::text(one.state.as_str()),
                Datum::text("no"),
                Datum::Null,
                Datum::Null,
                Datum::Null,
            ]
        };
        self.in_doubt.iter().map(row).collect()
    }

    /// Rows of DBA_TAB_IDENTITY_COLS.
    pub fn identities(&self) -> Vec<Vec<Datum>> {
        let row = |one: &Identity| {
            let names =
                [&one.owner, &one.table, &one.column].map(|name| Datum::text(name.as_str()));
            let mut row = Vec::from(names);
            row.push(Datum::text("ALWAYS"));
            row
        };
        self.identities.iter().map(row).collect()
    }

    /// Whether a column is virtual.
    pub fn computes(&self, owner: &str, table: &str, column: &str) -> bool {
        let is = |one: &Identity| one.owner == owner && one.table == table && one.column == column;
        self.virtual_columns.iter().any(is)
    }

    pub fn links(&self) -> Vec<Vec<Datum>> {
        let row = |link: &Link| {
            vec![
                Datum::text(link.owner.as_str()),
                Datum::text(link.name.as_str()),
                Datum::opt(link.username.as_deref()),
                Datum::text(link.host.as_str()),
                Datum::Null,
            ]
        };
        self.links.iter().map(row).collect()
    }

    pub fn sources(&self, now: jiff::civil::DateTime) -> Vec<Vec<Datum>> {
        let row = |(at, source): (usize, &LinkSource)| {
            vec![
                Datum::int(at as i64 + 1),
                Datum::text(source.database.as_str()),
                Datum::text(source.host.as_str()),
                Datum::Null,
                Datum::text(source.username.as_str()),
                Datum::Timestamp(now),
                Datum::int(1),
            ]
        };
        self.link_sources.iter().enumerate().map(row).collect()
    }
}
