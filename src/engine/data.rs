//! The bytes of files: reading them as of a version, writing them now or later, and the points at which what a client
//! has written reaches the truth.

use std::os::fd::AsFd;

use super::disk::{self, Access, Result, Target};
use super::handles::Handle;
use super::lanes::Own;
use super::{Caller, Engine, Errno, State, Touched};
use crate::model::history::Why;
use crate::model::ids::{ObjectId, Version};
use crate::model::op::Op;

/// The largest piece that `copy_file_range` moves at once through the model.
const COPY_PIECE: usize = 1 << 20;

/// What one `write` asks for besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteHow {
    /// At the end of the file, wherever that is.
    pub(crate) append: bool,
    /// To the disk before it returns.
    pub(crate) sync: bool,
    /// A page of a mapping.
    pub(crate) mapped: bool,
    /// The process (its table of open files) that wrote; none for a page of a mapping.
    pub(crate) writer: Option<u64>,
}

/// What an event about bytes tells besides its result.
#[derive(Clone, Copy)]
struct Moved {
    at: u64,
    len: u64,
    why: Why,
    version: Option<Version>,
}

impl Engine {
    // ---- reading -------------------------------------------------------------------------------------------------

    /// Reads as the client sees the file; answers how many bytes of `buf` there are.
    pub(crate) fn read(
        &self,
        who: &Caller,
        object: ObjectId,
        handle: Handle,
        at: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        let mut st = self.lock();
        let len = buf.len() as u64;
        let file = st.file(who, handle)?;
        let mut moved = Moved { at, len, why: Why::Truth, version: None };
        let done = if file.access == Access::Write {
            Err(Errno::EBADF)
        } else if st.world.is_plain(who.client, object) && st.world.all_write_through() {
            // Nothing can change what this client sees but the disk itself, now or in the midst of this: no need to keep
            // others waiting.
            drop(st);
            let done = disk::read(&file.fd, at, buf);
            st = self.lock();
            done
        } else if st.world.is_plain(who.client, object) {
            disk::read(&file.fd, at, buf)
        } else {
            st.read_seen(who, object, &file, at, buf, &mut moved)
        };
        st.note_bytes(who, Op::Read, object, moved, done)
    }

    // ---- writing -------------------------------------------------------------------------------------------------

    /// Writes `data`; R3: to the truth at once without a `write_delay`, otherwise to the client's own memory.
    pub(crate) fn write(
        &self,
        who: &Caller,
        (object, handle): (ObjectId, Handle),
        at: u64,
        data: &[u8],
        how: WriteHow,
    ) -> Result<usize> {
        let mut st = self.lock();
        let file = st.file(who, handle)?;
        let mut moved = Moved { at, len: data.len() as u64, why: Why::Truth, version: None };
        let done = if file.access == Access::Read {
            Err(Errno::EBADF)
        } else if st.world.knobs(who.client).write_delay.is_zero() {
            self.write_through(&mut st, who, (object, &file), &mut moved, data, how)
        } else {
            self.write_back(&mut st, who, object, &mut moved, data, how)
        };
        st.note_bytes(who, Op::Write, object, moved, done)
    }

    fn write_through(
        &self,
        st: &mut State,
        who: &Caller,
        (object, file): (ObjectId, &super::objects::OpenFile),
        moved: &mut Moved,
        data: &[u8],
        how: WriteHow,
    ) -> Result<usize> {
        // Bytes from before the delay was turned off go first.
        self.flush_dirty(st, who, object)?;
        let needs_past = st.world.needs_past(who.client, object, who.now, who.now);
        if how.append && needs_past {
            moved.at = st.stat(object)?.attr.size;
        }
        let range = (&file.fd, moved.at, moved.at.saturating_add(data.len() as u64));
        let at = if how.append { None } else { Some(moved.at) };
        let pages = if how.mapped { Own::Right } else { Own::Wrong };
        let (n, version) = st.commit(who, object, who.now, Some(range), pages, |st| {
            let n = disk::write(&file.fd, at, data)?;
            if how.sync && !file.flags.sync {
                disk::sync(&file.fd, true)?;
            }
            self.touch(st, who, object, Target::Fd(file.fd.as_fd()), Touched::Content);
            Ok(n)
        })?;
        moved.version = Some(version);
        Ok(n)
    }

