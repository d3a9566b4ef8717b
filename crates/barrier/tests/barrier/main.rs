//! The barrier's tests from outside: scenarios, random interleavings and stored
//! journals, all in one small simulated world.

#![expect(clippy::panic, reason = "a test stops at the first surprise")]

mod journal;
mod property;
mod support;
mod transcripts;
