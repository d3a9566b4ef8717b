//! Lockstep's end-to-end tests and the rehearsal range they run on.
//!
//! The range is a library so that the `rehearse` command and the tests start
//! exactly the same landscape.

pub mod range;
pub mod rehearsal;
