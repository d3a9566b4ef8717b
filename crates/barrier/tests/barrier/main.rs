//! Tests of the public interface: scenarios, random interleavings and stored
//! journals, in one simulation.

#![expect(clippy::panic, reason = "a test stops at the first surprise")]

mod journal;
mod property;
mod support;
mod transcripts;
