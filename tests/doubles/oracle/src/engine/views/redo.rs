//! V$LOGMNR_CONTENTS: the redo of committed transactions.
//!
//! Unlike LogMiner's, the view needs no session started with DBMS_LOGMNR, has
//! all logs in it, and gives whole rows as JSON in place of SQL_REDO:
//! `{"before": {COLUMN: text or null}, "after": {…}}`.

use super::super::datum::{Datum, Row};
use super::super::errors::Outcome;
use super::super::exec::same;
use super::super::from::Known;
use super::super::state::State;
use super::super::storage::Table;
use super::{D, N, R, View, v};
use crate::api::Kind;
use serde_json::{Map, Value as Json};
use sqlparser::ast::BinaryOperator;

const LOGMNR: &[(&str, Kind)] = &[
    ("SCN", N),
    ("COMMIT_SCN", N),
    ("XID", R),
    ("SEQ", N),
    ("OPERATION", v(32)),
    ("SEG_OWNER", v(128)),
    ("TABLE_NAME", v(128)),
    ("ROW_DATA", v(32767)),
    ("COMMIT_TIMESTAMP", D),
    ("USERNAME", v(128)),
];

/// The view of that name without `V$`.
pub fn make(st: &State, name: &str, known: &[&Known]) -> Outcome<Option<View>> {
    if name != "LOGMNR_CONTENTS" {
        return Ok(None);
    }
    // The replicator asks again and again for what is new: start there.
    let mut after = 0_u64;
    for known in known.iter().filter(|known| {
        let name = sqlparser::ast::Ident::new("COMMIT_SCN");
        same(&known.column, &name.value) && !known.value.is_null()
    }) {
        let scn = u64::try_from(known.value.integer()?).unwrap_or(0);
        match known.op {
            BinaryOperator::Gt => after = after.max(scn),
            BinaryOperator::GtEq | BinaryOperator::Eq => after = after.max(scn.saturating_sub(1)),
            _ => {}
        }
    }
    let mut rows = Vec::new();
    for transaction in st.transactions.redo_after(after) {
        let xid = hex::decode(transaction.id.xid()).unwrap_or_default();
        for (at, change) in transaction.changes.iter().enumerate() {
            let table = &st.tables[change.table];
            let operation = match (&change.before, &change.after) {
                (None, _) => "INSERT",
                (Some(_), Some(_)) => "UPDATE",
                (Some(_), None) => "DELETE",
            };
            let committed = transaction.at;
            rows.push(vec![
                Datum::int(change.scn),
                Datum::int(transaction.commit_scn),
                Datum::Raw(xid.clone()),
                Datum::int(at as i64 + 1),
                Datum::text(operation),
                Datum::text(table.owner.as_str()),
                Datum::text(table.name.as_str()),
                Datum::text(row_data(
                    table,
                    change.before.as_ref(),
                    change.after.as_ref(),
                )),
                Datum::Date(
                    committed
                        .with()
                        .subsec_nanosecond(0)
                        .build()
                        .unwrap_or(committed),
                ),
                Datum::text(transaction.user.as_str()),
            ]);
        }
    }
    Ok(Some(View { cols: LOGMNR, rows }))
}

fn row_data(table: &Table, before: Option<&Row>, after: Option<&Row>) -> String {
    let image = |row: &Row| {
        let columns = table.columns.iter().zip(row.iter());
        let map: Map<String, Json> = columns
            .map(|(column, value)| {
                let text = value.canonical().map_or(Json::Null, Json::String);
                (column.name.clone(), text)
            })
            .collect();
        Json::Object(map)
    };
    let mut out = Map::new();
    if let Some(row) = before {
        out.insert("before".to_owned(), image(row));
    }
    if let Some(row) = after {
        out.insert("after".to_owned(), image(row));
    }
    Json::Object(out).to_string()
}
