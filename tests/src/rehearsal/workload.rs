//! The applications' own logs, and the independent checker's verdict.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::range::layout::ports;
use crate::range::{Error, Range, applications, wait};

/// Replication is at most seconds behind; what has not arrived after this
/// will not, and the checker will name it.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

/// Orders that clients have been told are committed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Acknowledged {
    /// By Oracle.
    pub oracle: u64,
    /// By PostgreSQL.
    pub postgres: u64,
}

impl Acknowledged {
    /// By either.
    #[must_use]
    pub fn total(self) -> u64 {
        self.oracle + self.postgres
    }
}

/// What the independent checker found; `tests/checker/verdict.py` says what
/// each number means.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Orders committed on Oracle by clients.
    pub oracle_committed: u64,
    /// Those of them that PostgreSQL holds.
    pub postgres_present: u64,
    /// Orders committed on PostgreSQL by clients.
    pub postgres_committed: u64,
    /// Promised, and gone.
    pub lost: u64,
    /// Held more than once.
    pub duplicated: u64,
    /// Commits without an answer.
    pub in_doubt: u64,
    /// Those of them that had been committed.
    pub in_doubt_committed: u64,
    /// Held with other contents.
    pub differing: u64,
    /// Committed on Oracle after the fence.
    pub oracle_commits_after_fence: u64,
    /// A few numbers of each kind of fault.
    pub examples: Value,
    /// The clients' last commit on Oracle.
    pub last_on_oracle_epoch_ms: Option<i64>,
    /// The clients' first commit on PostgreSQL.
    pub first_on_postgres_epoch_ms: Option<i64>,
    /// From the one to the other.
    pub write_outage_ms: Option<i64>,
    /// The longest time without any acknowledged commit.
    pub longest_pause_ms: Option<i64>,
}

impl Verdict {
    /// Whether nothing was lost, doubled, changed or written too late.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost + self.duplicated + self.differing + self.oracle_commits_after_fence == 0
    }
}

fn logs(range: &Range) -> Vec<PathBuf> {
    range
        .hosts
        .iter()
        .filter(|host| applications::writer_of(&host.name).is_some())
        .map(|host| range.layout.shop(&host.name).join("log/orders.jsonl"))
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
/// `final_database` is where the applications write now.
///
/// # Errors
/// When the checker could not look; a bad verdict is none.
pub fn judge(
    range: &Range,
    final_database: &str,
    fence_scn: Option<&str>,
    start_again: bool,
) -> Result<Verdict, Error> {
    for host in &range.hosts {
        let units = applications::units_of(&host.name);
        if !units.is_empty() {
            host.systemctl(&[&["stop"], units].concat())?;
        }
    }
    let caught_up = wait::until("replication to catch up", CATCH_UP_LIMIT, || {
        let found = check(range, final_database, fence_scn)?;
        Ok((found.lost == 0 && found.oracle_committed == found.postgres_present).then_some(found))
    });
    let verdict = match caught_up {
        Err(Error::NotReady { .. }) => check(range, final_database, fence_scn)?,
        other => other?,
    };
    if start_again {
        for host in &range.hosts {
            let units = applications::units_of(&host.name);
            if !units.is_empty() {
                host.systemctl(&[&["start"], units].concat())?;
            }
        }
    }
    Ok(verdict)
}

fn check(range: &Range, final_database: &str, fence: Option<&str>) -> Result<Verdict, Error> {
    let layout = &range.layout;
    let mut command = Command::new(layout.python());
    command
        .arg(layout.source.join("tests/checker/check.py"))
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
            final_database,
        ]);
    if let Some(scn) = fence {
        command.args(["--fence-scn", scn]);
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
