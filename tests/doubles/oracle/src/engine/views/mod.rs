//! The dictionary and the dynamic performance views.
//!
//! Each is made from the state when it is read. They hold the columns that a
//! cutover and its tools read, not all that Oracle has; an unknown column is
//! ORA-00904, an unknown view ORA-00942.

mod database;
mod dictionary;
mod instance;
mod redo;
mod scheduler;

use super::datum::{Datum, Row};
use super::errors::Outcome;
use super::exec::{ColRef, Exec, Relation};
use super::from::Known;
use super::privileges;
use super::sessions::{Life, SessionKey, SessionState};
use super::state::State;
use crate::api::Kind;
use std::sync::Arc;

/// A view's columns and rows while it is made.
struct View {
    cols: &'static [(&'static str, Kind)],
    rows: Vec<Vec<Datum>>,
}

/// VARCHAR2 of that width, for column lists.
const fn v(width: u32) -> Kind {
    Kind::Varchar2(width)
}
/// NUMBER, for column lists.
const N: Kind = super::kinds::NUMBER;
/// DATE, for column lists.
const D: Kind = Kind::Date;
/// TIMESTAMP(6), for column lists.
const T: Kind = Kind::Timestamp(6);
/// RAW(8), for column lists: addresses and transaction ids.
const R: Kind = Kind::Raw(8);

const DUAL: &[(&str, Kind)] = &[("DUMMY", v(1))];

/// Opens a view; `None` where there is none of that name or the session may
/// not see it.
pub fn open(
    exec: &mut Exec<'_>,
    owner: Option<&str>,
    name: &str,
    known: &[&Known],
) -> Outcome<Option<Relation>> {
    if owner.is_some_and(|owner| owner != "SYS" && owner != "PUBLIC") {
        return Ok(None);
    }
    let name = canonical(name);
    let public = matches!(name.as_str(), "DUAL" | "SESSION_PRIVS" | "SESSION_ROLES")
        || ["ALL_", "USER_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    // Only SYS sees the X$ tables, and nobody can be granted them (ORA-02030).
    let fixed = name.starts_with("X$");
    let allowed = if fixed {
        exec.user() == "SYS"
    } else {
        public || privileges::may_see_view(exec.st, exec.key, &name)
    };
    if !allowed {
        return Ok(None);
    }
    let Some(view) = make(exec.st, exec.key, &name, known)? else {
        return Ok(None);
    };
    let cols = view
        .cols
        .iter()
        .map(|(name, kind)| ColRef {
            qualifier: None,
            name: (*name).into(),
            kind: *kind,
            nullable: true,
        })
        .collect();
    let rows: Vec<Row> = view.rows.into_iter().map(Arc::new).collect();
    Ok(Some(Relation { cols, rows }))
}

/// `V_$SESSION` is the real name behind `V$SESSION`.
fn canonical(name: &str) -> String {
    name.replacen("V_$", "V$", 1)
}

fn make(st: &mut State, key: SessionKey, name: &str, known: &[&Known]) -> Outcome<Option<View>> {
    if name == "DUAL" {
        let rows = vec![vec![Datum::text("X")]];
        return Ok(Some(View { cols: DUAL, rows }));
    }
    // V$ shows the own instance, GV$ all of them.
    let (fixed, instances) = match (name.strip_prefix("GV$"), name.strip_prefix("V$")) {
        (Some(rest), _) => (Some(rest), 1..=st.instances.len() as u32),
        (None, Some(rest)) => (Some(rest), key.inst..=key.inst),
        (None, None) => (None, key.inst..=key.inst),
    };
    let view = match fixed {
        Some(rest) => {
            let view = instance::make(st, rest, instances);
            match view {
                Some(view) => Some(view),
                None => match database::make(st, rest) {
                    Some(view) => Some(view),
                    None => redo::make(st, rest, known)?,
                },
            }
        }
        None if name.starts_with("X$") => database::fixed_table(st, name),
        None => match scheduler::make(st, key, name) {
            Some(view) => Some(view),
            None => dictionary::make(st, key, name),
        },
    };
    Ok(view)
}

pub fn session_status(session: &SessionState) -> &'static str {
    match session.life {
        Life::Killed => "KILLED",
        Life::Alive if session.in_call || session.is_background() => "ACTIVE",
        Life::Alive => "INACTIVE",
    }
}
