//! Rehearsals under random trouble: daemons are killed and stopped, and links cut,
//! while a scripted operator does what the guide says. Each run is judged as a
//! rehearsal is: by the range and the independent checker, not by the product's word.

mod link;
mod operator;
mod schedule;
mod strikes;

use super::{Look, Product, RunStatus, State, effects, workload};
use crate::range::{Error, Options, Range, host_addresses, wait};
pub use link::Links;
use operator::Operator;
pub use schedule::{Direction, Schedule, Strike, Subject, Trouble};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use strikes::Strikes;

/// Orders before the run: enough for every kind of row.
const ORDERS: u64 = 300;

/// How often the run's status is read.
const LOOK: Duration = Duration::from_millis(500);

/// How long a run may wait unchanged before the operator acts.
const PATIENCE: Duration = Duration::from_secs(2);

/// A run that hasn't ended after this is stuck: the strikes are over within a minute,
/// every limit of the plan within three.
const LIMIT: Duration = Duration::from_secs(480);

/// One run and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    #[serde(flatten)]
    pub schedule: Schedule,
    /// What the operator did.
    pub verbs: Vec<String>,
    pub took_ms: u64,
    #[serde(flatten)]
    pub end: End,
}

/// How a run ended, by the range's own measure.
#[derive(Debug, Clone, Serialize)]
pub struct End {
    /// The run's outcome; `stuck` if it didn't end.
    pub outcome: String,
    /// Why it did not complete, or what it waits for.
    pub reason: String,
    pub lost: u64,
    pub duplicated: u64,
    pub after_fence: u64,
    /// After a rollback: what is not as it was.
    pub leftovers: Vec<String>,
    /// What is wrong; empty for a good run.
    pub wrong: Vec<String>,
}

/// Opens the links of a range of the usual size.
///
/// # Errors
/// A port is in use.
pub fn links() -> Result<Links, Error> {
    Links::open(&host_addresses(Options::default().apps)).map_err(|source| Error::Start {
        program: "the agents' links".into(),
        purpose: "listen".into(),
        source,
    })
}

/// Carries out the run of one seed.
///
/// # Errors
/// The range can't be started or checked, or the run is refused.
pub fn run(seed: u64, links: &Links) -> Result<Record, Error> {
    let options = Options {
        links: true,
        ..Options::default()
    };
    let schedule = Schedule::of(seed, options.apps);
    let mut range = Range::start(options)?;
    let record = on_range(&mut range, schedule, links);
    range.stop()?;
    record
}

fn on_range(range: &mut Range, schedule: Schedule, links: &Links) -> Result<Record, Error> {
    super::warm_up(range, ORDERS)?;
    let product = Product::of(range);
    product.wait_for_agents(range.hosts.len())?;
    let before = State::of(range)?;
    let began_ms = jiff::Timestamp::now().as_millisecond();
    let began = Instant::now();
    start(range, &product, schedule.subject)?;
    let mut operator = Operator::default();
    let mut strikes = Strikes::new(&schedule.strikes);
    let ended = until_the_end(range, &product, &mut operator, &mut strikes, links);
    strikes.end(range, links)?;
    let status = ended?;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut end = judge(range, &before, began_ms, &status)?;
    if operator.verbs().is_empty() && status.outcome == "completed" && status.kind == "Cutover" {
        let look = Look::at_range(range, began_ms)?;
        end.wrong.extend(effects::repeated(&look));
    }
    Ok(Record {
        schedule,
        verbs: operator.verbs(),
        took_ms,
        end,
    })
}

fn start(range: &Range, product: &Product, subject: Subject) -> Result<(), Error> {
    let name = match subject {
        Subject::Cutover => "rehearsal.yaml",
        Subject::Restart => "restart.yaml",
    };
    let plan: PathBuf = range.layout.source.join("tests/range/plans").join(name);
    let mut command = product.command("operator");
    crate::range::run("start the run", command.args(["run", "start"]).arg(plan)).map(drop)
}

/// Strikes and lets the operator act until the run has ended. The last status, with
/// the outcome `stuck` if it doesn't end.
fn until_the_end(
    range: &mut Range,
    product: &Product,
    operator: &mut Operator,
    strikes: &mut Strikes,
    links: &Links,
) -> Result<RunStatus, Error> {
    let began = Instant::now();
    let mut looked = began;
    let mut waiting_since = None;
    let mut last = RunStatus::default();
    while began.elapsed() < LIMIT {
        if wait::interrupted() {
            return Err(Error::Interrupted);
        }
        strikes.due(range, links)?;
        if looked.elapsed() < LOOK {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        looked = Instant::now();
        // Without an answer, the coordinator is down or stopped.
        let Ok(status) = product.newest_run() else {
            continue;
        };
        last = status;
        match last.outcome.as_str() {
            "running" => waiting_since = None,
            "waiting" => {
                let since = *waiting_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    act(product, operator, &last);
                    waiting_since = None;
                }
            }
            _ => return Ok(last),
        }
    }
    last.reason = format!("{}; waits on {}", last.outcome, last.waits_on.join("; "));
    last.outcome = "stuck".to_owned();
    Ok(last)
}

/// A verb that is refused or doesn't reach the coordinator is repeated, or another
/// one chosen, when the run still waits.
fn act(product: &Product, operator: &mut Operator, run: &RunStatus) {
    let Some(act) = operator.decide(run) else {
        return;
    };
    let arguments = act.arguments(&run.id);
    println!("  operator: {}", arguments.join(" "));
    let mut command = product.command("operator");
    let output = command.arg("run").args(&arguments).output();
    if let Ok(output) = output.as_ref().map(|output| &output.stderr) {
        print!("{}", String::from_utf8_lossy(output));
    }
}

fn judge(
    range: &mut Range,
    before: &State,
    began_ms: i64,
    status: &RunStatus,
) -> Result<End, Error> {
    let after = State::of(range)?;
    let switched = after.hosts["app-1"]["database"] == "postgres.toml";
    let question = workload::Question {
        final_database: if switched { "postgres" } else { "oracle" },
        began_ms,
        opened_scn: workload::opened_again(began_ms, &range.oracle.observe()?),
    };
    let verdict = workload::judge(range, question, false)?;
    let mut wrong = Vec::new();
    // An abort leaves everything where it is, replication too.
    let ended = ["completed", "completed-with-skips", "rolled-back"];
    if ended.contains(&status.outcome.as_str()) && !verdict.is_good() {
        wrong.push(format!("the checker found {}", verdict.examples));
    }
    if status.outcome == "stuck" {
        wrong.push("the run did not end".to_owned());
    }
    let leftovers = if status.outcome == "rolled-back" {
        after.differences(before)
    } else {
        Vec::new()
    };
    wrong.extend(leftovers.iter().map(|one| format!("not as before: {one}")));
    for (count, what) in [
        (verdict.lost, "lost"),
        (verdict.duplicated, "duplicated"),
        (
            verdict.oracle_commits_after_fence,
            "on Oracle after the fence",
        ),
    ] {
        if count > 0 {
            wrong.push(format!("{count} orders {what}"));
        }
    }
    Ok(End {
        outcome: status.outcome.clone(),
        reason: status.reason.clone(),
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        after_fence: verdict.oracle_commits_after_fence,
        leftovers,
        wrong,
    })
}
