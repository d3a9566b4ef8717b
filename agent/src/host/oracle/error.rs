//! What goes wrong between the agent and Oracle, told by code.
//!
//! A killed session and a call timeout come wrapped by the driver, so Oracle's
//! own code is hidden; the driver's code tells them.

use crate::error::ActionError;
use lockstep_api::Code;
use oracle::ErrorKind;
use std::path::PathBuf;

/// Characters of a statement shown in an error.
const SHOWN_STATEMENT: usize = 160;

/// ORA codes after which a session is gone: 28 killed, 1012 not logged on,
/// 1041 internal hostdef, 1089 shutdown, 3113, 3114, 3135 connection lost.
const GONE: [i32; 7] = [28, 1012, 1041, 1089, 3113, 3114, 3135];
/// `ORA-01013: user requested cancel of current operation`.
const CANCELLED: i32 = 1013;
/// ODPI-C: the connection is dead; it wraps the codes of [`GONE`].
const DPI_DEAD: i32 = 1080;
const DPI_NOT_CONNECTED: i32 = 1010;
/// ODPI-C: the call timeout has struck.
const DPI_TIMEOUT: i32 = 1067;

/// What went wrong in a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OracleError {
    /// The client library can't be used.
    #[error("LS2201: Oracle's client library can't be used from {home}: {line}")]
    Library {
        home: PathBuf,
        /// First line of the reason.
        line: String,
    },
    #[error("LS2202: no session with the Oracle instance {sid}: {line}")]
    Connect {
        sid: String,
        /// First line of the reason.
        line: String,
    },
    /// Oracle doesn't answer a login.
    #[error("LS2208: the login to the Oracle instance {sid} {line}")]
    Hung {
        sid: String,
        /// What became of it.
        line: String,
    },
    /// Oracle refuses a statement.
    #[error("LS2203: Oracle refuses a statement with {line}: {statement}")]
    Refused {
        /// The number of the ORA error.
        ora: i32,
        /// Its first line, `ORA-00942: table or view does not exist`.
        line: String,
        statement: String,
    },
    /// The driver refuses a call: a value is not of the expected type.
    #[error("LS2204: the answer to a statement can't be used ({line}): {statement}")]
    Driver {
        /// What the driver says.
        line: String,
        statement: String,
    },
    /// The session is gone; whether the statement took effect is open.
    #[error("LS2205: the session died during a statement: {statement}")]
    Dead { statement: String },
    /// The call took too long or the task was cancelled.
    #[error("LS2206: a statement was broken off, its time being up: {statement}")]
    Broken { statement: String },
}

impl OracleError {
    /// The number of the ORA error, where Oracle refused.
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
                "see that the agent runs with this home and may read its lib directory, or name \
                 client_library in agent.toml",
            ),
            Self::Connect { .. } => (
                Code::LS2202,
                "nothing was done",
                "see that the instance is open and that the agent's user is in the dba group",
            ),
            Self::Hung { .. } => (
                Code::LS2208,
                "nothing was done; a login that hangs keeps a thread of the agent until it ends",
                "see with `sqlplus / as sysdba` and in the alert log whether the instance answers \
                 anybody, then retry; restart the agent if old logins don't end",
            ),
            Self::Refused { .. } => (
                Code::LS2203,
                "this statement had no effect; what came before it stands",
                "mend what the ORA code says, then retry",
            ),
            Self::Driver { .. } => (
                Code::LS2204,
                "what came before stands",
                "compare the versions of Oracle and of the agent",
            ),
            Self::Dead { .. } => (
                Code::LS2205,
                "the statement may or may not have taken effect; an open transaction is rolled back",
                "see the alert log for who killed the session or whether the instance went down, \
                 then retry",
            ),
            Self::Broken { .. } => (
                Code::LS2206,
                "what came before the statement stands; the statement may have taken effect",
                "see in V$SESSION what it waited for, then retry",
            ),
        }
    }

    pub(super) fn of(error: &oracle::Error, statement: &str) -> Self {
        let statement = shown(statement);
        let ora = error.oci_code();
        match (ora, error.dpi_code()) {
            (_, Some(DPI_TIMEOUT)) | (Some(CANCELLED), _) => Self::Broken { statement },
            (_, Some(DPI_DEAD | DPI_NOT_CONNECTED)) => Self::Dead { statement },
            (Some(code), _) if GONE.contains(&code) => Self::Dead { statement },
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
        let (code, left, next) = error.parts();
        let text = error.to_string();
        let what = text.split_once(": ").map_or("", |(_, what)| what);
        Self::new(code, what).state_left(left).remedy(next)
    }
}

/// The first line of what Oracle says; of a wrapped error the code alone.
pub(super) fn first_line(error: &oracle::Error) -> String {
    if error.kind() == ErrorKind::DpiError {
        return match error.dpi_code() {
            Some(code) => format!("DPI-{code:04}"),
            None => "an error of the driver".to_owned(),
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
    match one_line.char_indices().nth(SHOWN_STATEMENT) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_statements_are_shown_on_one_line_and_cut() {
        assert_eq!(shown("SELECT\n   1"), "SELECT 1");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), SHOWN_STATEMENT + 1);
    }

    #[test]
    fn an_error_tells_code_state_and_remedy() {
        let error = OracleError::Refused {
            ora: 942,
            line: "ORA-00942: table or view does not exist".into(),
            statement: "SELECT 1 FROM t".into(),
        };
        assert_eq!(error.ora(), Some(942));
        let story = ActionError::from(error).report();
        assert!(
            story.starts_with("LS2203: Oracle refuses a statement with ORA-00942:"),
            "{story}"
        );
        assert!(story.ends_with("then retry"), "{story}");
    }
}
