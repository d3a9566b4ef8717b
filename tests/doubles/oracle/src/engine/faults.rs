//! Faults that the range puts in: a statement answered by an error.

use super::errors::ora;
use super::state::State;
use crate::api::OraError;
use serde::Deserialize;

/// A statement that contains a text fails so many times.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Text looked for in the statement, without regard to case.
    pub statement_contains: String,
    pub ora_code: u32,
    /// How often; 0 is for ever.
    #[serde(default)]
    pub times: u32,
    /// The error's text, where the usual one is not wanted.
    #[serde(default)]
    pub message: Option<String>,
}

impl State {
    /// The error of the first fault that a statement meets.
    pub fn fault_at(&mut self, sql: &str) -> Result<(), OraError> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let upper = sql.to_uppercase();
        let hit = self
            .faults
            .iter()
            .position(|fault| upper.contains(&fault.statement_contains.to_uppercase()));
        let Some(at) = hit else {
            return Ok(());
        };
        let fault = &mut self.faults[at];
        let message = fault
            .message
            .clone()
            .unwrap_or_else(|| "fault injected by the range".to_owned());
        let error = ora(fault.ora_code, message);
        if fault.times == 1 {
            self.faults.remove(at);
        } else if fault.times > 1 {
            fault.times -= 1;
        }
        Err(error)
    }
}
