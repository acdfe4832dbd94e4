//! The engine's attributes, flags and error numbers as fuser's, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, LockOwner, TimeOrNow, WriteFlags};

use crate::engine::{OpenFlags, SetTime, WriteHow};
use crate::errno::Errno;
use crate::model::attr::{Attr, Kind, Stamp};
use crate::model::ids::ObjectId;

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(stamp: Stamp) -> SystemTime {
    let whole = Duration::from_secs(stamp.secs.unsigned_abs());
    let base = if stamp.secs >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    base.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(u64::from(stamp.nanos))
}

/// A time from a request. Of times before 1970 fuser 0.18 takes the nanoseconds, which count forwards from the second, as
/// counting backwards; undone here. What it sends is right.
fn stamp(time: SystemTime) -> Stamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(d) => Stamp { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            Stamp { secs: -(d.as_secs() as i64), nanos: d.subsec_nanos() }
        }
    }
}

pub(super) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::To(stamp(time)),
    }
}

pub(super) fn file_attr(object: ObjectId, a: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(object.0),
        size: a.size,
        blocks: a.blocks,
        atime: system_time(a.atime),
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(a.kind),
        perm: a.perm,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: a.blksize,
        flags: 0,
    }
}

pub(super) fn errno(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw())
}

/// The kernel's own flag of an `open` on behalf of `execve`.
const FMODE_EXEC: i32 = 0x20;

/// What one `write` asks for. The flags of the open file can change after it was opened; and pages of a mapping, which the
/// kernel writes through whatever file is open, always go where they belong.
pub(super) fn write_how(how: WriteFlags, flags: i32, owner: Option<LockOwner>) -> WriteHow {
    let mapped = how.contains(WriteFlags::FUSE_WRITE_CACHE);
    WriteHow {
        mapped,
        append: !mapped && flags & libc::O_APPEND != 0,
        sync: !mapped && flags & (libc::O_SYNC | libc::O_DSYNC) != 0,
        writer: owner.filter(|_| !mapped).map(|owner| owner.0),
    }
}

pub(super) fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    OpenFlags {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        sync: flags & (libc::O_SYNC | libc::O_DSYNC) != 0,
        direct: flags & libc::O_DIRECT != 0,
        execute: flags & FMODE_EXEC != 0,
        noatime: flags & libc::O_NOATIME != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_taken_and_given_right() {
        // As fuser hands on -1 s and 999,999,999 ns.
        let received = UNIX_EPOCH - Duration::new(1, 999_999_999);
        let meant = Stamp { secs: -1, nanos: 999_999_999 };
        assert_eq!(stamp(received), meant);
        assert_eq!(system_time(meant), UNIX_EPOCH - Duration::from_nanos(1));
        let whole = Stamp { secs: -5, nanos: 0 };
        assert_eq!(
            (stamp(system_time(whole)), system_time(whole)),
            (whole, UNIX_EPOCH - Duration::from_secs(5))
        );
    }
}
