//! Answers: what the kernel is told, and for how long it may believe it.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    FileAttr, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr,
};

use super::attr::{errno, file_attr};
use crate::engine::{Entry, Pages};
use crate::errno::Errno;

/// How long the kernel may believe a name or attributes: not at all where the answer depends on when it is asked. Where it
/// keeps it until it is told otherwise there is a limit too, for changes that nobody knows of to tell.
pub(super) fn ttl(keep: bool) -> Duration {
    if keep { LANE } else { Duration::ZERO }
}

/// How late a change by someone outside is seen at most where the kernel answers.
const LANE: Duration = Duration::from_secs(1);

/// How the kernel treats the bytes of a file that it opens.
pub(super) fn opened(pages: Pages) -> FopenFlags {
    match pages {
        // One write that hangs does not hold up other writes of the file.
        Pages::Direct => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
        Pages::Fresh => FopenFlags::empty(),
        Pages::Kept => FopenFlags::FOPEN_KEEP_CACHE,
    }
}

/// What stands for a name that is missing: object 0.
const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

pub(super) fn send_entry(reply: ReplyEntry, entry: Entry) {
    let (attr_ttl, name_ttl) = (ttl(entry.keep.attr), ttl(entry.keep.name));
    reply.entry_with_ttls(&attr_ttl, &name_ttl, &file_attr(entry.object, &entry.attr), Generation(0));
}

/// An entry, or that there is none and will be none until the kernel is told.
pub(super) fn send_found(reply: ReplyEntry, found: Option<Entry>) {
    match found {
        Some(entry) => send_entry(reply, entry),
        None => reply.entry_with_ttls(&ttl(true), &ttl(true), &NOTHING, Generation(0)),
    }
}

pub(super) fn send_attr(reply: ReplyAttr, entry: Entry) {
    reply.attr(&ttl(entry.keep.attr), &file_attr(entry.object, &entry.attr));
}

pub(super) fn send_ok(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

/// An extended attribute, or first its size.
pub(super) fn send_xattr(size: u32) -> impl FnOnce(ReplyXattr, Vec<u8>) + Send {
    move |reply, value| match size {
        0 => reply.size(value.len() as u32),
        room if (room as usize) < value.len() => reply.error(errno(Errno::ERANGE)),
        _ => reply.data(&value),
    }
}
