//! The barrier protocol, without I/O.
//!
//! Two state machines, [`coordinator`] (one per run) and [`participant`] (one
//! per agent). Each takes `(now, Event)` and returns effects in the order in
//! which the driver must execute them: a `Persist` precedes every `Send` that
//! depends on it, so a driver that executes the list in order never sends
//! anything that is not durable. The crate has no clock, no randomness, no network
//! and no disk: time is an argument, and timers are data (`next_deadline`).
//!
//! Durable state is the fold of the persisted records. A driver whose store
//! fails must end its process and fold the journal again (R23): the state
//! machine in memory is ahead of a journal that lacks its record.
//!
//! Comments cite the protocol's rules by number, R1 to R23. They are defined
//! in `docs/protocol.md`, under "The rules".

#![deny(
    clippy::wildcard_enum_match_arm,
    clippy::match_wildcard_for_single_variants,
    reason = "a new record, outcome or status must fail to compile wherever the protocol has to \
              handle it; a wildcard would silently ignore it"
)]

pub mod coordinator;
pub mod ids;
pub mod message;
pub mod participant;
pub mod record;
pub mod resolved_plan;
