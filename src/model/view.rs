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

/// How many entries the listings that one client remembers have at most, together.
const LISTED: usize = 1 << 20;

/// A believed name.
#[derive(Clone, Copy, Debug)]
struct Dent {
    value: Option<ObjectId>,
    fetched: Time,
    until: Time,
}

/// A believed version of an object: its attributes, and with them its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    pub(crate) version: Version,
    pub(crate) attr: Attr,
    pub(crate) fetched: Time,
    /// R5, R6: not believed from here on.
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
    listing: Option<Believed>,
}

/// A believed listing.
#[derive(Debug)]
struct Believed {
    listing: Listing,
    fetched: Time,
    until: Time,
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
    /// Entries of the listings that are remembered.
    listed: usize,
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
            listed: 0,
            pins: Map::default(),
            dirty: Map::default(),
        }
    }

    pub(crate) fn ttl(&self, kind: Kind) -> Duration {
        object_ttl(&self.knobs, kind)
    }

    /// Shorter TTLs end what is believed now; longer ones do not bring back what has ended, for its past may be gone, and
    /// something newer may have been shown since.
    pub(crate) fn set_knobs(&mut self, knobs: Knobs) {
        self.knobs = knobs;
        for dir in self.dirs.values_mut() {
            for dent in dir.dents.values_mut() {
                dent.until = dent.until.min(dent.fetched.after(name_ttl(&knobs, dent.value)));
            }
            if let Some(believed) = &mut dir.listing {
                believed.until = believed.until.min(believed.fetched.after(knobs.dir_ttl));
            }
        }
        for pin in self.pins.values_mut() {
            pin.until = pin.until.min(pin.fetched.after(object_ttl(&knobs, pin.attr.kind)));
        }
    }

    /// R5: the believed value of a name and its age, unless it is too old.
    pub(crate) fn name(&self, dir: ObjectId, name: &[u8], now: Time) -> Option<(Option<ObjectId>, Duration)> {
        let dent = self.dirs.get(&dir)?.dents.get(name)?;
        (now < dent.until).then(|| (dent.value, now.since(dent.fetched)))
    }

    pub(crate) fn believe_name(&mut self, dir: ObjectId, name: &Name, value: Option<ObjectId>, now: Time) {
        let ttl = name_ttl(&self.knobs, value);
        if ttl.is_zero() {
            // What was believed before is older than what was shown now.
            self.forget_name(dir, name.as_bytes());
            return;
        }
        if self.names >= CACHED {
            self.dirs.clear();
            (self.names, self.listed) = (0, 0);
        }
        let dents = &mut self.dirs.entry(dir).or_default().dents;
        if dents.insert(name.clone(), Dent { value, fetched: now, until: now.after(ttl) }).is_none() {
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
            self.listed -= dir.listing.map_or(0, |believed| believed.listing.len());
            self.names -= dir.dents.len();
        }
    }

    /// R5: the believed listing of a directory, unless it is too old.
    pub(crate) fn listing(&self, dir: ObjectId, now: Time) -> Option<(Listing, Duration)> {
        let believed = self.dirs.get(&dir)?.listing.as_ref()?;
        (now < believed.until).then(|| (believed.listing.clone(), now.since(believed.fetched)))
    }

    pub(crate) fn believe_listing(&mut self, dir: ObjectId, listing: &Listing, now: Time) {
        if !self.knobs.dir_ttl.is_zero() {
            if self.listed + listing.len() > LISTED {
                self.dirs.clear();
                (self.names, self.listed) = (0, 0);
            }
            self.listed += listing.len();
            let until = now.after(self.knobs.dir_ttl);
            let believed = Believed { listing: listing.clone(), fetched: now, until };
            let before = self.dirs.entry(dir).or_default().listing.replace(believed);
            self.listed -= before.map_or(0, |before| before.listing.len());
        }
    }

    /// R5: the believed version of an object, unless it is too old.
    pub(crate) fn pin(&self, object: ObjectId, now: Time) -> Option<&Pin> {
        let pin = self.pins.get(&object)?;
        (now < pin.until).then_some(pin)
    }

    /// `until` is when the version must not be believed any more, whatever the TTL (R6).
    pub(crate) fn believe(
        &mut self,
        object: ObjectId,
        version: Version,
        attr: Attr,
        (now, until): (Time, Time),
    ) {
        let ttl = object_ttl(&self.knobs, attr.kind);
        if ttl.is_zero() {
            self.forget(object);
            return;
        }
        if self.pins.len() >= CACHED {
            self.pins.clear();
        }
        self.pins.insert(object, Pin { version, attr, fetched: now, until: now.after(ttl).min(until) });
    }

    pub(crate) fn forget(&mut self, object: ObjectId) {
        self.pins.remove(&object);
    }

    /// Whether anything is believed of an object, however old.
    pub(crate) fn knows(&self, object: ObjectId) -> bool {
        self.pins.contains_key(&object) || self.dirty.contains_key(&object)
    }

    /// R6: a version older than `newest` is not believed after `by`.
    pub(crate) fn hurry(&mut self, object: ObjectId, newest: Version, by: Time) {
        if let Some(pin) = self.pins.get_mut(&object).filter(|pin| pin.version < newest) {
            pin.until = pin.until.min(by);
        }
    }

    /// Forgets everything that was only cached.
    pub(crate) fn forget_all(&mut self) {
        self.dirs.clear();
        (self.names, self.listed) = (0, 0);
        self.pins.clear();
    }

    /// R8: `attr` with this client's own unflushed bytes in it. `stamp` turns the time of the last write into a file's.
    pub(crate) fn with_own(
        &self,
        object: ObjectId,
        mut attr: Attr,
        stamp: impl Fn(Time) -> super::attr::Stamp,
    ) -> Attr {
        if let Some(dirty) = self.dirty.get(&object) {
            attr.size = attr.size.max(dirty.extents.end());
            attr.mtime = stamp(dirty.last);
            attr.ctime = attr.mtime;
        }
        attr
    }

    /// When the last thing believed stops being believed.
    pub(crate) fn latest(&self, now: Time) -> Option<Time> {
        let dirs = self.dirs.values();
        let names =
            dirs.flat_map(|d| d.dents.values().map(|e| e.until).chain(d.listing.as_ref().map(|l| l.until)));
        names.chain(self.pins.values().map(|p| p.until)).max().filter(|last| *last > now)
    }
}

/// R5: how long a name is believed that was found to stand for `value`.
fn name_ttl(knobs: &Knobs, value: Option<ObjectId>) -> Duration {
    if value.is_some() { knobs.dir_ttl } else { knobs.negative_ttl }
}

/// R5: how long an object is believed.
fn object_ttl(knobs: &Knobs, kind: Kind) -> Duration {
    if kind == Kind::Directory { knobs.dir_ttl } else { knobs.file_ttl }
}
