//! The engine: applies the model's verdicts to a backing directory.
//!
//! One engine serves all clients of one backing directory. Every operation takes the one lock, asks the model what the
//! client sees or whether its past must be kept, does its system calls through `disk`, tells the model, and writes down
//! the event; so truth and model never disagree, and one mutation is one commit. The engine knows nothing of FUSE and
//! starts no threads; who calls it brings the time.

mod attrs;
mod data;
mod disk;
mod events;
mod explain;
mod flush;
mod handles;
mod identity;
mod lanes;
mod listing;
mod locks;
mod names;
mod objects;
mod parking;
mod past;
mod removal;
mod service;
mod walked;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::errno::Errno;
use crate::model::World;
use crate::model::attr::{Attr, Kind, Stamp};
use crate::model::fault::Rule;
use crate::model::hash::Map;
use crate::model::history::Recorder;
use crate::model::ids::{ClientId, Name, ObjectId, Version};
use crate::model::time::Time;

pub(crate) use attrs::{SetAttr, Space};
pub(crate) use data::WriteHow;
pub(crate) use disk::{Result, SetTime};
pub(crate) use handles::Handle;
pub(crate) use identity::{as_caller, with_umask};
pub(crate) use lanes::{Forget, Keep, Kernel, Pages};
pub(crate) use locks::{Lock, LockKind, LockOutcome, LockReply};
pub(crate) use objects::OpenFlags;
pub(crate) use parking::{Ticket, Wake};
pub(crate) use service::{Admission, Armed, Place};

use disk::Stat;
use identity::as_server;
use locks::Locks;
use objects::{DirFds, LastCommit, Object, Objects};
use parking::Parking;

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) client: ClientId,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The thread that waits for the answer.
    pub(crate) pid: u32,
    pub(crate) now: Time,
}

/// An object as it is shown to a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) object: ObjectId,
    pub(crate) attr: Attr,
    pub(crate) keep: Keep,
}

/// How points on the clock become the times of files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calendar {
    /// What the clock's zero is called.
    pub(crate) epoch: Stamp,
    /// Whether the clock, not the machine, decides what times files get.
    pub(crate) decides: bool,
}

impl Calendar {
    pub(crate) fn stamp(&self, at: Time) -> Stamp {
        let d = at.elapsed();
        let nanos = self.epoch.nanos + d.subsec_nanos();
        Stamp {
            secs: self.epoch.secs + d.as_secs() as i64 + i64::from(nanos / 1_000_000_000),
            nanos: nanos % 1_000_000_000,
        }
    }
}

/// Limits of one engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of memory for the past and for unflushed writes.
    pub(crate) memory: usize,
    /// Events that the history keeps.
    pub(crate) events: usize,
    /// Directory descriptors kept open.
    pub(crate) dir_fds: usize,
}

/// What one client has at the engine.
struct Client {
    name: Arc<str>,
    seed: u64,
    files: Map<u64, Arc<objects::OpenFile>>,
    dirs: Map<u64, listing::OpenDir>,
    next_handle: u64,
    /// How many look-ups of each object its kernel has not forgotten.
    lookups: Map<ObjectId, LookedUp>,
    /// The directory that each of its threads has found last, and where.
    walked: Map<u32, (ObjectId, Name, ObjectId)>,
    /// Errors of flushes that nobody waited for, told once at the next `close` or `fsync`.
    late_errors: Map<ObjectId, Errno>,
    writers: Map<ObjectId, flush::Writers>,
    rules: Vec<Arc<Rule>>,
    /// Whether `rules` or chance can stand in the way.
    armed: service::Armed,
    /// For keyed draws: the how-manieth operation of its kind on its path this is.
    drawn: Map<u64, u64>,
    lane: lanes::Lane,
}

/// What one client's kernel knows of an object.
struct LookedUp {
    /// How many look-ups it has not forgotten.
    count: u64,
    /// The name by which it came to it last: what rules match and events show, whatever others do to that name.
    at: (ObjectId, Name),
}

