//! Fast lanes: what a client's kernel may answer by itself, and how that is taken back.
//!
//! The exact view, in which every look reaches the engine, stays the meaning. A client that asked for it gets a lane while
//! the two cannot differ: it is alone on its backing, delays nothing, and no rule and no chance stand in its way. Then its
//! own kernel is the only one through which anything changes, and that keeps its caches right for its own changes; what it
//! does not know of is told to it here, before whoever caused it has an answer. When any of this ends the lane closes:
//! nothing more is handed out, and what was handed out is taken back before the cause goes on.
//!
//! Owns which files a kernel may have pages of, and the queue of what it has still to be told. Never tells it while the
//! engine's lock is held, or from a thread that serves requests: the kernel may have to ask first. For the same reason the
//! answers that pages wait for (reads, and writes out of pages) never wait for the kernel to be told.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk;
use super::objects::OpenFlags;
use super::{Caller, Engine, Entry, Place, State};
use crate::model::attr::{Attr, Kind};
use crate::model::hash::{Map, Set};
use crate::model::ids::{ClientId, ObjectId};

/// What a kernel is told to forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forget {
    /// Every name, and every name that was missing.
    Names,
    /// The attributes of an object.
    Attributes(ObjectId),
    /// The attributes of an object, and its bytes from here on, so many of them or all.
    Pages(ObjectId, u64, Option<u64>),
}

/// The kernel of one client, as far as it can be told something.
pub(crate) trait Kernel: Send + Sync {
    /// Waits until everything that it has asked so far is answered.
    fn drain(&self);
    /// Returns when it has forgotten. May wait for requests to be served.
    fn forget(&self, what: Forget);
}

/// What a kernel may believe of an answer until it is told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Keep {
    /// That the name stands for this object, or is missing.
    pub(crate) name: bool,
    pub(crate) attr: bool,
}

/// What a kernel may do with the bytes of a file that it opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// Ask for them, every time.
    Direct,
    /// Keep what it reads from now on.
    Fresh,
    /// Use also what it has kept from before.
    Kept,
}

/// What a change makes of the pages that the kernel of the client that makes it may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Own {
    Wrong,
    /// It has written them itself, or is going to cut them when it has its answer. To forget them it would have to write
    /// those first that a mapping has changed since, behind the cut.
    Right,
}

/// The lane of one client.
#[derive(Default)]
pub(super) struct Lane {
    /// None until it is mounted.
    kernel: Option<Arc<dyn Kernel>>,
    /// Whether not every look has to reach the engine.
    wanted: bool,
    open: bool,
    /// Directories that were found to be open to every user for passing through, or not.
    passable: Map<ObjectId, bool>,
    /// Files of which the kernel may have pages.
    files: Map<ObjectId, Cached>,
    /// Objects of which it was told attributes before the lane closed, and may have learned that only after it had been told
    /// to forget them. When it opens one it knows it, and is told again.
    doubtful: Set<ObjectId>,
}

#[derive(Clone, Copy, Default)]
struct Cached {
    /// Open files that read through the kernel's pages. They do so as long as they are open, whatever becomes of the lane.
    handles: u32,
    /// Whether the pages from before the next `open` are right.
    kept: bool,
    /// The size that was told last while the lane was closed.
    told: Option<u64>,
    /// Whether the kernel may have read pages for its own ends: for a mapping, `sendfile`, a program to execute. These it
    /// keeps in any case, and asks no more.
    paged: bool,
}

/// Something that a client's kernel has to be told.
enum Due {
    Names,
    Attributes(ObjectId),
    Pages(ObjectId),
    /// Everything: its lane has closed.
    Close,
}

/// What kernels have to be told, and how far that has come.
#[derive(Default)]
pub(super) struct Queue {
    due: Vec<(ClientId, Due)>,
    /// Pages, from and to, that wait for requests which are parked: to forget them would be to wait as well.
    parked: Map<(ClientId, ObjectId), Vec<(u64, u64)>>,
    progress: Arc<Progress>,
}

