//! Unmounting that always comes back.
//!
//! Owns the order of things: unmount; if the mount is in use, say by whom and take it away all the same; if that is not
//! ours to do, cut the connection; wait for the server thread. Promises to return within the patience it is given, with
//! the mount gone wherever the kernel allows, and everybody who held it released with an error. Never touches another
//! mount that took our place, and never waits for a holder to let go.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::mounting::{Mounted, Whereabouts};
use super::server::Thread;
use super::{helper, holders, server};
use crate::error::{Error, Holder};

/// The last reference of a file just closed is often dropped a moment later: what looks busy is tried again after these.
const RETRIES_MS: [u64; 4] = [1, 2, 4, 8];
/// How long to look for holders.
const LOOK: Duration = Duration::from_millis(250);
/// A session ends by itself within this of its mount's end, unless a copy of the mount lives on elsewhere.
const GRACE: Duration = Duration::from_millis(50);

/// What became of the mount.
#[derive(Debug)]
enum Outcome {
    /// Unmounted, by us or by someone else before.
    Gone,
    /// Taken from under these.
    Busy(Vec<Holder>),
    /// Hidden by another mount, which is not ours to move.
    Covered,
    /// Still there.
    Failed(String),
}

/// Ends a connection whatever becomes of its mount, with the help of anything inside that could be opened. Runs on a
/// server thread, more than once if need be, and does not wait.
pub(crate) type Cut = Arc<dyn Fn(Option<OwnedFd>) + Send + Sync>;

/// Unmounts `mounted` and sees `session`, the thread that serves it, to its end.
pub(crate) fn detach(
    mounted: &Mounted,
    cut: &Cut,
    session: &Thread,
    patience: Duration,
) -> Result<(), Error> {
    let begin = Instant::now();
    let left = || patience.saturating_sub(begin.elapsed());
    let cut_now = || {
        let cut = Arc::clone(cut);
        drop(server::start(move || cut(None)));
    };
    let failed = |what: &str| Error::Unmount { path: mounted.path.clone(), what: what.to_owned() };

    let (target, their_cut) = (mounted.clone(), Arc::clone(cut));
    let work = server::start(move || take_away(&target, &their_cut));
    let outcome = match work.recv_timeout(patience / 2) {
        // Unmounting first writes back what a mapping has changed, and the server may have parked that write for ever.
        Err(RecvTimeoutError::Timeout) => {
            cut_now();
            work.recv_timeout(left())
                .unwrap_or_else(|_| Outcome::Failed("`umount` does not return".to_owned()))
        }
        done => done.unwrap_or_else(|_| Outcome::Failed("unmounting panicked".to_owned())),
    };
    // An idle mount took its session along. After a lazy unmount the holders keep both alive, so do not wait for them.
    let grace = if matches!(outcome, Outcome::Gone) { GRACE.min(left()) } else { Duration::ZERO };
    if !session.wait(grace) {
        cut_now();
    }
    let ended = session.wait(left());
    match outcome {
        Outcome::Failed(what) => Err(failed(&what)),
        _ if !ended => Err(failed("its server thread does not end (a handler that blocks?)")),
        Outcome::Gone => Ok(()),
        Outcome::Busy(holders) => Err(Error::Busy { path: mounted.path.clone(), holders }),
        Outcome::Covered => {
            Err(failed("another file system was mounted over it, and what is below that is dead"))
        }
    }
}

/// Takes a mount away that nobody serves and nobody can have used yet.
pub(crate) fn discard(mounted: &Mounted) {
    if let Whereabouts::At(path) = mounted.whereabouts() {
        discard_path(&path);
    }
}

/// Takes away whatever is mounted at `path`, lazily; whether it is gone.
pub(super) fn discard_path(path: &Path) -> bool {
    let lazily = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    // By force, so that whoever waits for an answer of its dead server waits no longer.
    match unmount(path, UnmountFlags::FORCE | lazily).or_else(|_| unmount(path, lazily)) {
        Ok(()) => true,
        Err(Errno::PERM) => helper::unmount(path, true).is_ok(),
        Err(_) => false,
    }
}

fn take_away(mounted: &Mounted, cut: &Cut) -> Outcome {
    let path = match mounted.whereabouts() {
        Whereabouts::At(path) => path,
        Whereabouts::Covered => return Outcome::Covered,
        Whereabouts::Gone => return Outcome::Gone,
    };
    match unmount(&path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Outcome::Gone,
        Err(Errno::BUSY) => take_away_busy(mounted, &path),
        Err(Errno::PERM) => take_away_as_user(mounted, &path, cut),
        Err(e) => settle(mounted, &std::io::Error::from(e).to_string()),
    }
}

fn take_away_busy(mounted: &Mounted, path: &Path) -> Outcome {
    for ms in RETRIES_MS {
        pause(Duration::from_millis(ms));
        if unmount(path, UnmountFlags::NOFOLLOW).is_ok() {
            return Outcome::Gone;
        }
    }
    let holders = holders::find(path, mounted.listed_id(path), LOOK);
    // Time has passed: they may have let go, or somebody else may have unmounted.
    if unmount(path, UnmountFlags::NOFOLLOW).is_ok() {
        return Outcome::Gone;
    }
    if !mounted.is_at(path) {
        return settle(mounted, "it moved while it was being unmounted");
    }
    let lazily = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    // Force aborts the connection at once. Old kernels keep that from the root of a user namespace, where it is cut later.
    match unmount(path, UnmountFlags::FORCE | lazily).or_else(|_| unmount(path, lazily)) {
        Ok(()) => Outcome::Busy(holders),
        Err(e) => settle(mounted, &std::io::Error::from(e).to_string()),
    }
}

fn take_away_as_user(mounted: &Mounted, path: &Path, cut: &Cut) -> Outcome {
    let Err(said) = helper::unmount(path, false) else { return Outcome::Gone };
    if !said.contains("busy") {
        return settle(mounted, &said);
    }
    pause(Duration::from_millis(RETRIES_MS.iter().sum()));
    let holders = holders::find(path, mounted.listed_id(path), LOOK);
    if helper::unmount(path, false).is_ok() {
        return Outcome::Gone;
    }
    if !mounted.is_at(path) {
        return settle(mounted, "it moved while it was being unmounted");
    }
    // Afterwards no path leads to it any more, and it lives until the holders let go.
    let here = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, here, Mode::empty()).ok();
    match helper::unmount(path, true) {
        Ok(()) => {
            cut(root);
            Outcome::Busy(holders)
        }
        Err(said) => settle(mounted, &said),
    }
}

/// After a failure: if the mount is gone all the same, someone else was quicker.
fn settle(mounted: &Mounted, why: &str) -> Outcome {
    match mounted.whereabouts() {
        Whereabouts::Gone => Outcome::Gone,
        Whereabouts::Covered => Outcome::Covered,
        Whereabouts::At(_) => Outcome::Failed(why.to_owned()),
    }
}

/// Lets `time` pass: the kernel tells nobody when a mount ceases to be busy.
fn pause(time: Duration) {
    let never = Mutex::new(());
    Condvar::new().wait_for(&mut never.lock(), time);
}
