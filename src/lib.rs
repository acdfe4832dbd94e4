//! Mount real file systems that misbehave on purpose, inside `cargo test`.

mod backing;
mod clock;
mod engine;
mod errno;
mod error;
mod fault;
mod fuse;
mod host;
mod model;
mod mount;
mod options;
mod pair;
mod raw;
mod shared;

use std::path::Path;

pub use backing::{Backing, BackingOptions};
pub use clock::Clock;
pub use errno::{Errno, UnknownErrno};
pub use error::{BackingProblem, Error, HeldBy, Holder, MountpointProblem, Result};
pub use fault::FaultGuard;
#[doc(hidden)]
pub use model::bench as model_bench;
pub use model::fault::Fault;
pub use model::history::{Deed, Event, History, Why};
pub use model::ids::Version;
pub use model::knobs::Knobs;
pub use model::op::{Op, OpSet};
pub use model::time::Time;
pub use mount::Mount;
pub use options::Options;
pub use pair::DualMount;

/// Mounts the directory `backing` with the default knobs at a fresh temporary directory. The mount is ready when this
/// returns, and goes away when the guard drops.
///
/// # Errors
/// [`Error::FuseMissing`], [`Error::FuseDenied`], [`Error::HelperMissing`] where FUSE cannot be used, with the remedy;
/// [`Error::Backing`] when the directory cannot be used; [`Error::InvalidValue`] when `CHAOSFS_SEED` cannot be read.
pub fn mount(backing: impl AsRef<Path>) -> Result<Mount> {
    Options::new().mount(backing)
}

/// Mounts two clients, a writer and a reader, over one backing directory, all made in `base`. See [`DualMount`].
///
/// # Errors
/// See [`mount`](mount()).
pub fn dual_mount(base: impl AsRef<Path>) -> Result<DualMount> {
    DualMount::classic(base.as_ref())
}

/// Returns early from a test where FUSE cannot be used **and** `CHAOSFS_WITHOUT_FUSE=skip` is set, with one line on standard
/// error. Without the variable a test that cannot mount fails, with the diagnosis: a suite that silently tests nothing is
/// worse than a red one.
///
/// In a test that returns a value, give that value: `chaosfs::require_fuse!(Ok(()))`.
#[macro_export]
macro_rules! require_fuse {
    () => {
        $crate::require_fuse!(())
    };
    ($value:expr) => {
        if !$crate::fuse_required() {
            return $value;
        }
    };
}

/// Behind [`require_fuse!`]: false when the test is to be skipped.
///
/// # Panics
/// When FUSE cannot be used and skipping was not asked for.
#[doc(hidden)]
pub fn fuse_required() -> bool {
    let Err(e) = host::preflight::check_fuse() else { return true };
    assert!(
        options::skip_without_fuse(),
        "{e}\n  help: or set CHAOSFS_WITHOUT_FUSE=skip to skip the tests that need it"
    );
    eprintln!(
        "skipped, since FUSE cannot be used here: {}",
        e.to_string().lines().next().unwrap_or_default()
    );
    false
}
