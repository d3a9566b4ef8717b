//! `kill -9` of either daemon at every crash point that a run passes: whatever was
//! acknowledged is there afterwards, and every command has its effect exactly once.
//!
//! The passages are enumerated by an undisturbed run. `make test` tries some of them at
//! every point, `make verify` all.

use crate::fleet::{CommandOutput, Fleet, until};
use crate::sweep::{BOTH, PLAN, WITH_ROLLBACK, once_each, resolve_unknown};
use std::collections::BTreeMap;

/// The places in `lockstep_daemon::CrashPoint`, with the daemon that doesn't pass them.
const POINTS: [(&str, &str); 8] = [
    ("before-receive", ""),
    ("after-receive", ""),
    ("before-append", ""),
    ("after-append", ""),
    ("before-action", "coordinator"),
    ("after-action", "coordinator"),
    ("before-send", ""),
    ("after-send", ""),
];

/// Passages of each point to try in `make test`.
const SOME: usize = 3;

struct Sweep {
    fleet: Fleet,
    plan: String,
    /// `coordinator` or an agent.
    victim: &'static str,
}

impl Sweep {
    fn new(victim: &'static str, plan: &str) -> Self {
        let fleet = Fleet::of(&BOTH);
        let plan = fleet.plan("swept", plan);
        Self {
            fleet,
            plan,
            victim,
        }
    }

    /// Ends the victim and starts it in this environment.
    fn start_victim(&mut self, environment: &[(&str, &str)]) {
        if self.victim == "coordinator" {
            self.fleet.kill_coordinator();
            self.fleet.spawn_coordinator(&[], environment);
        } else {
            self.fleet.kill_agent(self.victim);
            self.fleet.start_agent_in(self.victim, environment);
        }
    }

    /// How often the victim passes each point, from its start to the end of a run.
    fn passages(&mut self) -> BTreeMap<String, usize> {
        let log = self.fleet.path("passages").display().to_string();
        self.start_victim(&[("LOCKSTEP_CRASH_LOG", &log)]);
        let output = self.run_to_the_end();
        assert!([0, 5].contains(&output.code), "undisturbed: {output}");
        let mut passages = BTreeMap::new();
        for point in std::fs::read_to_string(&log).unwrap().lines() {
            *passages.entry(point.to_owned()).or_default() += 1;
        }
        for (point, not_by) in POINTS {
            let passed = passages.contains_key(point);
            assert_eq!(passed, not_by != self.victim, "{point} in {passages:?}");
        }
        self.start_victim(&[]);
        passages
    }

    /// Runs the plan with a victim that dies at that passage and is then started again.
    fn strike(&mut self, point: &str, passage: usize) -> CommandOutput {
        let at = format!("{point}:{passage}");
        self.start_victim(&[("LOCKSTEP_CRASH_AT", &at)]);
        self.run_to_the_end()
    }

    fn restart_if_dead(&mut self) {
        if self.fleet.has_ended(self.victim) {
            self.start_victim(&[]);
        }
    }

    /// Starts a run and polls it: the victim may die under every request.
    fn run_to_the_end(&mut self) -> CommandOutput {
        self.connected();
        let before = self.runs();
        let run = loop {
            let plan = self.plan.clone();
            let output = self.fleet.lockstep(&["run", "start", &plan]);
            let mut runs = self.runs();
            runs.retain(|run| !before.contains(run));
            if output.code == 0 {
                let accepted = output.json["id"].as_str().unwrap();
                assert_eq!(runs, [accepted], "{output}");
            }
            // Without an answer, the request may have been executed.
            if let Some(run) = runs.pop() {
                break run;
            }
            self.connected();
        };
        until("the run's end", || {
            self.restart_if_dead();
            let output = self.fleet.lockstep(&["run", "show", &run]);
            let outcome = output.json["outcome"].as_str();
            outcome
                .is_some_and(|outcome| outcome != "running")
                .then_some(())
        });
        self.restart_if_dead();
        self.fleet.watch(&run)
    }

