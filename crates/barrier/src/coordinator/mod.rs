//! The coordinator: one state machine per run.
//!
//! [`Run::handle`] and [`Run::verb`] take an input and return effects, in order. Every decision is one record: it is applied to the state when its
//! `Persist` is emitted, and only the sends after it in the list may rely on
//! it. State that is in no record (votes, connections, send times) is lost in
//! a restart on purpose: votes count in their own term (R9), and deadlines
//! start again (R11). The rules are defined in `docs/protocol.md`.
//!
//! Choosing terms, authorising operators and admitting agents is up to the
//! driver. It must not report an agent as connected that it has not admitted.

use crate::ids::{AgentName, JournalId, Millis, PhaseRef, RunId, StepId, Term};
use crate::message::{AgentState, Order, Reply, Verdict};
use crate::record::{Begin, FormatVersion, JournalPosition, Record, Resolution};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod blockers;
mod failure;
mod fold;
mod late_undo;
mod outcome;
mod prepare;
mod release;
mod resend;
mod rollback;
mod state;
mod tasks;
mod verbs;
mod watch;

pub use blockers::Wait;
pub use fold::FoldError;
pub use state::{
    Breach, LateUndo, PhaseState, PhaseStatus, Rollback, State, TaskKey, TaskState, TaskStatus,
    WatchState,
};
pub use verbs::{RejectionCode, VerbRejected};

/// How long an agent may stay silent past `finish_by` before its tasks are `lost`: it
/// cancels them at `finish_by`, and its report may be on the way (R12).
pub const LOST_GRACE: Millis = 5_000;

/// Minimum remaining lifetime of every promise at the release, so that the
/// release arrives before it lapses (R12); a fifth of `start_by` if that is less.
pub const RELEASE_MARGIN: Millis = 2_000;

/// An attestation may be this old when the release relies on it: *g* in R17.
/// A breach within this window can remain undetected.
pub const ATTESTATION_MAX_AGE: Millis = 2_000;

/// Bytes of JSON of the refusals that one failure records in full. Beyond it, only
/// the first reason of an agent is recorded, and shortened, so that the record of
/// 10,000 agents' refusals can be stored.
pub const MAX_REFUSALS: usize = 1 << 20;

/// Bytes of JSON that one release records of all votes' before-images, and that it
/// carries to one agent: half the limit of a journal entry and of a message, so
/// that every release can be stored and received.
pub const MAX_RELEASE: usize = 2 << 20;

/// Maximum number of recorded breaches per watch. Further ones have no effect on
/// the run.
pub const MAX_BREACHES: usize = 1_000;

/// After a restart, how long a participant may stay silent before deadlines
/// and the budget are enforced again (R11): agents reconnect within seconds.
pub const RESTART_GRACE: Millis = 30_000;

/// Maximum prepare rounds in succession before lapses fail a phase: promises that
/// lapse this often mean that `start_by` is too short. A round after which the phase
/// was ready, and waited only for an operator, ends the succession, as does a restart.
pub const MAX_ROUNDS: u32 = 6;

/// Maximum automatic retries of a phase: a task that is interrupted repeatedly
/// needs an operator.
pub const MAX_AUTOMATIC_RETRIES: u32 = 3;

/// One record with its position. `seq` counts per run, from 1, without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub seq: u64,
    pub record: Record,
}

/// An input of the run's state machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// An agent's session was admitted.
    Connected(AgentState),
    Disconnected(AgentName),
    /// An agent has accepted another coordinator's term or decision, and an
    /// operator has confirmed that the other coordinator is stopped permanently
    /// (R11). Precedes [`Event::Connected`].
    TakenOver(AgentState),
    /// An operator accepted the agent although its journal has gone back (R10). An
    /// agent that comes with another journal is recognised by
    /// [`Event::Connected`].
    Quarantined(AgentName),
    /// A later run has begun. Undos that are still outstanding after the end of this
    /// one would work against it, and are not executed any more. Repeated in each
    /// process, before any agent is connected.
    Superseded {
        by: RunId,
    },
    Reply {
        /// The agent, by its certificate.
        from: AgentName,
        reply: Reply,
        /// The last entry of its journal; recorded with outcomes (R10).
        position: Option<JournalPosition>,
    },
    /// Time passed; at the latest at [`Run::next_deadline`].
    Tick,
}

