//! The outcome of a run and of each of its phases, one word each.

use super::View;
use lockstep_api::{Exit, PhaseOutcome, RunOutcome};
use lockstep_barrier::coordinator::{PhaseState, PhaseStatus, State, TaskKey, TaskStatus, Wait};
use lockstep_barrier::ids::{PhaseRef, Track};
use lockstep_barrier::message::{Mode, Outcome};
use lockstep_barrier::record::{Ending, RollbackCause, SkipCause};

pub(super) fn of_run(run: &View<'_>) -> RunOutcome {
    let state = run.state();
    match state.ended {
        Some(Ending::Completed) if anything_left_out(state) => RunOutcome::CompletedWithSkips,
        Some(Ending::Completed) => RunOutcome::Completed,
        Some(Ending::RolledBack) if failed_untouched(state) => RunOutcome::Failed,
        Some(Ending::RolledBack) => RunOutcome::RolledBack,
        Some(Ending::Aborted) => RunOutcome::Aborted,
        None if run.waits_on().iter().any(needs_operator) => RunOutcome::Waiting,
        None => RunOutcome::Running,
    }
}

fn needs_operator(wait: &Wait) -> bool {
    match wait {
        Wait::Approval { .. }
        | Wait::HoldGate { .. }
        | Wait::Paused { .. }
        | Wait::Held { .. }
        | Wait::Decision { .. }
        | Wait::GiveUp { .. }
        | Wait::TakeOver { .. } => true,
        Wait::Outcome { lost, .. } => *lost,
        Wait::Vote { .. } | Wait::Disarm { .. } | Wait::Attestation { .. } | Wait::Close { .. } => {
            false
        }
    }
}

/// How a command that waited for this outcome ends; none while the run is
/// running.
pub(super) fn exit_code(run: &View<'_>, outcome: RunOutcome) -> Option<Exit> {
    Some(match outcome {
        RunOutcome::Running => return None,
        RunOutcome::Completed => Exit::Done,
        RunOutcome::CompletedWithSkips => Exit::WithSkips,
        RunOutcome::RolledBack => Exit::RolledBack,
        RunOutcome::Failed | RunOutcome::Aborted => Exit::Failed,
        RunOutcome::Waiting => {
            let mut decisions = run.waits_on().iter().filter(|wait| needs_operator(wait));
            let only_gates = decisions.all(|wait| {
                matches!(
                    wait,
                    Wait::Approval { .. } | Wait::HoldGate { .. } | Wait::Paused { .. }
                )
            });
            if only_gates {
                Exit::Waiting
            } else {
                Exit::Failed
            }
        }
    })
}

/// By an operator's decision a forward phase was skipped or a task not waited for.
fn anything_left_out(state: &State) -> bool {
    let skipped = |phase: &PhaseState| match &phase.status {
        PhaseStatus::Skipped { why } => matches!(why, SkipCause::Operator { .. }),
        PhaseStatus::Pending
        | PhaseStatus::Preparing
        | PhaseStatus::Released
        | PhaseStatus::Failed { .. }
        | PhaseStatus::Completed => false,
    };
    state.forward.iter().any(skipped) || waived_tasks(state).next().is_some()
}

/// Forward tasks that an operator waived, and whose outcome has not arrived since.
pub(super) fn waived_tasks(state: &State) -> impl Iterator<Item = &TaskKey> {
    state.tasks.iter().filter_map(|(key, task)| {
        let waived = task.status == TaskStatus::Waived && task.phase.track == Track::Forward;
        waived.then_some(key)
    })
}

/// A phase failed before anything was changed: there was nothing to roll back.
fn failed_untouched(state: &State) -> bool {
    state.rollback.as_ref().is_some_and(|rollback| {
        !rollback.needed && matches!(rollback.cause, RollbackCause::Policy { .. })
    })
}

