//! Starting a run. A cutover's first state is its preflight: every agent
//! probes every forward task, and with an obstacle nothing is started.
//!
//! Most tasks are probed again when their phase is prepared, but for all
//! phases behind the fence that is during the outage. What prevents a task
//! then could mostly be found before: a wrong name, a missing right. Plans of
//! other kinds start without a preflight, because one of their steps may create
//! what a later one needs.

use super::Driver;
use crate::active_run::{Machine, RunEntry};
use crate::agents::{AgentMessage, ToAgent};
use crate::handle::{Answer, Reply, RequestError};
use crate::party_resolution;
use crate::plans::{CheckedPlan, RunDocument};
use crate::preflights::{Answers, PreflightOrder, Recipient, obstacles_of};
use lockstep_api::{Code, Diagnosis, PreflightReport};
use lockstep_barrier::coordinator::{Event, Run};
use lockstep_barrier::ids::{AgentName, Millis, RunId};
use lockstep_barrier::record::Begin;
use lockstep_plan::Digest;
use lockstep_plan::model::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// How long the preflight of all agents together may take, in milliseconds.
/// Each agent also has a limit for each of its tasks, and they probe
/// concurrently.
const PREFLIGHT_LIMIT: Millis = 300_000;
/// Obstacles that an error names. It travels in a header of bounded size, and
/// the preflight command shows all of them.
const NAMED: usize = 10;
/// Bytes of each of them, so that all that are named fit into the error.
const OBSTACLE_LIMIT: usize = 300;
/// Bytes of a run's first record; the rest of a journal entry is for its
/// envelope.
const MAX_BEGIN: usize = lockstep_journal::MAX_BODY - (64 << 10);

/// Starts that wait for their preflight, by number.
#[derive(Default)]
pub(super) struct PendingStarts {
    by_number: BTreeMap<u64, PendingStart>,
    count: u64,
}

struct PendingStart {
    plan: CheckedPlan,
    request: String,
    by: String,
    /// One for each time the request was made.
    replies: Vec<Reply<String>>,
    /// Agents that have not reported.
    waiting: BTreeSet<AgentName>,
    obstacles: Vec<String>,
    deadline: Millis,
}

impl PendingStarts {
    /// When the first of them has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.by_number.values().map(|start| start.deadline).min()
    }

    /// The pending start of this request; requests without an id are all
    /// different.
    fn of_request(&mut self, request: &str) -> Option<&mut PendingStart> {
        self.by_number
            .values_mut()
            .find(|start| !request.is_empty() && start.request == request)
    }

    fn report(&mut self, number: u64, part: PreflightReport) {
        let Some(start) = self.by_number.get_mut(&number) else {
            return;
        };
        if let Some(agent) = &part.agent {
            start.waiting.remove(&AgentName::from(agent.as_str()));
        }
        start.obstacles.extend(obstacles_of(part));
    }

    /// Removes those that have every report or have waited long enough.
    fn take_due(&mut self, now: Millis) -> Vec<PendingStart> {
        self.by_number
            .extract_if(.., |_, start| {
                start.waiting.is_empty() || start.deadline <= now
            })
            .map(|(_, start)| start)
            .collect()
    }
}

impl Driver {
    pub(super) fn preflight(&mut self, plan: &CheckedPlan, answers: Answers) {
        match party_resolution::resolve_parties(plan.plan(), &self.candidates()) {
            Ok(cast) => {
                self.ask_agents(plan, &cast, &Recipient::Operator(answers));
            }
            Err(obstacles) => {
                // An operator who has disconnected doesn't need the answer.
                let _ = answers.try_send(PreflightReport {
                    obstacles,
                    ..PreflightReport::default()
                });
            }
        }
    }

    /// Sends every agent of the plan its part of a preflight and returns their
    /// names. The recipient gets one report for each.
    fn ask_agents(
        &mut self,
        plan: &CheckedPlan,
        cast: &party_resolution::ResolvedParties,
        recipient: &Recipient,
    ) -> BTreeSet<AgentName> {
        let orders = self.preflights.ask(plan.plan(), cast, recipient);
        let asked = orders.iter().map(|order| order.agent.clone()).collect();
        self.send_preflights(orders);
        asked
    }

    /// Sends these orders, and those of second rounds that have become due.
    pub(super) fn send_preflights(&mut self, mut orders: Vec<PreflightOrder>) {
        orders.extend(self.preflights.take_orders());
        while let Some(order) = orders.pop() {
            let message = AgentMessage::Preflight {
                request: order.request,
                tasks: order.tasks,
                inputs: order.inputs,
            };
            if !self.agents.send(&order.agent, ToAgent::from(message)) {
                self.preflights.disconnected(&order.agent);
                orders.extend(self.preflights.take_orders());
            }
        }
    }

