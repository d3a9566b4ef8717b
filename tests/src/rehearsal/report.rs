//! The report: what `report.json` holds, and the summary people read.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::product::{self, PhaseStatus, RunStatus, TaskStatus};
use super::{Effects, Fault, SEED_STEPS, Settings, State, Struck, Verdict};
use crate::range::{Error, Listed};

/// Why a rehearsal is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortcoming(pub String);

/// The report of a rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The run, if the product took part.
    pub run: Option<Run>,
    /// The plan's phases.
    pub phases: Vec<Phase>,
    /// Those of the rollback plan, if it was run.
    pub rollback_phases: Vec<Phase>,
    /// The independent checker's verdict.
    pub workload: Verdict,
    /// What the range saw of each step.
    pub effects: Effects,
    /// How the last changes were proved to have arrived.
    pub drain: Drain,
    /// By the clients' own logs.
    pub write_outage_ms: Option<i64>,
    /// What the barriers cost within the outage, beyond the actions.
    pub outage_overhead_ms: u64,
    /// What the range had started.
    pub processes: Vec<Listed>,
    /// The fault that was made, if any.
    pub fault: Option<String>,
    /// The process that was killed in the middle, if any.
    pub kill: Option<Struck>,
    /// After a rollback: what is not as it was.
    pub not_restored: Vec<String>,
    /// Why the rehearsal is not good; empty when it is.
    pub shortcomings: Vec<Shortcoming>,
}

/// The run.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The plan's name.
    pub plan: String,
    /// Kind of the plan.
    pub kind: String,
    /// The plan's digest.
    pub digest: String,
    /// `completed`, `rolled_back`, `failed`, `aborted`, `waiting`.
    pub outcome: String,
    /// The command's exit code.
    pub exit_code: Option<u8>,
    /// Its trace.
    pub trace_id: String,
    /// Why it did not complete.
    pub reason: String,
}

/// A phase.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Steps of the procedure.
    pub seed_steps: Vec<String>,
    /// `done`, `failed`, `skipped`, `undone`.
    pub outcome: String,
    /// What the barrier itself cost.
    pub barrier_ms: u64,
    /// Its tasks.
    pub tasks: Vec<Task>,
}

/// A task.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    /// The agent.
    pub agent: String,
    /// The action.
    pub action: String,
    /// How it ended.
    pub outcome: String,
    /// How long it took.
    pub ms: u64,
    /// Error or detail, where there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The proof of the drain.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Drain {
    /// The SCN of the fence.
    pub scn: Option<String>,
    /// From the marker's commit on Oracle to its commit in PostgreSQL.
    pub marker_ms: Option<u64>,
}

impl From<&RunStatus> for Run {
    fn from(status: &RunStatus) -> Self {
        Self {
            id: status.id.clone(),
            plan: status.plan.clone(),
            kind: status.kind.clone(),
            digest: status.digest.clone(),
            outcome: status.outcome.clone(),
            exit_code: status.exit_code,
            trace_id: status.trace_id.clone(),
            reason: status.reason.clone(),
        }
    }
}

impl From<&PhaseStatus> for Phase {
    fn from(phase: &PhaseStatus) -> Self {
        Self {
            name: phase.name.clone(),
            seed_steps: phase.seed_steps.clone(),
            // A phase that a rollback or an abort came before was passed over.
            outcome: match phase.outcome.as_str() {
                "pending" => "skipped".to_owned(),
                other => other.to_owned(),
            },
            barrier_ms: phase.barrier_ms,
            tasks: phase.tasks.iter().map(Task::from).collect(),
        }
    }
}

impl From<&TaskStatus> for Task {
    fn from(task: &TaskStatus) -> Self {
        Self {
            agent: task.agent.clone(),
            action: task.action.clone(),
            outcome: task.outcome.clone(),
            ms: task.ms,
            detail: task.detail.clone(),
        }
    }
}

/// Standard phases inside the write outage.
const OUTAGE: [&str; 10] = [
    "stop-applications",
    "close-oracle",
    "final-changes",
    "verify-rows",
    "stop-dms",
    "reverse-task",
    "prepare-postgres",
    "monitoring",
    "open-postgres",
    "start-applications",
];

