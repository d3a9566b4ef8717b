//! The agent's one event loop.
//!
//! It alone calls the participant, and carries out the participant's effects
//! in their order: what must be durable is on disk before anything is sent or
//! done that could rely on it. Probes and attestations only look and rely on
//! nothing, so they don't wait for the disk; and records behind which nothing
//! is sent or done yet are written with the next ones. Should the process die
//! before, it is as if their inputs had never come. Work runs beside the loop
//! ([`crate::work`]) and comes back as inputs.

mod tasks;
mod watches;

use crate::host::Host;
use crate::link::{Input, Inputs, Outbox};
use crate::store::{Store, StoreError};
use crate::work::Worker;
use lockstep_barrier::ids::{BootId, Millis, PhaseRef, RunId, StepId};
use lockstep_barrier::message::{Order, Outcome, Reply};
use lockstep_barrier::participant::{Effect, Entry, Event, Participant};
use lockstep_clock as clock;
use lockstep_proto::v1;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tasks::{Assignment, Running};
use tokio::sync::{mpsc, watch};
use watches::Watching;

/// Inputs taken in before their records are written together: an order often
/// comes with the acknowledgement of what was before it.
const BATCH: usize = 32;

/// How long records may wait for others to be written with. Nobody has heard
/// of what they say; but a journal is read by people too.
const WRITE_AFTER: Millis = 1_000;

/// Inputs that may wait for the loop: a burst of orders and of workers that
/// end at once. Senders wait beyond it.
const INPUTS: usize = 256;

/// The loop and all it owns.
pub struct Driver {
    host: Arc<Host>,
    worker: Worker,
    store: Store,
    participant: Participant,
    inputs: Inputs,
    queue: mpsc::Receiver<Input>,
    /// The way to the coordinator while a session stands. Tasks look here
    /// for each line they say: they outlive sessions.
    outbox: watch::Sender<Option<Outbox>>,
    running: HashMap<(RunId, StepId), Running>,
    watching: HashMap<(RunId, StepId), Watching>,
    /// Trace of the last order of each run.
    traces: HashMap<RunId, String>,
    /// What the inputs of this batch lead to.
    effects: Vec<Effect>,
    /// Records that nothing relies on yet, and when to write them at the
    /// latest.
    unwritten: Vec<Entry>,
    write_by: Option<Millis>,
    /// Runs that it closes.
    closed: Vec<RunId>,
}

