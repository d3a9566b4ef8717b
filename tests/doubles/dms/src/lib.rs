//! A double of AWS DMS and CloudWatch for rehearsals.
//!
//! The unmodified AWS SDK talks to it over HTTP. Behind the interface a
//! replicator really moves rows between the simulated Oracle and PostgreSQL,
//! so that states, statistics, checkpoints and latencies are derived from what
//! happened and never scripted.
//!
//! What it deliberately does not do: check signatures or IAM policies, survive
//! its own end (tasks, call log and metrics live in the process; only the
//! replication checkpoint lives in the target database), validate data, apply
//! in batches, migrate schemas, or serve DMS Serverless. Whatever it does not do
//! it refuses with an error that says so.

pub mod api;
pub mod config;
pub mod metrics;
pub mod replicate;
pub mod task;
