//! The coordinator's side: one machine per run.
//!
//! [`Run::handle`] and [`Run::verb`] take an event and return effects, in
//! order. Every decision is one record: it is applied to the state when its
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
    Breach, PhaseState, PhaseStatus, Rollback, State, TaskKey, TaskState, TaskStatus, WatchState,
};
pub use verbs::{Refused, RefusedCode};

/// How long an agent that was released past its `finish_by` may stay silent
/// before its tasks are `lost`: the answer may be on its way, and the agent
/// counts from the receipt (R12).
pub const LOST_GRACE: Millis = 5_000;

/// A release leaves at least this much of every vote, so that it arrives
/// before the promise lapses (R12); a fifth of `start_by` where that is less.
pub const RELEASE_MARGIN: Millis = 2_000;

/// An attestation may be this old when the release relies on it: *g* in R17.
/// It is the window in which a breach can go unseen.
pub const ATTESTATION_MAX_AGE: Millis = 2_000;

/// Bytes of JSON that one release records of all votes' before-images, and that it
/// carries to one agent: half of what an entry of a journal and a message may
/// have, so that neither side gets one that it can't store or receive.
pub const MAX_RELEASE: usize = 2 << 20;

/// Breaches of one watch that are recorded: enough to examine by hand. One
/// breach voids as much as a thousand do.
pub const MAX_BREACHES: usize = 1_000;

/// After a restart, how long a participant may stay silent before deadlines
/// and the budget are judged again (R11): agents reconnect within seconds.
pub const RESTART_GRACE: Millis = 30_000;

/// Prepare rounds a phase may take before lapses count as its failure. A
/// promise that lapses so often says that `start_by` is too short.
pub const MAX_ROUNDS: u32 = 6;

/// Retries of a phase without an operator: a task that is interrupted again
/// and again needs one.
pub const MAX_AUTOMATIC_RETRIES: u32 = 3;

/// One record with its place. `seq` counts per run, from 1, without a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub seq: u64,
    pub record: Record,
}

/// An input of the run's state machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An agent's session was admitted.
    Connected(AgentState),
    Disconnected(AgentName),
    /// An agent has obeyed another coordinator's term or decision, and an
    /// operator has confirmed that the other one is stopped for good (R11).
    /// Precedes [`Event::Connected`].
    TakenOver(AgentState),
    /// The agent was admitted by an operator although its journal is not the
    /// one this run began with (R10).
    Quarantined(AgentName),
    Reply {
        /// By its certificate.
        from: AgentName,
        reply: Reply,
        /// The last entry of its journal; recorded with outcomes (R10).
        position: Option<JournalPosition>,
    },
    /// Time passed; at the latest at [`Run::next_deadline`].
    Tick,
}

/// The driver must execute effects in the order of their list.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make it durable before anything that follows. A failure ends the
    /// process (R23).
    Persist(Entry),
    /// Pass it to the agent's session; dropped if there is none. Anything that
    /// is still needed is sent again when the agent connects.
    Send { to: AgentName, order: Order },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verb {
    /// Drawn by the client: the same request is executed once (R20).
    pub request: String,
    /// The operator, by certificate.
    pub by: String,
    /// Required where something is skipped, waived or resolved.
    pub reason: Option<String>,
    /// Sequence of the run as the operator saw it; refused if the run has
    /// decided anything since (R14, R20).
    pub expected: Option<u64>,
    pub action: VerbAction,
}

/// See [`Verb`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Retry the tasks of the failed phase that did not succeed (R4).
    Retry,
    /// Leave the failed phase as it is and continue with the next one.
    Skip,
    Rollback,
    /// End the run as soon as no task is open.
    Abort,
    /// Give up waiting for an open task whose agent can't be reached (R5).
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

#[derive(Debug, Clone, PartialEq)]
pub struct Vote {
    pub verdict: Verdict,
    /// When the promise lapses, by the coordinator's clock, counted from
    /// before Prepare was sent (R12).
    pub lapses: Millis,
}

