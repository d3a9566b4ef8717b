//! SQL for PostgreSQL, from changes. Pure.
//!
//! Values travel as text literals, which PostgreSQL converts to the column's type
//! as it does for literals that a person writes.

use super::change::{Change, Operation, Row, TableName, quote_name};
use super::mapping::TableMapping;
use std::collections::BTreeSet;

/// What must be known of a target table.
#[derive(Debug, Clone, Default)]
pub struct TargetTable {
    /// Columns of the primary key; empty when there is none.
    pub key: Vec<String>,
    /// Columns of type `bytea`; Oracle gives raw values as bare hexadecimal digits.
    pub binary: BTreeSet<String>,
}

/// A change in the target's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    pub target: TableName,
    pub operation: Operation,
    pub before: Row,
    pub after: Row,
}

/// A change in the target's names.
#[must_use]
pub fn map_change(mapping: &TableMapping, change: &Change) -> Mapped {
    let rename = |row: &Row| {
        row.iter()
            .map(|(column, value)| (mapping.column(&change.table, column), value.clone()))
            .collect()
    };
    Mapped {
        target: mapping.target(&change.table),
        operation: change.operation,
        before: rename(&change.before),
        after: rename(&change.after),
    }
}

/// A text literal for `standard_conforming_strings = on`.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl TargetTable {
    fn value(&self, column: &str, value: Option<&String>) -> String {
        match value {
            None => "NULL".into(),
            Some(hex) if self.binary.contains(column) => literal(&format!("\\x{hex}")),
            Some(text) => literal(text),
        }
    }

    fn condition(&self, mapped: &Mapped) -> String {
        let equal = |column: &String, value: Option<&String>| match value {
            None => format!("{} IS NULL", quote_name(column)),
            Some(_) => format!("{} = {}", quote_name(column), self.value(column, value)),
        };
        let conditions: Vec<_> = if self.key.is_empty() {
            mapped
                .before
                .iter()
                .map(|(c, v)| equal(c, v.as_ref()))
                .collect()
        } else {
            self.key
                .iter()
                .map(|column| {
                    let value = mapped
                        .before
                        .get(column)
                        .or_else(|| mapped.after.get(column));
                    equal(column, value.and_then(Option::as_ref))
                })
                .collect()
        };
        conditions.join(" AND ")
    }

    /// The statement that applies a change, or nothing for an update that leaves
    /// every value as it was.
    #[must_use]
    pub fn statement(&self, mapped: &Mapped) -> Option<String> {
        let table = mapped.target.quoted();
        match mapped.operation {
            Operation::Insert => {
                Some(self.insert(&mapped.target, std::slice::from_ref(&mapped.after)))
            }
            Operation::Delete => Some(format!(
                "DELETE FROM {table} WHERE {}",
                self.condition(mapped)
            )),
            Operation::Update => {
                let changed: Vec<_> = mapped
                    .after
                    .iter()
                    .filter(|(column, value)| mapped.before.get(*column) != Some(*value))
                    .map(|(column, value)| {
                        format!(
                            "{} = {}",
                            quote_name(column),
                            self.value(column, value.as_ref())
                        )
                    })
                    .collect();
                (!changed.is_empty()).then(|| {
                    format!(
                        "UPDATE {table} SET {} WHERE {}",
                        changed.join(", "),
                        self.condition(mapped)
                    )
                })
            }
        }
    }

    /// One INSERT for rows that have the same columns.
    #[must_use]
    pub fn insert(&self, target: &TableName, rows: &[Row]) -> String {
        let columns: Vec<_> = rows
            .first()
            .into_iter()
            .flat_map(|row| row.keys())
            .collect();
        let names: Vec<_> = columns.iter().map(|c| quote_name(c)).collect();
        let values: Vec<_> = rows
            .iter()
            .map(|row| {
                let values: Vec<_> = columns
                    .iter()
                    .map(|c| self.value(c, row.get(*c).and_then(Option::as_ref)))
                    .collect();
                format!("({})", values.join(", "))
            })
            .collect();
        format!(
            "INSERT INTO {} ({}) VALUES {}",
            target.quoted(),
            names.join(", "),
            values.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[(&str, Option<&str>)]) -> Row {
        values
            .iter()
            .map(|(c, v)| ((*c).to_owned(), v.map(str::to_owned)))
            .collect()
    }

    fn mapped(operation: Operation, before: Row, after: Row) -> Mapped {
        Mapped {
            target: TableName::new("shop", "orders"),
            operation,
            before,
            after,
        }
    }

    fn keyed() -> TargetTable {
        TargetTable {
            key: vec!["id".into()],
            binary: BTreeSet::from(["digest".to_owned()]),
        }
    }

    #[test]
    fn values_are_quoted_and_raw_becomes_bytea() {
        let after = row(&[
            ("digest", Some("00FF")),
            ("id", Some("1")),
            ("note", Some("it's")),
            ("x", None),
        ]);
        assert_eq!(
            keyed()
                .statement(&mapped(Operation::Insert, Row::new(), after))
                .unwrap(),
            r#"INSERT INTO "shop"."orders" ("digest", "id", "note", "x") VALUES ('\x00FF', '1', 'it''s', NULL)"#
        );
    }

    #[test]
    fn an_update_sets_what_changed_by_the_old_key() {
        let before = row(&[("id", Some("1")), ("note", Some("a")), ("x", None)]);
        let after = row(&[("id", Some("2")), ("note", Some("b")), ("x", None)]);
        let update = mapped(Operation::Update, before.clone(), after);
        assert_eq!(
            keyed().statement(&update).unwrap(),
            r#"UPDATE "shop"."orders" SET "id" = '2', "note" = 'b' WHERE "id" = '1'"#
        );
        let same = mapped(Operation::Update, before.clone(), before);
        assert_eq!(keyed().statement(&same), None);
    }

    #[test]
    fn without_a_key_the_whole_row_is_compared() {
        let before = row(&[("note", Some("a")), ("x", None)]);
        assert_eq!(
            TargetTable::default()
                .statement(&mapped(Operation::Delete, before, Row::new()))
                .unwrap(),
            r#"DELETE FROM "shop"."orders" WHERE "note" = 'a' AND "x" IS NULL"#
        );
    }
}
