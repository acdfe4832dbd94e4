//! The FUSE adapter: turns the kernel's requests into calls of the engine and its answers into replies. It translates and
//! decides nothing; what a client sees is the engine's business, threads and mounts are `host`'s.

mod attr;
mod flags;
mod send;
mod serve;
pub(crate) mod session;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use crate::engine::with_umask;
use crate::engine::{Engine, Entry, Handle, Lock, LockKind, Pages, Place, SetAttr};
use crate::errno::Errno;
use crate::model::ids::{Name, ObjectId};
use crate::model::op::Op;

use attr::{errno, file_attr, file_type, open_flags, set_time};
use send::{opened, send_attr, send_entry, send_found, send_ok, send_xattr, ttl};
pub(crate) use serve::Core;
use serve::take_lock;

/// The largest single write that the kernel sends.
const MAX_WRITE: u32 = 1 << 20;
/// The first kernel (6.16) that can be told to forget all names at once; before, every look comes to us.
const LANES_SINCE: (u32, u32) = (7, 44);
/// How many requests that nobody waits for may be under way; the kernel's default of 16 delays closes.
const MAX_BACKGROUND: u16 = 256;

thread_local! {
    /// Where reads are put before they are sent; one a server thread, as large as the largest read so far.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One client's mount, as fuser sees it.
#[derive(Debug)]
pub(crate) struct Adapter(pub(crate) Arc<Core>);

fn object(ino: INodeNo) -> ObjectId {
    ObjectId(ino.0)
}

fn handle(fh: FileHandle) -> Handle {
    Handle(fh.0)
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Asked for one by one: an older kernel that lacks one still gets the others.
        for wanted in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            // A default ACL replaces the umask, and only the backing knows of it.
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            // Without it a read by `io_uring` that meets the end of the file is asked again at the place where it began.
            InitFlags::FUSE_ASYNC_DIO,
            // Set-uid bits go with the write that makes them go, on the backing: the kernel would ask for it in the name
            // of the writer, who may not.
            InitFlags::FUSE_HANDLE_KILLPRIV,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        let abi = (config.kernel_abi().0, config.kernel_abi().1);
        if self.0.lane && abi >= LANES_SINCE {
            // A file that others have changed loses its pages when its attributes are next asked for.
            let _ = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA);
            self.0.tells.store(true, Ordering::Release);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    // ---- names ---------------------------------------------------------------------------------------------------

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (dir, name) = (object(parent), Name::new(name));
        let place = Place::Name(dir, name.clone());
        self.0.serve(
            req,
            (Op::Lookup, place),
            reply,
            move |engine, who| engine.lookup(who, dir, &name),
            send_found,
        );
    }

    fn forget(&self, req: &Request, ino: INodeNo, nlookup: u64) {
        let who = self.0.caller(req);
        self.0.quietly(Op::Lookup, |engine| engine.forget(&who, object(ino), nlookup));
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let id = object(ino);
        let send = |reply: ReplyData, target: Vec<u8>| reply.data(&target);
        self.0.serve(
            req,
            (Op::Readlink, Place::Object(id)),
            reply,
            move |engine, who| engine.readlink(who, id),
            send,
        );
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (dir, name) = (object(parent), Name::new(name));
        let place = Place::Name(dir, name.clone());
        let work = move |engine: &Engine, who: &_| {
            with_umask(umask, mode, |mode| engine.mknod(who, dir, &name, mode, rdev))
        };
        self.0.serve(req, (Op::Mknod, place), reply, work, send_entry);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (dir, name) = (object(parent), Name::new(name));
        let place = Place::Name(dir, name.clone());
        let work = move |engine: &Engine, who: &_| {
            with_umask(umask, mode, |mode| engine.mkdir(who, dir, &name, mode))
        };
        self.0.serve(req, (Op::Mkdir, place), reply, work, send_entry);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (dir, name) = (object(parent), Name::new(name));
        let place = Place::Name(dir, name.clone());
        self.0.serve(
            req,
            (Op::Unlink, place),
            reply,
            move |engine, who| engine.unlink(who, dir, &name),
            send_ok,
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (dir, name) = (object(parent), Name::new(name));
        let place = Place::Name(dir, name.clone());
        self.0.serve(
            req,
            (Op::Rmdir, place),
            reply,
            move |engine, who| engine.rmdir(who, dir, &name),
            send_ok,
        );
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (dir, name, target) = (object(parent), Name::new(link_name), target.as_os_str().to_owned());
        let place = Place::Name(dir, name.clone());
        let work = move |engine: &Engine, who: &_| engine.symlink(who, dir, &name, &target);
        self.0.serve(req, (Op::Symlink, place), reply, work, send_entry);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((object(parent), Name::new(name)), (object(newparent), Name::new(newname)));
        let place = Place::Names(from.clone(), to.clone());
        let work = move |engine: &Engine, who: &_| {
            engine.rename(who, (from.0, &from.1), (to.0, &to.1), flags.bits())
        };
        self.0.serve(req, (Op::Rename, place), reply, work, send_ok);
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (id, dir, name) = (object(ino), object(newparent), Name::new(newname));
        let work = move |engine: &Engine, who: &_| engine.link(who, id, dir, &name);
        self.0.serve(req, (Op::Link, Place::Object(id)), reply, work, send_entry);
    }

    // ---- attributes ----------------------------------------------------------------------------------------------

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let (id, h) = (object(ino), fh.map(handle));
        let work = move |engine: &Engine, who: &_| engine.getattr(who, id, h);
        let who = self.0.caller(req);
        if self.0.is_armed()
            && h.is_some_and(|h| self.0.quietly(Op::Getattr, |engine| engine.is_late(&who, h)) == Some(true))
        {
            // Most likely the kernel on its way to a `read`, for which no program has asked for attributes.
            return self.0.run(&who, Op::Getattr, reply, work, send_attr);
        }
        self.0.serve(req, (Op::Getattr, Place::Object(id)), reply, work, send_attr);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let id = object(ino);
        let op = if size.is_some() { Op::Truncate } else { Op::Setattr };
        let (atime, mtime) = (set_time(atime), set_time(mtime));
        let set = SetAttr { mode, uid, gid, size, atime, mtime, handle: fh.map(handle) };
        let work = move |engine: &Engine, who: &_| engine.setattr(who, id, &set);
        // Until a cut is answered the kernel writes no pages of the file, nor can it forget any that are written in. Its own
        // it cuts by itself.
        let cuts = size.is_some();
        let go =
            move |core: &Arc<Core>, who: &_, reply| core.run_or_now(cuts, who, op, reply, work, send_attr);
        self.0.admit(self.0.caller(req), (op, Place::Object(id)), reply, go);
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let send = |reply: ReplyStatfs, s: crate::engine::Space| {
            reply.statfs(
                s.blocks,
                s.blocks_free,
                s.blocks_available,
                s.files,
                s.files_free,
                s.block_size,
                s.name_max,
                s.fragment_size,
            );
        };
        // Never held back: other parts of chaosfs rely on its answer to know that everything before it was served.
        self.0.run_now(&self.0.caller(req), Op::Statfs, reply, |engine, _| engine.statfs(), send);
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (id, mask) = (object(ino), mask.bits() as u32);
        let work = move |engine: &Engine, who: &_| engine.access(who, id, mask);
        self.0.serve(req, (Op::Access, Place::Object(id)), reply, work, send_ok);
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (id, name, value) = (object(ino), name.to_owned(), value.to_vec());
        let work = move |engine: &Engine, who: &_| engine.set_xattr(who, id, &name, &value, flags);
        self.0.serve(req, (Op::Setxattr, Place::Object(id)), reply, work, send_ok);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (id, name) = (object(ino), name.to_owned());
        let work = move |engine: &Engine, who: &_| engine.get_xattr(who, id, &name);
        self.0.serve(req, (Op::Getxattr, Place::Object(id)), reply, work, send_xattr(size));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let id = object(ino);
        let work = move |engine: &Engine, who: &_| engine.list_xattr(who, id);
        self.0.serve(req, (Op::Listxattr, Place::Object(id)), reply, work, send_xattr(size));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (id, name) = (object(ino), name.to_owned());
        let work = move |engine: &Engine, who: &_| engine.remove_xattr(who, id, &name);
        self.0.serve(req, (Op::Removexattr, Place::Object(id)), reply, work, send_ok);
    }

    // ---- files ---------------------------------------------------------------------------------------------------

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (id, truncate) = (object(ino), flags.0 & libc::O_TRUNC != 0);
        let flags = open_flags(flags.0);
        let work = move |engine: &Engine, who: &_| engine.open_file(who, id, flags, truncate);
        let send = |reply: ReplyOpen, (h, pages): (Handle, Pages)| {
            reply.opened(FileHandle(h.0), opened(pages));
        };
        // The kernel writes no pages of a file that is being cut.
        let go = move |core: &Arc<Core>, who: &_, reply| {
            core.run_or_now(truncate, who, Op::Open, reply, work, send);
        };
        self.0.admit(self.0.caller(req), (Op::Open, Place::Object(id)), reply, go);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (dir, name) = (object(parent), Name::new(name));
        let place = Place::Name(dir, name.clone());
        let how = (flags & libc::O_EXCL != 0, flags & libc::O_TRUNC != 0);
        let flags = open_flags(flags);
        let work = move |engine: &Engine, who: &_| {
            with_umask(umask, mode, |mode| engine.create(who, dir, &name, mode, flags, how))
        };
        let send = |reply: ReplyCreate, (entry, h): (Entry, Handle)| {
            reply.created(
                &ttl(entry.keep.attr && entry.keep.name),
                &file_attr(entry.object, &entry.attr),
                Generation(0),
                FileHandle(h.0),
                opened(Pages::Direct),
            );
        };
        let go = move |core: &Arc<Core>, who: &_, reply| {
            core.run_or_now(how.1, who, Op::Create, reply, work, send);
        };
        self.0.admit(self.0.caller(req), (Op::Create, place), reply, go);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (id, h, size) = (object(ino), handle(fh), size as usize);
        let work = move |engine: &Engine, who: &_| {
            BUFFER.with_borrow_mut(|buf| {
                if buf.len() < size {
                    buf.resize(size, 0);
                }
                engine.read(who, id, h, offset, &mut buf[..size])
            })
        };
        let send = |reply: ReplyData, n: usize| BUFFER.with_borrow(|buf| reply.data(&buf[..n]));
        // Now: the buffer is this thread's.
        let go = move |core: &Arc<Core>, who: &_, reply| core.run_now(who, Op::Read, reply, work, send);
        // What a program reads has an owner, what the kernel reads for its pages has none.
        let pages = Place::Pages(id, offset, size as u64);
        let who = self.0.caller(req);
        if lock_owner.is_none() {
            self.0.quietly(Op::Read, |engine| engine.reads_pages(&who, id));
        }
        let place = lock_owner.map_or(pages, |_| Place::Bytes(id, offset));
        self.0.admit(who, (Op::Read, place), reply, go);
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (id, h) = (object(ino), handle(fh));
        let how = attr::write_how(write_flags, flags.0, lock_owner);
        let send = |reply: ReplyWrite, n: usize| reply.written(n as u32);
        let (who, mapped) = (self.0.caller(req), write_flags.contains(WriteFlags::FUSE_WRITE_CACHE));
        if self.0.is_armed() {
            let (data, len) = (data.to_vec(), data.len() as u64);
            let work = move |engine: &Engine, who: &_| engine.write(who, (id, h), offset, &data, how);
            let go = move |core: &Arc<Core>, who: &_, reply| {
                core.run_or_now(mapped, who, Op::Write, reply, work, send);
            };
            let pages = Place::Pages(id, offset, len);
            let place = if mapped { pages } else { Place::Bytes(id, offset) };
            self.0.admit(who, (Op::Write, place), reply, go);
        } else {
            // The bytes are the kernel's buffer: not copied where nothing can hold the operation back.
            let work = |engine: &Engine, who: &_| engine.write(who, (id, h), offset, data, how);
            self.0.run_or_now(mapped, &who, Op::Write, reply, work, send);
        }
    }

    fn flush(&self, req: &Request, ino: INodeNo, _fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        let (id, closer) = (object(ino), lock_owner.0);
        let work = move |engine: &Engine, who: &_| engine.flush(who, id, closer);
        let go = move |core: &Arc<Core>, who: &_, reply| core.run(who, Op::Flush, reply, work, send_ok);
        let who = self.0.caller(req);
        // No rule is meant for a close that has nothing to flush, such as every child process makes.
        let wrote = || self.0.quietly(Op::Flush, |engine| engine.wrote(&who, id, closer)) == Some(true);
        if self.0.is_armed() && wrote() {
            self.0.admit(who, (Op::Flush, Place::Object(id)), reply, go);
        } else {
            go(&self.0, &who, reply);
        }
    }

    fn release(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let who = self.0.caller(req);
        self.0.quietly(Op::Flush, |engine| engine.release(&who, handle(fh), lock_owner.map(|o| o.0)));
        reply.ok();
    }

    fn fsync(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let (id, h) = (object(ino), handle(fh));
        let work = move |engine: &Engine, who: &_| engine.fsync(who, id, h, datasync);
        self.0.serve(req, (Op::Fsync, Place::Object(id)), reply, work, send_ok);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (id, h) = (object(ino), handle(fh));
        let work = move |engine: &Engine, who: &_| engine.allocate(who, id, h, offset, length, mode as u32);
        self.0.serve(req, (Op::Fallocate, Place::Object(id)), reply, work, send_ok);
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (id, h, at, hole) = (object(ino), handle(fh), offset as u64, whence == libc::SEEK_HOLE);
        let work = move |engine: &Engine, who: &_| engine.seek(who, id, h, at, hole);
        let send = |reply: ReplyLseek, at: u64| reply.offset(at as i64);
        self.0.serve(req, (Op::Lseek, Place::Object(id)), reply, work, send);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = (object(ino_in), handle(fh_in), offset_in);
        let to = (object(ino_out), handle(fh_out), offset_out);
        let work = move |engine: &Engine, who: &_| engine.copy(who, from, to, len);
        let send = |reply: ReplyWrite, n: usize| reply.written(n as u32);
        self.0.serve(req, (Op::CopyFileRange, Place::Object(to.0)), reply, work, send);
    }

    // ---- directories ---------------------------------------------------------------------------------------------

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let id = object(ino);
        let work = move |engine: &Engine, who: &_| engine.open_dir(who, id);
        let send = |reply: ReplyOpen, h: Handle| reply.opened(FileHandle(h.0), FopenFlags::empty());
        self.0.serve(req, (Op::Readdir, Place::Object(id)), reply, work, send);
    }

    fn readdir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let who = self.0.caller(req);
        let done = self.0.quietly(Op::Readdir, |engine| {
            let add = |next, id: ObjectId, kind, name: &OsStr| {
                reply.add(INodeNo(id.0), next, file_type(kind), name)
            };
            engine.read_dir(&who, handle(fh), offset, add)
        });
        match done {
            Some(Ok(())) => reply.ok(),
            Some(Err(e)) => reply.error(errno(e)),
            None => reply.error(errno(Errno::EIO)),
        }
    }

    fn releasedir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let who = self.0.caller(req);
        self.0.quietly(Op::Readdir, |engine| engine.release_dir(&who, handle(fh)));
        reply.ok();
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let id = object(ino);
        let work = move |engine: &Engine, who: &_| engine.fsync_dir(who, id);
        self.0.serve(req, (Op::Fsyncdir, Place::Object(id)), reply, work, send_ok);
    }

    // ---- locks ---------------------------------------------------------------------------------------------------

    fn getlk(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let kind = if typ == libc::F_WRLCK { LockKind::Write } else { LockKind::Read };
        let lock = Lock { start, end, kind, pid };
        let who = self.0.caller(req);
        match self.0.quietly(Op::Lock, |engine| engine.get_lock(&who, object(ino), owner.0, lock)).flatten() {
            Some(held) => {
                let typ = if held.kind == LockKind::Write { libc::F_WRLCK } else { libc::F_RDLCK };
                reply.locked(held.start, held.end, typ, held.pid);
            }
            None => reply.locked(start, end, libc::F_UNLCK, 0),
        }
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let who = self.0.caller(req);
        let (id, h) = (object(ino), handle(fh));
        if typ == libc::F_UNLCK {
            let work = |engine: &Engine, who: &_| engine.unlock(who, id, owner.0, start, end);
            return self.0.run(&who, Op::Lock, reply, work, send_ok);
        }
        let kind = if typ == libc::F_WRLCK { LockKind::Write } else { LockKind::Read };
        let lock = Lock { start, end, kind, pid };
        self.0.admit(who, (Op::Lock, Place::Object(id)), reply, move |core, who, reply| {
            take_lock(core, *who, (id, h), owner.0, lock, sleep, reply);
        });
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        flags::serve(&self.0, req, object(ino), (cmd, in_data, out_size), reply);
    }

    // ---- what we do not offer: answered, so that fuser does not warn of each call -----------------------------------

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(errno(Errno::ENOSYS));
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(errno(Errno::ENOSYS));
    }
}
