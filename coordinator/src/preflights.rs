//! Preflights in progress: which agents were asked about which tasks, and who
//! receives their reports.

use crate::party_resolution::{ResolvedParties, tasks_by_agent};
use lockstep_api::{Finding, PreflightReport, PreflightTask};
use lockstep_barrier::ids::{AgentName, StepId};
use lockstep_barrier::message::TaskOrder;
use lockstep_barrier::resolved_plan::Outputs;
use lockstep_plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Outputs that are known before the run.
    pub foreseen: Outputs,
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

/// An agent's tasks with the request id that comes back in its report.
#[derive(Debug)]
pub struct PreflightOrder {
    pub agent: AgentName,
    pub request: String,
    pub tasks: Vec<TaskOrder>,
    /// Foreseen outputs that the tasks consume.
    pub inputs: Inputs,
}

/// Outputs by the step that has them.
pub type Inputs = BTreeMap<StepId, Outputs>;

/// How far one agent's part of a preflight is.
enum Stage {
    Asked,
    /// Its report waits for outputs that other agents foresee.
    Held(Vec<TaskFinding>),
    /// It was asked again about the tasks that consume such outputs.
    AskedAgain(Vec<TaskFinding>),
}

/// One agent's part of a preflight.
struct Part {
    /// Phase, step and action of each task, in order.
    asked: Vec<(String, String, String)>,
    /// The tasks that consume outputs, with the steps that have these.
    consumers: Vec<(TaskOrder, BTreeSet<StepId>)>,
    /// Other tasks consume outputs of its tasks.
    produces: bool,
    stage: Stage,
}

/// One preflight, until every agent's part was delivered.
struct Preflight {
    recipient: Recipient,
    parts: BTreeMap<AgentName, Part>,
    foreseen: Inputs,
}

/// Preflights in progress. Each agent is asked about all of its tasks, and a second
/// time about those that consume outputs which the first reports foresee.
#[derive(Default)]
pub struct Preflights {
    /// By the request id of the first round.
    pending: BTreeMap<String, Preflight>,
    count: u64,
    /// Parts for pending starts, which the driver collects.
    for_starts: Vec<(u64, PreflightReport)>,
    /// Orders of second rounds, which the driver sends.
    orders: Vec<PreflightOrder>,
}

/// Suffix of the request ids of second rounds.
const SECOND: &str = "+";

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
        let consumed = consumed(plan);
        let mut orders = Vec::new();
        let mut parts = BTreeMap::new();
        for (agent, tasks) in tasks_by_agent(plan, cast) {
            parts.insert(agent.clone(), Part::new(&tasks, &consumed));
            orders.push(PreflightOrder {
                agent,
                request: request.clone(),
                tasks: tasks.into_iter().map(|(_, task)| task).collect(),
                inputs: Inputs::new(),
            });
        }
        let preflight = Preflight {
            recipient: recipient.clone(),
            parts,
            foreseen: Inputs::new(),
        };
        self.pending.insert(request, preflight);
        orders
    }

    /// Accepts an agent's report. It is passed on once the outputs that its tasks
    /// consume are foreseen or can't be; one that nobody asked for is dropped.
    pub fn report(&mut self, agent: &AgentName, request: &str, findings: Vec<TaskFinding>) {
        let first = request.strip_suffix(SECOND).unwrap_or(request);
        let Some(preflight) = self.pending.get_mut(first) else {
            return;
        };
        let Some(part) = preflight.parts.get_mut(agent) else {
            return;
        };
        match (&mut part.stage, first == request) {
            (Stage::Asked, true) => {
                let foreseen = findings.iter().filter(|found| !found.foreseen.is_empty());
                preflight.foreseen.extend(
                    foreseen.map(|found| (found.step.as_str().into(), found.foreseen.clone())),
                );
                part.stage = Stage::Held(findings);
                self.proceed(first);
            }
            (Stage::AskedAgain(reported), false) => {
                let reported = merged(std::mem::take(reported), findings);
                self.deliver(first, agent, reported);
            }
            // A duplicate, or an answer to a question that wasn't asked yet.
            (Stage::Asked | Stage::Held(_) | Stage::AskedAgain(_), _) => {}
        }
    }

    /// Asks those agents again whose tasks consume outputs that are foreseen now, and
    /// delivers the reports that wait for nothing.
    fn proceed(&mut self, request: &str) {
        let Some(preflight) = self.pending.get_mut(request) else {
            return;
        };
        let missing = |part: &Part| part.produces && matches!(part.stage, Stage::Asked);
        let foreseen = !preflight.parts.values().any(missing);
        let mut complete = Vec::new();
        for (agent, part) in &mut preflight.parts {
            let Stage::Held(reported) = &mut part.stage else {
                continue;
            };
            if !foreseen && !part.consumers.is_empty() {
                continue;
            }
            let reported = std::mem::take(reported);
            let (tasks, inputs) = part.resolvable(&preflight.foreseen);
            if tasks.is_empty() {
                complete.push((agent.clone(), reported));
                continue;
            }
            part.stage = Stage::AskedAgain(reported);
            self.orders.push(PreflightOrder {
                agent: agent.clone(),
                request: format!("{request}{SECOND}"),
                tasks,
                inputs,
            });
        }
        for (agent, reported) in complete {
            self.deliver(request, &agent, reported);
        }
    }

    /// The orders of second rounds since the last call.
    pub fn take_orders(&mut self) -> Vec<PreflightOrder> {
        std::mem::take(&mut self.orders)
    }

    /// The agent's session ended: it can't answer any more.
    pub fn disconnected(&mut self, agent: &AgentName) {
        let asked = |preflight: &Preflight| preflight.parts.contains_key(agent);
        let requests: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, preflight)| asked(preflight))
            .map(|(request, _)| request.clone())
            .collect();
        for request in requests {
            let obstacle =
                format!("LS4301: {agent} disconnected before it had answered; see its log");
            self.pass_on(&request, agent, |_| PreflightReport {
                agent: Some(agent.to_string()),
                tasks: Vec::new(),
                obstacles: vec![obstacle],
            });
            self.proceed(&request);
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

    fn deliver(&mut self, request: &str, agent: &AgentName, reported: Vec<TaskFinding>) {
        self.pass_on(request, agent, |part| part.report(agent, reported));
    }

    /// Passes the agent's part on and removes it, with the preflight after the last.
    fn pass_on(
        &mut self,
        request: &str,
        agent: &AgentName,
        report: impl FnOnce(Part) -> PreflightReport,
    ) {
        let Some(preflight) = self.pending.get_mut(request) else {
            return;
        };
        let Some(part) = preflight.parts.remove(agent) else {
            return;
        };
        let report = report(part);
        match &preflight.recipient {
            Recipient::Operator(answers) => {
                // An operator who has disconnected doesn't need the answer.
                let _ = answers.try_send(report);
            }
            Recipient::Start(number) => self.for_starts.push((*number, report)),
        }
        if preflight.parts.is_empty() {
            self.pending.remove(request);
        }
    }
}

