//! An Oracle stand-in for rehearsals: one SQL and state engine, two frontends.
//!
//! It holds what a cutover touches (sessions, transactions, jobs, triggers,
//! sequences, parameters, redo) and nothing else. Whatever it does not do
//! answers with a clear ORA error, never with a silent success.

pub mod api;
pub mod bequeath;
pub mod config;
pub mod control;
pub mod engine;
pub mod listener;
pub mod tns;
pub mod wire;