/// What the range itself has seen of a rehearsal.
#[derive(Debug)]
pub struct Observed {
    /// The landscape before the run.
    pub before: State,
    /// The landscape after it.
    pub after: State,
    /// The independent checker's verdict.
    pub verdict: Verdict,
    /// Each step.
    pub effects: Effects,
    /// What was done more often than once.
    pub repeated: Vec<String>,
    /// From the marker's commit on Oracle to its commit in PostgreSQL.
    pub marker_ms: Option<u64>,
    /// Whether orders were acknowledged after the run.
    pub writing: bool,
    /// What a kill met, if there was one.
    pub struck: Option<Struck>,
    /// What the range had started.
    pub processes: Vec<Listed>,
}

impl Report {
    /// Puts everything together and judges it.
    #[must_use]
    pub fn assemble(settings: &Settings, run: Option<RunStatus>, observed: Observed) -> Self {
        let status = run.unwrap_or_default();
        let of_track = |rollback: bool| {
            let phases = status.phases.iter();
            phases.filter(move |phase| (phase.track == "rollback") == rollback)
        };
        let overhead = of_track(false)
            .filter(|phase| OUTAGE.contains(&phase.standard.as_str()))
            .map(|phase| phase.barrier_ms)
            .sum();
        let not_restored = if status.outcome == "rolled_back" {
            observed.after.differences(&observed.before)
        } else {
            Vec::new()
        };
        let mut report = Self {
            phases: of_track(false).map(Phase::from).collect(),
            rollback_phases: of_track(true).map(Phase::from).collect(),
            write_outage_ms: observed.verdict.write_outage_ms,
            workload: observed.verdict,
            effects: observed.effects,
            drain: Drain {
                scn: product::fence_scn(&status).map(|scn| scn.to_string()),
                marker_ms: observed.marker_ms,
            },
            outage_overhead_ms: overhead,
            processes: observed.processes,
            fault: settings.fault.map(|fault| fault.to_string()),
            kill: observed.struck,
            not_restored,
            run: settings.range.product.then(|| Run::from(&status)),
            shortcomings: Vec::new(),
        };
        let mut found = report.of_workload(settings, observed.writing);
        found.extend(report.of_run(settings));
        if status.outcome == "completed" && status.kind == "Cutover" {
            found.extend(observed.repeated);
        }
        if let Some(fault) = settings.fault {
            found.extend(misses(fault, &status));
        }
        report.shortcomings = found.into_iter().map(Shortcoming).collect();
        report
    }

