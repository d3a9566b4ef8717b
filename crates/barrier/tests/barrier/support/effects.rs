//! Execution of effects, one by one, with a crash between any two of them.

use super::world::WorldEvent;
use super::{Chore, Running, Sim, show};
use lockstep_barrier::coordinator;
use lockstep_barrier::ids::AgentName;
use lockstep_barrier::message::{Order, Reply};
use lockstep_barrier::participant;
use lockstep_barrier::record::Record;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

impl Sim {
    pub(super) fn must_crash(&mut self) -> bool {
        self.effects += 1;
        match &mut self.crash_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub fn execute_coordinator_effects(&mut self, effects: Vec<coordinator::Effect>) {
        for effect in effects {
            if self.must_crash() {
                self.trace.push("C crashes".to_owned());
                return self.crash_coordinator();
            }
            if self.traced {
                self.trace.push(show::coordinator_effect(&effect));
            }
            match effect {
                coordinator::Effect::Persist(entry) => {
                    if self.traced {
                        must_survive_its_journal(&entry);
                    }
                    if let Record::Released { phase, .. } = &entry.record {
                        self.check_votes(*phase);
                    }
                    self.observe(&WorldEvent::Decided(entry.clone()));
                    self.disk.push(entry);
                }
                coordinator::Effect::Send { to, order } => {
                    if let Order::Ack {
                        step,
                        phase,
                        attempt,
                        ..
                    } = &order
                    {
                        self.observe(&WorldEvent::Acknowledged {
                            agent: to.clone(),
                            phase: *phase,
                            attempt: *attempt,
                            step: step.clone(),
                        });
                    }
                    self.orders
                        .get_mut(&to)
                        .expect("sent to a member")
                        .push_back(order);
                }
            }
        }
        self.check_waits();
    }

    pub fn execute_agent_effects(&mut self, name: &AgentName, effects: Vec<participant::Effect>) {
        for effect in effects {
            if self.must_crash() {
                self.trace.push(format!("{name} crashes"));
                return self.crash_agent(name);
            }
            if self.traced {
                self.trace.push(show::participant_effect(name, &effect));
            }
            self.execute_agent_effect(name, effect);
        }
    }

    pub(super) fn execute_agent_effect(&mut self, name: &AgentName, effect: participant::Effect) {
        use lockstep_barrier::participant::Effect;
        match effect {
            Effect::Persist(entry) => self.write_to_agent_disk(name, entry),
            Effect::Send(reply) => {
                if let Reply::Attestation { step, breach, .. } = &reply {
                    self.observe(&WorldEvent::Attested {
                        agent: name.clone(),
                        step: step.clone(),
                        breach: breach.clone(),
                    });
                }
                if self.agent(name).connected {
                    let replies = self.replies.get_mut(name).expect("a member");
                    replies.push_back(reply);
                } else if let Some(replies) = self.replies_to_other(name) {
                    replies.push_back(reply);
                }
            }
            Effect::Probe {
                run,
                phase,
                attempt,
                purpose,
                tasks,
                ..
            } => self.agent_mut(name).chores.push_back(Chore::Probe {
                run,
                phase,
                attempt,
                purpose,
                tasks,
            }),
            Effect::Execute {
                run,
                phase,
                attempt,
                task,
                before_image,
                ..
            }
            | Effect::Undo {
                run,
                phase,
                attempt,
                task,
                before_image,
                ..
            } => {
                let running = Running {
                    run,
                    phase,
                    attempt,
                    task,
                    before_image,
                };
                self.start_action(name, running);
            }
            Effect::Attest { run, step, nonce } => self
                .agent_mut(name)
                .chores
                .push_back(Chore::Attest { run, step, nonce }),
            Effect::Cancel { .. } | Effect::Disarm { .. } | Effect::Arm { .. } => {}
        }
    }

    pub(super) fn write_to_agent_disk(&mut self, name: &AgentName, entry: participant::Entry) {
        if self.traced {
            must_survive_its_journal(&entry);
        }
        self.observe(&WorldEvent::Recorded {
            agent: name.clone(),
            entry: entry.clone(),
        });
        self.agent_mut(name).disk.push(entry);
    }

    pub(super) fn start_action(&mut self, name: &AgentName, running: Running) {
        self.observe(&WorldEvent::Started {
            agent: name.clone(),
            phase: running.phase,
            attempt: running.attempt,
            step: running.task.step.clone(),
            mode: running.task.mode.clone(),
        });
        self.agent_mut(name).running = Some(running);
    }
}

fn must_survive_its_journal<T>(entry: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let text = serde_json::to_string(entry).expect("records are JSON");
    let read: T = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(read, *entry, "a record must survive its journal");
}
