//! V$ views with rows per instance: sessions, processes, transactions,
//! parameters, the instance itself.

use super::super::datum::Datum;
use super::super::params::KNOWN;
use super::super::redolog::RedoLogs;
use super::super::sessions::{Life, SessionKey, SessionState};
use super::super::state::State;
use super::super::txn::TxnId;
use super::super::{clock, datum, format};
use super::{D, N, R, View, session_status, v};
use crate::api::Kind;
use sha2::{Digest, Sha256};
use std::ops::RangeInclusive;

const SESSION: &[(&str, Kind)] = &[
    ("INST_ID", N),
    ("SID", N),
    ("SERIAL#", N),
    ("AUDSID", N),
    ("PADDR", R),
    ("SADDR", R),
    ("USER#", N),
    ("USERNAME", v(128)),
    ("COMMAND", N),
    ("TADDR", R),
    ("LOCKWAIT", v(16)),
    ("STATUS", v(8)),
    ("SERVER", v(9)),
    ("SCHEMANAME", v(128)),
    ("OSUSER", v(128)),
    ("PROCESS", v(24)),
    ("MACHINE", v(64)),
    ("PORT", N),
    ("TERMINAL", v(30)),
    ("PROGRAM", v(84)),
    ("TYPE", v(10)),
    ("SQL_ID", v(13)),
    ("MODULE", v(64)),
    ("ACTION", v(64)),
    ("CLIENT_INFO", v(64)),
    ("LOGON_TIME", D),
    ("LAST_CALL_ET", N),
    ("CLIENT_IDENTIFIER", v(64)),
    ("BLOCKING_SESSION_STATUS", v(11)),
    ("BLOCKING_INSTANCE", N),
    ("BLOCKING_SESSION", N),
    ("EVENT", v(64)),
    ("WAIT_CLASS", v(64)),
    ("STATE", v(19)),
    ("SERVICE_NAME", v(64)),
    ("CON_ID", N),
];
const PROCESS: &[(&str, Kind)] = &[
    ("INST_ID", N),
    ("ADDR", R),
    ("PID", N),
    ("SPID", v(24)),
    ("PNAME", v(5)),
    ("USERNAME", v(15)),
    ("SERIAL#", N),
    ("PROGRAM", v(64)),
    ("BACKGROUND", v(1)),
];
const TRANSACTION: &[(&str, Kind)] = &[
    ("INST_ID", N),
    ("ADDR", R),
    ("XIDUSN", N),
    ("XIDSLOT", N),
    ("XIDSQN", N),
    ("STATUS", v(16)),
    ("START_TIME", v(20)),
    ("START_DATE", D),
    ("START_SCN", N),
    ("SES_ADDR", R),
    ("USED_UREC", N),
    ("XID", R),
];
const PARAMETER: &[(&str, Kind)] = &[
    ("INST_ID", N),
    ("NUM", N),
    ("NAME", v(80)),
    ("TYPE", N),
    ("VALUE", v(4000)),
    ("DISPLAY_VALUE", v(4000)),
    ("ISDEFAULT", v(9)),
    ("ISSES_MODIFIABLE", v(5)),
    ("ISSYS_MODIFIABLE", v(9)),
    ("ISINSTANCE_MODIFIABLE", v(5)),
    ("ISMODIFIED", v(10)),
    ("DEFAULT_VALUE", v(255)),
];
const INSTANCE: &[(&str, Kind)] = &[
    ("INST_ID", N),
    ("INSTANCE_NUMBER", N),
    ("INSTANCE_NAME", v(16)),
    ("HOST_NAME", v(64)),
    ("VERSION", v(17)),
    ("VERSION_FULL", v(17)),
    ("STARTUP_TIME", D),
    ("STATUS", v(12)),
    ("PARALLEL", v(3)),
    ("THREAD#", N),
    ("ARCHIVER", v(7)),
    ("LOGINS", v(10)),
    ("SHUTDOWN_PENDING", v(3)),
    ("DATABASE_STATUS", v(17)),
    ("INSTANCE_ROLE", v(18)),
    ("EDITION", v(7)),
];
const LOG: &[(&str, Kind)] = &[
    ("INST_ID", N),
    ("GROUP#", N),
    ("THREAD#", N),
    ("SEQUENCE#", N),
    ("BYTES", N),
    ("MEMBERS", N),
    ("ARCHIVED", v(3)),
    ("STATUS", v(16)),
    ("FIRST_CHANGE#", N),
    ("FIRST_TIME", D),
    ("NEXT_CHANGE#", N),
];

