//! The pure model: which past state of the shared truth each client sees, and when.
//!
//! Owns the rules R1 to R8 of SEMANTICS.md as data and functions over it. Time, the caller and the truth come in as
//! values; verdicts and versions go out. It never touches a disk, a thread, a clock, a lock or FUSE, so every rule can be
//! tested as arithmetic, and the same calls in the same order give the same answers.

pub(crate) mod attr;
pub mod bench;
pub(crate) mod draw;
pub(crate) mod extents;
pub(crate) mod fault;
pub(crate) mod hash;
pub(crate) mod history;
pub(crate) mod ids;
pub(crate) mod inodes;
pub(crate) mod knobs;
pub(crate) mod names;
pub(crate) mod op;
pub(crate) mod time;
pub(crate) mod view;
mod world;

#[cfg(test)]
mod tests;

pub(crate) use world::{Found, Rebind, Sight, World};
