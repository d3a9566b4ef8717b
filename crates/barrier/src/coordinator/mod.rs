//! The coordinator's side: one machine per run.
//!
//! [`Run::handle`] and [`Run::verb`] take what happened and return what to
//! do, in order. Every decision is one record: it is applied to the state in
//! the same moment in which its `Persist` is put out, and only the sends that
//! follow it in the list may rely on it. What is not in a record (votes, who
//! is connected, when something was sent) is lost by a restart on purpose:
//! votes count in their own term (R9), and deadlines start again (R11).
//!
//! Not in here: choosing terms, authorising operators, admitting agents. An
//! agent that the driver has not admitted must not be reported as connected.

use crate::ids::{AgentName, JournalId, Millis, PhaseRef, RunId, StepId, Term};
use crate::message::{Order, Reply, Standing, Verdict};
use crate::record::{Begin, FormatVersion, JournalPlace, Record, Resolution};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
mod view;
mod watch;

pub use fold::FoldError;
pub use state::{
    Breach, PhaseState, PhaseStatus, Rollback, State, TaskKey, TaskState, TaskStatus, WatchState,
};
pub use verbs::{Refused, RefusedCode};
pub use view::Wait;

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

/// Bytes of JSON that one release records of all votes' captures, and that it
/// carries to one agent: half of what an entry of a journal and a message may
/// have, so that neither side meets one that it can't keep or hear.
pub const MAX_RELEASE: usize = 2 << 20;

/// Findings of one watch that the journal keeps: enough to go through by
/// hand. One finding voids as much as a thousand do.
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
    /// What was decided or learnt.
    pub record: Record,
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An agent's session was admitted.
    Connected(Standing),
    Disconnected(AgentName),
    /// An agent stands under another coordinator's term or decision, and an
    /// operator has said that that one is stopped for good (R11). Comes before
    /// [`Event::Connected`].
    TakenOver(Standing),
    /// The agent was admitted by an operator although its journal is not the
    /// one this run began with (R10).
    Quarantined(AgentName),
    /// An agent said something.
    Reply {
        /// Who, by its certificate.
        from: AgentName,
        reply: Reply,
        /// What its journal had come to; kept with outcomes (R10).
        place: Option<JournalPlace>,
    },
    /// Time passed; at the latest at [`Run::next_deadline`].
    Tick,
}

/// What the driver must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make it durable before anything that follows. A failure ends the
    /// process (R23).
    Persist(Entry),
    /// Give it to the agent's session; dropped if there is none. What matters
    /// is sent again when the agent connects.
    Send { to: AgentName, order: Order },
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verb {
    /// Drawn by the client: the same request is carried out once (R20).
    pub request: String,
    /// The operator, by certificate.
    pub by: String,
    /// Why. Required where something is passed over.
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
    /// Release nothing more until resumed. What runs, runs on.
    Pause,
    /// Try the failed phase again: only what did not end well (R4).
    Retry,
    /// Leave the failed phase as it is and go on.
    Skip,
    Rollback,
    /// Give the run up as soon as nothing is open.
    Abort,
    /// Pass an open task of an agent that can't be reached (R5).
    Waive {
        agent: AgentName,
        step: StepId,
    },
    /// Say what became of an `unknown` or `drifted` task.
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

/// A vote as it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Vote {
    pub verdict: Verdict,
    /// When the promise lapses, by the coordinator's clock, counted from
    /// before Prepare was sent (R12).
    pub lapses: Millis,
}

/// A round of questions to the watches (R17).
#[derive(Debug, Clone, PartialEq)]
struct Attesting {
    nonce: u64,
    asked: Millis,
    answered: BTreeSet<TaskKey>,
}

/// What a restart forgets.
#[derive(Debug, Clone, Default, PartialEq)]
struct Live {
    connected: BTreeSet<AgentName>,
    /// Heard in this term.
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
    /// Until when no deadline is judged (R11); `None` when all were heard.
    grace_until: Option<Millis>,
    /// When disarming was first asked for, for what comes next.
    disarming_since: Option<Millis>,
    /// Another coordinator's term or decision was met; nothing is decided
    /// any more (R11).
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

    /// Takes a run up from its journal under a new term. What agents are owed
    /// is sent as they connect.
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

    /// Takes an event in.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Connected(standing) => self.connected(now, &standing, &mut effects),
            Event::Disconnected(agent) => {
                self.live.connected.remove(&agent);
            }
            Event::TakenOver(standing) => self.take_over(&standing, &mut effects),
            Event::Quarantined(agent) => self.journal_lost(&agent, &mut effects),
            Event::Reply { from, reply, place } => {
                let known = self.state.begin.members.contains_key(&from);
                if known && self.live.fenced.is_none() {
                    self.hear(now, &from);
                    self.reply(now, from, reply, place, &mut effects);
                }
            }
            Event::Tick => {}
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Carries out what an operator asks for.
    ///
    /// # Errors
    /// When it can't be done now; nothing has happened then. The refusal says
    /// why and what can be done instead.
    pub fn verb(&mut self, now: Millis, verb: Verb) -> Result<Vec<Effect>, Refused> {
        let mut effects = Vec::new();
        self.decide_verb(now, verb, &mut effects)?;
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

    /// The run has ended and every member has been told and has answered.
    /// Nothing is left to do; the machine may be dropped.
    pub fn is_closed(&self) -> bool {
        self.state.ended.is_some()
            && self
                .state
                .begin
                .members
                .keys()
                .all(|agent| self.state.closed_by.contains(agent))
    }

    /// Records something: in the state at once, on disk before whatever
    /// follows in the list.
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
            // Everyone was heard: what is still owed is on its way, so the
            // deadlines that follow are honest ones.
            self.live.round_began = self.live.round_began.max(now);
        }
    }

    /// No verdict by deadline or budget yet (R11).
    fn in_grace(&self, now: Millis) -> bool {
        self.live.grace_until.is_some_and(|until| now < until)
    }

    /// Takes every step that can be taken now. Each step changes the state so
    /// that it can't be taken again; that is what makes this end.
    fn advance(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        while self.step(now, effects) {}
    }

    fn step(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        if self.state.ended.is_some() || self.live.fenced.is_some() {
            return false;
        }
        // What it would decide on is not known: it can only be given up.
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
        let Some(status) = self.state.phase(phase).map(|p| p.status.clone()) else {
            return false;
        };
        match status {
            PhaseStatus::Pending => self.begin_phase(now, phase, effects),
            PhaseStatus::Preparing => self.judge_round(now, phase, effects),
            PhaseStatus::Released => self.judge_outcomes(now, phase, effects),
            PhaseStatus::Failed { leads_to, .. } => self.after_failure(phase, leads_to, effects),
            PhaseStatus::Completed | PhaseStatus::Skipped { .. } => false,
        }
    }
}