struct State {
    world: World,
    objects: Objects,
    dir_fds: DirFds,
    clients: Map<ClientId, Client>,
    next_client: u32,
    locks: Locks,
    recorder: Recorder,
    /// Objects that have lost their last name and may still be shown to someone, and until when.
    retained: removal::Retained,
    /// Directory paths as events show them; emptied when a directory is renamed.
    paths: Map<ObjectId, Arc<[u8]>>,
    collapsed: u64,
    queue: lanes::Queue,
}

/// One backing directory and everything that its clients see of it.
pub(crate) struct Engine {
    state: Mutex<State>,
    parking: Parking,
    lanes: Arc<lanes::Progress>,
    calendar: Calendar,
    path: PathBuf,
    /// Called with the time at which something becomes due, whenever that is earlier than what was due before.
    alarm: Box<dyn Fn(Time) + Send + Sync>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine on the directory `path`, which must stay where it is.
    pub(crate) fn open(
        path: &Path,
        calendar: Calendar,
        limits: Limits,
        alarm: Box<dyn Fn(Time) + Send + Sync>,
    ) -> Result<Engine> {
        let root = disk::open_root(path)?;
        let stat = disk::stat_fd(&root)?;
        let state = State {
            world: World::new(limits.memory),
            objects: Objects::new(stat, root),
            dir_fds: DirFds::new(limits.dir_fds),
            clients: Map::default(),
            next_client: 1,
            locks: Locks::default(),
            recorder: Recorder::new(limits.events),
            retained: removal::Retained::default(),
            paths: Map::default(),
            collapsed: 0,
            queue: lanes::Queue::default(),
        };
        Ok(Engine {
            lanes: state.queue.progress(),
            state: Mutex::new(state),
            parking: Parking::default(),
            calendar,
            path: path.to_owned(),
            alarm,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// R1: after a change of an object by `who`, under a clock that decides: gives it the clock's times.
    fn touch(&self, st: &mut State, who: &Caller, object: ObjectId, target: disk::Target<'_>, what: Touched) {
        if !self.calendar.decides {
            return;
        }
        let stamp = self.calendar.stamp(who.now);
        let (atime, mtime) = match what {
            Touched::New => (SetTime::To(stamp), SetTime::To(stamp)),
            Touched::Content => (SetTime::Keep, SetTime::To(stamp)),
            Touched::Attributes => (SetTime::Keep, SetTime::Keep),
        };
        if what != Touched::Attributes {
            // The change itself has succeeded; times that cannot be set must not turn it into a failure.
            // And they are set by this process: who may write a file need not own it.
            let _ = as_server(|| disk::set_times(target, atime, mtime));
        }
        if let Some(object) = st.objects.get_mut(object) {
            object.ctime = Some(stamp);
        }
    }
}

/// What about an object changed, so that its times must follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touched {
    New,
    Content,
    Attributes,
}

/// What stands for an object in a call that takes no name.
enum Stand {
    Anchor(Arc<OwnedFd>),
    /// It may have no name any more.
    Open(Arc<objects::OpenFile>),
}

impl AsFd for Stand {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stand::Anchor(fd) => fd.as_fd(),
            Stand::Open(file) => file.fd.as_fd(),
        }
    }
}

impl State {
    fn client(&mut self, id: ClientId) -> &mut Client {
        self.clients.get_mut(&id).expect("an operation of a client that has joined")
    }

    fn object(&self, id: ObjectId) -> Result<&Object> {
        self.objects.get(id).ok_or(Errno::ESTALE)
    }

    /// The descriptor of a directory: kept, or found again from its parent, one component at a time. Found by whoever this
    /// process is: the caller has come here before, perhaps on a way that is closed to it by now.
    fn dir_fd(&mut self, dir: ObjectId) -> Result<Arc<OwnedFd>> {
        match self.dir_fds.get(dir) {
            Some(fd) => Ok(fd),
            None => as_server(|| self.find_dir(dir)),
        }
    }

