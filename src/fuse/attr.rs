//! The engine's attributes, flags and error numbers as fuser's, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::engine::{OpenFlags, SetTime};
use crate::errno::Errno;
use crate::model::attr::{Attr, Kind, Stamp};
use crate::model::ids::ObjectId;

/// How long the kernel may believe a name or attributes: not at all, since every answer depends on when it is asked.
pub(super) const TTL: Duration = Duration::ZERO;

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

fn stamp(time: SystemTime) -> Stamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(d) => Stamp { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            let up = u32::from(d.subsec_nanos() > 0);
            Stamp {
                secs: -(d.as_secs() as i64) - i64::from(up),
                nanos: up * 1_000_000_000 - d.subsec_nanos(),
            }
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

pub(super) fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    OpenFlags {
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        sync: flags & (libc::O_SYNC | libc::O_DSYNC) != 0,
        direct: flags & libc::O_DIRECT != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_way_there_and_back() {
        for s in [
            Stamp { secs: -1, nanos: 999_999_999 },
            Stamp { secs: -5, nanos: 0 },
            Stamp { secs: 0, nanos: 1 },
        ] {
            assert_eq!(stamp(system_time(s)), s);
        }
    }
}
