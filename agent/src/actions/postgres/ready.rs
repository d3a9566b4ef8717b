//! `postgres.ready`: checks the prerequisites of a cutover in PostgreSQL.

use super::control::{self, Control};
use super::sequences::{self, Sequences};
use super::{Table, fallback, listed, missing_schemas};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::PostgresReady;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub struct Ready;

/// Columns of the marker table, which `oracle.finalize` writes and DMS
/// replicates.
const MARKER_COLUMNS: &[&str] = &["run_id", "task_id", "nonce", "scn"];

/// Columns of the canary table, which `postgres.canary.write` writes.
const CANARY_COLUMNS: &[&str] = &["run_id", "task_id", "nonce", "written_at"];

#[derive(Default)]
struct Survey {
    obstacles: Vec<String>,
    remarks: Vec<String>,
    apply_exceptions: i64,
    slots: Vec<String>,
    /// Tables of the schemas that the plan doesn't name.
    tables: Vec<String>,
}

impl Survey {
    async fn of(cx: &Context, params: &PostgresReady) -> Result<Self, ActionError> {
        let session = Session::anew(cx, &params.resource).await?;
        let mut survey = Self::default();
        survey
            .table(&session, &params.marker_table, MARKER_COLUMNS, "marker")
            .await?;
        survey.control_tables(&session, params).await?;
        survey.slots(&session).await?;
        if let Some(canary) = &params.canary_table {
            survey
                .table(&session, canary, CANARY_COLUMNS, "canary")
                .await?;
            survey.rollback_replication(&session).await?;
            survey.keys(&session, &params.schemas).await?;
            let task = params.reverse.clone().unwrap_or_default();
            let found = fallback::check(&session, &params.schemas, &task).await?;
            survey.obstacles.extend(found.obstacles);
            survey.remarks.extend(found.remarks);
        }
        survey.schemas(&session, &params.schemas).await?;
        survey.hidden_rows(&session, &params.schemas).await?;
        survey.other_tables(&session, params).await?;
        survey.sequences(&session, params).await?;
        Ok(survey)
    }

    async fn table(
        &mut self,
        session: &Session,
        name: &str,
        wanted: &[&str],
        purpose: &str,
    ) -> Result<(), ActionError> {
        let table = Table::parse(name)?;
        let sql = "SELECT a.attname::text FROM pg_attribute a \
                   JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
        let rows = session.rows(sql, &[&table.schema, &table.name]).await?;
        let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if columns.is_empty() {
            self.obstacles.push(format!(
                "the {purpose} table {name} doesn't exist; create it as the operator's guide says"
            ));
            return Ok(());
        }
        let missing: Vec<&str> = wanted
            .iter()
            .copied()
            .filter(|column| !columns.iter().any(|there| there == column))
            .collect();
        if !missing.is_empty() {
            self.obstacles.push(format!(
                "the {purpose} table {name} lacks the columns {}; create it as the operator's \
                 guide says",
                missing.join(", ")
            ));
        }
        Ok(())
    }

    async fn control_tables(
        &mut self,
        session: &Session,
        params: &PostgresReady,
    ) -> Result<(), ActionError> {
        let schema = &params.control_schema;
        match Control::find(session, schema, control::EXCEPTIONS).await? {
            Some(exceptions) => self.apply_exceptions = exceptions.count(session).await?,
            None => self.obstacles.push(format!(
                "{schema}.{} doesn't exist, so lost changes would go unseen; name the task's \
                 ControlSchema in the plan, or start the task once",
                control::EXCEPTIONS
            )),
        }
        let (suspended, tables) = control::found(session, schema, control::SUSPENDED).await?;
        if suspended > 0 {
            self.obstacles.push(format!(
                "DMS has suspended tables: {}; reload them and empty {schema}.{}",
                listed(&tables),
                control::SUSPENDED
            ));
        }
        let (differing, tables) = control::found(session, schema, control::VALIDATION).await?;
        if differing > 0 {
            self.obstacles.push(format!(
                "validation has found rows that differ: {}; repair them and empty {schema}.{}",
                listed(&tables),
                control::VALIDATION
            ));
        }
        if self.apply_exceptions > 0 {
            self.remarks.push(format!(
                "{} changes could not be applied so far (see {schema}.{}); further ones will \
                 stop the cutover",
                self.apply_exceptions,
                control::EXCEPTIONS
            ));
        }
        Ok(())
    }

    async fn slots(&mut self, session: &Session) -> Result<(), ActionError> {
        let sql = "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1";
        let rows = session.rows(sql, &[]).await?;
        self.slots = rows.iter().map(|row| row.get(0)).collect();
        Ok(())
    }