    fn find_dir(&mut self, dir: ObjectId) -> Result<Arc<OwnedFd>> {
        let mut below: Vec<ObjectId> = Vec::new();
        let mut here = dir;
        let mut fd = loop {
            if let Some(fd) = self.dir_fds.get(here) {
                break fd;
            }
            let object = self.object(here)?;
            if let Some(anchor) = &object.anchor {
                break anchor.clone();
            }
            let (parent, _) = object.at.as_ref().ok_or(Errno::ESTALE)?;
            below.push(here);
            here = *parent;
        };
        while let Some(id) = below.pop() {
            let object = self.object(id)?;
            if object.kind != Kind::Directory {
                return Err(Errno::ENOTDIR);
            }
            let (_, name) = object.at.as_ref().ok_or(Errno::ESTALE)?;
            let child = disk::anchor(fd.as_fd(), name.as_os())?;
            // Someone outside may have put another directory in its place.
            if disk::stat_fd(&child)?.key != object.key {
                return Err(Errno::ESTALE);
            }
            fd = Arc::new(child);
        }
        if here != dir || self.objects.get(dir).is_some_and(|o| o.anchor.is_none()) {
            self.dir_fds.put(dir, fd.clone());
        }
        Ok(fd)
    }

    /// An object on the disk as it is now, without the corrections of a clock that decides. Who holds an object may ask for
    /// its attributes, whatever has become of the way to it.
    fn stat(&mut self, id: ObjectId) -> Result<Stat> {
        let object = self.object(id)?;
        if let Some(open) = object.open.first() {
            return disk::stat_fd(&open.fd);
        }
        if let Some(anchor) = &object.anchor {
            return disk::stat_fd(anchor);
        }
        let key = object.key;
        let (parent, name) = object.at.clone().ok_or(Errno::ESTALE)?;
        let dir = self.dir_fd(parent);
        match dir.and_then(|dir| as_server(|| disk::stat_at(dir.as_fd(), name.as_os()))) {
            Ok(stat) if stat.key == key => Ok(stat),
            Ok(_) | Err(Errno::ENOENT) => Err(Errno::ESTALE),
            Err(e) => Err(e),
        }
    }

    /// The attributes of an object as the truth has them.
    fn truth(&mut self, id: ObjectId) -> Result<Attr> {
        let attr = self.stat(id)?.attr;
        Ok(self.corrected(id, attr))
    }

    /// `attr` with the change time that a deciding clock gave the object.
    fn corrected(&self, id: ObjectId, mut attr: Attr) -> Attr {
        if let Some(ctime) = self.objects.get(id).and_then(|o| o.ctime) {
            attr.ctime = ctime;
        }
        attr
    }

    /// A descriptor that stands for the object, for calls that take no name.
    fn stand(&mut self, id: ObjectId) -> Result<Stand> {
        match self.object(id)?.open.first() {
            Some(open) => Ok(Stand::Open(open.clone())),
            None => self.anchor(id).map(Stand::Anchor),
        }
    }

    /// A descriptor that keeps the object reachable when its names go.
    fn anchor(&mut self, id: ObjectId) -> Result<Arc<OwnedFd>> {
        let object = self.object(id)?;
        if let Some(anchor) = &object.anchor {
            return Ok(anchor.clone());
        }
        let key = object.key;
        let (parent, name) = object.at.clone().ok_or(Errno::ESTALE)?;
        let dir = self.dir_fd(parent)?;
        let fd = as_server(|| disk::anchor(dir.as_fd(), name.as_os()))?;
        if disk::stat_fd(&fd)?.key == key { Ok(Arc::new(fd)) } else { Err(Errno::ESTALE) }
    }

    fn committed(&mut self, object: ObjectId, version: Version, who: &Caller) {
        if let Some(object) = self.objects.get_mut(object) {
            object.last = Some(LastCommit { version, author: who.client, at: who.now });
        }
    }
}
