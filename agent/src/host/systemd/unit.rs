//! What systemd reports about one unit.
//!
//! The properties are those of org.freedesktop.systemd1(5), "Unit Objects",
//! "Service Unit Objects", "Socket Unit Objects" and "Timer Unit Objects".

use super::links::Link;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use zbus::zvariant::OwnedValue;

/// All properties of one interface of a unit.
pub(super) type Properties = HashMap<String, OwnedValue>;

/// A unit's state in systemd: what a task before-images before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `enabled`, `disabled`, `static`, `linked`, … ; empty where the unit
    /// has no file.
    pub file: String,
    /// The links that its enablement consists of. Only of units whose
    /// enablement the task changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Of a oneshot: its last run. Empty for every other unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invocation: Vec<u8>,
}

impl UnitState {
    /// It is active, or about to be.
    pub fn is_up(&self) -> bool {
        is_up(&self.active)
    }

    /// It is inactive and stays so unless it is started.
    pub fn is_down(&self) -> bool {
        is_down(&self.active)
    }

    /// It is a oneshot whose program runs. One that has run and stays `active`
    /// (RemainAfterExit=) is a state like any other.
    pub fn is_running_once(&self) -> bool {
        self.active == "activating" && !self.invocation.is_empty()
    }

    /// It is a oneshot whose last run failed.
    pub fn has_failed_to_run(&self) -> bool {
        self.active == "failed" && !self.invocation.is_empty()
    }

    /// A boot or a dependency starts it. A unit that is only linked doesn't
    /// count: disabling it would remove the link, and with it the unit.
    pub fn is_enabled(&self) -> bool {
        matches!(self.file.as_str(), "enabled" | "enabled-runtime")
    }
}

fn is_up(active: &str) -> bool {
    active == "activating" || is_active(active)
}

/// While it reloads, and while its mounts are refreshed (since systemd 257), a unit runs.
fn is_active(active: &str) -> bool {
    matches!(active, "active" | "reloading" | "refreshing")
}

fn is_down(active: &str) -> bool {
    matches!(active, "inactive" | "failed")
}

/// What decides whether a unit can be started or stopped, whether it stays so,
/// and which other units change with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its name, where it was asked for by an alias.
    pub id: String,
    /// Its names, aliases included.
    pub names: Vec<String>,
    pub load: String,
    pub active: String,
    /// `running`, `auto-restart`, `waiting`, …
    pub sub: String,
    /// Its file; empty where it has none.
    pub fragment: String,
    /// Files that add to its file.
    pub drop_ins: Vec<String>,
    /// It was made at run time, and its file is removed when it stops.
    pub transient: bool,
    /// It can be started by a job: `false` with RefuseManualStart=.
    pub can_start: bool,
    /// It can be stopped by a job: `false` with RefuseManualStop=.
    pub can_stop: bool,
    /// Since when it has been active, in microseconds of the epoch; 0 if it never was.
    pub active_since: u64,
    /// The files on disk are newer than what systemd has loaded.
    pub needs_reload: bool,
    /// Differs for every start of the unit.
    pub invocation: Vec<u8>,
    /// Sockets, timers and paths that start it.
    pub triggered_by: Vec<String>,
    /// The units that this socket, timer or path starts.
    pub triggers: Vec<String>,
    /// A job of it is queued or runs.
    pub has_job: bool,
    /// systemd stops it once no active unit needs it.
    pub stop_when_unneeded: bool,
    /// Of a service: `simple`, `oneshot`, …; empty for other units.
    pub service_type: String,
    /// Of a service: `success`, or why it failed.
    pub result: String,
    /// Of a service: automatic restarts since its last start by a job.
    pub restarts: u32,
    /// Of a service: the microseconds after which systemd gives up its start or
    /// stop; `u64::MAX` where it never does, 0 for other units.
    pub timeout_start: u64,
    pub timeout_stop: u64,
    /// Of a timer: it catches up when it is started.
    pub persistent: bool,
    /// Of a socket: it starts a service for each connection (Accept=).
    pub accepts: bool,
    dependencies: HashMap<&'static str, Vec<String>>,
}

/// Dependencies by which the stop of a unit stops others (systemd.unit(5)): the inverses
/// of Requires=, Requisite=, BindsTo= and PartOf=, and PropagatesStopTo=.
const STOPS: &[&str] = &[
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "ConsistsOf",
    "PropagatesStopTo",
];

/// Those by which the start of a unit starts others.
const STARTS: &[&str] = &["Requires", "BindsTo", "Wants", "Upholds"];

/// Those by which the start of a unit stops others.
const ENDS: &[&str] = &["Conflicts", "ConflictedBy"];

/// Those that keep a unit with StopWhenUnneeded= active.
const NEEDED_BY: &[&str] = &[
    "RequiredBy",
    "RequisiteOf",
    "WantedBy",
    "BoundBy",
    "UpheldBy",
];