impl Driver {
    /// Reads the journal and takes up where it ends; gives the loop and the
    /// way to reach it.
    ///
    /// # Errors
    /// Where the journal can't be used.
    pub fn start(host: Arc<Host>, mut store: Store) -> Result<(Self, Inputs), StartError> {
        let records = store.records().map_err(StartError::Store)?;
        let name = host.config.name.as_str().into();
        let (participant, effects) =
            Participant::resume(clock::boot_time(), name, store.id(), boot_id(), records)
                .map_err(|e| StartError::Fold(e.to_string()))?;
        let (inputs, queue) = mpsc::channel(INPUTS);
        persist(&mut store, &effects).map_err(StartError::Store)?;
        let mut driver = Self {
            worker: Worker::new(host.clone()),
            host,
            store,
            participant,
            inputs: inputs.clone(),
            queue,
            outbox: watch::Sender::new(None),
            running: HashMap::new(),
            watching: HashMap::new(),
            traces: HashMap::new(),
            effects: Vec::new(),
            unwritten: Vec::new(),
            write_by: None,
            closed: Vec::new(),
        };
        for effect in effects {
            driver.carry_out_unstored(effect);
        }
        Ok((driver, inputs))
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the journal fails: the process must end.
    pub async fn run(mut self) -> Result<(), StoreError> {
        loop {
            let tick = until(self.participant.next_deadline());
            let input = tokio::select! {
                input = self.queue.recv() => input,
                () = tick => Some(Input::Happened(Event::Tick)),
                () = until(self.write_by) => {
                    self.write()?;
                    continue;
                }
            };
            let Some(first) = input else { break };
            if self.hear_batch(first).await? {
                break;
            }
        }
        for watching in self.watching.values() {
            watching.cancel.cancel();
        }
        self.write()
    }

    /// Takes in what has come so far and carries it out; `true` where it says
    /// to stop.
    async fn hear_batch(&mut self, first: Input) -> Result<bool, StoreError> {
        let mut stop = self.hear(first).await?;
        for _ in 1..BATCH {
            match self.queue.try_recv() {
                Ok(input) if !stop => stop = self.hear(input).await?,
                _ => break,
            }
        }
        self.flush().await?;
        Ok(stop)
    }

    /// Takes one input in; `true` where it says to stop.
    async fn hear(&mut self, input: Input) -> Result<bool, StoreError> {
        let of_session = matches!(
            input,
            Input::Hello(_) | Input::Connected(_) | Input::Disconnected
        );
        if of_session {
            // A hello tells only what is on disk; and what was meant for one
            // session doesn't go into the next.
            self.flush().await?;
            self.write()?;
        }
        match input {
            Input::Hello(answer) => {
                let hello = self.hello()?;
                // A session that has gone meanwhile asks again with the next.
                let _ = answer.send(hello);
            }
            Input::Remembered {
                position,
                hash,
                answer,
            } => {
                let _ = answer.send(self.store.has(position, &hash)?);
            }
            Input::Connected(outbox) => {
                self.outbox.send_replace(Some(outbox));
                self.happen(Event::Connected);
            }
            Input::Disconnected => {
                self.outbox.send_replace(None);
                self.happen(Event::Disconnected);
            }
            Input::Order { order, traceparent } => {
                if let Some(run) = run_of(&order) {
                    self.traces.insert(run.clone(), traceparent);
                }
                tracing::debug!(order = order.name(), "heard");
                if let Order::Close { run, .. } = &order {
                    self.closed.push(run.clone());
                }
                self.happen(Event::Order(order));
            }
            Input::Preflight(order) => self.preflight(order),
            Input::Happened(event) => {
                let standing = self.ended(&event);
                self.happen(event);
                self.effects.extend(standing);
            }
            Input::Stop => return Ok(true),
        }
        Ok(false)
    }

    /// Forgets work that came to an end; arms the watch that stands from now
    /// on, if it was one.
    fn ended(&mut self, event: &Event) -> Option<Effect> {
        let Event::Finished {
            run, step, outcome, ..
        } = event
        else {
            return None;
        };
        let running = self.running.remove(&(run.clone(), step.clone()))?;
        let stands = *outcome == Outcome::Standing;
        stands.then(|| Effect::Arm {
            run: run.clone(),
            step: step.clone(),
            task: running.task,
            inputs: running.inputs,
            after_gap: false,
        })
    }

    fn happen(&mut self, event: Event) {
        let effects = self.participant.handle(clock::boot_time(), event);
        self.effects.extend(effects);
    }

    /// Carries out what the batch leads to: begins its probes, writes its
    /// records in one append with those that have waited for it, then sends
    /// and does the rest in order. Nothing goes out that isn't on disk.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let mut rest = Vec::new();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Persist(entry) => self.unwritten.push(entry),
                Effect::Probe { .. } => self.carry_out_unstored(effect),
                effect => rest.push(effect),
            }
        }
        let only_looks = rest.iter().all(|e| matches!(e, Effect::Attest { .. }));
        if !only_looks {
            self.write()?;
        } else if !self.unwritten.is_empty() {
            let latest = clock::boot_time().saturating_add(WRITE_AFTER);
            self.write_by.get_or_insert(latest);
        }
        for effect in rest {
            self.carry_out(effect).await;
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

    async fn carry_out(&mut self, effect: Effect) {
        if let Effect::Disarm { run, step } = effect {
            return self.disarm(run, step).await;
        }
        self.carry_out_unstored(effect);
    }

    /// Everything that is neither stored nor waited for.
    fn carry_out_unstored(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(_) | Effect::Disarm { .. } => {}
            Effect::Send(reply) => self.send(reply),
            Effect::Probe {
                run,
                phase,
                attempt,
                purpose,
                tasks,
                inputs,
            } => {
                self.probe(run, phase, attempt, purpose, tasks, inputs);
            }
            Effect::Execute {
                run,
                phase,
                attempt,
                task,
                inputs,
                capture,
                deadline,
            }
            | Effect::Undo {
                run,
                phase,
                attempt,
                task,
                inputs,
                capture,
                deadline,
            } => {
                let limit = Duration::from_millis(
                    task.timeout
                        .min(deadline.saturating_sub(clock::boot_time())),
                );
                self.perform(
                    Assignment {
                        run,
                        phase,
                        attempt,
                        task,
                        inputs,
                    },
                    capture,
                    limit,
                );
            }
            Effect::Cancel { run, step, .. } => {
                if let Some(running) = self.running.get(&(run, step)) {
                    running.cancel.cancel();
                }
            }
            Effect::Attest { run, step, nonce } => self.attest(run, step, nonce),
            Effect::Arm {
                run,
                step,
                task,
                inputs,
                after_gap,
            } => {
                self.arm(run, step, task, inputs, after_gap);
            }
        }
    }

    fn send(&mut self, reply: Reply) {
        tracing::debug!(reply = reply.name(), "sent");
        let traceparent = run_of_reply(&reply)
            .and_then(|run| self.traces.get(run))
            .cloned()
            .unwrap_or_default();
        // What the coordinator keeps with an outcome: this journal can't be
        // taken back behind it unnoticed (R10).
        let (journal_position, journal_hash) = match &reply {
            Reply::Outcome(_) => self.store.head(),
            _ => Default::default(),
        };
        let request = v1::SessionRequest {
            traceparent,
            message: Some(reply.into()),
            journal_position,
            journal_hash,
        };
        let overflowed = self
            .outbox
            .borrow()
            .as_ref()
            .is_some_and(|outbox| !outbox.send(request));
        if overflowed {
            tracing::warn!("the link is too slow or gone; the session is opened again");
            self.outbox.send_replace(None);
        }
    }

    fn preflight(&self, order: v1::PreflightOrder) {
        let (worker, outbox) = (self.worker.clone(), self.outbox.borrow().clone());
        tokio::spawn(async move {
            let report = crate::preflight::look(&worker, order).await;
            let request = v1::SessionRequest {
                traceparent: String::new(),
                message: Some(v1::session_request::Message::PreflightReport(report)),
                ..Default::default()
            };
            let sent = outbox.is_some_and(|outbox| outbox.send(request));
            if !sent {
                tracing::warn!("a preflight report found no session to go through");
            }
        });
    }

    fn hello(&mut self) -> Result<v1::Hello, StoreError> {
        let session_number = self.store.begin_session()?;
        let (journal_position, journal_hash) = self.store.head();
        let standing = self.participant.standing(clock::boot_time());
        Ok(v1::Hello {
            agent: self.host.config.name.clone(),
            journal_id: standing.journal.0,
            machine_id: read_id("/etc/machine-id"),
            boot_id: boot_id().0,
            session_number,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.host.config.labels.clone().into_iter().collect(),
            journal_position,
            journal_hash,
            term: Some(standing.term.into()),
            run_id: standing.run.map(|run| run.0).unwrap_or_default(),
            decision: standing.decision,
            release_age_ms: standing.release_age,
            allowed_actions: self.host.policy.allowed_actions().to_vec(),
            release_ages: standing.release_ages.into_iter().map(release_age).collect(),
            journal_disowned: false,
        })
    }
}

