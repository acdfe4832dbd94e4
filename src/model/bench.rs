//! Doors into the model for `benches/model.rs`, which sees only what is public. Not part of the crate's promises.

use std::ffi::OsStr;
use std::time::Duration;

use super::attr::{Attr, Kind, Stamp};
use super::extents::Extents;
use super::ids::{ClientId, Name, ObjectId, Version};
use super::inodes::Change;
use super::knobs::Knobs;
use super::time::Time;
use super::world::Rebind;
use super::{Sight, World};

const WRITER: ClientId = ClientId(1);
const READER: ClientId = ClientId(2);
const DIR: ObjectId = ObjectId::ROOT;
const FILE: ObjectId = ObjectId(2);

/// Longer than any benchmark.
const LONG: Duration = Duration::from_secs(1 << 30);

/// How the reader of a [`Bench`] comes to its answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// From its cache.
    Cache,
    /// From the truth, which has no past.
    Truth,
    /// From the past.
    Past,
}

/// A world with a directory of 1000 names, a file, a writer and a reader.
#[derive(Debug)]
pub struct Bench {
    world: World,
    name: Name,
    attr: Attr,
    now: u64,
    stale: Version,
}

impl Bench {
    /// A world in which the reader's answers come `from` there.
    pub fn new(from: From) -> Self {
        let knobs = Knobs::strict();
        let mut world = World::new(usize::MAX);
        world.join(WRITER, if from == From::Past { knobs.rename_delay(LONG) } else { knobs });
        world.join(READER, if from == From::Cache { knobs.meta_ttl(LONG) } else { knobs });
        let mut bench =
            Bench { world, name: Name::new(OsStr::new("name-500")), attr: attr(), now: 1, stale: Version(0) };
        for i in 0..1000 {
            bench.rebind(&Name::new(OsStr::new(&format!("name-{i}"))));
        }
        bench.world.believe_name(READER, DIR, &bench.name.clone(), Some(FILE), Time::from_nanos(1));
        bench.world.believe(READER, FILE, attr(), Time::from_nanos(1));
        bench
    }

    fn tick(&mut self) -> Time {
        self.now += 1;
        Time::from_nanos(self.now)
    }

    fn rebind(&mut self, name: &Name) {
        let now = self.tick();
        self.world.bind(WRITER, now, &[Rebind { dir: DIR, name, before: None, after: Some(FILE) }]);
    }

    /// The writer binds a name anew.
    pub fn bind(&mut self) {
        self.rebind(&self.name.clone());
    }

    /// The reader looks a name up.
    pub fn name(&mut self) -> bool {
        let now = Time::from_nanos(self.now);
        matches!(self.world.name(READER, DIR, &self.name, now), Sight::Truth)
    }

    /// The reader asks for the attributes of the file.
    pub fn object(&mut self) -> bool {
        let now = Time::from_nanos(self.now);
        matches!(self.world.object(READER, FILE, now, false), Sight::Truth)
    }

    /// The writer writes `data` and takes it for a flush.
    pub fn write_and_take(&mut self, data: &[u8]) -> usize {
        let now = self.tick();
        self.world.write(WRITER, FILE, 0, data, now);
        self.world.take_dirty(WRITER, FILE, now).map_or(0, |(dirty, _)| dirty.extents.bytes())
    }

    /// The writer commits `count` writes of 4 KiB, which the reader does not see, at offsets of their own or all at one.
    pub fn commit(&mut self, count: u64, apart: bool) {
        self.stale = self.world.newest();
        let visible = Time::from_nanos(self.now).after(LONG);
        for i in 0..count {
            let now = self.tick();
            let mut overwritten = Extents::default();
            overwritten.write(if apart { i * 4096 } else { 0 }, &[1; 4096]);
            let change = Change { before: self.attr, after: self.attr, overwritten };
            self.world.commit(WRITER, FILE, visible, now, Some(change));
            // Someone looks, so that the commits are not merged.
            self.world.object(READER, FILE, now, true);
        }
    }

    /// The reader reads into `buf` from `at`, in the state before [`Bench::commit`].
    pub fn stale_read(&self, at: u64, buf: &mut [u8]) {
        self.world.show(READER, FILE, self.stale, at, buf);
    }
}

fn attr() -> Attr {
    Attr {
        kind: Kind::File,
        perm: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 1 << 30,
        blocks: 0,
        blksize: 4096,
        atime: Stamp::default(),
        mtime: Stamp::default(),
        ctime: Stamp::default(),
    }
}