#[derive(Default)]
pub(super) struct Progress {
    queued: AtomicU64,
    told: AtomicU64,
    /// Held by whoever is telling.
    telling: Mutex<()>,
}

impl Queue {
    pub(super) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    fn push(&mut self, client: ClientId, due: Due) {
        self.due.push((client, due));
        self.progress.queued.fetch_add(1, Ordering::Release);
    }

    /// The pages of an object, but for those that are parked: what is read into them will be new.
    fn pages(&self, client: ClientId, object: ObjectId) -> Vec<Forget> {
        let mut parked = self.parked.get(&(client, object)).cloned().unwrap_or_default();
        parked.sort_unstable();
        let (mut from, mut forget) = (0, Vec::new());
        for (start, end) in parked {
            if from < start {
                forget.push(Forget::Pages(object, from, Some(start - from)));
            }
            from = from.max(end);
        }
        forget.push(Forget::Pages(object, from, None));
        forget
    }
}

impl Engine {
    /// A client is mounted. With a lane that is open whenever that makes no difference, if it is wanted.
    pub(crate) fn mounted(&self, client: ClientId, kernel: Arc<dyn Kernel>, wanted: bool) {
        let mut st = self.lock();
        let lane = &mut st.client(client).lane;
        (lane.kernel, lane.wanted) = (Some(kernel), wanted);
        st.relane();
    }

    /// A request of the kernel's for pages, or to write them, is parked from now on; `false` says that it no longer is.
    pub(crate) fn park_pages(&self, client: ClientId, place: &Place, parked: bool) {
        let Place::Pages(object, from, len) = *place else { return };
        let mut st = self.lock();
        let key = (client, object);
        let pages = st.queue.parked.entry(key).or_default();
        let range = (from, from.saturating_add(len));
        if parked {
            pages.push(range);
        } else if let Some(n) = pages.iter().position(|known| *known == range) {
            pages.swap_remove(n);
        }
        if pages.is_empty() {
            st.queue.parked.remove(&key);
        }
    }

    /// Whether the lane of a client is open.
    pub(crate) fn is_fast(&self, client: ClientId) -> bool {
        self.lock().lane(client).is_some()
    }

    /// A kernel reads pages for its own ends.
    pub(crate) fn reads_pages(&self, who: &Caller, object: ObjectId) {
        let mut st = self.lock();
        st.client(who.client).lane.files.entry(object).or_default().paged = true;
    }

    /// See [`State::reads_late`].
    pub(crate) fn is_late(&self, who: &Caller, handle: super::Handle) -> bool {
        self.lock().reads_late(who, handle)
    }

    /// Whether some kernel still has to be told something; who has an answer to give waits for [`Engine::catch_up`] first.
    pub(crate) fn is_behind(&self) -> bool {
        self.lanes.told.load(Ordering::Acquire) < self.lanes.queued.load(Ordering::Acquire)
    }

    /// Tells all kernels what they have to be told by now, and returns when they have been.
    pub(crate) fn catch_up(&self) {
        let wanted = self.lanes.queued.load(Ordering::Acquire);
        while self.lanes.told.load(Ordering::Acquire) < wanted {
            let _turn = self.lanes.telling.lock();
            let mut st = self.lock();
            let upto = self.lanes.queued.load(Ordering::Acquire);
            let due = std::mem::take(&mut st.queue.due);
            let due: Vec<_> =
                due.into_iter().filter_map(|(client, due)| st.addressed(client, &due)).collect();
            drop(st);
            for (kernel, closed, forget) in due {
                if closed {
                    // What was granted is on its way until then.
                    kernel.drain();
                }
                forget.into_iter().for_each(|what| kernel.forget(what));
            }
            self.lanes.told.store(upto, Ordering::Release);
        }
    }
}

