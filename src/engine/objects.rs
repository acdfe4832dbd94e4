//! The table of objects: which id stands for which object of the backing, where it was last found, and what keeps it.
//!
//! An object is found again by (directory, name) from its parent's descriptor, so a tree of any size needs only the
//! bounded number of directory descriptors that [`DirFds`] keeps. Ids count up and are never used again.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::model::attr::{Attr, Kind, Stamp};
use crate::model::hash::Map;
use crate::model::ids::{ClientId, Name, ObjectId, Version};
use crate::model::time::Time;

use super::disk::{Access, Key, Stat};
use super::lanes::Pages;

/// An open file of the backing, shared by everyone who needs its descriptor.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) client: ClientId,
    pub(crate) object: ObjectId,
    pub(crate) fd: OwnedFd,
    /// What the descriptor can do, which may be more than the program asked for.
    pub(crate) access: Access,
    pub(crate) flags: OpenFlags,
    /// What the kernel does with the bytes that it reads through this.
    pub(crate) pages: Pages,
}

/// What the program asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFlags {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// `O_SYNC` or `O_DSYNC`: every write is flushed at once.
    pub(crate) sync: bool,
    /// `O_DIRECT`: reads do not believe the cache.
    pub(crate) direct: bool,
    /// To be executed, which may be allowed where reading is not, and the other way round.
    pub(crate) execute: bool,
    /// `O_NOATIME`: reading moves no access time.
    pub(crate) noatime: bool,
}

/// How an object lost its last name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removal {
    pub(crate) author: ClientId,
    pub(crate) visible: Time,
    /// Its attributes before.
    pub(crate) attr: Attr,
}

/// The last commit to an object, for `explain`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCommit {
    pub(crate) version: Version,
    pub(crate) author: ClientId,
    pub(crate) at: Time,
}

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    /// Where it was last found.
    pub(crate) at: Option<(ObjectId, Name)>,
    /// Where it was when it lost its last name, for events.
    pub(crate) was: Option<(ObjectId, Name)>,
    /// Keeps it reachable without a name.
    pub(crate) anchor: Option<Arc<OwnedFd>>,
    pub(crate) open: Vec<Arc<OpenFile>>,
    pub(crate) dead: Option<Removal>,
    /// Until when someone may be shown it at a name that it has lost already.
    pub(crate) shown_until: Time,
    /// Under a manual clock: when its attributes last changed, which no system call can set.
    pub(crate) ctime: Option<Stamp>,
    pub(crate) last: Option<LastCommit>,
    /// How many clients' kernels, and other keepers, refer to it.
    pub(crate) refs: u32,
}

/// All objects that anyone refers to.
#[derive(Debug)]
pub(crate) struct Objects {
    table: Map<ObjectId, Object>,
    /// Ids of objects by what they are on the disk. Also of entries that were only listed, so that a listing and a later
    /// `stat` agree on the inode number.
    by_key: Map<Key, ObjectId>,
    next: u64,
    /// When the table is this large, unused objects are looked for.
    sweep_at: usize,
}

/// How large the table of ids may grow with entries that were only listed.
const LISTED: usize = 1 << 18;

impl Objects {
    pub(crate) fn new(root: Stat, fd: OwnedFd) -> Self {
        let object = Object {
            key: root.key,
            kind: Kind::Directory,
            at: None,
            was: None,
            anchor: Some(Arc::new(fd)),
            open: Vec::new(),
            dead: None,
            shown_until: Time::ZERO,
            ctime: None,
            last: None,
            refs: 1,
        };
        let mut objects = Objects {
            table: Map::default(),
            by_key: Map::default(),
            next: ObjectId::ROOT.0 + 1,
            sweep_at: 4096,
        };
        objects.table.insert(ObjectId::ROOT, object);
        objects.by_key.insert(root.key, ObjectId::ROOT);
        objects
    }

