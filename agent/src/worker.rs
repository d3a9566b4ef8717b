//! Runs the work that the participant requests: probes, tasks, watches.
//!
//! Everything here runs concurrently with the driver and reports its results
//! through one bounded channel. It makes no decisions.

use crate::action::{
    ActionError, AnyAction, Context, Description, Outputs, Progress, Undone, WorkId,
};
use crate::actions;
use crate::host::{Host, work};
use crate::policy::Permission;
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::ids::StepId;
use lockstep_barrier::message::{Finding, Mode, Outcome, Probe, TaskOrder};
use lockstep_plan::{AgentFacts, Reference, ReferenceError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// After a task's timeout: how long its action may take to clean up before it
/// is dropped. Long enough for a running call to a database to return, short
/// against any deadline of a plan.
const WIND_UP: Duration = Duration::from_secs(10);

/// Limit of a probe. A tool or a database that takes longer to return its state
/// is in no condition to be changed by a plan.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Limit of a watch's attestation. The answer is valid for two seconds, so the
/// release has failed by then; a watch that can't check for five times as long
/// isn't watching, and that is a breach.
const ATTEST_LIMIT: Duration = Duration::from_secs(10);

/// How long processes of an earlier attempt are waited for: short against the limit of
/// a probe, and long for what ends by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Interval between two checks whether they have ended.
const LEFT_POLL: Duration = Duration::from_millis(50);

/// Outputs of earlier steps, from the release.
pub type Inputs = BTreeMap<StepId, Outputs>;

/// A task that can be run: its action is known, its parameters are resolved.
pub struct Prepared {
    action: &'static dyn AnyAction,
    params: Value,
    cx: Context,
}

/// Why a task can't be prepared.
enum NotReady {
    UnknownAction(String),
    Unresolved(ReferenceError),
    Denied(crate::policy::Denied),
    Params(ActionError),
    /// An earlier attempt's processes are alive.
    StillRunning(Vec<work::Left>),
}

impl NotReady {
    fn diagnosis(&self) -> Diagnosis {
        let diagnosis = match self {
            Self::UnknownAction(action) => Diagnosis::new(
                Code::LS2007,
                format!("this agent doesn't know the action {action}"),
            )
            .remedy("install the coordinator's version on this host"),
            Self::Unresolved(error) => Diagnosis::new(Code::LS2008, error.to_string()),
            Self::Denied(denied) => denied.diagnosis(),
            Self::Params(error) => return error.diagnosis(),
            Self::StillRunning(left) => Diagnosis::new(
                Code::LS2018,
                format!(
                    "an earlier attempt of this task is still running: {}",
                    work::listed(left)
                ),
            )
            .remedy(
                "wait until these processes have ended, or end them and see what they have done; \
                 then retry",
            ),
        };
        diagnosis.state_left("nothing was done")
    }
}

fn known_action(task: &TaskOrder) -> Result<&'static dyn AnyAction, NotReady> {
    actions::find(&task.action).ok_or_else(|| NotReady::UnknownAction(task.action.clone()))
}

#[derive(Clone)]
pub struct Worker {
    host: Arc<Host>,
}

impl Worker {
    /// A worker on this host.
    pub fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    /// A context for one task.
    pub fn context(&self, tag: WorkId, cancel: CancellationToken, progress: Progress) -> Context {
        Context {
            host: self.host.clone(),
            tag,
            cancel,
            progress,
        }
    }