/// The view of that name without `V$`, for those instances.
pub fn make(st: &State, name: &str, instances: RangeInclusive<u32>) -> Option<View> {
    let (cols, rows) = match name {
        "SESSION" => (SESSION, sessions(st, instances)),
        "PROCESS" => (PROCESS, processes(st, instances)),
        "TRANSACTION" => (TRANSACTION, transactions(st, instances)),
        "PARAMETER" | "SYSTEM_PARAMETER" | "PARAMETER2" => (PARAMETER, parameters(st, instances)),
        "INSTANCE" => (INSTANCE, instances.map(|inst| instance(st, inst)).collect()),
        // The control file knows the logs of every thread, whoever asks.
        "LOG" => (
            LOG,
            (1..=st.instances.len() as u32)
                .flat_map(|inst| logs(st, inst))
                .collect(),
        ),
        _ => return None,
    };
    Some(View { cols, rows })
}

fn address(kind: u8, key: SessionKey) -> Datum {
    let mut bytes = vec![0, 0, 0, kind];
    bytes.push(key.inst as u8);
    bytes.extend_from_slice(&key.sid.to_be_bytes()[1..]);
    Datum::Raw(bytes)
}

fn sql_id(sql: &str) -> String {
    const DIGITS: &[u8] = b"0123456789abcdfghjkmnpqrstuvwxyz";
    let digest = Sha256::digest(sql.as_bytes());
    digest
        .iter()
        .take(13)
        .map(|byte| DIGITS[usize::from(byte % 32)] as char)
        .collect()
}

fn sessions(st: &State, instances: RangeInclusive<u32>) -> Vec<Vec<Datum>> {
    st.sessions
        .iter()
        .filter(|(key, _)| instances.contains(&key.inst))
        .map(|(key, session)| session_row(st, *key, session))
        .collect()
}

/// PSEUDO once a killed session has been terminated; until then it is only
/// marked (Database Administrator's Guide, "Terminating an Active Session").
fn server(session: &SessionState) -> &'static str {
    let terminated = session.life == Life::Killed && !session.in_call && session.txn.is_none();
    if terminated { "PSEUDO" } else { "DEDICATED" }
}

fn session_row(st: &State, key: SessionKey, session: &SessionState) -> Vec<Datum> {
    let blocker = session
        .waits_for
        .and_then(|txn| st.transactions.open.get(&txn))
        .map(|transaction| transaction.session);
    let idle = datum::nanos_of(clock::now()) - datum::nanos_of(session.last_call);
    let event = match (&blocker, session.in_call, session.is_background()) {
        (Some(_), ..) => ("enq: TX - row lock contention", "Application"),
        (None, _, true) => ("rdbms ipc message", "Idle"),
        (None, true, _) => ("On CPU / runqueue", "CPU"),
        (None, false, _) => ("SQL*Net message from client", "Idle"),
    };
    let user = session.user.as_deref();
    let user_id = user
        .and_then(|user| st.users.get(user))
        .map_or(0, |user| user.id);
    let sql = session.sql.as_deref().filter(|_| session.in_call);
    vec![
        Datum::int(key.inst),
        Datum::int(key.sid),
        Datum::int(session.serial),
        Datum::int(session.audsid),
        address(1, key),
        address(2, key),
        Datum::int(user_id),
        Datum::opt(user),
        Datum::int(0),
        session.txn.map_or(Datum::Null, |_| address(3, key)),
        blocker.map_or(Datum::Null, |_| Datum::text("0000000000000001")),
        Datum::text(session_status(session)),
        Datum::text(server(session)),
        Datum::text(session.schema.as_str()),
        Datum::text(session.os_user.as_str()),
        Datum::text(session.process.as_str()),
        Datum::text(session.machine.as_str()),
        Datum::int(0),
        Datum::text("UNKNOWN"),
        Datum::text(session.program.as_str()),
        Datum::text(if session.is_background() {
            "BACKGROUND"
        } else {
            "USER"
        }),
        Datum::opt(sql.map(sql_id)),
        Datum::opt(session.module.as_deref()),
        Datum::opt(session.action.as_deref()),
        Datum::opt(session.client_info.as_deref()),
        Datum::Date(
            session
                .logon_time
                .with()
                .subsec_nanosecond(0)
                .build()
                .unwrap_or(session.logon_time),
        ),
        Datum::int(idle / 1_000_000_000),
        Datum::opt(session.client_identifier.as_deref()),
        Datum::text(if blocker.is_some() {
            "VALID"
        } else {
            "NO HOLDER"
        }),
        blocker.map_or(Datum::Null, |key| Datum::int(key.inst)),
        blocker.map_or(Datum::Null, |key| Datum::int(key.sid)),
        Datum::text(event.0),
        Datum::text(event.1),
        Datum::text("WAITING"),
        Datum::text(session.service.as_str()),
        Datum::int(0),
    ]
}

fn processes(st: &State, instances: RangeInclusive<u32>) -> Vec<Vec<Datum>> {
    st.sessions
        .iter()
        .filter(|(key, _)| instances.contains(&key.inst))
        .map(|(key, session)| {
            let host = &st.instance(key.inst).host;
            let own = session
                .program
                .split_once('(')
                .filter(|_| session.is_background() || session.job.is_some())
                .map(|(_, rest)| rest.trim_end_matches(')').to_owned());
            vec![
                Datum::int(key.inst),
                address(1, *key),
                Datum::int(key.sid),
                Datum::text(session.pid.to_string()),
                Datum::opt(own.clone()),
                Datum::text("oracle"),
                Datum::int(session.serial),
                Datum::text(match own {
                    Some(_) => session.program.clone(),
                    None => format!("oracle@{host}"),
                }),
                Datum::opt(session.is_background().then_some("1")),
            ]
        })
        .collect()
}

