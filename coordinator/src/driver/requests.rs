//! What operators ask for: preflights, runs, verbs, and how things stand.

use super::Driver;
use crate::handle::{Answer, Asked, AskedAction, Refusal, RefusalKind, Watched};
use crate::launch::{self, Candidates};
use crate::preflights::Answers;
use crate::runs::{Machine, RunCell};
use crate::store::StoreError;
use lockstep_barrier::coordinator::{Event, Run, Verb, VerbAction};
use lockstep_barrier::ids::{AgentName, RunId};
use lockstep_barrier::record::Begin;
use lockstep_plan::Plan;
use lockstep_proto::v1;

/// Bytes of a run's first record. The rest of an entry is for its envelope.
const MAX_BEGIN: usize = lockstep_journal::MAX_BODY - (64 << 10);

impl Driver {
    /// A run that has ended keeps nobody from the next one: on each session
    /// its Close goes before any Prepare of another run, and an agent that is
    /// still winding up refuses by itself (R19).
    pub(super) fn candidates(&self) -> Candidates {
        let mut busy = self.locked();
        busy.retain(|_, run| {
            let live = self.runs.get(run).and_then(RunCell::live);
            live.is_some_and(|run| run.state().ended.is_none())
        });
        self.agents.candidates(&busy)
    }

    pub(super) fn preflight(&mut self, document: v1::PlanDocument, answers: Answers) -> Answer<()> {
        let plan = read_plan(&document)?;
        let cast = match launch::cast(&plan, &self.candidates()) {
            Ok(cast) => cast,
            Err(obstacles) => {
                let response = v1::PreflightResponse {
                    obstacles,
                    ..Default::default()
                };
                let _ = answers.try_send(Ok(response));
                return Ok(());
            }
        };
        for (agent, order) in self.preflights.ask(&plan, &cast, &answers) {
            let message = Some(v1::session_response::Message::PreflightOrder(order));
            let response = v1::SessionResponse {
                traceparent: String::new(),
                message,
            };
            if !self.agents.send(&agent, response) {
                self.preflights.gone(&agent);
            }
        }
        Ok(())
    }

    pub(super) fn begin(
        &mut self,
        document: v1::PlanDocument,
        request: String,
        by: String,
    ) -> Answer<String> {
        if let Some(run) = self.started.get(&request).filter(|_| !request.is_empty()) {
            return Ok(run.clone());
        }
        if let Some(why) = &self.fenced {
            return Err(Refusal::new(RefusalKind::Precondition, why.clone()));
        }
        let plan = read_plan(&document)?;
        let cast = launch::cast(&plan, &self.candidates()).map_err(|obstacles| {
            let message = format!("LS4302: the run can't start: {}", obstacles.join("; "));
            Refusal::new(RefusalKind::Invalid, message)
        })?;
        let id = RunId(uuid::Uuid::now_v7().to_string());
        let begin = Begin {
            run: id.clone(),
            layout: launch::layout(&plan, &cast),
            members: cast.members,
            by,
            trace: lockstep_telemetry::TraceContext::generate().to_string(),
            rest: serde_json::json!({
                "plan": plan,
                "source": document.source,
                "request": request,
            }),
        };
        fits(&begin)?;
        let (run, effects) = Run::start(lockstep_clock::boot_time(), begin, self.term)
            .map_err(|e| Refusal::new(RefusalKind::Invalid, format!("LS4303: {e}")))?;
        let cell = RunCell::new(Machine::Live(Box::new(run)), &[]).map_err(|e| {
            Refusal::new(
                RefusalKind::Invalid,
                format!("LS4304: the plan can't be kept: {e}"),
            )
        })?;
        self.runs.insert(id.clone(), cell);
        self.order.push(id.clone());
        self.started.insert(request, id.to_string());
        self.effects
            .extend(effects.into_iter().map(|effect| (id.clone(), effect)));
        for standing in self.agents.standings() {
            if self.runs_of(&standing.agent).contains(&id) {
                self.happen(&id, Event::Connected(standing));
            }
        }
        Ok(id.to_string())
    }

    pub(super) fn verb(&mut self, asked: Asked) -> Answer<String> {
        if let Some(why) = &self.fenced {
            return Err(Refusal::new(RefusalKind::Precondition, why.clone()));
        }
        let id = self.find(&asked.run)?;
        let cell = self
            .runs
            .get_mut(&id)
            .ok_or_else(|| no_such_run(&asked.run))?;
        let action = match asked.action {
            AskedAction::Other(action) => action,
            AskedAction::Approve { phase, digest } => {
                let named = cell.phase_named(&phase).ok_or_else(|| {
                    let message = format!("LS4306: the plan has no phase {phase}");
                    Refusal::new(RefusalKind::Invalid, message)
                })?;
                VerbAction::Approve {
                    phase: named,
                    digest: digest.as_str().into(),
                }
            }
        };
        let verb = Verb {
            request: asked.request,
            by: asked.by,
            reason: asked.reason,
            expected: asked.expected,
            action,
        };
        let Some(run) = cell.run() else {
            let message = format!("LS4307: run {id} is over");
            return Err(Refusal::new(RefusalKind::Precondition, message));
        };
        let effects = run
            .verb(lockstep_clock::boot_time(), verb)
            .map_err(|refused| {
                Refusal::new(RefusalKind::Precondition, format!("LS4308: {refused}"))
            })?;
        self.effects
            .extend(effects.into_iter().map(|effect| (id.clone(), effect)));
        Ok(id.to_string())
    }

