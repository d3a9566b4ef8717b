//! PostgreSQL: its roles, triggers, sequences, jobs and statistics, and the
//! proofs that replication has brought everything.

pub mod analyze;
pub mod canary_write;
mod column_types;
pub mod columns_verify;
mod comparable;
mod control;
pub mod drain_check;
mod fallback;
pub mod jobs;
pub mod marker_await;
pub mod ready;
mod role_limits;
pub mod roles;
pub mod rows_verify;
mod schedulers;
mod schema_checks;
mod sequence_column;
mod sequences;
pub mod sequences_align;
pub mod triggers;

use crate::action::ActionError;
use crate::host::postgres::{Session, quoted};
use lockstep_api::Code;

/// A table by its schema and name, case-sensitive as in pg_class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Table {
    schema: String,
    name: String,
}

impl Table {
    /// Parses `schema.table`.
    fn parse(text: &str) -> Result<Self, ActionError> {
        match text.split_once('.') {
            Some((schema, name)) if !schema.is_empty() && !name.is_empty() => Ok(Self {
                schema: schema.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(ActionError::new(
                Code::LS2307,
                format!("{text:?} is not of the form schema.table"),
            )
            .state_left("nothing was done")
            .remedy("correct it in the plan")),
        }
    }

    fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Checks that these schemas exist: a query for objects of a schema that is misspelt
/// finds none, and there would seem to be nothing to do.
///
/// # Errors
/// LS2340 with those that don't.
async fn require_schemas(session: &Session, schemas: &[String]) -> Result<(), ActionError> {
    let missing = missing_schemas(session, schemas).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!(
        "there is no schema {} in {}",
        listed(&missing),
        session.server()
    );
    Err(ActionError::new(Code::LS2340, what)
        .state_left("nothing was changed")
        .remedy(
            "correct the name in the plan, in the spelling of pg_namespace (usually lower case)",
        ))
}

async fn missing_schemas(
    session: &Session,
    schemas: &[String],
) -> Result<Vec<String>, ActionError> {
    let sql = "SELECT wanted FROM unnest($1::text[]) AS wanted \
               WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = wanted)";
    let rows = session.rows(sql, &[&schemas]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Names in one sentence at most.
const NAMES_SHOWN: usize = 20;

/// Names for a sentence; a long list is truncated, with the number left out.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(AsRef::as_ref).collect();
    let rest = names.len().saturating_sub(NAMES_SHOWN);
    if rest == 0 {
        shown.join(", ")
    } else {
        format!("{} and {rest} more", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_quoted_as_they_are_spelt() {
        assert_eq!(
            Table::parse("shop.Orders").unwrap().sql(),
            "\"shop\".\"Orders\""
        );
        assert!(Table::parse("orders").is_err());
        assert!(Table::parse(".orders").is_err());
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..25).map(|n| format!("t{n}")).collect();
        assert!(listed(&names).ends_with("t19 and 5 more"));
    }
}
