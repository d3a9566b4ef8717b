//! Errors of the Oracle driver, classified by their codes.
//!
//! The driver wraps the errors of a killed session and of a call timeout, which hides
//! Oracle's own code; they are recognised by the driver's code.

use crate::error::ActionError;
use lockstep_api::Code;
use oracle::ErrorKind;
use std::path::PathBuf;

/// Characters of a statement shown in an error.
const MAX_STATEMENT: usize = 160;

/// ORA codes after which a session no longer exists: 28 killed, 1012 not logged on,
/// 1041 internal hostdef, 1089 shutdown, 3113, 3114, 3135 connection lost.
const SESSION_LOST: [i32; 7] = [28, 1012, 1041, 1089, 3113, 3114, 3135];
/// `ORA-01013: user requested cancel of current operation`.
const CANCELLED: i32 = 1013;
/// ODPI-C: the connection is dead; it wraps the codes of [`SESSION_LOST`].
const DPI_DEAD: i32 = 1080;
const DPI_NOT_CONNECTED: i32 = 1010;
/// ODPI-C: the call timed out.
const DPI_TIMEOUT: i32 = 1067;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OracleError {
    #[error("Oracle's client library can't be used from {home}: {line}")]
    Library {
        home: PathBuf,
        /// First line of Oracle's reason.
        line: String,
    },
    #[error("no session with the Oracle instance {sid}: {line}")]
    Connect {
        sid: String,
        /// First line of Oracle's reason.
        line: String,
    },
    /// A login did not return in time.
    #[error("the login to the Oracle instance {sid} {line}")]
    Hung {
        sid: String,
        /// Predicate of the sentence: how long the login has been waiting.
        line: String,
    },
    #[error("Oracle refused a statement with {line}: {statement}")]
    Refused {
        /// Number of the ORA error.
        ora: i32,
        /// First line of the error, such as `ORA-00942: table or view does not exist`.
        line: String,
        statement: String,
    },
    /// The driver rejected a call: a value is not of the expected type.
    #[error("the result of a statement can't be used ({line}): {statement}")]
    Driver { line: String, statement: String },
    /// The session no longer exists; whether the statement took effect is unknown.
    #[error("the session ended during a statement: {statement}")]
    Dead { statement: String },
    /// The call timed out or the task was cancelled.
    #[error("a statement was cancelled, because its time was up: {statement}")]
    Broken { statement: String },
}

impl OracleError {
    /// Number of the ORA error, if Oracle refused a statement.
    pub fn ora(&self) -> Option<i32> {
        match self {
            Self::Refused { ora, .. } => Some(*ora),
            _ => None,
        }
    }

    fn parts(&self) -> (Code, &'static str, &'static str) {
        match self {
            Self::Library { .. } => (
                Code::LS2201,
                "nothing was done",
                "check that the agent runs with this home and can read its lib directory, or set \
                 client_library in agent.toml; if the message names another library than libclntsh, \
                 set LD_LIBRARY_PATH to that directory in the agent's unit",
            ),
            Self::Connect { .. } => (
                Code::LS2202,
                "nothing was done",
                "check that the instance is open and that the agent's user is in the dba group",
            ),
            Self::Hung { .. } => (
                Code::LS2208,
                "nothing was done; a login that hangs occupies a thread of the agent until it ends",
                "check with `sqlplus / as sysdba` and in the alert log whether the instance accepts \
                 logins, then retry; restart the agent if old logins don't end",
            ),
            Self::Refused { .. } => (
                Code::LS2203,
                "this statement had no effect; earlier ones are in effect",
                "fix the cause that the ORA code names, then retry",
            ),
            Self::Driver { .. } => (
                Code::LS2204,
                "earlier statements are in effect",
                "compare the versions of Oracle and of the agent",
            ),
            Self::Dead { .. } => (
                Code::LS2205,
                "the statement may or may not have taken effect; an open transaction is rolled back",
                "check in the alert log whether the session was killed or the instance went down, \
                 then retry",
            ),
            Self::Broken { .. } => (
                Code::LS2206,
                "earlier statements are in effect; this one may be as well",
                "check in V$SESSION what it waited for, then retry",
            ),
        }
    }

    pub(super) fn of(error: &oracle::Error, statement: &str) -> Self {
        let statement = shown(statement);
        let ora = error.oci_code();
        match (ora, error.dpi_code()) {
            (_, Some(DPI_TIMEOUT)) | (Some(CANCELLED), _) => Self::Broken { statement },
            (_, Some(DPI_DEAD | DPI_NOT_CONNECTED)) => Self::Dead { statement },
            (Some(code), _) if SESSION_LOST.contains(&code) => Self::Dead { statement },
            (Some(ora), _) => Self::Refused {
                ora,
                line: first_line(error),
                statement,
            },
            (None, _) => Self::Driver {
                line: first_line(error),
                statement,
            },
        }
    }
}

impl From<OracleError> for ActionError {
    fn from(error: OracleError) -> Self {
        let (code, state_left, remedy) = error.parts();
        Self::new(code, error.to_string())
            .state_left(state_left)
            .remedy(remedy)
    }
}

/// First line of Oracle's message; for an error that the driver wraps, its code.
pub(super) fn first_line(error: &oracle::Error) -> String {
    if error.kind() == ErrorKind::DpiError {
        return match error.dpi_code() {
            Some(code) => format!("DPI-{code:04}"),
            None => "a driver error".to_owned(),
        };
    }
    let text = match error.db_error() {
        Some(db) => db.message().to_owned(),
        None => error.to_string(),
    };
    text.lines().next().unwrap_or_default().trim().to_owned()
}

pub(super) fn shown(statement: &str) -> String {
    let one_line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(MAX_STATEMENT) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_statements_are_shown_on_one_line_and_truncated() {
        assert_eq!(shown("SELECT\n   1"), "SELECT 1");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), MAX_STATEMENT + 1);
    }

    #[test]
    fn an_error_has_code_state_and_remedy() {
        let error = OracleError::Refused {
            ora: 942,
            line: "ORA-00942: table or view does not exist".into(),
            statement: "SELECT 1 FROM t".into(),
        };
        assert_eq!(error.ora(), Some(942));
        let report = ActionError::from(error).report();
        assert!(
            report.starts_with("LS2203: Oracle refused a statement with ORA-00942:"),
            "{report}"
        );
        assert!(report.ends_with("then retry"), "{report}");
    }
}