fn transactions(st: &State, instances: RangeInclusive<u32>) -> Vec<Vec<Datum>> {
    let mut open: Vec<_> = st.transactions.open.iter().collect();
    open.sort_by_key(|(id, _)| **id);
    open.into_iter()
        .filter(|(_, transaction)| {
            instances.contains(&transaction.session.inst) && !transaction.changes.is_empty()
        })
        .map(|(id, transaction)| {
            let (segment, slot, sequence) = TxnId::parts(*id);
            let started = transaction.started;
            vec![
                Datum::int(transaction.session.inst),
                address(3, transaction.session),
                Datum::int(segment),
                Datum::int(slot),
                Datum::int(sequence),
                Datum::text("ACTIVE"),
                Datum::text(format::date(&started, "MM/DD/YY HH24:MI:SS").unwrap_or_default()),
                Datum::Date(
                    started
                        .with()
                        .subsec_nanosecond(0)
                        .build()
                        .unwrap_or(started),
                ),
                Datum::int(transaction.start_scn),
                address(2, transaction.session),
                Datum::int(transaction.changes.len() as i64),
                Datum::Raw(hex::decode(id.xid()).unwrap_or_default()),
            ]
        })
        .collect()
}

fn parameters(st: &State, instances: RangeInclusive<u32>) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for inst in instances {
        let memory = &st.parameters.memory[inst as usize - 1];
        for (at, known) in KNOWN.iter().enumerate() {
            let Some(own) = memory.get(known.name) else {
                continue;
            };
            rows.push(vec![
                Datum::int(inst),
                Datum::int(at as i64 + 1),
                Datum::text(known.name),
                Datum::int(known.kind),
                Datum::text(own.value.as_str()),
                Datum::text(own.value.as_str()),
                Datum::text(if own.is_default { "TRUE" } else { "FALSE" }),
                Datum::text("FALSE"),
                Datum::text(if known.dynamic { "IMMEDIATE" } else { "FALSE" }),
                Datum::text("TRUE"),
                Datum::text(if own.modified { "SYSTEM_MOD" } else { "FALSE" }),
                Datum::text(known.default),
            ]);
        }
    }
    rows
}

fn instance(st: &State, inst: u32) -> Vec<Datum> {
    let own = st.instance(inst);
    vec![
        Datum::int(inst),
        Datum::int(inst),
        Datum::text(own.name.as_str()),
        Datum::text(own.host.as_str()),
        Datum::text("19.0.0.0.0"),
        Datum::text("19.28.0.0.0"),
        Datum::Date(
            own.started
                .with()
                .subsec_nanosecond(0)
                .build()
                .unwrap_or(own.started),
        ),
        Datum::text("OPEN"),
        Datum::yes(st.instances.len() > 1),
        Datum::int(inst),
        Datum::text("STARTED"),
        Datum::text(if own.restricted {
            "RESTRICTED"
        } else {
            "ALLOWED"
        }),
        Datum::text("NO"),
        Datum::text("ACTIVE"),
        Datum::text("PRIMARY_INSTANCE"),
        Datum::text("EE"),
    ]
}

fn logs(st: &State, inst: u32) -> Vec<Vec<Datum>> {
    let current = &st.logs.current[inst as usize - 1];
    let archived = st
        .logs
        .archived
        .iter()
        .rev()
        .filter(|log| log.thread == inst)
        .take(2);
    let mut rows: Vec<Vec<Datum>> = archived
        .map(|log| {
            log_row(
                inst,
                log.sequence,
                true,
                log.first_scn,
                log.first_time,
                Some(log.next_scn),
            )
        })
        .collect();
    rows.push(log_row(
        inst,
        current.sequence,
        false,
        current.first_scn,
        current.first_time,
        None,
    ));
    rows
}

fn log_row(
    inst: u32,
    sequence: u64,
    archived: bool,
    first_scn: u64,
    first_time: jiff::civil::DateTime,
    next_scn: Option<u64>,
) -> Vec<Datum> {
    vec![
        Datum::int(inst),
        Datum::int(RedoLogs::group(inst, sequence)),
        Datum::int(inst),
        Datum::int(sequence),
        Datum::int(209_715_200),
        Datum::int(1),
        Datum::yes(archived),
        Datum::text(if archived { "INACTIVE" } else { "CURRENT" }),
        Datum::int(first_scn),
        Datum::Date(
            first_time
                .with()
                .subsec_nanosecond(0)
                .build()
                .unwrap_or(first_time),
        ),
        Datum::int(next_scn.unwrap_or(9_295_429_630_892_703_743)),
    ]
}
