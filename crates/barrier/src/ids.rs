//! The names and numbers that every order carries.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds on the boot-time clock (CLOCK_BOOTTIME) of whoever reads
/// them. Points in time are never compared across machines; only durations
/// travel.
pub type Millis = u64;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text_id!(
    /// A run: one execution of a plan (UUIDv7 text).
    RunId
);
text_id!(
    /// An agent, by the name in its certificate.
    AgentName
);
text_id!(
    /// A step, by its id; unique in the plan. With an agent it names a task.
    StepId
);
text_id!(
    /// SHA-256 of the plan, in hex.
    Digest
);
text_id!(
    /// Identity of a journal, drawn when it was created. An agent that lost
    /// its disk comes back under another one.
    JournalId
);

text_id!(
    /// A boot of a machine (/proc/sys/kernel/random/boot_id): what a point on
    /// its boot-time clock counts from. Empty where it is not known.
    BootId
);

/// A point in time that survives its process, but not its machine's boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootTime {
    pub boot: BootId,
    /// On the boot-time clock of that boot.
    pub at: Millis,
}

/// The coordinator's fencing token: a number that only grows, and what tells
/// two coordinators apart that computed the same number from one backup (R9).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Term {
    /// Grows by one with each start of the coordinator.
    pub number: u64,
    /// Random, drawn at that start.
    pub incarnation: u64,
}

/// Journal sequence of what was decided. An agent obeys none lower than the
/// highest it has seen in a run (R1).
pub type Decision = u64;

/// Which way a run is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    Forward,
    /// The rollback plan's phases.
    Rollback,
}

/// A phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PhaseRef {
    /// Which of the two plans.
    pub track: Track,
    /// Position in it, from 0.
    pub index: u32,
}

impl fmt::Display for PhaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.track {
            Track::Forward => write!(f, "p{}", self.index),
            Track::Rollback => write!(f, "r{}", self.index),
        }
    }
}

/// What every order carries (R1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub run: RunId,
    pub phase: PhaseRef,
    /// Counts from 1 in each phase; a new Prepare round is a new attempt.
    pub attempt: u32,
    pub term: Term,
    pub decision: Decision,
    pub digest: Digest,
}
