//! Fold of a run's records into its state, without any decision.

use super::state::{
    PhaseState, PhaseStatus, Rollback, State, TaskState, TaskStatus, all_steps, task_key, undone_by,
};
use super::{Entry, StartError};
use crate::ids::{AgentName, PhaseRef, StepId, Term, Track};
use crate::record::{Begin, Record, UnknownFormat};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a journal can't be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    #[error("the run's journal is empty")]
    Empty,
    #[error("the run's journal doesn't begin with its `began` record")]
    NotBegun,
    #[error("record {seq} begins the run a second time")]
    BegunTwice { seq: u64 },
    /// A record is missing or out of order.
    #[error("found record {found} where record {expected} was expected")]
    Gap { expected: u64, found: u64 },
    #[error(transparent)]
    Format(#[from] UnknownFormat),
    #[error("the run's first record is not valid")]
    Invalid(#[source] StartError),
    /// The offered term is not higher than the journal's: another coordinator has
    /// led this run since (R9).
    #[error("term {offered} is not higher than term {journal} in the run's journal")]
    StaleTerm { offered: u64, journal: u64 },
}

/// # Errors
/// If the plan can't be run.
pub(super) fn check_begin(begin: &Begin) -> Result<(), StartError> {
    let resolved_plan = &begin.resolved_plan;
    if resolved_plan.forward.is_empty() {
        return Err(StartError::NoPhases);
    }
    let mut seen = BTreeSet::new();
    for (phase, step) in all_steps(resolved_plan) {
        if step.agents.is_empty() {
            return Err(StartError::NoAgents {
                step: step.id.clone(),
            });
        }
        if !seen.insert(&step.id) {
            return Err(StartError::DuplicateStep {
                step: step.id.clone(),
            });
        }
        if let Some(agent) = step.agents.iter().find(|a| !begin.members.contains_key(*a)) {
            return Err(StartError::NotAMember {
                agent: agent.clone(),
            });
        }
        if let Some(of) = undone_by(step) {
            let found = phase.track == Track::Rollback
                && resolved_plan
                    .forward
                    .iter()
                    .any(|p| p.steps.iter().any(|s| s.id == *of));
            if !found {
                return Err(StartError::UndoesNothing {
                    step: step.id.clone(),
                    of: of.clone(),
                });
            }
        }
    }
    match &resolved_plan.outage {
        Some(outage)
            if outage.starts_with > outage.ends_with
                || outage.ends_with as usize >= resolved_plan.forward.len() =>
        {
            Err(StartError::OutagePhases {
                starts_with: outage.starts_with,
                ends_with: outage.ends_with,
            })
        }
        _ => Ok(()),
    }
}

impl PhaseState {
    fn new() -> Self {
        Self {
            status: PhaseStatus::Pending,
            attempt: 0,
            tasks: BTreeMap::new(),
            rounds: 0,
            automatic_retries: 0,
            gate_opened: None,
            revoked: false,
            consumed: Vec::new(),
            promise_ages: BTreeMap::new(),
            ever_released: false,
        }
    }

    fn begin_round(&mut self, attempt: u32, tasks: &BTreeMap<AgentName, Vec<StepId>>) {
        self.status = PhaseStatus::Preparing;
        self.attempt = attempt;
        self.tasks = tasks.clone();
        self.rounds += 1;
        self.revoked = false;
        self.consumed.clear();
        self.promise_ages.clear();
    }
}

impl State {
    /// The state after a run's first record.
    pub(super) fn new(begin: Begin, term: Term) -> Self {
        let mut tasks = BTreeMap::new();
        for (phase, step) in all_steps(&begin.resolved_plan) {
            for agent in &step.agents {
                tasks.insert(
                    task_key(&step.id, agent),
                    TaskState {
                        phase,
                        status: TaskStatus::Waiting,
                        attempt: 0,
                        touched: false,
                        suspect: false,
                        reported: None,
                        assumed: None,
                        resolved: None,
                        still_unknown: false,
                        breached: false,
                    },
                );
            }
        }
        Self {
            forward: begin
                .resolved_plan
                .forward
                .iter()
                .map(|_| PhaseState::new())
                .collect(),
            backward: begin
                .resolved_plan
                .rollback
                .iter()
                .map(|_| PhaseState::new())
                .collect(),
            begin: Arc::new(begin),
            term,
            terms: BTreeMap::from([(term, 1)]),
            decisions_above: 0,
            last: 1,
            decision: 1,
            tasks,
            outputs: BTreeMap::new(),
            before_images: BTreeMap::new(),
            watches: BTreeMap::new(),
            breaches: Vec::new(),
            breach_pending: None,
            outstanding_undos: Vec::new(),
            late_undos: BTreeMap::new(),
            late_undos_left: BTreeMap::new(),
            paused: None,
            held: Vec::new(),
            rollback: None,
            abort: None,
            decisions_lost: Vec::new(),
            journals_lost: BTreeSet::new(),
            later_journals: BTreeMap::new(),
            requests: BTreeMap::new(),
            outage: None,
            ended: None,
            closed_by: BTreeSet::new(),
        }
    }

    /// Folds a run's journal.
    ///
    /// # Errors
    /// If the entries are not the complete journal of one run.
    pub fn fold(entries: impl IntoIterator<Item = Entry>) -> Result<Self, FoldError> {
        let mut entries = entries.into_iter();
        let first = entries.next().ok_or(FoldError::Empty)?;
        let Entry {
            seq: 1,
            record:
                Record::Began {
                    format,
                    begin,
                    term,
                },
        } = first
        else {
            return Err(FoldError::NotBegun);
        };
        format.check()?;
        check_begin(&begin).map_err(FoldError::Invalid)?;
        let mut state = Self::new(*begin, term);
        for entry in entries {
            if entry.seq != state.last + 1 {
                return Err(FoldError::Gap {
                    expected: state.last + 1,
                    found: entry.seq,
                });
            }
            if matches!(entry.record, Record::Began { .. }) {
                return Err(FoldError::BegunTwice { seq: entry.seq });
            }
            state.apply(&entry);
        }
        Ok(state)
    }

    pub(super) fn phase_mut(&mut self, phase: PhaseRef) -> Option<&mut PhaseState> {
        match phase.track {
            Track::Forward => &mut self.forward,
            Track::Rollback => &mut self.backward,
        }
        .get_mut(phase.index as usize)
    }

    /// Applies the record that follows the last one of this state.
    pub fn apply(&mut self, entry: &Entry) {
        self.last = entry.seq;
        if let Record::TookOver { decision, .. } = &entry.record {
            self.decisions_above = self.decisions_above.max(*decision);
        }
        if entry.record.decides() {
            self.decision = self.decisions_above.saturating_add(entry.seq);
        }
        if let Some(request) = entry.record.operator_request() {
            self.requests.insert(request.id.clone(), entry.seq);
        }
        self.apply_to_run(&entry.record);
        self.terms
            .entry(self.term)
            .and_modify(|last| *last = self.decision.max(*last))
            .or_insert(self.decision);
        self.apply_to_phase(&entry.record);
        self.apply_to_tasks(&entry.record);
        self.apply_to_late_undos(&entry.record);
        self.reconsider_breaches();
    }

    fn apply_to_run(&mut self, record: &Record) {
        match record {
            Record::TermBegan { term } => self.term = *term,
            Record::TookOver {
                agent,
                term,
                decision,
            } => self.took_over(agent, *term, *decision),
            Record::Preparing { outage, .. } | Record::Released { outage, .. } => {
                self.outage = self.outage.max(*outage);
            }
            Record::Paused { request } => self.paused = Some(request.clone()),
            Record::Resumed { .. } => {
                self.paused = None;
                self.held.clear();
            }
            Record::RollbackDecided { cause } => {
                self.paused = None;
                self.held.clear();
                self.breach_pending = None;
                self.rollback = Some(Rollback {
                    cause: cause.clone(),
                    began: false,
                    needed: false,
                });
            }
            Record::RollbackBegan {} => {
                let needed = self.anything_changed();
                if let Some(rollback) = &mut self.rollback {
                    rollback.began = true;
                    rollback.needed = needed;
                }
            }
            Record::AbortDecided { request } => self.abort = Some(request.clone()),
            Record::Breached {
                agent,
                step,
                detail,
            } => self.breached(agent, step, detail),
            Record::Contradicted { detail, .. } => self.held.push(detail.clone()),
            Record::UndoOutstanding { outstanding_undo } => {
                if !self.outstanding_undos.contains(outstanding_undo) {
                    self.outstanding_undos.push(outstanding_undo.clone());
                }
            }
            Record::JournalLost { agent, journal } => {
                self.journals_lost.insert(agent.clone());
                if let Some(journal) = journal {
                    self.later_journals.insert(agent.clone(), journal.clone());
                }
            }
            Record::Ended { ending } => self.ended = Some(*ending),
            Record::ClosedBy { agent } => {
                self.closed_by.insert(agent.clone());
            }
            // Part of the fold's initial state.
            Record::Began { .. }
            // These change phases and tasks only.
            | Record::GateOpened { .. }
            | Record::TaskEnded { .. }
            | Record::TaskLost { .. }
            | Record::Revoked { .. }
            | Record::Failed { .. }
            | Record::Completed { .. }
            | Record::Skipped { .. }
            | Record::RetryDecided { .. }
            | Record::Waived { .. }
            | Record::UnknownResolved { .. }
            | Record::LateUndoPreparing { .. }
            | Record::LateUndoReleased { .. }
            | Record::LateUndoLeft { .. }
            | Record::Disarmed { .. } => {}
        }
    }

    fn apply_to_phase(&mut self, record: &Record) {
        let Some(phase) = record.phase().and_then(|at| self.phase_mut(at)) else {
            return;
        };
        match record {
            Record::Preparing { attempt, tasks, .. } => phase.begin_round(*attempt, tasks),
            Record::GateOpened { request, .. } => phase.gate_opened = Some(request.clone()),
            Record::Released {
                consumed,
                promise_ages,
                ..
            } => {
                phase.status = PhaseStatus::Released;
                phase.consumed = consumed.clone();
                phase.promise_ages = promise_ages.clone();
                phase.ever_released = true;
            }
            Record::Revoked { .. } => phase.revoked = true,
            Record::Failed {
                failure, leads_to, ..
            } => {
                phase.status = PhaseStatus::Failed {
                    failure: failure.clone(),
                    leads_to: *leads_to,
                };
                phase.gate_opened = None;
                self.breach_pending = None;
            }
            Record::Completed { .. } => phase.status = PhaseStatus::Completed,
            Record::Skipped { why, .. } => phase.status = PhaseStatus::Skipped { why: why.clone() },
            Record::RetryDecided { request, .. } => {
                phase.status = PhaseStatus::Pending;
                phase.rounds = 0;
                match request {
                    None => phase.automatic_retries += 1,
                    Some(_) => {
                        phase.automatic_retries = 0;
                        // This retry runs the voided proofs again.
                        self.breach_pending = None;
                    }
                }
            }
            // `Record::phase` is `None` for these.
            Record::Began { .. }
            | Record::TermBegan { .. }
            | Record::TookOver { .. }
            | Record::TaskEnded { .. }
            | Record::TaskLost { .. }
            | Record::Waived { .. }
            | Record::UnknownResolved { .. }
            | Record::Paused { .. }
            | Record::Resumed { .. }
            | Record::RollbackDecided { .. }
            | Record::RollbackBegan {}
            | Record::AbortDecided { .. }
            | Record::Breached { .. }
            | Record::Disarmed { .. }
            | Record::Contradicted { .. }
            | Record::UndoOutstanding { .. }
            | Record::LateUndoPreparing { .. }
            | Record::LateUndoReleased { .. }
            | Record::LateUndoLeft { .. }
            | Record::JournalLost { .. }
            | Record::Ended { .. }
            | Record::ClosedBy { .. } => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::coordinator::Run;
    use crate::ids::{Digest, JournalId, RunId};
    use crate::message::Mode;
    use crate::resolved_plan::{Gate, OnFailure, PhaseSpec, ResolvedPlan, StepSpec};
    use serde_json::Value;

    pub(in crate::coordinator) fn begin(agents: &[&str]) -> Begin {
        let step = StepSpec {
            id: StepId::from("stop"),
            agents: agents.iter().map(|name| AgentName::from(*name)).collect(),
            action: "service.stop".to_owned(),
            mode: Mode::Execute,
            params: Value::Null,
            inputs: Vec::new(),
            timeout: 1_000,
            proof: false,
            required: false,
            undoable: true,
            watch_until: None,
            read_only: false,
        };
        let phase = PhaseSpec {
            name: "stop".to_owned(),
            gate: Gate::None,
            start_by: 1_000,
            finish_by: 1_000,
            on_failure: OnFailure::Hold,
            point_of_no_return: false,
            steps: vec![step],
        };
        Begin {
            run: RunId::from("run-1"),
            resolved_plan: ResolvedPlan {
                digest: Digest::from("d1"),
                forward: vec![phase],
                rollback: Vec::new(),
                detachable: BTreeSet::new(),
                outage: None,
            },
            members: BTreeMap::from([(AgentName::from("a"), JournalId::from("j"))]),
            by: "operator".to_owned(),
            trace: String::new(),
            rest: Value::Null,
        }
    }

    pub(in crate::coordinator) const TERM: Term = Term {
        number: 1,
        incarnation: 1,
    };

    fn entries() -> Vec<Entry> {
        let (_, effects) = Run::start(0, begin(&["a"]), TERM).expect("a valid plan");
        let entries = effects.into_iter().filter_map(|effect| match effect {
            crate::coordinator::Effect::Persist(entry) => Some(entry),
            crate::coordinator::Effect::Send { .. } => None,
        });
        entries.collect()
    }

    #[test]
    fn a_party_must_not_be_empty_and_everyone_is_a_member() {
        let start = |begin: Begin| Run::start(0, begin, TERM).map(|_| ());
        let step = StepId::from("stop");
        assert_eq!(start(begin(&[])), Err(StartError::NoAgents { step }));
        let agent = AgentName::from("b");
        assert_eq!(
            start(begin(&["a", "b"])),
            Err(StartError::NotAMember { agent })
        );
        let mut twice = begin(&["a"]);
        let again = twice.resolved_plan.forward[0].steps[0].clone();
        twice.resolved_plan.forward[0].steps.push(again);
        let step = StepId::from("stop");
        assert_eq!(start(twice), Err(StartError::DuplicateStep { step }));
    }

    #[test]
    fn the_fold_of_the_journal_is_the_state() {
        let (run, _) = Run::start(0, begin(&["a"]), TERM).expect("a valid plan");
        assert_eq!(State::fold(entries()).as_ref(), Ok(run.state()));
    }

    #[test]
    fn half_a_journal_is_refused() {
        assert_eq!(State::fold([]), Err(FoldError::Empty));
        let headless = entries().into_iter().skip(1);
        assert_eq!(State::fold(headless), Err(FoldError::NotBegun));
        let mut gap = entries();
        gap[1].seq = 7;
        let expected = FoldError::Gap {
            expected: 2,
            found: 7,
        };
        assert_eq!(State::fold(gap), Err(expected));
    }

    #[test]
    fn a_run_resumes_under_a_higher_term_only() {
        let stale = Run::resume(0, entries(), TERM).map(|_| ());
        let expected = FoldError::StaleTerm {
            offered: 1,
            journal: 1,
        };
        assert_eq!(stale, Err(expected));
    }
}
