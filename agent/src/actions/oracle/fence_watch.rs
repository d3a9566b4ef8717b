//! `oracle.fence.watch`: proves that nothing can write to Oracle, and from then
//! on reports every breach.
//!
//! The task is armed once the fence has held for the window. From then on the
//! watch checks sessions, transactions and jobs four times a second, and
//! accounts, parameters, last logins and the listeners of this host every other
//! second. Exempt sessions (DMS, including the canary that it replicates) and
//! Lockstep's own work are no breach.
//!
//! What remains undetected: the cases in [`super::fence`], and a quarter of a
//! second in which a commit may precede the detection of its session.
//!
//! After a gap in the monitoring, last logins are compared with those saved when the
//! fence was closed. A gap without a login since is no breach, unless Oracle
//! doesn't record every login.

use super::fence::{self, Logins};
use super::listeners::Listeners;
use super::login_times;
use super::{POLL_INTERVAL, required_permissions, saved_state};
use crate::action::{Action, ActionError, Context, Description, Outputs, Watch, found};
use crate::actions::truncate_list;
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::WatchFence;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const KIND: &str = "fence";

/// One in this many checks includes accounts, parameters and listeners.
const DOORS_EVERY: u64 = 8;

/// A watch that hasn't been able to check for this long reports it: long enough
/// to open a new session, short compared with a phase.
const BLIND_LIMIT: Duration = Duration::from_secs(10);

/// Maximum number of reported breaches. The run stops at the first one; the
/// others are only for the report.
const MAX_REPORTED: usize = 1000;

pub struct FenceWatch;

#[async_trait]
impl Action for FenceWatch {
    type Params = WatchFence;

    fn required_permissions(&self, params: &WatchFence) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &WatchFence) -> Result<Probe, ActionError> {
        Session::open(cx, &params.resource).await?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &WatchFence,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let listeners = Listeners::of(cx, &params.resource).await?;
        let now = fence::breaches(cx, &session, &listeners, params).await?;
        let mut description = Description::of([format!(
            "verify for {} s that nobody can write to Oracle, then watch it",
            params.window_secs
        )]);
        let remarks = truncate_list(now)
            .into_iter()
            .map(|breach| format!("as yet: {breach}"));
        description.remarks.extend(remarks);
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &WatchFence,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let listeners = Listeners::of(cx, &params.resource).await?;
        let logins = fence::hold(cx, &session, &listeners, params).await?;
        saved_state::renew(cx, &params.resource, KIND, &logins)?;
        cx.note(format!("the fence has held for {} s", params.window_secs));
        Ok(Outputs::new())
    }

    fn watch(&self) -> Option<&dyn Watch<WatchFence>> {
        Some(self)
    }
}

#[async_trait]
impl Watch<WatchFence> for FenceWatch {
    async fn watch(
        &self,
        cx: &Context,
        params: &WatchFence,
        after_gap: bool,
        breaches: mpsc::Sender<String>,
    ) {
        let mut watch = Watching {
            cx,
            params,
            open: None,
            reported: BTreeSet::new(),
            breaches,
        };
        if after_gap {
            watch.ask_about_gap().await;
        }
        watch.go_on().await;
    }

    async fn attest(
        &self,
        cx: &Context,
        params: &WatchFence,
    ) -> Result<Option<String>, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let listeners = Listeners::of(cx, &params.resource).await?;
        let since = baseline(cx, params)?;
        match fence::verify(cx, &session, &listeners, params, &since).await {
            Ok(()) => Ok(None),
            Err(e) if e.code() == Code::LS2250 => Ok(Some(e.to_string())),
            Err(e) => Err(e),
        }
    }
}

fn baseline(cx: &Context, params: &WatchFence) -> Result<Logins, ActionError> {
    saved_state::recall_own(cx, &params.resource, KIND)
}

/// A running watch, with its own session to the instance.
struct Watching<'a> {
    cx: &'a Context,
    params: &'a WatchFence,
    open: Option<(Session, Listeners, Logins)>,
    reported: BTreeSet<String>,
    breaches: mpsc::Sender<String>,
}

impl Watching<'_> {
    async fn go_on(&mut self) {
        let mut blind_since: Option<Instant> = None;
        for look in 0_u64.. {
            tokio::select! {
                () = self.cx.cancel.cancelled() => return,
                () = self.breaches.closed() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let seen = self.check(look.is_multiple_of(DOORS_EVERY)).await;
            if self.cx.cancel.is_cancelled() {
                return;
            }
            match seen {
                Ok(seen) => {
                    blind_since = None;
                    for breach in seen {
                        self.tell(breach).await;
                    }
                }
                Err(e) => {
                    // The next check tries a new session.
                    self.open = None;
                    let since = *blind_since.get_or_insert_with(Instant::now);
                    tracing::warn!(error = e.report(), "the fence could not be looked at");
                    if since.elapsed() >= BLIND_LIMIT {
                        self.tell(format!("the fence can't be watched: {}", e.report()))
                            .await;
                    }
                }
            }
        }
    }

    async fn check(&mut self, with_access: bool) -> Result<Vec<String>, ActionError> {
        let (session, listeners, since) = match self.open.take() {
            Some(open) => self.open.insert(open),
            None => {
                let open = self.connect().await?;
                self.open.insert(open)
            }
        };
        let mut seen = fence::inside(session, self.params).await?;
        if with_access {
            seen.extend(fence::open_access(session, self.params).await?);
            seen.extend(fence::listeners(self.cx, listeners, &self.params.keep).await?);
            let now = fence::logins(session).await?;
            seen.extend(fence::came_since(since, &now, &self.params.exempt));
        }
        Ok(seen)
    }

    async fn connect(&self) -> Result<(Session, Listeners, Logins), ActionError> {
        Ok((
            Session::open(self.cx, &self.params.resource).await?,
            Listeners::of(self.cx, &self.params.resource).await?,
            baseline(self.cx, self.params)?,
        ))
    }

    /// A gap in the monitoring is a breach unless Oracle shows that there was no
    /// login during it.
    async fn ask_about_gap(&mut self) {
        let breach = match self.seen_since_the_gap().await {
            Ok(seen) if seen.is_empty() => return,
            Ok(seen) => seen.join("; "),
            Err(e) => format!("Oracle doesn't tell who came: {}", e.report()),
        };
        self.tell(format!("nobody has watched for a while: {breach}"))
            .await;
    }

    async fn seen_since_the_gap(&mut self) -> Result<Vec<String>, ActionError> {
        let mut seen = self.check(true).await?;
        if let Some((session, ..)) = &self.open {
            seen.extend(login_times::limits(session).await?);
        }
        Ok(seen)
    }

    async fn tell(&mut self, breach: String) {
        if self.reported.len() < MAX_REPORTED && self.reported.insert(breach.clone()) {
            // If the receiver has been dropped, the watch ends at its next
            // check.
            let _ = self.breaches.send(breach).await;
        }
    }
}
