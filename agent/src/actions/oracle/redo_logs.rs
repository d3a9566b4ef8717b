//! `oracle.logs.ready`: checks that a rollback could resume the forward task:
//! all redo since the task's checkpoint must still exist.
//!
//! A log counts if it is archived and not deleted, or not archived yet; an
//! online log that has been archived will be overwritten. If the checkpoint
//! contains no SCN, that is a remark, not an obstacle: DMS documents the value
//! as opaque. Two things can't be detected: a transaction that was open at the
//! checkpoint and began in an earlier log (`oracle.ready` limits their age), and
//! the deletion of logs after the check.

use super::required_permissions;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::actions::truncate_list;
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::OracleLogs;
use serde_json::Value;

/// SCNs are read as text: NEXT_CHANGE# of a current log exceeds 63 bits.
const DATABASE: &str = "SELECT TO_CHAR(RESETLOGS_CHANGE#), TO_CHAR(CURRENT_SCN) FROM V$DATABASE";
const THREADS: &str = "SELECT THREAD#, TO_CHAR(ENABLE_CHANGE#), STATUS FROM V$THREAD \
     WHERE ENABLED <> 'DISABLED' ORDER BY THREAD#";
const ONLINE: &str = "SELECT THREAD#, SEQUENCE#, TO_CHAR(FIRST_CHANGE#), TO_CHAR(NEXT_CHANGE#) \
     FROM V$LOG WHERE ARCHIVED = 'NO' AND STATUS <> 'UNUSED'";
const ARCHIVED: &str = "SELECT THREAD#, SEQUENCE#, TO_CHAR(FIRST_CHANGE#), TO_CHAR(NEXT_CHANGE#) \
     FROM V$ARCHIVED_LOG WHERE ARCHIVED = 'YES' AND DELETED = 'NO' AND STATUS = 'A' \
     AND STANDBY_DEST = 'NO' AND RESETLOGS_CHANGE# = TO_NUMBER(:1) AND NEXT_CHANGE# > TO_NUMBER(:2)";

/// The prefix of DMS's own checkpoints.
const CHECKPOINT: &str = "checkpoint:V1#";
/// Number of hexadecimal digits of a position in Oracle's redo, and of the SCN
/// at its beginning. AWS doesn't document the form; Qlik Replicate, the engine
/// of DMS, does ("Replicate Loggers", DATA_RECORD).
const POSITION_DIGITS: usize = 64;
const SCN_DIGITS: usize = 16;

pub struct Ready;

/// A redo log of a thread, with the SCN range `first..next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Log {
    thread: i64,
    sequence: i64,
    first: u64,
    next: u64,
}

/// A thread of redo.
#[derive(Debug, Clone, Copy)]
struct Thread {
    number: i64,
    /// The SCN at which its redo begins.
    enabled_at: u64,
    open: bool,
}

/// The result of the check.
#[derive(Debug)]
enum LogCheck {
    /// Every log since this SCN exists.
    Whole(u64),
    Gaps(u64, Vec<String>),
    /// The checkpoint contains no usable SCN, for this reason.
    Unknown(String),
}

