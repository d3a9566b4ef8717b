//! A run as the driver holds it: the state machine, its plan, and the data for
//! views and traces.

use crate::activity::Activity;
use crate::spans::RunSpans;
use crate::status::{self, View};
use crate::store::Stored;
use crate::timeline::Timeline;
use lockstep_api::{AgentConnection, RunEvent, RunStatus, RunUpdate, TaskLine, timestamp};
use lockstep_barrier::coordinator::{Run, State, Wait};
use lockstep_barrier::ids::{AgentName, PhaseRef};
use lockstep_plan::Plan;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Updates that a watcher may lag behind before it receives the whole status
/// instead.
const WATCHERS: usize = 1024;

/// The state machine, or the final state of a run that is over.
pub enum Machine {
    /// Not ended, or not every agent has confirmed that it ended.
    Active(Box<Run>),
    Archived(Box<State>),
}

impl Machine {
    pub fn state(&self) -> &State {
        match self {
            Self::Active(run) => run.state(),
            Self::Archived(state) => state,
        }
    }
}

pub struct RunEntry {
    machine: Machine,
    plan: Arc<Plan>,
    timeline: Timeline,
    activity: Activity,
    spans: RunSpans,
    watchers: broadcast::Sender<RunUpdate>,
    /// What it waited for at the last status sent to the watchers.
    announced: Vec<Wait>,
}

impl RunEntry {
    /// With the entries that the machine was folded from.
    pub fn new(machine: Machine, plan: Arc<Plan>, entries: &[Stored]) -> Self {
        let state = machine.state();
        let mut timeline = Timeline::default();
        for stored in entries {
            timeline.note(&stored.entry, stored.at_ms);
        }
        let spans = RunSpans::open(state);
        // Of a run that is resumed, no agent has a session yet.
        let members = state.begin.members.keys().filter(|_| !entries.is_empty());
        let activity = Activity::unconnected(members, lockstep_clock::wall_time());
        let (watchers, _) = broadcast::channel(WATCHERS);
        Self {
            machine,
            plan,
            timeline,
            activity,
            spans,
            watchers,
            announced: Vec::new(),
        }
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The state machine, unless the run is over.
    pub fn run(&mut self) -> Option<&mut Run> {
        match &mut self.machine {
            Machine::Active(run) => Some(run),
            Machine::Archived(_) => None,
        }
    }

    pub fn state(&self) -> &State {
        self.machine.state()
    }

    /// Like [`RunEntry::run`], read only.
    pub fn live(&self) -> Option<&Run> {
        match &self.machine {
            Machine::Active(run) => Some(run),
            Machine::Archived(_) => None,
        }
    }

    /// The trace context that orders carry.
    pub fn traceparent(&self) -> String {
        self.spans.traceparent()
    }

    /// Updates timeline and spans with an entry that has just become durable,
    /// which the orders after it need.
    pub fn follow(&mut self, stored: &Stored) {
        self.timeline.note(&stored.entry, stored.at_ms);
        let state = self.machine.state();
        self.spans.note(state, &stored.entry.record);
    }

    /// Logs such an entry and sends it to the watchers.
    pub fn announce(&self, stored: &Stored) {
        tracing::info!(
            run = %self.state().begin.run,
            sequence = stored.entry.seq,
            "{}",
            status::summary(self.state(), &stored.entry.record)
        );
        if self.watchers.receiver_count() > 0 {
            let event = self.event(stored);
            self.tell(RunUpdate::Event { event });
        }
    }

    /// Drops the state machine of a run that has ended and that every agent has
    /// closed.
    pub fn close_if_over(&mut self) {
        if let Machine::Active(run) = &self.machine
            && run.is_closed()
        {
            self.machine = Machine::Archived(Box::new(run.state().clone()));
        }
    }

    pub fn status(&self) -> RunStatus {
        status::of(
            &self.view(),
            &self.plan,
            &self.timeline,
            lockstep_clock::wall_time(),
        )
    }

    /// The status without its phases.
    pub fn brief(&self) -> RunStatus {
        status::brief(
            &self.view(),
            &self.plan,
            &self.timeline,
            lockstep_clock::wall_time(),
        )
    }

    /// A journal entry in the form of views.
    pub fn event(&self, stored: &Stored) -> RunEvent {
        RunEvent {
            sequence: stored.entry.seq,
            at: timestamp(stored.at_ms),
            kind: stored.kind.clone(),
            summary: status::summary(self.state(), &stored.entry.record),
            // The journal's bodies are JSON: it was decoded before.
            record: serde_json::from_str(&stored.body).unwrap_or_default(),
            hash: stored.hash.clone(),
        }
    }

    /// Records a line of a task and sends it to the watchers.
    pub fn line(&mut self, agent: &AgentName, line: TaskLine, now: u64) {
        let step = line.step.as_str().into();
        self.activity.line(step, agent, line.kind, &line.line, now);
        self.tell(RunUpdate::Line { line });
    }

    /// Records that an agent's session began or ended. A change is sent to the watchers.
    pub fn connection(&mut self, agent: &AgentName, connected: bool) {
        let now = lockstep_clock::wall_time();
        if self.activity.connection(agent, connected, now) {
            let connection = AgentConnection {
                agent: agent.to_string(),
                connected,
                at: timestamp(now),
            };
            self.tell(RunUpdate::Connection { connection });
        }
    }

    /// Sends an update to the watchers, if there are any.
    pub fn tell(&self, update: RunUpdate) {
        let _ = self.watchers.send(update);
    }

    /// Sends the status to the watchers if it has changed. Votes leave no entry
    /// in the journal, but watchers must see a gate that was reached by them.
    pub fn announce_status(&mut self, journaled: bool) {
        if self.watchers.receiver_count() == 0 {
            return;
        }
        let waits = self.live().map(Run::waits_on).unwrap_or_default();
        if journaled || waits != self.announced {
            self.tell(RunUpdate::Status {
                run: Box::new(self.status()),
            });
            self.announced = waits;
        }
    }

    /// Every update from now on.
    pub fn watch(&self) -> broadcast::Receiver<RunUpdate> {
        self.watchers.subscribe()
    }

    pub fn phase_name(&self, phase: PhaseRef) -> String {
        self.state()
            .spec(phase)
            .map_or_else(|| phase.to_string(), |spec| spec.name.clone())
    }

    /// The phase of that name, forward or rollback.
    pub fn phase_named(&self, name: &str) -> Option<PhaseRef> {
        use lockstep_barrier::ids::Track;
        let find = |track, phases: &[lockstep_plan::Phase]| {
            let index = phases.iter().position(|phase| phase.name == name)?;
            Some(PhaseRef {
                track,
                index: u32::try_from(index).ok()?,
            })
        };
        find(Track::Forward, &self.plan.phases)
            .or_else(|| find(Track::Rollback, &self.plan.rollback))
    }

    fn view(&self) -> View<'_> {
        match &self.machine {
            Machine::Active(run) => View::live(run, &self.activity),
            Machine::Archived(state) => View::closed(state),
        }
    }
}