/// After a rollback, a phase that failed is still `failed`, one whose changes
/// were undone is `undone`, and one that had changed nothing is still `done`.
pub(super) fn of_phase(run: &View<'_>, at: PhaseRef, phase: &PhaseState) -> PhaseOutcome {
    let state = run.state();
    let rolled_back = at.track == Track::Forward && state.ended == Some(Ending::RolledBack);
    match &phase.status {
        PhaseStatus::Pending => PhaseOutcome::Pending,
        PhaseStatus::Preparing if state.ended.is_some() => PhaseOutcome::Skipped,
        PhaseStatus::Preparing => {
            let gated = run.waits_on().iter().any(|wait| {
                matches!(wait, Wait::Approval { phase } | Wait::HoldGate { phase } if *phase == at)
            });
            if gated {
                PhaseOutcome::Gated
            } else {
                PhaseOutcome::Preparing
            }
        }
        // The rollback was decided while it was executing.
        PhaseStatus::Released if rolled_back => PhaseOutcome::Undone,
        PhaseStatus::Released => PhaseOutcome::Executing,
        PhaseStatus::Failed { .. } => PhaseOutcome::Failed,
        PhaseStatus::Completed if rolled_back && undone(state, at) => PhaseOutcome::Undone,
        PhaseStatus::Completed => PhaseOutcome::Done,
        PhaseStatus::Skipped { .. } => PhaseOutcome::Skipped,
    }
}