    /// The agent's session ended: its preflights get no report of it.
    pub(super) fn lost_by_preflights(&mut self, agent: &AgentName) {
        self.preflights.disconnected(agent);
        self.send_preflights(Vec::new());
    }

    /// Starts a run and replies with its id. A request id starts one run
    /// however often it is submitted.
    pub(super) fn start_run(
        &mut self,
        plan: CheckedPlan,
        request: String,
        by: String,
        reply: Reply<String>,
    ) {
        if let Some(run) = self.started_by(&request) {
            let answer = if self.runs_plan(&run, plan.digest()) {
                Ok(run)
            } else {
                Err(other_plan(&request))
            };
            self.post_commit(|_| drop(reply.send(answer)));
        } else if let Some(pending) = self.starts.of_request(&request) {
            if pending.plan.digest() == plan.digest() {
                pending.replies.push(reply);
            } else {
                drop(reply.send(Err(other_plan(&request))));
            }
        } else if let Some(why) = self.no_space() {
            drop(reply.send(Err(RequestError::precondition(why))));
        } else if plan.plan().kind == Kind::Cutover {
            self.begin_preflight(plan, request, by, reply);
        } else {
            let answer = self.begin(&plan, request, by);
            self.post_commit(|_| drop(reply.send(answer)));
        }
    }

    fn started_by(&self, request: &str) -> Option<String> {
        // Requests without an id are all different.
        self.started
            .get(request)
            .filter(|_| !request.is_empty())
            .cloned()
    }

    fn runs_plan(&self, run: &str, digest: &Digest) -> bool {
        let entry = self.runs.get(&RunId::from(run));
        entry.is_some_and(|entry| entry.state().begin.resolved_plan.digest.0 == digest.to_string())
    }

    fn begin_preflight(
        &mut self,
        plan: CheckedPlan,
        request: String,
        by: String,
        reply: Reply<String>,
    ) {
        self.starts.count += 1;
        let number = self.starts.count;
        let (waiting, obstacles) =
            match party_resolution::resolve_parties(plan.plan(), &self.candidates()) {
                Ok(cast) => {
                    let asked = self.ask_agents(&plan, &cast, &Recipient::Start(number));
                    (asked, Vec::new())
                }
                Err(obstacles) => (BTreeSet::new(), obstacles),
            };
        let start = PendingStart {
            plan,
            request,
            by,
            replies: vec![reply],
            waiting,
            obstacles,
            deadline: lockstep_clock::boot_time().saturating_add(PREFLIGHT_LIMIT),
        };
        self.starts.by_number.insert(number, start);
    }

    /// Starts or refuses what has its preflight.
    pub(super) fn settle_starts(&mut self) {
        for (number, part) in self.preflights.take_for_starts() {
            self.starts.report(number, part);
        }
        for start in self.starts.take_due(lockstep_clock::boot_time()) {
            self.settle(start);
        }
    }

    fn settle(&mut self, start: PendingStart) {
        let PendingStart {
            plan,
            request,
            by,
            replies,
            waiting,
            mut obstacles,
            ..
        } = start;
        if replies.iter().all(Reply::is_closed) {
            tracing::info!(
                request,
                by,
                "not started: the operator disconnected during the preflight"
            );
            return;
        }
        if !waiting.is_empty() {
            obstacles.push(format!(
                "not every agent has answered within {} s",
                PREFLIGHT_LIMIT / 1000
            ));
        }
        let answer = if obstacles.is_empty() {
            self.begin(&plan, request, by)
        } else {
            Err(RequestError::precondition(prevented(&obstacles)))
        };
        self.post_commit(move |_| {
            for reply in replies {
                drop(reply.send(answer.clone()));
            }
        });
    }

