//! A unit's state is proved over time: one instant is not a state.
//!
//! A service whose program ends at once is `active` for some milliseconds, and
//! a socket, a timer or another unit brings a stopped one back seconds later.

use super::ability;
use super::record::{self, Records};
use super::transaction::{Change, Transaction};
use crate::action::{ActionError, Context};
use crate::host::systemd::{Facts, Job};
use lockstep_api::Code;
use std::time::Duration;

/// How long units must stay as they were put before the task counts as done.
const SETTLE: Duration = Duration::from_secs(3);

/// How long a probe waits until units are up or down: a restart takes seconds, and a probe
/// may take thirty.
const SETTLING: Duration = Duration::from_secs(10);

/// How often states are read meanwhile.
const INTERVAL: Duration = Duration::from_millis(500);

/// A unit as it was right after its start job.
pub struct Started {
    unit: String,
    facts: Facts,
}

/// Starts or restarts a unit, with its current configuration.
///
/// # Errors
/// Where the job fails or the unit isn't active after it. A oneshot needn't be:
/// systemd ends its start job with `done` only if its program succeeded
/// (systemd.service(5), `Type=`).
pub async fn bring_up(
    cx: &Context,
    job: Job,
    unit: &str,
    limit: Duration,
) -> Result<Started, ActionError> {
    let systemd = cx.host.systemd().await?;
    if systemd.facts(unit).await?.needs_reload {
        systemd.reload(unit).await?;
        cx.effect(format!("systemd: unit files reloaded for {unit}"));
    }
    systemd.run(job, unit, limit).await?;
    let facts = systemd.facts(unit).await?;
    if !facts.is_active() && !facts.has_run() {
        return Err(not_up(unit, &facts));
    }
    if facts.has_run() {
        record::ran(cx, &facts.id)?;
    }
    Ok(Started {
        unit: unit.to_owned(),
        facts,
    })
}

/// Waits for the settle time and requires that every unit is still active, by
/// the same start. A oneshot that has run has nothing to keep.
///
/// # Errors
/// Where a unit ended or was restarted meanwhile.
pub async fn stay_up(cx: &Context, started: &[Started]) -> Result<(), ActionError> {
    if started.iter().all(|one| one.facts.has_run()) {
        return Ok(());
    }
    tokio::time::sleep(SETTLE).await;
    let systemd = cx.host.systemd().await?;
    for Started { unit, facts } in started.iter().filter(|one| !one.facts.has_run()) {
        let now = systemd.facts(unit).await?;
        let same = now.invocation == facts.invocation && now.restarts == facts.restarts;
        if !now.is_active() || !same {
            return Err(not_up(unit, &now));
        }
    }
    Ok(())
}

fn not_up(unit: &str, now: &Facts) -> ActionError {
    ActionError::new(Code::LS2107, format!("{unit} did not stay up"))
        .state_left(format!(
            "it is {} ({}), after {} restarts by itself",
            now.active, now.sub, now.restarts
        ))
        .remedy(format!(
            "see `systemctl status {unit}` and its journal, then retry"
        ))
}