    /// Prerequisites of a task that reads from PostgreSQL (AWS DMS user guide,
    /// "Using a PostgreSQL database as a source").
    async fn rollback_replication(&mut self, session: &Session) -> Result<(), ActionError> {
        let sql = "SELECT current_setting('wal_level'), \
                   current_setting('max_replication_slots')::bigint, \
                   current_setting('max_wal_senders')::bigint, \
                   (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'), \
                   current_setting('max_slot_wal_keep_size', true), \
                   (SELECT count(*) FROM pg_replication_slots)";
        let row = session.row(sql, &[]).await?;
        let wal_level: String = row.get(0);
        if wal_level != "logical" {
            self.obstacles.push(format!(
                "wal_level is {wal_level}; the reverse task needs logical (on Amazon RDS: \
                 rds.logical_replication = 1), which takes a restart"
            ));
        }
        let (slots, senders): (i64, i64) = (row.get(1), row.get(2));
        let (sending, taken): (i64, i64) = (row.get(3), row.get(5));
        if taken >= slots {
            self.obstacles.push(format!(
                "all {slots} replication slots are taken ({}); drop one or raise \
                 max_replication_slots",
                listed(&self.slots)
            ));
        }
        if sending >= senders {
            self.obstacles.push(format!(
                "all {senders} WAL senders are busy; raise max_wal_senders"
            ));
        }
        let keep: Option<String> = row.get(4);
        if let Some(keep) = keep.filter(|keep| keep != "-1") {
            self.remarks.push(format!(
                "max_slot_wal_keep_size is {keep}: if the reverse task lags by more, its slot is lost"
            ));
        }
        Ok(())
    }

    /// Without the old key in the WAL, DMS loses updates and deletes silently. By default
    /// it is that of the primary key, if that isn't deferrable; `NOTHING`, and an index
    /// that was dropped, leave it out in spite of one (PostgreSQL, ALTER TABLE, `REPLICA
    /// IDENTITY`; `RelationGetIndexList` in utils/cache/relcache.c). A full replica
    /// identity carries the old row, so without a key it is only a remark.
    async fn keys(&mut self, session: &Session, schemas: &[String]) -> Result<(), ActionError> {
        let sql = "SELECT n.nspname || '.' || c.relname, c.relreplident = 'f' FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') \
                   AND NOT c.relispartition AND c.relpersistence = 'p' \
                   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid \
                     AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate \
                       WHEN 'i' THEN i.indisreplident WHEN 'f' THEN i.indisprimary END) \
                   ORDER BY 1";
        let rows = session.rows(sql, &[&schemas]).await?;
        let (full, lost): (Vec<_>, Vec<_>) = rows
            .iter()
            .map(|row| (row.get::<_, String>(0), row.get::<_, bool>(1)))
            .partition(|(_, full)| *full);
        let names = |tables: Vec<(String, bool)>| -> Vec<String> {
            tables.into_iter().map(|(name, _)| name).collect()
        };
        if !lost.is_empty() {
            self.obstacles.push(format!(
                "tables without a key in their replica identity lose updates and deletes in the \
                 reverse task: {}; give each a primary key that isn't DEFERRABLE, and REPLICA \
                 IDENTITY DEFAULT",
                listed(&names(lost))
            ));
        }
        if !full.is_empty() {
            self.remarks.push(format!(
                "tables without a primary key, with REPLICA IDENTITY FULL: {}; see that DMS \
                 brings their updates back",
                listed(&names(full))
            ));
        }
        Ok(())
    }

    async fn schemas(&mut self, session: &Session, schemas: &[String]) -> Result<(), ActionError> {
        for schema in missing_schemas(session, schemas).await? {
            self.obstacles.push(format!(
                "the schema {schema} doesn't exist in {}; correct the plan",
                session.server()
            ));
        }
        Ok(())
    }

    /// The tables that are counted on both sides although the plan doesn't name
    /// them, and must be readable for that. A partition is counted with its
    /// table.
    async fn other_tables(
        &mut self,
        session: &Session,
        params: &PostgresReady,
    ) -> Result<(), ActionError> {
        let sql = "SELECT n.nspname || '.' || c.relname, has_table_privilege(c.oid, 'SELECT') \
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = ANY($1) AND (n.nspname || '.' || c.relname) <> ALL ($2) \
                   AND c.relkind IN ('r', 'p') AND NOT c.relispartition \
                   AND c.relpersistence <> 't' ORDER BY 1";
        // These belong to the proof, not to the application.
        let mut named = params.compared.clone();
        named.push(params.marker_table.clone());
        named.extend(params.canary_table.clone());
        let rows = session.rows(sql, &[&params.schemas, &named]).await?;
        let others = rows
            .iter()
            .map(|row| (row.get::<_, String>(0), row.get::<_, bool>(1)))
            .filter(|(name, _)| !control::is_one(name));
        let (readable, unreadable): (Vec<_>, Vec<_>) = others.partition(|(_, readable)| *readable);
        let names = |tables: Vec<(String, bool)>| -> Vec<String> {
            tables.into_iter().map(|(name, _)| name).collect()
        };
        self.tables = names(readable);
        if !unreadable.is_empty() {
            self.obstacles.push(format!(
                "the agent's role may not count {}: GRANT pg_read_all_data to it, or SELECT on each",
                listed(&names(unreadable))
            ));
        }
        if !self.tables.is_empty() {
            self.remarks.push(format!(
                "counted on both sides, though compare.tables doesn't name them: {}; name those \
                 that DMS doesn't carry below compare.except",
                listed(&self.tables)
            ));
        }
        Ok(())
    }

