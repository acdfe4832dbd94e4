//! The host layer: everything that has to do with this machine and not with files.
//!
//! It owns the *server threads* (a group with a file descriptor table of its own, see [`server`]), the way a FUSE mount
//! comes up ([`preflight`], [`mounting`]) and goes away ([`unmount`], [`holders`], [`sweep`]).
//!
//! It promises that a process that serves its own mount can always end, that unmounting always returns within the
//! patience it is given, that it never touches a mount that is not ours, and that whatever goes wrong is said with the
//! thing it happened to and what to do about it.
//!
//! It never serves a request, knows nothing of knobs or models, never walks into a mount (its own or a foreign one) from
//! a thread that must come back, and logs on the thread that called it only (a logger writes to descriptors that are
//! other files on a server thread).

// Time limits on the machine's own work are wall-clock time; they must run while a test holds its manual clock.
#![allow(clippy::disallowed_methods)]

pub(crate) mod descriptors;
pub(crate) mod holders;
pub(crate) mod mounting;
pub(crate) mod preflight;
pub(crate) mod server;
pub(crate) mod sever;
pub(crate) mod signals;
pub(crate) mod sweep;
pub(crate) mod unmount;

mod helper;
mod mountinfo;
mod owner;
mod timer;

pub(crate) use crate::raw::swap_out;

#[cfg(test)]
mod tests;
