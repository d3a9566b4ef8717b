//! `oracle.listener.stop` and `oracle.listener.start`.
//!
//! Stopping a listener doesn't end its sessions. Under Clusterware a listener is
//! also disabled, otherwise Clusterware would restart it. The listeners in
//! `keep`, reserved for DMS, are not changed. A listener that serves other
//! databases too is only stopped if the plan names their instances.

use super::listener_checks::{self, OtherInstances};
use super::listeners::{Listeners, State, States};
use super::required_permissions;
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::actions::combine_errors;
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{ListenerSelection, StartListeners, StopListeners};
use serde_json::Value;

/// Makes the instance register its services with a listener that has just
/// started; otherwise applications get ORA-12514 for up to a minute (Oracle
/// Database Net Services Administrator's Guide, "About Service Registration").
const REGISTER: &str = "ALTER SYSTEM REGISTER";

/// `oracle.listener.stop`
pub struct Stop;

/// `oracle.listener.start`
pub struct Start;

fn probe(states: &States, is_so: fn(State) -> bool) -> Result<Probe, ActionError> {
    let so = states.values().all(|state| is_so(*state));
    with_before_image(satisfied_if(so), states)
}

/// Restores every listener, continuing after failures: one broken listener must
/// not keep applications from using the others.
async fn restore(
    cx: &Context,
    params: &ListenerSelection,
    before_image: &Value,
) -> Result<Undone, ActionError> {
    let states: States = decode_before_image(before_image)?;
    let listeners = Listeners::of(cx, &params.resource).await?;
    let (mut opened, mut changed, mut failures) = (false, false, Vec::new());
    let mut unknown = Vec::new();
    for (name, was) in &states {
        if was.unreachable {
            unknown.push(name.as_str());
            continue;
        }
        match put_one_back(cx, &listeners, name, *was).await {
            Ok(this) => {
                changed |= this;
                opened |= this && was.up;
            }
            Err(e) => failures.push(e),
        }
    }
    if opened {
        register(cx, &params.resource).await;
    }
    combine_errors(failures, Code::LS2215, "listeners are not back")?;
    if !unknown.is_empty() {
        return Ok(Undone::Drifted(format!(
            "{} couldn't be reached before the start, so it may have been up; it is left as it is: \
             stop it if it was down",
            unknown.join(", ")
        )));
    }
    Ok(Undone::restored_if(changed))
}

async fn put_one_back(
    cx: &Context,
    listeners: &Listeners,
    name: &str,
    was: State,
) -> Result<bool, ActionError> {
    let now = if was.up {
        listeners.state_for_start(cx, name).await?
    } else {
        listeners.state(cx, name).await?
    };
    if now == was {
        return Ok(false);
    }
    if was.up && !now.up {
        listeners.open(cx, name).await?;
    } else if !was.up && now.up {
        listeners.close(cx, name).await?;
    }
    if let Some(enabled) = was.enabled
        && listeners.state(cx, name).await?.enabled != Some(enabled)
    {
        listeners.set_enabled(cx, name, enabled).await?;
    }
    Ok(true)
}

/// A failure is only noted: the listener is up, and the instance registers its
/// services within a minute anyway.
async fn register(cx: &Context, resource: &str) {
    let report = async {
        let session = Session::open(cx, resource).await?;
        Ok::<(), ActionError>(session.execute(REGISTER, &[]).await?)
    };
    match report.await {
        Ok(()) => cx.effect(REGISTER),
        Err(e) => cx.note(format!(
            "services register within a minute, not at once: {}",
            e.report()
        )),
    }
}

fn names(states: &States, are_meant: fn(State) -> bool) -> Vec<String> {
    let meant = states.iter().filter(|(_, state)| are_meant(**state));
    meant.map(|(name, _)| name.clone()).collect()
}

fn shown(name: &str, state: State) -> String {
    let up = match (state.up, state.unreachable) {
        (true, _) => "up",
        (false, false) => "down",
        (false, true) => "not reachable from here, so it may be up",
    };
    match state.enabled {
        None => format!("{name} is {up}"),
        Some(true) => format!("{name} is {up} and enabled"),
        Some(false) => format!("{name} is {up} and disabled"),
    }
}

#[async_trait]
impl Action for Stop {
    type Params = StopListeners;

    fn required_permissions(&self, params: &StopListeners) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &StopListeners) -> Result<Probe, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        let states = listeners.states(cx, &listeners.meant(params)?).await?;
        let up = names(&states, |state| state.up);
        let (resource, admitted) = (&params.resource, &params.also_serves);
        OtherInstances::of(cx, &listeners, &up, resource, admitted)
            .await?
            .verdict()?;
        probe(&states, State::is_closed)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &StopListeners,
    ) -> Result<Description, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        let mut description = Description::default();
        let states = listeners.states(cx, &listeners.meant(params)?).await?;
        for (name, state) in &states {
            description.remarks.push(shown(name, *state));
            if !state.is_closed() {
                description.would_do.extend(listeners.closing(name));
            }
        }
        let up = names(&states, |state| state.up);
        let (resource, admitted) = (&params.resource, &params.also_serves);
        OtherInstances::of(cx, &listeners, &up, resource, admitted)
            .await?
            .describe(&mut description);
        let all: Vec<String> = states.into_keys().collect();
        listener_checks::permissions(cx, &listeners, &all, &['w', 'x'], &mut description).await?;
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StopListeners,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        for name in listeners.meant(params)? {
            if !listeners.state(cx, &name).await?.is_closed() {
                listeners.close(cx, &name).await?;
            }
        }
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &StopListeners,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        restore(cx, params, before_image).await
    }
}

#[async_trait]
impl Action for Start {
    type Params = StartListeners;

    fn required_permissions(&self, params: &StartListeners) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &StartListeners) -> Result<Probe, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        let mut states = States::new();
        for name in listeners.meant(params)? {
            let state = listeners.state_for_start(cx, &name).await?;
            states.insert(name, state);
        }
        probe(&states, State::is_open)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &StartListeners,
    ) -> Result<Description, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        let mut description = Description::default();
        for name in listeners.meant(params)? {
            let state = listeners.state_for_start(cx, &name).await?;
            description.remarks.push(shown(&name, state));
            if !state.is_open() {
                description.would_do.extend(listeners.opening(&name));
            }
        }
        if !description.would_do.is_empty() {
            description.would_do.push(REGISTER.to_owned());
        }
        let all = listeners.meant(params)?;
        listener_checks::permissions(cx, &listeners, &all, &['w', 'x'], &mut description).await?;
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StartListeners,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        for name in listeners.meant(params)? {
            if !listeners.state_for_start(cx, &name).await?.is_open() {
                listeners.open(cx, &name).await?;
            }
        }
        register(cx, &params.resource).await;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &StartListeners,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        restore(cx, params, before_image).await
    }
}
