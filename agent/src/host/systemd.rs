//! systemd over D-Bus: states of units, jobs, enablement.
//!
//! A job counts as done when systemd reports that (`JobRemoved`), not when it
//! was queued.

use crate::error::ActionError;
use lockstep_api::Code;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;
use tokio_stream::StreamExt;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

/// How long systemd may take to answer a call, jobs excepted.
const CALL_LIMIT: Duration = Duration::from_secs(10);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn get_unit_file_state(&self, name: &str) -> zbus::Result<String>;
    fn enable_unit_files(
        &self,
        names: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<(String, String, String)>)>;
    fn disable_unit_files(
        &self,
        names: &[&str],
        runtime: bool,
    ) -> zbus::Result<Vec<(String, String, String)>>;
    fn reload(&self) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.DBus.Properties",
    default_service = "org.freedesktop.systemd1",
    gen_blocking = false
)]
trait Properties {
    fn get(&self, interface: &str, name: &str) -> zbus::Result<OwnedValue>;
    fn get_all(&self, interface: &str) -> zbus::Result<HashMap<String, OwnedValue>>;
}

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
}

impl UnitState {
    /// It is active or activating.
    pub fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }

    /// It is inactive and stays so unless it is started.
    pub fn is_down(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// A boot or a dependency starts it. A unit that is only linked doesn't
    /// count: disabling it would remove the link, and with it the unit.
    pub fn is_enabled(&self) -> bool {
        matches!(self.file.as_str(), "enabled" | "enabled-runtime")
    }
}

/// What decides whether a unit stays started or stopped: org.freedesktop.systemd1(5), "Unit Objects" and "Service Unit Objects".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub active: String,
    /// `running`, `auto-restart`, `waiting`, …
    pub sub: String,
    /// The files on disk are newer than what systemd has loaded.
    pub needs_reload: bool,
    /// Differs for every start of the unit.
    pub invocation: Vec<u8>,
    /// Sockets, timers and paths that start it.
    pub triggered_by: Vec<String>,
    /// The units that this socket, timer or path starts.
    pub triggers: Vec<String>,
    /// Of a service: `simple`, `oneshot`, …; empty for other units.
    pub service_type: String,
    /// Of a service: automatic restarts since its last start by a job.
    pub restarts: u32,
}

impl Facts {
    /// It is active, and not merely on its way there or between two restarts.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }

    /// A oneshot that ran and ended: its start job succeeds only if it did.
    pub fn has_run(&self) -> bool {
        self.service_type == "oneshot" && self.active == "inactive"
    }
}

/// A property, or its type's default where this systemd doesn't have it.
fn property<T>(all: &HashMap<String, OwnedValue>, name: &str) -> T
where
    T: TryFrom<OwnedValue> + Default,
{
    all.get(name)
        .and_then(|value| value.try_clone().ok())
        .and_then(|value| T::try_from(value).ok())
        .unwrap_or_default()
}

/// What to do with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Start,
    Stop,
    Restart,
}

impl Job {
    fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// A connection to a service manager.
pub struct Systemd {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
}

impl Systemd {
    /// Connects to the bus at this address, or to the system bus.
    ///
    /// # Errors
    /// Where the bus can't be reached or systemd isn't on it.
    pub async fn connect(address: Option<&str>) -> Result<Self, ActionError> {
        let connect = async {
            let builder = match address {
                Some(address) => zbus::connection::Builder::address(address)?,
                None => zbus::connection::Builder::system()?,
            };
            let connection = builder.build().await?;
            let manager = ManagerProxy::new(&connection).await?;
            manager.subscribe().await?;
            Ok(Self {
                connection,
                manager,
            })
        };
        limited(connect).await.map_err(|e| {
            ActionError::new(Code::LS2101, "systemd can't be reached over D-Bus")
                .state_left("nothing was done")
                .remedy(
                    "see that the agent may talk to the bus named under [systemd] in agent.toml",
                )
                .source(e)
        })
    }

    async fn properties(&self, unit: &str) -> zbus::Result<PropertiesProxy<'_>> {
        let path = self.manager.load_unit(unit).await?;
        PropertiesProxy::builder(&self.connection)
            .path(path)?
            .build()
            .await
    }

