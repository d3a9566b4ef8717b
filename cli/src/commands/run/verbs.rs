//! The verbs with which an operator controls a run.

use crate::commands::run::confirm::{self, Confirmation};
use crate::commands::run::watch::{WatchOptions, follow};
use crate::coordinator::{Coordinator, ObservedOutcome, Verb, VerbRequest};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view;
use lockstep_api::{Exit, RunStatus};

/// The run that a verb applies to, and what to do after the verb.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Id of the run, or latest.
    pub run: String,
    /// Refuse unless the run's journal ends at this sequence number or before.
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
    options: WatchOptions,
}

impl Target {
    /// Has the operator confirm a verb, unless `--yes` was given. The verb then applies
    /// to the run in the state that was shown, and to no later one.
    ///
    /// # Errors
    /// The verb was not confirmed, or the run can't be read.
    async fn confirm(
        &mut self,
        coordinator: &Coordinator,
        confirmation: Confirmation,
        verb: &str,
        meaning: impl FnOnce(&RunStatus) -> String,
    ) -> Result<(), Failure> {
        if confirmation.yes {
            return Ok(());
        }
        let run = coordinator.run(&self.run).await?;
        confirm::obtain(verb, &meaning(&run), &run)?;
        if self.if_sequence == 0 {
            self.if_sequence = run.sequence;
        }
        self.run = run.id;
        Ok(())
    }

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
            // Resolved now, so that the verb can't apply to a run that starts meanwhile.
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
            return follow(coordinator, &run.id, &self.options, format).await;
        }
        match format {
            Format::Table => output::text(&view::run::head(&run))?,
            Format::Json | Format::Jsonl => output::value(format, &run)?,
        }
        Ok(Exit::Done)
    }
}

/// Defines a verb whose only parameter is a reason.
macro_rules! plain_verb {
    ($name:ident, $kind:ty) => {
        #[doc = concat!("`lockstep run ", stringify!($name), "`.")]
        #[derive(Debug, clap::Args)]
        pub struct $name {
            #[command(flatten)]
            target: Target,
            /// Reason, recorded in the journal.
            #[arg(long)]
            reason: $kind,
        }

        impl $name {
            pub async fn execute(
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

/// Defines a verb that leaves work undone: it needs a confirmation, and a reason in the
/// journal.
macro_rules! confirmed_verb {
    ($name:ident, $verb:literal, $meaning:expr) => {
        #[doc = concat!("`lockstep run ", $verb, "`.")]
        #[derive(Debug, clap::Args)]
        pub struct $name {
            #[command(flatten)]
            target: Target,
            /// Reason, recorded in the journal.
            #[arg(long)]
            reason: String,
            #[command(flatten)]
            confirmation: Confirmation,
        }

        impl $name {
            pub async fn execute(
                mut self,
                coordinator: &Coordinator,
                format: Format,
            ) -> Result<Exit, Failure> {
                self.target
                    .confirm(coordinator, self.confirmation, $verb, $meaning)
                    .await?;
                self.target
                    .send(coordinator, Verb::$name, Some(self.reason), format)
                    .await
            }
        }
    };
}

confirmed_verb!(Skip, "skip", confirm::of_skip);
confirmed_verb!(Abort, "abort", confirm::of_abort);

/// A task of a run.
#[derive(Debug, clap::Args)]
pub struct TaskOfRun {
    /// Agent of the task.
    #[arg(long)]
    agent: String,
    /// Id of the step.
    #[arg(long)]
    step: String,
    /// Reason, recorded in the journal.
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
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Waive {
    pub async fn execute(
        mut self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let TaskOfRun { agent, step, .. } = &self.task;
        self.target
            .confirm(coordinator, self.confirmation, "waive", |run| {
                confirm::of_waive(run, agent, step)
            })
            .await?;
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
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
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