    fn facts(&self) -> AgentFacts<'_> {
        let config = &self.host.config;
        AgentFacts {
            name: &config.name,
            labels: &config.labels,
        }
    }

    fn resolved(&self, task: &TaskOrder, inputs: &Inputs) -> Result<Value, ReferenceError> {
        let outputs: BTreeMap<Reference, Value> = inputs
            .iter()
            .flat_map(|(step, outputs)| {
                outputs.iter().map(|(output, value)| {
                    let reference = Reference {
                        step: step.0.clone(),
                        output: output.clone(),
                    };
                    (reference, value.clone())
                })
            })
            .collect();
        lockstep_plan::resolve(&task.params, &outputs, self.facts())
    }

    fn prepare(
        &self,
        task: &TaskOrder,
        inputs: &Inputs,
        cx: &Context,
    ) -> Result<Prepared, NotReady> {
        let action = known_action(task)?;
        let params = self.resolved(task, inputs).map_err(NotReady::Unresolved)?;
        let required_permissions = action
            .required_permissions(&params)
            .map_err(NotReady::Params)?;
        self.host
            .policy
            .check(&task.action, &required_permissions)
            .map_err(NotReady::Denied)?;
        let runs_a_command = |need: &Permission| matches!(need, Permission::Command(_));
        if required_permissions.iter().any(runs_a_command) {
            let left = work::left_behind(&self.host.config.name, &cx.tag.run, cx.tag.origin());
            if !left.is_empty() {
                return Err(NotReady::StillRunning(left));
            }
        }
        Ok(Prepared {
            action,
            params,
            cx: cx.clone(),
        })
    }

    /// As [`Self::prepare`], and waits a little for processes of an earlier attempt: what
    /// an agent that was killed left behind has often all but ended.
    async fn prepare_patiently(
        &self,
        task: &TaskOrder,
        inputs: &Inputs,
        cx: &Context,
    ) -> Result<Prepared, NotReady> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.prepare(task, inputs, cx) {
                Err(NotReady::StillRunning(_)) if Instant::now() < until => {
                    tokio::time::sleep(LEFT_POLL).await;
                }
                prepared => return prepared,
            }
        }
    }

    /// As [`Self::prepare`] without any outputs: references to them stay in the
    /// parameters. `None` where a permission depends on one, or where a
    /// parameter can't be text: then only the permissions that are known are
    /// checked.
    fn prepare_known(&self, task: &TaskOrder, cx: &Context) -> Result<Option<Prepared>, NotReady> {
        let action = known_action(task)?;
        let params = lockstep_plan::resolve_known(&task.params, self.facts())
            .map_err(NotReady::Unresolved)?;
        let required_permissions = action.required_permissions(&params).ok();
        let (open, known): (Vec<Permission>, Vec<Permission>) = required_permissions
            .iter()
            .flatten()
            .cloned()
            .partition(Permission::is_open);
        self.host
            .policy
            .check(&task.action, &known)
            .map_err(NotReady::Denied)?;
        let whole = required_permissions.is_some() && open.is_empty();
        Ok(whole.then(|| Prepared {
            action,
            params,
            cx: cx.clone(),
        }))
    }

    /// Probes one task. Before the release, only the permissions of a task that
    /// consumes outputs can be checked: it is probed when it starts.
    ///
    /// # Errors
    /// The reason why it can't be done.
    pub async fn probe(
        &self,
        task: &TaskOrder,
        inputs: &Inputs,
        before_release: bool,
        cx: &Context,
    ) -> Result<Probe, Diagnosis> {
        let began = Instant::now();
        let probe = self.look(task, inputs, before_release, cx).await;
        let took_us = began.elapsed().as_micros();
        tracing::debug!(action = task.action, step = %task.step, took_us, "probed");
        probe
    }

    async fn look(
        &self,
        task: &TaskOrder,
        inputs: &Inputs,
        before_release: bool,
        cx: &Context,
    ) -> Result<Probe, Diagnosis> {
        let prepared = match self.prepare_patiently(task, inputs, cx).await {
            Ok(prepared) => prepared,
            Err(NotReady::Unresolved(ReferenceError::MissingOutput(_))) if before_release => {
                self.prepare_known(task, cx)
                    .map_err(|not_ready| not_ready.diagnosis())?;
                return Ok(Probe {
                    finding: Finding::Pending,
                    before_image: None,
                });
            }
            Err(not_ready) => return Err(not_ready.diagnosis()),
        };
        match task.mode {
            // An undo compares the state itself before it sets it.
            Mode::Undo { .. } => Ok(Probe {
                finding: Finding::Pending,
                before_image: None,
            }),
            Mode::Execute => match look(cx, PROBE_LIMIT, prepared.probe()).await {
                Some(probe) => probe.map_err(|e| e.diagnosis()),
                None => Err(hung(&task.action)),
            },
        }
    }

    /// Runs a task within its limit.
    pub async fn perform(
        &self,
        task: &TaskOrder,
        inputs: &Inputs,
        before_image: Option<Value>,
        limit: Duration,
        cx: Context,
    ) -> (Outcome, Outputs) {
        let prepared = match self.prepare_patiently(task, inputs, &cx).await {
            Ok(prepared) => prepared,
            Err(not_ready) => return failed(not_ready.diagnosis()),
        };
        cx.progress.send(crate::action::Line::Started);
        let undo = matches!(task.mode, Mode::Undo { .. });
        let watch = task.watch;
        let cancel = cx.cancel.clone();
        // A task of its own: a panic in an action must not take the agent down.
        let mut work = tokio::spawn(async move {
            match (undo, before_image) {
                (false, before_image) => prepared.execute(before_image.as_ref(), watch).await,
                (true, Some(before_image)) => prepared.undo(&before_image).await,
                (true, None) => Ok((Outcome::Unchanged, Outputs::new())),
            }
        });
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = out_of_time(&cancel, limit) => {
                cancel.cancel();
                match tokio::time::timeout(WIND_UP, &mut work).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        work.abort();
                        return failed(overdue(task, limit));
                    }
                }
            }
        };
        match ended {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => failed(error.diagnosis()),
            Err(panic) => failed(panicked(&task.action, &panic)),
        }
    }

    pub async fn watch(
        &self,
        task: &TaskOrder,
        inputs: &Inputs,
        after_gap: bool,
        breaches: tokio::sync::mpsc::Sender<String>,
        cx: Context,
    ) {
        let gave_up = match self.prepare(task, inputs, &cx) {
            Ok(prepared) => prepared
                .watch(after_gap, breaches.clone())
                .await
                .err()
                .map(|e| e.report()),
            Err(not_ready) => Some(not_ready.diagnosis().to_string()),
        };
        if let Some(why) = gave_up {
            // An interrupted watch is a breach (R16); a closed channel means
            // that the receiver no longer needs it.
            let _ = breaches.send(format!("the watch gave up: {why}")).await;
        }
    }

    /// Requests an attestation of a watch; returns a breach, if any.
    pub async fn attest(&self, task: &TaskOrder, inputs: &Inputs, cx: Context) -> Option<String> {
        match self.prepare(task, inputs, &cx) {
            Ok(prepared) => match look(&cx, ATTEST_LIMIT, prepared.attest()).await {
                Some(Ok(breach)) => breach,
                Some(Err(e)) => Some(format!("the watch can't look: {}", e.report())),
                None => Some(overdue_check(&task.action).to_string()),
            },
            Err(not_ready) => Some(not_ready.diagnosis().to_string()),
        }
    }

    /// Checks one task for a preflight, with those outputs of other steps that are
    /// known before the run.
    pub async fn preflight(&self, task: &TaskOrder, inputs: &Inputs, cx: &Context) -> Preflight {
        let mut seen = Preflight::default();
        let prepared = match self.prepare(task, inputs, cx) {
            Ok(prepared) => prepared,
            Err(NotReady::Unresolved(ReferenceError::MissingOutput(reference))) => {
                return self.describe_unresolved(task, &reference, cx).await;
            }
            Err(not_ready) => {
                seen.obstacles.push(not_ready.diagnosis().to_string());
                return seen;
            }
        };
        let described = look(cx, PROBE_LIMIT, prepared.describe()).await;
        // Where `describe` timed out, the probe would send the same queries and
        // time out as well.
        let hangs = described.is_none();
        seen.take(&task.action, described);
        if hangs || !prepared.probe_in_preflight() {
            return seen;
        }
        match look(cx, PROBE_LIMIT, prepared.probe()).await {
            None => seen.obstacles.push(hung(&task.action).to_string()),
            Some(Ok(probe)) => seen.finding = Some(probe.finding),
            Some(Err(e)) => {
                let story = e.report();
                if !seen.obstacles.contains(&story) {
                    seen.obstacles.push(story);
                }
            }
        }
        seen
    }

    /// Checks a task that consumes outputs, as far as it is known before the
    /// run.
    async fn describe_unresolved(
        &self,
        task: &TaskOrder,
        reference: &Reference,
        cx: &Context,
    ) -> Preflight {
        let mut seen = Preflight {
            would_do: vec![format!("{} with {reference} from the run", task.action)],
            ..Preflight::default()
        };
        match self.prepare_known(task, cx) {
            Ok(Some(prepared)) => {
                let foreseen = look(cx, PROBE_LIMIT, prepared.describe_unresolved()).await;
                seen.take(&task.action, foreseen);
            }
            Ok(None) => {}
            Err(not_ready) => seen.obstacles.push(not_ready.diagnosis().to_string()),
        }
        seen
    }
}

