//! What an agent reports about itself when it opens a session.

use lockstep_barrier::ids::JournalId;
use lockstep_barrier::message::AgentState;
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// The part that the barrier decides on.
    pub state: AgentState,
    /// `/etc/machine-id`; empty if unknown.
    pub machine: String,
    /// `/proc/sys/kernel/random/boot_id`; empty if unknown.
    pub boot: String,
    /// Counts the agent's sessions since its journal was created.
    pub session_number: u64,
    pub version: String,
    pub labels: BTreeMap<String, String>,
    /// Action patterns that its policy allows.
    pub allowed_actions: Vec<String>,
    /// Position of the last entry in its journal.
    pub journal_position: u64,
    /// Its journal lacks the entry that the last Welcome named.
    pub journal_disowned: bool,
}

impl Introduction {
    pub fn name(&self) -> &str {
        &self.state.agent.0
    }

    pub fn journal(&self) -> &JournalId {
        &self.state.journal
    }
}
