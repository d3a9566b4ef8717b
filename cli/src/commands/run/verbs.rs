//! The verbs by which an operator controls a run.

use crate::commands::run::watch::{Patience, follow};
use crate::coordinator::{Coordinator, ObservedOutcome, Verb, VerbRequest};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view;
use lockstep_api::Exit;

/// Which run, and what to do after the verb.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The run.
    pub run: String,
    /// Only if the run's journal has no entry after this sequence.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "SEQUENCE"
    )]
    if_sequence: u64,
    /// Watch the run afterwards and exit with its exit code.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Target {
    /// Sends the verb and shows the run's status after it.
    ///
    /// # Errors
    /// The coordinator refuses, or doesn't answer.
    pub async fn send(
        &self,
        coordinator: &Coordinator,
        verb: Verb,
        reason: Option<String>,
        format: Format,
    ) -> Result<Exit, Failure> {
        let run = match self.run.as_str() {
            // The verb must not act on a run that is started meanwhile.
            super::LATEST => coordinator.run(&self.run).await?.id,
            id => id.to_owned(),
        };
        let request = VerbRequest {
            run,
            if_sequence: self.if_sequence,
            reason,
        };
        let run = coordinator.send(request, verb).await?;
        if self.watch {
            return follow(coordinator, &run.id, &self.patience, format).await;
        }
        match format {
            Format::Table => output::text(&view::run::head(&run))?,
            Format::Json | Format::Jsonl => output::value(format, &run)?,
        }
        Ok(Exit::Done)
    }
}

/// Defines a verb that takes nothing but a reason.
macro_rules! plain_verb {
    ($name:ident, $kind:ty) => {
        #[doc = concat!("`lockstep run ", stringify!($name), "`.")]
        #[derive(Debug, clap::Args)]
        pub struct $name {
            #[command(flatten)]
            target: Target,
            /// Why; recorded in the journal.
            #[arg(long)]
            reason: $kind,
        }

        impl $name {
            pub async fn carry_out(
                self,
                coordinator: &Coordinator,
                format: Format,
            ) -> Result<Exit, Failure> {
                self.target
                    .send(coordinator, Verb::$name, self.reason.into(), format)
                    .await
            }
        }
    };
}

plain_verb!(Pause, Option<String>);
plain_verb!(Resume, Option<String>);
plain_verb!(Retry, Option<String>);
plain_verb!(Rollback, Option<String>);
// These leave something undone, so the journal must say why.
plain_verb!(Skip, String);
plain_verb!(Abort, String);

/// Which task of a run.
#[derive(Debug, clap::Args)]
pub struct TaskOfRun {
    /// The agent.
    #[arg(long)]
    agent: String,
    /// The step.
    #[arg(long)]
    step: String,
    /// Why; recorded in the journal.
    #[arg(long)]
    reason: String,
}

/// `lockstep run waive`.
#[derive(Debug, clap::Args)]
pub struct Waive {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    task: TaskOfRun,
}

impl Waive {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let verb = Verb::Waive {
            agent: self.task.agent,
            step: self.task.step,
        };
        self.target
            .send(coordinator, verb, Some(self.task.reason), format)
            .await
    }
}

/// `lockstep run resolve`.
#[derive(Debug, clap::Args)]
pub struct Resolve {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    task: TaskOfRun,
    /// The outcome, as observed on the host.
    #[arg(long = "as", value_name = "OUTCOME")]
    outcome: ObservedOutcome,
}

impl Resolve {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let verb = Verb::Resolve {
            agent: self.task.agent,
            step: self.task.step,
            outcome: self.outcome,
        };
        self.target
            .send(coordinator, verb, Some(self.task.reason), format)
            .await
    }
}