impl State {
    /// Whom a message is for, whether its lane has closed, and what it is to forget.
    fn addressed(&self, client: ClientId, due: &Due) -> Option<(Arc<dyn Kernel>, bool, Vec<Forget>)> {
        let found = self.clients.get(&client)?;
        let kernel = found.lane.kernel.clone()?;
        Some(match due {
            Due::Names => (kernel, false, vec![Forget::Names]),
            Due::Attributes(object) => (kernel, false, vec![Forget::Attributes(*object)]),
            Due::Pages(object) => (kernel, false, self.queue.pages(client, *object)),
            Due::Close => {
                let known = found.lookups.keys().copied().chain([ObjectId::ROOT]);
                let known = known.flat_map(|object| self.queue.pages(client, object));
                (kernel, true, std::iter::once(Forget::Names).chain(known).collect())
            }
        })
    }

    /// Opens and closes lanes, after anything has changed on which that depends.
    pub(super) fn relane(&mut self) {
        let alone = self.clients.len() == 1;
        for (id, client) in &mut self.clients {
            let lane = &mut client.lane;
            let open = alone
                && lane.wanted
                && !client.armed.load(Ordering::Acquire)
                && self.world.knobs(*id).is_exact();
            if lane.open && !open {
                lane.passable.clear();
                lane.doubtful = client.lookups.keys().copied().collect();
                lane.files.retain(|_, file| file.handles > 0 || file.paged);
                lane.files.values_mut().for_each(|file| (file.kept, file.told) = (false, None));
                self.queue.push(*id, Due::Close);
            } else if open && !lane.open {
                lane.doubtful.clear();
                // What was read meanwhile may be what a cache had.
                let read = lane.files.iter().filter(|(_, file)| file.handles > 0);
                read.for_each(|(object, _)| self.queue.push(*id, Due::Pages(*object)));
            }
            lane.open = open;
        }
    }

    fn lane(&self, client: ClientId) -> Option<&Lane> {
        self.clients.get(&client).map(|c| &c.lane).filter(|lane| lane.open)
    }

    /// Whether a kernel may keep the attributes that it is shown.
    pub(super) fn keeps_attr(&self, who: &Caller, object: ObjectId, attr: &Attr) -> bool {
        // Another user's write takes these bits away, and the kernel would not know.
        let privileged = attr.kind == Kind::File && attr.perm & 0o6000 != 0;
        !privileged && self.lane(who.client).is_some() && self.world.is_plain(who.client, object)
    }

    /// Whether a kernel may keep what it found at a name in `dir`. It asks nobody then whether a user may pass through the
    /// directory, so everybody must be allowed to.
    pub(super) fn keeps_name(&mut self, who: &Caller, dir: ObjectId) -> bool {
        let Some(lane) = self.lane(who.client) else { return false };
        if let Some(passable) = lane.passable.get(&dir) {
            return *passable;
        }
        let passable = self.dir_fd(dir).is_ok_and(|fd| {
            let all = disk::stat_fd(&fd).is_ok_and(|stat| stat.attr.perm & 0o111 == 0o111);
            all && !disk::has_acl(fd.as_fd())
        });
        self.client(who.client).lane.passable.insert(dir, passable);
        passable
    }

    /// What a kernel has just bound to a new name in `dir` it may keep there.
    pub(super) fn bound(&mut self, who: &Caller, dir: ObjectId, entry: Entry) -> Entry {
        let name = self.keeps_name(who, dir);
        Entry { keep: Keep { name, ..entry.keep }, ..entry }
    }

    /// Who may do what with an object has changed. `shown` says that whoever changed it is shown its new attributes.
    pub(super) fn rights_changed(&mut self, object: ObjectId, shown: bool) {
        for (id, client) in self.clients.iter_mut().filter(|(_, client)| client.lane.open) {
            if client.lane.passable.remove(&object) == Some(true) {
                self.queue.push(*id, Due::Names);
            }
            if !shown {
                self.queue.push(*id, Due::Attributes(object));
            }
        }
    }

