//! The health of a task, from the statistics of its tables.
//!
//! Source of the states: AWS DMS user guide, "Table state during tasks" and
//! "Data validation".

use crate::action::ActionError;
use crate::host::dms::{Dms, Task};
use aws_sdk_databasemigration::types::TableStatistics;
use lockstep_api::Code;

/// Tables named in one sentence at most.
const MAX_LISTED: usize = 20;

/// A task and its tables.
#[derive(Debug, Default)]
pub struct Health {
    /// Why its data can't be trusted, a sentence each.
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
    /// Rows that validation has still to compare.
    pub validating: i64,
}

impl Health {
    /// Reads the statistics of a task's tables.
    pub async fn of(dms: &Dms, task: &Task) -> Result<Self, ActionError> {
        Ok(Self::judge(
            &task.migration_type,
            &dms.statistics(&task.arn).await?,
        ))
    }

    /// `Before load` means that a load is due. A task that only before-images
    /// changes never loads, and its tables may stay in that state while changes
    /// are applied, so there the state is ignored.
    fn judge(migration_type: &str, tables: &[TableStatistics]) -> Self {
        let loads = migration_type != "cdc";
        let mut health = Self::default();
        if tables.is_empty() {
            health
                .obstacles
                .push("DMS lists no table of it yet".to_owned());
        }
        let state = |table: &TableStatistics| table.table_state().unwrap_or_default().to_owned();
        let validation =
            |table: &TableStatistics| table.validation_state().unwrap_or_default().to_owned();
        health.obstacle(tables, "given up by DMS", |table| {
            matches!(
                state(table).as_str(),
                "Table error" | "Table cancelled" | "Table does not exist"
            ) || state(table).to_lowercase().contains("suspended")
        });
        health.obstacle(tables, "not loaded yet", |table| {
            match state(table).as_str() {
                "Before load" => loads,
                "Full load" | "Table is being reloaded" => true,
                _ => false,
            }
        });
        health.obstacle(tables, "not loaded without errors", |table| {
            table.full_load_error_rows() > 0
        });
        health.obstacle(tables, "found different by validation", |table| {
            table.validation_failed_records() > 0
                || table.validation_suspended_records() > 0
                || matches!(
                    validation(table).as_str(),
                    "Mismatched records" | "Suspended records" | "Table error" | "Error"
                )
        });
        let keyless = named(tables, |table| validation(table) == "No primary key");
        if !keyless.is_empty() {
            health.remarks.push(format!(
                "validation can't compare tables without a key: {keyless}"
            ));
        }
        health.validating = tables
            .iter()
            .map(TableStatistics::validation_pending_records)
            .sum();
        health
    }

    fn obstacle(
        &mut self,
        tables: &[TableStatistics],
        what: &str,
        is: impl Fn(&TableStatistics) -> bool,
    ) {
        let names = named(tables, is);
        if !names.is_empty() {
            self.obstacles.push(format!("tables {what}: {names}"));
        }
    }

    /// The obstacles as an error.
    pub fn passed(self, task: &Task) -> Result<Self, ActionError> {
        if self.obstacles.is_empty() {
            return Ok(self);
        }
        Err(ActionError::new(
            Code::LS2415,
            format!(
                "the task {} is not healthy: {}",
                task.identifier,
                self.obstacles.join("; ")
            ),
        )
        .state_left("nothing was changed by this step")
        .remedy("see its log in the console, reload or repair these tables, then retry"))
    }
}

/// `schema.table` of each table for which the condition holds.
pub fn named(tables: &[TableStatistics], is: impl Fn(&TableStatistics) -> bool) -> String {
    let names: Vec<String> = tables
        .iter()
        .filter(|table| is(table))
        .map(full_name)
        .collect();
    let rest = names.len().saturating_sub(MAX_LISTED);
    let shown = names[..names.len() - rest].join(", ");
    if rest == 0 {
        shown
    } else {
        format!("{shown} and {rest} more")
    }
}

/// `schema.table`, as the source spells it.
pub fn full_name(table: &TableStatistics) -> String {
    format!(
        "{}.{}",
        table.schema_name().unwrap_or_default(),
        table.table_name().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(state: &str, validation: &str, pending: i64) -> TableStatistics {
        TableStatistics::builder()
            .schema_name("SHOP")
            .table_name("ORDERS")
            .table_state(state)
            .validation_state(validation)
            .validation_pending_records(pending)
            .build()
    }

    #[test]
    fn states_are_judged() {
        let (both, cdc) = ("full-load-and-cdc", "cdc");
        for (kind, state, validation, obstacles) in [
            (both, "Table completed", "Not enabled", 0),
            (both, "Table completed", "Validated", 0),
            (both, "Table completed", "Pending records", 0),
            (both, "Table completed", "Mismatched records", 1),
            (both, "Table error", "Not enabled", 1),
            (both, "Full load", "Not enabled", 1),
            (both, "Before load", "Not enabled", 1),
            (both, "Table is being reloaded", "Not enabled", 1),
            (cdc, "Before load", "Not enabled", 0),
            (cdc, "Before load", "Mismatched records", 1),
            (cdc, "Table completed", "Not enabled", 0),
            (cdc, "Table error", "Not enabled", 1),
            (cdc, "Table does not exist", "Not enabled", 1),
            (cdc, "Full load", "Not enabled", 1),
        ] {
            let health = Health::judge(kind, &[table(state, validation, 0)]);
            let found = health.obstacles.len();
            assert_eq!(found, obstacles, "{kind}, {state}, {validation}");
        }
    }

    #[test]
    fn pending_records_are_summed() {
        let tables = [
            table("Table completed", "Pending records", 3),
            table("Table completed", "Pending records", 4),
        ];
        assert_eq!(Health::judge("cdc", &tables).validating, 7);
    }
}