/// The driver must execute effects in the order of their list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make it durable before anything that follows. A failure ends the
    /// process (R23).
    Persist(Entry),
    /// Pass it to the agent's session; dropped if there is none. Orders that are
    /// still valid are resent when the agent connects.
    Send { to: AgentName, order: Order },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Verb {
    /// Idempotency key, generated by the client (R20).
    pub request: String,
    /// The operator, by certificate.
    pub by: String,
    /// Required where something is skipped, waived or resolved.
    pub reason: Option<String>,
    /// The run's sequence that the operator has seen; the verb is rejected if the
    /// run has decided anything since (R14, R20).
    pub expected: Option<u64>,
    pub action: VerbAction,
}

/// See [`Verb`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb")]
pub enum VerbAction {
    /// Open an approval gate.
    Approve {
        phase: PhaseRef,
        digest: crate::ids::Digest,
    },
    /// End a pause, a hold, or a hold gate.
    Resume,
    /// Release nothing more until resumed. Running tasks continue.
    Pause,
    /// Retry those tasks of the failed phase that did not succeed (R4).
    Retry,
    /// Leave the failed phase as it is and continue with the next.
    Skip,
    Rollback,
    /// End the run as soon as no task is open.
    Abort,
    /// Stop waiting for an open task whose agent can't be reached (R5).
    Waive {
        agent: AgentName,
        step: StepId,
    },
    /// Declare the result of an `unknown` or `drifted` task.
    ResolveUnknown {
        agent: AgentName,
        step: StepId,
        resolution: Resolution,
    },
}

/// Why a run can't begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("the plan has no forward phase")]
    NoPhases,
    /// A step without agents would be vacuously ready (R21).
    #[error("step {step} has no agents; a party must not be empty")]
    NoAgents { step: StepId },
    /// Step ids name tasks and must be unique over both tracks.
    #[error("step id {step} occurs twice")]
    DuplicateStep { step: StepId },
    /// An agent of the plan is not a member.
    #[error("agent {agent} has tasks but is not a member of the run (no journal known)")]
    NotAMember { agent: AgentName },
    /// A rollback step restores a step that doesn't exist in the plan.
    #[error("rollback step {step} undoes {of}, which is no forward step")]
    UndoesNothing { step: StepId, of: StepId },
    /// The outage's phases are not in the plan.
    #[error("the outage budget names phases {starts_with} to {ends_with}, which the plan lacks")]
    OutagePhases { starts_with: u32, ends_with: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vote {
    pub verdict: Verdict,
    /// When the promise lapses, by the coordinator's clock. Counted from before
    /// Prepare was sent, so it is not later than at the agent (R12).
    pub lapses: Millis,
    /// When it was promised, by the coordinator's clock. Counted from the receipt of
    /// the vote, so it is not earlier than at the agent (R12). For other verdicts than
    /// `ready`, the time of the receipt.
    pub promised: Millis,
}

/// A round of attestation requests to the watches (R17).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attesting {
    nonce: u64,
    requested_at: Millis,
    answered: BTreeSet<TaskKey>,
}

/// The current Prepare or Release of a late undo.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LateRound {
    /// When it was first sent in this session.
    began: Millis,
    vote: Option<Vote>,
}

impl LateRound {
    fn new(began: Millis) -> Self {
        Self { began, vote: None }
    }
}