/// Whether a phase had changed something, and everything that the rollback plan
/// undoes of it was undone.
fn undone(state: &State, at: PhaseRef) -> bool {
    let undos = state
        .begin
        .resolved_plan
        .rollback
        .iter()
        .flat_map(|p| &p.steps);
    let mut any = false;
    for undo in undos {
        let Mode::Undo { of } = &undo.mode else {
            continue;
        };
        for agent in &undo.agents {
            let task = state.tasks.get(&(of.clone(), agent.clone()));
            let Some(task) = task.filter(|task| task.phase == at) else {
                continue;
            };
            if task.may_have_changed() {
                return false;
            }
            any |= task.outcome().is_some_and(Outcome::may_have_changed);
        }
    }
    any
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use PhaseOutcome::{Done, Failed, Pending, Undone};
    use lockstep_api::{Code, Diagnosis};
    use lockstep_barrier::coordinator::Entry;
    use lockstep_barrier::ids::{JournalId, StepId, Term};
    use lockstep_barrier::message::{Changes, TaskReport};
    use lockstep_barrier::record::{Begin, Failure, FormatVersion, PrepareReason, Record};
    use lockstep_barrier::resolved_plan::{Gate, OnFailure, PhaseSpec, ResolvedPlan, StepSpec};
    use std::collections::{BTreeMap, BTreeSet};

    pub(in crate::status) const AGENT: &str = "a";

    fn step(id: &str, mode: Mode) -> StepSpec {
        StepSpec {
            id: id.into(),
            agents: vec![AGENT.into()],
            action: "service.stop".into(),
            undoable: mode == Mode::Execute && id != "proof",
            proof: id == "proof",
            required: false,
            mode,
            params: serde_json::Value::Null,
            inputs: Vec::new(),
            timeout: 1_000,
            watch_until: None,
            read_only: false,
        }
    }

    fn spec(step: StepSpec) -> PhaseSpec {
        PhaseSpec {
            name: step.id.to_string(),
            gate: Gate::None,
            start_by: 1_000,
            finish_by: 1_000,
            on_failure: OnFailure::Rollback,
            point_of_no_return: false,
            steps: vec![step],
        }
    }

    pub(in crate::status) fn at(track: Track, index: u32) -> PhaseRef {
        PhaseRef { track, index }
    }

    /// Four phases: a proof and three changes; and the rollback of all changes.
    fn began() -> Record {
        let forward = ["proof", "one", "two", "three"];
        let undo = |of: &str| {
            let id = format!("undo-{of}");
            spec(step(&id, Mode::Undo { of: of.into() }))
        };
        let begin = Begin {
            run: "run".into(),
            resolved_plan: ResolvedPlan {
                digest: "digest".into(),
                forward: forward.map(|id| spec(step(id, Mode::Execute))).into(),
                rollback: ["three", "two", "one"].map(undo).into(),
                detachable: BTreeSet::new(),
                outage: None,
            },
            members: BTreeMap::from([(AGENT.into(), JournalId::from("journal"))]),
            by: "operator".into(),
            trace: String::new(),
            rest: serde_json::Value::Null,
        };
        Record::Began {
            format: FormatVersion::CURRENT,
            begin: Box::new(begin),
            term: Term::default(),
        }
    }

    /// A phase whose one task ends with this outcome.
    pub(in crate::status) fn executed(phase: PhaseRef, id: &str, outcome: Outcome) -> Vec<Record> {
        let failed = !outcome.is_good();
        let mut records = vec![
            Record::Preparing {
                phase,
                attempt: 1,
                reason: PrepareReason::Due,
                tasks: BTreeMap::from([(AGENT.into(), vec![StepId::from(id)])]),
                outage: None,
            },
            Record::Released {
                promise_ages: BTreeMap::new(),
                phase,
                attempt: 1,
                before_images: BTreeMap::new(),
                consumed: Vec::new(),
                outage: None,
            },
            Record::TaskEnded {
                agent: AGENT.into(),
                position: None,
                report: TaskReport {
                    run: "run".into(),
                    phase,
                    attempt: 1,
                    step: id.into(),
                    outcome,
                    outputs: BTreeMap::new(),
                    before_image: None,
                    changes: Changes::default(),
                    took: 5,
                },
            },
        ];
        records.push(if failed {
            Record::Failed {
                phase,
                attempt: 1,
                failure: Failure::Tasks {
                    tasks: vec![(id.into(), AGENT.into())],
                },
                leads_to: OnFailure::Rollback,
            }
        } else {
            Record::Completed { phase }
        });
        records
    }

    fn rollback(phase: PhaseRef, undone: &[(u32, &str)]) -> Vec<Record> {
        let mut records = vec![
            Record::RollbackDecided {
                cause: RollbackCause::Policy { phase },
            },
            Record::RollbackBegan {},
        ];
        for (index, of) in undone {
            let id = format!("undo-{of}");
            records.extend(executed(at(Track::Rollback, *index), &id, Outcome::Done));
        }
        records.push(Record::Ended {
            ending: Ending::RolledBack,
        });
        records
    }

    pub(in crate::status) fn folded(records: Vec<Record>) -> State {
        let entries = std::iter::once(began()).chain(records).zip(1..);
        State::fold(entries.map(|(record, seq)| Entry { seq, record })).unwrap()
    }

    fn outcomes(state: &State) -> Vec<PhaseOutcome> {
        let view = View::closed(state);
        let phases = state.forward.iter().zip(0..);
        phases
            .map(|(phase, index)| of_phase(&view, at(Track::Forward, index), phase))
            .collect()
    }

    pub(in crate::status) fn failure() -> Outcome {
        Outcome::failed(Diagnosis::new(Code::LS2103, "no"))
    }

    #[test]
    fn after_a_rollback_each_phase_says_what_became_of_it() {
        let forward = |index| at(Track::Forward, index);
        let mut records = executed(forward(0), "proof", Outcome::Done);
        records.extend(executed(forward(1), "one", Outcome::Done));
        records.extend(executed(forward(2), "two", failure()));
        let before = folded(records.clone());
        records.extend(rollback(forward(2), &[(1, "two"), (2, "one")]));
        let state = folded(records);
        assert_eq!(outcomes(&before), [Done, Done, Failed, Pending]);
        assert_eq!(outcomes(&state), [Done, Undone, Failed, Pending]);
        assert_eq!(of_run(&View::closed(&state)), RunOutcome::RolledBack);
    }

    #[test]
    fn what_was_so_before_is_not_undone() {
        let forward = |index| at(Track::Forward, index);
        let mut records = executed(forward(0), "proof", Outcome::Done);
        records.extend(executed(forward(1), "one", Outcome::Unchanged));
        records.extend(executed(forward(2), "two", Outcome::Done));
        records.extend(executed(forward(3), "three", failure()));
        // The undo of the second was skipped: its change is still in effect.
        records.extend(rollback(forward(3), &[(0, "three"), (2, "one")]));
        assert_eq!(outcomes(&folded(records)), [Done, Done, Done, Failed]);
    }

    #[test]
    fn a_run_that_failed_before_it_changed_anything_has_failed() {
        let first = at(Track::Forward, 0);
        let mut records = executed(first, "proof", failure());
        records.extend(rollback(first, &[]));
        let state = folded(records);
        let view = View::closed(&state);
        assert_eq!(of_run(&view), RunOutcome::Failed);
        assert_eq!(exit_code(&view, of_run(&view)), Some(Exit::Failed));
        assert_eq!(outcomes(&state)[0], Failed);
    }
}