/// A round of attestation requests to the watches (R17).
#[derive(Debug, Clone, PartialEq)]
struct Attesting {
    nonce: u64,
    asked: Millis,
    answered: BTreeSet<TaskKey>,
}

/// State that is lost in a restart.
#[derive(Debug, Clone, Default, PartialEq)]
struct Live {
    connected: BTreeSet<AgentName>,
    /// Agents that have connected or replied in this term.
    heard: BTreeSet<AgentName>,
    /// Votes of the current attempt.
    votes: BTreeMap<AgentName, Vote>,
    /// When Prepare of the current attempt was first sent, by agent.
    sent: BTreeMap<AgentName, Millis>,
    round_began: Millis,
    released_at: Millis,
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
    /// An agent has obeyed another coordinator; nothing is decided any more
    /// (R11).
    fenced: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    state: State,
    live: Live,
}

impl Run {
    /// Begins a run: its first record, and the first phase's Prepare.
    ///
    /// # Errors
    /// When the layout can't be run at all; nothing has happened then.
    pub fn start(now: Millis, begin: Begin, term: Term) -> Result<(Self, Vec<Effect>), StartError> {
        fold::check_begin(&begin)?;
        let mut run = Self {
            state: State::new(begin.clone(), term),
            live: Live {
                heard: begin.members.keys().cloned().collect(),
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
    /// sent again as agents connect.
    ///
    /// # Errors
    /// When the entries are not a run's journal, or the term is not higher
    /// than every term in it.
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
            Event::Connected(standing) => self.connected(now, &standing, &mut effects),
            Event::Disconnected(agent) => {
                self.live.connected.remove(&agent);
            }
            Event::TakenOver(standing) => self.take_over(&standing, &mut effects),
            Event::Quarantined(agent) => self.journal_lost(&agent, &mut effects),
            Event::Reply {
                from,
                reply,
                position,
            } => {
                let known = self.state.begin.members.contains_key(&from);
                if known && self.live.fenced.is_none() {
                    self.hear(now, &from);
                    self.reply(now, from, reply, position, &mut effects);
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
    /// When the state doesn't allow it; nothing has changed then. The error
    /// says why, and what to do instead.
    pub fn verb(&mut self, now: Millis, verb: Verb) -> Result<Vec<Effect>, Refused> {
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

    /// The journal an agent had when the run began; the driver compares it
    /// before it admits the agent (R10, R21).
    pub fn journal_of(&self, agent: &AgentName) -> Option<&JournalId> {
        self.state.begin.members.get(agent)
    }

    /// Votes of the current attempt.
    pub fn votes(&self) -> &BTreeMap<AgentName, Vote> {
        &self.live.votes
    }

    /// The run has ended and every member has confirmed it. Nothing is left to
    /// do; the machine may be dropped.
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

    fn hear(&mut self, now: Millis, agent: &AgentName) {
        self.live.heard.insert(agent.clone());
        let all = self
            .state
            .begin
            .members
            .keys()
            .all(|member| self.live.heard.contains(member));
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
        while self.step(now, effects) {}
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
        if self.watch_outage(now, effects) {
            return true;
        }
        if self.is_turning() {
            return self.close_first(now, effects);
        }
        let Some(phase) = self.state.current() else {
            self.end_of_track(effects);
            return true;
        };
        let Some(status) = self.state.phase(phase).map(|p| &p.status) else {
            return false;
        };
        match *status {
            PhaseStatus::Pending => self.begin_phase(now, phase, effects),
            PhaseStatus::Preparing => self.judge_round(now, phase, effects),
            PhaseStatus::Released => self.judge_outcomes(now, phase, effects),
            PhaseStatus::Failed { leads_to, .. } => self.after_failure(phase, leads_to, effects),
            PhaseStatus::Completed | PhaseStatus::Skipped { .. } => false,
        }
    }
}
