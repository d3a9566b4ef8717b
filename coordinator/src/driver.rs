//! The coordinator's one event loop.
//!
//! It alone calls the runs' machines. What several inputs lead to is written
//! to the journal in one append and only then sent, told and answered: nobody
//! hears of anything that is not on disk (persist before send), and a
//! thousand outcomes cost one fsync.

use crate::agents::Agents;
use crate::handle::{Answer, Asked, AskedAction, Handle, Input, Refusal, RefusalKind, Watched};
use crate::launch::{self, Candidates};
use crate::preflights::{Answers, Preflights};
use crate::runs::{Happening, Machine, RunCell};
use crate::store::{Store, StoreError};
use lockstep_barrier::coordinator::{Effect, Event, Run, State, Verb, VerbAction};
use lockstep_barrier::ids::{AgentName, Millis, RunId, Term};
use lockstep_barrier::message::Order;
use lockstep_barrier::record::Begin;
use lockstep_plan::Plan;
use lockstep_proto::{convert, v1};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// Inputs taken in before their records are written together.
const BATCH: usize = 512;
/// What agents are told in their Welcome.
const HEARTBEAT_MS: u64 = 5_000;

/// Why the driver can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal can't be used.
    #[error("the coordinator can't start")]
    Store(#[from] StoreError),
    /// A run's records don't make sense together.
    #[error("LS4104: the journal of run {run} contradicts itself: {problem}")]
    Fold {
        /// Which.
        run: RunId,
        /// How.
        problem: String,
    },
    /// The plan a run began with can't be read.
    #[error("LS4105: the plan of run {run} can't be read")]
    Plan {
        /// Which.
        run: RunId,
        /// Why.
        source: serde_json::Error,
    },
}

/// What is to be done once the batch is on disk.
type Afterwards = Box<dyn FnOnce(&mut Driver) + Send>;

/// The loop and all it owns.
pub struct Driver {
    name: String,
    term: Term,
    take_over: bool,
    fenced: Option<String>,
    store: Store,
    agents: Agents,
    runs: BTreeMap<RunId, RunCell>,
    /// Oldest first.
    order: Vec<RunId>,
    preflights: Preflights,
    started: BTreeMap<String, String>,
    queue: mpsc::Receiver<Input>,
    effects: Vec<(RunId, Effect)>,
    afterwards: Vec<Afterwards>,
}

impl Driver {
    /// Begins a term, reads the journal and takes every run up where it
    /// stood.
    ///
    /// # Errors
    /// Where the journal can't be used.
    pub fn start(
        name: String,
        mut store: Store,
        take_over: bool,
    ) -> Result<(Self, Handle), StartError> {
        let term = store.begin_term(0)?;
        let agents = Agents::new(store.known_agents()?);
        let (handle, queue) = Handle::new();
        let mut driver = Self {
            name,
            term,
            take_over,
            fenced: None,
            store,
            agents,
            runs: BTreeMap::new(),
            order: Vec::new(),
            preflights: Preflights::default(),
            started: BTreeMap::new(),
            queue,
            effects: Vec::new(),
            afterwards: Vec::new(),
        };
        driver.take_up_runs()?;
        driver.flush()?;
        tracing::info!(
            term = term.number,
            runs = driver.runs.len(),
            "the coordinator leads"
        );
        Ok((driver, handle))
    }

