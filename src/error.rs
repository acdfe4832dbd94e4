//! The one error type of the public API: what went wrong, with which thing, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call of this crate failed.
///
/// Every message names the thing (path, client, variable) and ends in a `help:` line where there is a remedy.
/// `Debug` prints the same, with the cause: `unwrap` and a test that returns an error show that.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `/dev/fuse`: the kernel module is not loaded, or the container was started without the device.
    #[error(
        "`/dev/fuse` does not exist, or is not the FUSE device (character device 10:229)\n  help: run `modprobe fuse` as root; in a container, start it with `--device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined`"
    )]
    FuseMissing,

    /// `/dev/fuse` exists and may not be opened by this user.
    #[error("`/dev/fuse` may not be opened by this user (uid {uid})\n  help: {help}")]
    FuseDenied {
        /// The user that asked.
        uid: u32,
        /// What to do about it.
        help: &'static str,
        /// What `open` said.
        #[source]
        source: io::Error,
    },

    /// Mounting needs the set-uid helper `fusermount3` here, and it is not on the `PATH`.
    #[error(
        "mounting as an ordinary user needs the program `fusermount3`, which is not on the PATH\n  help: install it (Debian and Ubuntu: `apt-get install fuse3`), or run the tests as root or under `unshare -Urm`"
    )]
    HelperMissing,

    /// `fusermount3` refused.
    #[error("`fusermount3` did not mount `{}`: {said}\n  help: {help}", path.display())]
    HelperRefused {
        /// The mountpoint.
        path: PathBuf,
        /// What the program printed.
        said: String,
        /// What to do about it.
        help: &'static str,
    },

    /// The kernel refused the mount.
    #[error("the kernel refused to mount at `{}`: {errno}\n  help: {help}", path.display())]
    MountRefused {
        /// The mountpoint.
        path: PathBuf,
        /// What `mount(2)` said.
        errno: crate::Errno,
        /// What to do about it.
        help: &'static str,
    },

    /// The mountpoint cannot be used.
    #[error("mountpoint `{}` {problem}", path.display())]
    Mountpoint {
        /// The mountpoint as given.
        path: PathBuf,
        /// What is wrong with it.
        problem: MountpointProblem,
    },

    /// The backing directory cannot be used.
    #[error("backing `{}` {problem}", path.display())]
    Backing {
        /// The backing directory as given.
        path: PathBuf,
        /// What is wrong with it.
        problem: BackingProblem,
    },

    /// Something still held the mount when it was unmounted. The mount is gone all the same: whoever is named here now
    /// gets errors from what it holds.
    #[error("`{}` was unmounted while in use by {}\n  help: close these before the guard is dropped or unmounted", path.display(), Holders(holders))]
    Busy {
        /// The mountpoint.
        path: PathBuf,
        /// Who held it, as far as `/proc` tells this user.
        holders: Vec<Holder>,
    },

    /// The mount could not be taken away, or its threads did not end in time.
    #[error("`{}` could not be unmounted cleanly: {what}\n  help: `umount -l {}` takes it away by hand", path.display(), path.display())]
    Unmount {
        /// The mountpoint.
        path: PathBuf,
        /// What did not happen.
        what: String,
    },

    /// A request handler of chaosfs itself panicked; the operation was answered with `EIO`. This is a bug in chaosfs.
    #[error(
        "chaosfs panicked while serving `{op}` for client `{client}`: {message}\n  help: this is a bug in chaosfs, please report it"
    )]
    HandlerPanicked {
        /// The client whose operation it was.
        client: String,
        /// The operation.
        op: String,
        /// The panic's message.
        message: String,
    },

    /// A knob, option or environment variable has a value that it cannot have.
    #[error("`{name}` cannot be `{value}`\n  help: {expected}")]
    InvalidValue {
        /// The knob, option or variable.
        name: String,
        /// The value it was given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },

    /// There is no client of this name on this backing directory, or it is not mounted any more.
    #[error("no client `{client}` on backing `{}`\n  help: {known}", path.display())]
    NoSuchClient {
        /// The name asked for.
        client: String,
        /// The backing directory.
        path: PathBuf,
        /// Who is there.
        known: String,
    },

    /// The state cannot settle.
    #[error("backing `{}` cannot settle: {why}", path.display())]
    CannotSettle {
        /// The backing directory.
        path: PathBuf,
        /// What is in the way, and how to remove it.
        why: String,
    },

    /// A system call on behalf of the API failed.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a mountpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountpointProblem {
    /// There is nothing at that path.
    #[error(
        "does not exist\n  help: create the directory first, or leave `.at(..)` out and chaosfs makes one"
    )]
    Missing,
    /// It is a file or something else.
    #[error("is not a directory\n  help: give an empty directory")]
    NotADirectory,
    /// It has entries, which the mount would hide.
    #[error("is not empty\n  help: give an empty directory, so that the mount hides nothing")]
    NotEmpty,
    /// Something is mounted there.
    #[error(
        "already has a file system mounted on it ({0})\n  help: unmount it first, or use another directory"
    )]
    AlreadyMounted(String),
    /// A mount is there whose server died.
    #[error("holds a dead mount (its server is gone)\n  help: `umount -l` or `fusermount3 -uz` that path")]
    Dead,
    /// The mountpoint is the backing directory, or lies in it, or contains it.
    #[error("overlaps its own backing directory\n  help: use a directory outside of the backing")]
    OverlapsBacking,
    /// It lies in a backing directory that is open in this process: looking there, the server would wait for itself.
    #[error(
        "lies in the backing directory `{}` of this process\n  help: mount outside of all backing directories; `.at(..)` or `TMPDIR` says where", .0.display()
    )]
    InBacking(PathBuf),
    /// This user may not look at it or mount on it.
    #[error("may not be used by this user ({0})\n  help: use a directory that you own")]
    Denied(String),
}