    /// A unit's current state.
    ///
    /// # Errors
    /// Where systemd doesn't answer. A unit that doesn't exist is a state
    /// (`not-found`), not an error.
    pub async fn state(&self, unit: &str) -> Result<UnitState, ActionError> {
        let read = async {
            let properties = self.properties(unit).await?;
            let get = async |name: &str| -> zbus::Result<String> {
                let value = properties
                    .get("org.freedesktop.systemd1.Unit", name)
                    .await?;
                Ok(String::try_from(value)?)
            };
            let (load, active) = (get("LoadState").await?, get("ActiveState").await?);
            let file = match load.as_str() {
                "loaded" | "masked" => self
                    .manager
                    .get_unit_file_state(unit)
                    .await
                    .unwrap_or_default(),
                _ => String::new(),
            };
            Ok(UnitState { load, active, file })
        };
        limited(read).await.map_err(|e| {
            ActionError::new(
                Code::LS2102,
                format!("systemd doesn't tell the state of {unit}"),
            )
            .remedy("see `systemctl status` of it")
            .source(e)
        })
    }

    /// What decides whether a unit stays as it is.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn facts(&self, unit: &str) -> Result<Facts, ActionError> {
        let read = async {
            let properties = self.properties(unit).await?;
            let all = properties.get_all("org.freedesktop.systemd1.Unit").await?;
            let service = match unit.ends_with(".service") {
                true => {
                    properties
                        .get_all("org.freedesktop.systemd1.Service")
                        .await?
                }
                false => HashMap::new(),
            };
            Ok(Facts {
                active: property(&all, "ActiveState"),
                sub: property(&all, "SubState"),
                needs_reload: property(&all, "NeedDaemonReload"),
                invocation: property(&all, "InvocationID"),
                triggered_by: property(&all, "TriggeredBy"),
                triggers: property(&all, "Triggers"),
                service_type: property(&service, "Type"),
                restarts: property(&service, "NRestarts"),
            })
        };
        limited(read).await.map_err(|e| {
            ActionError::new(
                Code::LS2102,
                format!("systemd doesn't tell the properties of {unit}"),
            )
            .remedy("see `systemctl show` of it")
            .source(e)
        })
    }

    /// Reads all unit files anew.
    ///
    /// # Errors
    /// Where systemd rejects it.
    pub async fn reload(&self, unit: &str) -> Result<(), ActionError> {
        limited(self.manager.reload()).await.map_err(|e| {
            ActionError::new(
                Code::LS2103,
                format!("systemd has an old configuration of {unit} and can't reload"),
            )
            .state_left(format!("{unit} was not started"))
            .remedy("run `systemctl daemon-reload`, then retry")
            .source(e)
        })
    }

    /// Queues a job and waits until systemd has finished it.
    ///
    /// # Errors
    /// Where systemd rejects the job, it fails, or it takes longer than `limit`.
    pub async fn run(&self, job: Job, unit: &str, limit: Duration) -> Result<(), ActionError> {
        let failed = |what: String| {
            ActionError::new(Code::LS2103, what)
                .state_left(format!("{unit} is in whatever state systemd left it"))
                .remedy(format!(
                    "see `systemctl status {unit}` and its journal, then retry"
                ))
        };
        let work = async {
            let mut removed = self.manager.receive_job_removed().await?;
            let path = match job {
                Job::Start => self.manager.start_unit(unit, "replace").await?,
                Job::Stop => self.manager.stop_unit(unit, "replace").await?,
                Job::Restart => self.manager.restart_unit(unit, "replace").await?,
            };
            while let Some(signal) = removed.next().await {
                let args = signal.args()?;
                if *args.job() == path {
                    return Ok(args.result().clone());
                }
            }
            Err(zbus::Error::Failure(
                "the bus closed before the job ended".to_owned(),
            ))
        };
        let verb = job.verb();
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => Err(failed(format!(
                "{unit} did not {verb}: systemd says {result}"
            ))),
            Ok(Err(e)) => Err(failed(format!("{unit} could not be asked to {verb}")).source(e)),
            Err(_) => Err(failed(format!(
                "{unit} did not {verb} within {} s",
                limit.as_secs()
            ))),
        }
    }

    /// Enables or disables a unit permanently.
    ///
    /// # Errors
    /// Where systemd rejects it.
    pub async fn set_enabled(&self, unit: &str, enabled: bool) -> Result<(), ActionError> {
        let change = async {
            if enabled {
                self.manager.enable_unit_files(&[unit], false, true).await?;
            } else {
                self.manager.disable_unit_files(&[unit], false).await?;
            }
            self.manager.reload().await
        };
        limited(change).await.map_err(|e| {
            let verb = if enabled { "enabled" } else { "disabled" };
            ActionError::new(Code::LS2104, format!("{unit} can't be {verb}"))
                .state_left("its enablement is as it was, or half changed")
                .remedy(format!("see `systemctl is-enabled {unit}`, then retry"))
                .source(e)
        })
    }
}

async fn limited<T>(work: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    match tokio::time::timeout(CALL_LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(zbus::Error::Failure(format!(
            "no answer within {} s",
            CALL_LIMIT.as_secs()
        ))),
    }
}