    fn take_up_runs(&mut self) -> Result<(), StartError> {
        for run in self.store.runs()? {
            let stored = self.store.entries(&run, 0)?;
            let fold = |problem: &dyn std::fmt::Display| StartError::Fold {
                run: run.clone(),
                problem: problem.to_string(),
            };
            let entries = || stored.iter().map(|stored| stored.entry.clone());
            let state = State::fold(entries()).map_err(|e| fold(&e))?;
            let over = state.ended.is_some()
                && state
                    .begin
                    .members
                    .keys()
                    .all(|agent| state.closed_by.contains(agent));
            let (machine, effects) = if over {
                (Machine::Closed(Box::new(state)), Vec::new())
            } else {
                let (run, effects) = Run::resume(lockstep_clock::boot_time(), entries(), self.term)
                    .map_err(|e| fold(&e))?;
                (Machine::Live(Box::new(run)), effects)
            };
            let cell = RunCell::new(machine, &stored).map_err(|source| StartError::Plan {
                run: run.clone(),
                source,
            })?;
            let request = cell.state().begin.rest["request"]
                .as_str()
                .unwrap_or_default();
            self.started.insert(request.to_owned(), run.to_string());
            self.runs.insert(run.clone(), cell);
            self.order.push(run.clone());
            self.effects
                .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
        }
        Ok(())
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the journal fails: the process must end (R23).
    pub async fn run(mut self) -> Result<(), StoreError> {
        loop {
            let tick = until(self.next_deadline());
            let first = tokio::select! {
                input = self.queue.recv() => input,
                () = tick => None,
            };
            let mut stop = self.queue.is_closed() && first.is_none();
            if let Some(input) = first {
                stop |= self.hear(input)?;
                for _ in 1..BATCH {
                    match self.queue.try_recv() {
                        Ok(input) => stop |= self.hear(input)?,
                        Err(_) => break,
                    }
                }
            }
            self.tick();
            self.flush()?;
            if stop {
                return Ok(());
            }
        }
    }

    fn next_deadline(&self) -> Option<Millis> {
        self.runs
            .values()
            .filter_map(|cell| cell.live()?.next_deadline())
            .min()
    }

    fn tick(&mut self) {
        let now = lockstep_clock::boot_time();
        let due: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, cell)| {
                cell.live()
                    .and_then(Run::next_deadline)
                    .is_some_and(|at| at <= now)
            })
            .map(|(run, _)| run.clone())
            .collect();
        for run in due {
            self.happen(&run, Event::Tick);
        }
    }

    fn happen(&mut self, run: &RunId, event: Event) {
        if self.fenced.is_some() {
            return;
        }
        let Some(machine) = self.runs.get_mut(run).and_then(RunCell::run) else {
            return;
        };
        let effects = machine.handle(lockstep_clock::boot_time(), event);
        self.effects
            .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
    }

    /// Takes one input in; `true` where it says to stop.
    fn hear(&mut self, input: Input) -> Result<bool, StoreError> {
        match input {
            Input::Hello {
                hello,
                address,
                outbox,
                reply,
            } => {
                let answer = self.admit(*hello, address, outbox)?;
                self.afterwards(|_| drop(reply.send(answer)));
            }
            Input::Agent {
                agent,
                session,
                message,
            } => self.agent_says(agent, session, *message),
            Input::Gone { agent, session } => {
                if self.agents.gone(&agent, session) {
                    tracing::warn!(%agent, "the agent's session ended");
                    self.preflights.gone(&agent);
                    for run in self.runs_of(&agent) {
                        self.happen(&run, Event::Disconnected(agent.clone()));
                    }
                }
            }
            Input::Preflight {
                plan,
                answers,
                reply,
            } => {
                let answer = self.preflight(plan, answers);
                self.afterwards(|_| drop(reply.send(answer)));
            }
            Input::Start {
                plan,
                request,
                by,
                reply,
            } => {
                let answer = self.begin(plan, request, by);
                self.afterwards(|_| drop(reply.send(answer)));
            }
            Input::Verb { asked, reply } => {
                let answer = self.verb(*asked);
                self.afterwards(move |driver| {
                    drop(reply.send(answer.and_then(|run| driver.status(&run))));
                });
            }
            Input::Accept {
                agent,
                by,
                reason,
                reply,
            } => {
                let answer = self.accept(&agent, &by, &reason)?;
                self.afterwards(|_| drop(reply.send(answer)));
            }
            Input::Stop => return Ok(true),
            question => self.answer(question),
        }
        Ok(false)
    }

    /// Questions that change nothing are answered from what is on disk: after
    /// the batch.
    fn answer(&mut self, question: Input) {
        self.afterwards(move |driver| match question {
            Input::List { limit, reply } => {
                let newest = driver.order.iter().rev().take(limit);
                let runs = newest
                    .filter_map(|run| driver.runs.get(run))
                    .map(RunCell::brief);
                drop(reply.send(Ok(runs.collect())));
            }
            Input::Get { run, reply } => drop(reply.send(driver.status(&run))),
            Input::Watch { run, after, reply } => drop(reply.send(driver.watch(&run, after))),
            Input::Events { run, after, reply } => drop(reply.send(driver.events(&run, after))),
            Input::Agents { reply } => {
                drop(reply.send(Ok(driver.agents.status(&driver.locked()))));
            }
            _ => {}
        });
    }

    fn afterwards(&mut self, what: impl FnOnce(&mut Self) + Send + 'static) {
        self.afterwards.push(Box::new(what));
    }

    /// Writes what the batch decided, then sends and tells it. A send that
    /// fails is an event of its own, so this goes on until nothing is left.
    fn flush(&mut self) -> Result<(), StoreError> {
        loop {
            self.write_and_send()?;
            if self.effects.is_empty() {
                break;
            }
        }
        for what in std::mem::take(&mut self.afterwards) {
            what(self);
        }
        Ok(())
    }

    fn write_and_send(&mut self) -> Result<(), StoreError> {
        let effects = std::mem::take(&mut self.effects);
        let mut entries = Vec::new();
        let mut orders = Vec::new();
        for (run, effect) in effects {
            match effect {
                Effect::Persist(entry) => entries.push((run, entry)),
                Effect::Send { to, order } => orders.push((run, to, order)),
            }
        }
        let stored = self.store.persist(&entries)?;
        let mut changed: Vec<RunId> = Vec::new();
        for ((run, _), stored) in entries.iter().zip(&stored) {
            if let Some(cell) = self.runs.get_mut(run) {
                cell.note(stored);
            }
            if changed.last() != Some(run) {
                changed.push(run.clone());
            }
        }
        for (run, to, order) in orders {
            self.send(&run, &to, order);
        }
        for (run, cell) in &mut self.runs {
            cell.tell_status(changed.contains(run));
            cell.close_if_over();
        }
        Ok(())
    }

    fn send(&mut self, run: &RunId, to: &AgentName, order: Order) {
        let traceparent = self
            .runs
            .get(run)
            .map(RunCell::traceparent)
            .unwrap_or_default();
        let message = Some(order.into());
        let sent = self.agents.send(
            to,
            v1::SessionResponse {
                traceparent,
                message,
            },
        );
        if !sent {
            for run in self.runs_of(to) {
                self.happen(&run, Event::Disconnected(to.clone()));
            }
        }
    }

    fn runs_of(&self, agent: &AgentName) -> Vec<RunId> {
        self.runs
            .iter()
            .filter(|(_, cell)| {
                cell.live()
                    .is_some_and(|run| run.journal_of(agent).is_some())
            })
            .map(|(run, _)| run.clone())
            .collect()
    }

    /// Agents that belong to a run that isn't over.
    fn locked(&self) -> BTreeMap<AgentName, RunId> {
        let mut locked = BTreeMap::new();
        for (id, cell) in &self.runs {
            let Some(run) = cell.live() else { continue };
            for agent in run.state().begin.members.keys() {
                if !run.state().closed_by.contains(agent) {
                    locked.insert(agent.clone(), id.clone());
                }
            }
        }
        locked
    }

    fn admit(
        &mut self,
        hello: v1::Hello,
        address: String,
        outbox: crate::agents::Outbox,
    ) -> Result<Answer<(u64, v1::Welcome)>, StoreError> {
        if let Err(refusal) = self.check_term(&hello)? {
            return Ok(Err(refusal));
        }
        let agent = AgentName(hello.agent.clone());
        let refused = |message| Refusal::new(RefusalKind::Precondition, message);
        let admission = match self
            .agents
            .admit(hello, address, outbox, lockstep_clock::wall_time())
        {
            Ok(admission) => admission,
            Err(why) => {
                tracing::error!(%agent, "{why}");
                return Ok(Err(refused(why)));
            }
        };
        if let Some(known) = &admission.first_seen {
            self.store.remember(known)?;
        }
        tracing::info!(%agent, session = admission.session, "agent connected");
        for run in self.runs_of(&agent) {
            let lost = self
                .runs
                .get(&run)
                .and_then(RunCell::live)
                .is_some_and(|run| {
                    run.journal_of(&agent)
                        .is_some_and(|journal| *journal != admission.standing.journal)
                });
            if lost {
                self.happen(&run, Event::Quarantined(agent.clone()));
            }
            self.happen(&run, Event::Connected(admission.standing.clone()));
        }
        let welcome = v1::Welcome {
            coordinator: self.name.clone(),
            term: Some(self.term.into()),
            heartbeat_ms: HEARTBEAT_MS,
        };
        Ok(Ok((admission.session, welcome)))
    }

    /// A coordinator that meets a term not lower than its own from another
    /// incarnation stops deciding until it is told to take over (R11).
    fn check_term(&mut self, hello: &v1::Hello) -> Result<Answer<()>, StoreError> {
        let met: Term = hello.term.unwrap_or_default().into();
        let foreign = met.number >= self.term.number && met != self.term;
        if foreign && self.take_over {
            self.lead_above(met.number)?;
        } else if foreign && self.fenced.is_none() {
            let why = format!(
                "LS4204: {} has obeyed term {} of another coordinator, and this one leads term {}; \
                 find the other one and stop it, then start this one with --take-over",
                hello.agent, met.number, self.term.number
            );
            tracing::error!("{why}");
            self.fenced = Some(why);
        }
        Ok(match &self.fenced {
            Some(why) => Err(Refusal::new(RefusalKind::Precondition, why.clone())),
            None => Ok(()),
        })
    }

    fn lead_above(&mut self, floor: u64) -> Result<(), StoreError> {
        self.flush()?;
        self.term = self.store.begin_term(floor)?;
        tracing::warn!(
            term = self.term.number,
            "taking over above another coordinator's term"
        );
        let live: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, cell)| cell.live().is_some())
            .map(|(run, _)| run.clone())
            .collect();
        for run in live {
            let stored = self.store.entries(&run, 0)?;
            let entries = stored.iter().map(|stored| stored.entry.clone());
            match Run::resume(lockstep_clock::boot_time(), entries, self.term) {
                Ok((machine, effects)) => {
                    if let Ok(cell) = RunCell::new(Machine::Live(Box::new(machine)), &stored) {
                        self.runs.insert(run.clone(), cell);
                    }
                    self.effects
                        .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
                }
                Err(e) => tracing::error!(%run, error = %e, "the run can't be taken over"),
            }
        }
        Ok(())
    }

    fn agent_says(
        &mut self,
        agent: AgentName,
        session: u64,
        message: v1::session_request::Message,
    ) {
        use v1::session_request::Message as M;
        if !self.agents.is_current(&agent, session) {
            return;
        }
        self.agents.heard(&agent, lockstep_clock::wall_time());
        match message {
            M::Progress(progress) => self.progress(&agent, progress),
            M::PreflightReport(report) => self.preflights.report(&agent, report),
            message => match convert::reply(message) {
                Ok(reply) => {
                    let run = run_of(&reply).clone();
                    self.happen(&run, Event::Reply { from: agent, reply });
                }
                Err(invalid) => {
                    tracing::error!(%agent, %invalid, "LS4205: the agent sent an invalid message");
                }
            },
        }
    }

    fn progress(&self, agent: &AgentName, progress: v1::Progress) {
        let Some(cell) = self.runs.get(&RunId(progress.run_id.clone())) else {
            return;
        };
        let phase = progress.phase.and_then(|phase| phase.try_into().ok());
        let kind = match progress.kind() {
            v1::ProgressKind::Started => "started",
            v1::ProgressKind::Output => "output",
            v1::ProgressKind::Note | v1::ProgressKind::Unspecified => "note",
        };
        cell.tell(Happening::Line(v1::TaskLine {
            agent: agent.to_string(),
            phase: phase
                .map(|phase| cell.phase_name(phase))
                .unwrap_or_default(),
            step_id: progress.step_id,
            kind: kind.to_owned(),
            line: progress.line,
            at_ms: lockstep_clock::wall_time(),
        }));
    }

    /// A run that has ended keeps nobody from the next one: on each session
    /// its Close goes before any Prepare of another run, and an agent that is
    /// still winding up refuses by itself (R19).
    fn candidates(&self) -> Candidates {
        let mut busy = self.locked();
        busy.retain(|_, run| {
            let live = self.runs.get(run).and_then(RunCell::live);
            live.is_some_and(|run| run.state().ended.is_none())
        });
        self.agents.candidates(&busy)
    }

    fn preflight(&mut self, document: v1::PlanDocument, answers: Answers) -> Answer<()> {
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

    fn begin(&mut self, document: v1::PlanDocument, request: String, by: String) -> Answer<String> {
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

    fn verb(&mut self, asked: Asked) -> Answer<String> {
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

    fn accept(
        &mut self,
        agent: &str,
        by: &str,
        reason: &str,
    ) -> Result<Answer<v1::AgentStatus>, StoreError> {
        match self.agents.accept(agent, by, reason) {
            Ok(known) => {
                self.store.remember(&known)?;
                Ok(Ok(self.agents.status_of(agent, &self.locked())))
            }
            Err(why) => Ok(Err(Refusal::new(RefusalKind::Precondition, why))),
        }
    }

    /// A run by id, by a beginning of it that only one has, or the newest.
    fn find(&self, wanted: &str) -> Answer<RunId> {
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

    fn cell(&self, wanted: &str) -> Answer<(RunId, &RunCell)> {
        let id = self.find(wanted)?;
        let cell = self.runs.get(&id).ok_or_else(|| no_such_run(wanted))?;
        Ok((id, cell))
    }

    fn status(&self, wanted: &str) -> Answer<v1::RunStatus> {
        Ok(self.cell(wanted)?.1.status())
    }

    fn watch(&self, wanted: &str, after: u64) -> Answer<Watched> {
        let (_, cell) = self.cell(wanted)?;
        let missed = self.events(wanted, after)?;
        Ok(Watched {
            status: cell.status(),
            missed,
            happenings: cell.watch(),
        })
    }

    fn events(&self, wanted: &str, after: u64) -> Answer<Vec<v1::RunEvent>> {
        let (id, cell) = self.cell(wanted)?;
        let entries = self.store.entries(&id, after).map_err(|e| {
            let message = lockstep_telemetry::error_chain(&e);
            Refusal::new(RefusalKind::Unavailable, message)
        })?;
        Ok(entries.iter().map(|stored| cell.event(stored)).collect())
    }
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

fn run_of(reply: &lockstep_barrier::message::Reply) -> &RunId {
    use lockstep_barrier::message::Reply as R;
    match reply {
        R::Vote { run, .. }
        | R::Attestation { run, .. }
        | R::Breach { run, .. }
        | R::Disarmed { run, .. }
        | R::Closed { run } => run,
        R::Outcome(report) => &report.run,
    }
}

async fn until(deadline: Option<Millis>) {
    match deadline {
        Some(deadline) => {
            let wait = deadline.saturating_sub(lockstep_clock::boot_time());
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}
