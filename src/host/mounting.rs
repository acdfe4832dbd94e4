//! Mounting: from a directory to an open `/dev/fuse` that speaks for it.
//!
//! Owns nothing after it returns: the descriptor and the mount are the caller's, who unmounts with [`super::unmount`].
//! Promises that a failure leaves nothing mounted, and to remember the mount by an id that tells it from any later mount
//! on the same path. Never sends the new mount a request, which nobody would answer yet.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::{helper, mountinfo, owner, preflight, server};
use crate::error::{Error, MountpointProblem};

/// The type under which our mounts are listed.
pub(super) const FSTYPE: &str = "fuse.chaosfs";
/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): unlike the plain id, never used again.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// How long a server may take to answer what it has been asked; one that takes longer is stuck, and says so elsewhere.
const ROUND_TRIP: Duration = Duration::from_secs(5);

/// What to mount.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) mountpoint: PathBuf,
    /// What stands as the source in the list of mounts; the sweep reads it.
    pub(crate) source: String,
    /// Whether other users than the one who mounts may enter.
    pub(crate) allow_other: bool,
}

impl Spec {
    /// A mount for this user, of this process, at `mountpoint`.
    pub(crate) fn new(mountpoint: impl Into<PathBuf>) -> Self {
        Spec { mountpoint: mountpoint.into(), source: owner::source().to_owned(), allow_other: false }
    }
}

/// A mount that nobody serves yet.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) device: OwnedFd,
    pub(crate) mounted: Mounted,
}

/// A mount, told from all others.
#[derive(Debug, Clone)]
pub(crate) struct Mounted {
    /// Where it was mounted: absolute, without links.
    pub(crate) path: PathBuf,
    id: MountId,
    st_dev: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MountId {
    id: u64,
    never_reused: bool,
}

/// Opens `/dev/fuse` and mounts it. On a server thread only, whose table the descriptor belongs to.
pub(crate) fn attach(spec: &Spec) -> Result<Attached, Error> {
    debug_assert!(server::on_server_thread(), "`/dev/fuse` belongs to the server threads");
    let given = &spec.mountpoint;
    let path = std::fs::canonicalize(given).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Error::Mountpoint { path: given.clone(), problem: MountpointProblem::Missing }
        }
        _ => refused(given.clone(), &e),
    })?;
    let ordinary_user = !rustix::process::geteuid().is_root();
    let device = match rustix::fs::open(preflight::DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) => match mount(spec, &path, &device, ordinary_user) {
            Ok(()) => device,
            Err(Errno::PERM) if ordinary_user => mount_with_helper(spec, &path)?,
            Err(e) => return Err(refused(path, &e.into())),
        },
        Err(e) => return Err(preflight::device_error(e)),
    };
    match Mounted::find(&path) {
        Ok(mounted) => Ok(Attached { device, mounted }),
        // Closing the device leaves a dead mount, so take it away first. It is ours: nothing else was there before.
        Err(source) => {
            super::unmount::discard_path(&path);
            Err(refused(path, &source))
        }
    }
}

fn refused(path: PathBuf, e: &io::Error) -> Error {
    let errno = e.raw_os_error().map_or(crate::Errno::EIO, crate::Errno::from_raw);
    let help = match errno {
        crate::Errno::EPERM | crate::Errno::EACCES => {
            "mounting needs CAP_SYS_ADMIN; in a container, start it with `--device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined`, or run the tests under `unshare -Urm`"
        }
        crate::Errno::ENOSPC => "there are too many mounts: unmount some, or raise `fs.mount-max`",
        _ => "`dmesg` may say more",
    };
    Error::MountRefused { path, errno, help }
}

fn mount(spec: &Spec, path: &Path, device: &OwnedFd, ordinary_user: bool) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let allow_other = if spec.allow_other { ",allow_other" } else { "" };
    let fd = device.as_raw_fd();
    let options = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid}{allow_other}");
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    // A test that runs as root expects set-uid bits and devices to work as they do on the backing.
    let flags = if ordinary_user { MountFlags::NOSUID | MountFlags::NODEV } else { MountFlags::empty() };
    rustix::mount::mount(spec.source.as_str(), path, FSTYPE, flags, options.as_c_str())
}

