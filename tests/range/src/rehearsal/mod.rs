//! A rehearsal: the range, one run of the product on it, and the judgement.
//!
//! The product is used as an operator uses it, through its command. What it
//! says about itself goes into the report next to what the range has seen;
//! whether the rehearsal is good rests on the range and on the independent
//! checker, never on the product's word alone.

pub mod chaos;
mod effects;
mod fault;
mod judge;
mod kill;
mod outage;
mod product;
mod report;
mod skips;
mod state;
mod workload;

use crate::range::{self, Error, Options, Range, host_names, realism, wait};
pub use effects::{Effects, Look, Moments, SEED_STEPS};
pub use fault::Fault;
pub use kill::{Kill, Struck};
pub use product::{PhaseStatus, Product, RunStatus, TaskStatus};
pub use report::{Observed, Report, Shortcoming};
pub use skips::{Obstacle, Skip, skip};
pub use state::State;
use std::path::PathBuf;
use std::time::{Duration, Instant};
pub use workload::Verdict;

/// How long the applications may take to write the orders asked for, at the
/// slowest rate that a busy machine gives.
const WARM_UP_LIMIT: Duration = Duration::from_secs(300);

/// Orders to see after the run before it is judged: the switched applications
/// must have been writing, not only have been started.
const ORDERS_AFTER: u64 = 200;

/// What a rehearsal is to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Size of the range.
    pub range: Options,
    /// Orders to be acknowledged before the run starts.
    pub orders: u64,
    /// The plan; the rehearsal's own when absent.
    pub plan: Option<PathBuf>,
    /// A fault to make in the range.
    pub fault: Option<Fault>,
    /// A process to kill and start again in the middle of the run.
    pub kill: Option<Kill>,
    /// Where the report goes.
    pub report: PathBuf,
    /// Leave the range up.
    pub keep: bool,
}

/// Carries out a rehearsal and writes its report.
///
/// # Errors
/// When the range can't be started or looked at, or the product refuses the
/// plan. A run that fails, or a verdict that is bad, is no error: the report
/// says so.
pub fn rehearse(settings: &Settings) -> Result<Report, Error> {
    if let Some(kill) = &settings.kill {
        kill.check(host_names(settings.range.apps))?;
    }
    say("starting the range");
    let began = Instant::now();
    let mut range = Range::start(settings.range)?;
    say(&format!(
        "the range is up after {:.1} s: {} processes, state in {}",
        began.elapsed().as_secs_f64(),
        range.processes().len(),
        range.layout.root.display(),
    ));
    let outcome = on_range(&mut range, settings);
    if settings.keep {
        say("the range stays up; the next rehearsal ends it");
        range.keep();
    } else {
        say("stopping the range");
        range.stop()?;
    }
    outcome
}

fn on_range(range: &mut Range, settings: &Settings) -> Result<Report, Error> {
    say(&format!("waiting for {} orders", settings.orders));
    warm_up(range, settings.orders)?;
    let before = State::of(range)?;
    let began_ms = jiff::Timestamp::now().as_millisecond();
    let ran = if settings.range.product {
        Some(run(range, settings)?)
    } else {
        None
    };
    let writing = ran.is_none() || writing_goes_on(range)?;
    let after = State::of(range)?;
    let look = ran
        .is_some()
        .then(|| Look::at_range(range, began_ms))
        .transpose()?;
    // Where the applications write now is read off their configuration.
    let switched = after.hosts["app-1"]["database"] == "postgres.toml";
    let final_database = if ran.is_none() || switched {
        "postgres"
    } else {
        "oracle"
    };
    let question = workload::Question {
        final_database,
        began_ms,
        opened_scn: workload::opened_again(began_ms, &range.oracle.observe()?),
    };
    let verdict = workload::judge(range, question, settings.keep)?;
    let (run, exit_code, struck) = match ran {
        Some(ran) => (Some(ran.status), ran.exit_code, ran.struck),
        None => (None, None, None),
    };
    let observed = Observed {
        before,
        after,
        effects: Effects::of(look.as_ref(), &verdict),
        repeated: look.as_ref().map(effects::repeated).unwrap_or_default(),
        marker_ms: look.as_ref().and_then(Look::marker_ms),
        marker_scns: look.as_ref().map(Look::marker_scns).unwrap_or_default(),
        exit_code,
        verdict,
        writing,
        struck,
        processes: range.processes(),
    };
    let report = Report::assemble(settings, run, observed);
    report.write(&settings.report)?;
    say(&report.summary());
    Ok(report)
}

