//! `lockstep run`: starting runs, looking at them, deciding about them.

mod approve;
mod events;
mod list;
mod show;
mod start;
mod verbs;
mod watch;

use crate::config::Connection;
use crate::coordinator::Coordinator;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Format;
use crate::status::Run;
use clap::Subcommand;
use lockstep_proto::v1::GetRunRequest;

/// What to do about runs. RUN is a run's id, or `latest`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a run of a plan.
    Start(start::Start),
    #[command(flatten)]
    Asking(Asking),
}

/// What begins with a question to the coordinator.
#[derive(Debug, Subcommand)]
pub enum Asking {
    /// List runs, newest first.
    List(list::List),
    /// Show how a run stands.
    Show(show::Show),
    /// Watch a run until it ends or waits for an operator.
    Watch(watch::Watch),
    /// Print a run's journal.
    Events(events::Events),
    /// Open an approval gate of exactly this plan.
    Approve(approve::Approve),
    /// Release nothing more until resumed.
    Pause(verbs::Pause),
    /// End a pause or a hold.
    Resume(verbs::Resume),
    /// Run again what failed in the phase that holds.
    Retry(verbs::Retry),
    /// Pass over the phase that holds.
    Skip(verbs::Skip),
    /// Roll the run back.
    Rollback(verbs::Rollback),
    /// End the run as it stands; what is still changed stays changed.
    Abort(verbs::Abort),
    /// Stop waiting for a lost task; its agent owes the undo.
    Waive(verbs::Waive),
    /// Say how a task whose outcome is unknown has ended.
    Resolve(verbs::Resolve),
}

impl Command {
    /// Carries out the command.
    ///
    /// # Errors
    /// The coordinator can't be asked, or refuses.
    pub async fn carry_out(self, connection: &Connection, format: Format) -> Result<Exit, Failure> {
        match self {
            // A plan is checked before anybody is asked.
            Self::Start(command) => command.carry_out(connection, format).await,
            Self::Asking(command) => {
                let coordinator = Coordinator::connect(connection).await?;
                command.carry_out(&coordinator, format).await
            }
        }
    }
}

impl Asking {
    async fn carry_out(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        match self {
            Self::List(command) => command.carry_out(coordinator, format).await,
            Self::Show(command) => command.carry_out(coordinator, format).await,
            Self::Watch(command) => command.carry_out(coordinator, format).await,
            Self::Events(command) => command.carry_out(coordinator, format).await,
            Self::Approve(command) => command.carry_out(coordinator, format).await,
            Self::Pause(command) => command.carry_out(coordinator, format).await,
            Self::Resume(command) => command.carry_out(coordinator, format).await,
            Self::Retry(command) => command.carry_out(coordinator, format).await,
            Self::Skip(command) => command.carry_out(coordinator, format).await,
            Self::Rollback(command) => command.carry_out(coordinator, format).await,
            Self::Abort(command) => command.carry_out(coordinator, format).await,
            Self::Waive(command) => command.carry_out(coordinator, format).await,
            Self::Resolve(command) => command.carry_out(coordinator, format).await,
        }
    }
}

/// The name that stands for the newest run.
const LATEST: &str = "latest";

/// A run's id as the wire has it: empty for the newest.
fn wire_id(run: &str) -> String {
    if run == LATEST {
        String::new()
    } else {
        run.to_owned()
    }
}

async fn get(coordinator: &Coordinator, run: &str) -> Result<Run, Failure> {
    let request = GetRunRequest {
        run_id: wire_id(run),
    };
    let answer = coordinator
        .call(request, async |mut client, request| {
            client.get_run(request).await
        })
        .await?;
    Ok(answer.run.unwrap_or_default().into())
}
