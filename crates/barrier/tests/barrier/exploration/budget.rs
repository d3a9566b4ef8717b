//! How often each fault may occur on one path. What is left is part of the state.

use std::fmt;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// Something that an exploration does a limited number of times.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$fault)),*];
        }
    };
}

faults! {
    /// An action fails, with or without its effect.
    Fail = "fail",
    /// The outcome of an action is unknown, with or without its effect.
    Unknown = "unknown",
    /// A probe refuses from now on.
    Refuse = "refuse",
    CrashAgent = "crash-agent",
    CrashCoordinator = "crash-coordinator",
    /// The process that handles an event crashes between two of its effects.
    CrashBetween = "crash-between",
    /// A session ends, and what it has not delivered is lost.
    Cut = "cut",
    Duplicate = "duplicate",
    /// An agent comes back with an empty journal.
    LoseJournal = "lose-journal",
    /// An agent comes back with the first half of its journal.
    RestoreAgent = "restore-agent",
    /// The coordinator comes back with an earlier journal.
    RestoreBackup = "restore-backup",
    /// A second coordinator starts from a copy of the journal while the first goes on.
    SecondCoordinator = "second-coordinator",
    /// Time jumps to the next deadline.
    Deadline = "deadline",
    /// Seven seconds pass: longer than an attestation is valid.
    Pause = "pause",
    /// A watch detects a breach.
    Breach = "breach",
    /// A verb that the run doesn't wait for.
    Verb = "verb",
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget([u8; Fault::NAMES.len()]);

impl Budget {
    /// From words such as `fail=1`.
    pub fn parse(words: &[&str]) -> Self {
        let mut budget = Self::default();
        for word in words {
            let (name, times) = word.split_once('=').expect("fault=times");
            let known = Fault::NAMES.iter().find(|(known, _)| *known == name);
            let (_, fault) = known.unwrap_or_else(|| panic!("what is {name}?"));
            budget.0[*fault as usize] = times.parse().expect("a number");
        }
        budget
    }

    /// Every fault, so many times.
    pub fn each(times: u8) -> Self {
        Self([times; Fault::NAMES.len()])
    }

    pub fn allows(&self, fault: Fault) -> bool {
        self.0[fault as usize] > 0
    }

    pub fn spend(&mut self, fault: Fault) {
        self.0[fault as usize] -= 1;
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spent = Fault::NAMES.iter().filter(|(_, fault)| self.allows(*fault));
        let words: Vec<String> = spent
            .map(|(name, fault)| format!("{name}={}", self.0[*fault as usize]))
            .collect();
        f.write_str(&words.join(" "))
    }
}