    /// Counts, digests and greatest values would lack the rows that a policy hides.
    async fn hidden_rows(
        &mut self,
        session: &Session,
        schemas: &[String],
    ) -> Result<(), ActionError> {
        let sql = "SELECT n.nspname || '.' || c.relname FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') \
                   AND row_security_active(c.oid) ORDER BY 1";
        let rows = session.rows(sql, &[&schemas]).await?;
        let hidden: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if !hidden.is_empty() {
            self.obstacles.push(format!(
                "row-level security hides rows of {} from the agent's role, so they can't be \
                 compared: GRANT it the role that owns them (without FORCE ROW LEVEL SECURITY), \
                 or ALTER ROLE … BYPASSRLS",
                listed(&hidden)
            ));
        }
        Ok(())
    }

    async fn sequences(
        &mut self,
        session: &Session,
        params: &PostgresReady,
    ) -> Result<(), ActionError> {
        let mut named = BTreeSet::new();
        for place in &params.sequences {
            match sequences::find(session, place).await {
                Ok(sequence) => {
                    named.insert(sequence);
                }
                Err(e) => self.obstacles.push(e.report()),
            }
        }
        let all = Sequences::of(session, &params.schemas).await?;
        let unnamed: Vec<String> = all
            .feeds
            .iter()
            .filter(|feed| feed.plain && !named.contains(&feed.sequence))
            .map(|feed| format!("{} of {}", feed.sequence, feed.place()))
            .collect();
        if !unnamed.is_empty() {
            self.remarks.push(format!(
                "sequences that the plan doesn't name are set past the values of their columns: \
                 {}; name those below postgres.sequences of which Oracle's may have given out more",
                listed(&unnamed)
            ));
        }
        let left_alone = all.left_alone(&named);
        if !left_alone.is_empty() {
            self.remarks.push(format!(
                "sequences that nobody sets, for no column holds their values: {}; ALTER SEQUENCE … \
                 OWNED BY the column that they number, or set them by hand before PostgreSQL opens",
                listed(&left_alone)
            ));
        }
        if !all.barred.is_empty() {
            self.obstacles.push(format!(
                "the agent's role may not set {}: GRANT it the role that owns them, or SELECT, \
                 UPDATE on each",
                listed(&all.barred)
            ));
        }
        Ok(())
    }

    /// The obstacles as an error.
    fn passed(self, resource: &str) -> Result<Self, ActionError> {
        if self.obstacles.is_empty() {
            return Ok(self);
        }
        Err(ActionError::new(
            Code::LS2310,
            format!(
                "PostgreSQL {resource} is not ready: {}",
                self.obstacles.join("; ")
            ),
        )
        .state_left("nothing was changed")
        .remedy("fix all of them, then retry"))
    }
}

#[async_trait]
impl Action for Ready {
    type Params = PostgresReady;

    fn required_permissions(&self, params: &PostgresReady) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresReady) -> Result<Probe, ActionError> {
        Survey::of(cx, params).await?.passed(&params.resource)?;
        // Always pending, because later steps need its outputs.
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PostgresReady,
    ) -> Result<Description, ActionError> {
        let survey = Survey::of(cx, params).await?;
        Ok(Description {
            would_do: vec![
                "query settings, slots, keys, tables, sequences, marker and control tables"
                    .to_owned(),
            ],
            obstacles: survey.obstacles,
            remarks: survey.remarks,
            ..Description::default()
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresReady,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let survey = Survey::of(cx, params).await?.passed(&params.resource)?;
        for remark in &survey.remarks {
            cx.note(remark.clone());
        }
        Ok(Outputs::from([
            (
                "apply_exceptions".to_owned(),
                json!(survey.apply_exceptions),
            ),
            ("slots".to_owned(), json!(survey.slots)),
            ("tables".to_owned(), json!(survey.tables)),
        ]))
    }
}
