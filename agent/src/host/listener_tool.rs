//! Runs the tools that control listeners.
//!
//! A listener belongs to the home it runs from, and its `listener.ora` to that
//! home or to `TNS_ADMIN`. Run from another home, `lsnrctl start` doesn't
//! find it and may start a default listener instead (Oracle
//! Database Net Services Reference, "Listener Control Utility"); `srvctl` has
//! to be that of the Grid home for what belongs to it (Oracle Real Application
//! Clusters Administration and Deployment Guide, "SRVCTL Usage Information").
//!
//! The agent passes no other environment on. A listener hands its own to the
//! dedicated servers that it starts, so it gets what the setup of a home sets:
//! `ORACLE_HOME`, `LD_LIBRARY_PATH` (its `lib`), `TNS_ADMIN` where configured,
//! and the agent's `TZ` where that is set. `ORACLE_BASE` isn't passed: a home
//! holds it in `install/orabasetab`.

use super::command::Program;
use crate::config::OracleConfig;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tool and its environment.
pub struct Tool<'a> {
    path: PathBuf,
    environment: Vec<(&'static str, Cow<'a, str>)>,
}

impl<'a> Tool<'a> {
    /// The tool of that name, from the listeners' home.
    pub fn of(oracle: &'a OracleConfig, name: &str) -> Self {
        let home = oracle.listener_home();
        let libraries = home.join("lib").to_string_lossy().into_owned();
        let mut environment = vec![
            ("ORACLE_HOME", home.to_string_lossy()),
            ("LD_LIBRARY_PATH", libraries.into()),
        ];
        if let Ok(zone) = std::env::var("TZ") {
            environment.push(("TZ", zone.into()));
        }
        if let Some(directory) = &oracle.tns_admin {
            environment.push(("TNS_ADMIN", directory.to_string_lossy()));
        }
        Self {
            path: home.join("bin").join(name),
            environment,
        }
    }

    /// Adds an environment variable.
    pub fn with(mut self, name: &'static str, value: &'a str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// One invocation of the tool.
    pub fn program<'b>(&'b self, arguments: Vec<&'b str>, limit: Duration) -> Program<'b> {
        let environment = self.environment.iter();
        Program {
            path: Path::new(&self.path),
            arguments,
            environment: environment.map(|(name, value)| (*name, &**value)).collect(),
            limit,
            tagged: false,
        }
    }
}
