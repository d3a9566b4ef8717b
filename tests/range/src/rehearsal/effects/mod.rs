//! What the range itself saw of each step of the procedure.
//!
//! A phase that is called done proves nothing here. For every step there is
//! something that can be seen from outside: a unit's stop, a closed port, a
//! parameter's value, a call that DMS received, a row. [`look`] collects it
//! right after the run, [`steps`] judges; [`once`] looks for what was done
//! twice.

mod look;
mod once;
mod steps;

use super::workload::Verdict;
pub use look::{Look, Moments};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// All steps of the procedure, in order.
pub const SEED_STEPS: [&str; 15] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "8.1", "8.2", "8.3", "9", "10", "10.1", "10.2",
];

/// One step as seen from outside.
#[derive(Debug, Clone, Serialize)]
pub struct Effect {
    /// Whether what the step is for has been seen.
    pub seen: bool,
    pub evidence: Value,
}

/// What a finished cutover has done more often than once.
#[must_use]
pub fn repeated(look: &Look) -> Vec<String> {
    once::repeated(look)
}

/// By step of the procedure.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Effects(pub BTreeMap<&'static str, Effect>);

impl Effects {
    /// Judges what a look at the range has brought; empty without one.
    #[must_use]
    pub fn of(look: Option<&Look>, verdict: &Verdict) -> Self {
        let Some(look) = look else {
            return Self::default();
        };
        Self(
            SEED_STEPS
                .into_iter()
                .map(|step| (step, steps::judge(look, step, verdict)))
                .collect(),
        )
    }

    /// The steps of which nothing was seen.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        SEED_STEPS
            .into_iter()
            .filter(|step| !self.0.get(step).is_some_and(|e| e.seen))
            .collect()
    }
}
