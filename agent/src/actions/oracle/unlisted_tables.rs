//! The tables that the plan doesn't name and that exist on both sides.

use super::names::Qualified;
use super::{rows, schemas};
use crate::action::{ActionError, Context};
use crate::host::oracle::Session;
use lockstep_api::Code;
use lockstep_plan::catalogue::{ComparedTable, OracleRows};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Tables that store rows permanently and for themselves (Oracle Database
/// Reference, ALL_TABLES).
pub const TABLES: &str = "SELECT TABLE_NAME FROM DBA_TABLES WHERE OWNER = :1 AND TEMPORARY = 'N' \
     AND NESTED = 'NO' AND SECONDARY = 'N' AND DROPPED = 'NO' ORDER BY TABLE_NAME";

/// Maximum number of names in one sentence.
const NAMES_SHOWN: usize = 20;

/// Interval between two progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The tables to be counted in addition to those that the plan names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// The table in Oracle, and its `schema.table` in PostgreSQL.
    pairs: Vec<(Qualified, String)>,
    /// One sentence for each reason why tables are not counted.
    remarks: Vec<String>,
}

impl Others {
    /// Finds PostgreSQL's tables (`counted`) among Oracle's tables by owner
    /// (`there`).
    fn of(
        params: &OracleRows,
        counted: &[String],
        mut there: BTreeMap<&str, BTreeSet<String>>,
    ) -> Self {
        let named = |compared: &ComparedTable| Qualified::read(&compared.oracle).ok();
        for table in params.tables.iter().filter_map(named) {
            take(&mut there, &table);
        }
        let mut others = Self::default();
        let (mut missing, mut several) = (Vec::new(), Vec::new());
        for postgres in counted {
            let mut found = partners(params, postgres, &there);
            match (found.pop(), found.is_empty()) {
                (Some(oracle), true) => others.pairs.push((oracle, postgres.clone())),
                (Some(_), false) => several.push(postgres.clone()),
                (None, _) => missing.push(postgres.clone()),
            }
        }
        for (oracle, _) in &others.pairs {
            take(&mut there, oracle);
        }
        // Without Oracle's internal tables: logs, queues, overflow segments.
        let rest = there.iter().flat_map(|(owner, tables)| {
            let own = tables.iter().filter(|name| !internal(name));
            own.map(move |name| format!("{owner}.{name}"))
        });
        for (why, which) in [
            ("Oracle has no table of that name", missing),
            ("several owners in Oracle have one", several),
            (
                "PostgreSQL has no table of that name, or the plan leaves it out",
                rest.collect(),
            ),
        ] {
            if !which.is_empty() {
                let which = shown(&which);
                others.remarks.push(format!("not counted, {why}: {which}"));
            }
        }
        others
    }

    pub async fn find(session: &Session, params: &OracleRows) -> Result<Self, ActionError> {
        if params.counted.is_null() {
            return Ok(Self::default());
        }
        let counted = counted(params)?;
        let mut there = BTreeMap::new();
        let owners = params.schemas.iter().map(|mapped| mapped.oracle.as_str());
        schemas::require(session, owners).await?;
        for mapped in &params.schemas {
            let owner = mapped.oracle.as_str();
            let tables: Vec<String> = session.rows(TABLES, &[owner.into()]).await?;
            there.insert(owner, tables.into_iter().collect());
        }
        Ok(Self::of(params, &counted, there))
    }

    /// Adds their row counts to `tables`.
    pub async fn count(
        &self,
        cx: &Context,
        session: &Session,
        scn: i64,
        tables: &mut Map<String, Value>,
    ) -> Result<(), ActionError> {
        for remark in &self.remarks {
            cx.note(remark.clone());
        }
        let mut last_reported = Instant::now();
        for (done, (oracle, postgres)) in self.pairs.iter().enumerate() {
            if last_reported.elapsed() >= PROGRESS_INTERVAL {
                cx.note(format!(
                    "{done} of {} further tables counted",
                    self.pairs.len()
                ));
                last_reported = Instant::now();
            }
            let rows = rows::count(session, oracle, scn).await?;
            tables.insert(
                format!("{}.{}", oracle.owner, oracle.name),
                json!({"rows": rows, "postgres": postgres}),
            );
        }
        if !self.pairs.is_empty() {
            cx.note(format!("{} further tables counted", self.pairs.len()));
        }
        Ok(())
    }
}

