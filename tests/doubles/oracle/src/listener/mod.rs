//! The listeners of all instances: TCP ports that are opened and closed the
//! way `lsnrctl` and `srvctl` open and close them.
//!
//! Stopping a listener closes its port and touches no session, as in Oracle:
//! a dedicated server has the connection, not the listener. A listener knows
//! its services by static registration (`SID_LIST` of listener.ora) or by the
//! instance's own registration; only the latter ends with ALTER SYSTEM ENABLE
//! RESTRICTED SESSION. Registration is immediate here, where Oracle may take
//! a minute.
//!
//! Listeners under Clusterware come back: see [`clusterware`].

pub mod acl;
mod clusterware;
mod port;

use crate::api::Database;
use crate::config::{self, ManagedBy};
use port::{Endpoint, Port};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

/// An instance and what its listeners need of it.
pub struct Instance {
    /// Its section of the configuration.
    pub config: config::Instance,
    /// The database as seen from this instance.
    pub db: Arc<dyn Database>,
    /// Whether logins are restricted (`V$INSTANCE.LOGINS`).
    pub restricted: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Who asks for a start or stop; it decides what Clusterware does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requester {
    /// `lsnrctl`.
    Lsnrctl,
    /// `srvctl`.
    Srvctl,
}

/// A service that something other than the simulated database has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    pub service: String,
    pub instance: String,
    /// By `SID_LIST` of listener.ora, as external procedures are.
    #[serde(default, rename = "static")]
    pub is_static: bool,
}

/// What a test arranges around a listener; the listener itself stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arrangement {
    /// Registered next to the simulated database's services.
    pub registered: Vec<Registration>,
    /// The TNS code with which `lsnrctl` fails to reach it, whether it runs or not.
    pub unreachable: Option<u32>,
    /// `ACL` of its resource in Clusterware; absent: the caller owns it.
    pub acl: Option<String>,
    /// `USER:GROUP,GROUP` that Clusterware takes the caller for.
    pub caller: Option<String>,
    /// The host runs Oracle Restart, whose `srvctl` refuses `-node`.
    pub oracle_restart: bool,
}

/// A listener as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub host: String,
    pub instance: String,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Whether Clusterware looks after it.
    pub clustered: bool,
    /// Whom it is kept for.
    pub reserved_for: Option<String>,
    /// Whether the port is open.
    pub running: bool,
    /// Whether Clusterware may start it; always so without Clusterware.
    pub enabled: bool,
    pub is_static: bool,
    pub services: Vec<String>,
    /// Restricted session blocks its services.
    pub blocked: bool,
    /// Since when it runs, in milliseconds of the Unix epoch.
    pub started_at_ms: Option<u64>,
    /// Connections handed to a server since the simulator started.
    pub established: u64,
    /// Connections refused since then.
    pub refused: u64,
    #[serde(default)]
    pub arranged: Arrangement,
}

/// Why a listener was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such listener on that host.
    #[error("there is no listener {name} on {host}")]
    Unknown { host: String, name: String },
    /// It runs already; nothing was changed.
    #[error("listener {0} is already running")]
    AlreadyRunning(String),
    /// It doesn't run; nothing was changed.
    #[error("listener {0} is not running")]
    NotRunning(String),
    /// It is disabled in Clusterware, which therefore doesn't start it.
    #[error("listener {0} is disabled")]
    Disabled(String),
    /// Enabled already; nothing was changed.
    #[error("listener {0} is already enabled")]
    AlreadyEnabled(String),
    /// Disabled already; nothing was changed.
    #[error("listener {0} is already disabled")]
    AlreadyDisabled(String),
    /// Clusterware doesn't know it: it is a plain listener.
    #[error("listener {0} is not under Clusterware")]
    NotClustered(String),
    /// Its port can't be opened; it stays stopped.
    #[error("listener {name} cannot open port {port}")]
    Bind {
        name: String,
        port: u16,
        source: std::io::Error,
    },
}

