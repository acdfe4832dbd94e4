//! What nobody should do to a mount, and what it takes all the same: crowds of mounts and files, a directory under it that
//! fills up or goes away, strangers, nesting, and death at any moment.
//!
//! `CHAOSFS_ABUSE=1` does all of it in full size; by default each test is as large as a few seconds allow.

mod below;
mod crowds;
mod deaths;
mod users;

/// Whether the real sizes are wanted.
fn in_full() -> bool {
    std::env::var_os("CHAOSFS_ABUSE").is_some()
}