    pub(super) fn begin(
        &mut self,
        plan: &CheckedPlan,
        request: String,
        by: String,
    ) -> Answer<String> {
        if let Some(why) = self.no_space() {
            return Err(RequestError::precondition(why));
        }
        let cast = party_resolution::resolve_parties(plan.plan(), &self.candidates()).map_err(
            |obstacles| {
                let what = format!("the run can't start: {}", obstacles.join("; "));
                RequestError::invalid(Diagnosis::new(Code::LS4302, what))
            },
        )?;
        let members = self.agents.states().into_iter();
        let foreign = members
            .filter(|state| cast.members.contains_key(&state.agent) && self.is_foreign(state))
            .map(|state| (state.agent, state.term))
            .collect();
        let rest = RunDocument::write(plan, &request, foreign).map_err(|e| {
            let diagnosis = Diagnosis::new(Code::LS4304, "the plan can't be recorded");
            RequestError::invalid(diagnosis.source(&e))
        })?;
        let id = RunId(uuid::Uuid::now_v7().to_string());
        let begin = Begin {
            run: id.clone(),
            resolved_plan: party_resolution::resolved_plan(plan.plan(), plan.digest(), &cast),
            members: cast.members,
            by,
            trace: lockstep_telemetry::TraceContext::generate().to_string(),
            rest,
        };
        fits(&begin)?;
        let (run, effects) = Run::start(lockstep_clock::boot_time(), begin, self.term)
            .map_err(|e| RequestError::invalid(Diagnosis::new(Code::LS4303, e.to_string())))?;
        let machine = Machine::Active(Box::new(run));
        let cell = RunEntry::new(machine, plan.plan().clone(), &[]);
        let earlier: Vec<RunId> = self.runs.keys().cloned().collect();
        for run in earlier {
            let by = id.clone();
            self.happen(&run, Event::Superseded { by });
        }
        self.runs.insert(id.clone(), cell);
        self.order.push(id.clone());
        self.started.insert(request, id.to_string());
        self.effects
            .extend(effects.into_iter().map(|effect| (id.clone(), effect)));
        for state in self.agents.states() {
            if self.runs_of(&state.agent).contains(&id) {
                self.happen(&id, Event::Connected(state));
            }
        }
        Ok(id.to_string())
    }
}

/// A request id names one start of one plan.
fn other_plan(request: &str) -> RequestError {
    let what = format!("the request {request} starts another plan");
    let diagnosis = Diagnosis::new(Code::LS4317, what)
        .state_left("nothing was started by this request")
        .remedy("submit this plan under a new request id");
    RequestError::precondition(diagnosis)
}

/// The journal fails on a record beyond its limit, which ends the coordinator;
/// so the record is measured before the run exists.
fn fits(begin: &Begin) -> Answer<()> {
    let bytes = lockstep_barrier::message::json_size(begin);
    if bytes <= MAX_BEGIN {
        return Ok(());
    }
    let what = format!(
        "the plan with its {} agents takes {bytes} bytes to begin with, more than {MAX_BEGIN}",
        begin.members.len()
    );
    let diagnosis = Diagnosis::new(Code::LS4315, what)
        .state_left("nothing was started")
        .remedy("split the plan, or name fewer agents in it");
    Err(RequestError::invalid(diagnosis))
}

fn prevented(obstacles: &[String]) -> Diagnosis {
    let named = obstacles.iter().take(NAMED).map(|obstacle| {
        let end = obstacle.floor_char_boundary(OBSTACLE_LIMIT);
        let cut = if end < obstacle.len() { "…" } else { "" };
        format!("{}{cut}", &obstacle[..end])
    });
    let named: Vec<String> = named.collect();
    let more = match obstacles.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let what = format!("obstacles prevent this plan: {}{more}", named.join("; "));
    Diagnosis::new(Code::LS4316, what)
        .state_left("nothing was started")
        .remedy("see all of them with `lockstep preflight`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::within_a_header;
    use lockstep_api::PreflightTask;

    #[test]
    fn a_prevented_start_names_agent_and_step_and_stays_short() {
        let task = |step: &str, obstacles: &[&str]| PreflightTask {
            step: step.to_owned(),
            obstacles: obstacles.iter().map(|&text| text.to_owned()).collect(),
            ..PreflightTask::default()
        };
        let part = PreflightReport {
            agent: Some("ora-1".to_owned()),
            tasks: vec![task("listeners", &[]), task("accounts", &["no SHOPP"; 12])],
            obstacles: vec![],
        };
        let obstacles: Vec<String> = obstacles_of(part).collect();
        assert_eq!(obstacles.len(), 12);
        let what = prevented(&obstacles).what;
        assert!(what.contains("ora-1 accounts: no SHOPP; "), "{what}");
        assert!(what.ends_with("; and 2 more"), "{what}");
        let longest = "ä".repeat(OBSTACLE_LIMIT);
        let diagnosis = prevented(&vec![longest; 1000]);
        assert_eq!(within_a_header(diagnosis.clone()), diagnosis);
    }
}
