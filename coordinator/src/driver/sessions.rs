//! Agents' sessions: which agents are admitted, under which term, and what
//! they report.

use super::Driver;
use crate::active_run::{Machine, RunEntry};
use crate::agents::{AgentMessage, Introduction, NotAdmitted, Outbox, ToAgent, Welcome};
use crate::handle::{AgentReport, Answer, Progress, RequestError, SessionEvent};
use crate::store::StoreError;
use lockstep_api::{Code, Diagnosis, LineKind, TaskLine, timestamp};
use lockstep_barrier::coordinator::{Event, Run};
use lockstep_barrier::ids::{AgentName, RunId, Term};
use lockstep_barrier::message::{AgentState, Order};
use std::sync::Arc;

impl Driver {
    pub(super) fn session_event(&mut self, event: SessionEvent) -> Result<(), StoreError> {
        match event {
            SessionEvent::Opened {
                introduction,
                address,
                outbox,
                reply,
            } => {
                let answer = self.admit(*introduction, address, outbox)?;
                self.post_commit(|_| drop(reply.send(answer)));
            }
            SessionEvent::Reported {
                agent,
                session,
                report,
            } => self.reported(&agent, session, *report),
            SessionEvent::Closed { agent, session } => {
                if self.agents.disconnect(&agent, session) {
                    self.disconnected(&agent);
                }
            }
        }
        Ok(())
    }

    fn admit(
        &mut self,
        introduction: Introduction,
        address: String,
        outbox: Outbox,
    ) -> Result<Answer<u64>, StoreError> {
        let state = introduction.state.clone();
        let agent = state.agent.clone();
        let foreign = self.is_foreign(&state);
        if let Err(error) = self.check_term(&state)? {
            return Ok(Err(error));
        }
        let leftover = self.close_leftover(&state);
        let now = lockstep_clock::wall_time();
        let welcoming = outbox.clone();
        let (session, admitted) = match self.agents.admit(introduction, address, outbox, now) {
            Ok(admitted) => admitted,
            Err(NotAdmitted { why, quarantine }) => {
                tracing::error!(%agent, "{why}");
                if let Some(waits) = &quarantine {
                    self.store.quarantine(waits)?;
                }
                return Ok(Err(RequestError::precondition(*why)));
            }
        };
        if let Some(known) = &admitted.first_seen {
            self.store.remember(known)?;
        }
        let welcome = AgentMessage::Welcome(Welcome {
            coordinator: self.name.clone(),
            term: self.term,
            place: admitted.place,
        });
        // Before any order. It can't fail: the outbox is empty, and its reader
        // waits for this session's number. A failure would show at the first
        // order, which ends the session.
        let _ = welcoming.try_send(welcome.into());
        tracing::info!(%agent, session, "agent connected");
        self.connected(&state, foreign);
        if let Some(order) = leftover {
            self.agents
                .send(&agent, ToAgent::from(AgentMessage::Order(order)));
        }
        // Nobody answers what the agent's earlier session was asked.
        self.lost_by_preflights(&agent);
        Ok(Ok(session))
    }

    /// Informs the agent's runs of its new session.
    fn connected(&mut self, state: &AgentState, foreign: bool) {
        let agent = &state.agent;
        for run in self.runs_of(agent) {
            self.take_over_run(&run, state, foreign);
            if let Some(cell) = self.runs.get_mut(&run) {
                cell.connection(agent, true);
            }
            self.happen(&run, Event::Connected(state.clone()));
        }
    }

    /// The agent has accepted a term that this coordinator has never led. A
    /// lower number than ours proves nothing: each start makes ours higher.
    fn is_foreign(&self, state: &AgentState) -> bool {
        state.term != Term::default() && !self.terms.contains(&state.term)
    }

