//! A second coordinator of the same run, started from a copy of the journal while
//! the first one goes on.

use super::Sim;
use super::journal::Journal;
use lockstep_barrier::coordinator::{self, Run};
use lockstep_barrier::ids::AgentName;
use lockstep_barrier::message::{Order, Reply};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

/// The coordinator that is not the one in the simulation's own fields.
#[derive(Clone)]
pub struct Other {
    run: Option<Arc<Run>>,
    disk: Journal<coordinator::Entry>,
    term: u64,
    salt: u64,
    orders: BTreeMap<AgentName, VecDeque<Order>>,
    replies: BTreeMap<AgentName, VecDeque<Reply>>,
    /// Agents whose session is with this one.
    connected: BTreeSet<AgentName>,
}

impl Other {
    /// Without its journal, which is the state of a coordinator that runs.
    pub fn hash_into(&self, hasher: &mut impl std::hash::Hasher) {
        (&self.run, self.term, self.salt).hash(hasher);
        (&self.orders, &self.replies, &self.connected).hash(hasher);
    }
}

impl Sim {
    /// Starts a second coordinator from the first records of the journal. The first one
    /// goes on, with its sessions; the second one is the simulation's from now on.
    pub fn second_coordinator(&mut self, records: usize) {
        let mut second = Other {
            run: None,
            disk: self.disk.clone(),
            term: self.term,
            salt: self.salt,
            orders: self
                .orders
                .keys()
                .map(|n| (n.clone(), VecDeque::new()))
                .collect(),
            replies: self
                .orders
                .keys()
                .map(|n| (n.clone(), VecDeque::new()))
                .collect(),
            connected: BTreeSet::new(),
        };
        self.exchange(&mut second);
        self.other = Some(Box::new(second));
        self.restore_backup(records);
        self.restart_coordinator();
    }

    /// Exchanges the two coordinators.
    pub fn switch(&mut self) {
        if let Some(mut other) = self.other.take() {
            self.exchange(&mut other);
            self.other = Some(other);
        }
    }

    fn exchange(&mut self, other: &mut Other) {
        std::mem::swap(&mut self.run, &mut other.run);
        std::mem::swap(&mut self.disk, &mut other.disk);
        std::mem::swap(&mut self.term, &mut other.term);
        std::mem::swap(&mut self.salt, &mut other.salt);
        std::mem::swap(&mut self.orders, &mut other.orders);
        std::mem::swap(&mut self.replies, &mut other.replies);
        for (name, agent) in &mut self.agents {
            let here = other.connected.remove(name);
            if agent.connected {
                other.connected.insert(name.clone());
            }
            agent.connected = here;
        }
    }

    /// An agent has one session: with the other coordinator it ends.
    pub(super) fn leave_other(&mut self, name: &AgentName) {
        let with_other = |other: &Other| other.connected.contains(name);
        if self.other.as_deref().is_some_and(with_other) {
            self.switch();
            self.cut_session(name);
            self.switch();
        }
    }

    /// The other coordinator is stopped for good.
    pub fn stop_other(&mut self) {
        for name in self.names() {
            self.leave_other(&name);
        }
        self.other = None;
    }

    /// The replies of an agent whose session is with the other coordinator.
    pub(super) fn replies_to_other(&mut self, name: &AgentName) -> Option<&mut VecDeque<Reply>> {
        let other = self.other.as_mut()?;
        if other.connected.contains(name) {
            other.replies.get_mut(name)
        } else {
            None
        }
    }
}
