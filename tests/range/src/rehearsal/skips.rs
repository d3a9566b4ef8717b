//! What comes of it when an operator skips the phase that has failed: for each phase
//! either the skip is refused, or the end is safe and says what was skipped.

use super::{Product, RunStatus, Verdict, say, workload};
use crate::range::{Error, Options, Range, wait};
use crate::rehearsal::Fault;
use crate::rehearsal::product::exit_code;
use std::process::Output;

/// Orders before the run.
const ORDERS: u64 = 300;

/// Phases that one run may have to skip.
const SKIPS: usize = 6;

/// What makes a phase fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    Fault(Fault),
    /// Behind the point of no return: a service of app-3 doesn't start any more.
    BrokenService,
    /// Behind the point of no return: Oracle refuses the permanent parameter.
    RefusedParameter,
}

impl Obstacle {
    /// All of them, in the order of the phases.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let faults = Fault::ALL.into_iter().map(Self::Fault);
        faults
            .chain([Self::BrokenService, Self::RefusedParameter])
            .collect()
    }

    fn arm(self, range: &Range) -> Result<(), Error> {
        match self {
            Self::Fault(fault) => fault.arm(range),
            Self::BrokenService => {
                let Some(host) = range.host("app-3") else {
                    return Ok(());
                };
                let dir = host.units().join("shop-orders.service.d");
                std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
                let path = dir.join("broken.conf");
                std::fs::write(&path, "[Service]\nExecStartPre=/bin/false\nRestart=no\n")
                    .map_err(Error::file("write", &path))?;
                host.systemctl(&["daemon-reload"]).map(drop)
            }
            Self::RefusedParameter => range.oracle.inject("SCOPE=SPFILE", 2097, 2).map(drop),
        }
    }

    fn clear(self, range: &Range) -> Result<(), Error> {
        match self {
            Self::Fault(fault) => fault.clear(range),
            Self::BrokenService | Self::RefusedParameter => Ok(()),
        }
    }
}

/// What came of the skip.
#[derive(Debug)]
pub struct Skip {
    /// The first phase that failed.
    pub phase: String,
    /// What the command said when it was refused.
    pub refused: Option<String>,
    /// The run at its end.
    pub run: RunStatus,
    pub verdict: Verdict,
}

/// Runs a cutover that holds at a failure, and skips every phase that fails; where
/// that is refused, the run is rolled back.
///
/// # Errors
/// When the range can't be started or checked, or no phase fails.
pub fn skip(obstacle: Obstacle) -> Result<Skip, Error> {
    let mut range = Range::start(Options::default())?;
    let skipped = on_range(&mut range, obstacle);
    range.stop()?;
    skipped
}

fn on_range(range: &mut Range, obstacle: Obstacle) -> Result<Skip, Error> {
    wait::until("the orders before the run", super::WARM_UP_LIMIT, || {
        Ok((workload::acknowledged(range)?.total() >= ORDERS).then_some(()))
    })?;
    let began_ms = jiff::Timestamp::now().as_millisecond();
    let product = Product::of(range);
    product.wait_for_agents(range.hosts.len())?;
    obstacle.arm(range)?;
    let plan = range.layout.root.join("holding.yaml");
    let plain = range.layout.source.join("tests/range/plans/rehearsal.yaml");
    let text = std::fs::read_to_string(&plain).map_err(Error::file("read", &plain))?;
    std::fs::write(&plan, format!("{text}\non_failure: hold\n"))
        .map_err(Error::file("write", &plan))?;
    let code = exit_code(&mut product.start(&plan, &[])?)?;
    product.wait_for_a_run(code)?;
    let mut status = product.wait_for_end()?;
    let phase = failed_phase(&status)?;
    obstacle.clear(range)?;
    let mut refused = None;
    for _ in 0..SKIPS {
        if status.outcome != "waiting" {
            break;
        }
        let failed = failed_phase(&status)?;
        say(&format!("skipping {failed}"));
        let output = product.verb("skip", &status.id)?;
        if !output.status.success() && output.status.code() == Some(2) {
            refused = Some(text_of(&output));
            break;
        }
        status = product.wait_for_end()?;
    }
    if refused.is_some() {
        product.verb("rollback", &status.id)?;
        status = product.wait_for_end()?;
    }
    let verdict = judge(range, began_ms)?;
    Ok(Skip {
        phase,
        refused,
        run: status,
        verdict,
    })
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn failed_phase(status: &RunStatus) -> Result<String, Error> {
    let failed = status.phases.iter().find(|phase| phase.outcome == "failed");
    failed
        .map(|phase| phase.name.clone())
        .ok_or_else(|| Error::Answer {
            from: "the run".into(),
            detail: format!("no phase has failed: it is {}", status.outcome),
        })
}

fn judge(range: &mut Range, began_ms: i64) -> Result<Verdict, Error> {
    let observed = range.oracle.observe()?;
    let link = range.layout.shop("app-1").join("etc/database.toml");
    let to = std::fs::read_link(&link).map_err(Error::file("read", &link))?;
    let question = workload::Question {
        final_database: if to.ends_with("postgres.toml") {
            "postgres"
        } else {
            "oracle"
        },
        began_ms,
        opened_scn: workload::opened_again(began_ms, &observed),
    };
    workload::judge(range, question, false)
}