impl Part {
    fn new(tasks: &[(String, TaskOrder)], consumed: &BTreeMap<StepId, BTreeSet<StepId>>) -> Self {
        let asked = tasks
            .iter()
            .map(|(phase, task)| (phase.clone(), task.step.0.clone(), task.action.clone()))
            .collect();
        let consumers = tasks
            .iter()
            .filter_map(|(_, task)| Some((task.clone(), consumed.get(&task.step)?.clone())))
            .collect();
        let mut steps = tasks.iter().map(|(_, task)| &task.step);
        Self {
            asked,
            consumers,
            produces: steps.any(|step| consumed.values().any(|of| of.contains(step))),
            stage: Stage::Asked,
        }
    }

    /// Removes its consumers; those of which every producer is foreseen, with what
    /// they consume.
    fn resolvable(&mut self, foreseen: &Inputs) -> (Vec<TaskOrder>, Inputs) {
        let mut tasks = Vec::new();
        let mut inputs = Inputs::new();
        for (task, from) in std::mem::take(&mut self.consumers) {
            let found = from.iter().map(|step| Some((step, foreseen.get(step)?)));
            let Some(found) = found.collect::<Option<Vec<_>>>() else {
                continue;
            };
            let found = found.into_iter();
            inputs.extend(found.map(|(step, outputs)| (step.clone(), outputs.clone())));
            tasks.push(task);
        }
        (tasks, inputs)
    }

    fn report(self, agent: &AgentName, reported: Vec<TaskFinding>) -> PreflightReport {
        // What concerns no task is about the order as a whole.
        let (of_order, of_tasks): (Vec<TaskFinding>, Vec<TaskFinding>) = reported
            .into_iter()
            .partition(|found| found.step.is_empty());
        let obstacles = of_order.into_iter().flat_map(|found| found.obstacles);
        let mut findings: BTreeMap<String, TaskFinding> =
            of_tasks.into_iter().map(|f| (f.step.clone(), f)).collect();
        let tasks = self
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
        PreflightReport {
            agent: Some(agent.to_string()),
            tasks,
            obstacles: obstacles
                .map(|obstacle| format!("{agent}: {obstacle}"))
                .collect(),
        }
    }
}

/// The steps whose outputs a step consumes, for each that consumes any.
fn consumed(plan: &Plan) -> BTreeMap<StepId, BTreeSet<StepId>> {
    let steps = plan.phases.iter().flat_map(|phase| &phase.steps);
    steps
        .filter_map(|step| {
            let inputs = step.inputs().into_iter();
            let from: BTreeSet<StepId> = inputs.map(|of| of.step.as_str().into()).collect();
            (!from.is_empty()).then(|| (step.id.as_str().into(), from))
        })
        .collect()
}

