//! V$ views of the database as a whole.

use super::super::datum::Datum;
use super::super::state::State;
use super::super::txn::Scn;
use super::{D, N, View, v};
use crate::api::Kind;

const DATABASE: &[(&str, Kind)] = &[
    ("INST_ID", N),
    ("DBID", N),
    ("NAME", v(9)),
    ("DB_UNIQUE_NAME", v(30)),
    ("CREATED", D),
    ("LOG_MODE", v(12)),
    ("CHECKPOINT_CHANGE#", N),
    ("OPEN_MODE", v(20)),
    ("PROTECTION_MODE", v(20)),
    ("DATABASE_ROLE", v(16)),
    ("CURRENT_SCN", N),
    ("FORCE_LOGGING", v(39)),
    ("FLASHBACK_ON", v(18)),
    ("FS_FAILOVER_STATUS", v(22)),
    ("FS_FAILOVER_OBSERVER_PRESENT", v(7)),
    ("SUPPLEMENTAL_LOG_DATA_MIN", v(8)),
    ("SUPPLEMENTAL_LOG_DATA_PK", v(3)),
    ("SUPPLEMENTAL_LOG_DATA_UI", v(3)),
    ("SUPPLEMENTAL_LOG_DATA_FK", v(3)),
    ("SUPPLEMENTAL_LOG_DATA_ALL", v(3)),
    ("CDB", v(3)),
    ("CON_ID", N),
    ("PLATFORM_NAME", v(101)),
    ("SWITCHOVER_STATUS", v(20)),
    ("RESETLOGS_CHANGE#", N),
];
const SPPARAMETER: &[(&str, Kind)] = &[
    ("SID", v(80)),
    ("NAME", v(80)),
    ("TYPE", v(11)),
    ("VALUE", v(255)),
    ("DISPLAY_VALUE", v(255)),
    ("ISSPECIFIED", v(6)),
];
/// Names of all parameters, hidden ones included.
const KSPPI: &[(&str, Kind)] = &[("INDX", N), ("KSPPINM", v(80))];
/// Their values in the instance.
const KSPPSV: &[(&str, Kind)] = &[("INDX", N), ("KSPPSTVL", v(4000))];
const ARCHIVED: &[(&str, Kind)] = &[
    ("RECID", N),
    ("NAME", v(513)),
    ("DEST_ID", N),
    ("THREAD#", N),
    ("SEQUENCE#", N),
    ("RESETLOGS_CHANGE#", N),
    ("FIRST_CHANGE#", N),
    ("FIRST_TIME", D),
    ("NEXT_CHANGE#", N),
    ("NEXT_TIME", D),
    ("BLOCKS", N),
    ("BLOCK_SIZE", N),
    ("ARCHIVED", v(3)),
    ("APPLIED", v(9)),
    ("STANDBY_DEST", v(3)),
    ("DELETED", v(3)),
    ("STATUS", v(1)),
    ("COMPLETION_TIME", D),
];
const THREAD: &[(&str, Kind)] = &[
    ("THREAD#", N),
    ("STATUS", v(6)),
    ("ENABLED", v(8)),
    ("GROUPS", N),
    ("INSTANCE", v(80)),
    ("CURRENT_GROUP#", N),
    ("SEQUENCE#", N),
    ("CHECKPOINT_CHANGE#", N),
    ("ENABLE_CHANGE#", N),
];
const VERSION: &[(&str, Kind)] = &[("BANNER", v(80)), ("BANNER_FULL", v(160)), ("CON_ID", N)];
const SERVICES: &[(&str, Kind)] = &[("INST_ID", N), ("NAME", v(64)), ("NETWORK_NAME", v(512))];
const PDBS: &[(&str, Kind)] = &[("CON_ID", N), ("NAME", v(128)), ("OPEN_MODE", v(10))];
const RMAN: &[(&str, Kind)] = &[("INST_ID", N), ("PROCESS", v(9)), ("STATUS", v(12))];

/// The view of that name without `V$`.
/// X$KSPPI and X$KSPPSV, of the hidden parameters only.
pub fn fixed_table(st: &State, name: &str) -> Option<View> {
    let (cols, value): (_, fn(&str, &str) -> Datum) = match name {
        "X$KSPPI" => (KSPPI, |name, _| Datum::text(name)),
        "X$KSPPSV" => (KSPPSV, |_, value| Datum::text(value)),
        _ => return None,
    };
    let hidden = st.environment.hidden();
    let rows = hidden
        .map(|(at, name, set)| vec![Datum::int(at), value(name, set)])
        .collect();
    Some(View { cols, rows })
}

