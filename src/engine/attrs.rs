//! Attributes: showing them as of a version, and changing them at the truth.
//!
//! Extended attributes are shown as the truth has them: they are not delayed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use super::disk::{self, Result, SetTime, Target};
use super::handles::Handle;
use super::lanes::{Keep, Own};
use super::{Caller, Engine, Entry, Errno, State, Touched};
use crate::model::attr::Attr;
use crate::model::history::Why;
use crate::model::ids::ObjectId;
use crate::model::op::Op;
use crate::raw;

/// What a `setattr` changes; nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetAttr {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: SetTime,
    pub(crate) mtime: SetTime,
    pub(crate) handle: Option<Handle>,
}

impl SetAttr {
    fn changes_nothing(&self) -> bool {
        let times = matches!((self.atime, self.mtime), (SetTime::Keep, SetTime::Keep));
        times && self.mode.is_none() && self.uid.is_none() && self.gid.is_none() && self.size.is_none()
    }
}

/// The room of the file system under the backing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) blocks_free: u64,
    pub(crate) blocks_available: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
    pub(crate) block_size: u32,
    pub(crate) name_max: u32,
    pub(crate) fragment_size: u32,
}

impl Engine {
    /// `stat` of an object that the client has looked up, perhaps by a handle.
    pub(crate) fn getattr(&self, who: &Caller, object: ObjectId, handle: Option<Handle>) -> Result<Entry> {
        let mut st = self.lock();
        let (seen, why, version) =
            if st.world.is_plain(who.client, object) && st.object(object).is_ok_and(|o| o.dead.is_none()) {
                (st.truth(object), Why::Truth, None)
            } else {
                match self.look(&mut st, who, object, false, None) {
                    Ok((found, why)) => (Ok(found.attr), why, Some(found.version)),
                    Err(e) => (Err(e), Why::Truth, None),
                }
            };
        if let (Ok(attr), Some(handle)) = (&seen, handle)
            && st.reads_late(who, handle)
        {
            st.tells_size(who, object, attr.size);
        }
        let seen = st.note_seen(who, Op::Getattr, object, why, version, seen);
        seen.map(|attr| st.entry(who, object, attr))
    }

    pub(crate) fn setattr(&self, who: &Caller, object: ObjectId, set: &SetAttr) -> Result<Entry> {
        let mut st = self.lock();
        let op = if set.size.is_some() { Op::Truncate } else { Op::Setattr };
        let done = self.setattr_inner(&mut st, who, object, set);
        if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() {
            st.rights_changed(object, done.is_ok());
        }
        st.note(who, op, object, Why::Truth, done).map(|attr| st.entry(who, object, attr))
    }

    fn setattr_inner(&self, st: &mut State, who: &Caller, object: ObjectId, set: &SetAttr) -> Result<Attr> {
        st.object(object)?;
        if let Some(size) = set.size {
            self.resize(st, who, object, size, set.handle)?;
        }
        let times = (!matches!(set.atime, SetTime::Keep)) || !matches!(set.mtime, SetTime::Keep);
        let owner = set.uid.is_some() || set.gid.is_some();
        if set.mode.is_some() || owner || times || set.changes_nothing() {
            if times || set.mode.is_some_and(|mode| mode & 0o6000 != 0) {
                // A later flush would move the time again, or take the new bits away.
                self.flush_dirty(st, who, object)?;
            }
            let visible = Self::attr_visible(st, who);
            st.commit(who, object, visible, None, Own::Wrong, |st| {
                let fd = st.stand(object)?;
                self.apply(who, fd.as_fd(), set)?;
                self.touch(st, who, object, Target::Fd(fd.as_fd()), Touched::Attributes);
                Ok(())
            })?;
        }
        if st.world.is_plain(who.client, object) {
            st.truth(object)
        } else {
            Ok(self.look(st, who, object, false, None)?.0.attr)
        }
    }

    fn apply(&self, who: &Caller, fd: BorrowedFd<'_>, set: &SetAttr) -> Result<()> {
        if set.uid.is_some() || set.gid.is_some() {
            disk::chown(Target::Fd(fd), set.uid, set.gid)?;
        } else if set.changes_nothing() {
            // What the kernel sends for a `chown` to nobody, and before others change the file: set-id bits go. Only the
            // first is for the owner alone, and they cannot be told apart.
            match disk::chown(Target::Fd(fd), None, None) {
                Err(Errno::EPERM) => {}
                done => done?,
            }
        }
        if let Some(mode) = set.mode {
            disk::chmod(fd, mode)?;
        }
        let by_clock = |time| match time {
            SetTime::Now if self.calendar.decides => SetTime::To(self.calendar.stamp(who.now)),
            other => other,
        };
        let (atime, mtime) = (by_clock(set.atime), by_clock(set.mtime));
        if !matches!((atime, mtime), (SetTime::Keep, SetTime::Keep)) {
            disk::set_times(Target::Fd(fd), atime, mtime)?;
        }
        Ok(())
    }

