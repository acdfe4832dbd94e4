//! Flush points: when what a client has written reaches the truth (R3), and who is told when it cannot.

use std::os::fd::AsFd;

use super::disk::{self, Result, Target};
use super::handles::Handle;
use super::identity::as_server;
use super::{Caller, Engine, Errno, State, Touched};
use crate::model::history::{Deed, Why};
use crate::model::ids::{ObjectId, Version};
use crate::model::op::Op;

/// Who has written to a file that is open: whose `close` is a flush point.
///
/// A process that starts another one hands its descriptors on for a moment, and the child closes them all before the other
/// program runs. Those closes reach us too; were they flush points, starting any process would flush every file at a
/// moment that no test decides.
#[derive(Default)]
pub(super) struct Writers {
    processes: Vec<u64>,
    /// Too many to remember, or a mapping.
    anyone: bool,
}

/// How many processes that write to one file are told apart.
const WRITERS: usize = 16;

impl Writers {
    pub(super) fn add(&mut self, writer: Option<u64>) {
        match writer {
            Some(writer) if self.processes.contains(&writer) => {}
            Some(writer) if self.processes.len() < WRITERS => self.processes.push(writer),
            _ => self.anyone = true,
        }
    }

    fn contains(&self, process: u64) -> bool {
        self.anyone || self.processes.contains(&process)
    }
}

impl Engine {
    /// R3: what the client has written to `object` reaches the truth, merged into it byte by byte. Answers the version
    /// that this made; none when there was nothing to flush.
    pub(super) fn flush_dirty(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
    ) -> Result<Option<Version>> {
        let Some((dirty, visible)) = st.world.take_dirty(who.client, object, who.now) else {
            return Ok(None);
        };
        let file = st.writer(who, object).ok_or(Errno::EIO)?;
        let mut before = st.before(who, object, visible, None);
        let mut failed = None;
        for (at, bytes) in dirty.extents.iter() {
            if let Some((attr, overwritten)) = &mut before {
                if let Ok(old) = read_overwritten(&file.fd, attr.size, at, bytes.len()) {
                    overwritten.write_below(at, &old);
                } else {
                    // Kept in part it would be a mix of two states. Everyone sees the change early instead.
                    st.world.give_up(object);
                    before = None;
                }
            }
            match disk::write(&file.fd, Some(at), bytes) {
                Ok(n) if n == bytes.len() => {}
                Ok(_) => failed = Some(Errno::ENOSPC),
                Err(e) => failed = Some(e),
            }
        }
        self.touch(st, who, object, Target::Fd(file.fd.as_fd()), Touched::Content);
        let version = st.after(who, object, visible, before);
        st.bytes_changed(who.client, object, None);
        failed.map_or(Ok(Some(version)), Err)
    }

    /// Whether a `close` by this process is a flush point of a file.
    pub(crate) fn wrote(&self, who: &Caller, object: ObjectId, process: u64) -> bool {
        let mut st = self.lock();
        st.client(who.client).writers.get(&object).is_some_and(|w| w.contains(process))
    }

    /// One `close`: the end of the POSIX locks of this process, and a flush point for what it has written. It is an event
    /// when there was something to flush.
    pub(crate) fn flush(&self, who: &Caller, object: ObjectId, process: u64) -> Result<()> {
        let mut st = self.lock();
        let wrote = st.client(who.client).writers.get(&object).is_some_and(|w| w.contains(process));
        let mut done = Ok(());
        if wrote {
            let flushed = self.flush_and_tell(&mut st, who, object);
            if flushed != Ok(None) {
                done = st.note_flush(who, Op::Flush, object, flushed);
            }
        }
        let granted = st.locks.unlock_all(who.client, process, object);
        let granted = st.granted(granted, who.now);
        drop(st);
        granted.into_iter().for_each(|reply| reply(Ok(())));
        done
    }

    /// `fsync`: a flush point that also reaches the disk.
    pub(crate) fn fsync(
        &self,
        who: &Caller,
        object: ObjectId,
        handle: Handle,
        data_only: bool,
    ) -> Result<()> {
        let mut st = self.lock();
        let file = st.file(who, handle)?;
        let mut done = self.flush_and_tell(&mut st, who, object);
        if done.is_ok() {
            drop(st);
            done = disk::sync(&file.fd, data_only).and(done);
            st = self.lock();
        }
        st.note_flush(who, Op::Fsync, object, done)
    }

    /// `fsync` of a directory. Names are never held back, so only the disk is asked.
    pub(crate) fn fsync_dir(&self, who: &Caller, dir: ObjectId) -> Result<()> {
        let mut st = self.lock();
        let mut done = st.dir_fd(dir).and_then(|fd| as_server(|| disk::sync_dir(fd.as_fd())));
        if done == Err(Errno::EACCES) {
            // It was readable when it was opened. What it is in is more than was asked for, and readable still.
            done = st.dir_fd(ObjectId::ROOT).and_then(|root| as_server(|| disk::sync_all(root.as_fd())));
        }
        st.note(who, Op::Fsyncdir, dir, Why::Truth, done)
    }

    /// Flushes, and tells an error of an earlier flush that nobody was told of yet.
    fn flush_and_tell(&self, st: &mut State, who: &Caller, object: ObjectId) -> Result<Option<Version>> {
        let flushed = self.flush_dirty(st, who, object);
        match st.client(who.client).late_errors.remove(&object) {
            Some(late) => flushed.and(Err(late)),
            None => flushed,
        }
    }

    /// A flush that is due, asked for by `settle`, or early for the memory budget.
    pub(super) fn write_back_now(&self, st: &mut State, who: &Caller, object: ObjectId) {
        let flushed = self.flush_dirty(st, who, object);
        let path = st.path_of(who.client, object);
        let mut event = st.event(who, Op::Flush, path);
        event.deed = Deed::WriteBack;
        event.version = flushed.ok().flatten();
        event.result = flushed.map(|_| 0);
        st.recorder.push(event);
        st.remember_error(who.client, object, flushed);
    }
}

impl State {
    /// Writes down a flush, with the version that it made.
    fn note_flush(
        &mut self,
        who: &Caller,
        op: Op,
        object: ObjectId,
        done: Result<Option<Version>>,
    ) -> Result<()> {
        let path = self.path_of(who.client, object);
        let mut event = self.event(who, op, path);
        event.version = done.ok().flatten();
        event.result = done.map(|_| 0);
        self.recorder.push(event);
        done.map(drop)
    }
}

/// The bytes that a write to `at` is going to overwrite, as far as there are any.
fn read_overwritten(file: &std::os::fd::OwnedFd, size: u64, at: u64, len: usize) -> Result<Vec<u8>> {
    let len = (len as u64).min(size.saturating_sub(at));
    let mut bytes = vec![0; len as usize];
    let n = disk::read(file, at, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}
