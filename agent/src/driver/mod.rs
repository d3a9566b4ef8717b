//! The agent's event loop.
//!
//! Only this loop calls the participant, and it runs the participant's effects
//! in their order: what must be durable is on disk before anything is sent or
//! done that could rely on it. Probes and attestations change nothing and rely
//! on nothing, so they don't wait for the disk; and records on which nothing
//! relies yet are written together with the next ones. If the process dies
//! before that, it is as if their inputs had never arrived. Tasks, probes and
//! watches run concurrently with the loop ([`crate::worker`]); their results
//! return as inputs.

#![deny(clippy::wildcard_enum_match_arm)]

mod changes;
mod reload;
mod tasks;
mod watches;

use crate::handle::{Handle, Input, Introduction, JournalEntry, Outbox, Outgoing};
use crate::host::Host;
use crate::preflight;
use crate::store::{Store, StoreError};
use crate::worker::Worker;
pub(crate) use changes::Recorder;
use lockstep_barrier::ids::{BootId, Millis, RunId, StepId};
use lockstep_barrier::message::{Order, Reply};
use lockstep_barrier::participant::{Effect, Entry, Event, Participant};
use lockstep_barrier::record::ParticipantRecord;
use lockstep_clock as clock;
use lockstep_daemon::{CrashPoint, sleep_until};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tasks::Assignment;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use watches::Watching;

/// Inputs handled before their records are written together: an order often
/// arrives with the acknowledgement of the previous one.
const BATCH: usize = 32;

/// How long, in milliseconds, records on which nothing relies may wait to be
/// written with others. Nobody has been sent what they record, but operators
/// read the journal too.
const WRITE_AFTER: Millis = 1_000;

/// The loop and everything that it owns.
pub struct Driver {
    host: Arc<Host>,
    worker: Worker,
    store: Store,
    participant: Participant,
    /// For the tasks that report to the loop.
    handle: Handle,
    queue: mpsc::Receiver<Input>,
    /// Present while a session is open. Tasks outlive sessions, so they read
    /// it for each progress line.
    outbox: watch::Sender<Option<Outbox>>,
    /// Cancels a running task.
    running: HashMap<(RunId, StepId), CancellationToken>,
    watching: HashMap<(RunId, StepId), Watching>,
    /// Trace context of the last order of each run.
    traces: HashMap<RunId, String>,
    /// Effects of the current batch.
    effects: Vec<Effect>,
    /// Records on which nothing relies yet.
    unwritten: Vec<Entry>,
    write_by: Option<Millis>,
    /// Runs that the current batch closes.
    closed: Vec<RunId>,
    /// The configuration file has changed since it was read.
    config_changed: bool,
}

impl Driver {
    /// Recovers the participant from the journal; returns the loop and its
    /// handle.
    ///
    /// # Errors
    /// Where the journal can't be used.
    pub fn start(host: Arc<Host>, store: Store) -> Result<(Self, Handle), StartError> {
        let records = store.records().map_err(StartError::Store)?;
        let name = host.config.name.as_str().into();
        let (participant, effects) =
            Participant::resume(clock::boot_time(), name, store.id(), boot_id(), records)
                .map_err(|e| StartError::Fold(e.to_string()))?;
        let (handle, queue) = Handle::new();
        let driver = Self {
            worker: Worker::new(host.clone()),
            host,
            store,
            participant,
            handle: handle.clone(),
            queue,
            outbox: watch::Sender::new(None),
            running: HashMap::new(),
            watching: HashMap::new(),
            traces: HashMap::new(),
            effects,
            unwritten: Vec::new(),
            write_by: None,
            closed: Vec::new(),
            config_changed: false,
        };
        Ok((driver, handle))
    }

    /// Runs the effects of the recovery, then handles inputs until
    /// [`Handle::stop`].
    ///
    /// # Errors
    /// When the journal fails: the process must end.
    pub async fn run(mut self) -> Result<(), StoreError> {
        self.flush().await?;
        self.write()?;
        loop {
            let tick = sleep_until(self.participant.next_deadline());
            let input = tokio::select! {
                input = self.queue.recv() => input,
                () = tick => Some(Input::Event(Event::Tick)),
                () = sleep_until(self.write_by) => {
                    self.write()?;
                    continue;
                }
            };
            let Some(first) = input else { break };
            if self.on_batch(first).await? {
                break;
            }
        }
        for watching in self.watching.values() {
            watching.cancel.cancel();
        }
        self.write()
    }

