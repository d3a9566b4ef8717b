//! `postgres.analyze`: statistics for the planner. Collecting them changes no
//! data, so there is nothing to undo.

use super::{Table, listed, require_schemas};
use crate::action::{Action, ActionError, Context, Description, Outputs, found, satisfied_if};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::PostgresAnalyze;
use serde_json::Value;

pub struct Analyze;

/// A table of the schemas.
struct Found {
    table: Table,
    /// Its statistics are missing.
    missing: bool,
    /// PostgreSQL lets the agent's role analyze it.
    permitted: bool,
}

/// Statistics are missing if they were never collected (before PostgreSQL 14 that
/// shows as no pages), or if there are none of a column although the table was seen to
/// hold rows (an empty table never has any). The owners of the table and of the
/// database may collect them, from PostgreSQL 17 on also who has MAINTAIN (PostgreSQL,
/// ANALYZE).
const TABLES: &str = "SELECT n.nspname::text, c.relname::text, \
      c.reltuples < 0 \
      OR (c.reltuples = 0 AND c.relpages = 0 AND pg_relation_size(c.oid) > 0) \
      OR (c.reltuples > 0 AND NOT EXISTS (SELECT FROM pg_stats s \
        WHERE s.schemaname = n.nspname AND s.tablename = c.relname)), \
      pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE') \
      OR CASE WHEN current_setting('server_version_num')::int >= 170000 \
        THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_database d ON d.datname = current_database() \
    WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'm') ORDER BY 1, 2";

async fn tables(session: &Session, params: &PostgresAnalyze) -> Result<Vec<Found>, ActionError> {
    require_schemas(session, &params.schemas).await?;
    let rows = session.rows(TABLES, &[&params.schemas]).await?;
    Ok(rows
        .iter()
        .map(|row| Found {
            table: Table {
                schema: row.get(0),
                name: row.get(1),
            },
            missing: row.get(2),
            permitted: row.get(3),
        })
        .collect())
}

/// The tables to analyze, and those that PostgreSQL would skip with only a warning.
async fn wanted(
    session: &Session,
    params: &PostgresAnalyze,
) -> Result<(Vec<Found>, Vec<Found>), ActionError> {
    let all = tables(session, params).await?.into_iter();
    let wanted = all.filter(|found| found.missing || !params.missing_only);
    Ok(wanted.partition(|found| found.permitted))
}

fn names(all: &[Found], missing: bool) -> Vec<String> {
    let meant = all.iter().filter(|found| found.missing == missing);
    meant.map(|found| found.table.to_string()).collect()
}

const REMEDY: &str = "let the agent's role own these tables, or analyze them by hand, then retry";

#[async_trait]
impl Action for Analyze {
    type Params = PostgresAnalyze;

    fn required_permissions(&self, params: &PostgresAnalyze) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresAnalyze) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let (wanted, barred) = wanted(&session, params).await?;
        let so = wanted.is_empty() && names(&barred, true).is_empty();
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PostgresAnalyze,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let (wanted, barred) = wanted(&session, params).await?;
        let statements = wanted
            .iter()
            .map(|found| format!("ANALYZE {}", found.table.sql()));
        let mut description = Description::of(statements);
        let (lacking, others) = (names(&barred, true), names(&barred, false));
        if !lacking.is_empty() {
            description.obstacles.push(format!(
                "the agent's role may not analyze {}, which has no statistics; {REMEDY}",
                listed(&lacking)
            ));
        }
        if !others.is_empty() {
            description.remarks.push(format!(
                "the agent's role may not analyze {}: the statistics stay as they are",
                listed(&others)
            ));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresAnalyze,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        session.without_limit().await?;
        let (wanted, _) = wanted(&session, params).await?;
        for Found { table, .. } in &wanted {
            session.run(&format!("ANALYZE {}", table.sql())).await?;
            cx.effect(format!("ANALYZE {table}"));
        }
        let lacking = names(&tables(&session, params).await?, true);
        if lacking.is_empty() {
            return Ok(Outputs::new());
        }
        Err(ActionError::new(
            Code::LS2324,
            format!("PostgreSQL collected no statistics of {}", listed(&lacking)),
        )
        .state_left("the other tables have theirs")
        .remedy(REMEDY))
    }
}
