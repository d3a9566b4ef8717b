//! The coordinator's one event loop.
//!
//! It alone calls the runs' state machines. The records of a batch of inputs
//! are written to the journal in one append, and only then are orders sent,
//! watchers notified and requests answered: nothing leaves the process that is
//! not on disk (persist before send), and a thousand outcomes cost one fsync.

mod admission;
mod requests;
mod sessions;
mod space;
mod starts;
mod terms;

use crate::active_run::{Machine, RunEntry};
use crate::agents::{AgentMessage, Agents, ToAgent};
use crate::handle::{Command, Handle, Input, Query};
use crate::plans::RunDocument;
use crate::preflights::Preflights;
use crate::store::{KnownAgent, Store, StoreError, Stored};
use admission::WaitingSessions;
use lockstep_barrier::coordinator::{Effect, Event, Run, State};
use lockstep_barrier::ids::{AgentName, Millis, RunId, Term};
use lockstep_barrier::message::Order;
use lockstep_daemon::{CrashPoint, sleep_until};
use starts::PendingStarts;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Inputs handled before their records are written together.
const BATCH: usize = 512;

/// Why the driver can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal can't be used.
    #[error("the coordinator can't start")]
    Store(#[from] StoreError),
    /// A run's records are inconsistent.
    #[error("LS4104: the journal of run {run} contradicts itself: {problem}")]
    Fold { run: RunId, problem: String },
    #[error(
        "LS4107: the journal already contains the highest possible term; move the state directory \
         away and start with --take-over"
    )]
    NoTermLeft,
    /// The plan a run began with can't be read.
    #[error("LS4105: the plan of run {run} can't be read")]
    Plan {
        run: RunId,
        source: serde_json::Error,
    },
}

/// Runs once the batch is on disk.
type PostCommit = Box<dyn FnOnce(&mut Driver) + Send>;

/// The loop and its state.
pub struct Driver {
    name: String,
    term: Term,
    /// Every term that this coordinator has led or taken over.
    terms: BTreeSet<Term>,
    take_over: bool,
    store: Store,
    /// Without space for a term, this coordinator leads no run: when it tries
    /// again.
    stalled: Option<Millis>,
    /// The journal uses its reserved space, and runs are paused.
    low_on_space: bool,
    agents: Agents,
    /// Sessions that aren't admitted yet.
    waiting: WaitingSessions,
    /// Acceptances of this batch, to be written with its records.
    accepted: Vec<KnownAgent>,
    runs: BTreeMap<RunId, RunEntry>,
    /// In order of age, the oldest first.
    order: Vec<RunId>,
    preflights: Preflights,
    /// Runs by the request that started them.
    started: BTreeMap<String, String>,
    /// Dropped before every reply that is still held, so that whoever waits for
    /// one finds the queue closed.
    queue: mpsc::Receiver<Input>,
    starts: PendingStarts,
    effects: Vec<(RunId, Effect)>,
    post_commit: Vec<PostCommit>,
}

impl Driver {
    /// Begins a term, reads the journal and resumes every run.
    ///
    /// # Errors
    /// If the journal can't be used.
    pub fn start(
        name: String,
        mut store: Store,
        take_over: bool,
    ) -> Result<(Self, Handle), StartError> {
        let (term, stalled) = match store.begin_term() {
            Ok(term) => (term.ok_or(StartError::NoTermLeft)?, None),
            Err(error) if error.is_full() => {
                tracing::error!(
                    "LS4108: the disk of the coordinator's journal is full; it leads no run until \
                     it can write"
                );
                (Term::default(), Some(0))
            }
            Err(error) => return Err(error.into()),
        };
        let terms = store.terms()?;
        let mut remembered = store.agents()?;
        let accepted_at = std::mem::take(&mut remembered.accepted_at);
        let agents = Agents::new(remembered);
        let (handle, queue) = Handle::new();
        let mut driver = Self {
            name,
            term,
            terms,
            take_over,
            store,
            stalled,
            low_on_space: false,
            agents,
            waiting: WaitingSessions::default(),
            accepted: Vec::new(),
            runs: BTreeMap::new(),
            order: Vec::new(),
            preflights: Preflights::default(),
            started: BTreeMap::new(),
            queue,
            starts: PendingStarts::default(),
            effects: Vec::new(),
            post_commit: Vec::new(),
        };
        driver.resume_runs(&accepted_at)?;
        driver.flush()?;
        if driver.stalled.is_none() {
            tracing::info!(
                term = term.number,
                runs = driver.runs.len(),
                "the coordinator leads"
            );
        }
        Ok((driver, handle))
    }

