//! The report: what `report.json` holds, and the summary people read.

use super::judge::{code, contradictions, misses};
use super::outage;
use super::product::{PhaseStatus, RunStatus, TaskStatus};
use super::{Effects, SEED_STEPS, Settings, State, Struck, Verdict};
use crate::range::{Error, Listed};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// Orders committed before the fence in a rehearsal of full size.
const FULL_ORDERS: u64 = 2_000;

/// Orders a second at full size.
const FULL_RATE: u32 = 200;

/// Why a rehearsal is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortcoming(pub String);

/// The report of a rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The run, if the product took part.
    pub run: Option<Run>,
    pub phases: Vec<Phase>,
    /// Those of the rollback plan, if it was run.
    pub rollback_phases: Vec<Phase>,
    /// The independent checker's verdict.
    pub workload: Verdict,
    /// What the range saw of each step.
    pub effects: Effects,
    /// How the last changes were proved to have arrived.
    pub drain: Drain,
    /// By the clients' own logs: from Oracle's last order to PostgreSQL's
    /// first, or the applications' pause where they stayed with Oracle.
    pub write_outage_ms: Option<i64>,
    /// The outage less the critical path of the actions inside it.
    pub outage_overhead_ms: Option<u64>,
    /// What the range had started.
    pub processes: Vec<Listed>,
    /// The fault that was made, if any.
    pub fault: Option<String>,
    /// The process that was killed in the middle, if any.
    pub kill: Option<Struck>,
    /// What was done more often than once; not looked for after a rollback,
    /// which does some things again.
    pub repeated: Vec<String>,
    /// After a rollback: what is not as it was.
    pub not_restored: Vec<String>,
    /// Why the rehearsal is not good; empty when it is.
    pub shortcomings: Vec<Shortcoming>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub id: String,
    pub plan: String,
    /// Kind of the plan.
    pub kind: String,
    pub digest: String,
    /// `completed`, `rolled-back`, `failed`, `aborted`, `waiting`.
    pub outcome: String,
    /// With which the command that watched it to the end has ended.
    pub exit_code: Option<u8>,
    pub trace_id: String,
    /// Why it did not complete.
    pub reason: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    pub name: String,
    /// Steps of the procedure.
    pub runbook_steps: Vec<String>,
    /// `done`, `failed`, `skipped`, `undone`.
    pub outcome: String,
    /// What the barrier itself cost.
    pub barrier_ms: u64,
    pub tasks: Vec<Task>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Task {
    pub agent: String,
    pub action: String,
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

impl Run {
    fn of(status: &RunStatus, exit_code: Option<u8>) -> Self {
        Self {
            id: status.id.clone(),
            plan: status.plan.clone(),
            kind: status.kind.clone(),
            digest: status.digest.clone(),
            outcome: status.outcome.clone(),
            exit_code,
            trace_id: status.trace_id.clone(),
            reason: status.reason.clone(),
        }
    }
}

impl From<&PhaseStatus> for Phase {
    fn from(phase: &PhaseStatus) -> Self {
        Self {
            name: phase.name.clone(),
            runbook_steps: phase.runbook_steps.clone(),
            outcome: outcome_of(phase).to_owned(),
            barrier_ms: phase.barrier_ms,
            tasks: phase.tasks.iter().map(Task::from).collect(),
        }
    }
}

/// How a phase stands when nothing moves any more.
fn outcome_of(phase: &PhaseStatus) -> &str {
    match phase.outcome.as_str() {
        // A rollback, an abort or a wait came before its release.
        "pending" | "preparing" | "gated" => "skipped",
        // The run has stopped in it.
        "executing" => "failed",
        other => other,
    }
}

impl From<&TaskStatus> for Task {
    fn from(task: &TaskStatus) -> Self {
        Self {
            agent: task.agent.clone(),
            action: task.action.clone(),
            outcome: task.outcome.clone(),
            ms: task.took_ms,
            detail: task.detail.clone(),
        }
    }
}

/// What the range itself has seen of a rehearsal.
#[derive(Debug)]
pub struct Observed {
    /// The landscape before the run.
    pub before: State,
    /// The landscape after it.
    pub after: State,
    /// The independent checker's verdict.
    pub verdict: Verdict,
    pub effects: Effects,
    /// What was done more often than once.
    pub repeated: Vec<String>,
    /// From the marker's commit on Oracle to its commit in PostgreSQL.
    pub marker_ms: Option<u64>,
    /// The SCNs that markers in Oracle name.
    pub marker_scns: Vec<u64>,
    /// With which the command has ended.
    pub exit_code: Option<u8>,
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
        let outage = outage::of(&status, &observed.verdict);
        let done_twice = match status.outcome.as_str() {
            "completed" | "waiting" if status.kind == "Cutover" => observed.repeated,
            _ => Vec::new(),
        };
        let not_restored = if status.outcome == "rolled-back" {
            observed.after.differences(&observed.before)
        } else {
            Vec::new()
        };
        let mut report = Self {
            phases: of_track(false).map(Phase::from).collect(),
            rollback_phases: of_track(true).map(Phase::from).collect(),
            write_outage_ms: outage.map(|(from, to)| to - from),
            outage_overhead_ms: outage.map(|outage| outage::overhead(outage, &status.phases)),
            effects: observed.effects,
            drain: Drain {
                scn: observed.verdict.fence_scn.map(|scn| scn.to_string()),
                marker_ms: observed.marker_ms,
            },
            workload: observed.verdict,
            processes: observed.processes,
            fault: settings.fault.map(|fault| fault.to_string()),
            kill: observed.struck,
            repeated: done_twice,
            not_restored,
            run: settings
                .range
                .product
                .then(|| Run::of(&status, observed.exit_code)),
            shortcomings: Vec::new(),
        };
        let mut found = report.of_workload(settings, observed.writing);
        found.extend(report.of_load(settings));
        found.extend(report.of_run(settings));
        found.extend(contradictions(
            &status,
            observed.exit_code,
            &observed.marker_scns,
        ));
        found.extend(report.repeated.iter().cloned());
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
                "the checker found {} lost, {} duplicated, {} differing, {} missing in PostgreSQL, \
                 {} committed on Oracle after the fence; of order lines {} lost, {} duplicated, \
                 {} differing, {} of no order: {}",
                workload.lost,
                workload.duplicated,
                workload.differing,
                workload.postgres_missing,
                workload.oracle_commits_after_fence,
                workload.lines_lost,
                workload.lines_duplicated,
                workload.lines_differing,
                workload.lines_orphaned,
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

    /// Whether enough was going on before the run, where that was asked for.
    fn of_load(&self, settings: &Settings) -> Option<String> {
        if settings.orders < FULL_ORDERS || settings.range.rate < FULL_RATE {
            return None;
        }
        let orders = self.workload.oracle_orders_before_run;
        let rate = self.workload.oracle_orders_per_second.unwrap_or_default();
        let enough = orders >= FULL_ORDERS && rate >= f64::from(FULL_RATE);
        (!enough).then(|| {
            format!(
                "before the run {orders} orders were committed, at {rate:.1} a second; at full \
                 size it takes {FULL_ORDERS} at {FULL_RATE}. A machine that is too slow or too \
                 busy for that can do less: --rate, --orders"
            )
        })
    }

    fn of_run(&self, settings: &Settings) -> Vec<String> {
        let Some(run) = &self.run else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let wanted = if settings.fault.is_some() {
            ("rolled-back", Some(5))
        } else {
            ("completed", Some(0))
        };
        if (run.outcome.as_str(), run.exit_code) != wanted {
            found.push(format!(
                "the run is {} with exit code {}, not {}: {}",
                run.outcome,
                code(run.exit_code),
                wanted.0,
                run.reason
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
                .any(|phase| phase.runbook_steps.iter().any(|one| one == *step))
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
                code(run.exit_code),
            ));
            for phase in self.phases.iter().chain(&self.rollback_phases) {
                lines.push(format!(
                    "  {:34} {:8} {:>3} tasks, barrier {:>4} ms{}",
                    phase.name,
                    phase.outcome,
                    phase.tasks.len(),
                    phase.barrier_ms,
                    steps(&phase.runbook_steps),
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
        lines.push(format!(
            "        {} order lines; of {} orders lost, of {} duplicated, of {} differing",
            w.order_lines, w.lines_lost, w.lines_duplicated, w.lines_differing
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
        if let (Some(outage), Some(overhead)) = (self.write_outage_ms, self.outage_overhead_ms) {
            lines.push(format!(
                "write outage: {:.1} s by the clients' clocks; {overhead} ms of it beyond the actions",
                outage as f64 / 1000.0,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(outcome: &str) -> PhaseStatus {
        PhaseStatus {
            standard: "stop-dms".into(),
            outcome: outcome.into(),
            ..PhaseStatus::default()
        }
    }

    #[test]
    fn a_phase_at_rest_has_one_of_four_outcomes() {
        let cases = [
            ("done", "done"),
            ("failed", "failed"),
            ("skipped", "skipped"),
            ("undone", "undone"),
            ("pending", "skipped"),
            ("preparing", "skipped"),
            ("gated", "skipped"),
            ("executing", "failed"),
        ];
        for (said, reported) in cases {
            assert_eq!(outcome_of(&phase(said)), reported, "{said}");
        }
    }
}
