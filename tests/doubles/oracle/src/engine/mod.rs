//! The engine: one database in memory behind one lock.
//!
//! Statements run one after another under the lock; a statement that meets a
//! row locked by another transaction gives the lock up, waits, and starts
//! over, so that it always sees the committed rows as of its start. Sleeping
//! PL/SQL gives the lock up, too. There is no disk: redo, history and rows
//! end with the process.

mod aggregate;
mod call;
mod clock;
mod commands;
mod constraints;
mod database;
mod datum;
mod dbms_job;
mod ddl;
mod dml;
mod environment;
mod errors;
mod exec;
mod expr;
mod faults;
mod flashback;
mod format;
mod from;
mod functions;
mod interpret;
mod jobs;
mod kill;
mod kinds;
mod lex;
mod observe;
mod params;
mod plsql;
mod prepare;
mod privileges;
mod programs;
mod query;
mod redolog;
mod script;
mod sequences;
mod sessions;
mod state;
mod storage;
mod text;
mod triggers;
mod txn;
mod users;
mod views;

#[cfg(test)]
mod transcripts;

pub use database::Engine;
pub use environment::Environment;
pub use faults::Fault;
pub use script::ScriptError;
