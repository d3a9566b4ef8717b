//! The barrier protocol, pure.
//!
//! Two state machines, [`coordinator`] (one per run) and [`participant`] (one
//! per agent). Each takes `(now, Event)` and returns effects in the order in
//! which the driver must execute them: a `Persist` precedes every `Send` that
//! relies on it, so a driver that executes the list in order can't promise
//! what it has not stored. The crate has no clock, no randomness, no network
//! and no disk: time is an argument, and timers are data (`next_deadline`).
//!
//! Durable state is the fold of the records that were persisted. A driver
//! whose store fails must end its process and fold again (R23); it must never
//! continue with a machine whose record it could not store.
//!
//! Comments cite the protocol's rules by number, R1 to R23. They are defined
//! in `docs/protocol.md`, under "The rules".

#![deny(
    clippy::wildcard_enum_match_arm,
    clippy::match_wildcard_for_single_variants,
    reason = "a new record, outcome or status must fail to compile wherever the protocol has to \
              decide what it means; a wildcard would decide silently that it means nothing"
)]

pub mod coordinator;
pub mod ids;
pub mod message;
pub mod participant;
pub mod record;
pub mod resolved_plan;
