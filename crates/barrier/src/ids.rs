//! Identifiers, terms and decision numbers.

pub use lockstep_api::Track;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds on the boot-time clock (CLOCK_BOOTTIME) of the machine that
/// reads it. Points in time are never compared across machines; messages carry
/// only durations.
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
    /// An agent: the name in its certificate.
    AgentName
);
text_id!(
    /// A step id, unique in the plan. A step and an agent identify a task.
    StepId
);
text_id!(
    /// SHA-256 of the plan, in hex.
    Digest
);
text_id!(
    /// Identity of a journal, generated at random when it is created. An agent
    /// that lost its disk reconnects with another one.
    JournalId
);

text_id!(
    /// A boot of a machine (/proc/sys/kernel/random/boot_id): the origin of its
    /// boot-time clock. Empty if unknown.
    BootId
);

/// A point in time that stays valid across process restarts, but not across a
/// reboot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootTime {
    pub boot: BootId,
    /// On the boot-time clock of that boot.
    pub at: Millis,
}

/// The coordinator's fencing token: a monotonic number, and a random part that
/// distinguishes two coordinators that computed the same number from the same
/// backup (R9).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Grows by one with each start of the coordinator.
    pub number: u64,
    /// Random, generated at that start.
    pub incarnation: u64,
}

/// Journal sequence of the run's last decision. An agent rejects an order whose
/// decision is lower than the highest it has accepted in that run (R1).
pub type Decision = u64;

/// A phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseRef {
    pub track: Track,
    /// Position in the track, from 0.
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

/// Header of every order about a phase (R1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub run: RunId,
    pub phase: PhaseRef,
    /// Counts from 1 in each phase; a new Prepare round is a new attempt.
    pub attempt: u32,
    pub term: Term,
    pub decision: Decision,
    pub digest: Digest,
}