/// Result of a preflight for one task.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    /// What would be done.
    pub would_do: Vec<String>,
    /// Obstacles, a sentence each.
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
    /// What the probe found, if it was possible.
    pub finding: Option<Finding>,
    /// Outputs that are known before the run.
    pub foreseen: Outputs,
}

impl Preflight {
    /// Adds a description; `None` is one that timed out.
    fn take(&mut self, action: &str, described: Option<Result<Description, ActionError>>) {
        match described {
            Some(Ok(description)) => {
                self.would_do.extend(description.would_do);
                self.obstacles.extend(description.obstacles);
                self.remarks.extend(description.remarks);
                self.foreseen.extend(description.foreseen);
            }
            Some(Err(e)) => self.obstacles.push(e.report()),
            None => self.obstacles.push(hung(action).to_string()),
        }
    }
}

impl Prepared {
    fn probe_in_preflight(&self) -> bool {
        self.action.probe_in_preflight()
    }

    async fn probe(&self) -> Result<Probe, ActionError> {
        self.action.probe(&self.cx, &self.params).await
    }

    async fn describe(&self) -> Result<Description, ActionError> {
        self.action.describe(&self.cx, &self.params).await
    }

    async fn describe_unresolved(&self) -> Result<Description, ActionError> {
        self.action
            .describe_unresolved(&self.cx, &self.params)
            .await
    }

