//! systemd over D-Bus: states of units, jobs, enablement.
//!
//! A job counts as done when systemd reports that (`JobRemoved`), not when it
//! was queued.

mod bus;
pub mod links;
mod unit;

use crate::error::ActionError;
use bus::{ManagerProxy, PeerProxy, PropertiesProxy, limited};
use lockstep_api::Code;
use std::time::Duration;
use tokio_stream::StreamExt;
use unit::Properties;
pub use unit::{Facts, UnitState};

/// How often a unit's state is read while the bus can't report the end of its job.
const POLL: Duration = Duration::from_millis(500);

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

/// Time limits of units that don't set their own, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultTimeouts {
    pub start: u64,
    pub stop: u64,
}

/// A connection to a service manager.
pub struct Systemd {
    address: Option<String>,
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
                address: address.map(str::to_owned),
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

    /// The connection still reaches systemd. It doesn't after a restart of the bus.
    pub async fn answers(&self) -> bool {
        let ping = async { PeerProxy::new(&self.connection).await?.ping().await };
        limited(ping).await.is_ok()
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
        self.state_of(unit, &self.facts(unit).await?).await
    }

    /// The state that belongs to these facts about a unit.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn state_of(&self, unit: &str, facts: &Facts) -> Result<UnitState, ActionError> {
        let file = match facts.load.as_str() {
            "loaded" | "masked" => limited(self.manager.get_unit_file_state(unit))
                .await
                .unwrap_or_default(),
            _ => String::new(),
        };
        Ok(UnitState {
            load: facts.load.clone(),
            active: facts.active.clone(),
            file,
            links: Vec::new(),
            invocation: match facts.service_type.as_str() {
                "oneshot" => facts.invocation.clone(),
                _ => Vec::new(),
            },
        })
    }

    /// What decides whether a unit stays as it is, and what changes with it.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn facts(&self, unit: &str) -> Result<Facts, ActionError> {
        let read = async {
            let properties = self.properties(unit).await?;
            let get = async |interface: &str| {
                let name = format!("org.freedesktop.systemd1.{interface}");
                properties.get_all(&name).await
            };
            let all = get("Unit").await?;
            let own = match unit.rsplit('.').next() {
                Some("service") => get("Service").await?,
                Some("socket") => get("Socket").await?,
                Some("timer") => get("Timer").await?,
                _ => Properties::new(),
            };
            Ok(Facts::new(&all, &own))
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

    /// The time limits of units that don't set their own.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn default_timeouts(&self) -> Result<DefaultTimeouts, ActionError> {
        let read = async {
            Ok(DefaultTimeouts {
                start: self.manager.default_timeout_start().await?,
                stop: self.manager.default_timeout_stop().await?,
            })
        };
        limited(read).await.map_err(|e| {
            ActionError::new(Code::LS2102, "systemd doesn't tell its default timeouts")
                .remedy("see `systemctl show -p DefaultTimeoutStopUSec`")
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

    /// Queues a job and waits until systemd has finished it. If the bus closes
    /// meanwhile, the job isn't queued again: its result is read from the unit.
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
        let verb = job.verb();
        let work = async {
            match self.queue(job, unit).await {
                Ok(result) if result == "done" => Ok(()),
                Ok(result) => Err(failed(format!(
                    "{unit} did not {verb}: systemd says {result}"
                ))),
                Err(e @ zbus::Error::MethodError(..)) => {
                    Err(failed(format!("{unit} could not be asked to {verb}")).source(e))
                }
                Err(e) if job == Job::Restart => {
                    let what = format!("the bus closed before the end of the restart of {unit}");
                    Err(failed(what).source(e))
                }
                Err(e) => match self.outcome_by_state(job, unit).await {
                    true => Ok(()),
                    false => {
                        let what = format!("{unit} did not {verb}, and the bus closed meanwhile");
                        Err(failed(what).source(e))
                    }
                },
            }
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err(failed(format!("{unit} did not {verb} within {seconds} s")))
        })
    }

    /// The result of a job.
    async fn queue(&self, job: Job, unit: &str) -> zbus::Result<String> {
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
    }

    /// Over new connections: waits until the unit is neither starting nor
    /// stopping, and returns whether it is as the job wants it.
    async fn outcome_by_state(&self, job: Job, unit: &str) -> bool {
        loop {
            tokio::time::sleep(POLL).await;
            let Ok(fresh) = Self::connect(self.address.as_deref()).await else {
                continue;
            };
            let Ok(now) = fresh.facts(unit).await else {
                continue;
            };
            match now.active.as_str() {
                _ if now.has_job => {}
                "activating" => {}
                _ if now.is_unsettled() => {}
                _ if now.is_active() => return job == Job::Start,
                _ => return job == Job::Stop,
            }
        }
    }
}
