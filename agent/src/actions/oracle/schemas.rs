//! Whether the schemas that a plan names exist.
//!
//! The dictionary has no rows for a name that is misspelt, so an action would find
//! nothing to do and report that its state is reached.

use super::fence;
use crate::action::ActionError;
use crate::host::oracle::Session;
use lockstep_api::Code;

/// Checks that each is a user of the database.
///
/// # Errors
/// LS2217 with those that are not.
pub async fn require<'a>(
    session: &Session,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), ActionError> {
    let users = fence::accounts(session).await?;
    let missing: Vec<&str> = names
        .into_iter()
        .filter(|name| !users.contains_key(*name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("there is no user {} in the database", missing.join(", "));
    Err(ActionError::new(Code::LS2217, what)
        .state_left("nothing was changed")
        .remedy("correct the name in the plan, in the spelling of DBA_USERS (usually upper case)"))
}
