//! `lockstep run list`.

use crate::coordinator::Coordinator;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::status::Run;
use crate::view;
use lockstep_proto::v1::ListRunsRequest;

/// Lists runs.
#[derive(Debug, clap::Args)]
pub struct List {
    /// How many at most.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

impl List {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let request = ListRunsRequest { limit: self.limit };
        let answer = coordinator
            .call(request, async |mut client, request| {
                client.list_runs(request).await
            })
            .await?;
        let runs: Vec<Run> = answer.runs.into_iter().map(Run::from).collect();
        match format {
            Format::Table => output::text(&view::run::list(&runs))?,
            Format::Json | Format::Jsonl => output::values(format, &runs)?,
        }
        Ok(Exit::Done)
    }
}