/// Waits for so many orders, and until the forward task has loaded them.
fn warm_up(range: &Range, orders: u64) -> Result<(), Error> {
    wait::until("the orders before the run", WARM_UP_LIMIT, || {
        Ok((workload::acknowledged(range)?.total() >= orders).then_some(()))
    })?;
    wait::until("the forward task to have loaded", WARM_UP_LIMIT, || {
        let tasks = range.dms.get("/control/tasks")?;
        let mut all = tasks.as_array().into_iter().flatten();
        let loaded = |task: &serde_json::Value| {
            task["status"] == "running" && !task["progress"]["load_end_ms"].is_null()
        };
        Ok(all.any(loaded).then_some(()))
    })
}

/// Whether orders are acknowledged after the run, wherever it has left the
/// applications.
fn writing_goes_on(range: &Range) -> Result<bool, Error> {
    let so_far = workload::acknowledged(range)?.total();
    let more = wait::until("orders after the run", WARM_UP_LIMIT / 5, || {
        Ok((workload::acknowledged(range)?.total() >= so_far + ORDERS_AFTER).then_some(()))
    });
    match more {
        Ok(()) => Ok(true),
        Err(Error::NotReady { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A run that is over, or waits for someone.
struct Ran {
    /// What the product says about it.
    status: RunStatus,
    /// The exit code of the command that watched it to the end.
    exit_code: Option<u8>,
    /// What a kill met, if there was one.
    struck: Option<Struck>,
}

/// Starts the run and shows it live until it ends or waits for someone.
fn run(range: &mut Range, settings: &Settings) -> Result<Ran, Error> {
    let product = Product::of(range);
    product.wait_for_agents(range.hosts.len())?;
    if let Some(fault) = settings.fault {
        say(&format!("a fault is in place: {}", fault.description()));
        fault.arm(range)?;
    }
    let own = own_plan(range, settings.range)?;
    let apps = settings.range.apps.to_string();
    let (plan, vars): (_, &[(&str, &str)]) = match &settings.plan {
        Some(plan) => (plan, &[]),
        None => (&own, &[("apps", &apps)]),
    };
    let (mut command, struck) = match &settings.kill {
        None => (product.start(plan, vars)?, None),
        Some(kill) => {
            let (command, updates) = product.start_listening(plan, vars)?;
            (command, Some(kill.strike(range, &updates)?))
        }
    };
    let mut exit_code = product::exit_code(&mut command)?;
    if exit_code != Some(0) {
        product.wait_for_a_run(exit_code)?;
    }
    let status = product.wait_for_end()?;
    // A coordinator that was away for long loses its watcher, not the run.
    let killed = struck.as_ref().is_some_and(|s| s.role == "coordinator");
    if killed && exit_code == Some(product::UNREACHABLE) {
        exit_code = product.watch(&status.id)?;
    }
    if let Some(fault) = settings.fault {
        fault.clear(range)?;
    }
    Ok(Ran {
        status,
        exit_code,
        struck,
    })
}

/// The rehearsal's own plan for this range.
fn own_plan(range: &Range, options: Options) -> Result<PathBuf, Error> {
    let plain = range.layout.source.join("tests/range/plans/rehearsal.yaml");
    if !options.realistic {
        return Ok(plain);
    }
    let text = std::fs::read_to_string(&plain).map_err(Error::file("read", &plain))?;
    let own = range.layout.root.join("realistic.yaml");
    std::fs::write(&own, realism::plan(&text)?).map_err(Error::file("write", &own))?;
    Ok(own)
}

fn say(text: &str) {
    println!("{text}");
}

/// Ctrl-C and SIGTERM end a rehearsal in order: every wait gives up, and the
/// range is torn down as after any other failure.
///
/// # Errors
/// When the runtime that listens for signals can't be made.
pub fn end_on_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let (Ok(mut terminate), Ok(mut interrupt)) = (
                    signal(SignalKind::terminate()),
                    signal(SignalKind::interrupt()),
                ) else {
                    return;
                };
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                range::wait::interrupt();
            });
        })?;
    Ok(())
}
