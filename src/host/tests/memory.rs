//! A file system of a few files that does what the tests ask: answers, parks, panics, blocks.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};
use parking_lot::{Condvar, Mutex};

use crate::fuse::session::{Serving, serve};
use crate::host::mounting::Spec;
use crate::host::server::{self, Home};

const FILES: [&str; 5] = ["plain", "parks-open", "parks-read", "panics", "blocks"];
const TEXT: &[u8] = b"hello";

/// Answers that are still out.
#[derive(Default)]
pub(super) struct Parked {
    answers: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    arrived: Condvar,
    answered: Condvar,
}

impl Parked {
    fn park(&self, answer: impl FnOnce() + Send + 'static) {
        self.answers.lock().push(Box::new(answer));
        self.arrived.notify_all();
    }
}

/// The test's hand on a file system.
#[derive(Clone)]
pub(super) struct Remote(Home<Parked>);

impl Remote {
    /// Waits until an operation is parked.
    pub(super) fn wait_for_one(&self) {
        let mut answers = self.0.answers.lock();
        while answers.is_empty() {
            assert!(!self.0.arrived.wait_for(&mut answers, Duration::from_secs(5)).timed_out());
        }
    }

    /// Answers what is parked.
    pub(super) fn answer_all(&self) {
        let parked = Arc::clone(self.0.arc());
        server::call(move || {
            let answers = std::mem::take(&mut *parked.answers.lock());
            for answer in answers {
                answer();
            }
            parked.answered.notify_all();
        });
    }
}

pub(super) struct Memory(Arc<Parked>);

pub(super) fn memory() -> (Memory, Remote) {
    let parked = Arc::new(Parked::default());
    (Memory(Arc::clone(&parked)), Remote(Home::new(parked)))
}

/// A mount of it in a fresh directory.
pub(super) fn mounted() -> (Serving, Remote) {
    let (fs, remote) = memory();
    (serve(fs, Spec::new(super::dir())).unwrap(), remote)
}

fn attributes(ino: INodeNo) -> FileAttr {
    let is_root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: if is_root { 0 } else { TEXT.len() as u64 },
        blocks: 1,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: if is_root { FileType::Directory } else { FileType::RegularFile },
        perm: if is_root { 0o777 } else { 0o666 },
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn name_of(ino: INodeNo) -> &'static str {
    FILES.get((ino.0 as usize).wrapping_sub(2)).copied().unwrap_or("/")
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !server::on_server_thread() {
            // A panic in a destructor could be swallowed; this cannot.
            std::process::abort();
        }
    }
}

impl Filesystem for Memory {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match FILES.iter().position(|file| *file == name) {
            Some(i) => reply.entry(&Duration::ZERO, &attributes(INodeNo(i as u64 + 2)), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attributes(ino));
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let answer = move || reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        match name_of(ino) {
            "parks-open" => self.0.park(answer),
            "panics" => panic!("as the test asked"),
            // What a file system must never do: keep the thread instead of the answer.
            "blocks" => {
                self.0.park(|| ());
                let mut answers = self.0.answers.lock();
                while !answers.is_empty() {
                    self.0.answered.wait(&mut answers);
                }
                drop(answers);
                answer();
            }
            _ => answer(),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = move || reply.data(if offset == 0 { TEXT } else { b"" });
        if name_of(ino) == "parks-read" { self.0.park(answer) } else { answer() }
    }
}