/// Watches stopped units for the settle time.
///
/// # Errors
/// Where something started one of them again.
pub async fn stay_down(cx: &Context, units: &[String]) -> Result<(), ActionError> {
    let until = tokio::time::Instant::now() + SETTLE;
    loop {
        let systemd = cx.host.systemd().await?;
        for unit in units {
            let state = systemd.state(unit).await?;
            if !state.is_down() {
                return Err(ActionError::new(
                    Code::LS2106,
                    format!("{unit} was started again after its stop"),
                )
                .state_left(format!("it is {}", state.active))
                .remedy("see what starts it (a timer, a socket, another unit), stop that too"));
            }
        }
        if tokio::time::Instant::now() >= until {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The transaction of a step, once its units are up or down, or a bounded time has passed.
///
/// # Errors
/// Where systemd doesn't answer.
pub async fn settled<F: Future<Output = Result<Transaction, ActionError>>>(
    expected: &Records,
    transaction: impl Fn() -> F,
) -> Result<Transaction, ActionError> {
    let until = tokio::time::Instant::now() + SETTLING;
    loop {
        let now = transaction().await?;
        let settled = ability::unsettled(&now, expected).is_empty();
        if settled || tokio::time::Instant::now() >= until {
            return Ok(now);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Waits until units that are stopped with another one are down: their jobs may end
/// later than its own.
///
/// # Errors
/// Where one is still up at the end of `limit`.
pub async fn wait_for_stopped(
    cx: &Context,
    stopped_with: &[Change],
    limit: Duration,
) -> Result<(), ActionError> {
    let until = tokio::time::Instant::now() + limit;
    for Change { unit, with, .. } in stopped_with {
        while !cx.host.systemd().await?.state(unit).await?.is_down() {
            if tokio::time::Instant::now() >= until {
                return Err(ActionError::new(
                    Code::LS2103,
                    format!("{unit} did not stop with {with} in time"),
                )
                .state_left(format!("{with} is stopped, {unit} is not"))
                .remedy(format!(
                    "see `systemctl status {unit}` and its journal, then retry"
                )));
            }
            tokio::time::sleep(INTERVAL).await;
        }
        cx.effect(format!("{unit}: stopped with {with}"));
    }
    Ok(())
}

/// Whether a unit that the trigger starts is waited for: systemd leaves it running when
/// the trigger is stopped. What a timer or path starts need not be a oneshot,
/// because `Type=simple` is the default; a step that names it stops it itself. A
/// service of a socket is no batch, and is stopped by name, except with Accept=yes: then
/// there is an instance for each connection, whose name no plan can contain, and which is
/// one of the socket's triggered units as long as it runs (service_set_socket_fd in
/// src/core/service.c).
pub fn is_awaited(trigger: &Facts, triggered: &Facts, units: &[String]) -> bool {
    match triggered.service_type.as_str() {
        "" => false,
        "oneshot" => triggered.active == "activating",
        _ => {
            let kinds = [".timer", ".path"];
            let starts_batches =
                trigger.accepts || kinds.iter().any(|end| trigger.id.ends_with(end));
            let named = triggered.names.iter().any(|name| units.contains(name));
            triggered.is_up() && starts_batches && !named
        }
    }
}

/// Waits until what a stopped timer, path or socket had started is over.
///
/// # Errors
/// Where it still runs at the end of `limit`.
pub async fn wait_for_triggered(
    cx: &Context,
    trigger: &str,
    units: &[String],
    limit: Duration,
) -> Result<(), ActionError> {
    let until = tokio::time::Instant::now() + limit;
    let systemd = cx.host.systemd().await?;
    let facts = systemd.facts(trigger).await?;
    for unit in &facts.triggers {
        while is_awaited(&facts, &systemd.facts(unit).await?, units) {
            if tokio::time::Instant::now() >= until {
                return Err(ActionError::new(
                    Code::LS2103,
                    format!("{unit}, started by {trigger}, did not end in time"),
                )
                .state_left(format!("{trigger} is stopped, {unit} still runs"))
                .remedy(format!(
                    "wait until {unit} has ended, or stop it, then retry"
                )));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
    Ok(())
}

/// Whether something that a timer, path or socket of the list has started still runs.
///
/// # Errors
/// Where systemd doesn't answer.
pub async fn triggered_runs(cx: &Context, units: &[String]) -> Result<bool, ActionError> {
    let systemd = cx.host.systemd().await?;
    for trigger in units {
        let facts = systemd.facts(trigger).await?;
        for unit in &facts.triggers {
            if is_awaited(&facts, &systemd.facts(unit).await?, units) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Active sockets, timers, paths and units with Upholds= that would start a unit of the
/// list again, and aren't stopped with it: a sentence each.
///
/// # Errors
/// Where systemd doesn't answer.
pub async fn unheld_triggers(cx: &Context, units: &[String]) -> Result<Vec<String>, ActionError> {
    let systemd = cx.host.systemd().await?;
    let mut unheld = Vec::new();
    for unit in units {
        let facts = systemd.facts(unit).await?;
        let upholding = facts.upheld_by().into_iter().map(str::to_owned);
        for trigger in facts.triggered_by.iter().cloned().chain(upholding) {
            if !units.contains(&trigger) && !systemd.state(&trigger).await?.is_down() {
                unheld.push(format!(
                    "{trigger} is active and starts {unit} again; stop {trigger} before {unit}, in this \
                     step or an earlier one"
                ));
            }
        }
    }
    Ok(unheld)
}
