//! The only file that touches the backing directory: system calls on directory descriptors, one component at a time.
//!
//! Every call names an object either by a descriptor or by (directory descriptor, one name), and never follows a symbolic
//! link, so nothing that a program or an outsider does to the names can lead out of the backing directory. Nothing here
//! knows of clients, versions or FUSE.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::ReadWriteFlags;
use rustix::process::{Gid, Uid};

use crate::errno::Errno;
use crate::model::attr::{Attr, Kind, Stamp};

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// What tells two objects of the backing apart while both exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

/// An object of the backing as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) key: Key,
    pub(crate) attr: Attr,
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        _ => Kind::File,
    }
}

fn stat(s: &fs::Stat) -> Stat {
    let stamp = |secs, nanos| Stamp { secs, nanos: nanos as u32 };
    Stat {
        key: Key { dev: s.st_dev, ino: s.st_ino },
        attr: Attr {
            kind: kind(FileType::from_raw_mode(s.st_mode)),
            perm: (s.st_mode & 0o7777) as u16,
            nlink: s.st_nlink as u32,
            uid: s.st_uid,
            gid: s.st_gid,
            rdev: s.st_rdev as u32,
            size: s.st_size as u64,
            blocks: s.st_blocks as u64,
            blksize: s.st_blksize as u32,
            atime: stamp(s.st_atime, s.st_atime_nsec),
            mtime: stamp(s.st_mtime, s.st_mtime_nsec),
            ctime: stamp(s.st_ctime, s.st_ctime_nsec),
        },
    }
}

pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
    Ok(stat(&fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

pub(crate) fn stat_fd(fd: impl AsFd) -> Result<Stat> {
    Ok(stat(&fs::fstat(fd)?))
}

/// A descriptor that stands for the object and gives no access to its bytes.
pub(crate) fn anchor(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    Ok(fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// The backing directory itself, the one path that is resolved as a whole.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
    Ok(fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The bytes of a file, for reading, writing or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    ReadWrite,
}

/// How a file is to be opened, as far as the disk is concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) access: Access,
    /// `O_SYNC` or `O_DSYNC`.
    pub(crate) sync: bool,
    /// Reading must not move access times: a manual clock owns them.
    pub(crate) noatime: bool,
}

impl Opening {
    fn flags(self) -> OFlags {
        let access = match self.access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::WRONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        // NONBLOCK: should an outsider have put a fifo there, opening it must not wait for its other end.
        let mut flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        flags.set(OFlags::SYNC, self.sync);
        flags
    }

    /// Tries as asked, then without what only an owner, or only a reader, may have.
    fn try_each<T>(self, mut open: impl FnMut(OFlags) -> rustix::io::Result<T>) -> Result<(T, Access)> {
        use rustix::io::Errno as E;
        if self.noatime {
            match open(self.flags() | OFlags::NOATIME) {
                Err(E::PERM) => {}
                Err(E::ACCESS) if self.access == Access::ReadWrite => {}
                other => return Ok((other?, self.access)),
            }
        }
        match open(self.flags()) {
            // A program that only writes does not need to be able to read; we would like to, for the sake of others.
            Err(E::ACCESS) if self.access == Access::ReadWrite => {
                let write_only = Opening { access: Access::Write, ..self };
                Ok((open(write_only.flags())?, Access::Write))
            }
            other => Ok((other?, self.access)),
        }
    }
}

/// Opens the file at `name`. `ReadWrite` falls back to `Write` where reading is not allowed; the answer says which it is.
pub(crate) fn open_at(dir: BorrowedFd<'_>, name: &OsStr, how: Opening) -> Result<(OwnedFd, Access)> {
    how.try_each(|flags| fs::openat(dir, name, flags, Mode::empty()))
}

/// Opens the file that an anchor stands for, which may have no name any more.
pub(crate) fn reopen(anchor: BorrowedFd<'_>, how: Opening) -> Result<(OwnedFd, Access)> {
    how.try_each(|flags| fs::open(proc_path(anchor), flags - OFlags::NOFOLLOW, Mode::empty()))
}

/// Makes a new file; `EEXIST` when the name is taken, whatever by.
pub(crate) fn create(dir: BorrowedFd<'_>, name: &OsStr, mode: u32, sync: bool) -> Result<OwnedFd> {
    let how = Opening { access: Access::ReadWrite, sync, noatime: false };
    let flags = how.flags() | OFlags::CREATE | OFlags::EXCL;
    Ok(fs::openat(dir, name, flags, Mode::from_raw_mode(mode & 0o7777))?)
}

/// The path of an object by its descriptor: following it leads to that object and nowhere else. By way of the thread, not
/// of the process: the threads that serve have a table of descriptors of their own.
fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_raw_fd())
}

// ---- names -----------------------------------------------------------------------------------------------------------

pub(crate) fn mkdir(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    Ok(fs::mkdirat(dir, name, Mode::from_raw_mode(mode & 0o7777))?)
}

pub(crate) fn mknod(dir: BorrowedFd<'_>, name: &OsStr, mode: u32, rdev: u32) -> Result<()> {
    let dev = fs::makedev((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
    Ok(fs::mknodat(dir, name, FileType::from_raw_mode(mode), Mode::from_raw_mode(mode & 0o7777), dev)?)
}

pub(crate) fn symlink(target: &OsStr, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    Ok(fs::symlinkat(target, dir, name)?)
}

pub(crate) fn readlink(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    Ok(fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

pub(crate) fn readlink_fd(anchor: BorrowedFd<'_>) -> Result<Vec<u8>> {
    readlink(anchor, OsStr::new(""))
}

pub(crate) fn unlink(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    Ok(fs::unlinkat(dir, name, AtFlags::empty())?)
}

pub(crate) fn rmdir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    Ok(fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

pub(crate) fn rename(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    new_dir: BorrowedFd<'_>,
    new_name: &OsStr,
    flags: u32,
) -> Result<()> {
    // Without flags the older call does: not every file system knows `renameat2`.
    if flags == 0 {
        return Ok(fs::renameat(dir, name, new_dir, new_name)?);
    }
    let flags = fs::RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    Ok(fs::renameat_with(dir, name, new_dir, new_name, flags)?)
}

pub(crate) fn link(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    new_dir: BorrowedFd<'_>,
    new_name: &OsStr,
) -> Result<()> {
    Ok(fs::linkat(dir, name, new_dir, new_name, AtFlags::empty())?)
}

/// Gives an object another name by an open descriptor of it.
pub(crate) fn link_fd(object: BorrowedFd<'_>, new_dir: BorrowedFd<'_>, new_name: &OsStr) -> Result<()> {
    Ok(fs::linkat(fs::CWD, proc_path(object), new_dir, new_name, AtFlags::SYMLINK_FOLLOW)?)
}

/// Calls `each` with the name, kind and inode number of every entry but `.` and `..`.
pub(crate) fn list(dir: BorrowedFd<'_>, mut each: impl FnMut(&OsStr, Option<Kind>, u64)) -> Result<()> {
    use rustix::io::Errno as E;
    use std::os::unix::ffi::OsStrExt;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
    let fd = match fs::openat(dir, ".", flags, Mode::empty()) {
        Err(E::PERM) => fs::openat(dir, ".", flags - OFlags::NOATIME, Mode::empty())?,
        // A directory that may be listed but not entered cannot be opened from within.
        Err(E::ACCESS) => fs::open(proc_path(dir), flags - OFlags::NOATIME, Mode::empty())?,
        other => other?,
    };
    let mut buf = Vec::with_capacity(32 * 1024);
    let mut entries = fs::RawDir::new(fd, buf.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            // A removed directory can be opened by who is inside; there is nothing in it.
            Err(E::NOENT) => break,
            other => other?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let known = Some(entry.file_type()).filter(|t| *t != FileType::Unknown).map(kind);
            each(OsStr::from_bytes(name), known, entry.ino());
        }
    }
    Ok(())
}

// ---- bytes -----------------------------------------------------------------------------------------------------------

/// Fills `buf` from `at` on; answers how many bytes there were.
pub(crate) fn read(file: &OwnedFd, at: u64, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match rustix::io::pread(file, &mut buf[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(done)
}

/// Writes `data` at `at`, or at the end of the file wherever that is. Answers how many bytes fitted; an error only when
/// none did.
pub(crate) fn write(file: &OwnedFd, at: Option<u64>, data: &[u8]) -> Result<usize> {
    let mut done = 0;
    while done < data.len() {
        let rest = &data[done..];
        let wrote = match at {
            Some(at) => rustix::io::pwrite(file, rest, at + done as u64),
            None => rustix::io::pwritev2(file, &[std::io::IoSlice::new(rest)], 0, ReadWriteFlags::APPEND),
        };
        match wrote {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(done)
}

pub(crate) fn truncate(file: &OwnedFd, size: u64) -> Result<()> {
    Ok(fs::ftruncate(file, size)?)
}

pub(crate) fn allocate(file: &OwnedFd, mode: u32, at: u64, len: u64) -> Result<()> {
    Ok(fs::fallocate(file, fs::FallocateFlags::from_bits_retain(mode), at, len)?)
}

pub(crate) fn sync(file: &OwnedFd, data_only: bool) -> Result<()> {
    let _: () = if data_only { fs::fdatasync(file)? } else { fs::fsync(file)? };
    Ok(())
}

/// `fsync` of a directory, by an anchor of it.
pub(crate) fn sync_dir(dir: BorrowedFd<'_>) -> Result<()> {
    let fd = fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fs::fsync(fd)?)
}

/// Syncs the whole file system that a readable directory is in.
pub(crate) fn sync_all(dir: BorrowedFd<'_>) -> Result<()> {
    let fd = fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fs::syncfs(fd)?)
}

/// The next data or hole at or after `at`.
pub(crate) fn seek(file: &OwnedFd, at: u64, hole: bool) -> Result<u64> {
    Ok(fs::seek(file, if hole { fs::SeekFrom::Hole(at) } else { fs::SeekFrom::Data(at) })?)
}

pub(crate) fn copy_range(
    from: &OwnedFd,
    mut at: u64,
    to: &OwnedFd,
    mut to_at: u64,
    len: usize,
) -> Result<usize> {
    Ok(fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), len)?)
}

// ---- attributes ------------------------------------------------------------------------------------------------------

/// An object whose attributes are to be changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// By any descriptor of it, anchors included.
    Fd(BorrowedFd<'a>),
    /// By its name.
    At(BorrowedFd<'a>, &'a OsStr),
}

pub(crate) fn chmod(object: BorrowedFd<'_>, perm: u32) -> Result<()> {
    // An anchor refuses `fchmod`, and `chmod` by name follows links; the path by descriptor does neither.
    Ok(fs::chmodat(fs::CWD, proc_path(object), Mode::from_raw_mode(perm & 0o7777), AtFlags::empty())?)
}

pub(crate) fn chown(target: Target<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    let _: () = match target {
        Target::Fd(fd) => fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)?,
        Target::At(dir, name) => fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?,
    };
    Ok(())
}

/// A new time of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetTime {
    Keep,
    Now,
    To(Stamp),
}

pub(crate) fn set_times(target: Target<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    let spec = |time| match time {
        SetTime::Keep => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT as _ },
        SetTime::Now => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW as _ },
        SetTime::To(stamp) => Timespec { tv_sec: stamp.secs, tv_nsec: stamp.nanos as _ },
    };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    let _: () = match target {
        Target::Fd(fd) => fs::utimensat(fs::CWD, proc_path(fd), &times, AtFlags::empty())?,
        Target::At(dir, name) => fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?,
    };
    Ok(())
}

/// Whether the identity of this thread may do this (`R_OK`, `W_OK`, `X_OK` bits) with an object.
pub(crate) fn access(object: BorrowedFd<'_>, mask: u32) -> Result<()> {
    let mask = fs::Access::from_bits_truncate(mask);
    Ok(fs::accessat(fs::CWD, proc_path(object), mask, AtFlags::EACCESS)?)
}

/// Room and limits of the file system under the backing.
pub(crate) fn statvfs(root: BorrowedFd<'_>) -> Result<fs::StatVfs> {
    Ok(fs::fstatvfs(root)?)
}

// ---- extended attributes, by an anchor -------------------------------------------------------------------------------

/// The largest value or list that Linux allows.
const XATTR_MAX: usize = 64 * 1024;

pub(crate) fn get_xattr(object: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    let mut value = vec![0; XATTR_MAX];
    let n = fs::getxattr(proc_path(object), name, &mut value[..])?;
    value.truncate(n);
    Ok(value)
}

/// Whether an access control list says more than the permission bits do. If that cannot be told, it may.
pub(crate) fn has_acl(object: BorrowedFd<'_>) -> bool {
    use rustix::io::Errno as E;
    let found = fs::getxattr(proc_path(object), "system.posix_acl_access", &mut [0_u8; 0][..]);
    !matches!(found, Err(E::NODATA | E::OPNOTSUPP))
}

pub(crate) fn list_xattr(object: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut names = vec![0; XATTR_MAX];
    let n = fs::listxattr(proc_path(object), &mut names[..])?;
    names.truncate(n);
    Ok(names)
}

pub(crate) fn set_xattr(object: BorrowedFd<'_>, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
    let flags = fs::XattrFlags::from_bits_retain(flags as u32);
    Ok(fs::setxattr(proc_path(object), name, value, flags)?)
}

pub(crate) fn remove_xattr(object: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    Ok(fs::removexattr(proc_path(object), name)?)
}
