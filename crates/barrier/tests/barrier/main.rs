//! The barrier's tests from outside: stories and chance, in one small world.

#![expect(clippy::panic, reason = "a test stops at the first surprise")]

mod property;
mod support;
mod transcripts;
