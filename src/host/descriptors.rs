//! How many file descriptors there are to spend.
//!
//! Owns nothing and changes no limit: the limit is the whole process's, and the program that is tested has a say in it.

use rustix::process::{Resource, getrlimit};

/// How many directory descriptors one engine keeps open at most: a part of what this process may have.
pub(crate) fn spare() -> usize {
    const MOST: u64 = 512;
    const LEAST: u64 = 16;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit / 16).clamp(LEAST, MOST) as usize
}