    pub(super) fn accept(
        &mut self,
        agent: &str,
        by: &str,
        reason: &str,
    ) -> Result<Answer<v1::AgentStatus>, StoreError> {
        match self.agents.accept(agent, by, reason) {
            Ok(accepted) => {
                self.store.remember(&accepted.known)?;
                let name = AgentName::from(agent);
                if accepted.ended {
                    self.disconnected(&name);
                }
                // What was released to it since is not in this journal, as if
                // that were a new one.
                if accepted.waited.gone_back {
                    for run in self.runs_of(&name) {
                        self.happen(&run, Event::Quarantined(name.clone()));
                    }
                }
                Ok(Ok(self.agents.status_of(agent, &self.locked())))
            }
            Err(why) => Ok(Err(Refusal::new(RefusalKind::Precondition, why))),
        }
    }

    /// A run by id, by a beginning of it that only one has, or the newest.
    pub(super) fn find(&self, wanted: &str) -> Answer<RunId> {
        let mut matching = self.order.iter().filter(|run| run.0.starts_with(wanted));
        let found = if wanted.is_empty() {
            self.order.last()
        } else {
            matching.next()
        };
        match (found, wanted.is_empty() || matching.next().is_none()) {
            (Some(run), true) => Ok(run.clone()),
            (Some(_), false) => Err(Refusal::new(
                RefusalKind::Invalid,
                format!("LS4309: several runs begin with {wanted}; give more of the id"),
            )),
            (None, _) => Err(no_such_run(wanted)),
        }
    }

    pub(super) fn cell(&self, wanted: &str) -> Answer<(RunId, &RunCell)> {
        let id = self.find(wanted)?;
        let cell = self.runs.get(&id).ok_or_else(|| no_such_run(wanted))?;
        Ok((id, cell))
    }

    pub(super) fn status(&self, wanted: &str) -> Answer<v1::RunStatus> {
        Ok(self.cell(wanted)?.1.status())
    }

    pub(super) fn watch(&self, wanted: &str, after: u64) -> Answer<Watched> {
        let (_, cell) = self.cell(wanted)?;
        let missed = self.events(wanted, after)?;
        Ok(Watched {
            status: cell.status(),
            missed,
            happenings: cell.watch(),
        })
    }

    pub(super) fn events(&self, wanted: &str, after: u64) -> Answer<Vec<v1::RunEvent>> {
        let (id, cell) = self.cell(wanted)?;
        let entries = self.store.entries(&id, after).map_err(|e| {
            let message = lockstep_telemetry::error_chain(&e);
            Refusal::new(RefusalKind::Unavailable, message)
        })?;
        Ok(entries.iter().map(|stored| cell.event(stored)).collect())
    }
}

/// A run begins with one record. What a journal doesn't keep would end the
/// coordinator, so it is measured before.
fn fits(begin: &Begin) -> Answer<()> {
    let bytes = serde_json::to_vec(begin).map_or(usize::MAX, |json| json.len());
    if bytes <= MAX_BEGIN {
        return Ok(());
    }
    let message = format!(
        "LS4315: the plan with its {} agents takes {bytes} bytes to begin with, more than \
         {MAX_BEGIN}; nothing was started; split the plan, or name fewer agents in it",
        begin.members.len()
    );
    Err(Refusal::new(RefusalKind::Invalid, message))
}

fn no_such_run(wanted: &str) -> Refusal {
    let message = if wanted.is_empty() {
        "LS4305: there is no run yet".to_owned()
    } else {
        format!("LS4305: there is no run {wanted}; see `lockstep run list`")
    };
    Refusal::new(RefusalKind::NotFound, message)
}

/// Reads the plan again: the coordinator trusts no check but its own.
fn read_plan(document: &v1::PlanDocument) -> Answer<Plan> {
    let invalid = |message: String| Refusal::new(RefusalKind::Invalid, message);
    let plan = Plan::from_json(&document.plan_json)
        .map_err(|e| invalid(format!("LS4310: this is not an expanded plan: {e}")))?;
    let faults: Vec<String> = lockstep_plan::check::verify(&plan)
        .into_iter()
        .filter(|fault| !fault.warning)
        .map(|fault| format!("{} {}; {}", fault.code, fault.message, fault.remedy))
        .collect();
    if !faults.is_empty() {
        return Err(invalid(format!(
            "LS4311: the plan is not sound: {}",
            faults.join("; ")
        )));
    }
    let digest = plan.digest().to_string();
    if digest != document.digest {
        return Err(invalid(format!(
            "LS4312: the plan's digest is {digest}, not {} as approved; check the file again",
            document.digest
        )));
    }
    Ok(plan)
}
