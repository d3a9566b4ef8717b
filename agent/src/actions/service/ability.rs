//! Whether execute and undo will be able to start and stop a unit, asked before
//! anything is stopped.

use super::record::Records;
use super::settle;
use super::transaction::{Change, Transaction};
use crate::action::{ActionError, Context, Description};
use crate::host::systemd::{DefaultTimeouts, Facts};
use crate::policy::Permission;
use lockstep_api::Code;
use std::time::Duration;

/// Why a job can't start the unit, with the remedy.
pub fn cannot_start(unit: &str, facts: &Facts) -> Option<String> {
    let why = match facts.load.as_str() {
        _ if facts.lost_its_file() => format!(
            "the unit file of {unit} is missing, so {unit} can't be started; install the file and run \
             `systemctl daemon-reload`"
        ),
        "masked" => {
            format!("{unit} is masked, so it can't be started; run `systemctl unmask {unit}`")
        }
        "loaded" if facts.transient => format!(
            "{unit} is transient: its definition is lost when it stops; stop it by hand, or give it a \
             unit file"
        ),
        "loaded" if facts.can_start => return None,
        "loaded" => format!(
            "{unit} can't be started by a job (RefuseManualStart=); remove that setting, or leave the \
             unit out of the plan"
        ),
        other => format!(
            "systemd reports {unit} as {other}, so it can't be started; see `systemctl status {unit}`"
        ),
    };
    Some(why)
}

/// Why a job can't stop the unit, with the remedy.
pub fn cannot_stop(unit: &str, facts: &Facts) -> Option<String> {
    (!facts.can_stop).then(|| {
        format!(
            "{unit} can't be stopped by a job (RefuseManualStop=); remove that setting, or leave the \
             unit out of the plan"
        )
    })
}

/// Why a stop of the unit can't be done, or undone.
pub fn cannot_stop_and_start(unit: &str, facts: &Facts) -> Option<String> {
    if !facts.is_up() {
        return None;
    }
    cannot_stop(unit, facts).or_else(|| {
        cannot_start(unit, facts).map(|why| format!("{why}; undo could not start it again"))
    })
}

/// Why a start of the unit can't be done, or undone.
pub fn cannot_start_and_stop(unit: &str, facts: &Facts) -> Option<String> {
    if facts.is_active() {
        return None;
    }
    cannot_start(unit, facts).or_else(|| {
        cannot_stop(unit, facts).map(|why| format!("{why}; undo could not stop it again"))
    })
}

/// Units that are stopped with those of the step although the policy doesn't allow
/// it, or can't be started again: a sentence each.
pub fn unlisted(cx: &Context, action: &str, transaction: &Transaction) -> Vec<String> {
    let mut obstacles = Vec::new();
    for Change { unit, with, facts } in &transaction.stops {
        let need = [Permission::Unit(unit.clone())];
        if let Err(denied) = cx.host.policy.check(action, &need) {
            obstacles.push(format!(
                "{unit} is stopped with {with}, and the policy of this agent doesn't allow {}; {}",
                denied.what, denied.remedy
            ));
        }
        if let Some(why) = cannot_start(unit, facts) {
            obstacles.push(format!("{unit} is stopped with {with}, and {why}"));
        }
    }
    obstacles
}

/// Units of which it isn't known yet whether they run, a sentence each: taken for
/// inactive, one that is being restarted would stay down after undo and a later start.
/// `expected` are units that are stopping because of this run.
pub fn unsettled(transaction: &Transaction, expected: &Records) -> Vec<String> {
    let unknown = transaction.unsettled.iter().filter(|facts| {
        let names = &facts.names;
        !names.iter().any(|name| expected.contains_key(name))
    });
    let sentence = |facts: &Facts| {
        format!(
            "{unit} is {} ({}), so what it will be is not known; wait until it has settled (see \
             `systemctl status {unit}` and `systemctl list-jobs`), then retry",
            facts.active,
            facts.sub,
            unit = facts.id,
        )
    };
    unknown.map(sentence).collect()
}

/// Why a unit that keeps ending by itself can't be stopped: neither undo nor a later start
/// could bring it back up.
pub fn keeps_ending(unit: &str, facts: &Facts) -> Option<String> {
    facts.is_between_restarts().then(|| {
        format!(
            "{unit} has ended by itself and waits to be started again ({}), so undo might not bring it \
             up; fix it, or stop it before the run, or wait until it has settled",
            facts.sub
        )
    })
}

/// The first of the sentences as the error of a probe.
///
/// # Errors
/// LS2109 if there is one.
pub fn refuse(obstacles: Vec<String>) -> Result<(), ActionError> {
    match obstacles.into_iter().next() {
        None => Ok(()),
        Some(obstacle) => {
            Err(ActionError::new(Code::LS2109, obstacle).state_left("nothing was done"))
        }
    }
}

/// Compares the time that systemd gives the unit with the time that the step gives
/// it. A limit that the unit sets itself is an obstacle, since its author
/// expects it to be reached; systemd's default, which every unit has, is a remark.
pub fn compare_timeouts(
    description: &mut Description,
    unit: &str,
    facts: &Facts,
    defaults: DefaultTimeouts,
    limit: Duration,
) {
    let start = ("start", facts.timeout_start, defaults.start);
    let stop = ("stop", facts.timeout_stop, defaults.stop);
    for (verb, timeout, default) in [start, stop] {
        if Duration::from_micros(timeout) <= limit {
            continue;
        }
        // Of a oneshot, the default for the start is infinity (systemd.service(5),
        // TimeoutStartSec=).
        let is_default = timeout == default
            || (verb == "start" && facts.service_type == "oneshot" && timeout == u64::MAX);
        let time = match timeout {
            u64::MAX => "any time".to_owned(),
            _ => format!("{} s", timeout / 1_000_000),
        };
        let what = format!(
            "systemd gives {unit} {time} to {verb}, the step {} s",
            limit.as_secs()
        );
        if is_default {
            description
                .remarks
                .push(format!("{what}: if {unit} takes longer, the task fails"));
        } else {
            description.obstacles.push(format!(
                "{what}; raise the plan's unit_timeout (timeout_secs of the step), or lower the unit's \
                 own timeout"
            ));
        }
    }
}

/// Says that the stop of a timer, path or socket waits for what it has started and the step doesn't
/// name. If that has been running for longer than the step would wait, it isn't expected to
/// end by itself.
pub fn compare_triggered(
    description: &mut Description,
    trigger: &Facts,
    triggered: &Facts,
    units: &[String],
    limit: Duration,
) {
    let unit = &triggered.id;
    if triggered.service_type == "oneshot" || !settle::is_awaited(trigger, triggered, units) {
        return;
    }
    let now = jiff::Timestamp::now().as_microsecond().unsigned_abs();
    let ran = match triggered.active_since {
        0 => Duration::ZERO,
        since => Duration::from_micros(now.saturating_sub(since)),
    };
    let what = format!(
        "{unit}, which {} has started, has been running for {} s",
        trigger.id,
        ran.as_secs()
    );
    if ran > limit {
        let remedy = match trigger.accepts {
            true => format!("end the connection, or run `systemctl stop {unit}`"),
            false => format!("name {unit} in the same step, which then stops it"),
        };
        description.obstacles.push(format!(
            "{what}, and the step waits only {} s for its end; {remedy}, or try again when it has ended",
            limit.as_secs()
        ));
    } else {
        description
            .remarks
            .push(format!("{what}; the step waits for its end"));
    }
}
