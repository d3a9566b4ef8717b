//! A run as the driver holds it: the machine, its plan, what views and traces
//! need.

use crate::spans::RunSpans;
use crate::status::{self, View};
use crate::store::Stored;
use crate::timeline::Timeline;
use lockstep_barrier::coordinator::{Run, State, Wait};
use lockstep_barrier::ids::PhaseRef;
use lockstep_plan::Plan;
use lockstep_proto::v1;
use tokio::sync::broadcast;

/// Happenings that a watcher may lag behind before it is given the whole
/// status instead.
const WATCHERS: usize = 1024;

/// What happens in a run, to everyone who watches.
pub type Happening = v1::watch_run_response::Happening;

/// The machine, or what is left of a run that is over.
pub enum Machine {
    /// It goes on, or its agents haven't all heard that it is over.
    Live(Box<Run>),
    Closed(Box<State>),
}

pub struct RunCell {
    machine: Machine,
    plan: Plan,
    timeline: Timeline,
    spans: RunSpans,
    watchers: broadcast::Sender<Happening>,
    /// What it waited for when the watchers were last told.
    told: Vec<Wait>,
}

impl RunCell {
    /// Takes a machine in, with the entries it was folded from.
    ///
    /// # Errors
    /// Where the plan it began with can't be read.
    pub fn new(machine: Machine, entries: &[Stored]) -> Result<Self, serde_json::Error> {
        let state = match &machine {
            Machine::Live(run) => run.state(),
            Machine::Closed(state) => state,
        };
        let plan = serde_json::from_value(state.begin.rest["plan"].clone())?;
        let mut timeline = Timeline::default();
        for stored in entries {
            timeline.note(&stored.entry, stored.at_ms);
        }
        let spans = RunSpans::open(state);
        let (watchers, _) = broadcast::channel(WATCHERS);
        Ok(Self {
            machine,
            plan,
            timeline,
            spans,
            watchers,
            told: Vec::new(),
        })
    }

    /// The machine, while the run isn't over.
    pub fn run(&mut self) -> Option<&mut Run> {
        match &mut self.machine {
            Machine::Live(run) => Some(run),
            Machine::Closed(_) => None,
        }
    }

    pub fn state(&self) -> &State {
        match &self.machine {
            Machine::Live(run) => run.state(),
            Machine::Closed(state) => state,
        }
    }

    /// The machine, to look at.
    pub fn live(&self) -> Option<&Run> {
        match &self.machine {
            Machine::Live(run) => Some(run),
            Machine::Closed(_) => None,
        }
    }

    /// What orders carry as their trace.
    pub fn traceparent(&self) -> String {
        self.spans.traceparent()
    }

    /// Follows an entry that has just become durable: as much as orders need.
    pub fn follow(&mut self, stored: &Stored) {
        self.timeline.note(&stored.entry, stored.at_ms);
        let state = match &self.machine {
            Machine::Live(run) => run.state(),
            Machine::Closed(state) => state,
        };
        self.spans.note(state, &stored.entry.record);
    }

    /// Tells the log and the watchers of such an entry.
    pub fn announce(&self, stored: &Stored) {
        let event = self.event(stored);
        tracing::info!(
            run = %self.state().begin.run,
            sequence = stored.entry.seq,
            "{}",
            event.summary
        );
        self.tell(Happening::Event(event));
    }

    /// Lets a run go that is over and whose agents all know.
    pub fn close_if_over(&mut self) {
        if let Machine::Live(run) = &self.machine
            && run.is_closed()
        {
            self.machine = Machine::Closed(Box::new(run.state().clone()));
        }
    }

    pub fn status(&self) -> v1::RunStatus {
        status::of(
            &self.view(),
            &self.plan,
            &self.timeline,
            lockstep_clock::wall_time(),
        )
    }

    /// How it stands, without its phases.
    pub fn brief(&self) -> v1::RunStatus {
        status::brief(
            &self.view(),
            &self.plan,
            &self.timeline,
            lockstep_clock::wall_time(),
        )
    }

    /// A journal entry as views show it.
    pub fn event(&self, stored: &Stored) -> v1::RunEvent {
        v1::RunEvent {
            sequence: stored.entry.seq,
            at_ms: stored.at_ms,
            kind: stored.kind.clone(),
            summary: status::summary(self.state(), &stored.entry.record),
            record_json: stored.body.clone(),
            hash: stored.hash.clone(),
        }
    }

    /// Tells whoever watches; nobody watching is fine.
    pub fn tell(&self, happening: Happening) {
        let _ = self.watchers.send(happening);
    }

    /// Tells whoever watches how the run stands, if anything has changed:
    /// votes leave no entry in the journal, but a gate that is reached by
    /// them must be seen.
    pub fn tell_status(&mut self, journaled: bool) {
        if self.watchers.receiver_count() == 0 {
            return;
        }
        let waits = self.live().map(Run::waits_on).unwrap_or_default();
        if journaled || waits != self.told {
            self.tell(Happening::Status(self.status()));
            self.told = waits;
        }
    }

    /// Everything that happens from now on.
    pub fn watch(&self) -> broadcast::Receiver<Happening> {
        self.watchers.subscribe()
    }

    /// Name of a phase.
    pub fn phase_name(&self, phase: PhaseRef) -> String {
        self.state()
            .spec(phase)
            .map_or_else(|| phase.to_string(), |spec| spec.name.clone())
    }

    /// The phase of that name, forward or back.
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
            Machine::Live(run) => View::live(run),
            Machine::Closed(state) => View::closed(state),
        }
    }
}
