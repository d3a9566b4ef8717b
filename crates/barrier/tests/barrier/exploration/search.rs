//! Depth-first search over the states of one simulation.

use super::acts::{Act, acts};
use super::budget::{Budget, Fault};
use super::plan_file::PlanFile;
use crate::support::Sim;
use crate::support::liveness;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};

/// The result of a search.
pub struct Explored {
    pub plan: String,
    pub budget: Budget,
    pub states: usize,
    pub transitions: u64,
    /// States from which the run was led to its end.
    pub healed: usize,
    /// Every state within the budget was visited.
    pub exhausted: bool,
    pub took: Duration,
    /// The violated invariants, with the shortest path found to each.
    pub violations: BTreeMap<String, Violation>,
}

pub struct Violation {
    pub times: u64,
    pub what: String,
    pub path: Vec<Act>,
}

struct Frame {
    sim: Sim,
    left: Budget,
    acts: std::vec::IntoIter<Act>,
    /// The act that led here.
    by: Option<Act>,
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

type Visited = HashSet<u128, BuildHasherDefault<Unhashed>>;

pub struct Search<'a> {
    plan: &'a PlanFile,
    /// The search is cut at this many states.
    most: usize,
    /// It ends at the first violation.
    pub until_the_first: bool,
    visited: Visited,
    healed: Visited,
    stack: Vec<Frame>,
    explored: Explored,
}

impl<'a> Search<'a> {
    pub fn new(plan: &'a PlanFile, budget: Budget, most: usize) -> Self {
        Self {
            plan,
            most,
            until_the_first: false,
            visited: Visited::default(),
            healed: Visited::default(),
            stack: Vec::new(),
            explored: Explored {
                plan: plan.name.clone(),
                budget,
                states: 0,
                transitions: 0,
                healed: 0,
                exhausted: true,
                took: Duration::ZERO,
                violations: BTreeMap::new(),
            },
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it measures how long the search takes, and decides nothing by it"
    )]
    pub fn run(mut self) -> Explored {
        let began = Instant::now();
        let budget = self.explored.budget;
        self.enter(self.plan.start(), budget, None);
        while let Some(top) = self.stack.last_mut() {
            let Some(act) = top.acts.next() else {
                self.stack.pop();
                continue;
            };
            let (mut sim, mut left) = (top.sim.clone(), top.left);
            self.explored.transitions += 1;
            if !apply(&act, &mut sim, &mut left) {
                continue;
            }
            if sim.violations.is_empty() {
                self.enter(sim, left, Some(act));
            } else {
                let what = sim.violations.swap_remove(0);
                self.violated(what, act);
            }
            let found = self.until_the_first && !self.explored.violations.is_empty();
            if found || self.visited.len() >= self.most {
                self.explored.exhausted = false;
                break;
            }
        }
        self.explored.states = self.visited.len();
        self.explored.healed = self.healed.len();
        self.explored.took = began.elapsed();
        for violation in self.explored.violations.values_mut() {
            shorten(self.plan, budget, violation);
        }
        self.explored
    }

    /// Goes on from a state that was not visited before.
    fn enter(&mut self, sim: Sim, left: Budget, by: Option<Act>) {
        let mut mixer = sim.mixed();
        let without_budget = mixer.fingerprint();
        left.hash(&mut mixer);
        if !self.visited.insert(mixer.fingerprint()) {
            return;
        }
        let mut possible = acts(&sim, &left);
        if left.allows(Fault::CrashBetween) {
            let between = crashes_between(&sim, left, &possible);
            possible.extend(between);
        }
        self.stack.push(Frame {
            sim,
            left,
            acts: possible.into_iter(),
            by,
        });
        self.heal(without_budget);
    }

    /// From every quiet state the run can be led to its end.
    fn heal(&mut self, fingerprint: u128) {
        let Some(frame) = self.stack.last() else {
            return;
        };
        if !frame.sim.is_quiet() || !self.healed.insert(fingerprint) {
            return;
        }
        let mut sim = frame.sim.clone();
        let by = frame.by.clone();
        let ended = sim.heal(false);
        let folds = liveness::agents_are_the_fold_of_their_journals(&sim);
        let result = ended.and(folds.map_err(|what| {
            format!("invariant agents_are_the_fold_of_their_journals is broken: {what}")
        }));
        if let (Err(what), Some(by)) = (result, by) {
            self.stack.pop();
            self.violated(what, by);
        }
    }

