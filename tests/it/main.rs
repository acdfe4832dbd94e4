//! One binary for all tests that mount: it links once, and its tests run side by side.
#![allow(clippy::disallowed_methods, reason = "tests put limits on real programs in real time")]

mod guard;
mod ops;
mod ops_attrs;
mod ops_data;
mod ops_escape;
mod ops_locks;
mod ops_names;
mod preflight;
mod processes;
mod programs;
