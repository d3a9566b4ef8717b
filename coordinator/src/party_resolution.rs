//! Resolves a plan's parties to agents, which turns its phases into the barrier's.

use lockstep_barrier::ids::{AgentName, Digest, JournalId};
use lockstep_barrier::message::{Mode, TaskOrder};
use lockstep_barrier::resolved_plan::{Outage, PhaseSpec, ResolvedPlan, StepSpec};
use lockstep_daemon::matches_pattern;
use lockstep_plan::actions::Action;
use lockstep_plan::{Plan, Step};
use std::collections::{BTreeMap, BTreeSet};

/// An agent that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub journal: JournalId,
    pub labels: BTreeMap<String, String>,
    /// Action patterns that its policy allows.
    pub allowed_actions: Vec<String>,
    /// The run it is locked to.
    pub busy_with: Option<String>,
    /// Why it would not obey this coordinator.
    pub follows_another: Option<String>,
}

/// Agents that are connected and not in quarantine.
pub type Candidates = BTreeMap<AgentName, Candidate>;

/// What prevents a run, a sentence each, with remedy.
pub type Obstacles = Vec<String>;

/// A plan with its parties resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedParties {
    pub parties: BTreeMap<String, Vec<AgentName>>,
    /// Journal of every agent of the plan.
    pub members: BTreeMap<AgentName, JournalId>,
}

/// Resolves the parties (R21) and checks everything about them at once.
///
/// # Errors
/// Every obstacle found.
pub fn resolve_parties(plan: &Plan, candidates: &Candidates) -> Result<ResolvedParties, Obstacles> {
    let mut obstacles = Obstacles::new();
    let mut resolved = ResolvedParties {
        parties: BTreeMap::new(),
        members: BTreeMap::new(),
    };
    for (name, party) in &plan.parties {
        let matching: Vec<AgentName> = candidates
            .iter()
            .filter(|(_, candidate)| party.matches(&candidate.labels))
            .map(|(agent, _)| agent.clone())
            .collect();
        if matching.len() != party.expected as usize {
            obstacles.push(miscount(name, party, &matching));
        }
        resolved.parties.insert(name.clone(), matching);
    }
    for agent in resolved.parties.values().flatten() {
        let Some(candidate) = candidates.get(agent) else {
            continue;
        };
        if let Some(run) = &candidate.busy_with {
            obstacles.push(format!(
                "agent {agent} is locked to run {run}; wait until that run has ended; `lockstep \
                 run show {run}` names who started it and what it waits for"
            ));
        }
        obstacles.extend(candidate.follows_another.clone());
        resolved
            .members
            .insert(agent.clone(), candidate.journal.clone());
    }
    obstacles.extend(not_allowed(plan, &resolved, candidates));
    obstacles.dedup();
    if obstacles.is_empty() {
        Ok(resolved)
    } else {
        Err(obstacles)
    }
}

fn miscount(name: &str, party: &lockstep_plan::Party, matching: &[AgentName]) -> String {
    let labels: Vec<String> = party
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let found: Vec<&str> = matching.iter().map(|agent| agent.0.as_str()).collect();
    format!(
        "party {name} ({}) expects {} agent(s), {} match: {}; start the missing agents or correct \
         labels or number",
        labels.join(", "),
        party.expected,
        found.len(),
        if found.is_empty() {
            "none".to_owned()
        } else {
            found.join(", ")
        }
    )
}

/// Actions that an agent's policy would refuse: reported before anything
/// starts. The agent's own check remains authoritative.
fn not_allowed(plan: &Plan, resolved: &ResolvedParties, candidates: &Candidates) -> Obstacles {
    let mut refused: BTreeSet<(String, AgentName)> = BTreeSet::new();
    for step in steps(plan) {
        for agent in resolved.parties.get(&step.party).into_iter().flatten() {
            let allowed = candidates.get(agent).is_some_and(|candidate| {
                candidate
                    .allowed_actions
                    .iter()
                    .any(|pattern| matches_pattern(pattern, &step.action))
            });
            if !allowed {
                refused.insert((step.action.clone(), agent.clone()));
            }
        }
    }
    refused
        .into_iter()
        .map(|(action, agent)| {
            format!(
                "the policy of agent {agent} doesn't allow {action}; add it to policy.actions in \
                 that agent's agent.toml"
            )
        })
        .collect()
}

