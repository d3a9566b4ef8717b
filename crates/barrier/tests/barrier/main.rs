//! Tests of the public interface: scenarios, random interleavings and stored
//! journals, in one simulation.

#![expect(clippy::panic, reason = "a test stops at the first surprise")]

mod exploration;
mod journal;
mod property;
mod rejections;
mod support;
mod transcripts;
