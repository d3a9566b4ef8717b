//! What an operator decides about a run, one verb each.
//!
//! Each verb carries an id of its own, so that a repeated message acts once.

use crate::commands::run::watch::{Patience, follow};
use crate::coordinator::Coordinator;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::status::Run;
use crate::view;
use clap::ValueEnum;
use lockstep_proto::v1;
use uuid::Uuid;

/// Which run, and what comes after the verb.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The run.
    pub run: String,
    /// Only if nothing has happened in the run since this sequence.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "SEQUENCE"
    )]
    if_sequence: u64,
    /// Watch the run afterwards and end with its exit code.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Target {
    /// What every verb carries.
    pub async fn verb(
        &self,
        coordinator: &Coordinator,
        reason: Option<String>,
    ) -> Result<v1::Verb, Failure> {
        let run_id = match self.run.as_str() {
            super::LATEST => super::get(coordinator, &self.run).await?.id,
            id => id.to_owned(),
        };
        Ok(v1::Verb {
            run_id,
            request_id: Uuid::now_v7().to_string(),
            expected_sequence: self.if_sequence,
            reason: reason.unwrap_or_default(),
        })
    }

    /// Tells how the run stands after the verb.
    pub async fn tell(
        &self,
        coordinator: &Coordinator,
        run: Option<v1::RunStatus>,
        format: Format,
    ) -> Result<Exit, Failure> {
        let run = Run::from(run.unwrap_or_default());
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

/// Defines a verb whose request holds nothing but the verb itself.
macro_rules! plain_verb {
    ($name:ident, $request:ident, $method:ident, $kind:ty) => {
        #[doc = concat!("`lockstep run ", stringify!($name), "`.")]
        #[derive(Debug, clap::Args)]
        pub struct $name {
            #[command(flatten)]
            target: Target,
            /// Why; stands in the journal.
            #[arg(long)]
            reason: $kind,
        }

        impl $name {
            pub async fn carry_out(
                self,
                coordinator: &Coordinator,
                format: Format,
            ) -> Result<Exit, Failure> {
                let verb = self.target.verb(coordinator, self.reason.into()).await?;
                let request = v1::$request { verb: Some(verb) };
                let answer = coordinator
                    .call(request, async |mut client, request| {
                        client.$method(request).await
                    })
                    .await?;
                self.target.tell(coordinator, answer.run, format).await
            }
        }
    };
}

plain_verb!(Pause, PauseRunRequest, pause_run, Option<String>);
plain_verb!(Resume, ResumeRunRequest, resume_run, Option<String>);
plain_verb!(Retry, RetryRunRequest, retry_run, Option<String>);
plain_verb!(Rollback, RollbackRunRequest, rollback_run, Option<String>);
// These leave something undone, so the journal must say why.
plain_verb!(Skip, SkipRunRequest, skip_run, String);
plain_verb!(Abort, AbortRunRequest, abort_run, String);

/// Which task of a run.
#[derive(Debug, clap::Args)]
pub struct TaskOfRun {
    /// The agent.
    #[arg(long)]
    agent: String,
    /// The step.
    #[arg(long)]
    step: String,
    /// Why; stands in the journal.
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
        let verb = self
            .target
            .verb(coordinator, Some(self.task.reason))
            .await?;
        let request = v1::WaiveTaskRequest {
            verb: Some(verb),
            agent: self.task.agent,
            step_id: self.task.step,
        };
        let answer = coordinator
            .call(request, async |mut client, request| {
                client.waive_task(request).await
            })
            .await?;
        self.target.tell(coordinator, answer.run, format).await
    }
}

/// How a task has ended in truth.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Truth {
    /// Its effect is there.
    Done,
    /// Its effect isn't there.
    Failed,
}

/// `lockstep run resolve`.
#[derive(Debug, clap::Args)]
pub struct Resolve {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    task: TaskOfRun,
    /// How it has ended, as somebody has seen on the host.
    #[arg(long = "as", value_name = "OUTCOME")]
    truth: Truth,
}

impl Resolve {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let verb = self
            .target
            .verb(coordinator, Some(self.task.reason))
            .await?;
        let outcome = match self.truth {
            Truth::Done => v1::OutcomeKind::Done,
            Truth::Failed => v1::OutcomeKind::Failed,
        };
        let request = v1::ResolveTaskRequest {
            verb: Some(verb),
            agent: self.task.agent,
            step_id: self.task.step,
            outcome: outcome.into(),
        };
        let answer = coordinator
            .call(request, async |mut client, request| {
                client.resolve_task(request).await
            })
            .await?;
        self.target.tell(coordinator, answer.run, format).await
    }
}
