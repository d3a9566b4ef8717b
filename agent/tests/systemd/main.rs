//! Units under a real `systemd --user` with its own bus: what counts as
//! started and as stopped.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

mod links;
mod manager;
mod oneshots;
mod preflight;
mod starts;
mod stops;
