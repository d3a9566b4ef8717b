//! The interfaces of org.freedesktop.systemd1(5) that the agent calls.

use std::collections::HashMap;
use std::time::Duration;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

/// How long systemd may take to answer a call, jobs excepted.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// One change to a unit-file link: `symlink` or `unlink`, its path, and where it leads.
pub(super) type LinkChange = (String, String, String);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
pub(super) trait Manager {
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
    ) -> zbus::Result<(bool, Vec<LinkChange>)>;
    fn disable_unit_files(&self, names: &[&str], runtime: bool) -> zbus::Result<Vec<LinkChange>>;
    fn link_unit_files(
        &self,
        paths: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<Vec<LinkChange>>;
    fn add_dependency_unit_files(
        &self,
        names: &[&str],
        target: &str,
        kind: &str,
        runtime: bool,
        force: bool,
    ) -> zbus::Result<Vec<LinkChange>>;
    fn reload(&self) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
    /// The directories of unit files that exist, by precedence.
    #[zbus(property(emits_changed_signal = "false"))]
    fn unit_path(&self) -> zbus::Result<Vec<String>>;
    #[zbus(
        property(emits_changed_signal = "false"),
        name = "DefaultTimeoutStartUSec"
    )]
    fn default_timeout_start(&self) -> zbus::Result<u64>;
    #[zbus(
        property(emits_changed_signal = "false"),
        name = "DefaultTimeoutStopUSec"
    )]
    fn default_timeout_stop(&self) -> zbus::Result<u64>;
}

#[zbus::proxy(
    interface = "org.freedesktop.DBus.Peer",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
pub(super) trait Peer {
    fn ping(&self) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.DBus.Properties",
    default_service = "org.freedesktop.systemd1",
    gen_blocking = false
)]
pub(super) trait Properties {
    fn get_all(&self, interface: &str) -> zbus::Result<HashMap<String, OwnedValue>>;
}

pub(super) async fn limited<T>(work: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    match tokio::time::timeout(CALL_LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(zbus::Error::Failure(format!(
            "no answer within {} s",
            CALL_LIMIT.as_secs()
        ))),
    }
}
