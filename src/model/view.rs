//! What one client has in memory: the names and attributes it believes (R5) and the bytes it has not flushed (R3).
//!
//! Caches are bounded: past the limit a client forgets, which makes it less stale than asked, never wrong.

use std::sync::Arc;
use std::time::Duration;

use super::attr::{Attr, Kind};
use super::extents::Extents;
use super::hash::Map;
use super::ids::{ClientId, Name, ObjectId, Version};
use super::knobs::Knobs;
use super::time::Time;

/// How many names, and how many objects, one client remembers at most.
const CACHED: usize = 65_536;

/// A believed name.
#[derive(Clone, Copy, Debug)]
struct Dent {
    value: Option<ObjectId>,
    fetched: Time,
}

/// A believed version of an object: its attributes, and with them its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    pub(crate) version: Version,
    pub(crate) attr: Attr,
    pub(crate) fetched: Time,
    /// R6: not believed from here on, whatever the TTL.
    until: Time,
}

/// One entry of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) object: ObjectId,
}

/// The names of a directory as a client saw them at one moment.
pub(crate) type Listing = Arc<Vec<Entry>>;

#[derive(Default, Debug)]
struct Dir {
    dents: Map<Name, Dent>,
    listing: Option<(Listing, Time)>,
}

/// Bytes that a client has written and not flushed.
#[derive(Clone, Debug)]
pub(crate) struct Dirty {
    pub(crate) extents: Extents,
    /// When the last of them was written.
    pub(crate) last: Time,
    /// R3: `write_delay` after the first of them was written.
    pub(crate) deadline: Time,
}

/// The memory of one client.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) client: ClientId,
    pub(crate) knobs: Knobs,
    dirs: Map<ObjectId, Dir>,
    names: usize,
    pins: Map<ObjectId, Pin>,
    pub(crate) dirty: Map<ObjectId, Dirty>,
}

impl View {
    pub(crate) fn new(client: ClientId, knobs: Knobs) -> Self {
        View {
            client,
            knobs,
            dirs: Map::default(),
            names: 0,
            pins: Map::default(),
            dirty: Map::default(),
        }
    }

    pub(crate) fn ttl(&self, kind: Kind) -> Duration {
        if kind == Kind::Directory { self.knobs.dir_ttl } else { self.knobs.file_ttl }
    }

    /// R5: the believed value of a name and its age, unless it is too old.
    pub(crate) fn name(&self, dir: ObjectId, name: &[u8], now: Time) -> Option<(Option<ObjectId>, Duration)> {
        let dent = self.dirs.get(&dir)?.dents.get(name)?;
        let ttl = if dent.value.is_some() { self.knobs.dir_ttl } else { self.knobs.negative_ttl };
        (now < dent.fetched.after(ttl)).then(|| (dent.value, now.since(dent.fetched)))
    }

    pub(crate) fn believe_name(&mut self, dir: ObjectId, name: &Name, value: Option<ObjectId>, now: Time) {
        let ttl = if value.is_some() { self.knobs.dir_ttl } else { self.knobs.negative_ttl };
        if ttl.is_zero() {
            return;
        }
        if self.names >= CACHED {
            self.dirs.clear();
            self.names = 0;
        }
        let dents = &mut self.dirs.entry(dir).or_default().dents;
        if dents.insert(name.clone(), Dent { value, fetched: now }).is_none() {
            self.names += 1;
        }
    }

    pub(crate) fn forget_name(&mut self, dir: ObjectId, name: &[u8]) {
        if self.dirs.get_mut(&dir).is_some_and(|d| d.dents.remove(name).is_some()) {
            self.names -= 1;
        }
    }

    /// Forgets every name that leads to `object`.
    pub(crate) fn forget_names_of(&mut self, object: ObjectId) {
        for dir in self.dirs.values_mut() {
            let had = dir.dents.len();
            dir.dents.retain(|_, dent| dent.value != Some(object));
            self.names -= had - dir.dents.len();
        }
    }

    /// Forgets every name of `dir` and its listing.
    pub(crate) fn forget_dir(&mut self, dir: ObjectId) {
        if let Some(dir) = self.dirs.remove(&dir) {
            self.names -= dir.dents.len();
        }
    }

    /// R5: the believed listing of a directory, unless it is too old.
    pub(crate) fn listing(&self, dir: ObjectId, now: Time) -> Option<(Listing, Duration)> {
        let (listing, fetched) = self.dirs.get(&dir)?.listing.as_ref()?;
        (now < fetched.after(self.knobs.dir_ttl)).then(|| (listing.clone(), now.since(*fetched)))
    }

    pub(crate) fn believe_listing(&mut self, dir: ObjectId, listing: &Listing, now: Time) {
        if !self.knobs.dir_ttl.is_zero() {
            self.dirs.entry(dir).or_default().listing = Some((listing.clone(), now));
        }
    }

    /// R5: the believed version of an object, unless it is too old.
    pub(crate) fn pin(&self, object: ObjectId, now: Time) -> Option<&Pin> {
        let pin = self.pins.get(&object)?;
        (now < pin.fetched.after(self.ttl(pin.attr.kind)).min(pin.until)).then_some(pin)
    }

    pub(crate) fn believe(&mut self, object: ObjectId, version: Version, attr: Attr, now: Time) {
        if self.ttl(attr.kind).is_zero() {
            return;
        }
        if self.pins.len() >= CACHED {
            self.pins.clear();
        }
        self.pins.insert(object, Pin { version, attr, fetched: now, until: Time::NEVER });
    }

    pub(crate) fn forget(&mut self, object: ObjectId) {
        self.pins.remove(&object);
    }

    /// Whether anything is believed of an object, however old.
    pub(crate) fn knows(&self, object: ObjectId) -> bool {
        self.pins.contains_key(&object) || self.dirty.contains_key(&object)
    }

    /// R6: the believed version is not believed after `by`.
    pub(crate) fn hurry(&mut self, object: ObjectId, by: Time) {
        if let Some(pin) = self.pins.get_mut(&object) {
            pin.until = pin.until.min(by);
        }
    }

    /// Forgets everything that was only cached.
    pub(crate) fn forget_all(&mut self) {
        self.dirs.clear();
        self.names = 0;
        self.pins.clear();
    }

    /// R8: `attr` with this client's own unflushed bytes in it. `stamp` turns the time of the last write into a file's.
    pub(crate) fn with_own(&self, object: ObjectId, mut attr: Attr, stamp: impl Fn(Time) -> super::attr::Stamp) -> Attr {
        if let Some(dirty) = self.dirty.get(&object) {
            attr.size = attr.size.max(dirty.extents.end());
            attr.mtime = stamp(dirty.last);
            attr.ctime = attr.mtime;
        }
        attr
    }

    /// When the last thing believed stops being believed.
    pub(crate) fn latest(&self, now: Time) -> Option<Time> {
        let ttl = self.knobs.file_ttl.max(self.knobs.dir_ttl).max(self.knobs.negative_ttl);
        let dirs = self.dirs.values();
        let fetched = dirs.flat_map(|d| d.dents.values().map(|e| e.fetched).chain(d.listing.as_ref().map(|l| l.1)));
        let last = fetched.chain(self.pins.values().map(|p| p.fetched)).max()?.after(ttl);
        (last > now).then_some(last)
    }
}
