//! The status of a run, in the one type that every view renders.

mod failure;
mod outcome;
mod remains;
mod task;
mod text;

use crate::activity::Activity;
use crate::timeline::Timeline;
use lockstep_api::{PhaseStatus, RunStatus, TaskStatus, timestamp};
use lockstep_barrier::coordinator::{PhaseState, Run, State, Vote, Wait};
use lockstep_barrier::ids::{AgentName, PhaseRef, Track};
use lockstep_barrier::record::Ending;
use lockstep_plan::Plan;
use std::collections::BTreeMap;
pub use text::summary;

/// The part of a run that views need: of a live run, or of the folded journal
/// of one that is over.
pub struct View<'a> {
    /// Of a live run.
    activity: Option<&'a Activity>,
    state: &'a State,
    waits: Vec<Wait>,
    votes: Option<&'a BTreeMap<AgentName, Vote>>,
}

impl<'a> View<'a> {
    pub fn live(run: &'a Run, activity: &'a Activity) -> Self {
        Self {
            activity: Some(activity),
            state: run.state(),
            waits: run.waits_on(),
            votes: Some(run.votes()),
        }
    }

    pub fn closed(state: &'a State) -> Self {
        Self {
            activity: None,
            state,
            waits: Vec::new(),
            votes: None,
        }
    }

    fn state(&self) -> &'a State {
        self.state
    }

    fn waits_on(&self) -> &[Wait] {
        &self.waits
    }
}

/// The whole status. `plan` is the document the run was started with.
pub fn of(run: &View<'_>, plan: &Plan, timeline: &Timeline, now: u64) -> RunStatus {
    let state = run.state();
    let outcome = outcome::of_run(run);
    let waits_on = run
        .waits_on()
        .iter()
        .map(|wait| text::wait_text(state, wait))
        .collect();
    RunStatus {
        id: state.begin.run.to_string(),
        plan: plan.name.clone(),
        kind: plan.kind.to_string(),
        digest: state.begin.resolved_plan.digest.to_string(),
        started_by: state.begin.by.clone(),
        started_at: timestamp(timeline.began),
        ended_at: timestamp(timeline.ended),
        outcome,
        exit_code: outcome::exit_code(run, outcome),
        trace_id: trace_id(&state.begin.trace),
        sequence: state.last,
        waits_on: if outcome.is_final() {
            Vec::new()
        } else {
            waits_on
        },
        reason: text::reason(state),
        phases: phases(run, plan, timeline),
        outstanding_undo: state
            .outstanding_undos
            .iter()
            // What only reads has nothing to undo.
            .filter(|undo| {
                let step = state.step(&undo.step);
                step.is_none_or(|(_, step)| !step.read_only)
            })
            .map(|outstanding_undo| {
                let reason = state.why_outstanding(outstanding_undo);
                format!(
                    "undo of {} is outstanding on {}{}",
                    outstanding_undo.step,
                    outstanding_undo.agent,
                    reason.map_or(String::new(), |reason| format!(": {reason}"))
                )
            })
            .collect(),
        still_changed: still_changed(state),
        decided: text::decided(state),
        outage_open: outage_phases(state).is_some_and(|(from, to)| timeline.is_between(from, to)),
        write_outage_ms: outage_phases(state)
            .map_or(0, |(from, to)| timeline.between(from, to, now)),
        outage_budget_ms: state
            .begin
            .resolved_plan
            .outage
            .as_ref()
            .map_or(0, |outage| outage.budget),
    }
}

/// The same without phases, for lists.
pub fn brief(run: &View<'_>, plan: &Plan, timeline: &Timeline, now: u64) -> RunStatus {
    RunStatus {
        phases: Vec::new(),
        ..of(run, plan, timeline, now)
    }
}

/// The trace id inside a traceparent.
pub fn trace_id(traceparent: &str) -> String {
    traceparent.split('-').nth(1).unwrap_or_default().to_owned()
}

fn still_changed(state: &State) -> Vec<String> {
    let matters = state
        .ended
        .is_some_and(|ending| ending != Ending::Completed)
        || state.rollback.is_some()
        || state.abort.is_some();
    if !matters {
        return Vec::new();
    }
    state
        .still_changed()
        .map(|(step, agent)| format!("{step} on {agent}"))
        .collect()
}

/// The phases with which the write outage begins and ends.
fn outage_phases(state: &State) -> Option<(PhaseRef, PhaseRef)> {
    let outage = state.begin.resolved_plan.outage.as_ref()?;
    let forward = |index| PhaseRef {
        track: Track::Forward,
        index,
    };
    Some((forward(outage.starts_with), forward(outage.ends_with)))
}

fn phases(run: &View<'_>, plan: &Plan, timeline: &Timeline) -> Vec<PhaseStatus> {
    let state = run.state();
    let track = |track: Track, specs: &[lockstep_plan::Phase]| -> Vec<PhaseStatus> {
        specs
            .iter()
            .enumerate()
            .filter_map(|(index, spec)| {
                let index = u32::try_from(index).ok()?;
                let at = PhaseRef { track, index };
                Some(phase(run, at, spec, state.phase(at)?, timeline))
            })
            .collect()
    };
    let mut all = track(Track::Forward, &plan.phases);
    if state.rollback.is_some() {
        all.extend(track(Track::Rollback, &plan.rollback));
    }
    all
}

fn phase(
    run: &View<'_>,
    at: PhaseRef,
    spec: &lockstep_plan::Phase,
    phase: &PhaseState,
    timeline: &Timeline,
) -> PhaseStatus {
    let times = timeline.phases.get(&at).copied().unwrap_or_default();
    let done = times.ended >= times.released && times.released != 0;
    let failure = failure::of_phase(&phase.status);
    PhaseStatus {
        name: spec.name.clone(),
        standard: spec.standard.clone(),
        track: at.track,
        index: at.index,
        runbook_steps: spec.runbook_steps.clone(),
        outcome: outcome::of_phase(run, at, phase),
        attempt: phase.attempt,
        barrier_ms: timeline.barrier(at),
        took_ms: if done {
            times.ended - times.released
        } else {
            0
        },
        prepared_at: timestamp(times.prepared),
        released_at: timestamp(times.released),
        completed_at: timestamp(times.ended),
        gate: spec.gate,
        tasks: tasks(run, at, timeline),
        failure: failure.map(|failure| failure::diagnosis(run.state(), failure)),
        refusals: failure.map(failure::refusals).unwrap_or_default(),
        abort_leaves: remains::of_phase(run.state(), at, &spec.standard),
    }
}

fn tasks(run: &View<'_>, at: PhaseRef, timeline: &Timeline) -> Vec<TaskStatus> {
    let state = run.state();
    let Some(spec) = state.spec(at) else {
        return Vec::new();
    };
    spec.steps
        .iter()
        .flat_map(|step| step.agents.iter().map(move |agent| (step, agent)))
        .filter_map(|(step, agent)| {
            let task = state.tasks.get(&(step.id.clone(), agent.clone()))?;
            let mut status = task::status(run, at, step, agent, task);
            task::times(
                &mut status,
                run,
                (at, spec.finish_by),
                timeline,
                (step, agent),
            );
            Some(status)
        })
        .collect()
}
