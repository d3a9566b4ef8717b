//! The verbs with which an operator controls a run.

use crate::commands::run::confirm::{self, Confirmation};
use crate::commands::run::watch::{WatchOptions, follow};
use crate::coordinator::{Coordinator, ObservedOutcome, Verb, VerbRequest};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view;
use lockstep_api::{Exit, RunStatus};

/// How often a verb that stops a run is sent if the run has moved on between the reading
/// of its status and the verb.
const ATTEMPTS: u32 = 5;

/// The run that a verb applies to, and what to do after the verb.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Id of the run, or latest.
    pub run: String,
    /// Refuse if the run has decided anything after this sequence number [default: the
    /// one at which the command finds the run].
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
        self.apply_to(run);
        Ok(())
    }

    /// The verb applies to this run, and to no later state of it: another operator's
    /// verb may lead to another phase, for which this one was not meant.
    pub fn apply_to(&mut self, run: RunStatus) {
        if self.if_sequence == 0 {
            self.if_sequence = run.sequence;
        }
        self.run = run.id;
    }

    /// Sends the verb and shows the run's status after it.
    ///
    /// # Errors
    /// The coordinator refuses, or doesn't answer.
    pub async fn send(
        mut self,
        coordinator: &Coordinator,
        verb: Verb,
        reason: Option<String>,
        format: Format,
    ) -> Result<Exit, Failure> {
        let conditional = self.if_sequence != 0;
        if !conditional || self.run == super::LATEST {
            let run = coordinator.run(&self.run).await?;
            self.apply_to(run);
        }
        let mut attempts = if conditional || !stops(&verb) {
            1
        } else {
            ATTEMPTS
        };
        let run = loop {
            let request = VerbRequest {
                run: self.run.clone(),
                if_sequence: self.if_sequence,
                reason: reason.clone(),
            };
            let sent = coordinator.send(request, verb.clone()).await;
            attempts -= 1;
            if sent.is_ok() || attempts == 0 {
                break sent?;
            }
            let run = coordinator.run(&self.run).await?;
            if run.sequence == self.if_sequence {
                break sent?;
            }
            self.if_sequence = run.sequence;
        };
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

/// A verb that stops the run, whatever it has decided meanwhile by itself.
fn stops(verb: &Verb) -> bool {
    match verb {
        Verb::Pause | Verb::Rollback | Verb::Abort => true,
        Verb::Approve { .. }
        | Verb::Resume
        | Verb::Retry
        | Verb::Skip
        | Verb::Waive { .. }
        | Verb::Resolve { .. } => false,
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
