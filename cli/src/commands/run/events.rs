//! `lockstep run events`.

use crate::coordinator::Coordinator;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::status::Event;
use crate::view;
use lockstep_proto::v1::ListRunEventsRequest;

/// Prints a run's journal.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// The run.
    #[arg(default_value = super::LATEST)]
    run: String,
    /// Only entries after this sequence.
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
    after: u64,
}

impl Events {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let request = ListRunEventsRequest {
            run_id: super::wire_id(&self.run),
            after_sequence: self.after,
        };
        let answer = coordinator
            .call(request, async |mut client, request| {
                client.list_run_events(request).await
            })
            .await?;
        let events: Vec<Event> = answer.events.into_iter().map(Event::from).collect();
        match format {
            Format::Table => output::text(&view::run::events(&events))?,
            Format::Json | Format::Jsonl => output::values(format, &events)?,
        }
        Ok(Exit::Done)
    }
}
