//! The replication slot of the task back to Oracle.
//!
//! DMS makes one at the first start unless the endpoint names one, and calls
//! it after the task. A slot left behind keeps WAL until the disk is full.
//!
//! Source: AWS DMS user guide, "Using a PostgreSQL database as a source"
//! (SlotName); PostgreSQL documentation, pg_replication_slots.

use crate::action::ActionError;
use crate::host::dms::{Dms, Task};
use crate::host::postgres::Session;
use std::collections::BTreeMap;
use std::time::Duration;

/// DMS cuts the task's resource id to this many characters in a slot's name.
const ID_IN_NAME: usize = 16;

/// Between two looks at a slot.
const POLL: Duration = Duration::from_millis(200);

/// Whether each logical slot of this database is active, by name.
pub type Slots = BTreeMap<String, bool>;

/// The logical slots of the session's database.
pub async fn all(session: &Session) -> Result<Slots, ActionError> {
    let sql = "SELECT slot_name::text, active FROM pg_replication_slots \
               WHERE slot_type = 'logical' AND database = current_database()";
    let rows = session.rows(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// By what a task's slot is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The endpoint's own, made by the customer.
    named: Option<String>,
    /// What DMS puts into the name of one that it makes.
    part: String,
}

impl Known {
    /// Asks the task's source endpoint.
    pub async fn of(dms: &Dms, task: &Task) -> Result<Self, ActionError> {
        let endpoint = dms.endpoint(&task.source).await?;
        let id = task.resource_id().to_ascii_lowercase();
        Ok(Self {
            named: endpoint.slot,
            part: id.chars().take(ID_IN_NAME).collect(),
        })
    }

    /// Whether a slot is the task's. `before` are the slots that were there
    /// before its first start: none of them was made by it.
    pub fn is(&self, slot: &str, before: &[String]) -> bool {
        match &self.named {
            Some(named) => slot == named,
            None => !before.iter().any(|old| old == slot) && slot.contains(&self.part),
        }
    }

    /// The customer made it, so it is not ours to drop.
    pub fn is_customers(&self) -> bool {
        self.named.is_some()
    }
}

/// Drops a slot once nobody holds it; `false` where it isn't there. The
/// process that held it ends a moment after its task has stopped.
pub async fn drop_slot(
    session: &Session,
    slot: &str,
    limit: Duration,
) -> Result<bool, ActionError> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        match all(session).await?.get(slot) {
            None => return Ok(false),
            Some(false) => break,
            Some(true) if tokio::time::Instant::now() >= end => {
                return Err(ActionError::new(
                    "LS2422",
                    format!("the replication slot {slot} is still in use"),
                )
                .left("it is there, and PostgreSQL keeps WAL for it")
                .next("see pg_replication_slots.active_pid for who holds it, then retry"));
            }
            Some(true) => session.pause(POLL).await?,
        }
    }
    session
        .rows("SELECT pg_drop_replication_slot($1::text::name)", &[&slot])
        .await?;
    Ok(true)
}

/// Waits until the task's slot is active; its name.
pub async fn active(
    session: &Session,
    known: &Known,
    before: &[String],
    limit: Duration,
) -> Result<String, ActionError> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        let slots = all(session).await?;
        let own = slots.iter().find(|(slot, _)| known.is(slot, before));
        if let Some((slot, true)) = own {
            return Ok(slot.clone());
        }
        if tokio::time::Instant::now() >= end {
            let seen: Vec<&str> = slots.keys().map(String::as_str).collect();
            let what = match own {
                Some((slot, _)) => format!("the slot {slot} of the reverse task is not active"),
                None => format!(
                    "the reverse task has no slot; there are: {}",
                    seen.join(", ")
                ),
            };
            return Err(ActionError::new("LS2423", what)
                .left("the reverse task runs, but nothing shows that it reads")
                .next("see its log in the console and PostgreSQL's, then retry or roll back"));
        }
        session.pause(POLL).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_known_by_name_or_by_the_task_in_it() {
        let made = Known {
            named: None,
            part: "t4y7lucisamgxiwy".to_owned(),
        };
        let before = vec!["old_t4y7lucisamgxiwy".to_owned()];
        assert!(made.is("t4y7lucisamgxiwy_00016402_6a1b2c", &before));
        assert!(!made.is("old_t4y7lucisamgxiwy", &before));
        assert!(!made.is("backup", &before));
        let named = Known {
            named: Some("lockstep_reverse".to_owned()),
            part: String::new(),
        };
        assert!(named.is("lockstep_reverse", &["lockstep_reverse".to_owned()]));
        assert!(!named.is("t4y7lucisamgxiwy", &[]));
    }
}
