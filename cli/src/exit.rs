//! Exit codes: part of the interface, never renumbered.

use std::process::ExitCode;

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// The run, or the coordinator, failed.
    Failed,
    /// The input was refused; nothing was changed anywhere.
    Refused,
    /// No coordinator could be reached.
    Unreachable,
    /// Something took longer than it was given.
    TimedOut,
    /// The run rolled back.
    RolledBack,
    /// The run waits for an operator.
    Waiting,
}

impl Exit {
    const ALL: [Self; 7] = [
        Self::Done,
        Self::Failed,
        Self::Refused,
        Self::Unreachable,
        Self::TimedOut,
        Self::RolledBack,
        Self::Waiting,
    ];

    /// The exit with this number.
    pub fn of_code(code: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|exit| i32::from(exit.code()) == code)
    }

    /// The number that a shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::Unreachable => 3,
            Self::TimedOut => 4,
            Self::RolledBack => 5,
            Self::Waiting => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_are_documented() {
        let all = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Refused, 2),
            (Exit::Unreachable, 3),
            (Exit::TimedOut, 4),
            (Exit::RolledBack, 5),
            (Exit::Waiting, 6),
        ];
        assert_eq!(Exit::of_code(7), None);
        for (exit, number) in all {
            assert_eq!(exit.code(), number, "{exit:?}");
            assert_eq!(Exit::of_code(i32::from(number)), Some(exit));
        }
    }
}
