//! Preflights under way: what was asked of whom, and where the answers go.

use crate::launch::{Cast, tasks_by_agent};
use lockstep_barrier::ids::AgentName;
use lockstep_plan::Plan;
use lockstep_proto::v1;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tonic::Status;

/// Where a preflight's answers go.
pub type Answers = mpsc::Sender<Result<v1::PreflightResponse, Status>>;

/// Room for one answer of every agent of a large plan; the receiver is the
/// operator's own stream.
pub const ANSWERS: usize = 1024;

struct Pending {
    /// Phase and action by step, in order, for the agent.
    asked: Vec<(String, String, String)>,
    answers: Answers,
}

#[derive(Default)]
pub struct Preflights {
    pending: BTreeMap<(String, AgentName), Pending>,
    count: u64,
}

impl Preflights {
    /// What to send to whom for this plan; answers are expected from then on.
    pub fn ask(
        &mut self,
        plan: &Plan,
        cast: &Cast,
        answers: &Answers,
    ) -> Vec<(AgentName, v1::PreflightOrder)> {
        self.count += 1;
        let request_id = self.count.to_string();
        let mut orders = Vec::new();
        for (agent, tasks) in tasks_by_agent(plan, cast) {
            let asked = tasks
                .iter()
                .map(|(phase, task)| (phase.clone(), task.step.0.clone(), task.action.clone()))
                .collect();
            let tasks = tasks.into_iter().map(|(_, task)| task.into()).collect();
            let pending = Pending {
                asked,
                answers: answers.clone(),
            };
            self.pending
                .insert((request_id.clone(), agent.clone()), pending);
            orders.push((
                agent,
                v1::PreflightOrder {
                    request_id: request_id.clone(),
                    tasks,
                },
            ));
        }
        orders
    }

    pub fn report(&mut self, agent: &AgentName, report: v1::PreflightReport) {
        let Some(pending) = self.pending.remove(&(report.request_id, agent.clone())) else {
            return;
        };
        let findings: BTreeMap<String, v1::PreflightFinding> = report
            .findings
            .into_iter()
            .map(|f| (f.step_id.clone(), f))
            .collect();
        let tasks = pending
            .asked
            .into_iter()
            .map(|(phase, step_id, action)| {
                let found = findings.get(&step_id).cloned();
                let found = found.unwrap_or_else(|| unseen(agent, &step_id));
                v1::PreflightTask {
                    phase,
                    action,
                    step_id,
                    would_do: found.would_do,
                    obstacles: found.obstacles,
                    remarks: found.remarks,
                    finding: found.finding,
                }
            })
            .collect();
        answer(
            &pending.answers,
            v1::PreflightResponse {
                agent: agent.to_string(),
                tasks,
                obstacles: Vec::new(),
            },
        );
    }

    /// An agent can't answer any more.
    pub fn gone(&mut self, agent: &AgentName) {
        let lost: Vec<(String, AgentName)> = self
            .pending
            .keys()
            .filter(|(_, of)| of == agent)
            .cloned()
            .collect();
        for key in lost {
            if let Some(pending) = self.pending.remove(&key) {
                let obstacles = vec![format!(
                    "LS4301: {agent} disconnected before it had answered; see its log"
                )];
                let agent = agent.to_string();
                answer(
                    &pending.answers,
                    v1::PreflightResponse {
                        agent,
                        tasks: vec![],
                        obstacles,
                    },
                );
            }
        }
    }
}

/// A step that the agent's report leaves out was not looked at.
fn unseen(agent: &AgentName, step: &str) -> v1::PreflightFinding {
    v1::PreflightFinding {
        obstacles: vec![format!(
            "LS4301: {agent} has not told what it found for {step}; see its log"
        )],
        ..Default::default()
    }
}

fn answer(answers: &Answers, response: v1::PreflightResponse) {
    // An operator who has gone away doesn't need the answer.
    let _ = answers.try_send(Ok(response));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_a_report_leaves_out_is_an_obstacle() {
        let (answers, mut parts) = mpsc::channel(1);
        let agent = AgentName::from("app-1");
        let of = |text: &str| text.to_owned();
        let asked = vec![(of("one"), of("first"), of("command.run"))];
        let mut preflights = Preflights::default();
        preflights
            .pending
            .insert((of("1"), agent.clone()), Pending { asked, answers });
        let report = v1::PreflightReport {
            request_id: of("1"),
            findings: vec![],
        };
        preflights.report(&agent, report);
        let part = parts.try_recv().unwrap().unwrap();
        let told = &part.tasks[0].obstacles[0];
        assert!(told.contains("app-1") && told.contains("first"), "{told}");
    }
}
