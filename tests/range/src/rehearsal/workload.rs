//! The applications' own logs, and the independent checker's verdict.

use crate::range::layout::ports;
use crate::range::{Error, Range, applications, wait};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Replication is at most seconds behind; what has not arrived after this
/// will not, and the checker will name it.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

/// Orders that clients have been told are committed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Acknowledged {
    pub oracle: u64,
    pub postgres: u64,
}

impl Acknowledged {
    #[must_use]
    pub fn total(self) -> u64 {
        self.oracle + self.postgres
    }
}

/// What the independent checker found; `tests/range/checker/verdict.py` says what
/// each number means.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Orders committed on Oracle by clients.
    pub oracle_committed: u64,
    /// Those of them that PostgreSQL holds.
    pub postgres_present: u64,
    /// Orders committed on PostgreSQL by clients.
    pub postgres_committed: u64,
    pub lost: u64,
    /// Held more than once.
    pub duplicated: u64,
    /// Commits without an answer.
    pub in_doubt: u64,
    /// Those of them that had been committed.
    pub in_doubt_committed: u64,
    /// Held with other contents.
    pub differing: u64,
    /// Committed on Oracle and not, or not with all lines, in PostgreSQL.
    pub postgres_missing: u64,
    /// Lines of orders where the applications write now.
    pub order_lines: u64,
    /// Orders of which lines are gone.
    pub lines_lost: u64,
    /// Orders that hold a line more than once.
    pub lines_duplicated: u64,
    /// Orders whose lines are others in PostgreSQL.
    pub lines_differing: u64,
    /// Lines of no order.
    pub lines_orphaned: u64,
    /// Committed on Oracle after the fence.
    pub oracle_commits_after_fence: u64,
    /// The SCN of the fence, from the first marker row in Oracle.
    pub fence_scn: Option<u64>,
    /// A few numbers of each kind of fault.
    pub examples: Value,
    /// The clients' last commit on Oracle.
    pub last_on_oracle_epoch_ms: Option<i64>,
    /// The clients' first commit on PostgreSQL.
    pub first_on_postgres_epoch_ms: Option<i64>,
    /// From the one to the other.
    pub write_outage_ms: Option<i64>,
    /// Orders that Oracle acknowledged before the run began.
    pub oracle_orders_before_run: u64,
    /// Those in a second, on average, from when every client wrote.
    pub oracle_orders_per_second: Option<f64>,
    /// The last commit before the longest time without one, around the run.
    pub pause_from_epoch_ms: Option<i64>,
    /// The first commit after it.
    pub pause_to_epoch_ms: Option<i64>,
    /// From the one to the other.
    pub longest_pause_ms: Option<i64>,
}

impl Verdict {
    /// Whether nothing was lost, doubled, changed or written too late, and
    /// PostgreSQL holds all that Oracle holds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.is_caught_up()
            && self.duplicated + self.differing + self.oracle_commits_after_fence == 0
            && self.lines_duplicated + self.lines_differing == 0
    }

    /// Whether there is nothing that replication could still bring.
    fn is_caught_up(&self) -> bool {
        self.lost + self.postgres_missing + self.lines_lost + self.lines_orphaned == 0
    }
}

/// What the checker is asked, besides the logs and the databases.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Where the applications write now: `oracle` or `postgres`.
    pub final_database: &'static str,
    /// When the run began, milliseconds since 1970.
    pub began_ms: i64,
    /// The SCN at which a rollback opened Oracle again.
    pub opened_scn: Option<u64>,
}

/// When Oracle was opened again: the simulator observed that an account was
/// unlocked, which is the first step of opening.
#[must_use]
pub fn opened_again(began_ms: i64, observed: &Value) -> Option<u64> {
    let statements = observed["statements"].as_array().into_iter().flatten();
    let mut unlocked = statements.filter(|statement| {
        let sql = statement["sql"].as_str().unwrap_or_default();
        sql.to_uppercase().contains("ACCOUNT UNLOCK")
            && statement["at_ms"].as_i64() >= Some(began_ms)
    });
    unlocked.find_map(|statement| statement["scn"].as_u64())
}

fn logs(range: &Range) -> Vec<PathBuf> {
    range
        .hosts
        .iter()
        .flat_map(|host| applications::logs_of(&range.layout, &host.name))
        .filter(|path| path.exists())
        .collect()
}

