//! The release: its inputs and before-images, durable before it is sent.

use super::{Effect, MAX_RELEASE, Run};
use crate::ids::{AgentName, Header, Millis, PhaseRef, StepId, Track};
use crate::message::{Order, Verdict, json_size};
use crate::record::{Consumed, Failure, Record};
use crate::resolved_plan::Outputs;
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
        let before_images = self.voted_before_images();
        if let Some(detail) = self.oversize(phase, &before_images, tasks.keys()) {
            return self.fail(phase, Failure::TooLarge { detail }, effects);
        }
        if self.starts_outage(phase) && self.live.outage_began.is_none() {
            self.live.outage_began = Some(now);
        }
        let votes = self.live.votes.iter();
        let promise_ages = votes
            .map(|(agent, vote)| (agent.clone(), now.saturating_sub(vote.promised)))
            .collect();
        let record = Record::Released {
            phase,
            attempt,
            before_images,
            consumed: consumed.into_iter().collect(),
            promise_ages,
            outage: self.outage_elapsed(now),
        };
        self.live.released_at = now;
        self.live.reported_releases.clear();
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

    /// Describes the part of a release that exceeds [`MAX_RELEASE`], if any.
    fn oversize<'a>(
        &self,
        phase: PhaseRef,
        before_images: &BTreeMap<AgentName, BTreeMap<StepId, Value>>,
        agents: impl Iterator<Item = &'a AgentName>,
    ) -> Option<String> {
        let size = json_size(before_images);
        if size > MAX_RELEASE {
            return Some(format!(
                "the before-images of the agents take {size} bytes, more than the \
                 {MAX_RELEASE} of one phase"
            ));
        }
        agents
            .map(|agent| (agent, self.release_order(phase, agent)))
            .find_map(|(agent, order)| {
                let Some(Order::Release {
                    inputs,
                    before_images,
                    ..
                }) = order
                else {
                    return None;
                };
                let carried = json_size(&inputs) + json_size(&before_images);
                (carried > MAX_RELEASE).then(|| {
                    format!(
                        "what {agent} needs of earlier steps has {carried} bytes, more than the \
                         {MAX_RELEASE} of one release"
                    )
                })
            })
    }

    fn starts_outage(&self, phase: PhaseRef) -> bool {
        phase.track == Track::Forward
            && self
                .state
                .begin
                .resolved_plan
                .outage
                .as_ref()
                .is_some_and(|outage| outage.starts_with == phase.index)
    }

    fn voted_before_images(&self) -> BTreeMap<AgentName, BTreeMap<StepId, Value>> {
        let mut before_images: BTreeMap<AgentName, BTreeMap<StepId, Value>> = BTreeMap::new();
        for (agent, vote) in &self.live.votes {
            let Verdict::Ready { probes } = &vote.verdict else {
                continue;
            };
            for (step, probe) in probes {
                if let Some(before_image) = &probe.before_image {
                    before_images
                        .entry(agent.clone())
                        .or_default()
                        .insert(step.clone(), before_image.clone());
                }
            }
        }
        before_images
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

    /// One output and its producer. Several agents may have produced it, with
    /// equal values.
    pub(super) fn resolve_input(
        &self,
        from: &StepId,
        output: &str,
    ) -> Result<(Consumed, &Value), String> {
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

    /// The release order for one agent, also when it is resent.
    pub(super) fn release_order(&self, phase: PhaseRef, agent: &AgentName) -> Option<Order> {
        let state = self.state.phase(phase)?;
        let promise_age = state.promise_ages.get(agent).copied().unwrap_or(0);
        let steps = state.tasks.get(agent)?;
        self.release_of(agent, steps, self.header(phase)?, promise_age)
    }

    /// The release order for these steps of an agent.
    pub(super) fn release_of(
        &self,
        agent: &AgentName,
        steps: &[StepId],
        header: Header,
        promise_age: Millis,
    ) -> Option<Order> {
        let mut inputs: BTreeMap<StepId, Outputs> = BTreeMap::new();
        let mut before_images = BTreeMap::new();
        let recorded = self.state.before_images.get(agent);
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
                let before_image = recorded.and_then(|images| images.get(of)).cloned();
                before_images.insert(of.clone(), before_image.unwrap_or(Value::Null));
            }
        }
        Some(Order::Release {
            header,
            promise_age,
            inputs,
            before_images,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::fold::tests::{TERM, begin};
    use crate::coordinator::{Event, MAX_RELEASE};
    use crate::ids::{JournalId, RunId};
    use crate::message::{AgentState, Finding, Probe, Reply};

    /// Effects after two agents have voted, each with a before-image of this many
    /// bytes.
    fn voted(bytes: usize) -> Vec<Effect> {
        let mut begin = begin(&["a", "b"]);
        let names = [AgentName::from("a"), AgentName::from("b")];
        begin.members = names
            .iter()
            .map(|agent| (agent.clone(), JournalId::from("j")))
            .collect();
        let (mut run, mut effects) = Run::start(0, begin, TERM).expect("a valid plan");
        for agent in &names {
            let agent_state = AgentState {
                agent: agent.clone(),
                journal: JournalId::from("j"),
                term: TERM,
                run: None,
                decision: 0,
                release_age: None,
                release_ages: BTreeMap::new(),
            };
            effects.extend(run.handle(1, Event::Connected(agent_state)));
        }
        for agent in &names {
            let probe = Probe {
                finding: Finding::Pending,
                before_image: Some(Value::String("x".repeat(bytes))),
            };
            let reply = Reply::Vote {
                run: RunId::from("run-1"),
                phase: PhaseRef {
                    track: Track::Forward,
                    index: 0,
                },
                attempt: 1,
                term: TERM,
                promise_age: 0,
                verdict: Verdict::Ready {
                    probes: BTreeMap::from([(StepId::from("stop"), probe)]),
                },
            };
            let from = agent.clone();
            let position = None;
            effects.extend(run.handle(
                2,
                Event::Reply {
                    from,
                    reply,
                    position,
                },
            ));
        }
        effects
    }

    fn released(effects: &[Effect]) -> bool {
        effects.iter().any(|effect| {
            matches!(effect, Effect::Send { order, .. } if matches!(order, Order::Release { .. }))
        })
    }

    #[test]
    fn what_a_journal_can_not_hold_is_not_released() {
        assert!(released(&voted(MAX_RELEASE / 2 - 100)));
        let effects = voted(MAX_RELEASE / 2);
        assert!(!released(&effects));
        let failed = effects.iter().any(|effect| match effect {
            Effect::Persist(entry) => matches!(
                &entry.record,
                Record::Failed {
                    failure: Failure::TooLarge { .. },
                    ..
                }
            ),
            Effect::Send { .. } => false,
        });
        assert!(failed, "{} effects", effects.len());
    }
}
