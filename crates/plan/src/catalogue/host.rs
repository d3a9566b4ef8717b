//! Actions on a host: systemd units, cron, processes, files, checks, commands.

use super::{defaults, deref_to_parameters};
use crate::actions::{ActionSpec, Effect, each};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `service.stop`: stops systemd units (services, timers) in the order of the list,
/// sockets, timers and paths first, and waits for the end of what a timer or path has
/// started and the list doesn't name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopService {
    /// Unit names with suffix (`orders.service`, `report.timer`), in the
    /// order in which they are stopped.
    pub units: Vec<String>,
    /// Seconds that one unit may take before the task fails.
    #[serde(default = "defaults::unit_secs")]
    pub timeout_secs: u64,
    /// Also disable the units, so that neither a boot nor a dependency starts
    /// them again. Undo restores the links that made up their enablement.
    #[serde(default)]
    pub enablement: bool,
}

impl ActionSpec for StopService {
    const NAME: &'static str = "service.stop";
    const SUMMARY: &'static str = "stop systemd units";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(each(&self.units, self.timeout_secs))
    }
}

/// `service.start`: starts systemd units in reverse order, sockets first, and
/// the units that a `service.stop` of the same run stopped along with them. Units that
/// were inactive before that stop stay inactive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartService {
    /// Unit names with suffix (`orders.service`, `report.timer`), in the
    /// order of stopping; they are started in reverse.
    pub units: Vec<String>,
    /// Seconds that one unit may take before the task fails.
    #[serde(default = "defaults::unit_secs")]
    pub timeout_secs: u64,
    /// Also enable the units. If a `service.stop` of the same run has disabled
    /// them, they get back the links that they had.
    #[serde(default)]
    pub enablement: bool,
}

impl ActionSpec for StartService {
    const NAME: &'static str = "service.start";
    const SUMMARY: &'static str = "start systemd units";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(each(&self.units, self.timeout_secs))
    }
}

/// `service.restart`: restarts systemd units one after the other, except those that
/// are inactive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartService {
    /// Unit names with suffix (`orders.service`, `report.timer`), in the
    /// order in which they are restarted.
    pub units: Vec<String>,
    /// Seconds that one unit may take before the task fails.
    #[serde(default = "defaults::unit_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for RestartService {
    const NAME: &'static str = "service.restart";
    const SUMMARY: &'static str = "restart systemd units";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(each(&self.units, self.timeout_secs))
    }
}

/// Crontab files such as `/etc/cron.d/x`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CronFiles {
    /// Absolute paths of the crontab files.
    pub files: Vec<String>,
}

/// `cron.disable`: renames crontab files so that cron ignores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DisableCron(pub CronFiles);

impl ActionSpec for DisableCron {
    const NAME: &'static str = "cron.disable";
    const SUMMARY: &'static str = "disable crontab files";
    const EFFECT: Effect = Effect::Undoable;
}

/// `cron.restore`: restores crontab files that `cron.disable` has renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreCron(pub CronFiles);

impl ActionSpec for RestoreCron {
    const NAME: &'static str = "cron.restore";
    const SUMMARY: &'static str = "restore crontab files";
    const EFFECT: Effect = Effect::Permanent;
}

/// `process.stop`: terminates processes listed in the agent's policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopProcess {
    /// Names from the policy's `[policy.processes]`.
    pub processes: Vec<String>,
    /// Seconds between SIGTERM and SIGKILL.
    #[serde(default = "defaults::process_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for StopProcess {
    const NAME: &'static str = "process.stop";
    const SUMMARY: &'static str = "terminate processes that belong to no unit";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(each(&self.processes, self.timeout_secs))
    }
}

/// `config.switch`: atomically replaces a file or a symbolic link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchConfig {
    /// Absolute path that applications read.
    pub path: String,
    /// Absolute path of the replacement: the new target if `path` is a link, the
    /// file with the new content if it is a file.
    pub to: String,
}

impl ActionSpec for SwitchConfig {
    const NAME: &'static str = "config.switch";
    const SUMMARY: &'static str = "replace a configuration file or link";
    const EFFECT: Effect = Effect::Undoable;
}

/// `check.http`: requests a health endpoint until the response is as expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckHttp {
    /// `http://` URL; TLS is not supported, since health ports are local.
    pub url: String,
    /// HTTP status that counts as healthy.
    #[serde(default = "defaults::http_ok")]
    pub status: u16,
    /// Text that the body must contain, if given.
    #[serde(default)]
    pub contains: Option<String>,
    /// Seconds to keep retrying.
    #[serde(default = "defaults::check_secs")]
    pub within_secs: u64,
}

impl ActionSpec for CheckHttp {
    const NAME: &'static str = "check.http";
    const SUMMARY: &'static str = "request a health endpoint";
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.within_secs)
    }
}

/// `check.tcp`: checks whether a port accepts connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckTcp {
    /// `host:port`.
    pub address: String,
    /// Expected state of the port.
    #[serde(default)]
    pub expect: PortState,
    /// Seconds to keep retrying.
    #[serde(default = "defaults::check_secs")]
    pub within_secs: u64,
}

impl ActionSpec for CheckTcp {
    const NAME: &'static str = "check.tcp";
    const SUMMARY: &'static str = "check whether a port is open";
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.within_secs)
    }
}

/// State of a TCP port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// A connection is accepted.
    #[default]
    Open,
    /// A connection is refused.
    Closed,
}

/// `check.command`: runs a command defined in the agent's policy until it
/// succeeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckCommand {
    /// Name from the policy's `[policy.commands]`.
    pub command: String,
    /// Seconds to keep retrying.
    #[serde(default = "defaults::command_secs")]
    pub within_secs: u64,
}

impl ActionSpec for CheckCommand {
    const NAME: &'static str = "check.command";
    const SUMMARY: &'static str = "run a named check command";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.within_secs)
    }
}

/// `check.state`: checks that the state which another action reaches is in effect,
/// such as a stopped task or closed roles. A phase that relies on it checks it
/// itself and doesn't remember that it was reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckState {
    /// Name of the other action; it must be one that changes something.
    pub action: String,
    /// The parameters of the other action.
    pub params: serde_json::Value,
}

impl ActionSpec for CheckState {
    const NAME: &'static str = "check.state";
    const SUMMARY: &'static str = "check that the state which another action reaches is in effect";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `command.run`: runs a command defined in the agent's policy once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCommand {
    /// Name from the policy's `[policy.commands]`.
    pub command: String,
    /// Seconds that it may run.
    #[serde(default = "defaults::command_secs")]
    pub within_secs: u64,
}

impl ActionSpec for RunCommand {
    const NAME: &'static str = "command.run";
    const SUMMARY: &'static str = "run a named command";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.within_secs)
    }
}

deref_to_parameters! {
    DisableCron => CronFiles,
    RestoreCron => CronFiles,
}
