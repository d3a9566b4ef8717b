//! Which columns of a compared table correspond to Oracle's, and which types can
//! be compared with the kind that Oracle's type has.

use super::column_types::{self, ColumnType};
use super::{Table, listed};
use crate::action::ActionError;
use crate::canonical::{Column, Kind};
use crate::host::postgres::Session;
use lockstep_api::Code;
use lockstep_plan::catalogue::ComparedTable;
use serde::Deserialize;

/// A column as Oracle describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Described {
    #[serde(flatten)]
    pub column: Column,
    /// `DATA_TYPE`, where Oracle's side gave it.
    #[serde(default, rename = "type")]
    pub data_type: Option<String>,
}

/// Whether values of the type have the same canonical text as Oracle's of that
/// kind. Others may be equal and still differ as text (`jsonb` is normalized,
/// `uuid` has hyphens), or have an offset that Oracle's type lacks.
fn can_be(column: &ColumnType, kind: Kind) -> bool {
    let text = ["text", "varchar", "bpchar", "citext", "xml", "json"];
    let number = ["int2", "int4", "int8", "numeric", "float4", "float8"];
    let base = column.base.as_str();
    match kind {
        // A number may be held as text.
        Kind::Number => base == "bool" || number.contains(&base) || text[..3].contains(&base),
        Kind::Float | Kind::Single => number.contains(&base),
        Kind::Text | Kind::Char => column.sort == "e" || text.contains(&base),
        Kind::Timestamp => ["timestamp", "date"].contains(&base),
        Kind::Instant => ["timestamptz", "timestamp", "date"].contains(&base),
        Kind::Bytes => base == "bytea",
    }
}

/// A sentence for each column that can't be compared.
pub async fn mismatches(
    session: &Session,
    compared: &ComparedTable,
    described: &[Described],
) -> Result<Vec<String>, ActionError> {
    let table = Table::parse(&compared.postgres)?;
    let ours = column_types::of(session, &[], &[table.to_string()]).await?;
    let mut wrong = Vec::new();
    for Described { column, data_type } in described {
        let theirs = data_type.as_deref().unwrap_or("a type");
        match ours.iter().find(|one| one.name == column.name) {
            None => wrong.push(format!(
                "{table} has no column {}, {} has one",
                column.name, compared.oracle
            )),
            Some(one) if !can_be(one, column.kind) => wrong.push(format!(
                "{}.{} is {}, which can't be compared with {theirs} in Oracle",
                table, column.name, one.shown
            )),
            Some(_) => {}
        }
    }
    let known = |one: &&ColumnType| {
        one.generated
            || compared.except.contains(&one.name)
            || described
                .iter()
                .any(|theirs| theirs.column.name == one.name)
    };
    wrong.extend(
        ours.iter()
            .filter(|one| !known(one))
            .map(|one| format!("{} has no column for {}", compared.oracle, one.place())),
    );
    Ok(wrong)
}

/// The mismatches of all tables as one error.
pub fn judged(wrong: &[String]) -> Result<(), ActionError> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(ActionError::new(
        Code::LS2339,
        format!("columns can't be compared: {}", listed(wrong)),
    )
    .state_left("nothing was changed")
    .remedy(
        "correct the columns, list those that are to be left out below except of their \
                 table in compare.tables, or have the table only counted (digest: false)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_compared_where_equal_values_have_equal_texts() {
        let column = |base: &str, sort: &str| ColumnType {
            table: Table::parse("shop.t").unwrap(),
            name: "c".to_owned(),
            shown: base.to_owned(),
            base: base.to_owned(),
            sort: sort.to_owned(),
            modifier: -1,
            generated: false,
        };
        for (base, kind, expected) in [
            ("numeric", Kind::Number, true),
            ("bool", Kind::Number, true),
            ("uuid", Kind::Bytes, false),
            ("bytea", Kind::Bytes, true),
            ("jsonb", Kind::Text, false),
            ("json", Kind::Text, true),
            ("timestamptz", Kind::Timestamp, false),
            ("timestamptz", Kind::Instant, true),
            ("int8", Kind::Text, false),
            ("_text", Kind::Text, false),
        ] {
            assert_eq!(
                can_be(&column(base, "b"), kind),
                expected,
                "{base} {kind:?}"
            );
        }
        assert!(can_be(&column("mood", "e"), Kind::Text));
    }
}
