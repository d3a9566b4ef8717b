//! The host for the actions: configuration, policy, and one thin wrapper for
//! each tool or driver. Nothing else accesses files, processes or services.

pub mod aws;
mod child;
pub mod cloudwatch;
pub mod command;
pub mod context;
pub mod crsctl;
pub mod dms;
pub mod endpoint;
pub mod files;
pub mod idle_pool;
mod listener_tool;
pub mod lsnrctl;
pub mod oracle;
pub mod postgres;
pub mod processes;
mod secret_file;
pub mod sqlnet;
pub mod srvctl;
pub mod state_file;
pub mod systemd;
pub mod work;

use crate::config::{AwsConfig, Config, OracleConfig, PostgresConfig};
use crate::error::ActionError;
use crate::policy::Policy;
use idle_pool::IdlePool;
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::sync::Arc;
use systemd::Systemd;
use tokio::sync::Mutex;

/// Everything that an action may use.
pub struct Host {
    pub config: Config,
    pub policy: Policy,
    systemd: Mutex<Option<Arc<Systemd>>>,
    oracle_logins: Arc<IdlePool<oracle::Login>>,
    postgres_logins: Arc<IdlePool<Arc<postgres::Login>>>,
    aws: aws::ClientCache,
}

impl Host {
    /// Connects to nothing yet.
    pub fn new(config: Config) -> Self {
        let policy = Policy::new(&config);
        Self {
            config,
            policy,
            systemd: Mutex::default(),
            oracle_logins: IdlePool::new(),
            postgres_logins: IdlePool::new(),
            aws: aws::ClientCache::default(),
        }
    }

    /// The service manager, connected on first use and again after the connection
    /// broke: a bus that is restarted closes all of them. Call this again before each
    /// change, so that the change is sent once, over a connection that works.
    ///
    /// # Errors
    /// Where its bus can't be reached.
    pub async fn systemd(&self) -> Result<Arc<Systemd>, ActionError> {
        let mut connected = self.systemd.lock().await;
        if let Some(systemd) = connected.as_ref()
            && systemd.answers().await
        {
            return Ok(systemd.clone());
        }
        *connected = None;
        let systemd = Systemd::connect(self.config.systemd.address.as_deref()).await?;
        Ok(connected.insert(Arc::new(systemd)).clone())
    }

    /// An Oracle resource.
    ///
    /// # Errors
    /// Where the configuration has none of that name.
    pub fn oracle(&self, name: &str) -> Result<&OracleConfig, ActionError> {
        resource(&self.config.oracle, "oracle", name)
    }

    /// A PostgreSQL resource.
    ///
    /// # Errors
    /// Where the configuration has none of that name.
    pub fn postgres(&self, name: &str) -> Result<&PostgresConfig, ActionError> {
        resource(&self.config.postgres, "postgres", name)
    }

    /// An AWS resource.
    ///
    /// # Errors
    /// Where the configuration has none of that name.
    pub fn aws(&self, name: &str) -> Result<&AwsConfig, ActionError> {
        resource(&self.config.aws, "aws", name)
    }
}

fn resource<'a, T>(
    all: &'a BTreeMap<String, T>,
    kind: &str,
    name: &str,
) -> Result<&'a T, ActionError> {
    all.get(name).ok_or_else(|| {
        ActionError::new(
            Code::LS2005,
            format!("this agent has no resource {kind}.{name}"),
        )
        .state_left("nothing was done")
        .remedy(format!("define [{kind}.{name}] in agent.toml"))
    })
}