    fn write_back(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        moved: &mut Moved,
        data: &[u8],
        how: WriteHow,
    ) -> Result<usize> {
        if how.append {
            // The end of the file as this client sees it when it asks now: two clients can append to the same place.
            moved.at = self.look(st, who, object, true, None)?.0.attr.size;
        }
        moved.why = Why::Buffered;
        if moved.at.checked_add(data.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Errno::EFBIG);
        }
        st.client(who.client).writers.entry(object).or_default().add(how.writer);
        // A write can take set-id bits away; only the disk knows whose.
        let at_once = how.sync || (!st.world.holds_back(who.client, object) && st.has_set_id(object));
        let due = st.world.write(who.client, object, moved.at, data, who.now);
        if at_once {
            moved.version = self.flush_dirty(st, who, object)?;
            moved.why = Why::Truth;
        } else if let Some(due) = due {
            (self.alarm)(due);
        }
        self.stay_within_budget(st, who);
        Ok(data.len())
    }

    // ---- sizes and ranges ----------------------------------------------------------------------------------------

    /// Sets the size of a file: a flush point, and a commit at once.
    pub(super) fn resize(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        size: u64,
        handle: Option<Handle>,
    ) -> Result<()> {
        // By name only who may write it, whoever else has it open; before anything is lost by it.
        let open = handle.and_then(|h| st.file(who, h).ok());
        let file = match open.filter(|f| f.access != Access::Read) {
            Some(file) => file,
            None => self.open_to_write(st, who, object)?,
        };
        // What is cut off anyway need not be flushed.
        st.world.truncate_dirty(who.client, object, size);
        self.flush_dirty(st, who, object)?;
        let visible = Self::attr_visible(st, who);
        let overwrites = (&file.fd, size, u64::MAX);
        st.commit(who, object, visible, Some(overwrites), Own::Right, |st| {
            disk::truncate(&file.fd, size)?;
            self.touch(st, who, object, Target::Fd(file.fd.as_fd()), Touched::Content);
            Ok(())
        })?;
        Ok(())
    }

    /// `fallocate`.
    pub(crate) fn allocate(
        &self,
        who: &Caller,
        object: ObjectId,
        handle: Handle,
        at: u64,
        len: u64,
        mode: u32,
    ) -> Result<()> {
        let mut st = self.lock();
        let done = st.file(who, handle).and_then(|file| {
            self.flush_dirty(&mut st, who, object)?;
            let visible = Self::attr_visible(&st, who);
            let overwrites = (&file.fd, at, at.saturating_add(len));
            st.commit(who, object, visible, Some(overwrites), Own::Wrong, |st| {
                disk::allocate(&file.fd, mode, at, len)?;
                self.touch(st, who, object, Target::Fd(file.fd.as_fd()), Touched::Content);
                Ok(())
            })
        });
        let moved = Moved { at, len, why: Why::Truth, version: done.as_ref().ok().map(|((), v)| *v) };
        st.note_bytes(who, Op::Fallocate, object, moved, done.map(|_| 0)).map(drop)
    }

    /// `lseek` to data or a hole.
    pub(crate) fn seek(
        &self,
        who: &Caller,
        object: ObjectId,
        handle: Handle,
        at: u64,
        hole: bool,
    ) -> Result<u64> {
        let mut st = self.lock();
        let done = st.file(who, handle).and_then(|file| {
            if st.world.is_plain(who.client, object) {
                return disk::seek(&file.fd, at, hole);
            }
            // Of a past state only the size is known for sure: it is all data up to there.
            let size = self.look(&mut st, who, object, false, None)?.0.attr.size;
            if at >= size { Err(Errno::ENXIO) } else { Ok(if hole { size } else { at }) }
        });
        st.note(who, Op::Lseek, object, Why::Truth, done)
    }

    /// `copy_file_range`; may copy less than asked.
    pub(crate) fn copy(
        &self,
        who: &Caller,
        (from, from_handle, from_at): (ObjectId, Handle, u64),
        (to, to_handle, to_at): (ObjectId, Handle, u64),
        len: u64,
    ) -> Result<usize> {
        let mut st = self.lock();
        let (source, target) = (st.file(who, from_handle)?, st.file(who, to_handle)?);
        let strict = st.world.is_plain(who.client, from)
            && st.world.is_plain(who.client, to)
            && st.world.knobs(who.client).write_delay.is_zero();
        if strict {
            let range = (&target.fd, to_at, to_at.saturating_add(len));
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
            let done = st.commit(who, to, who.now, Some(range), Own::Wrong, |st| {
                let n = disk::copy_range(&source.fd, from_at, &target.fd, to_at, len)?;
                self.touch(st, who, to, Target::Fd(target.fd.as_fd()), Touched::Content);
                Ok(n)
            });
            let version = done.as_ref().ok().map(|(_, v)| *v);
            let moved = Moved { at: to_at, len: len as u64, why: Why::Truth, version };
            let done = st.note_bytes(who, Op::CopyFileRange, to, moved, done.map(|(n, _)| n));
            // The kernel then copies through read and write, which is what two file systems that differ need.
            return done;
        }
        drop(st);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(COPY_PIECE)];
        let n = self.read(who, from, from_handle, from_at, &mut bytes)?;
        if n == 0 {
            Ok(0)
        } else {
            self.write(
                who,
                (to, to_handle),
                to_at,
                &bytes[..n],
                WriteHow { append: false, sync: false, mapped: false, writer: None },
            )
        }
    }
}

impl State {
    fn has_set_id(&mut self, object: ObjectId) -> bool {
        self.stat(object).is_ok_and(|stat| stat.attr.perm & 0o6000 != 0)
    }

    #[allow(clippy::too_many_arguments)] // a read and where to note what it saw
    fn read_seen(
        &mut self,
        who: &Caller,
        object: ObjectId,
        file: &super::objects::OpenFile,
        at: u64,
        buf: &mut [u8],
        moved: &mut Moved,
    ) -> Result<usize> {
        let (found, why) = self.see(who, object, file.flags.direct, None)?;
        moved.why = why;
        moved.version = Some(found.version);
        let left = |size: u64| usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        let own_end = self.world.view(who.client).dirty.get(&object).map_or(0, |d| d.extents.end());
        let len = buf.len().min(left(found.attr.size.max(own_end)));
        let buf = &mut buf[..len];
        let n = disk::read(&file.fd, at, buf)?;
        // The disk may have more than this version had, and less than the client has written.
        buf[left(found.attr.size).min(n)..].fill(0);
        self.world.show(who.client, object, found.version, at, buf);
        Ok(len)
    }

    fn note_bytes(
        &mut self,
        who: &Caller,
        op: Op,
        object: ObjectId,
        moved: Moved,
        done: Result<usize>,
    ) -> Result<usize> {
        let path = self.path_of(who.client, object);
        let mut event = self.event(who, op, path);
        event.range = Some((moved.at, moved.len));
        event.version = moved.version;
        event.why = moved.why;
        event.result = done.map(|n| n as u64);
        self.recorder.push(event);
        done
    }
}