    async fn execute(
        &self,
        before_image: Option<&Value>,
        watch: bool,
    ) -> Result<(Outcome, Outputs), ActionError> {
        let outputs = self
            .action
            .execute(&self.cx, &self.params, before_image)
            .await?;
        Ok((if watch { Outcome::Armed } else { Outcome::Done }, outputs))
    }

    async fn undo(&self, before_image: &Value) -> Result<(Outcome, Outputs), ActionError> {
        let outcome = match self
            .action
            .undo(&self.cx, &self.params, before_image)
            .await?
        {
            Undone::Restored => Outcome::Done,
            Undone::Unchanged => Outcome::Unchanged,
            Undone::Drifted(detail) => Outcome::Drifted { detail },
        };
        Ok((outcome, Outputs::new()))
    }

    async fn watch(
        &self,
        after_gap: bool,
        breaches: tokio::sync::mpsc::Sender<String>,
    ) -> Result<bool, ActionError> {
        self.action
            .watch(&self.cx, &self.params, after_gap, breaches)
            .await
    }

    async fn attest(&self) -> Result<Option<String>, ActionError> {
        self.action.attest(&self.cx, &self.params).await
    }
}

/// Runs read-only work within a limit; `None` where it timed out. Its work on
/// other threads is cancelled.
async fn look<T>(cx: &Context, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let seen = tokio::time::timeout(limit, work).await.ok();
    if seen.is_none() {
        cx.cancel.cancel();
    }
    seen
}

fn hung(action: &str) -> Diagnosis {
    let what = format!(
        "{action} could not be probed within {} s",
        PROBE_LIMIT.as_secs()
    );
    Diagnosis::new(Code::LS2011, what)
        .state_left("nothing was done")
        .remedy("see what it waits for on this host, then retry")
}

fn overdue_check(watch: &str) -> Diagnosis {
    let what = format!(
        "the watch {watch} didn't finish its check within {} s",
        ATTEST_LIMIT.as_secs()
    );
    Diagnosis::new(Code::LS2014, what).remedy("see what it waits for on this host")
}

fn panicked(action: &str, panic: &tokio::task::JoinError) -> Diagnosis {
    let what = format!("the action {action} stopped abnormally ({panic})");
    Diagnosis::new(Code::LS2009, what)
        .state_left("what it had changed is in effect")
        .remedy("see the agent's log, then retry or roll back")
}

