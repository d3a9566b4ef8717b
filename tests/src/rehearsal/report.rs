//! The report: what `report.json` holds, and the summary people read.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::product::{self, PhaseStatus, RunStatus, TaskStatus};
use super::{Effects, Settings, State, Verdict};
use crate::range::{Error, Listed, Range};

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
    /// Until the marker was seen in PostgreSQL.
    pub marker_ms: Option<u64>,
}

impl From<&PhaseStatus> for Phase {
    fn from(phase: &PhaseStatus) -> Self {
        Self {
            name: phase.name.clone(),
            seed_steps: phase.seed_steps.clone(),
            outcome: phase.outcome.clone(),
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

impl Report {
    /// Puts everything together and judges it.
    #[must_use]
    pub fn assemble(
        range: &Range,
        settings: &Settings,
        run: Option<RunStatus>,
        before: &State,
        after: &State,
        workload: Verdict,
        effects: Effects,
    ) -> Self {
        let status = run.unwrap_or_default();
        let of_track = |rollback: bool| {
            let phases = status.phases.iter();
            phases.filter(move |phase| (phase.track == "rollback") == rollback)
        };
        let overhead = of_track(false)
            .filter(|phase| OUTAGE.contains(&phase.standard.as_str()))
            .map(|phase| phase.barrier_ms)
            .sum();
        let marker = product::tasks(&status, "postgres.marker.await").next();
        let rolled_back = status.outcome == "rolled_back";
        let mut report = Self {
            phases: of_track(false).map(Phase::from).collect(),
            rollback_phases: of_track(true).map(Phase::from).collect(),
            write_outage_ms: workload.write_outage_ms,
            workload,
            effects,
            drain: Drain {
                scn: product::fence_scn(&status),
                marker_ms: marker.map(|task| task.ms),
            },
            outage_overhead_ms: overhead,
            processes: range.processes(),
            fault: settings.fault.map(|fault| fault.to_string()),
            not_restored: if rolled_back {
                after.differences(before)
            } else {
                Vec::new()
            },
            run: settings.range.product.then_some(Run {
                id: status.id,
                plan: status.plan,
                kind: status.kind,
                digest: status.digest,
                outcome: status.outcome,
                exit_code: status.exit_code,
                trace_id: status.trace_id,
                reason: status.reason,
            }),
            shortcomings: Vec::new(),
        };
        report.shortcomings = report.judge(settings);
        report
    }

    /// Whether nothing is wrong with the rehearsal.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.shortcomings.is_empty()
    }

    fn judge(&self, settings: &Settings) -> Vec<Shortcoming> {
        let mut found = Vec::new();
        let mut note = |wrong: bool, text: String| {
            if wrong {
                found.push(Shortcoming(text));
            }
        };
        let workload = &self.workload;
        note(
            !workload.is_good(),
            format!(
                "the checker found {} lost, {} duplicated, {} differing, {} committed on Oracle after the fence: {}",
                workload.lost,
                workload.duplicated,
                workload.differing,
                workload.oracle_commits_after_fence,
                workload.examples,
            ),
        );
        note(
            workload.oracle_committed < settings.orders,
            format!(
                "only {} orders were committed on Oracle",
                workload.oracle_committed
            ),
        );
        let Some(run) = &self.run else {
            return found;
        };
        let wanted = if settings.fault.is_some() {
            "rolled_back"
        } else {
            "completed"
        };
        note(
            run.outcome != wanted,
            format!("the run is {}, not {wanted}: {}", run.outcome, run.reason),
        );
        if run.outcome == "rolled_back" {
            for difference in &self.not_restored {
                note(true, format!("not as before: {difference}"));
            }
        }
        if run.outcome == "completed" && run.kind == "Cutover" {
            for step in self.effects.missing() {
                note(true, format!("nothing was seen of step {step}"));
            }
            for phase in self.phases.iter().filter(|phase| phase.outcome != "done") {
                note(true, format!("phase {} is {}", phase.name, phase.outcome));
            }
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
            "orders: {} committed on Oracle, {} of them in PostgreSQL; {} committed on PostgreSQL",
            w.oracle_committed, w.postgres_present, w.postgres_committed
        ));
        lines.push(format!(
            "        {} lost, {} duplicated, {} differing, {} on Oracle after the fence, {} in doubt",
            w.lost, w.duplicated, w.differing, w.oracle_commits_after_fence, w.in_doubt
        ));
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

fn steps(steps: &[String]) -> String {
    if steps.is_empty() {
        String::new()
    } else {
        format!("  (step {})", steps.join(", "))
    }
}