/// The names joined; a long list is truncated and says so.
pub fn shown(names: &[String]) -> String {
    match names.get(NAMES_SHOWN..) {
        Some(rest) if !rest.is_empty() => {
            let shown = names.get(..NAMES_SHOWN).unwrap_or_default().join(", ");
            format!("{shown} and {} more", rest.len())
        }
        _ => names.join(", "),
    }
}

fn take(there: &mut BTreeMap<&str, BTreeSet<String>>, table: &Qualified) {
    if let Some(tables) = there.get_mut(table.owner.as_str()) {
        tables.remove(&table.name);
    }
}

/// PostgreSQL's tables, as `postgres.ready` has listed them.
pub fn counted(params: &OracleRows) -> Result<Vec<String>, ActionError> {
    if params.counted.is_null() {
        return Ok(Vec::new());
    }
    serde_json::from_value(params.counted.clone()).map_err(|e| {
        ActionError::new(Code::LS2274, "counted is no list of tables")
            .state_left("nothing was compared")
            .remedy("give the output tables of postgres.ready")
            .source(e)
    })
}

/// The tables in Oracle that may correspond to PostgreSQL's `schema.table`.
fn partners(
    params: &OracleRows,
    postgres: &str,
    there: &BTreeMap<&str, BTreeSet<String>>,
) -> Vec<Qualified> {
    let Some((schema, table)) = postgres.split_once('.') else {
        return Vec::new();
    };
    let upper = table.to_uppercase();
    let mapped = params.schemas.iter().filter(|one| one.postgres == schema);
    mapped
        .filter_map(|one| {
            let tables = there.get(one.oracle.as_str())?;
            let name = tables.get(&upper).or_else(|| tables.get(table))?;
            Some(Qualified {
                owner: one.oracle.clone(),
                name: name.clone(),
            })
        })
        .collect()
}

/// Whether Oracle uses the table for itself.
pub fn internal(name: &str) -> bool {
    name.contains('$') || name.starts_with("SYS_IOT_OVER_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params_of(value: Value) -> OracleRows {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_table_that_both_sides_have_is_counted_under_either_spelling() {
        let params = params_of(json!({
            "resource": "orcl", "scn": "1", "counted": [],
            "schemas": [{"oracle": "SHOP", "postgres": "shop"}, {"oracle": "HR", "postgres": "shop"}],
            "tables": [{"oracle": "SHOP.ODD", "postgres": "shop.strange"}],
        }));
        let set = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|&name| name.to_owned()).collect()
        };
        let there = BTreeMap::from([
            (
                "SHOP",
                set(&["LINES", "Mixed", "ODD", "BOTH", "OLD", "MLOG$_LINES"]),
            ),
            ("HR", set(&["BOTH"])),
        ]);
        let counted: Vec<String> = ["lines", "Mixed", "odd", "both", "fresh"]
            .map(|name| format!("shop.{name}"))
            .into();
        let others = Others::of(&params, &counted, there);
        let pairs: Vec<(String, &str)> = others
            .pairs
            .iter()
            .map(|(oracle, postgres)| (oracle.sql(), postgres.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("\"SHOP\".\"LINES\"".to_owned(), "shop.lines"),
                ("\"SHOP\".\"Mixed\"".to_owned(), "shop.Mixed"),
            ]
        );
        assert_eq!(
            others.remarks,
            [
                "not counted, Oracle has no table of that name: shop.odd, shop.fresh",
                "not counted, several owners in Oracle have one: shop.both",
                "not counted, PostgreSQL has no table of that name, or the plan leaves it out: \
                 HR.BOTH, SHOP.BOTH, SHOP.OLD",
            ]
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..25).map(|n| format!("t{n}")).collect();
        assert!(shown(&names).ends_with("t19 and 5 more"));
        assert!(shown(&names[..20]).ends_with("t18, t19"));
    }

    #[test]
    fn what_is_no_list_of_tables_is_refused() {
        let params = params_of(json!({"resource": "orcl", "scn": "1", "tables": [], "counted": 5}));
        assert_eq!(counted(&params).unwrap_err().code(), Code::LS2274);
    }
}
