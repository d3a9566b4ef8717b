//! `postgres.canary.write`: a row that must come back in Oracle.
//!
//! Each execution writes a row with a nonce of its own, so that a canary of
//! an earlier attempt can't prove this one. Undo removes all of the run's.

use super::Table;
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image,
    with_before_image,
};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::PostgresCanary;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

pub struct Write;

/// The column by which undo finds the rows.
#[derive(Debug, Serialize, Deserialize)]
struct BeforeImage {
    run: String,
}

#[async_trait]
impl Action for Write {
    type Params = PostgresCanary;

    fn required_permissions(&self, params: &PostgresCanary) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresCanary) -> Result<Probe, ActionError> {
        let table = Table::parse(&params.canary_table)?;
        let session = Session::open(cx, &params.resource).await?;
        // Fails with the table's name where it can't be read.
        session
            .rows(&format!("SELECT FROM {} LIMIT 1", table.sql()), &[])
            .await?;
        // Always pending, because later steps need the nonce.
        let run = cx.tag.run.clone();
        with_before_image(Finding::Pending, &BeforeImage { run })
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PostgresCanary,
    ) -> Result<Description, ActionError> {
        let table = Table::parse(&params.canary_table)?;
        let session = Session::open(cx, &params.resource).await?;
        // One by one: for a list of privileges, PostgreSQL returns whether any
        // is held.
        // Undo finds its rows by a column, so it needs SELECT as well.
        let sql = "SELECT p FROM unnest(ARRAY['INSERT', 'SELECT', 'DELETE']) AS p \
                   WHERE NOT has_table_privilege($1, p)";
        let rows = session.rows(sql, &[&table.sql()]).await?;
        let lacking: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let mut description = Description::of([format!("INSERT INTO {} a row", table.sql())]);
        if !lacking.is_empty() {
            description.obstacles.push(format!(
                "the agent's role lacks privileges on {table}: GRANT {} ON it",
                lacking.join(", ")
            ));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresCanary,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let table = Table::parse(&params.canary_table)?;
        let session = Session::open(cx, &params.resource).await?;
        let nonce = Uuid::new_v4().to_string();
        let sql = format!(
            "INSERT INTO {} (run_id, task_id, nonce, written_at) \
             VALUES ($1, $2, $3, (now() AT TIME ZONE 'UTC')::timestamp(0))",
            table.sql()
        );
        session
            .change(&sql, &[&cx.tag.run, &cx.tag.step, &nonce])
            .await?;
        cx.effect(format!("wrote the canary {nonce} to {table}"));
        Ok(Outputs::from([("nonce".to_owned(), json!(nonce))]))
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &PostgresCanary,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let BeforeImage { run } = decode_before_image(before_image)?;
        let table = Table::parse(&params.canary_table)?;
        let session = Session::open(cx, &params.resource).await?;
        let sql = format!("DELETE FROM {} WHERE run_id = $1", table.sql());
        Ok(match session.change(&sql, &[&run]).await? {
            0 => Undone::Unchanged,
            _ => Undone::Restored,
        })
    }
}