    /// Handles the inputs that have arrived so far and runs their effects;
    /// `true` where the loop must end.
    async fn on_batch(&mut self, first: Input) -> Result<bool, StoreError> {
        let mut stop = self.on_input(first).await?;
        for _ in 1..BATCH {
            match self.queue.try_recv() {
                Ok(input) if !stop => stop = self.on_input(input).await?,
                _ => break,
            }
        }
        self.flush().await?;
        self.reload_between_runs();
        Ok(stop)
    }

    /// Handles one input; `true` where the loop must end.
    async fn on_input(&mut self, input: Input) -> Result<bool, StoreError> {
        match input {
            Input::Introduce { reply } => {
                self.settle().await?;
                let introduction = self.introduction()?;
                // A session that has ended meanwhile asks again.
                let _ = reply.send(introduction);
            }
            Input::HasEntry { entry, reply } => {
                let _ = reply.send(self.store.has(entry.position, &entry.hash)?);
            }
            Input::Connected(outbox) => {
                self.settle().await?;
                self.outbox.send_replace(Some(outbox));
                self.dispatch(Event::Connected);
            }
            Input::Disconnected => {
                self.settle().await?;
                self.outbox.send_replace(None);
                self.dispatch(Event::Disconnected);
            }
            Input::Order { order, traceparent } => self.on_order(order, traceparent),
            Input::Preflight(order) => self.preflight(order),
            Input::Event(event) => {
                if let Event::Finished { run, step, .. } = &event {
                    self.running.remove(&(run.clone(), step.clone()));
                }
                self.dispatch(event);
            }
            Input::Changed(recorder) => {
                if let Some(event) = recorder.take() {
                    self.dispatch(event);
                }
            }
            Input::ConfigChanged => {
                self.settle().await?;
                self.on_config_changed();
            }
            Input::Stop => return Ok(true),
        }
        Ok(false)
    }

    /// Runs all effects so far and writes all records: an introduction
    /// contains only what is on disk, and what was meant for one session
    /// isn't sent through the next.
    async fn settle(&mut self) -> Result<(), StoreError> {
        self.flush().await?;
        self.write()
    }

    fn on_order(&mut self, order: Order, traceparent: String) {
        tracing::debug!(order = order.name(), "received");
        match &order {
            Order::Prepare { header, .. }
            | Order::Release { header, .. }
            | Order::Revoke { header, .. }
            | Order::Attest { header, .. }
            | Order::Disarm { header, .. } => {
                self.traces.insert(header.run.clone(), traceparent);
            }
            Order::Ack { .. } => {}
            Order::Close { run, .. } => self.closed.push(run.clone()),
        }
        CrashPoint::BeforeReceive.pass();
        self.dispatch(Event::Order(order));
        CrashPoint::AfterReceive.pass();
    }

    fn dispatch(&mut self, event: Event) {
        let effects = self.participant.handle(clock::boot_time(), event);
        self.effects.extend(effects);
    }

