//! The release: what it consumes, what it keeps, and its being durable before
//! anyone hears of it.

use super::{Effect, Run};
use crate::ids::{AgentName, Millis, PhaseRef, StepId, Track};
use crate::layout::Outputs;
use crate::message::{Order, Verdict};
use crate::record::{Consumed, Failure, Record};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl Run {
    /// Makes the release durable, then sends it.
    pub(super) fn release(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let consumed = match self.gather_inputs(phase) {
            Ok(consumed) => consumed,
            Err(failure) => return self.fail(phase, failure, effects),
        };
        let Some(state) = self.state.phase(phase) else {
            return false;
        };
        let (attempt, tasks) = (state.attempt, state.tasks.clone());
        if self.starts_outage(phase) && self.live.outage_began.is_none() {
            self.live.outage_began = Some(now);
        }
        let record = Record::Released {
            phase,
            attempt,
            captures: self.voted_captures(),
            consumed: consumed.into_iter().collect(),
            outage: self.outage_elapsed(now),
        };
        self.live.released_at = now;
        self.live.attesting = None;
        self.live.disarming_since = None;
        self.persist(record, effects);
        for agent in tasks.keys() {
            if let Some(order) = self.release_order(phase, agent) {
                self.send(agent, order, effects);
            }
        }
        true
    }

    fn starts_outage(&self, phase: PhaseRef) -> bool {
        phase.track == Track::Forward
            && self
                .state
                .begin
                .layout
                .outage
                .as_ref()
                .is_some_and(|outage| outage.starts_with == phase.index)
    }

    fn voted_captures(&self) -> BTreeMap<AgentName, BTreeMap<StepId, Value>> {
        let mut captures: BTreeMap<AgentName, BTreeMap<StepId, Value>> = BTreeMap::new();
        for (agent, vote) in &self.live.votes {
            let Verdict::Ready { probes } = &vote.verdict else {
                continue;
            };
            for (step, probe) in probes {
                if let Some(capture) = &probe.capture {
                    captures
                        .entry(agent.clone())
                        .or_default()
                        .insert(step.clone(), capture.clone());
                }
            }
        }
        captures
    }

    /// Every output that the round's tasks consume.
    fn gather_inputs(&self, phase: PhaseRef) -> Result<BTreeSet<Consumed>, Failure> {
        let mut consumed = BTreeSet::new();
        let round: BTreeSet<&StepId> = self
            .state
            .phase(phase)
            .into_iter()
            .flat_map(|p| p.tasks.values().flatten())
            .collect();
        for step in round {
            let Some((_, spec)) = self.state.step(step) else {
                continue;
            };
            for (from, output) in &spec.inputs {
                match self.resolve_input(from, output) {
                    Ok((input, _)) => {
                        consumed.insert(input);
                    }
                    Err(detail) => {
                        return Err(Failure::MissingInput {
                            step: step.clone(),
                            detail,
                        });
                    }
                }
            }
        }
        Ok(consumed)
    }

    /// One output and whose it is. Several agents may have produced it, if
    /// they agree.
    fn resolve_input(&self, from: &StepId, output: &str) -> Result<(Consumed, &Value), String> {
        let producers = self.state.outputs.get(from);
        let mut found: Option<(Consumed, &Value)> = None;
        for (agent, (attempt, outputs)) in producers.into_iter().flatten() {
            let Some(value) = outputs.get(output) else {
                continue;
            };
            match &found {
                Some((first, other)) if *other != value => {
                    return Err(format!(
                        "output {output} of step {from} differs between {} and {agent}",
                        first.agent
                    ));
                }
                Some(_) => {}
                None => {
                    let consumed = Consumed {
                        step: from.clone(),
                        agent: agent.clone(),
                        attempt: *attempt,
                        output: output.to_owned(),
                    };
                    found = Some((consumed, value));
                }
            }
        }
        found.ok_or_else(|| self.why_missing(from, output))
    }

    fn why_missing(&self, from: &StepId, output: &str) -> String {
        let voided = self
            .state
            .tasks
            .iter()
            .any(|((step, _), task)| step == from && task.status == super::TaskStatus::Voided);
        if voided {
            format!("output {output} of step {from} was voided by a breach of a watch")
        } else if self.state.outputs.contains_key(from) {
            format!("step {from} has ended without output {output}")
        } else {
            format!("step {from}, which gives output {output}, was not carried out in this run")
        }
    }

    /// What a release, sent or sent again, says to one agent.
    pub(super) fn release_order(&self, phase: PhaseRef, agent: &AgentName) -> Option<Order> {
        let steps = self.state.phase(phase)?.tasks.get(agent)?;
        let mut inputs: BTreeMap<StepId, Outputs> = BTreeMap::new();
        let mut captures = BTreeMap::new();
        let kept = self.state.captures.get(agent);
        let journal_lost = self.state.journals_lost.contains(agent);
        for step in steps {
            let (_, spec) = self.state.step(step)?;
            for (from, output) in &spec.inputs {
                if let Ok((_, value)) = self.resolve_input(from, output) {
                    inputs
                        .entry(from.clone())
                        .or_default()
                        .insert(output.clone(), value.clone());
                }
            }
            if let (true, Some(of)) = (journal_lost, super::state::undone_by(spec)) {
                let capture = kept.and_then(|kept| kept.get(of)).cloned();
                captures.insert(of.clone(), capture.unwrap_or(Value::Null));
            }
        }
        Some(Order::Release {
            header: self.header(phase)?,
            inputs,
            captures,
        })
    }
}