    /// The run the agent is locked to, if this journal doesn't hold it: the
    /// journal is older than the run, and the run's decisions are lost.
    fn unknown_run<'a>(&self, state: &'a AgentState) -> Option<&'a RunId> {
        state
            .run
            .as_ref()
            .filter(|run| !self.runs.contains_key(run))
    }

    /// Ends the agent's lock on a run that no state machine here leads: every agent
    /// has closed it and this one was restored from before that, or, after a
    /// take-over, this journal holds nothing of it.
    fn close_leftover(&self, state: &AgentState) -> Option<Order> {
        let run = state.run.as_ref()?;
        let (decision, why) = match self.runs.get(run) {
            Some(cell) if cell.live().is_some() => return None,
            Some(cell) => (cell.state().decision.max(state.decision), "is over"),
            None => (
                state.decision.saturating_add(1),
                "isn't in this coordinator's journal",
            ),
        };
        tracing::warn!(agent = %state.agent, %run, "closing a run at an agent: the run {why}");
        Some(Order::Close {
            run: run.clone(),
            term: self.term,
            decision,
        })
    }

    /// Informs a run that another coordinator's decisions in it are lost: that
    /// one led this member, or this member has accepted more decisions than the
    /// run's journal holds (R11).
    fn take_over_run(&mut self, run: &RunId, state: &AgentState, foreign: bool) {
        let lacks = self
            .runs
            .get(run)
            .and_then(RunEntry::live)
            .is_some_and(|run| run.is_foreign(state).is_some());
        if self.take_over && (foreign || lacks) {
            self.happen(run, Event::TakenOver(state.clone()));
        }
    }

    /// A coordinator that meets a term which it has never led makes no more
    /// decisions until it is started with `--take-over` (R11).
    fn check_term(&mut self, state: &AgentState) -> Result<Answer<()>, StoreError> {
        if self.is_foreign(state) && self.take_over {
            self.take_over_term(state.term)?;
        } else if self.fenced.is_none()
            && let Some(why) = self.reason_to_fence(state)
        {
            tracing::error!("{why}");
            self.fenced = Some(why);
        }
        Ok(match &self.fenced {
            Some(why) => Err(RequestError::precondition(why.clone())),
            None => Ok(()),
        })
    }

    fn reason_to_fence(&self, state: &AgentState) -> Option<Diagnosis> {
        let agent = &state.agent;
        if self.is_foreign(state) {
            let what = format!(
                "{agent} has accepted term {} of another coordinator, and this one leads term {}",
                state.term.number, self.term.number
            );
            let remedy = "find the other one and stop it, then start this one with --take-over";
            return Some(Diagnosis::new(Code::LS4204, what).remedy(remedy));
        }
        let run = self.unknown_run(state).filter(|_| !self.take_over)?;
        let what = format!(
            "{agent} is in run {run}, of which this coordinator's journal holds nothing: it was \
             restored from a backup, or another one leads"
        );
        let remedy = "find that one and stop it, then start this one with --take-over, which ends \
                      the run";
        Some(Diagnosis::new(Code::LS4204, what).remedy(remedy))
    }

    /// Resumes every run above another coordinator's term. Every session is
    /// ended, because the state machines that knew of them are replaced.
    fn take_over_term(&mut self, other: Term) -> Result<(), StoreError> {
        self.flush()?;
        self.agents.end_sessions();
        self.term = self.store.take_over(&other)?;
        self.terms = self.store.terms()?;
        tracing::warn!(
            term = self.term.number,
            "taking over above another coordinator's term"
        );
        let live: Vec<(RunId, Arc<lockstep_plan::Plan>)> = self
            .runs
            .iter()
            .filter(|(_, cell)| cell.live().is_some())
            .map(|(run, cell)| (run.clone(), cell.plan().clone()))
            .collect();
        for (run, plan) in live {
            let stored = self.store.entries(&run, 0)?;
            let entries = stored.iter().map(|stored| stored.entry.clone());
            match Run::resume(lockstep_clock::boot_time(), entries, self.term) {
                Ok((machine, effects)) => {
                    let machine = Machine::Active(Box::new(machine));
                    let cell = RunEntry::new(machine, plan, &stored);
                    self.runs.insert(run.clone(), cell);
                    self.effects
                        .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
                }
                Err(e) => tracing::error!(%run, error = %e, "the run can't be taken over"),
            }
        }
        Ok(())
    }

    /// The agent has no session any more.
    pub(super) fn disconnected(&mut self, agent: &AgentName) {
        tracing::warn!(%agent, "the agent's session ended");
        self.lost_by_preflights(agent);
        self.lost_by_runs(agent);
    }

    fn reported(&mut self, agent: &AgentName, session: u64, report: AgentReport) {
        if !self.agents.is_current(agent, session) {
            return;
        }
        self.agents.seen(agent, lockstep_clock::wall_time());
        match report {
            AgentReport::Progress(progress) => self.progress(agent, progress),
            AgentReport::Preflight { request, findings } => {
                self.preflights.report(agent, &request, findings);
                self.send_preflights(Vec::new());
            }
            AgentReport::Reply { reply, place } => {
                tracing::debug!(%agent, reply = reply.name(), "received");
                let run = reply.run().clone();
                let place = self.agents.place(agent, place);
                let from = agent.clone();
                self.happen(
                    &run,
                    Event::Reply {
                        from,
                        reply,
                        position: place,
                    },
                );
            }
        }
    }

    fn progress(&mut self, agent: &AgentName, progress: Progress) {
        let Some(cell) = self.runs.get_mut(&progress.run) else {
            return;
        };
        let now = lockstep_clock::wall_time();
        for line in lines(agent, cell, progress, now) {
            cell.line(agent, line, now);
        }
    }
}

/// What watchers see of a progress line: before it, how many were omitted.
fn lines(agent: &AgentName, cell: &RunEntry, progress: Progress, now: u64) -> Vec<TaskLine> {
    let phase = progress.phase.map(|phase| cell.phase_name(phase));
    let line = |kind: LineKind, line: String| TaskLine {
        agent: agent.to_string(),
        phase: phase.clone().unwrap_or_default(),
        step: progress.step.clone(),
        kind,
        line,
        at: timestamp(now),
    };
    let omitted = match progress.omitted {
        0 => None,
        1 => Some("1 line omitted: the link was slow".to_owned()),
        omitted => Some(format!("{omitted} lines omitted: the link was slow")),
    };
    let omitted = omitted.map(|text| line(LineKind::Note, text));
    omitted
        .into_iter()
        .chain([line(progress.kind, progress.line)])
        .collect()
}
