//! The integration tests: programs on real mounts, and what they are shown.
//!
//! One binary, so that it is linked once. Nothing here sleeps: time is the manual clock of a backing, or a condition with
//! a deadline.

mod ancestors;
mod anomalies;
#[cfg(any())]
mod env;
mod races;
mod rules;
mod support;
