//! The Oracle actions against the simulator, through the real driver: what
//! they do, that they restore what they found, and how they fail.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod contract;
mod fence;
mod listeners;
mod login;
mod logins;
mod marker;
#[path = "../site/ports.rs"]
mod ports;
mod preflight;
mod range;
mod rows;
mod sessions;
mod steps;
mod there_and_back;
mod unchanged;