    /// A file that is truncated by name: it is opened for this one call.
    pub(super) fn open_to_write(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
    ) -> Result<std::sync::Arc<super::objects::OpenFile>> {
        let (write, no) = (true, false);
        let flags = super::OpenFlags { read: no, write, sync: no, direct: no, execute: no, noatime: no };
        Ok(std::sync::Arc::new(self.open_disk(st, who, object, flags)?))
    }

    /// Whether the caller may read, write or execute, as the truth decides.
    pub(crate) fn access(&self, who: &Caller, object: ObjectId, mask: u32) -> Result<()> {
        let mut st = self.lock();
        let done = st.stand(object).and_then(|fd| disk::access(fd.as_fd(), mask));
        st.note(who, Op::Access, object, Why::Truth, done)
    }

    /// Not in the history: chaosfs asks for it itself, to know that everything before it was served.
    pub(crate) fn statfs(&self) -> Result<Space> {
        let mut st = self.lock();
        let root = st.dir_fd(ObjectId::ROOT)?;
        disk::statvfs(root.as_fd()).map(|s| Space {
            blocks: s.f_blocks,
            blocks_free: s.f_bfree,
            blocks_available: s.f_bavail,
            files: s.f_files,
            files_free: s.f_ffree,
            block_size: s.f_bsize as u32,
            name_max: s.f_namemax as u32,
            fragment_size: s.f_frsize as u32,
        })
    }

    /// The flags that `chattr` sets, which are shown as the truth has them: one of the requests of `raw::file_flags`.
    pub(crate) fn file_flags(
        &self,
        who: &Caller,
        object: ObjectId,
        request: u32,
        mut argument: [u8; 28],
        sets: bool,
    ) -> Result<[u8; 28]> {
        let mut st = self.lock();
        let op = if sets { Op::Setattr } else { Op::Getattr };
        let how = disk::Opening { access: disk::Access::Read, sync: false, noatime: false };
        let mut ask = |fd: BorrowedFd<'_>| {
            let (file, _) = disk::reopen(fd, how)?;
            Ok(raw::file_flags(file.as_fd(), request, &mut argument)?)
        };
        let done = if sets {
            // The kernel does not know that this changes any attributes.
            st.rights_changed(object, false);
            self.change_xattr(&mut st, who, object, OsStr::new(""), ask)
        } else {
            st.stand(object).and_then(|fd| ask(fd.as_fd()))
        };
        st.note(who, op, object, Why::Truth, done.map(|()| argument))
    }

    // ---- extended attributes -------------------------------------------------------------------------------------

    pub(crate) fn get_xattr(&self, who: &Caller, object: ObjectId, name: &OsStr) -> Result<Vec<u8>> {
        let mut st = self.lock();
        let done = st.stand(object).and_then(|fd| disk::get_xattr(fd.as_fd(), name));
        st.note(who, Op::Getxattr, object, Why::Truth, done)
    }

    pub(crate) fn list_xattr(&self, who: &Caller, object: ObjectId) -> Result<Vec<u8>> {
        let mut st = self.lock();
        let done = st.stand(object).and_then(|fd| disk::list_xattr(fd.as_fd()));
        st.note(who, Op::Listxattr, object, Why::Truth, done)
    }

    pub(crate) fn set_xattr(
        &self,
        who: &Caller,
        object: ObjectId,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        let mut st = self.lock();
        let done =
            self.change_xattr(&mut st, who, object, name, |fd| disk::set_xattr(fd, name, value, flags));
        st.note(who, Op::Setxattr, object, Why::Truth, done)
    }

    pub(crate) fn remove_xattr(&self, who: &Caller, object: ObjectId, name: &OsStr) -> Result<()> {
        let mut st = self.lock();
        let done = self.change_xattr(&mut st, who, object, name, |fd| disk::remove_xattr(fd, name));
        st.note(who, Op::Removexattr, object, Why::Truth, done)
    }

    fn change_xattr(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        name: &OsStr,
        change: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let fd = st.stand(object)?;
        let visible = Self::attr_visible(st, who);
        st.commit(who, object, visible, None, Own::Wrong, |st| {
            change(fd.as_fd())?;
            self.touch(st, who, object, Target::Fd(fd.as_fd()), Touched::Attributes);
            Ok(())
        })?;
        if name.as_encoded_bytes().starts_with(b"system.posix_acl") {
            st.rights_changed(object, false);
        }
        Ok(())
    }
}

impl State {
    fn entry(&self, who: &Caller, object: ObjectId, attr: Attr) -> Entry {
        Entry { object, attr, keep: Keep { name: false, attr: self.keeps_attr(who, object, &attr) } }
    }
}