/// Counts what the clients have been told so far.
///
/// # Errors
/// When a log can't be read.
pub fn acknowledged(range: &Range) -> Result<Acknowledged, Error> {
    let mut count = Acknowledged::default();
    for path in logs(range) {
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        for line in text.lines().filter(|line| line.contains("\"acked\"")) {
            if line.contains("\"postgres\"") {
                count.postgres += 1;
            } else {
                count.oracle += 1;
            }
        }
    }
    Ok(count)
}

/// Stops the writers, lets replication catch up, and runs the checker.
///
/// # Errors
/// When the checker could not look; a bad verdict is none.
pub fn judge(range: &mut Range, question: Question, start_again: bool) -> Result<Verdict, Error> {
    range.stop_forgotten_client();
    for host in &range.hosts {
        let units = applications::units_of(&host.name);
        if !units.is_empty() {
            host.systemctl(&[&["stop"], units].concat())?;
        }
    }
    let caught_up = wait::until("replication to catch up", CATCH_UP_LIMIT, || {
        let found = check(range, question)?;
        Ok(found.is_caught_up().then_some(found))
    });
    let verdict = match caught_up {
        Err(Error::NotReady { .. }) => check(range, question)?,
        other => other?,
    };
    if start_again {
        range.start_forgotten_client()?;
        for host in &range.hosts {
            let units = applications::units_of(&host.name);
            if !units.is_empty() {
                host.systemctl(&[&["start"], units].concat())?;
            }
        }
    }
    Ok(verdict)
}

fn check(range: &Range, question: Question) -> Result<Verdict, Error> {
    let layout = &range.layout;
    let mut command = Command::new(layout.python());
    command
        .arg(layout.source.join("tests/range/checker/check.py"))
        .args([
            "--oracle-dsn",
            &format!("127.0.0.1:{}/ORCL", ports::ORA1_LISTENER_DMS),
        ])
        .args(["--oracle-user", "DMS_USER", "--oracle-password-file"])
        .arg(layout.secret("oracle-dms_user"))
        .args([
            "--postgres",
            &range.postgres.conninfo(),
            "--final",
            question.final_database,
            "--began-ms",
            &question.began_ms.to_string(),
        ]);
    if let Some(scn) = question.opened_scn {
        command.args(["--opened-scn", &scn.to_string()]);
    }
    for log in logs(range) {
        command.arg("--log").arg(log);
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: "check.py".into(),
            purpose: "judge the orders".into(),
            source,
        })?;
    // 1 is a bad verdict, which is a verdict; anything above is none.
    if output.status.code().is_none_or(|code| code > 1) {
        return Err(Error::Command {
            purpose: "judge the orders".into(),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Error::Answer {
        from: "the checker".into(),
        detail: format!("{error}: {}", String::from_utf8_lossy(&output.stderr)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn oracle_is_open_again_when_the_run_unlocks_an_account() {
        let observed = json!({"statements": [
            {"sql": "ALTER USER SHOP ACCOUNT UNLOCK", "scn": 50, "at_ms": 500},
            {"sql": "ALTER SYSTEM CHECKPOINT", "scn": 99, "at_ms": 1_500},
            {"sql": "alter user \"SHOP\" account unlock", "scn": 140, "at_ms": 2_000},
            {"sql": "ALTER USER BATCH ACCOUNT UNLOCK", "scn": 141, "at_ms": 2_001},
        ]});
        assert_eq!(opened_again(1_000, &observed), Some(140));
        assert_eq!(opened_again(3_000, &observed), None);
    }

    #[test]
    fn a_verdict_is_good_only_without_any_fault() {
        assert!(Verdict::default().is_good());
        let faults: [fn(&mut Verdict) -> &mut u64; 9] = [
            |verdict| &mut verdict.lost,
            |verdict| &mut verdict.duplicated,
            |verdict| &mut verdict.differing,
            |verdict| &mut verdict.postgres_missing,
            |verdict| &mut verdict.lines_lost,
            |verdict| &mut verdict.lines_duplicated,
            |verdict| &mut verdict.lines_differing,
            |verdict| &mut verdict.lines_orphaned,
            |verdict| &mut verdict.oracle_commits_after_fence,
        ];
        for fault in faults {
            let mut verdict = Verdict::default();
            *fault(&mut verdict) = 1;
            assert!(!verdict.is_good(), "{verdict:?}");
        }
    }
}
