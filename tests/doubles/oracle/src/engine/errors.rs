//! Oracle's errors as the engine raises them, and the engine's control flow.
//!
//! Texts are those of Oracle's error messages reference, release 19c.

use super::txn::TxnId;
use crate::api::OraError;

/// Why a statement stopped short of its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// An error for the client.
    Ora(OraError),
    /// A row is locked by that transaction: wait for its end and start over.
    Blocked(TxnId),
}

impl From<OraError> for Stop {
    fn from(error: OraError) -> Self {
        Self::Ora(error)
    }
}

/// What everything inside the engine gives back.
pub type Outcome<T> = Result<T, Stop>;

/// Shorthand for an error that ends the statement.
pub fn stop<T>(code: u32, message: impl Into<String>) -> Outcome<T> {
    Err(ora(code, message).into())
}

/// Shorthand for an error value.
pub fn ora(code: u32, message: impl Into<String>) -> OraError {
    OraError::new(code, message)
}

/// What the engine does not do: said plainly, never passed over in silence.
pub fn unsupported(what: impl std::fmt::Display) -> OraError {
    ora(3001, format!("unimplemented feature: {what}"))
}

/// ORA-00942.
pub fn no_table() -> OraError {
    ora(942, "table or view does not exist")
}

/// ORA-00904 with the name as Oracle quotes it.
pub fn no_column(name: &str) -> OraError {
    ora(904, format!("{name}: invalid identifier"))
}

/// ORA-01031.
pub fn no_privilege() -> OraError {
    ora(1031, "insufficient privileges")
}
