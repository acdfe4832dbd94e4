//! One binary for all tests that mount: it links once, and its tests run side by side.
#![allow(clippy::disallowed_methods, reason = "tests put limits on real programs in real time")]

mod examples;
mod guard;
mod preflight;
mod processes;
mod tidy;