    /// What a kernel may do with the bytes of a file that is being opened, and that it may go on doing so.
    pub(super) fn opens_pages(
        &mut self,
        who: &Caller,
        object: ObjectId,
        flags: OpenFlags,
        truncate: bool,
    ) -> Pages {
        // Reading past the kernel moves access times; pages that were read without that must not stand in for it.
        let only_reads = flags.read && !flags.write && !flags.direct && !flags.noatime;
        let found = self.objects.get(object);
        let written = found.is_none_or(|o| o.kind != Kind::File || o.open.iter().any(|f| f.flags.write));
        let open = self.lane(who.client).is_some();
        if self.client(who.client).lane.doubtful.remove(&object) {
            self.queue.push(who.client, Due::Attributes(object));
        }
        if !only_reads || written || !open || !self.world.is_plain(who.client, object) {
            let file = self.client(who.client).lane.files.get_mut(&object);
            // What is opened is read anew, also in these ways; what is cut the kernel forgets itself.
            if file.is_some_and(|file| std::mem::take(&mut file.paged)) && !truncate {
                self.queue.push(who.client, Due::Pages(object));
            }
            return Pages::Direct;
        }
        let file = self.client(who.client).lane.files.entry(object).or_default();
        file.handles += 1;
        if std::mem::replace(&mut file.kept, true) { Pages::Kept } else { Pages::Fresh }
    }

    /// A file that read through the kernel's pages is closed.
    pub(super) fn closes_pages(&mut self, client: ClientId, object: ObjectId) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        if let Some(file) = client.lane.files.get_mut(&object) {
            file.handles = file.handles.saturating_sub(1);
            if file.handles == 0 && !file.kept && !file.paged {
                client.lane.files.remove(&object);
            }
        }
    }

    /// The bytes of an object have changed, or anything else about it: after that the next reading moves its access time,
    /// which pages do not. `right` is the client whose kernel need not be told.
    pub(super) fn bytes_changed(&mut self, author: ClientId, object: ObjectId, right: Option<ClientId>) {
        for (id, client) in &mut self.clients {
            let Some(file) = client.lane.files.get_mut(&object) else { continue };
            (file.kept, file.told) = (false, None);
            // Of what its own client writes a kernel forgets such pages itself.
            let paged = std::mem::take(&mut file.paged) && *id != author;
            if paged || (file.handles > 0 && right != Some(*id)) {
                self.queue.push(*id, Due::Pages(object));
            }
        }
    }

    /// Whether this handle reads through the kernel's pages although the lane is closed. The kernel asks for attributes
    /// before it reads them then.
    pub(super) fn reads_late(&self, who: &Caller, handle: super::Handle) -> bool {
        let Some(client) = self.clients.get(&who.client) else { return false };
        !client.lane.open && client.files.get(&handle.0).is_some_and(|f| f.pages != Pages::Direct)
    }

    /// Who reads late is told the size of a file. Where each `read` is to reach the engine (for a fault, or since the view
    /// changes with time) its pages go before it has the answer, so that it asks for the bytes too. A kernel that has been
    /// told to forget does not believe the answer, so that must not be the first to tell a size; and pages that were of
    /// another size it drops by itself.
    pub(super) fn tells_size(&mut self, who: &Caller, object: ObjectId, size: u64) {
        let exact = self.world.knobs(who.client).is_exact();
        let client = self.client(who.client);
        let each = !exact || client.armed.load(Ordering::Acquire);
        let Some(file) = client.lane.files.get_mut(&object) else { return };
        if file.told.replace(size) == Some(size) && each {
            self.queue.push(who.client, Due::Pages(object));
        }
    }

    /// A kernel has forgotten an object.
    pub(super) fn forget_lane(&mut self, client: ClientId, object: ObjectId) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.lane.files.remove(&object);
            client.lane.passable.remove(&object);
            client.lane.doubtful.remove(&object);
        }
    }
}