/// State that is lost in a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Live {
    connected: BTreeSet<AgentName>,
    /// Agents that have connected or replied in this term.
    contacted: BTreeSet<AgentName>,
    /// Votes of the current attempt.
    votes: BTreeMap<AgentName, Vote>,
    /// When Prepare of the current attempt was first sent, by agent.
    sent: BTreeMap<AgentName, Millis>,
    round_began: Millis,
    /// Rounds in succession, see [`MAX_ROUNDS`].
    rounds: u32,
    /// When the current phase was released; the start of the process if that was
    /// earlier.
    released_at: Millis,
    /// The same, from the ages that agents reported after a restart.
    reported_releases: BTreeMap<AgentName, Millis>,
    /// When the write outage began, by this clock; earlier than the process
    /// if an agent's age says so (R13).
    outage_began: Option<Millis>,
    attesting: Option<Attesting>,
    nonces: u64,
    /// No deadline is enforced before this (R11); `None` once every agent has
    /// connected.
    grace_until: Option<Millis>,
    /// When disarming was first requested for the coming release or rollback.
    disarming_since: Option<Millis>,
    /// The phase whose Revoke was sent since the run turned back.
    revoke_repeated: Option<PhaseRef>,
    /// The rounds of late undos, by agent. That of an agent whose session is new
    /// begins again.
    late: BTreeMap<AgentName, LateRound>,
    /// Rounds of late undos since the agent connected; bounded.
    late_rounds: BTreeMap<AgentName, u32>,
    /// Agents whose late undos failed in this session.
    late_blocked: BTreeSet<AgentName>,
    /// The later run, see [`Event::Superseded`].
    superseded: Option<RunId>,
    /// Agents that connected without a lock on this run and have promised nothing
    /// since.
    unlocked: BTreeSet<AgentName>,
    /// Agents to which Close was sent in this session.
    close_sent: BTreeSet<AgentName>,
    /// An agent has accepted another coordinator's orders, so this one makes no
    /// more decisions (R11). The evidence, in a sentence.
    fenced: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    state: State,
    live: Live,
}

impl Run {
    /// Begins a run: its first record, and the first phase's Prepare.
    ///
    /// # Errors
    /// If the plan can't be run; nothing has been recorded or sent then.
    pub fn start(now: Millis, begin: Begin, term: Term) -> Result<(Self, Vec<Effect>), StartError> {
        fold::check_begin(&begin)?;
        let mut run = Self {
            state: State::new(begin.clone(), term),
            live: Live {
                contacted: begin.members.keys().cloned().collect(),
                ..Live::default()
            },
        };
        let record = Record::Began {
            format: FormatVersion::CURRENT,
            begin: Box::new(begin),
            term,
        };
        let mut effects = vec![Effect::Persist(Entry { seq: 1, record })];
        run.advance(now, &mut effects);
        Ok((run, effects))
    }

