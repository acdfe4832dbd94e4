//! Before mounting: why it would not work here, in words that help.
//!
//! Owns nothing and changes nothing. Promises a handful of system calls where all is well, and to give each cause its own
//! error with the one thing to do about it. Never asks a file system that may be dead or hung from the calling thread,
//! except for looking up the paths that it was given.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::{helper, mountinfo, owner, server};
use crate::error::{BackingProblem, Error, MountpointProblem};

pub(super) const DEVICE: &str = "/dev/fuse";
/// A file system that does not answer within this is hung.
const HUNG: Duration = Duration::from_millis(200);

/// Whether FUSE can be used on this machine by this user.
pub(crate) fn check_fuse() -> Result<(), Error> {
    let user = !rustix::process::geteuid().is_root();
    match rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) if !is_fuse(&device) => Err(Error::FuseMissing),
        Ok(_) if user && !may_mount() && helper::find().is_none() => Err(Error::HelperMissing),
        Ok(_) => Ok(()),
        // `fusermount3` is no way round this: it opens the device with the rights of the user.
        Err(e) => Err(device_error(e)),
    }
}

/// Whether it is the device, and not something else that was put in its place: 10:229 by the kernel's list of devices.
fn is_fuse(device: &OwnedFd) -> bool {
    let rdev = rustix::fs::fstat(device).map(|s| s.st_rdev);
    rdev.is_ok_and(|rdev| (rustix::fs::major(rdev), rustix::fs::minor(rdev)) == (10, 229))
}

/// Why `/dev/fuse` could not be opened.
pub(super) fn device_error(e: Errno) -> Error {
    let uid = rustix::process::geteuid();
    match e {
        Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOTDIR => Error::FuseMissing,
        Errno::ACCESS | Errno::PERM => {
            let help = if uid.is_root() {
                "in a container, start it with `--device /dev/fuse --cap-add SYS_ADMIN`"
            } else {
                "run `chmod 666 /dev/fuse` as root, as most systems have it, or run the tests as root"
            };
            Error::FuseDenied { uid: uid.as_raw(), help, source: e.into() }
        }
        _ => Error::Io { doing: "open", path: DEVICE.into(), source: e.into() },
    }
}

fn may_mount() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether `mountpoint` can carry a mount of `backing`; its path without links.
pub(crate) fn check_mountpoint(mountpoint: &Path, backing: &Path) -> Result<PathBuf, Error> {
    let wrong = |problem| Error::Mountpoint { path: mountpoint.to_owned(), problem };
    // Of the root of a mount that is there this asks nothing, so a dead or hung one answers as well.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = match statx(CWD, mountpoint, flags, StatxFlags::TYPE | StatxFlags::INO) {
        Ok(stat) => stat,
        // A mount of another user, which only that user may look at.
        Err(Errno::ACCESS) if listed(mountpoint).is_some() => return Err(wrong(mounted_problem(mountpoint))),
        Err(e) => return Err(wrong(stat_problem(e))),
    };
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(wrong(mounted_problem(mountpoint)));
    }
    if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFDIR {
        return Err(wrong(MountpointProblem::NotADirectory));
    }
    let denied = |e: io::Error| wrong(MountpointProblem::Denied(e.to_string()));
    if fs::read_dir(mountpoint).map_err(denied)?.next().is_some() {
        // A directory that contains the backing is not empty either, and this says more.
        let problem = if overlap(mountpoint, backing) {
            MountpointProblem::OverlapsBacking
        } else {
            MountpointProblem::NotEmpty
        };
        return Err(wrong(problem));
    }
    if overlap(mountpoint, backing) {
        return Err(wrong(MountpointProblem::OverlapsBacking));
    }
    fs::canonicalize(mountpoint).map_err(denied)
}

fn stat_problem(e: Errno) -> MountpointProblem {
    match e {
        Errno::NOENT => MountpointProblem::Missing,
        Errno::NOTDIR => MountpointProblem::NotADirectory,
        Errno::NOTCONN | Errno::CONNABORTED => MountpointProblem::Dead,
        e => MountpointProblem::Denied(io::Error::from(e).to_string()),
    }
}

/// What to say about a mountpoint that is one already.
fn mounted_problem(mountpoint: &Path) -> MountpointProblem {
    let Some(entry) = listed(mountpoint) else {
        return MountpointProblem::AlreadyMounted("of an unknown type".to_owned());
    };
    if entry.fstype.starts_with("fuse") && is_dead(&entry.mountpoint) {
        return MountpointProblem::Dead;
    }
    MountpointProblem::AlreadyMounted(format!("{} from `{}`", entry.fstype, entry.source))
}

/// The topmost mount on a path. The path is resolved without its last component, which may be hung.
fn listed(mountpoint: &Path) -> Option<mountinfo::Entry> {
    let absolute = std::path::absolute(mountpoint).ok()?;
    let resolved = match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => fs::canonicalize(parent).ok()?.join(name),
        _ => absolute,
    };
    mountinfo::read().ok()?.into_iter().rev().find(|entry| entry.mountpoint == resolved)
}

/// Whether the server of what is mounted at `mountpoint` is gone. One that does not answer in time counts as alive.
pub(super) fn is_dead(mountpoint: &Path) -> bool {
    let path = mountpoint.to_owned();
    let answer = server::start_alone(move || rustix::fs::statfs(&path).err());
    matches!(answer.recv_timeout(HUNG), Ok(Some(Errno::NOTCONN | Errno::CONNABORTED)))
}

/// Whether one of the directories is the other, or lies in it.
fn overlap(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let same = identity(a).is_some_and(|id| Some(id) == identity(b));
    same || match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a.starts_with(&b) || b.starts_with(&a),
        _ => false,
    }
}

/// Whether `path` can be the backing directory; its path without links.
pub(crate) fn check_backing(path: &Path) -> Result<PathBuf, Error> {
    let wrong = |problem| Error::Backing { path: path.to_owned(), problem };
    let problem = |e: io::Error| match e.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => BackingProblem::Missing,
        Some(Errno::NOTDIR) => BackingProblem::NotADirectory,
        _ => BackingProblem::Denied(e.to_string()),
    };
    let directory = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let read = rustix::fs::open(path, directory, Mode::empty()).map_err(|e| wrong(problem(e.into())))?;
    // Reading is one permission, entering is another.
    rustix::fs::accessat(&read, ".", rustix::fs::Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|e| wrong(problem(e.into())))?;
    let device = rustix::fs::fstat(&read).map_err(|e| wrong(problem(e.into())))?.st_dev;
    let path = fs::canonicalize(path).map_err(|e| wrong(problem(e)))?;
    let mounts = mountinfo::read().unwrap_or_default();
    for ours in mounts.into_iter().filter(|mount| mount.source == owner::source()) {
        if ours.st_dev == device {
            return Err(wrong(BackingProblem::InOwnMount));
        }
        if ours.mountpoint.starts_with(&path) {
            return Err(wrong(BackingProblem::ContainsOwnMount(ours.mountpoint)));
        }
    }
    Ok(path)
}
