//! Mount real file systems that misbehave on purpose, inside `cargo test`: each mount is one host of a cluster, and the
//! hosts see each other's changes late, by rule, the same way every time.
//!
//! # A complete test
//!
//! A worker announces its result with a flag file; a collector on another host waits for the flag and reads the result.
//! On one disk that works. On a share whose hosts cache (here: NFS with `nocto`), the flag can be there and
//! the result old:
//!
//! ```
//! use std::time::Duration;
//! use chaosfs::{Backing, Clock, Knobs, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One directory, two hosts, and a clock that only this test moves. Nothing here sleeps.
//! let backing = Backing::options().clock(Clock::manual()).temp()?;
//! let knobs = Knobs::strict().close_to_open(false).meta_ttl(Duration::from_secs(3));
//! let worker = backing.mount(Options::new().client_id("worker").knobs(knobs))?;
//! let collector = backing.mount(Options::new().client_id("collector").knobs(knobs))?;
//!
//! std::fs::write(worker.join("result"), "old")?;
//! assert_eq!(std::fs::metadata(collector.join("result"))?.len(), 3); // the collector has looked at it
//!
//! std::fs::write(worker.join("result"), "the new one")?;
//! std::fs::write(worker.join("done"), "")?;
//! assert!(collector.join("done").exists());
//! let seen = std::fs::read_to_string(collector.join("result"))?;
//! assert_eq!(seen, "old", "{}", backing.explain("collector", "result")?); // the bug
//!
//! backing.clock().advance(Duration::from_secs(3));
//! assert_eq!(std::fs::read_to_string(collector.join("result"))?, "the new one");
//!
//! collector.unmount()?;
//! worker.unmount()?;
//! # Ok(())
//! # }
//! ```
//!
//! The mounts are ordinary directories: any program in any language can work in them, started by the test or not.
//! [`mount()`] makes one mount, [`dual_mount`] a writer and a reader, [`Backing`] any number; [`Options`] and [`Knobs`] say
//! how each misbehaves; [`Mount::inject`] makes chosen operations fail or hang; [`Backing::history`] tells what happened.
//!
//! # Knobs
//!
//! | knob | default | strict | what it stands for |
//! |---|---|---|---|
//! | [`meta_ttl`](Knobs::meta_ttl) | 1500 ms | 0 | how long a host believes what it has fetched; sets the next three (NFS `actimeo`) |
//! | [`file_ttl`](Knobs::file_ttl) | 1500 ms | 0 | attributes and data of files (NFS `acregmin`) |
//! | [`dir_ttl`](Knobs::dir_ttl) | 1500 ms | 0 | names that were found, and listings (NFS `acdirmin`) |
//! | [`negative_ttl`](Knobs::negative_ttl) | 1500 ms | 0 | "no such file" (the negative dentries of NFS, FUSE and S3 mounts) |
//! | [`write_delay`](Knobs::write_delay) | 800 ms | 0 | how late a host's bytes are visible to others (write-back, replication) |
//! | [`rename_delay`](Knobs::rename_delay) | 1200 ms | 0 | how late a host's changes of names are visible to others |
//! | [`revalidate_on_open`](Knobs::revalidate_on_open) | off | on | `open` asks the server (half of NFS close-to-open; off is `nocto`) |
//! | [`publish_on_close`](Knobs::publish_on_close) | off | on | `close`, `fsync` and unlock publish (the other half) |
//! | [`exclusive_fresh`](Knobs::exclusive_fresh) | on | on | names made by `O_EXCL` or `link` are never cached |
//! | [`reorder`](Knobs::reorder) | off | off | a name may overtake the bytes that belong to it |
//! | [`drop_prob`](Knobs::drop_prob) | 0 | 0 | the chance that an operation fails with `EIO`, drawn from the seed |
//!
//! The delays belong to the host that *writes*, the TTLs to the host that *reads*. A host always sees its own changes at
//! once. What must be decided by one server is: of two hosts that create one name with `O_EXCL`, one fails, however late
//! both see names. With every knob at zero a mount behaves as the directory behind it.
//!
//! # What it is not
//!
//! Not a simulator of disks or power failures, not a network, not a security boundary, and no measure of speed. It runs on
//! Linux with FUSE, and nowhere else. It does not reorder the system calls of your threads; those are as real as ever.
//!
//! # Pitfalls
//!
//! * **Early drop.** `chaosfs::mount(&dir)?.path().to_owned()` unmounts at the end of the statement. Bind the guard to a
//!   name, not to `_`.
//! * **Drop order.** Struct fields drop in the order in which they are declared, local variables in the opposite order.
//!   Mounts must go before the `TempDir` that they are over or in; a [`Backing`] made with [`Backing::temp`] sees to that.
//! * **Open handles.** A file that is open, or a working directory inside, does not stop a mount from going away when its
//!   guard drops: what is left gets errors, and [`Mount::unmount`] says who it was. Close what you want flushed.
//! * **Statics.** A `static`, and rstest's `#[once]`, is never dropped, so its mount stays until the process ends. Then it
//!   is a dead mount, which the next process that uses chaosfs takes away. Prefer a mount per test: it takes milliseconds.
//! * **`#[timeout]`.** Attributes that give up on a test leave its thread behind, with its mounts. Give hanging operations a
//!   limit instead ([`Options::patience_parked`], 10 s by default): they fail with `EIO`.
//! * **A manual clock and `sleep`.** Code under test that sleeps until something appears waits for ever on a clock that
//!   stands still. Move it from another thread, or use the system's clock.
//! * **Running as root.** Root passes permission checks, here as on any file system, and its mounts are open to all users;
//!   an ordinary user's mounts are open to that user alone ([`Options::allow_other`]).
//! * **Page cache and `mmap`.** Reads and writes go to the server each time, so a view is exact. Mapped pages belong to the
//!   kernel: a mapping that lives on may show old bytes without limit. Map again, or read.
//!
//! # What a seed promises
//!
//! Chance decides for each operation by itself: from the seed, the client, the operation, its path, its offset and how
//! often that came before. So a seed gives the same file the same fate whatever other threads do. A test with one thread
//! and a manual clock has the same history to the byte; with more threads their order is the scheduler's. A test that
//! panics prints the seed of each mount, and `CHAOSFS_SEED` sets it.
//!
//! # In CI
//!
//! FUSE is needed: `/dev/fuse`, and for ordinary users `fusermount3` (`apt-get install fuse3`). Hosted GitHub runners have
//! the device. A container needs `--device /dev/fuse --cap-add SYS_ADMIN`. Without FUSE tests fail and say what is
//! missing; [`require_fuse!`] together with `CHAOSFS_WITHOUT_FUSE=skip` skips them instead. `CHAOSFS_KEEP=1` keeps
//! temporary backing directories for a look at them.
//!
//! # Features
//!
//! None is on by default, and none does anything yet: `cli` and `serde` are reserved.

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
#[track_caller]
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
