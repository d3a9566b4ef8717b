//! The barrier's tests from outside: stories and chance, in one small world.

mod property;
mod support;
mod transcripts;