pub fn make(st: &mut State, name: &str) -> Option<View> {
    let (cols, rows) = match name {
        "DATABASE" => (DATABASE, vec![database(st)]),
        "SPPARAMETER" => (SPPARAMETER, spfile(st)),
        "ARCHIVED_LOG" => (ARCHIVED, archived(st)),
        "THREAD" => (THREAD, threads(st)),
        "VERSION" => {
            let banner = "Oracle Database 19c Enterprise Edition Release 19.0.0.0.0 - Production";
            (
                VERSION,
                vec![vec![
                    Datum::text(banner),
                    Datum::text(banner),
                    Datum::int(0),
                ]],
            )
        }
        "SERVICES" | "ACTIVE_SERVICES" => (SERVICES, services(st)),
        // No container database, no standby: nothing in them.
        "PDBS" => (PDBS, Vec::new()),
        "MANAGED_STANDBY" => (RMAN, Vec::new()),
        _ => return None,
    };
    Some(View { cols, rows })
}

fn database(st: &mut State) -> Vec<Datum> {
    let checkpoint = st.scn;
    let scn = st.read_scn();
    let name = st.database.clone();
    let logged = |columns: &str| Datum::yes(st.supplemental.columns.contains(columns));
    vec![
        Datum::int(1),
        Datum::int(st.dbid),
        Datum::text(name.as_str()),
        Datum::text(name.as_str()),
        Datum::Date(st.instances[0].started),
        Datum::text("ARCHIVELOG"),
        Datum::int(checkpoint),
        Datum::text("READ WRITE"),
        Datum::text("MAXIMUM PERFORMANCE"),
        Datum::text("PRIMARY"),
        Datum::int(scn),
        Datum::text("YES"),
        Datum::text("NO"),
        Datum::text(st.environment.failover.as_str()),
        Datum::Null,
        Datum::text(st.supplemental.minimal()),
        logged("PRIMARY KEY"),
        logged("UNIQUE"),
        logged("FOREIGN KEY"),
        logged("ALL"),
        Datum::text("NO"),
        Datum::int(0),
        Datum::text("Linux x86 64-bit"),
        Datum::text("NOT ALLOWED"),
        Datum::int(1),
    ]
}

fn spfile(st: &State) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for known in &super::super::params::KNOWN {
        let kind = match known.kind {
            1 => "boolean",
            3 => "integer",
            _ => "string",
        };
        let before = rows.len();
        for (sid, file) in &st.parameters.spfile {
            if let Some(value) = file.get(known.name) {
                rows.push(vec![
                    Datum::text(sid.as_str()),
                    Datum::text(known.name),
                    Datum::text(kind),
                    Datum::text(value.as_str()),
                    Datum::text(value.as_str()),
                    Datum::text("TRUE"),
                ]);
            }
        }
        if rows.len() == before {
            rows.push(vec![
                Datum::text("*"),
                Datum::text(known.name),
                Datum::text(kind),
                Datum::Null,
                Datum::Null,
                Datum::text("FALSE"),
            ]);
        }
    }
    rows
}

fn archived(st: &State) -> Vec<Vec<Datum>> {
    let seconds = |at: jiff::civil::DateTime| {
        Datum::Date(at.with().subsec_nanosecond(0).build().unwrap_or(at))
    };
    st.logs
        .archived
        .iter()
        .enumerate()
        .map(|(at, log)| {
            vec![
                Datum::int(at as i64 + 1),
                Datum::text(format!(
                    "+FRA/{}/thread_{}_seq_{}",
                    st.database, log.thread, log.sequence
                )),
                Datum::int(1),
                Datum::int(log.thread),
                Datum::int(log.sequence),
                Datum::int(1),
                Datum::int(log.first_scn),
                seconds(log.first_time),
                Datum::int(log.next_scn),
                seconds(log.next_time),
                Datum::int(1024),
                Datum::int(512),
                Datum::text("YES"),
                Datum::text("NO"),
                Datum::text("NO"),
                Datum::yes(log.deleted),
                Datum::text(if log.deleted { "D" } else { "A" }),
                seconds(log.next_time),
            ]
        })
        .collect()
}

fn threads(st: &State) -> Vec<Vec<Datum>> {
    let scn: Scn = st.scn;
    st.instances
        .iter()
        .zip(&st.logs.current)
        .enumerate()
        .map(|(at, (instance, log))| {
            let thread = at as u32 + 1;
            vec![
                Datum::int(thread),
                Datum::text("OPEN"),
                Datum::text("PUBLIC"),
                Datum::int(3),
                Datum::text(instance.name.as_str()),
                Datum::int(super::super::redolog::RedoLogs::group(thread, log.sequence)),
                Datum::int(log.sequence),
                Datum::int(scn),
                Datum::int(1),
            ]
        })
        .collect()
}

fn services(st: &State) -> Vec<Vec<Datum>> {
    (1..=st.instances.len())
        .flat_map(|inst| {
            [st.database.as_str(), "SYS$USERS", "SYS$BACKGROUND"].map(|name| {
                vec![
                    Datum::int(inst as i64),
                    Datum::text(name),
                    Datum::text(name),
                ]
            })
        })
        .collect()
}
