//! Files in `tests/plans`: what to explore, with which budgets.
//!
//! ```text
//! # Prose.
//! unclear stop
//! test fail=1 verb=1
//! verify fail=2 crash-between=1
//!
//! phase stop on_failure=rollback
//!   stop a,b
//! ```
//!
//! `test`, `verify` and `mutants` are budgets: each line is one exploration, of
//! `make test`, `make verify` or `make mutants`. The plan begins after the first empty line.

use super::budget::Budget;
use crate::support::Sim;
use crate::support::plan;
use lockstep_barrier::ids::StepId;
use std::fs;
use std::path::{Path, PathBuf};

pub struct PlanFile {
    pub name: String,
    pub plan: String,
    /// Steps whose probes are indeterminate.
    pub unclear: Vec<StepId>,
    pub test: Vec<Budget>,
    pub verify: Vec<Budget>,
    pub mutants: Vec<Budget>,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans")
}

impl PlanFile {
    pub fn read(name: &str) -> Self {
        let text = fs::read_to_string(folder().join(format!("{name}.txt"))).expect("a plan");
        let (head, plan) = text.split_once("\n\n").expect("budgets, then a plan");
        let mut file = Self {
            name: name.to_owned(),
            plan: plan.to_owned(),
            unclear: Vec::new(),
            test: Vec::new(),
            verify: Vec::new(),
            mutants: Vec::new(),
        };
        for line in head.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[0] {
                "unclear" => file.unclear = words[1..].iter().map(|w| (*w).into()).collect(),
                "test" => file.test.push(Budget::parse(&words[1..])),
                "verify" => file.verify.push(Budget::parse(&words[1..])),
                "mutants" => file.mutants.push(Budget::parse(&words[1..])),
                other => panic!("what is {other}?"),
            }
        }
        file
    }

    /// The first state: the run has begun, and everyone is connected.
    pub fn start(&self) -> Sim {
        let mut sim = Sim::new(plan::begin(&self.plan));
        sim.traced = false;
        sim.in_order = true;
        for agent in sim.agents.values_mut() {
            agent.indeterminate.extend(self.unclear.iter().cloned());
        }
        sim.start();
        for name in sim.names() {
            sim.connect(&name);
        }
        sim
    }

    /// The commands of [`Self::start`], in the format of scenarios.
    pub fn opening(&self) -> String {
        let agents: Vec<String> = plan::begin(&self.plan)
            .members
            .keys()
            .map(ToString::to_string)
            .collect();
        let mut lines = vec!["in-order".to_owned()];
        for step in &self.unclear {
            lines.extend(
                agents
                    .iter()
                    .map(|name| format!("indeterminate {name} {step}")),
            );
        }
        lines.push(format!("connect {}", agents.join(" ")));
        format!(
            "plan\n{}\n----\n\n{}",
            self.plan.trim_end(),
            lines.join("\n")
        )
    }
}
