//! What agents' sessions report, and their end.

use super::Driver;
use super::admission::Opening;
use crate::active_run::RunEntry;
use crate::handle::{AgentReport, Progress, SessionEvent};
use crate::store::StoreError;
use lockstep_api::{LineKind, TaskLine, timestamp};
use lockstep_barrier::coordinator::Event;
use lockstep_barrier::ids::AgentName;
use lockstep_barrier::message::Reply;

impl Driver {
    pub(super) fn session_event(&mut self, event: SessionEvent) -> Result<(), StoreError> {
        match event {
            SessionEvent::Opened {
                introduction,
                address,
                outbox,
                reply,
            } => {
                let introduction = *introduction;
                self.open_session(Opening {
                    introduction,
                    address,
                    outbox,
                    reply,
                })?;
            }
            SessionEvent::Reported {
                agent,
                session,
                report,
            } => self.reported(&agent, session, *report)?,
            SessionEvent::Closed { agent, session } => {
                if self.agents.disconnect(&agent, session) {
                    self.disconnected(&agent);
                }
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

    fn reported(
        &mut self,
        agent: &AgentName,
        session: u64,
        report: AgentReport,
    ) -> Result<(), StoreError> {
        if !self.agents.is_current(agent, session) {
            return Ok(());
        }
        self.agents.seen(agent, lockstep_clock::wall_time());
        match report {
            AgentReport::Alive => self.session_answers(agent, session)?,
            AgentReport::Progress(progress) => self.progress(agent, progress),
            AgentReport::Preflight { request, findings } => {
                self.preflights.report(agent, &request, findings);
                self.send_preflights(Vec::new());
            }
            AgentReport::Reply { reply, place } => {
                tracing::debug!(%agent, reply = reply.name(), "received");
                let run = reply.run().clone();
                if matches!(reply, Reply::Closed { .. }) {
                    self.agents.closed(agent, &run);
                }
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
        Ok(())
    }

    fn progress(&mut self, agent: &AgentName, progress: Progress) {
        // Only members report on a run (R21): the run's watchers rely on the name.
        let member = |cell: &&mut RunEntry| cell.state().begin.members.contains_key(agent);
        let Some(cell) = self.runs.get_mut(&progress.run).filter(member) else {
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
