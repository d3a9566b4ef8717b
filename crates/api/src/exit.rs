//! Exit codes of `lockstep`: part of the interface, never renumbered.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::process::ExitCode;

/// How a command, or the run that it watched, ended. Serialized as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Exit {
    Done,
    /// The run, or the coordinator, failed.
    Failed,
    /// The input was rejected; nothing was changed.
    Refused,
    /// No coordinator could be reached.
    Unreachable,
    /// A time limit passed.
    TimedOut,
    /// The run rolled back.
    RolledBack,
    /// The run waits for an operator.
    Waiting,
    /// The run completed, but a phase was skipped or a task waived.
    WithSkips,
}

impl Exit {
    const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Refused,
        Self::Unreachable,
        Self::TimedOut,
        Self::RolledBack,
        Self::Waiting,
        Self::WithSkips,
    ];

    /// The number that a shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::Unreachable => 3,
            Self::TimedOut => 4,
            Self::RolledBack => 5,
            Self::Waiting => 6,
            Self::WithSkips => 7,
        }
    }
}

/// A number that is not an exit code of `lockstep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownExit(pub i64);

impl fmt::Display for UnknownExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not an exit code of lockstep", self.0)
    }
}

impl std::error::Error for UnknownExit {}

impl TryFrom<i32> for Exit {
    type Error = UnknownExit;

    fn try_from(code: i32) -> Result<Self, UnknownExit> {
        Self::ALL
            .into_iter()
            .find(|exit| i32::from(exit.code()) == code)
            .ok_or(UnknownExit(code.into()))
    }
}

impl TryFrom<u8> for Exit {
    type Error = UnknownExit;

    fn try_from(code: u8) -> Result<Self, UnknownExit> {
        i32::from(code).try_into()
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit.code()
    }
}

impl From<Exit> for i32 {
    fn from(exit: Exit) -> Self {
        exit.code().into()
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
            (Exit::WithSkips, 7),
        ];
        for (exit, number) in all {
            assert_eq!(exit.code(), number, "{exit:?}");
            assert_eq!(Exit::try_from(number), Ok(exit));
        }
        assert_eq!(Exit::try_from(8_i32), Err(UnknownExit(8)));
        assert_eq!(Exit::try_from(-1_i32), Err(UnknownExit(-1)));
    }
}