impl Error {
    /// A stable word for each kind, for the control socket.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::AlreadyRunning(_) => "already_running",
            Self::NotRunning(_) => "not_running",
            Self::Disabled(_) => "disabled",
            Self::AlreadyEnabled(_) => "already_enabled",
            Self::AlreadyDisabled(_) => "already_disabled",
            Self::NotClustered(_) => "not_clustered",
            Self::Bind { .. } => "bind",
        }
    }
}

/// One listener with its state.
struct Listener {
    endpoint: Arc<Endpoint>,
    clustered: bool,
    reserved_for: Option<String>,
    enabled: bool,
    open: Option<(Port, SystemTime)>,
    /// When Clusterware is going to start it.
    restart_at: Option<Instant>,
    arranged: Arrangement,
}

impl Listener {
    fn start(&mut self) -> Result<(), Error> {
        if self.open.is_some() {
            return Err(Error::AlreadyRunning(self.endpoint.name.clone()));
        }
        let port = Port::open(Arc::clone(&self.endpoint)).map_err(|source| Error::Bind {
            name: self.endpoint.name.clone(),
            port: self.endpoint.port,
            source,
        })?;
        self.open = Some((port, SystemTime::now()));
        self.restart_at = None;
        tracing::info!(
            listener = self.endpoint.name,
            port = self.endpoint.port,
            "listener started"
        );
        Ok(())
    }

    fn status(&self) -> Status {
        let endpoint = &self.endpoint;
        let since = self.open.as_ref().and_then(|(_, since)| {
            let elapsed = since.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            u64::try_from(elapsed.as_millis()).ok()
        });
        Status {
            name: endpoint.name.clone(),
            host: endpoint.host.clone(),
            instance: endpoint.instance.clone(),
            port: endpoint.port,
            clustered: self.clustered,
            reserved_for: self.reserved_for.clone(),
            running: self.open.is_some(),
            enabled: self.enabled,
            is_static: endpoint.is_static,
            services: endpoint.services.clone(),
            blocked: endpoint.is_blocked(),
            started_at_ms: since,
            established: endpoint.established.load(Ordering::Relaxed),
            refused: endpoint.refused.load(Ordering::Relaxed),
            arranged: self.arranged.clone(),
        }
    }
}

/// What the manager and Clusterware's agent share.
struct Shared {
    state: Mutex<State>,
    /// Something changed that the agent has to look at.
    changed: Condvar,
}