fn steps(plan: &Plan) -> impl Iterator<Item = &Step> {
    plan.phases
        .iter()
        .chain(&plan.rollback)
        .flat_map(|phase| &phase.steps)
}

/// The phases of a plan with its parties resolved to agents.
pub fn resolved_plan(
    plan: &Plan,
    digest: &lockstep_plan::Digest,
    resolved: &ResolvedParties,
) -> ResolvedPlan {
    let index = |name: &str| plan.phases.iter().position(|phase| phase.name == name);
    let number = |name: &str| index(name).and_then(|i| u32::try_from(i).ok()).unwrap_or(0);
    let phases = |phases: &[lockstep_plan::Phase]| -> Vec<PhaseSpec> {
        phases
            .iter()
            .map(|phase| PhaseSpec {
                name: phase.name.clone(),
                gate: phase.gate,
                start_by: phase.start_by_ms,
                finish_by: phase.finish_by_ms,
                on_failure: phase.on_failure,
                point_of_no_return: phase.point_of_no_return,
                steps: phase
                    .steps
                    .iter()
                    .map(|step| spec(step, resolved, &number))
                    .collect(),
            })
            .collect()
    };
    ResolvedPlan {
        digest: Digest(digest.to_string()),
        forward: phases(&plan.phases),
        rollback: phases(&plan.rollback),
        detachable: detachable(plan, resolved),
        outage: plan.outage.as_ref().map(|outage| Outage {
            budget: outage.budget_ms,
            starts_with: number(&outage.starts_with),
            ends_with: number(&outage.ends_with),
            rollback_reserve: outage.rollback_reserve_ms,
        }),
    }
}

/// An agent is detachable only if every party it belongs to is.
fn detachable(plan: &Plan, resolved: &ResolvedParties) -> BTreeSet<AgentName> {
    let holding: BTreeSet<&AgentName> = plan
        .parties
        .iter()
        .filter(|(_, party)| !party.detachable)
        .filter_map(|(name, _)| resolved.parties.get(name))
        .flatten()
        .collect();
    resolved
        .members
        .keys()
        .filter(|agent| !holding.contains(agent))
        .cloned()
        .collect()
}

fn mode(step: &Step) -> Mode {
    match &step.mode {
        lockstep_plan::Mode::Execute => Mode::Execute,
        lockstep_plan::Mode::Undo { of } => Mode::Undo {
            of: of.as_str().into(),
        },
    }
}

fn spec(step: &Step, resolved: &ResolvedParties, number: &impl Fn(&str) -> u32) -> StepSpec {
    StepSpec {
        id: step.id.as_str().into(),
        agents: resolved
            .parties
            .get(&step.party)
            .cloned()
            .unwrap_or_default(),
        action: step.action.clone(),
        mode: mode(step),
        params: step.params.clone(),
        inputs: step
            .inputs()
            .into_iter()
            .map(|reference| (reference.step.as_str().into(), reference.output))
            .collect(),
        timeout: step.timeout_ms,
        proof: step.proof,
        required: step.required,
        undoable: step.undoable,
        watch_until: step.watch_until.as_deref().map(number),
        read_only: Action::find(&step.action).is_some_and(Action::read_only),
    }
}

/// Every forward task of each agent, in order: the tasks that a preflight
/// probes.
pub fn tasks_by_agent(
    plan: &Plan,
    resolved: &ResolvedParties,
) -> BTreeMap<AgentName, Vec<(String, TaskOrder)>> {
    let mut tasks: BTreeMap<AgentName, Vec<(String, TaskOrder)>> = BTreeMap::new();
    for phase in &plan.phases {
        for step in &phase.steps {
            for agent in resolved.parties.get(&step.party).into_iter().flatten() {
                let order = TaskOrder {
                    step: step.id.as_str().into(),
                    action: step.action.clone(),
                    mode: mode(step),
                    params: step.params.clone(),
                    timeout: step.timeout_ms,
                    read_only: Action::find(&step.action).is_some_and(Action::read_only),
                    watch: step.watch_until.is_some(),
                };
                tasks
                    .entry(agent.clone())
                    .or_default()
                    .push((phase.name.clone(), order));
            }
        }
    }
    tasks
}