    /// Waits until every agent is connected, with a victim that may die meanwhile.
    fn connected(&mut self) {
        until("the fleet to be connected", || {
            self.restart_if_dead();
            let known = self.fleet.lockstep(&["agents", "list"]).json;
            let list = known.as_array().cloned().unwrap_or_default();
            let connected = list.iter().filter(|agent| agent["connected"] == true);
            (connected.count() == BOTH.len()).then_some(())
        });
    }

    /// The ids of all runs.
    fn runs(&mut self) -> Vec<String> {
        until("the coordinator to answer", || {
            self.restart_if_dead();
            let output = self.fleet.lockstep(&["run", "list"]);
            let runs = output.json.as_array()?.iter();
            Some(
                runs.map(|run| run["id"].as_str().unwrap().to_owned())
                    .collect(),
            )
        })
    }

    /// Strikes at every point, at so many of its passages, spread over all; `check` gets
    /// the moment and the run.
    fn sweep(
        &mut self,
        tried: usize,
        mut check: impl FnMut(&mut Self, &str, usize, CommandOutput),
    ) {
        for (point, passages) in self.passages() {
            let step = passages.div_ceil(tried);
            for passage in (1..=passages).step_by(step.max(1)) {
                let before = self.fleet.effects().len();
                let output = self.strike(&point, passage);
                let moment = format!("{} at {point}:{passage}", self.victim);
                check(self, &moment, before, output);
            }
        }
    }
}

/// Every command has had its effect exactly once; what the agent can't know is resolved
/// from the host's own record.
fn completes(sweep: &mut Sweep, moment: &str, before: usize, mut output: CommandOutput) {
    let run = output.json["id"].as_str().unwrap_or_default().to_owned();
    if output.code == 1 {
        let unknown = resolve_unknown(&sweep.fleet, before, &output);
        assert_eq!(unknown, 1, "{moment}: {output}");
        output = sweep.fleet.then_watch(&["run", "retry", &run]);
    }
    assert_eq!(output.code, 0, "{moment}: {output}");
    once_each(&sweep.fleet, before, &output);
}

fn every_run_completes(victim: &'static str, tried: usize) {
    Sweep::new(victim, PLAN).sweep(tried, completes);
}

fn every_rollback_restores(victim: &'static str, tried: usize) {
    let mut sweep = Sweep::new(victim, WITH_ROLLBACK);
    sweep.fleet.host("app-2").spoil("first");
    let original = sweep.fleet.snapshot(&BOTH);
    sweep.sweep(tried, |sweep, moment, before, mut output| {
        let run = output.json["id"].as_str().unwrap_or_default().to_owned();
        if output.code == 1 {
            resolve_unknown(&sweep.fleet, before, &output);
            output = sweep.fleet.then_watch(&["run", "rollback", &run]);
        }
        assert_eq!(output.code, 5, "{moment}: {output}");
        let left = output.json["still_changed"].as_array().map(Vec::len);
        assert_eq!(left, Some(0), "{moment}: {output}");
        let found = sweep.fleet.snapshot(&BOTH);
        assert_eq!(found, original, "{moment}: {output}");
    });
}

#[test]
fn the_coordinator_may_die_at_a_crash_point() {
    every_run_completes("coordinator", SOME);
}

#[test]
fn an_agent_may_die_at_a_crash_point() {
    every_run_completes("app-2", SOME);
}

#[test]
fn the_coordinator_may_die_at_a_crash_point_of_a_rollback() {
    every_rollback_restores("coordinator", SOME);
}

#[test]
fn an_agent_may_die_at_a_crash_point_of_a_rollback() {
    every_rollback_restores("app-2", SOME);
}

#[test]
#[ignore = "hundreds of runs; make verify"]
fn the_coordinator_may_die_at_every_crash_point() {
    every_run_completes("coordinator", usize::MAX);
    every_rollback_restores("coordinator", usize::MAX);
}

#[test]
#[ignore = "hundreds of runs; make verify"]
fn an_agent_may_die_at_every_crash_point() {
    every_run_completes("app-2", usize::MAX);
    every_rollback_restores("app-2", usize::MAX);
}
