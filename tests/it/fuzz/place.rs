//! Where a program runs: the mounts of one backing directory, or the bare directory beside it. Both do the same calls.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{
    self, AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::process::{Gid, Uid};

use super::program::{Do, SLOTS, Step, What, Where};
use super::sys::{self, Map};
use super::tree::{Look, look};
use crate::ops::locks::{self, Api};
use crate::ops::{Number, is_root};

type Result<T> = std::result::Result<T, i32>;
/// The end of a step: what it came to, or the error number.
pub(super) type Outcome = Result<Value>;

/// What a call came to.
#[derive(PartialEq, Eq)]
pub(super) enum Value {
    Done,
    Count(u64),
    Bytes(Vec<u8>),
    Names(BTreeSet<(Vec<u8>, u32)>),
    Look(Look),
    Lock(i16, i64, i64),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Done => write!(f, "done"),
            Value::Count(n) => write!(f, "{n}"),
            Value::Bytes(b) => write!(f, "{} bytes: {}", b.len(), runs(b)),
            Value::Names(names) => {
                let each = |(n, kind): &(Vec<u8>, u32)| format!("{} {kind:o}", n.escape_ascii());
                write!(f, "names: {}", names.iter().map(each).collect::<Vec<_>>().join(", "))
            }
            Value::Look(look) => look.fmt(f),
            Value::Lock(kind, at, len) => write!(f, "lock {kind} {at}+{len}"),
        }
    }
}

/// Bytes as what they are here: few values, each many times.
fn runs(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|a, b| a == b);
    let said: Vec<String> = runs.take(8).map(|r| format!("{}x{:02x}", r.len(), r[0])).collect();
    said.join(" ")
}

/// A bare directory or the mounts of one, with the files that a program has open there.
pub(super) struct Place {
    roots: Vec<(PathBuf, OwnedFd)>,
    slots: [Option<File>; SLOTS],
    /// Whether the program runs on several clients.
    pub(super) several: bool,
    map: Option<(Map, File)>,
}

fn follow(follow: bool) -> AtFlags {
    if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW }
}

impl Place {
    pub(super) fn new(roots: &[PathBuf]) -> Place {
        let open = |path: &PathBuf| {
            let fd =
                fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            (path.clone(), fd)
        };
        let roots = roots.iter().map(open).collect();
        Place { roots, slots: [const { None }; SLOTS], several: false, map: None }
    }

    fn slot(&self, slot: usize) -> Result<&File> {
        self.slots[slot].as_ref().ok_or(libc::EBADF)
    }

    fn root(&self, client: usize) -> &(PathBuf, OwnedFd) {
        &self.roots[client % self.roots.len()]
    }