    /// Resumes a run from its journal under a new term. Unanswered orders are
    /// resent as agents connect.
    ///
    /// # Errors
    /// If the entries are not a run's journal, or the term is not higher than
    /// every term in it.
    pub fn resume(
        now: Millis,
        entries: impl IntoIterator<Item = Entry>,
        term: Term,
    ) -> Result<(Self, Vec<Effect>), FoldError> {
        let state = State::fold(entries)?;
        if term.number <= state.term.number {
            return Err(FoldError::StaleTerm {
                offered: term.number,
                journal: state.term.number,
            });
        }
        let mut run = Self {
            live: Live {
                round_began: now,
                released_at: now,
                outage_began: state.outage.map(|elapsed| now.saturating_sub(elapsed)),
                grace_until: Some(now.saturating_add(RESTART_GRACE)),
                ..Live::default()
            },
            state,
        };
        let mut effects = Vec::new();
        run.persist(Record::TermBegan { term }, &mut effects);
        run.prepare_in_new_term(now, &mut effects);
        run.advance(now, &mut effects);
        Ok((run, effects))
    }

    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Connected(agent_state) => self.connected(now, &agent_state, &mut effects),
            Event::Disconnected(agent) => {
                self.live.connected.remove(&agent);
            }
            Event::TakenOver(agent_state) => self.take_over(&agent_state, &mut effects),
            Event::Quarantined(agent) => self.journal_lost(&agent, None, &mut effects),
            Event::Superseded { by } => self.live.superseded = Some(by),
            Event::Reply {
                from,
                reply,
                position,
            } => {
                let known = self.state.begin.members.contains_key(&from);
                if known && self.live.fenced.is_none() {
                    self.record_contact(now, &from);
                    self.receive_reply(now, from, reply, position, &mut effects);
                }
            }
            Event::Tick => {}
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Executes an operator's request.
    ///
    /// # Errors
    /// If the state doesn't allow it; nothing has changed then. The error has the
    /// reason and a remedy.
    pub fn verb(&mut self, now: Millis, verb: Verb) -> Result<Vec<Effect>, VerbRejected> {
        let mut effects = Vec::new();
        self.decide_verb(verb, &mut effects)?;
        self.advance(now, &mut effects);
        Ok(effects)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn id(&self) -> &RunId {
        &self.state.begin.run
    }

    /// The journal an agent had when the run began (R21).
    pub fn journal_of(&self, agent: &AgentName) -> Option<&JournalId> {
        self.state.begin.members.get(agent)
    }

    /// Votes of the current attempt.
    pub fn votes(&self) -> &BTreeMap<AgentName, Vote> {
        &self.live.votes
    }

    /// The run has ended and every member has confirmed it; the state machine may
    /// be dropped.
    pub fn is_closed(&self) -> bool {
        self.state.ended.is_some()
            && self
                .state
                .begin
                .members
                .keys()
                .all(|agent| self.state.closed_by.contains(agent))
    }

    /// Applies a record to the state, and has it written before the effects
    /// that follow in the list.
    fn persist(&mut self, record: Record, effects: &mut Vec<Effect>) {
        let entry = Entry {
            seq: self.state.last + 1,
            record,
        };
        self.state.apply(&entry);
        effects.push(Effect::Persist(entry));
    }

    fn send(&self, to: &AgentName, order: Order, effects: &mut Vec<Effect>) {
        if self.live.connected.contains(to) {
            effects.push(Effect::Send {
                to: to.clone(),
                order,
            });
        }
    }

    fn record_contact(&mut self, now: Millis, agent: &AgentName) {
        self.live.contacted.insert(agent.clone());
        let all = self
            .state
            .begin
            .members
            .keys()
            .all(|member| self.live.contacted.contains(member));
        if all
            && self
                .live
                .grace_until
                .take()
                .is_some_and(|until| until > now)
        {
            // Every agent has connected and has been sent its orders, so
            // deadlines can be enforced again, counted from now.
            self.live.round_began = self.live.round_began.max(now);
        }
    }

    /// Deadlines and the budget are not enforced yet (R11).
    fn in_grace(&self, now: Millis) -> bool {
        self.live.grace_until.is_some_and(|until| now < until)
    }

    /// Takes every step that the state allows. This terminates because each
    /// step changes the state so that it can't be taken again.
    fn advance(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        while self.step(now, effects) || self.step_late_undos(now, effects) {}
        self.close_settled(effects);
    }

    fn step(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        if self.state.ended.is_some() || self.live.fenced.is_some() {
            return false;
        }
        // Another coordinator's decisions are unknown here: only abort is
        // allowed (R11).
        if !self.state.decisions_lost.is_empty() && self.state.abort.is_none() {
            return false;
        }
        self.start_outage_clock(now);
        if self.watch_outage(now, effects) {
            return true;
        }
        if self.is_draining() {
            return self.drain(now, effects);
        }
        let Some(phase) = self.state.current() else {
            return self.end_of_track(now, effects);
        };
        let Some(status) = self.state.phase(phase).map(|p| &p.status) else {
            return false;
        };
        match *status {
            PhaseStatus::Pending => self.begin_phase(now, phase, effects),
            PhaseStatus::Preparing => self.evaluate_round(now, phase, effects),
            PhaseStatus::Released => self.evaluate_outcomes(now, phase, effects),
            PhaseStatus::Failed { leads_to, .. } => self.after_failure(phase, leads_to, effects),
            PhaseStatus::Completed | PhaseStatus::Skipped { .. } => false,
        }
    }
}
