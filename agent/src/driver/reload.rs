//! Takes a changed configuration file into use, between runs.
//!
//! A run is judged by one policy from its first vote to its end: while the agent takes
//! part in a run, a changed file waits. A file that can't be used changes nothing.

use super::Driver;
use crate::config::Config;
use crate::host::Host;
use crate::worker::Worker;
use lockstep_api::Code;
use lockstep_telemetry::error_chain;
use std::path::Path;
use std::sync::Arc;

impl Driver {
    /// Reads the file that has changed, or notes that it has.
    pub(super) fn on_config_changed(&mut self) {
        self.config_changed = true;
        if let Some(run) = self.participant.state().locked() {
            tracing::info!(%run, "the changed configuration is used when the run has ended");
        }
        self.reload_between_runs();
    }

    /// Reads the file, if it has changed and no run is in progress.
    pub(super) fn reload_between_runs(&mut self) {
        if !self.config_changed || self.participant.state().locked().is_some() {
            return;
        }
        self.config_changed = false;
        let Some(file) = self.host.config.file.clone() else {
            return;
        };
        match usable(&self.host.config, &file) {
            Ok(config) => {
                tracing::info!(file = %file.display(), "the changed configuration is in effect");
                self.host = Arc::new(Host::new(config));
                self.worker = Worker::new(self.host.clone());
                // The next session's introduction has the new labels and actions.
                self.outbox.send_replace(None);
            }
            Err(why) => tracing::error!(
                "{}: the changed configuration isn't used, the previous one remains in effect: \
                 {why}",
                Code::LS3006
            ),
        }
    }
}

fn usable(now: &Config, file: &Path) -> Result<Config, String> {
    let config = Config::load(file).map_err(|e| error_chain(&e))?;
    let fixed = config.needs_restart(now);
    if fixed.is_empty() {
        return Ok(config);
    }
    Err(format!(
        "{} can only be changed by a restart of the agent: restart it between runs",
        fixed.join(", ")
    ))
}