    fn at<'a>(&'a self, client: usize, w: &'a Where) -> Result<(BorrowedFd<'a>, &'a [u8])> {
        let base = match w.base {
            Some(slot) => self.slot(slot)?.as_fd(),
            None => self.root(client).1.as_fd(),
        };
        Ok((base, &w.path))
    }

    /// The same as one path, for the calls that know no base.
    fn full(&self, client: usize, w: &Where) -> Result<CString> {
        let base = match w.base {
            Some(slot) => PathBuf::from(format!("/proc/thread-self/fd/{}", self.slot(slot)?.as_raw_fd())),
            None => self.root(client).0.clone(),
        };
        // An empty path is the base itself here, and none for the calls that do know a base.
        let path = if w.path.is_empty() { base } else { base.join(OsStr::from_bytes(&w.path)) };
        Ok(CString::new(path.into_os_string().into_vec()).unwrap())
    }

    fn stat(&self, client: usize, what: &What) -> Result<Look> {
        let stat = match what {
            What::At(w, links) => {
                let (base, path) = self.at(client, w)?;
                fs::statat(base, path, follow(*links))
            }
            What::Slot(slot) => fs::fstat(self.slot(*slot)?),
        };
        stat.map(|s| look(&s)).number()
    }

    /// What everything that a step names looks like, and where its files stand.
    pub(super) fn glance(&self, step: &Step) -> Vec<String> {
        let (names, slots) = step.what.touches();
        let names = names.into_iter().map(|w| {
            // Of two reasons the lack of permission is told last (D19), and root lacks none.
            let seen = match self.stat(step.client, &What::At(w.clone(), false)) {
                Err(libc::EACCES) if !is_root() => Err(libc::ENOENT),
                seen => seen,
            };
            format!("{w:?} is {seen:?}")
        });
        let slots = slots.into_iter().map(|slot| {
            let position = self.slot(slot).and_then(|f| fs::tell(f).number());
            let flags = self.slot(slot).and_then(|f| fs::fcntl_getfl(f).number());
            format!("slot {slot} is {:?}, at {position:?}, {flags:?}", self.stat(0, &What::Slot(slot)))
        });
        names.chain(slots).collect()
    }

    /// Does one step as its user.
    pub(super) fn act(&mut self, step: &Step) -> Outcome {
        let _user = sys::User::new(step.user);
        let result = self.call(step);
        // The kernel's own answer to a directory that another client has moved (D5). It works at the next look.
        if self.several && result == Err(libc::ESTALE) && matches!(step.what, Do::Rename(..)) {
            self.glance(step);
            return self.call(step);
        }
        if self.several
            && let (Do::Write(slot, ..), Ok(_)) = (&step.what, &result)
        {
            sys::after_appending(self.slot(*slot)?);
        }
        result
    }

    #[allow(clippy::too_many_lines)] // one arm for each call
    fn call(&mut self, step: &Step) -> Result<Value> {
        let client = step.client;
        let count = |n: usize| Value::Count(n as u64);
        let ok = |()| Value::Done;
        match &step.what {
            Do::Open { at, flags, mode, slot } => {
                let (base, path) = self.at(client, at)?;
                // D10: for fifos the kernel asks nobody, and each mount has its own.
                if (step.user != 0 || self.several) && sys::is_fifo(base, path) {
                    return Ok(Value::Done);
                }
                let flags = OFlags::from_bits_retain(*flags as u32) | OFlags::NONBLOCK | OFlags::CLOEXEC;
                // D5: a path alone does not hold what another client removes.
                let flags = if self.several { flags - OFlags::PATH } else { flags };
                let file = fs::openat(base, path, flags, Mode::from_raw_mode(*mode)).number()?;
                self.slots[*slot] = Some(file.into());
                Ok(Value::Done)
            }
            Do::Close(slot) => self.slots[*slot].take().map(|_| Value::Done).ok_or(libc::EBADF),
            Do::Dup(from, to) => {
                let file = self.slot(*from)?.try_clone().number()?;
                self.slots[*to] = Some(file);
                Ok(Value::Done)
            }
            Do::Read(slot, len) => {
                let mut buf = vec![0; *len];
                let n = rustix::io::read(self.slot(*slot)?, &mut buf[..]).number()?;
                buf.truncate(n);
                Ok(Value::Bytes(buf))
            }
            Do::Pread(slot, at, len) => {
                let mut buf = vec![0; *len];
                let n = rustix::io::pread(self.slot(*slot)?, &mut buf[..], *at).number()?;
                buf.truncate(n);
                Ok(Value::Bytes(buf))
            }
            Do::Write(slot, fill, len) => {
                rustix::io::write(self.slot(*slot)?, &vec![*fill; *len]).number().map(count)
            }
            Do::Pwrite(slot, at, fill, len) => {
                rustix::io::pwrite(self.slot(*slot)?, &vec![*fill; *len], *at).number().map(count)
            }
            Do::SetAppend(slot, on) => {
                let file = self.slot(*slot)?;
                let flags = OFlags::NONBLOCK | if *on { OFlags::APPEND } else { OFlags::empty() };
                fs::fcntl_setfl(file, flags).number().map(ok)
            }
            // What a position in a directory means is each file system's affair.
            Do::Seek(slot, ..) if sys::is_dir(self.slot(*slot)?) => Ok(Value::Done),
            Do::Seek(slot, whence, to) => sys::seek(self.slot(*slot)?, *whence, *to).map(Value::Count),
            Do::Ftruncate(slot, size) => fs::ftruncate(self.slot(*slot)?, *size).number().map(ok),
            Do::Truncate(at, size) => sys::truncate(&self.full(client, at)?, *size).map(ok),
            Do::Fallocate(slot, mode, at, len) => {
                let mode = FallocateFlags::from_bits_retain(*mode as u32);
                fs::fallocate(self.slot(*slot)?, mode, *at, *len).number().map(ok)
            }
            Do::Fsync(slot, true) => fs::fdatasync(self.slot(*slot)?).number().map(ok),
            Do::Fsync(slot, false) => fs::fsync(self.slot(*slot)?).number().map(ok),
            Do::Copy { from, at, to, to_at, len } => self.copy((*from, *at), (*to, *to_at), *len),
            Do::Rename(from, to, flags) => {
                let ((base, path), (to_base, to)) = (self.at(client, from)?, self.at(client, to)?);
                fs::renameat_with(base, path, to_base, to, RenameFlags::from_bits_retain(*flags))
                    .number()
                    .map(ok)
            }
            Do::Link(from, to, links) => {
                let ((base, path), (to_base, to)) = (self.at(client, from)?, self.at(client, to)?);
                let flags = if *links { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
                fs::linkat(base, path, to_base, to, flags).number().map(ok)
            }
            Do::Symlink(target, at) => {
                let (base, path) = self.at(client, at)?;
                fs::symlinkat(&target[..], base, path).number().map(ok)
            }
            Do::Readlink(at) => {
                let (base, path) = self.at(client, at)?;
                fs::readlinkat(base, path, Vec::new()).number().map(|to| Value::Bytes(to.into_bytes()))
            }
            Do::Unlink(at) => {
                self.at(client, at).and_then(|(b, p)| fs::unlinkat(b, p, AtFlags::empty()).number()).map(ok)
            }
            Do::Rmdir(at) => {
                self.at(client, at).and_then(|(b, p)| fs::unlinkat(b, p, AtFlags::REMOVEDIR).number()).map(ok)
            }
            Do::Mkdir(at, mode) => {
                let (base, path) = self.at(client, at)?;
                fs::mkdirat(base, path, Mode::from_raw_mode(*mode)).number().map(ok)
            }
            Do::Mknod(at, kind, mode) => {
                let (base, path) = self.at(client, at)?;
                fs::mknodat(base, path, FileType::from_raw_mode(*kind), Mode::from_raw_mode(*mode), 0)
                    .number()
                    .map(ok)
            }
            Do::Chmod(What::Slot(slot), mode) => {
                fs::fchmod(self.slot(*slot)?, Mode::from_raw_mode(*mode)).number().map(ok)
            }
            Do::Chmod(What::At(at, _), mode) => {
                let (base, path) = self.at(client, at)?;
                fs::chmodat(base, path, Mode::from_raw_mode(*mode), AtFlags::empty()).number().map(ok)
            }
            Do::Chown(what, uid, gid) => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                match what {
                    What::Slot(slot) => fs::fchown(self.slot(*slot)?, uid, gid).number().map(ok),
                    What::At(at, links) => {
                        let (base, path) = self.at(client, at)?;
                        fs::chownat(base, path, uid, gid, follow(*links)).number().map(ok)
                    }
                }
            }
            Do::Times(what, a, m) => {
                let spec = |t: &Option<i64>, nsec| match t {
                    Some(t) => Timespec { tv_sec: *t, tv_nsec: nsec },
                    None => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT as _ },
                };
                let times = Timestamps { last_access: spec(a, 1), last_modification: spec(m, 999_999_999) };
                match what {
                    What::Slot(slot) => fs::futimens(self.slot(*slot)?, &times).number().map(ok),
                    What::At(at, links) => {
                        let (base, path) = self.at(client, at)?;
                        fs::utimensat(base, path, &times, follow(*links)).number().map(ok)
                    }
                }
            }
            Do::SetXattr(what, name, n, flags) => {
                let (value, flags) = (vec![b'v'; *n], XattrFlags::from_bits_retain(*flags as u32));
                match what {
                    What::Slot(slot) => {
                        fs::fsetxattr(self.slot(*slot)?, *name, &value, flags).number().map(ok)
                    }
                    What::At(at, true) => {
                        fs::setxattr(&self.full(client, at)?, *name, &value, flags).number().map(ok)
                    }
                    What::At(at, false) => {
                        fs::lsetxattr(&self.full(client, at)?, *name, &value, flags).number().map(ok)
                    }
                }
            }
            Do::GetXattr(what, name, n) => {
                let mut value = vec![0; *n];
                let got = match what {
                    What::Slot(slot) => fs::fgetxattr(self.slot(*slot)?, *name, &mut value[..]),
                    What::At(at, true) => fs::getxattr(&self.full(client, at)?, *name, &mut value[..]),
                    What::At(at, false) => fs::lgetxattr(&self.full(client, at)?, *name, &mut value[..]),
                };
                got.number()
                    .map(|n| if value.is_empty() { count(n) } else { Value::Bytes(value[..n].to_vec()) })
            }
            Do::ListXattr(what) => {
                let mut value = vec![0; 4096];
                let got = match what {
                    What::Slot(slot) => fs::flistxattr(self.slot(*slot)?, &mut value[..]),
                    What::At(at, true) => fs::listxattr(&self.full(client, at)?, &mut value[..]),
                    What::At(at, false) => fs::llistxattr(&self.full(client, at)?, &mut value[..]),
                };
                got.number().map(|n| Value::Bytes(value[..n].to_vec()))
            }
            Do::RemoveXattr(what, name) => match what {
                What::Slot(slot) => fs::fremovexattr(self.slot(*slot)?, *name).number().map(ok),
                What::At(at, true) => fs::removexattr(&self.full(client, at)?, *name).number().map(ok),
                What::At(at, false) => fs::lremovexattr(&self.full(client, at)?, *name).number().map(ok),
            },
            Do::Stat(what) => self.stat(client, what).map(Value::Look),
            Do::Access(at, mask) => {
                let (base, path) = self.at(client, at)?;
                let mask = fs::Access::from_bits_retain(*mask);
                fs::accessat(base, path, mask, AtFlags::EACCESS).number().map(ok)
            }
            Do::List(at) => {
                let (base, path) = self.at(client, at)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = fs::openat(base, path, flags, Mode::empty()).number()?;
                let entries = fs::Dir::new(dir).number()?;
                let each = entries.map(|e| {
                    e.number().map(|e| (e.file_name().to_bytes().to_vec(), e.file_type().as_raw_mode()))
                });
                each.collect::<Result<_>>().map(Value::Names)
            }
            Do::Mapped { slot, write, private, at, fill, len } => {
                let file = self.slot(*slot)?;
                let mut map = Map::new(file, at + len, *write, *private)?;
                map.touch(file, *at, *len, write.then_some(*fill)).map(Value::Bytes)
            }
            Do::Map(slot) => {
                let file = self.slot(*slot)?.try_clone().number()?;
                self.map = Some((Map::new(&file, 32 << 10, true, false)?, file));
                Ok(Value::Done)
            }
            Do::MapRead(at, len) => self.mapped(*at, *len, None),
            Do::MapWrite(at, fill, len) => self.mapped(*at, *len, Some(*fill)),
            Do::Unmap => Ok(Value::Count(u64::from(self.map.take().is_some()))),
            // The kernel asks nobody for locks of fifos (D10): they hold in one mount.
            Do::Lock { slot, .. } | Do::TestLock { slot, .. }
                if self.several && !sys::is_file(self.slot(*slot)?) =>
            {
                Ok(Value::Done)
            }
            Do::Lock { slot, ofd, kind, at, len } => {
                let api = if *ofd { Api::Ofd } else { Api::Posix };
                locks::set(self.slot(*slot)?, api, *kind, *at, *len).map(ok)
            }
            Do::TestLock { slot, ofd, kind, at, len } => {
                let api = if *ofd { Api::Ofd } else { Api::Posix };
                locks::get(self.slot(*slot)?, api, *kind, *at, *len)
                    .map(|(k, at, len)| Value::Lock(k, at, len))
            }
            Do::Pass(_) => Ok(Value::Done),
        }
    }

    fn mapped(&mut self, at: usize, len: usize, fill: Option<u8>) -> Result<Value> {
        let (map, file) = self.map.as_mut().ok_or(libc::EBADF)?;
        map.touch(file, at, len, fill).map(Value::Bytes)
    }

    /// Copies until there is no more: how much one call copies is each file system's choice.
    fn copy(&self, (from, at): (usize, u64), (to, to_at): (usize, u64), len: usize) -> Result<Value> {
        let (from, to) = (self.slot(from)?, self.slot(to)?);
        // The kernel copies up to the end that it has last heard of.
        fs::fstat(from).number()?;
        let mut done = 0;
        loop {
            let (mut at, mut to_at) = (at + done as u64, to_at + done as u64);
            match fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), len - done).number() {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
            if done == len {
                break;
            }
        }
        Ok(Value::Count(done as u64))
    }
}