async fn out_of_time(cancel: &CancellationToken, limit: Duration) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = tokio::time::sleep(limit) => {}
    }
}

fn failed(diagnosis: Diagnosis) -> (Outcome, Outputs) {
    (Outcome::failed(diagnosis), Outputs::new())
}

fn overdue(task: &TaskOrder, limit: Duration) -> Diagnosis {
    let what = format!(
        "{} was not done within {} s and didn't stop when it was cancelled",
        task.action,
        limit.as_secs()
    );
    Diagnosis::new(Code::LS2010, what)
        .state_left(
            "what it had changed is in effect, and a call that it made may still be running",
        )
        .remedy("check both before a retry")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worker(more: &str) -> (Worker, Context) {
        let config = format!(
            "name='a'\ncoordinator='c'\nstate_dir='/none'\n\
             [tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n{more}"
        );
        let host = Host::new(toml::from_str(&config).unwrap());
        let tag = WorkId {
            run: "run".to_owned(),
            step: "step".to_owned(),
            attempt: 1,
            of: None,
        };
        let worker = Worker::new(Arc::new(host));
        let cx = worker.context(tag, CancellationToken::new(), Progress::silent());
        (worker, cx)
    }

    fn task(action: &str, params: Value) -> TaskOrder {
        TaskOrder {
            read_only: false,
            step: StepId("step".to_owned()),
            action: action.to_owned(),
            mode: Mode::Execute,
            params,
            timeout: 1000,
            watch: false,
        }
    }

    #[tokio::test]
    async fn what_a_task_needs_is_checked_before_its_values_are_there() {
        let (worker, cx) = worker("[policy]\nactions=['postgres.*', 'service.*']\nunits=['a.*']\n");
        let none = Inputs::new();
        let rows = |resource: &str| {
            let params = json!({"resource": resource, "tables": [], "expected": "${rows.tables}"});
            task("postgres.rows.verify", params)
        };
        let seen = worker.preflight(&rows("shop"), &none, &cx).await;
        assert_eq!(seen.obstacles.len(), 1, "{:?}", seen.obstacles);
        assert!(seen.obstacles[0].contains("define [postgres.shop]"));
        assert_eq!(
            seen.would_do,
            ["postgres.rows.verify with ${rows.tables} from the run"]
        );
        let voted = worker.probe(&rows("shop"), &Inputs::new(), true, &cx).await;
        assert_eq!(voted.unwrap_err().to_string(), seen.obstacles[0]);
        // A permission that depends on an output isn't known; the others are
        // checked.
        let seen = worker
            .preflight(&rows("${some.resource}"), &none, &cx)
            .await;
        assert_eq!(seen.obstacles, Vec::<String>::new());
        for (unit, denied) in [("a.service", 0), ("b.service", 1)] {
            let params = json!({"units": ["${some.unit}", unit]});
            let seen = worker
                .preflight(&task("service.stop", params), &none, &cx)
                .await;
            assert_eq!(seen.obstacles.len(), denied, "{:?}", seen.obstacles);
        }
        // A reference in place of a number is no error of the plan.
        let params = json!({"units": ["a.service"], "timeout_secs": "${some.number}"});
        let seen = worker
            .preflight(&task("service.stop", params), &none, &cx)
            .await;
        assert_eq!(seen.obstacles, Vec::<String>::new());
        let canary = task("oracle.canary.await", json!("${some.params}"));
        let seen = worker.preflight(&canary, &none, &cx).await;
        assert!(seen.obstacles[0].contains("the action oracle.canary.await"));
    }

    #[tokio::test]
    async fn a_look_that_hangs_comes_to_an_end_and_is_told_to_stop() {
        let (worker, cx) = worker("");
        drop(worker);
        let hangs = std::future::pending::<()>();
        let limit = Duration::from_millis(20);
        assert_eq!(look(&cx, limit, async { 1 }).await, Some(1));
        assert!(!cx.cancel.is_cancelled());
        assert_eq!(look(&cx, limit, hangs).await, None);
        assert!(cx.cancel.is_cancelled());
        assert!(hung("oracle.ready").what.starts_with("oracle.ready"));
    }
}
