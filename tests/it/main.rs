//! One binary for all tests that mount: it links once, and its tests run side by side.
//!
//! Nothing here sleeps to wait: time is the manual clock of a backing, or a condition with a deadline.
#![allow(clippy::disallowed_methods, reason = "tests put limits on real programs in real time")]

mod abuse;
mod ancestors;
mod anomalies;
mod deviations;
mod env;
mod examples;
mod faults;
mod fuzz;
mod guard;
mod lanes;
mod ops;
mod ops_attrs;
mod ops_data;
mod ops_escape;
mod ops_locks;
mod ops_names;
mod posix;
mod preflight;
mod processes;
mod programs;
mod races;
mod review;
mod root;
mod rules;
mod stress;
mod support;
mod tidy;