    fn resume_runs(&mut self, accepted_at: &BTreeMap<String, u64>) -> Result<(), StartError> {
        for run in self.store.runs()? {
            let stored = self.store.entries(&run, 0)?;
            self.remember_places(&stored, accepted_at);
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
            let (machine, effects) = if over || self.stalled.is_some() {
                (Machine::Archived(Box::new(state)), Vec::new())
            } else {
                let (run, effects) = Run::resume(lockstep_clock::boot_time(), entries(), self.term)
                    .map_err(|e| fold(&e))?;
                (Machine::Active(Box::new(run)), effects)
            };
            let document = RunDocument::read(&machine.state().begin);
            let document = document.map_err(|source| StartError::Plan {
                run: run.clone(),
                source,
            })?;
            let plan = Arc::new(document.plan.into_owned());
            let cell = RunEntry::new(machine, plan, &stored);
            let request = document.request.into_owned();
            self.started.insert(request, run.to_string());
            self.runs.insert(run.clone(), cell);
            self.order.push(run.clone());
            self.effects
                .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
        }
        Ok(())
    }

    /// Records how far agents' journals had got, unless an operator has since
    /// accepted one that has gone back (R10).
    fn remember_places(&mut self, stored: &[Stored], accepted_at: &BTreeMap<String, u64>) {
        for stored in stored {
            if let Some((agent, place)) = stored.entry.record.position()
                && accepted_at
                    .get(&agent.0)
                    .is_none_or(|at| *at < stored.position)
            {
                self.agents.record_position(agent, place);
            }
        }
    }

    /// Runs until stopped.
    ///
    /// # Errors
    /// If the journal fails: the process must end (R23).
    pub async fn run(mut self) -> Result<(), StoreError> {
        loop {
            let tick = sleep_until(self.next_deadline());
            let first = tokio::select! {
                input = self.queue.recv() => input,
                () = tick => None,
            };
            let mut stop = self.queue.is_closed() && first.is_none();
            if let Some(input) = first {
                stop |= self.handle(input)?;
                for _ in 1..BATCH {
                    match self.queue.try_recv() {
                        Ok(input) => stop |= self.handle(input)?,
                        Err(_) => break,
                    }
                }
            }
            self.lead_if_possible()?;
            self.settle_sessions()?;
            self.tick();
            self.flush()?;
            self.pause_without_space()?;
            if stop {
                return Ok(());
            }
        }
    }

    fn next_deadline(&self) -> Option<Millis> {
        let runs = self.runs.values();
        runs.filter_map(|cell| cell.live()?.next_deadline())
            .chain(self.starts.next_deadline())
            .chain(self.waiting.next_deadline())
            .chain(self.stalled)
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
        let Some(machine) = self.runs.get_mut(run).and_then(RunEntry::run) else {
            return;
        };
        let effects = machine.handle(lockstep_clock::boot_time(), event);
        self.effects
            .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
    }

    /// Handles one input; `true` if it ends the loop.
    fn handle(&mut self, input: Input) -> Result<bool, StoreError> {
        match input {
            Input::Command(command) => return self.command(command),
            Input::Session(event) => {
                CrashPoint::BeforeReceive.pass();
                self.session_event(event)?;
                CrashPoint::AfterReceive.pass();
            }
            // Queries are answered from what is on disk: after the batch.
            Input::Query(query) => self.post_commit(|driver| driver.query(query)),
        }
        Ok(false)
    }