/// What is wrong with a backing directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackingProblem {
    /// There is nothing at that path.
    #[error("does not exist\n  help: create the directory first, or use `Backing::temp()`")]
    Missing,
    /// It is a file or something else.
    #[error("is not a directory\n  help: give a directory")]
    NotADirectory,
    /// This user may not enter it.
    #[error("may not be read and entered by this user ({0})\n  help: check its owner and mode")]
    Denied(String),
    /// It is open already in this process, with a clock of its own.
    #[error(
        "is already open in this process with another clock\n  help: keep the first `Backing` and mount from it, or drop it before opening again"
    )]
    AlreadyOpen,
    /// It is in a mount that this process serves itself. Were the process killed, it could never end: closing the files
    /// of one mount would wait for the other.
    #[error("is in a mount of this process\n  help: serve one of the two mounts from another process")]
    InOwnMount,
    /// A mount that this process serves is in it, at this path: looking there, the server would wait for itself.
    #[error("contains a mount of this process, at `{}`\n  help: mount outside of all backing directories", .0.display())]
    ContainsOwnMount(PathBuf),
}

/// A process that holds a mount: an open file, a working directory, a mapped file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its program name.
    pub program: String,
    /// How it holds the mount.
    pub by: HeldBy,
    /// The path it holds.
    pub path: PathBuf,
}

/// How a process holds a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBy {
    /// An open file descriptor of this number.
    Fd(i32),
    /// Its working directory.
    Cwd,
    /// Its root directory.
    Root,
    /// A file mapped into its memory.
    Mapping,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({}): ", self.pid, self.program)?;
        match self.by {
            HeldBy::Fd(n) => write!(f, "fd {n} on ")?,
            HeldBy::Cwd => f.write_str("working directory ")?,
            HeldBy::Root => f.write_str("root directory ")?,
            HeldBy::Mapping => f.write_str("mapping of ")?,
        }
        write!(f, "`{}`", self.path.display())
    }
}

struct Holders<'a>(&'a [Holder]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        if self.0.is_empty() {
            return f.write_str("someone this user cannot see");
        }
        for (i, h) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{h}", if i == 0 { "" } else { "; " })?;
        }
        if self.0.len() > SHOWN { write!(f, "; and {} more", self.0.len() - SHOWN) } else { Ok(()) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        std::error::Error::source(self).map_or(Ok(()), |source| write!(f, "\n  cause: {source}"))
    }
}

impl Error {
    /// FUSE cannot be used on this machine or by this user, whatever is mounted where.
    pub fn is_fuse_unavailable(&self) -> bool {
        matches!(self, Error::FuseMissing | Error::FuseDenied { .. } | Error::HelperMissing)
    }

    /// Something held the mount while it was taken away.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Busy { .. })
    }

    /// The mountpoint or the backing directory is unusable as given.
    pub fn is_bad_path(&self) -> bool {
        matches!(self, Error::Mountpoint { .. } | Error::Backing { .. })
    }
}