    /// Runs the effects of the batch: starts its probes, writes its records
    /// in one append with those that were waiting, then runs the rest in
    /// order. Nothing is sent that isn't on disk.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let mut rest = Vec::new();
        let mut relies_on_disk = false;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Persist(_) | Effect::Probe { .. } => {
                    relies_on_disk |= records_a_change(&effect);
                    self.run_effect(effect).await;
                }
                Effect::Attest { .. } => rest.push(effect),
                Effect::Send(_)
                | Effect::Execute { .. }
                | Effect::Undo { .. }
                | Effect::Cancel { .. }
                | Effect::Disarm { .. }
                | Effect::Arm { .. } => {
                    relies_on_disk = true;
                    rest.push(effect);
                }
            }
        }
        if relies_on_disk {
            self.write()?;
        } else if !self.unwritten.is_empty() {
            let latest = clock::boot_time().saturating_add(WRITE_AFTER);
            self.write_by.get_or_insert(latest);
        }
        for effect in rest {
            self.run_effect(effect).await;
        }
        for run in self.closed.drain(..) {
            self.traces.remove(&run);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.write_by = None;
        let entries = std::mem::take(&mut self.unwritten);
        if entries.is_empty() {
            return Ok(());
        }
        self.store.persist(&entries)
    }

    async fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(entry) => self.unwritten.push(entry),
            Effect::Send(reply) => self.send(reply),
            Effect::Probe {
                run,
                phase,
                attempt,
                purpose,
                tasks,
                inputs,
            } => self.probe(run, phase, attempt, purpose, tasks, inputs),
            Effect::Execute {
                run,
                phase,
                attempt,
                task,
                inputs,
                before_image,
                deadline,
            }
            | Effect::Undo {
                run,
                phase,
                attempt,
                task,
                inputs,
                before_image,
                deadline,
            } => {
                let left = deadline.saturating_sub(clock::boot_time());
                let limit = Duration::from_millis(task.timeout.min(left));
                let assignment = Assignment {
                    run,
                    phase,
                    attempt,
                    task,
                    inputs,
                };
                self.perform(assignment, before_image, limit);
            }
            Effect::Cancel { run, step, .. } => {
                if let Some(running) = self.running.get(&(run, step)) {
                    running.cancel();
                }
            }
            Effect::Attest { run, step, nonce } => self.attest(run, step, nonce),
            Effect::Disarm { run, step } => self.disarm(run, step).await,
            Effect::Arm {
                run,
                step,
                task,
                inputs,
                after_gap,
            } => self.arm(run, step, task, inputs, after_gap),
        }
    }

    fn send(&mut self, reply: Reply) {
        tracing::debug!(reply = reply.name(), "sent");
        let is_outcome = matches!(reply, Reply::Outcome(_));
        let journal_head = is_outcome.then(|| self.journal_head());
        let message = Outgoing::Reply {
            traceparent: self.traces.get(reply.run()).cloned().unwrap_or_default(),
            journal_head,
            reply,
        };
        CrashPoint::BeforeSend.pass();
        let overflowed = self
            .outbox
            .borrow()
            .as_ref()
            .is_some_and(|outbox| !outbox.send(message));
        CrashPoint::AfterSend.pass();
        if overflowed {
            tracing::warn!("the connection is too slow or lost; the session is opened again");
            self.outbox.send_replace(None);
        }
    }

    fn preflight(&self, order: preflight::PreflightOrder) {
        let (worker, outbox) = (self.worker.clone(), self.outbox.borrow().clone());
        tokio::spawn(async move {
            let report = preflight::run(&worker, order).await;
            let sent = outbox.is_some_and(|outbox| outbox.send(Outgoing::Preflight(report)));
            if !sent {
                tracing::warn!("no session is open to send a preflight report through");
            }
        });
    }

    fn introduction(&mut self) -> Result<Introduction, StoreError> {
        Ok(Introduction {
            session_number: self.store.begin_session()?,
            journal_head: self.journal_head(),
            state: self.participant.agent_state(clock::boot_time()),
            machine_id: read_id("/etc/machine-id"),
            boot_id: boot_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.host.config.labels.clone(),
            allowed_actions: self.host.policy.allowed_actions().to_vec(),
            journal_mismatch: false,
        })
    }

    fn journal_head(&self) -> JournalEntry {
        let (position, hash) = self.store.head();
        JournalEntry { position, hash }
    }
}

/// A change has been made already: its record doesn't wait to be written with others.
fn records_a_change(effect: &Effect) -> bool {
    matches!(effect, Effect::Persist(entry) if matches!(entry.record, ParticipantRecord::Changed { .. }))
}

/// Why the driver can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal can't be read.
    #[error("the agent can't start")]
    Store(#[source] StoreError),
    /// Its records contradict each other.
    #[error("LS3104: the agent's journal contradicts itself: {0}")]
    Fold(String),
}

/// Identifies the boot from which the boot-time clock counts.
fn boot_id() -> BootId {
    BootId(read_id("/proc/sys/kernel/random/boot_id"))
}

fn read_id(path: &str) -> String {
    std::fs::read_to_string(path)
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