impl Facts {
    pub(super) fn new(unit: &Properties, own: &Properties) -> Self {
        let dependencies = [STOPS, STARTS, ENDS, NEEDED_BY]
            .concat()
            .into_iter()
            .map(|kind| (kind, property(unit, kind)))
            .collect();
        Self {
            id: property(unit, "Id"),
            names: property(unit, "Names"),
            load: property(unit, "LoadState"),
            active: property(unit, "ActiveState"),
            sub: property(unit, "SubState"),
            fragment: property(unit, "FragmentPath"),
            drop_ins: property(unit, "DropInPaths"),
            transient: property(unit, "Transient"),
            can_start: property(unit, "CanStart"),
            can_stop: property(unit, "CanStop"),
            active_since: property(unit, "ActiveEnterTimestamp"),
            needs_reload: property(unit, "NeedDaemonReload"),
            invocation: property(unit, "InvocationID"),
            triggered_by: property(unit, "TriggeredBy"),
            triggers: property(unit, "Triggers"),
            has_job: has_job(unit),
            stop_when_unneeded: property(unit, "StopWhenUnneeded"),
            service_type: property(own, "Type"),
            result: property(own, "Result"),
            restarts: property(own, "NRestarts"),
            timeout_start: property(own, "TimeoutStartUSec"),
            timeout_stop: property(own, "TimeoutStopUSec"),
            persistent: property(own, "Persistent"),
            accepts: property(own, "Accept"),
            dependencies,
        }
    }

    fn of_kinds<'a>(&'a self, kinds: &[&'static str]) -> Vec<&'a str> {
        kinds
            .iter()
            .filter_map(|kind| self.dependencies.get(kind))
            .flatten()
            .map(String::as_str)
            .collect()
    }

    /// The units that are stopped with it.
    pub fn stops(&self) -> Vec<&str> {
        self.of_kinds(STOPS)
    }

    /// The units that are started with it.
    pub fn starts(&self) -> Vec<&str> {
        self.of_kinds(STARTS)
    }

    /// The units that its start stops.
    pub fn ends(&self) -> Vec<&str> {
        self.of_kinds(ENDS)
    }

    /// The units that keep it active, if it has StopWhenUnneeded=.
    pub fn needed_by(&self) -> Vec<&str> {
        self.of_kinds(NEEDED_BY)
    }

    /// The units that start it again whenever it is down, while they are active.
    pub fn upheld_by(&self) -> Vec<&str> {
        self.of_kinds(&["UpheldBy"])
    }

    /// The units whose start starts it.
    pub fn started_by(&self) -> Vec<&str> {
        self.of_kinds(&["RequiredBy", "WantedBy", "BoundBy", "UpheldBy"])
    }

    /// It is active, or about to be.
    pub fn is_up(&self) -> bool {
        is_up(&self.active)
    }

    /// It is active, and not merely on its way there or between two restarts.
    pub fn is_active(&self) -> bool {
        is_active(&self.active)
    }

    /// It is neither up nor down: `deactivating`, perhaps with a start queued after it, or
    /// `maintenance`. What it will be isn't known before it has settled.
    pub fn is_unsettled(&self) -> bool {
        !is_up(&self.active) && !is_down(&self.active)
    }

    /// It has ended by itself and waits to be started again, so that it counts as up and
    /// may never be (`auto-restart`, `auto-restart-queued`).
    pub fn is_between_restarts(&self) -> bool {
        self.sub.starts_with("auto-restart")
    }

    /// See [`UnitState::is_running_once`].
    pub fn is_running_once(&self) -> bool {
        self.service_type == "oneshot" && self.active == "activating"
    }

    /// A oneshot that ran and ended: its start job succeeds only if it did.
    pub fn has_run(&self) -> bool {
        self.service_type == "oneshot" && self.active == "inactive"
    }

    /// Its file was removed since systemd loaded it.
    pub fn lost_its_file(&self) -> bool {
        self.load == "not-found"
            || (!self.fragment.is_empty()
                && matches!(Path::new(&self.fragment).try_exists(), Ok(false)))
    }
}

/// A property, or its type's default where this systemd doesn't have it.
fn property<T>(all: &Properties, name: &str) -> T
where
    T: TryFrom<OwnedValue> + Default,
{
    all.get(name)
        .and_then(|value| value.try_clone().ok())
        .and_then(|value| T::try_from(value).ok())
        .unwrap_or_default()
}

/// `Job` is the number and the path of a unit's job; number 0 is none.
fn has_job(unit: &Properties) -> bool {
    unit.get("Job")
        .and_then(|job| job.downcast_ref::<zbus::zvariant::Structure<'_>>().ok())
        .and_then(|job| job.fields().first().and_then(|id| id.downcast_ref().ok()))
        .is_some_and(|id: u32| id != 0)
}
