//! `postgres.columns.verify`: the columns of the compared tables correspond to
//! Oracle's and can be compared, before anything is stopped.

use super::comparable::{self, Described};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::PostgresColumns;
use serde_json::Value;
use std::collections::BTreeMap;

pub struct Verify;

async fn verify(cx: &Context, params: &PostgresColumns) -> Result<(), ActionError> {
    let unusable = |what: &str| {
        ActionError::new(Code::LS2320, what)
            .state_left("nothing was changed")
            .remedy("give the output columns of oracle.columns.describe over the same tables")
    };
    let all: BTreeMap<String, Vec<Described>> = serde_json::from_value(params.expected.clone())
        .map_err(|e| unusable("expected is no output of oracle.columns.describe").source(e))?;
    let session = Session::open(cx, &params.resource).await?;
    let mut wrong = Vec::new();
    for compared in params.tables.iter().filter(|compared| compared.digest) {
        let described = all.get(&compared.oracle).ok_or_else(|| {
            unusable(&format!(
                "expected lacks the columns of {}",
                compared.oracle
            ))
        })?;
        wrong.extend(comparable::mismatches(&session, compared, described).await?);
    }
    comparable::judged(&wrong)
}

#[async_trait]
impl Action for Verify {
    type Params = PostgresColumns;

    fn required_permissions(&self, params: &PostgresColumns) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresColumns) -> Result<Probe, ActionError> {
        verify(cx, params).await?;
        // Columns may be altered until the work.
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        _params: &PostgresColumns,
    ) -> Result<Description, ActionError> {
        Ok(Description::of([
            "compare the columns of the compared tables with Oracle's",
        ]))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &PostgresColumns,
    ) -> Result<Description, ActionError> {
        let mut foreseen = self.describe(cx, params).await?;
        foreseen.remarks.push(
            "the types in Oracle are unknown here, so that pairs that can't be compared are found \
             when the run begins, before anything is stopped"
                .to_owned(),
        );
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresColumns,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        verify(cx, params).await?;
        Ok(Outputs::new())
    }
}
