//! `postgres.analyze`: statistics for the planner. Collecting them changes no
//! data, so there is nothing to undo.

use super::{Table, listed};
use crate::action::{Action, ActionError, Context, Description, Outputs, found, satisfied_if};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::PostgresAnalyze;
use serde_json::Value;

pub struct Analyze;

/// A table and whether its statistics are missing: never collected (before
/// PostgreSQL 14 that shows as no pages), or none of a column although it was
/// seen to hold rows (an empty table never has any).
async fn tables(
    session: &Session,
    params: &PostgresAnalyze,
) -> Result<Vec<(Table, bool)>, ActionError> {
    let sql = "SELECT n.nspname::text, c.relname::text, \
               c.reltuples < 0 \
               OR (c.reltuples = 0 AND c.relpages = 0 AND pg_relation_size(c.oid) > 0) \
               OR (c.reltuples > 0 AND NOT EXISTS (SELECT FROM pg_stats s \
                 WHERE s.schemaname = n.nspname AND s.tablename = c.relname)) \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'm') ORDER BY 1, 2";
    let rows = session.rows(sql, &[&params.schemas]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let table = Table {
                schema: row.get(0),
                name: row.get(1),
            };
            (table, row.get(2))
        })
        .collect())
}

fn wanted(tables: Vec<(Table, bool)>, params: &PostgresAnalyze) -> Vec<Table> {
    tables
        .into_iter()
        .filter(|(_, missing)| *missing || !params.missing_only)
        .map(|(table, _)| table)
        .collect()
}

#[async_trait]
impl Action for Analyze {
    type Params = PostgresAnalyze;

    fn required_permissions(&self, params: &PostgresAnalyze) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresAnalyze) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let wanted = wanted(tables(&session, params).await?, params);
        Ok(found(satisfied_if(wanted.is_empty())))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PostgresAnalyze,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let wanted = wanted(tables(&session, params).await?, params);
        Ok(Description::of(
            wanted
                .iter()
                .map(|table| format!("ANALYZE {}", table.sql())),
        ))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresAnalyze,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        session.without_limit().await?;
        let wanted = wanted(tables(&session, params).await?, params);
        for table in &wanted {
            session.run(&format!("ANALYZE {}", table.sql())).await?;
            cx.effect(format!("ANALYZE {table}"));
        }
        // PostgreSQL skips tables that the role may not analyze, with only a
        // warning.
        let skipped: Vec<String> = tables(&session, params)
            .await?
            .into_iter()
            .filter(|(table, missing)| *missing && wanted.contains(table))
            .map(|(table, _)| table.to_string())
            .collect();
        if skipped.is_empty() {
            return Ok(Outputs::new());
        }
        Err(ActionError::new(
            Code::LS2324,
            format!("PostgreSQL collected no statistics of {}", listed(&skipped)),
        )
        .state_left("the other tables have theirs")
        .remedy("let the agent's role own these tables, or analyze them by hand, then retry"))
    }
}