    /// Whether nothing is wrong with the rehearsal.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.shortcomings.is_empty()
    }

    fn of_workload(&self, settings: &Settings, writing: bool) -> Vec<String> {
        let workload = &self.workload;
        let mut found = Vec::new();
        if !workload.is_good() {
            found.push(format!(
                "the checker found {} lost, {} duplicated, {} differing, {} committed on Oracle after the fence: {}",
                workload.lost,
                workload.duplicated,
                workload.differing,
                workload.oracle_commits_after_fence,
                workload.examples,
            ));
        }
        if workload.oracle_committed < settings.orders {
            found.push(format!(
                "only {} orders were committed on Oracle",
                workload.oracle_committed
            ));
        }
        if !writing {
            found.push("after the run no application writes orders".to_owned());
        }
        found
    }

    fn of_run(&self, settings: &Settings) -> Vec<String> {
        let Some(run) = &self.run else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let wanted = if settings.fault.is_some() {
            ("rolled_back", Some(5))
        } else {
            ("completed", Some(0))
        };
        if (run.outcome.as_str(), run.exit_code) != wanted {
            found.push(format!(
                "the run is {}, not {}: {}",
                run.outcome, wanted.0, run.reason
            ));
        }
        let restored = self.not_restored.iter();
        found.extend(restored.map(|difference| format!("not as before: {difference}")));
        if let Some(struck) = self.kill.as_ref().filter(|struck| !struck.between) {
            found.push(format!(
                "{} on {} had ended before the kill",
                struck.step, struck.name
            ));
        }
        if run.outcome == "completed" && run.kind == "Cutover" {
            found.extend(self.of_cutover());
        }
        found
    }

    /// Every phase done, every step in one of them, and seen from outside.
    fn of_cutover(&self) -> Vec<String> {
        let mut found = Vec::new();
        let of = |step: &&str| {
            self.phases
                .iter()
                .any(|phase| phase.seed_steps.iter().any(|one| one == *step))
        };
        for step in self.effects.missing() {
            found.push(format!("nothing was seen of step {step}"));
        }
        for step in SEED_STEPS.iter().filter(|step| !of(step)) {
            found.push(format!("no phase is for step {step}"));
        }
        for phase in self.phases.iter().filter(|phase| phase.outcome != "done") {
            found.push(format!("phase {} is {}", phase.name, phase.outcome));
        }
        if self.drain.marker_ms.is_none() {
            found.push("the marker's way to PostgreSQL was not seen".to_owned());
        }
        found
    }

    /// Writes `report.json`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        }
        let text = serde_json::to_string_pretty(&self.to_json()).unwrap_or_default();
        std::fs::write(path, text + "\n").map_err(Error::file("write", path))
    }

    fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_else(|error| json!({"error": error.to_string()}))
    }

    /// The summary people read.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = vec![String::new()];
        if let Some(run) = &self.run {
            lines.push(format!(
                "run {}: {} (exit code {})",
                run.id,
                run.outcome,
                run.exit_code
                    .map_or_else(|| "none".into(), |code| code.to_string()),
            ));
            for phase in self.phases.iter().chain(&self.rollback_phases) {
                lines.push(format!(
                    "  {:34} {:8} {:>3} tasks, barrier {:>4} ms{}",
                    phase.name,
                    phase.outcome,
                    phase.tasks.len(),
                    phase.barrier_ms,
                    steps(&phase.seed_steps),
                ));
            }
        }
        let w = &self.workload;
        lines.push(format!(
            "orders: {} committed on Oracle at {:.0} a second, {} of them in PostgreSQL; {} committed on PostgreSQL",
            w.oracle_committed,
            w.oracle_orders_per_second.unwrap_or_default(),
            w.postgres_present,
            w.postgres_committed
        ));
        lines.push(format!(
            "        {} lost, {} duplicated, {} differing, {} on Oracle after the fence, {} in doubt",
            w.lost, w.duplicated, w.differing, w.oracle_commits_after_fence, w.in_doubt
        ));
        if let Some(kill) = &self.kill {
            lines.push(format!(
                "killed: {} {} in {} of {}, then started again",
                kill.role, kill.name, kill.step, kill.phase
            ));
        }
        if let (Some(scn), Some(ms)) = (&self.drain.scn, self.drain.marker_ms) {
            lines.push(format!(
                "drain: the fence at SCN {scn}; its marker reached PostgreSQL {ms} ms after its commit"
            ));
        }
        if let Some(outage) = self.write_outage_ms {
            lines.push(format!(
                "write outage: {:.1} s by the clients' clocks; {} ms of it for barriers",
                outage as f64 / 1000.0,
                self.outage_overhead_ms
            ));
        }
        if self.is_good() {
            lines.push("nothing is wrong".into());
        }
        lines.extend(self.shortcomings.iter().map(|s| format!("WRONG: {}", s.0)));
        lines.join("\n")
    }
}

/// Why the run did not meet its fault as it should have: in its own phase,
/// after another task of that phase where the plan has several.
fn misses(fault: Fault, run: &RunStatus) -> Vec<String> {
    let (name, part) = (fault.phase(), format!("{}.", fault.phase()));
    let mut found = Vec::new();
    let struck = run.reason.split("; ").any(|reason| {
        let failed = reason.strip_prefix("phase ").unwrap_or_default();
        failed.starts_with(&format!("{name} failed")) || failed.starts_with(&part)
    });
    if !struck {
        found.push(format!("the fault was not met in {name}: {}", run.reason));
    }
    let tasks: Vec<&TaskStatus> = run
        .phases
        .iter()
        .filter(|phase| phase.standard == name && phase.track != "rollback")
        .flat_map(|phase| &phase.tasks)
        .collect();
    let executed = |task: &&TaskStatus| matches!(task.outcome.as_str(), "done" | "standing");
    if tasks.len() > 1 && !tasks.iter().any(executed) {
        found.push(format!("no task of {name} was executed before the fault"));
    }
    found
}

fn steps(steps: &[String]) -> String {
    if steps.is_empty() {
        String::new()
    } else {
        format!("  (step {})", steps.join(", "))
    }
}