    fn command(&mut self, command: Command) -> Result<bool, StoreError> {
        match command {
            Command::Preflight {
                plan,
                answers,
                reply,
            } => {
                self.preflight(&plan, answers);
                self.post_commit(|_| drop(reply.send(Ok(()))));
            }
            Command::StartRun {
                plan,
                request,
                by,
                reply,
            } => self.start_run(plan, request, by, reply),
            Command::Verb { asked, reply } => {
                let answer = self.verb(*asked);
                self.post_commit(move |driver| {
                    drop(reply.send(answer.and_then(|run| driver.status(&run))));
                });
            }
            Command::Accept {
                agent,
                by,
                reason,
                reply,
            } => {
                // It may end a session of the other process, whose reports
                // must not be counted for the accepted journal.
                self.flush()?;
                let answer = self.accept(&agent, &by, &reason);
                // What the acceptance means to runs is written with it, and
                // nobody is admitted before.
                self.flush()?;
                self.post_commit(|_| drop(reply.send(answer)));
            }
            Command::Stop => return Ok(true),
        }
        Ok(false)
    }

    fn query(&self, query: Query) {
        match query {
            Query::List { limit, reply } => {
                let newest = self.order.iter().rev().take(limit);
                let runs = newest
                    .filter_map(|run| self.runs.get(run))
                    .map(RunEntry::brief);
                drop(reply.send(Ok(runs.collect())));
            }
            Query::Get { run, reply } => drop(reply.send(self.status(&run))),
            Query::Watch { run, after, reply } => drop(reply.send(self.watch(&run, after))),
            Query::Events { run, after, reply } => drop(reply.send(self.events(&run, after))),
            Query::Agents { reply } => {
                drop(reply.send(Ok(self.agents.status(&self.locked()))));
            }
        }
    }

    fn post_commit(&mut self, what: impl FnOnce(&mut Self) + Send + 'static) {
        self.post_commit.push(Box::new(what));
    }

    /// Writes the batch's records, then sends its orders. A send that fails is
    /// an event that may have effects of its own, so this repeats until there
    /// are none.
    fn flush(&mut self) -> Result<(), StoreError> {
        loop {
            self.settle_starts();
            self.write_and_send()?;
            if self.effects.is_empty() && !self.preflights.has_for_starts() {
                break;
            }
        }
        for what in std::mem::take(&mut self.post_commit) {
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
        let accepted = std::mem::take(&mut self.accepted);
        let stored = self.store.persist(&entries, &accepted)?;
        let written = || entries.iter().map(|(run, _)| run).zip(&stored);
        for (run, stored) in written() {
            if let Some((agent, place)) = stored.entry.record.position() {
                self.agents.record_position(agent, place);
            }
            if let Some(cell) = self.runs.get_mut(run) {
                cell.follow(stored);
            }
        }
        for (run, to, order) in orders {
            self.send(&run, &to, order);
        }
        // Orders go out before watchers are notified.
        let mut changed: Vec<RunId> = Vec::new();
        for (run, stored) in written() {
            if let Some(cell) = self.runs.get(run) {
                cell.announce(stored);
            }
            if changed.last() != Some(run) {
                changed.push(run.clone());
            }
        }
        for (run, cell) in &mut self.runs {
            cell.announce_status(changed.contains(run));
            cell.close_if_over();
        }
        Ok(())
    }

    fn send(&mut self, run: &RunId, to: &AgentName, order: Order) {
        tracing::debug!(agent = %to, order = order.name(), "sent");
        let traceparent = self
            .runs
            .get(run)
            .map(RunEntry::traceparent)
            .unwrap_or_default();
        let message = AgentMessage::Order(order);
        CrashPoint::BeforeSend.pass();
        let sent = self.agents.send(
            to,
            ToAgent {
                traceparent,
                message,
            },
        );
        CrashPoint::AfterSend.pass();
        if !sent {
            self.lost_by_preflights(to);
            self.lost_by_runs(to);
        }
    }

    /// Informs an agent's runs that its session ended.
    fn lost_by_runs(&mut self, agent: &AgentName) {
        for run in self.runs_of(agent) {
            if let Some(cell) = self.runs.get_mut(&run) {
                cell.connection(agent, false);
            }
            self.happen(&run, Event::Disconnected(agent.clone()));
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

    /// Agents locked to a run that isn't over.
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
}

#[cfg(test)]
mod tests;