fn mount_with_helper(spec: &Spec, path: &Path) -> Result<OwnedFd, Error> {
    let allow_other = if spec.allow_other { ",allow_other" } else { "" };
    // Commas and backslashes would end the name early; ours has none, but the field is open to the crate.
    let source = spec.source.replace('\\', "\\\\").replace(',', "\\,");
    helper::mount(path, &format!("fsname={source},subtype=chaosfs{allow_other}"))
}

impl Mounted {
    /// The mount whose root is at `path` now.
    fn find(path: &Path) -> io::Result<Self> {
        let (id, st_dev) = identify(path)?;
        Ok(Mounted { path: path.to_owned(), id, st_dev })
    }

    /// Whether this mount, and not another, is what one reaches at `path`.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        identify(path).is_ok_and(|(id, st_dev)| id == self.id && st_dev == self.st_dev)
    }

    /// The device number of its files.
    pub(crate) fn st_dev(&self) -> u64 {
        self.st_dev
    }

    /// Lets the kernel read as much ahead as one request can carry, where this user may say so: through its pages a file is
    /// then read nearly as fast as past them.
    pub(crate) fn read_far_ahead(&self) {
        let (major, minor) = (rustix::fs::major(self.st_dev), rustix::fs::minor(self.st_dev));
        let _ = std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), "1024");
    }

    /// Where this mount can be unmounted, which is elsewhere once a directory above was renamed.
    pub(crate) fn whereabouts(&self) -> Whereabouts {
        if self.is_at(&self.path) {
            return Whereabouts::At(self.path.clone());
        }
        let listed: Vec<_> = match mountinfo::read() {
            Ok(all) => all.into_iter().filter(|e| e.st_dev == self.st_dev && e.fstype == FSTYPE).collect(),
            Err(_) => return Whereabouts::Gone,
        };
        match listed.iter().find(|entry| self.is_at(&entry.mountpoint)) {
            Some(entry) => Whereabouts::At(entry.mountpoint.clone()),
            // The device number alone may be in use again, by a mount that can be reached; then ours is gone.
            None if listed
                .iter()
                .any(|entry| identify(&entry.mountpoint).is_ok_and(|(_, dev)| dev == self.st_dev)) =>
            {
                Whereabouts::Gone
            }
            None if listed.is_empty() => Whereabouts::Gone,
            None => Whereabouts::Covered,
        }
    }

    /// The id that `/proc/<pid>/fdinfo` gives for files of this mount, if it is (still) at `path`.
    pub(super) fn listed_id(&self, path: &Path) -> Option<u64> {
        if !self.is_at(path) {
            return None;
        }
        stat(path, StatxFlags::MNT_ID).ok().map(|stat| stat.stx_mnt_id)
    }
}

/// Where a mount of ours is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// Here.
    At(PathBuf),
    /// Under another mount.
    Covered,
    /// Unmounted, as far as this namespace goes.
    Gone,
}

/// Returns when the server of a mount has answered everything that its kernel had asked before. Requests of one mount are
/// served in order, and this one is answered always.
///
/// Asked by a thread that shares nothing with the server: were the process killed now, it would wait for an answer that
/// cannot come, and keep `/dev/fuse` open by waiting.
pub(crate) fn round_trip(mountpoint: PathBuf) {
    let _ = server::start_alone(move || rustix::fs::statfs(&mountpoint)).recv_timeout(ROUND_TRIP);
}

fn identify(path: &Path) -> io::Result<(MountId, u64)> {
    let stat = stat(path, UNIQUE_ID | StatxFlags::MNT_ID)?;
    let never_reused = stat.stx_mask & UNIQUE_ID.bits() != 0;
    let st_dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    Ok((MountId { id: stat.stx_mnt_id, never_reused }, st_dev))
}

/// Asks for what the kernel knows itself: no request is sent to the file system at `path`.
fn stat(path: &Path, what: StatxFlags) -> io::Result<Statx> {
    Ok(statx(CWD, path, AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, what)?)
}
