//! Preflights in progress: which agents were asked about which tasks, and who
//! receives their reports.

use crate::party_resolution::{ResolvedParties, tasks_by_agent};
use lockstep_api::{Finding, PreflightReport, PreflightTask};
use lockstep_barrier::ids::AgentName;
use lockstep_barrier::message::TaskOrder;
use lockstep_plan::Plan;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Where the parts of an operator's preflight go.
pub type Answers = mpsc::Sender<PreflightReport>;

/// Room for one part of every agent of a large plan; the receiver is the
/// operator's own stream.
pub const ANSWERS: usize = 1024;

/// An agent's report on one task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskFinding {
    pub step: String,
    /// What would be done, a line each.
    pub would_do: Vec<String>,
    /// What prevents it, a sentence each, with remedy.
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
    /// `None`: the task was not probed.
    pub finding: Option<Finding>,
}

/// Every obstacle of a report, with agent and step.
pub fn obstacles_of(report: PreflightReport) -> impl Iterator<Item = String> {
    let agent = report.agent.unwrap_or_default();
    let of_tasks = report.tasks.into_iter().flat_map(move |task| {
        let place = format!("{agent} {}", task.step);
        let obstacles = task.obstacles.into_iter();
        obstacles.map(move |obstacle| format!("{place}: {obstacle}"))
    });
    report.obstacles.into_iter().chain(of_tasks)
}

/// Who receives the parts of a preflight.
#[derive(Clone)]
pub enum Recipient {
    Operator(Answers),
    /// The pending start of a run, by its number.
    Start(u64),
}

struct Pending {
    /// Phase, step and action of each task, in order.
    asked: Vec<(String, String, String)>,
    recipient: Recipient,
}

/// An agent's tasks with the request id that comes back in its report.
pub struct PreflightOrder {
    pub agent: AgentName,
    pub request: String,
    pub tasks: Vec<TaskOrder>,
}

#[derive(Default)]
pub struct Preflights {
    pending: BTreeMap<(String, AgentName), Pending>,
    count: u64,
    /// Parts for pending starts, which the driver collects.
    for_starts: Vec<(u64, PreflightReport)>,
}

impl Preflights {
    /// The orders to send for this plan; one report of each agent is expected
    /// from then on.
    pub fn ask(
        &mut self,
        plan: &Plan,
        cast: &ResolvedParties,
        recipient: &Recipient,
    ) -> Vec<PreflightOrder> {
        self.count += 1;
        let request = self.count.to_string();
        let mut orders = Vec::new();
        for (agent, tasks) in tasks_by_agent(plan, cast) {
            let asked = tasks
                .iter()
                .map(|(phase, task)| (phase.clone(), task.step.0.clone(), task.action.clone()))
                .collect();
            let pending = Pending {
                asked,
                recipient: recipient.clone(),
            };
            self.pending
                .insert((request.clone(), agent.clone()), pending);
            orders.push(PreflightOrder {
                agent,
                request: request.clone(),
                tasks: tasks.into_iter().map(|(_, task)| task).collect(),
            });
        }
        orders
    }

    /// Passes an agent's report on; one that nobody asked for is dropped.
    pub fn report(&mut self, agent: &AgentName, request: String, findings: Vec<TaskFinding>) {
        let Some(pending) = self.pending.remove(&(request, agent.clone())) else {
            return;
        };
        // What concerns no task is about the order as a whole.
        let (of_order, of_tasks): (Vec<TaskFinding>, Vec<TaskFinding>) = findings
            .into_iter()
            .partition(|found| found.step.is_empty());
        let obstacles = of_order.into_iter().flat_map(|found| found.obstacles);
        let mut findings: BTreeMap<String, TaskFinding> =
            of_tasks.into_iter().map(|f| (f.step.clone(), f)).collect();
        let tasks = pending
            .asked
            .into_iter()
            .map(|(phase, step, action)| {
                let found = findings
                    .remove(&step)
                    .unwrap_or_else(|| not_reported(agent, step));
                PreflightTask {
                    phase,
                    action,
                    step: found.step,
                    finding: found.finding,
                    would_do: found.would_do,
                    obstacles: found.obstacles,
                    remarks: found.remarks,
                }
            })
            .collect();
        let part = PreflightReport {
            agent: Some(agent.to_string()),
            tasks,
            obstacles: obstacles
                .map(|obstacle| format!("{agent}: {obstacle}"))
                .collect(),
        };
        self.deliver(&pending.recipient, part);
    }

    /// The agent's session ended: it can't answer any more.
    pub fn disconnected(&mut self, agent: &AgentName) {
        let lost: Vec<(String, AgentName)> = self
            .pending
            .keys()
            .filter(|(_, of)| of == agent)
            .cloned()
            .collect();
        for key in lost {
            if let Some(pending) = self.pending.remove(&key) {
                let obstacle =
                    format!("LS4301: {agent} disconnected before it had answered; see its log");
                let part = PreflightReport {
                    agent: Some(agent.to_string()),
                    tasks: Vec::new(),
                    obstacles: vec![obstacle],
                };
                self.deliver(&pending.recipient, part);
            }
        }
    }

    /// Whether [`Preflights::take_for_starts`] has something.
    pub fn has_for_starts(&self) -> bool {
        !self.for_starts.is_empty()
    }

    /// The parts that have arrived for pending starts since the last call.
    pub fn take_for_starts(&mut self) -> Vec<(u64, PreflightReport)> {
        std::mem::take(&mut self.for_starts)
    }

    fn deliver(&mut self, recipient: &Recipient, part: PreflightReport) {
        match recipient {
            Recipient::Operator(answers) => {
                // An operator who has disconnected doesn't need the answer.
                let _ = answers.try_send(part);
            }
            Recipient::Start(number) => self.for_starts.push((*number, part)),
        }
    }
}

/// A step that the agent's report leaves out was not probed.
fn not_reported(agent: &AgentName, step: String) -> TaskFinding {
    TaskFinding {
        obstacles: vec![format!(
            "LS4301: {agent} did not report what it found for {step}; see its log"
        )],
        step,
        ..TaskFinding::default()
    }
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
        let recipient = Recipient::Operator(answers);
        let mut preflights = Preflights::default();
        preflights
            .pending
            .insert((of("1"), agent.clone()), Pending { asked, recipient });
        preflights.report(&agent, of("1"), Vec::new());
        let part = parts.try_recv().unwrap();
        let obstacle = &part.tasks[0].obstacles[0];
        assert!(
            obstacle.contains("app-1") && obstacle.contains("first"),
            "{obstacle}"
        );
    }
}