    pub(crate) fn get(&self, id: ObjectId) -> Option<&Object> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ObjectId) -> Option<&mut Object> {
        self.table.get_mut(&id)
    }

    /// The object with this key, if it is known.
    pub(crate) fn known(&self, key: Key) -> Option<ObjectId> {
        self.by_key.get(&key).copied().filter(|id| self.table.contains_key(id))
    }

    /// The id of an entry that is only listed.
    pub(crate) fn listed(&mut self, key: Key) -> ObjectId {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        if self.by_key.len() > LISTED + self.table.len() {
            let table = &self.table;
            self.by_key.retain(|_, id| table.contains_key(id));
        }
        let id = self.fresh();
        self.by_key.insert(key, id);
        id
    }

    fn fresh(&mut self) -> ObjectId {
        self.next += 1;
        ObjectId(self.next - 1)
    }

    /// The object that was just found at `name` in `dir`.
    pub(crate) fn intern(&mut self, stat: &Stat, dir: ObjectId, name: &Name) -> ObjectId {
        let mut id = self.listed(stat.key);
        match self.table.get_mut(&id) {
            Some(object) if object.kind == stat.attr.kind => {
                if !object.at.as_ref().is_some_and(|(d, n)| *d == dir && n == name) && id != ObjectId::ROOT {
                    object.at = Some((dir, name.clone()));
                    // Only kept while no name was known.
                    object.anchor = None;
                }
                return id;
            }
            // Someone outside removed it, and the number came back as something else.
            Some(_) => {
                id = self.fresh();
                self.by_key.insert(stat.key, id);
            }
            None => {}
        }
        let at = Some((dir, name.clone()));
        let (kind, key) = (stat.attr.kind, stat.key);
        let object = Object {
            key,
            kind,
            at,
            was: None,
            anchor: None,
            open: Vec::new(),
            dead: None,
            shown_until: Time::ZERO,
            ctime: None,
            last: None,
            refs: 0,
        };
        self.table.insert(id, object);
        id
    }

    /// The object has lost its last name.
    pub(crate) fn kill(&mut self, id: ObjectId, removal: Removal, anchor: Option<Arc<OwnedFd>>) {
        let Some(object) = self.table.get_mut(&id) else { return };
        object.dead = Some(removal);
        object.was = object.at.take();
        if anchor.is_some() {
            object.anchor = anchor;
        }
        if self.by_key.get(&object.key) == Some(&id) {
            self.by_key.remove(&object.key);
        }
    }

    /// Drops objects that nobody refers to, when there are many; answers which. `remembered` says whether the model still
    /// does.
    pub(crate) fn sweep(&mut self, remembered: impl Fn(ObjectId) -> bool) -> Vec<ObjectId> {
        if self.table.len() < self.sweep_at {
            return Vec::new();
        }
        // An object is found again by way of all directories above it.
        let mut above: crate::model::hash::Set<ObjectId> = crate::model::hash::Set::default();
        for object in self.table.iter().filter(|(id, o)| o.refs > 0 || remembered(**id)).map(|(_, o)| o) {
            let mut at = object.at.as_ref();
            while let Some((dir, _)) = at.filter(|(dir, _)| above.insert(*dir)) {
                at = self.table.get(dir).and_then(|o| o.at.as_ref());
            }
        }
        let unused = |id: &ObjectId, o: &Object| o.refs == 0 && !above.contains(id) && !remembered(*id);
        let gone: Vec<(ObjectId, Key)> =
            self.table.iter().filter(|(id, o)| unused(id, o)).map(|(id, o)| (*id, o.key)).collect();
        for (id, key) in &gone {
            self.table.remove(id);
            if self.by_key.get(key) == Some(id) {
                self.by_key.remove(key);
            }
        }
        self.sweep_at = (self.table.len() * 2).max(4096);
        gone.into_iter().map(|(id, _)| id).collect()
    }

    /// Drops a dead object when nothing refers to it any more. True when it is gone.
    pub(crate) fn bury(&mut self, id: ObjectId) -> bool {
        let done = self.table.get(&id).is_some_and(|o| o.refs == 0 && o.dead.is_some());
        if done {
            self.table.remove(&id);
        }
        done
    }
}

/// Open descriptors of directories, the least recently used closed first.
#[derive(Debug)]
pub(crate) struct DirFds {
    open: Map<ObjectId, (Arc<OwnedFd>, u64)>,
    tick: u64,
    limit: usize,
}

impl DirFds {
    pub(crate) fn new(limit: usize) -> Self {
        DirFds { open: Map::default(), tick: 0, limit }
    }

    pub(crate) fn get(&mut self, dir: ObjectId) -> Option<Arc<OwnedFd>> {
        self.tick += 1;
        let (fd, used) = self.open.get_mut(&dir)?;
        *used = self.tick;
        Some(fd.clone())
    }

    pub(crate) fn put(&mut self, dir: ObjectId, fd: Arc<OwnedFd>) {
        if self.open.len() >= self.limit {
            // Half at a time, so that the search is paid for by many insertions.
            let mut used: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
            let middle = used.len() / 2;
            let (_, median, _) = used.select_nth_unstable(middle);
            let median = *median;
            self.open.retain(|_, (_, used)| *used > median);
        }
        self.tick += 1;
        self.open.insert(dir, (fd, self.tick));
    }

    pub(crate) fn remove(&mut self, dir: ObjectId) -> Option<Arc<OwnedFd>> {
        self.open.remove(&dir).map(|(fd, _)| fd)
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk;
    use super::*;

    #[test]
    fn all_directories_above_an_object_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        let fd = disk::open_root(dir.path()).unwrap();
        let root = disk::stat_fd(&fd).unwrap();
        let mut objects = Objects::new(root, fd);
        let found = |n: u64| Stat { key: Key { dev: 0, ino: n }, ..root };
        let name = Name::new(std::ffi::OsStr::new("n"));
        let mut here = ObjectId::ROOT;
        let way: Vec<ObjectId> = (0..4)
            .map(|n| {
                here = objects.intern(&found(n), here, &name);
                here
            })
            .collect();
        objects.get_mut(here).unwrap().refs = 1;
        for n in 10..5000 {
            objects.intern(&found(n), ObjectId::ROOT, &name);
        }
        assert_eq!(objects.sweep(|_| false).len(), 4990);
        assert!(way.iter().all(|id| objects.get(*id).is_some()));
    }
}