/// Why the driver can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal can't be read.
    #[error("the agent can't start")]
    Store(#[source] StoreError),
    /// Its records don't make sense together.
    #[error("LS3104: the agent's journal contradicts itself: {0}")]
    Fold(String),
}

fn persist(store: &mut Store, effects: &[Effect]) -> Result<(), StoreError> {
    let entries: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist(entry) => Some(entry.clone()),
            _ => None,
        })
        .collect();
    if entries.is_empty() {
        Ok(())
    } else {
        store.persist(&entries)
    }
}

async fn until(deadline: Option<Millis>) {
    match deadline {
        Some(deadline) => {
            let wait = deadline.saturating_sub(clock::boot_time());
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}

fn run_of(order: &Order) -> Option<&RunId> {
    match order {
        Order::Prepare { header, .. }
        | Order::Release { header, .. }
        | Order::Revoke { header }
        | Order::Attest { header, .. }
        | Order::Disarm { header, .. } => Some(&header.run),
        Order::Ack { .. } | Order::Close { .. } => None,
    }
}

fn run_of_reply(reply: &Reply) -> Option<&RunId> {
    match reply {
        Reply::Vote { run, .. }
        | Reply::Attestation { run, .. }
        | Reply::Breach { run, .. }
        | Reply::Disarmed { run, .. }
        | Reply::Closed { run } => Some(run),
        Reply::Outcome(report) => Some(&report.run),
    }
}

fn release_age((phase, age_ms): (PhaseRef, Millis)) -> v1::ReleaseAge {
    v1::ReleaseAge {
        phase: Some(phase.into()),
        age_ms,
    }
}

/// What this machine's boot-time clock counts from.
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
