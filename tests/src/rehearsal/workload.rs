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
    /// Orders that Oracle acknowledged in a second, on average.
    pub oracle_orders_per_second: Option<f64>,
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

/// The time in which no order may be committed on Oracle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fence {
    /// The SCN at which Oracle was closed.
    pub scn: Option<u64>,
    /// The SCN at which a rollback opened it again.
    pub opened: Option<u64>,
}

impl Fence {
    /// The fence at `scn`, until the simulator saw an account unlocked: that
    /// is the first of its doors to open.
    #[must_use]
    pub fn of(scn: Option<u64>, observed: &Value) -> Self {
        let statements = observed["statements"].as_array().into_iter().flatten();
        let unlocked = statements
            .filter(|statement| {
                let sql = statement["sql"].as_str().unwrap_or_default();
                sql.to_uppercase().contains("ACCOUNT UNLOCK")
            })
            .filter_map(|statement| statement["scn"].as_u64())
            .find(|at| Some(*at) >= scn);
        Self {
            scn,
            opened: unlocked.filter(|_| scn.is_some()),
        }
    }
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
/// `final_database` is where the applications write now.
///
/// # Errors
/// When the checker could not look; a bad verdict is none.
pub fn judge(
    range: &mut Range,
    final_database: &str,
    fence: Fence,
    start_again: bool,
) -> Result<Verdict, Error> {
    range.stop_forgotten_client();
    for host in &range.hosts {
        let units = applications::units_of(&host.name);
        if !units.is_empty() {
            host.systemctl(&[&["stop"], units].concat())?;
        }
    }
    let caught_up = wait::until("replication to catch up", CATCH_UP_LIMIT, || {
        let found = check(range, final_database, fence)?;
        Ok((found.lost == 0 && found.oracle_committed == found.postgres_present).then_some(found))
    });
    let verdict = match caught_up {
        Err(Error::NotReady { .. }) => check(range, final_database, fence)?,
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

fn check(range: &Range, final_database: &str, fence: Fence) -> Result<Verdict, Error> {
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
    for (option, scn) in [("--fence-scn", fence.scn), ("--opened-scn", fence.opened)] {
        if let Some(scn) = scn {
            command.args([option, &scn.to_string()]);
        }
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
    fn the_fence_stands_until_an_account_is_unlocked_after_it() {
        let observed = json!({"statements": [
            {"sql": "ALTER USER SHOP ACCOUNT UNLOCK", "scn": 50},
            {"sql": "ALTER SYSTEM CHECKPOINT", "scn": 99},
            {"sql": "alter user \"SHOP\" account unlock", "scn": 140},
            {"sql": "ALTER USER BATCH ACCOUNT UNLOCK", "scn": 141},
        ]});
        assert_eq!(Fence::of(Some(100), &observed).opened, Some(140));
        assert_eq!(Fence::of(Some(150), &observed).opened, None);
        assert_eq!(Fence::of(None, &observed).opened, None);
    }
}
