//! The daemon that sequences a run.
//!
//! It holds no credentials and runs no SQL, no shell and no AWS call: it
//! orders named actions on named resources. A run's state is the fold of its
//! journal; after `kill -9` it takes its runs up where they stood, under a
//! new term.

mod agents;
pub mod config;
pub mod driver;
pub mod grpc;
pub mod handle;
pub mod launch;
mod preflights;
mod runs;
mod spans;
mod status;
pub mod store;
mod timeline;