    fn violated(&mut self, what: String, last: Act) {
        let path = self.stack.iter().filter_map(|frame| frame.by.clone());
        let path: Vec<Act> = path.chain([last]).collect();
        let name = invariant_of(&what);
        let found = self.explored.violations.entry(name);
        let violation = found.or_insert_with(|| Violation {
            times: 0,
            what: what.clone(),
            path: path.clone(),
        });
        violation.times += 1;
        if path.len() < violation.path.len() {
            violation.what = what;
            violation.path = path;
        }
    }
}

/// The name of the invariant that a violation states.
fn invariant_of(what: &str) -> String {
    let mut words = what.split_whitespace();
    let name = words.find(|word| *word != "invariant");
    name.unwrap_or_default().to_owned()
}

/// Applies an act and checks the state after it; `false` if it is not possible.
fn apply(act: &Act, sim: &mut Sim, left: &mut Budget) -> bool {
    sim.effects = 0;
    let deadline = sim.next_deadline();
    if !act.apply(sim, left) {
        return false;
    }
    sim.check_state();
    if matches!(act, Act::Deadline) && sim.next_deadline() == deadline && sim.effects == 0 {
        sim.violated("invariant every_deadline_has_an_effect is broken: nothing happened at one");
    }
    true
}

/// The acts with a crash between any two of their effects.
fn crashes_between(sim: &Sim, left: Budget, possible: &[Act]) -> Vec<Act> {
    let mut crashes = Vec::new();
    for act in possible {
        let (mut after, mut left) = (sim.clone(), left);
        after.effects = 0;
        if act.apply(&mut after, &mut left) {
            let effects = 0..after.effects;
            crashes.extend(effects.map(|n| Act::CrashBetween(Box::new(act.clone()), n)));
        }
    }
    crashes
}

/// Leaves out every act without which the same invariant is still violated.
fn shorten(plan: &PlanFile, budget: Budget, violation: &mut Violation) {
    let name = invariant_of(&violation.what);
    let mut at = 0;
    while at < violation.path.len() {
        let mut shorter = violation.path.clone();
        shorter.remove(at);
        match replay(plan, budget, &shorter) {
            Some((what, acts)) if invariant_of(&what) == name => {
                shorter.truncate(acts);
                violation.path = shorter;
                violation.what = what;
            }
            _ => at += 1,
        }
    }
}

/// The violation at the end of a path, and how many of its acts lead to it.
fn replay(plan: &PlanFile, budget: Budget, path: &[Act]) -> Option<(String, usize)> {
    let (mut sim, mut left) = (plan.start(), budget);
    for (index, act) in path.iter().enumerate() {
        if !apply(act, &mut sim, &mut left) {
            return None;
        }
        if let Some(what) = sim.violations.first() {
            return Some((what.clone(), index + 1));
        }
    }
    let ended = sim.is_quiet().then(|| sim.heal(false));
    let what = ended.and_then(Result::err)?;
    Some((what, path.len()))
}

/// The path as a scenario, which replays it.
pub fn scenario(plan: &PlanFile, budget: Budget, violation: &Violation) -> String {
    let (mut sim, mut left) = (plan.start(), budget);
    let mut commands = Vec::new();
    for act in &violation.path {
        commands.push(act.command(&sim));
        apply(act, &mut sim, &mut left);
    }
    let what = violation.what.lines().next().unwrap_or_default();
    let text = written(plan, &commands);
    format!("# {what}\n\n{text}")
}

fn written(plan: &PlanFile, commands: &[String]) -> String {
    format!("{}\n{}\nstate\n----\n", plan.opening(), commands.join("\n"))
}

/// A path of this length, as a scenario, and the state at its end.
pub fn a_path(plan: &PlanFile, budget: Budget, length: usize) -> (String, Sim) {
    let (mut sim, mut left) = (plan.start(), budget);
    let mut commands = Vec::new();
    for turn in 0..length {
        // Another act each time, so that faults of all kinds are on the path.
        let possible = acts(&sim, &left);
        let chosen = possible.into_iter().filter_map(|act| {
            let (mut after, mut less) = (sim.clone(), left);
            let text = act.command(&sim);
            apply(&act, &mut after, &mut less).then_some((text, after, less))
        });
        let mut chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            break;
        }
        let (text, after, less) = chosen.swap_remove(turn * 7 % chosen.len());
        commands.push(text);
        (sim, left) = (after, less);
    }
    (written(plan, &commands), sim)
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.exhausted { "all of" } else { "cut at" };
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{:<12} {:<60} {how} {:>9} states, {:>10} transitions, {:>7} healed, {seconds:>6.1} s, \
             {} violations",
            self.plan,
            self.budget.to_string(),
            self.states,
            self.transitions,
            self.healed,
            self.violations.len()
        )
    }
}