struct State {
    listeners: Vec<Listener>,
    ending: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All listeners. Dropping it closes their ports; sessions live on.
pub struct Manager {
    shared: Arc<Shared>,
    agent: Option<JoinHandle<()>>,
}

impl Manager {
    /// Prepares the listeners of a database's instances, all stopped and
    /// enabled. A listener without services offers the database and the
    /// instance.
    ///
    /// # Errors
    /// When the thread of Clusterware's agent can't be started.
    pub fn new(database: &str, instances: Vec<Instance>) -> std::io::Result<Self> {
        let listeners = instances.iter().flat_map(|instance| {
            instance.config.listeners.iter().map(|listener| Listener {
                endpoint: Arc::new(Endpoint::new(database, instance, listener)),
                clustered: listener.managed_by == ManagedBy::Srvctl,
                reserved_for: listener.reserved_for.clone(),
                enabled: true,
                open: None,
                restart_at: None,
                arranged: Arrangement::default(),
            })
        });
        let state = State {
            listeners: listeners.collect(),
            ending: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        let agent = std::thread::Builder::new()
            .name("clusterware-agent".to_owned())
            .spawn(move || clusterware::watch(&watched))?;
        Ok(Self {
            shared,
            agent: Some(agent),
        })
    }

    /// Starts every listener.
    ///
    /// # Errors
    /// The first that can't be started; those before it stay open.
    pub fn start_all(&self) -> Result<(), Error> {
        self.shared
            .lock()
            .listeners
            .iter_mut()
            .try_for_each(Listener::start)
    }

    /// The listeners of a host, or of all hosts.
    #[must_use]
    pub fn list(&self, host: Option<&str>) -> Vec<Status> {
        let state = self.shared.lock();
        let of_host = |listener: &&Listener| host.is_none_or(|host| listener.endpoint.host == host);
        state
            .listeners
            .iter()
            .filter(of_host)
            .map(Listener::status)
            .collect()
    }

    /// Opens a listener's port.
    ///
    /// # Errors
    /// When it is unknown, runs already, is disabled (for `srvctl`), is not
    /// under Clusterware (for `srvctl`), or its port is taken.
    pub fn start(&self, host: &str, name: &str, by: Requester) -> Result<Status, Error> {
        self.change(host, name, |listener| {
            if by == Requester::Srvctl {
                listener.require_clustered()?;
                if !listener.enabled && listener.open.is_none() {
                    return Err(Error::Disabled(listener.endpoint.name.clone()));
                }
            }
            listener.start()
        })
    }

    /// Closes a listener's port before it returns. Sessions live on.
    ///
    /// # Errors
    /// When it is unknown, doesn't run, or is not under Clusterware (for
    /// `srvctl`).
    pub fn stop(&self, host: &str, name: &str, by: Requester) -> Result<Status, Error> {
        self.change(host, name, |listener| {
            if by == Requester::Srvctl {
                listener.require_clustered()?;
            }
            let Some((port, _)) = listener.open.take() else {
                return Err(Error::NotRunning(listener.endpoint.name.clone()));
            };
            drop(port);
            listener.restart_at = clusterware::restart_at(listener.clustered, listener.enabled, by);
            tracing::info!(listener = listener.endpoint.name, ?by, "listener stopped");
            Ok(())
        })
    }

    /// Lets Clusterware start the listener again; one that is stopped is
    /// started soon.
    ///
    /// # Errors
    /// When it is unknown, not under Clusterware, or enabled already.
    pub fn enable(&self, host: &str, name: &str) -> Result<Status, Error> {
        self.change(host, name, |listener| {
            listener.require_clustered()?;
            if listener.enabled {
                return Err(Error::AlreadyEnabled(listener.endpoint.name.clone()));
            }
            listener.enabled = true;
            if listener.open.is_none() {
                listener.restart_at = clusterware::restart_at(true, true, Requester::Srvctl);
            }
            Ok(())
        })
    }

    /// Keeps Clusterware from starting the listener. One that runs goes on.
    ///
    /// # Errors
    /// When it is unknown, not under Clusterware, or disabled already.
    pub fn disable(&self, host: &str, name: &str) -> Result<Status, Error> {
        self.change(host, name, |listener| {
            listener.require_clustered()?;
            if !listener.enabled {
                return Err(Error::AlreadyDisabled(listener.endpoint.name.clone()));
            }
            listener.enabled = false;
            listener.restart_at = None;
            Ok(())
        })
    }

    /// Replaces what is arranged around a listener.
    ///
    /// # Errors
    /// When it is unknown.
    pub fn arrange(&self, host: &str, name: &str, with: Arrangement) -> Result<Status, Error> {
        self.change(host, name, |listener| {
            listener.arranged = with;
            Ok(())
        })
    }

    fn change(
        &self,
        host: &str,
        name: &str,
        change: impl FnOnce(&mut Listener) -> Result<(), Error>,
    ) -> Result<Status, Error> {
        let mut state = self.shared.lock();
        let found = state.listeners.iter_mut().find(|listener| {
            listener.endpoint.host == host && listener.endpoint.name.eq_ignore_ascii_case(name)
        });
        let Some(listener) = found else {
            return Err(Error::Unknown {
                host: host.to_owned(),
                name: name.to_owned(),
            });
        };
        let outcome = change(listener).map(|()| listener.status());
        self.shared.changed.notify_all();
        outcome
    }
}

impl Listener {
    fn require_clustered(&self) -> Result<(), Error> {
        if self.clustered {
            return Ok(());
        }
        Err(Error::NotClustered(self.endpoint.name.clone()))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_all();
        if let Some(agent) = self.agent.take() {
            // A panic of the agent has been reported by the panic hook.
            let _ = agent.join();
        }
        // Ports close when their listeners are dropped with the state.
        self.shared.lock().listeners.clear();
    }
}

#[cfg(test)]
mod tests;
