//! `lockstep run`: starting, watching and controlling runs.

mod approve;
mod confirm;
mod events;
mod list;
mod show;
mod start;
mod verbs;
mod watch;

use crate::config::Connection;
use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::Format;
use clap::Subcommand;
use lockstep_api::Exit;

/// Commands about runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a run of a plan.
    Start(start::Start),
    #[command(flatten)]
    ConnectedCommand(ConnectedCommand),
}

/// Commands that connect to the coordinator before anything else.
#[derive(Debug, Subcommand)]
pub enum ConnectedCommand {
    /// List runs, newest first.
    List(list::List),
    /// Show the status of a run.
    Show(show::Show),
    /// Watch a run until it ends or waits for an operator.
    Watch(watch::Watch),
    /// Print the journal of a run.
    Events(events::Events),
    /// Approve a phase at its approval gate.
    Approve(approve::Approve),
    /// Pause the run: no further phase is released until it is resumed.
    Pause(verbs::Pause),
    /// Resume a paused run, or open a hold gate.
    Resume(verbs::Resume),
    /// Retry the failed tasks of the held phase.
    Retry(verbs::Retry),
    /// Skip the held phase.
    Skip(verbs::Skip),
    /// Roll the run back.
    Rollback(verbs::Rollback),
    /// Abort the run without undoing its changes.
    Abort(verbs::Abort),
    /// Stop waiting for a lost task; its undo becomes outstanding.
    Waive(verbs::Waive),
    /// Record the outcome of a task whose outcome is unknown.
    Resolve(verbs::Resolve),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The coordinator is unreachable or refuses the request.
    pub async fn execute(self, connection: &Connection, format: Format) -> Result<Exit, Failure> {
        match self {
            // The plan is checked before the coordinator is contacted.
            Self::Start(command) => command.execute(connection, format).await,
            Self::ConnectedCommand(command) => {
                let coordinator = Coordinator::connect(connection).await?;
                command.execute(&coordinator, format).await
            }
        }
    }
}

impl ConnectedCommand {
    async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        match self {
            Self::List(command) => command.execute(coordinator, format).await,
            Self::Show(command) => command.execute(coordinator, format).await,
            Self::Watch(command) => command.execute(coordinator, format).await,
            Self::Events(command) => command.execute(coordinator, format).await,
            Self::Approve(command) => command.execute(coordinator, format).await,
            Self::Pause(command) => command.execute(coordinator, format).await,
            Self::Resume(command) => command.execute(coordinator, format).await,
            Self::Retry(command) => command.execute(coordinator, format).await,
            Self::Skip(command) => command.execute(coordinator, format).await,
            Self::Rollback(command) => command.execute(coordinator, format).await,
            Self::Abort(command) => command.execute(coordinator, format).await,
            Self::Waive(command) => command.execute(coordinator, format).await,
            Self::Resolve(command) => command.execute(coordinator, format).await,
        }
    }
}

/// Stands for the newest run that has not ended or, if all have, for the newest run.
pub const LATEST: &str = "latest";
