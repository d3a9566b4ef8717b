//! Operators' verbs and queries.

use super::Driver;
use crate::active_run::RunEntry;
use crate::handle::{Answer, RequestError, RequestErrorKind, RequestedVerb, VerbRequest, Watched};
use crate::party_resolution::Candidates;
use lockstep_api::{AgentStatus, Code, Diagnosis, RunEvent, RunStatus};
use lockstep_barrier::coordinator::{Event, Verb, VerbAction};
use lockstep_barrier::ids::{AgentName, RunId};

impl Driver {
    /// A run that has ended doesn't lock its agents: on each session its Close
    /// goes before any Prepare of another run, and an agent that has not
    /// finished with it refuses by itself (R19).
    pub(super) fn candidates(&self) -> Candidates {
        let mut busy = self.locked();
        busy.retain(|_, run| {
            let live = self.runs.get(run).and_then(RunEntry::live);
            live.is_some_and(|run| run.state().ended.is_none())
        });
        let mut candidates = self.agents.candidates(&busy);
        for state in self.agents.states() {
            let Some(candidate) = candidates.get_mut(&state.agent) else {
                continue;
            };
            let why = self.follows_another(&state);
            candidate.follows_another = why.map(|why| why.to_string());
        }
        candidates
    }

    pub(super) fn verb(&mut self, asked: VerbRequest) -> Answer<String> {
        if let Some(why) = self.no_space_for(&asked.action) {
            return Err(RequestError::precondition(why));
        }
        let id = self.find(&asked.run)?;
        let cell = self
            .runs
            .get_mut(&id)
            .ok_or_else(|| no_such_run(&asked.run))?;
        let action = match asked.action {
            RequestedVerb::Other(action) => action,
            RequestedVerb::Approve { phase, digest } => {
                let named = cell.phase_named(&phase).ok_or_else(|| {
                    let what = format!("the plan has no phase {phase}");
                    RequestError::invalid(Diagnosis::new(Code::LS4306, what))
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
            let diagnosis = Diagnosis::new(Code::LS4307, format!("run {id} is over"));
            return Err(RequestError::precondition(diagnosis));
        };
        let effects = run
            .verb(lockstep_clock::boot_time(), verb)
            .map_err(|refused| {
                let diagnosis = Diagnosis::new(Code::LS4308, refused.what);
                RequestError::precondition(diagnosis.remedy(refused.remedy))
            })?;
        self.effects
            .extend(effects.into_iter().map(|effect| (id.clone(), effect)));
        Ok(id.to_string())
    }

    /// Ends a quarantine. The acceptance and its consequence for the agent's
    /// runs are written together: a crash leaves both or neither.
    pub(super) fn accept(&mut self, agent: &str, by: &str, reason: &str) -> Answer<AgentStatus> {
        if let Some(why) = self.no_space().filter(|_| self.stalled.is_some()) {
            return Err(RequestError::precondition(why));
        }
        let accepted = self.agents.accept(agent, by, reason);
        let accepted = accepted.map_err(RequestError::precondition)?;
        self.accepted.push(accepted.known);
        let name = AgentName::from(agent);
        if accepted.end_session {
            self.disconnected(&name);
        }
        // This journal lacks the releases since then, as a new one would.
        if accepted.waited.gone_back {
            for run in self.runs_of(&name) {
                self.happen(&run, Event::Quarantined(name.clone()));
            }
        }
        Ok(self.agents.status_of(agent, &self.locked()))
    }

    /// The run of that id or unambiguous prefix of an id; empty: the newest that has
    /// not ended or, if all have, the newest.
    pub(super) fn find(&self, wanted: &str) -> Answer<RunId> {
        let mut matching = self.order.iter().filter(|run| run.0.starts_with(wanted));
        let found = if wanted.is_empty() {
            let in_progress = |run: &&RunId| {
                let cell = self.runs.get(*run);
                cell.is_some_and(|cell| cell.state().ended.is_none())
            };
            let newest = self.order.iter().rev().find(in_progress);
            newest.or(self.order.last())
        } else {
            matching.next()
        };
        match (found, wanted.is_empty() || matching.next().is_none()) {
            (Some(run), true) => Ok(run.clone()),
            (Some(_), false) => {
                let what = format!("several runs begin with {wanted}");
                let diagnosis = Diagnosis::new(Code::LS4309, what);
                Err(RequestError::invalid(
                    diagnosis.remedy("give more of the id"),
                ))
            }
            (None, _) => Err(no_such_run(wanted)),
        }
    }

    pub(super) fn cell(&self, wanted: &str) -> Answer<(RunId, &RunEntry)> {
        let id = self.find(wanted)?;
        let cell = self.runs.get(&id).ok_or_else(|| no_such_run(wanted))?;
        Ok((id, cell))
    }

    pub(super) fn status(&self, wanted: &str) -> Answer<RunStatus> {
        Ok(self.cell(wanted)?.1.status())
    }

    pub(super) fn watch(&self, wanted: &str, after: u64) -> Answer<Watched> {
        let (_, cell) = self.cell(wanted)?;
        let missed = self.events(wanted, after)?;
        Ok(Watched {
            status: cell.status(),
            missed,
            updates: cell.watch(),
        })
    }

    pub(super) fn events(&self, wanted: &str, after: u64) -> Answer<Vec<RunEvent>> {
        let (id, cell) = self.cell(wanted)?;
        let entries = self.store.entries(&id, after).map_err(|e| {
            let what = format!("the entries of run {id} can't be read");
            let diagnosis = Diagnosis::new(Code::LS5009, what).source(&e);
            RequestError::new(RequestErrorKind::Unavailable, diagnosis)
        })?;
        Ok(entries.iter().map(|stored| cell.event(stored)).collect())
    }
}

fn no_such_run(wanted: &str) -> RequestError {
    let diagnosis = if wanted.is_empty() {
        Diagnosis::new(Code::LS4305, "there is no run yet")
    } else {
        Diagnosis::new(Code::LS4305, format!("there is no run {wanted}"))
            .remedy("see `lockstep run list`")
    };
    RequestError::new(RequestErrorKind::NotFound, diagnosis)
}
