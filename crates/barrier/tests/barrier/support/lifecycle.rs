//! Crashes, restarts and restored backups of both sides.

use super::Sim;
use super::journal::Journal;
use super::world::WorldEvent;
use lockstep_barrier::coordinator::{self, Run};
use lockstep_barrier::ids::{AgentName, BootId, JournalId, Term};
use lockstep_barrier::participant::Participant;
use std::sync::Arc;

impl Sim {
    pub fn restart_coordinator(&mut self) {
        if self.run.is_some() {
            return;
        }
        if self.disk.is_empty() {
            return self.start();
        }
        let term = self.next_term();
        let (run, effects) =
            Run::resume(self.now, self.disk.clone(), term).expect("its own journal");
        self.run = Some(Arc::new(run));
        self.execute_coordinator_effects(effects);
    }

    /// Starts a term above another coordinator's, with new sessions.
    pub(super) fn lead_above(&mut self, other: Term) {
        self.crash_coordinator();
        self.term = self.term.max(other.number);
        self.restart_coordinator();
    }

    /// Truncates the coordinator's journal to this many records; the next term has
    /// another incarnation.
    pub fn restore_backup(&mut self, records: usize) {
        self.disk.truncate(records);
        let state = coordinator::State::fold(self.disk.clone()).expect("a beginning is a journal");
        self.term = state.term.number;
        self.salt += 1;
        self.observe(&WorldEvent::CoordinatorRestored);
    }

    pub fn crash_coordinator(&mut self) {
        self.run = None;
        self.crash_after = None;
        for name in self.names() {
            if self.agent(&name).connected {
                self.drop_session(&name);
            }
        }
    }

    pub fn crash_agent(&mut self, name: &AgentName) {
        let was_connected = self.agent(name).connected;
        let agent = self.agent_mut(name);
        agent.participant = None;
        agent.running = None;
        agent.chores.clear();
        self.crash_after = None;
        if was_connected {
            self.drop_session(name);
        }
        self.leave_other(name);
    }

    /// The session ends, and what it has not delivered is lost.
    pub fn cut_session(&mut self, name: &AgentName) {
        self.drop_session(name);
        self.lose_messages(name);
    }

    pub fn restart_agent(&mut self, name: &AgentName) {
        let now = self.now;
        let agent = self.agent_mut(name);
        if agent.participant.is_some() {
            return;
        }
        let (participant, effects) = Participant::resume(
            now,
            name.clone(),
            agent.journal.clone(),
            BootId(format!("boot-{}", agent.boots)),
            agent.disk.clone(),
        )
        .expect("its own journal");
        agent.participant = Some(Arc::new(participant));
        self.execute_agent_effects(name, effects);
    }

    /// Loses the agent's disk; changes to the host remain.
    pub fn lose_journal(&mut self, name: &AgentName) {
        self.crash_agent(name);
        let agent = self.agent_mut(name);
        agent.disk = Journal::default();
        agent.losses += 1;
        agent.journal = JournalId(format!("{name}-{}", agent.losses + 1));
        self.observe(&WorldEvent::JournalLost {
            agent: name.clone(),
        });
        self.restart_agent(name);
    }

    /// Truncates the agent's journal to this many records, and admits the agent as
    /// an operator would.
    pub fn restore_agent(&mut self, name: &AgentName, records: usize) {
        self.crash_agent(name);
        self.agent_mut(name).disk.truncate(records);
        let agent = name.clone();
        self.observe(&WorldEvent::JournalLost { agent });
        self.restart_agent(name);
        self.coordinator(coordinator::Event::Quarantined(name.clone()));
    }
}