/// The oldest SCN in a checkpoint.
fn scn_of(checkpoint: &str) -> Option<u64> {
    let body = checkpoint.strip_prefix(CHECKPOINT).unwrap_or(checkpoint);
    // The native start point of Oracle is an SCN alone (AWS DMS User Guide,
    // "Performing replication starting from a CDC start point").
    if body.bytes().all(|byte| byte.is_ascii_digit()) && body.len() < POSITION_DIGITS {
        return body.parse().ok();
    }
    let is_position = |field: &&str| {
        field.len() == POSITION_DIGITS && field.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let positions = body.split('#').filter(is_position);
    positions
        .filter_map(|position| u64::from_str_radix(&position[..SCN_DIGITS], 16).ok())
        .min()
}

/// The gaps in the redo since the SCN `since`, one sentence for each.
fn gaps(since: u64, threads: &[Thread], logs: &[Log]) -> Vec<String> {
    let mut gaps = Vec::new();
    for thread in threads {
        let number = thread.number;
        let since = since.max(thread.enabled_at);
        let own = logs.iter().filter(|log| log.thread == number);
        let mut own: Vec<&Log> = own.filter(|log| log.next > since).collect();
        own.sort();
        own.dedup_by_key(|log| log.sequence);
        match own.first() {
            None if thread.open => gaps.push(format!("every log of thread {number}")),
            Some(first) if first.first > since => gaps.push(format!(
                "the logs of thread {number} before sequence {} (SCN {since} to {})",
                first.sequence, first.first
            )),
            // A closed thread writes no redo.
            None | Some(_) => {}
        }
        for pair in own.windows(2) {
            let (from, to) = (pair[0].sequence + 1, pair[1].sequence - 1);
            if from == to {
                gaps.push(format!("the log of thread {number} with sequence {from}"));
            } else if from < to {
                gaps.push(format!(
                    "the logs of thread {number} with sequences {from} to {to}"
                ));
            }
        }
    }
    gaps
}

fn scn(text: &str) -> Result<u64, ActionError> {
    text.trim().parse().map_err(|e| {
        ActionError::new(Code::LS2204, format!("{text:?} is no SCN"))
            .state_left("nothing was changed")
            .remedy("compare the versions of Oracle and of the agent")
            .source(e)
    })
}

async fn logs(session: &Session, resetlogs: u64, since: u64) -> Result<Vec<Log>, ActionError> {
    type Row = (i64, i64, String, String);
    // Online logs first: a log that is archived between the two queries is
    // then in both results, rather than in neither.
    let mut rows: Vec<Row> = session.rows(ONLINE, &[]).await?;
    let binds = [
        resetlogs.to_string().as_str().into(),
        since.to_string().as_str().into(),
    ];
    rows.extend(session.rows::<Row>(ARCHIVED, &binds).await?);
    let read = |(thread, sequence, first, next): Row| {
        Ok(Log {
            thread,
            sequence,
            first: scn(&first)?,
            next: scn(&next)?,
        })
    };
    rows.into_iter().map(read).collect()
}

async fn look(cx: &Context, params: &OracleLogs) -> Result<LogCheck, ActionError> {
    let Some(checkpoint) = &params.checkpoint else {
        return Ok(LogCheck::Unknown("DMS names no checkpoint yet".to_owned()));
    };
    let Some(since) = scn_of(checkpoint) else {
        return Ok(LogCheck::Unknown(format!(
            "its checkpoint {checkpoint:?} is of a form that tells no SCN"
        )));
    };
    let session = Session::open(cx, &params.resource).await?;
    let (resetlogs, current): (String, String) = session.row(DATABASE, &[]).await?;
    let (resetlogs, current) = (scn(&resetlogs)?, scn(&current)?);
    if since == 0 || since > current {
        return Ok(LogCheck::Unknown(format!(
            "its checkpoint {checkpoint:?}, read as the SCN {since}, is none of this database, \
             which is at {current}"
        )));
    }
    if since < resetlogs {
        let gap = format!("all redo before OPEN RESETLOGS at SCN {resetlogs}");
        return Ok(LogCheck::Gaps(since, vec![gap]));
    }
    let threads: Vec<(i64, String, String)> = session.rows(THREADS, &[]).await?;
    let thread = |(number, enabled_at, status): (i64, String, String)| {
        Ok(Thread {
            number,
            enabled_at: scn(&enabled_at)?,
            open: status == "OPEN",
        })
    };
    let threads = threads.into_iter().map(thread);
    let threads = threads.collect::<Result<Vec<_>, ActionError>>()?;
    let gaps = gaps(since, &threads, &logs(&session, resetlogs, since).await?);
    Ok(if gaps.is_empty() {
        LogCheck::Whole(since)
    } else {
        LogCheck::Gaps(since, gaps)
    })
}

fn remark(seen: &LogCheck) -> Option<String> {
    match seen {
        LogCheck::Whole(since) => Some(format!(
            "every log since the forward task's checkpoint at SCN {since} is there; keep them \
             until the cutover is over"
        )),
        LogCheck::Unknown(why) => Some(format!(
            "whether a rollback could resume the forward task is not known: {why}; see yourself \
             that no archived log since its last stop is deleted"
        )),
        LogCheck::Gaps(..) => None,
    }
}

fn refusal(seen: &LogCheck) -> Option<ActionError> {
    let LogCheck::Gaps(since, gaps) = seen else {
        return None;
    };
    let gaps = truncate_list(gaps.clone()).join("; ");
    Some(
        ActionError::new(
            Code::LS2225,
            format!(
                "a rollback could not resume the forward task from its checkpoint at SCN {since}: \
                 missing are {gaps}"
            ),
        )
        .state_left("nothing was changed")
        .remedy(
            "restore them (RMAN: RESTORE ARCHIVELOG) and keep them until the cutover is over; or, \
             if the checkpoint only lags behind, stop and resume the task once, then check again",
        ),
    )
}

#[async_trait]
impl Action for Ready {
    type Params = OracleLogs;

    fn required_permissions(&self, params: &OracleLogs) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleLogs) -> Result<Probe, ActionError> {
        match refusal(&look(cx, params).await?) {
            Some(refusal) => Err(refusal),
            // Always pending, because only `execute` reports the remark.
            None => Ok(found(Finding::Pending)),
        }
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &OracleLogs,
    ) -> Result<Description, ActionError> {
        let seen = look(cx, params).await?;
        Ok(Description {
            would_do: vec!["query V$LOG and V$ARCHIVED_LOG".to_owned()],
            obstacles: refusal(&seen).map(|e| e.report()).into_iter().collect(),
            remarks: remark(&seen).into_iter().collect(),
            ..Description::default()
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OracleLogs,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let seen = look(cx, params).await?;
        if let Some(refusal) = refusal(&seen) {
            return Err(refusal);
        }
        if let Some(remark) = remark(&seen) {
            cx.note(remark);
        }
        Ok(Outputs::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_scn_of_a_checkpoint_is_read_where_its_form_tells_one() {
        let newer = "0000000003A4649301000001000005190000821F001000010000000003A46427";
        let older = "0000000003A4600001000001000005180000821F001000010000000003A45FFF";
        for (checkpoint, scn) in [
            ("2300456", Some(2_300_456)),
            ("checkpoint:V1#2300456", Some(2_300_456)),
            (
                &*format!("checkpoint:V1#12#{newer}#0#0#*#0#93"),
                Some(0x3A4_6493),
            ),
            (
                &*format!("checkpoint:V1#12#{newer}#0#7#{older}#0#93"),
                Some(0x3A4_6000),
            ),
            ("", None),
            ("2026-02-03T04:05:06", None),
            (
                "checkpoint:V1#156#00000032:00000a55:000c#0#217#00000032:00000a5a:0003#0#213",
                None,
            ),
            (
                "checkpoint:V1#27#mysql-bin-changelog.157832:1975:-1#0#0#*#0#93",
                None,
            ),
            ("checkpoint:V2#2300456", None),
        ] {
            assert_eq!(scn_of(checkpoint), scn, "{checkpoint}");
        }
    }

    fn threads() -> [Thread; 2] {
        [1, 2].map(|number| Thread {
            number,
            enabled_at: 1,
            open: true,
        })
    }

    fn log(thread: i64, sequence: i64, first: u64, next: u64) -> Log {
        Log {
            thread,
            sequence,
            first,
            next,
        }
    }

    #[test]
    fn gaps_are_found_in_every_thread_from_the_checkpoint_on() {
        let whole = [
            log(1, 11, 100, 200),
            log(1, 12, 200, 300),
            log(1, 13, 300, u64::MAX),
            log(2, 7, 90, 250),
            log(2, 8, 250, u64::MAX),
        ];
        let without = |missing: &[(i64, i64)]| -> Vec<Log> {
            let there = |log: &&Log| !missing.contains(&(log.thread, log.sequence));
            whole.iter().filter(there).copied().collect()
        };
        assert!(gaps(150, &threads(), &whole).is_empty());
        assert!(gaps(300, &threads(), &without(&[(1, 11), (1, 12), (2, 7)])).is_empty());
        for (since, missing, text) in [
            (150, &[(1, 12)][..], "the log of thread 1 with sequence 12"),
            (
                150,
                &[(1, 11)],
                "the logs of thread 1 before sequence 12 (SCN 150 to 200)",
            ),
            (
                249,
                &[(2, 7)],
                "the logs of thread 2 before sequence 8 (SCN 249 to 250)",
            ),
            (
                50,
                &[],
                "the logs of thread 1 before sequence 11 (SCN 50 to 100)",
            ),
            (150, &[(2, 7), (2, 8)], "every log of thread 2"),
        ] {
            assert_eq!(gaps(since, &threads(), &without(missing))[0], text);
        }
        let twice = [whole.as_slice(), &whole[..2]].concat();
        assert!(gaps(150, &threads(), &twice).is_empty(), "two destinations");
        let long = [log(1, 11, 100, 200), log(1, 14, 400, u64::MAX)];
        assert_eq!(
            gaps(100, &threads()[..1], &long),
            ["the logs of thread 1 with sequences 12 to 13"]
        );
    }

    #[test]
    fn a_thread_begins_when_it_is_enabled_and_a_closed_one_writes_nothing() {
        let mut threads = threads();
        threads[1].enabled_at = 250;
        let logs = [log(1, 11, 100, u64::MAX), log(2, 1, 250, u64::MAX)];
        assert!(gaps(150, &threads, &logs).is_empty());
        threads[1].open = false;
        assert!(gaps(150, &threads, &logs[..1]).is_empty());
    }
}
