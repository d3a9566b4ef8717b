//! The replication slot of the task back to Oracle.
//!
//! DMS creates one at the first start unless the endpoint names one. The name
//! is not documented; names observed contain the beginning of the task's
//! resource id. So a slot is taken for the task's by that, or because it is the
//! only new one since the task's start; where neither decides, nothing is
//! dropped and the candidates are reported. A slot left behind retains WAL
//! until the disk is full.
//!
//! Source: AWS DMS user guide, "Using a PostgreSQL database as a source"
//! (SlotName, PluginName); PostgreSQL documentation, pg_replication_slots.

use crate::action::ActionError;
use crate::host::dms::{Dms, Task};
use crate::host::postgres::Session;
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::time::Duration;

/// Characters of the task's resource id that must be in a slot's name.
const ID_IN_NAME: usize = 16;

/// Interval between two checks of a slot.
const POLL: Duration = Duration::from_millis(200);

/// State of each logical slot of this database, by name.
pub type Slots = BTreeMap<String, Use>;

/// Whether a slot is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Idle,
    /// A process holds it and doesn't read, as the creator of a slot does for a
    /// moment; `active` alone would not distinguish that from reading.
    Held,
    /// Changes stream from it.
    Read,
}

/// The logical slots of the session's database, as DMS makes them.
pub async fn all(session: &Session) -> Result<Slots, ActionError> {
    let sql = "SELECT slot_name::text, active, active AND EXISTS ( \
                 SELECT FROM pg_stat_replication r WHERE r.pid = s.active_pid \
                 AND coalesce(r.state, 'streaming') IN ('catchup', 'streaming')) \
               FROM pg_replication_slots s \
               WHERE slot_type = 'logical' AND database = current_database() \
               AND plugin IN ('test_decoding', 'pglogical_output')";
    let rows = session.rows(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let use_of_it = match (row.get(1), row.get(2)) {
                (_, true) => Use::Read,
                (true, false) => Use::Held,
                (false, false) => Use::Idle,
            };
            (row.get(0), use_of_it)
        })
        .collect())
}

/// How a task's slot is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The one that the endpoint names, created by the customer.
    named: Option<String>,
    /// The part of the name that DMS gives to one that it creates.
    part: String,
}

impl Known {
    /// Reads the task's source endpoint.
    pub async fn of(dms: &Dms, task: &Task) -> Result<Self, ActionError> {
        let endpoint = dms.endpoint(&task.source).await?;
        Ok(Self {
            named: endpoint.slot,
            ..Self::by_arn(&task.arn)
        })
    }

    /// Derived from the ARN alone.
    pub fn by_arn(arn: &str) -> Self {
        let id = arn.rsplit(':').next().unwrap_or(arn).to_ascii_lowercase();
        Self {
            named: None,
            part: id.chars().take(ID_IN_NAME).collect(),
        }
    }

    /// The task's slot among these. `before` are the slots that existed before
    /// its first start, if known: none of them is the task's.
    ///
    /// # Errors
    /// LS2425 where there are several candidates.
    pub fn choose(
        &self,
        slots: &Slots,
        before: Option<&[String]>,
    ) -> Result<Option<String>, ActionError> {
        if let Some(named) = &self.named {
            return Ok(slots.contains_key(named).then(|| named.clone()));
        }
        let new = |slot: &&String| before.is_none_or(|before| !before.contains(slot));
        let new: Vec<&String> = slots.keys().filter(new).collect();
        let by_name: Vec<&&String> = new.iter().filter(|s| s.contains(&self.part)).collect();
        match (by_name.as_slice(), new.as_slice()) {
            ([one], _) => Ok(Some((**one).clone())),
            ([], [one]) if before.is_some() => Ok(Some((*one).clone())),
            ([], []) => Ok(None),
            ([], _) if before.is_none() => Ok(None),
            _ => {
                let names: Vec<&str> = new.iter().map(|slot| slot.as_str()).collect();
                Err(ActionError::new(
                    Code::LS2425,
                    format!(
                        "the replication slot of the reverse task can't be identified among {}",
                        names.join(", ")
                    ),
                )
                .state_left("no slot was dropped")
                .remedy(
                    "see the task's log for its slot; drop it by hand after the task is deleted",
                ))
            }
        }
    }

    /// The customer created it, so an undo doesn't drop it.
    pub fn is_customers(&self) -> bool {
        self.named.is_some()
    }
}

/// Drops a slot once no process holds it; `false` where it doesn't exist. The
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
            Some(Use::Idle) => break,
            Some(_) if tokio::time::Instant::now() >= end => {
                return Err(ActionError::new(
                    Code::LS2422,
                    format!("the replication slot {slot} is still in use"),
                )
                .state_left("it is there, and PostgreSQL keeps WAL for it")
                .remedy("see pg_replication_slots.active_pid for who holds it, then retry"));
            }
            Some(_) => session.pause(POLL).await?,
        }
    }
    session
        .rows("SELECT pg_drop_replication_slot($1::text::name)", &[&slot])
        .await?;
    Ok(true)
}

/// Waits until the task's slot is active; returns its name.
pub async fn active(
    session: &Session,
    known: &Known,
    before: Option<&[String]>,
    limit: Duration,
) -> Result<String, ActionError> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        let slots = all(session).await?;
        let own = known.choose(&slots, before)?;
        if let Some(slot) = own
            .as_ref()
            .filter(|slot| slots.get(*slot) == Some(&Use::Read))
        {
            return Ok(slot.clone());
        }
        if tokio::time::Instant::now() >= end {
            let seen: Vec<&str> = slots.keys().map(String::as_str).collect();
            let what = match own {
                Some(slot) => format!("the slot {slot} of the reverse task is not read"),
                None => format!(
                    "the reverse task has no slot; there are: {}",
                    seen.join(", ")
                ),
            };
            return Err(ActionError::new(Code::LS2423, what)
                .state_left("the reverse task runs, but nothing shows that it reads")
                .remedy("see its log in the console and PostgreSQL's, then retry or roll back"));
        }
        session.pause(POLL).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(names: &[&str]) -> Slots {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Use::Read))
            .collect()
    }

    fn check(known: &Known, names: &[&str], before: Option<&[&str]>, chosen: Option<&str>) {
        let before: Option<Vec<String>> =
            before.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let found = known.choose(&slots(names), before.as_deref()).unwrap();
        assert_eq!(found.as_deref(), chosen, "{names:?}, {before:?}");
    }

    #[test]
    fn a_slot_is_known_by_name_or_because_it_is_new() {
        let made = Known {
            named: None,
            part: "t4y7lucisamgxiwy".to_owned(),
        };
        let own = "t4y7lucisamgxiwy_00016402_6a1b2c";
        check(&made, &[own, "backup"], Some(&["backup"]), Some(own));
        check(
            &made,
            &[own, "backup", "other"],
            Some(&["backup"]),
            Some(own),
        );
        check(&made, &[own, "backup"], None, Some(own));
        check(
            &made,
            &["odd_name", "backup"],
            Some(&["backup"]),
            Some("odd_name"),
        );
        check(&made, &["backup"], Some(&["backup"]), None);
        // Without the slots from before, no slot is chosen.
        check(&made, &["backup"], None, None);
        let unclear = made.choose(&slots(&["a", "b"]), Some(&[]));
        assert_eq!(unclear.unwrap_err().code(), Code::LS2425);
        let named = Known {
            named: Some("lockstep_reverse".to_owned()),
            part: String::new(),
        };
        let both = ["lockstep_reverse", "other"];
        check(&named, &both, Some(&both), Some("lockstep_reverse"));
        check(&named, &["other"], None, None);
    }
}