/// The first report, with the second one's findings in place of the same steps'.
fn merged(mut first: Vec<TaskFinding>, second: Vec<TaskFinding>) -> Vec<TaskFinding> {
    first.retain(|found| found.step.is_empty() || !second.iter().any(|of| of.step == found.step));
    first.extend(second);
    first
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
    use lockstep_barrier::message::Mode;
    use serde_json::{Value, json};

    fn task(step: &str) -> (String, TaskOrder) {
        let order = TaskOrder {
            step: step.into(),
            action: "command.run".to_owned(),
            mode: Mode::Execute,
            params: Value::Null,
            timeout: 1_000,
            read_only: true,
            watch: false,
        };
        ("one".to_owned(), order)
    }

    /// A preflight in which `compare` at pg-1 consumes the output of `describe` at
    /// ora-1.
    fn asked() -> (Preflights, mpsc::Receiver<PreflightReport>) {
        let (answers, parts) = mpsc::channel(4);
        let consumed = BTreeMap::from([("compare".into(), BTreeSet::from(["describe".into()]))]);
        let of = |step: &str| Part::new(&[task(step)], &consumed);
        let preflight = Preflight {
            recipient: Recipient::Operator(answers),
            parts: BTreeMap::from([
                ("ora-1".into(), of("describe")),
                ("pg-1".into(), of("compare")),
                ("app-1".into(), of("stop")),
            ]),
            foreseen: Inputs::new(),
        };
        let mut preflights = Preflights::default();
        preflights.pending.insert("1".to_owned(), preflight);
        (preflights, parts)
    }

    fn found(step: &str, obstacle: &str) -> TaskFinding {
        TaskFinding {
            step: step.to_owned(),
            obstacles: Vec::from_iter(Some(obstacle.to_owned()).filter(|text| !text.is_empty())),
            ..TaskFinding::default()
        }
    }

    #[test]
    fn a_step_that_a_report_leaves_out_is_an_obstacle() {
        let (mut preflights, mut parts) = asked();
        preflights.report(&"app-1".into(), "1", Vec::new());
        let part = parts.try_recv().unwrap();
        let obstacle = &part.tasks[0].obstacles[0];
        assert!(
            obstacle.contains("app-1") && obstacle.contains("stop"),
            "{obstacle}"
        );
    }

    #[test]
    fn a_task_that_consumes_a_foreseen_output_is_checked_again_with_it() {
        let (mut preflights, mut parts) = asked();
        preflights.report(&"pg-1".into(), "1", vec![found("compare", "")]);
        assert!(parts.try_recv().is_err(), "it waits for ora-1");
        let outputs = Outputs::from([("columns".to_owned(), json!(["id"]))]);
        let describe = TaskFinding {
            foreseen: outputs.clone(),
            ..found("describe", "")
        };
        preflights.report(&"ora-1".into(), "1", vec![describe]);
        assert_eq!(parts.try_recv().unwrap().agent.unwrap(), "ora-1");
        let again = preflights.take_orders().pop().unwrap();
        assert_eq!(again.agent, "pg-1".into());
        assert_eq!(again.inputs, Inputs::from([("describe".into(), outputs)]));
        preflights.report(
            &"pg-1".into(),
            &again.request,
            vec![found("compare", "LS2339")],
        );
        let part = parts.try_recv().unwrap();
        assert_eq!(part.tasks[0].obstacles, ["LS2339"]);
        preflights.report(&"app-1".into(), "1", vec![found("stop", "")]);
        assert!(parts.try_recv().is_ok() && preflights.pending.is_empty());
    }

    #[test]
    fn a_producer_that_foresees_nothing_or_disconnects_holds_up_nobody() {
        let (mut preflights, mut parts) = asked();
        preflights.report(&"pg-1".into(), "1", vec![found("compare", "")]);
        preflights.disconnected(&"ora-1".into());
        let reported = std::iter::from_fn(|| parts.try_recv().ok()?.agent);
        assert_eq!(reported.collect::<Vec<_>>(), ["ora-1", "pg-1"]);
        let (mut preflights, mut parts) = asked();
        preflights.report(&"ora-1".into(), "1", vec![found("describe", "")]);
        preflights.report(&"pg-1".into(), "1", vec![found("compare", "")]);
        let reported = std::iter::from_fn(|| parts.try_recv().ok()?.agent);
        assert_eq!(reported.collect::<Vec<_>>(), ["ora-1", "pg-1"]);
        assert!(preflights.take_orders().is_empty());
    }

    #[test]
    fn an_agent_that_disconnects_after_the_second_question_is_reported() {
        let (mut preflights, mut parts) = asked();
        let describe = TaskFinding {
            foreseen: Outputs::from([("columns".to_owned(), json!([]))]),
            ..found("describe", "")
        };
        preflights.report(&"pg-1".into(), "1", vec![found("compare", "")]);
        preflights.report(&"ora-1".into(), "1", vec![describe]);
        preflights.disconnected(&"pg-1".into());
        let obstacles: Vec<String> = std::iter::from_fn(|| parts.try_recv().ok())
            .flat_map(|part| part.obstacles)
            .collect();
        assert!(
            obstacles.len() == 1 && obstacles[0].contains("pg-1"),
            "{obstacles:?}"
        );
    }
}
