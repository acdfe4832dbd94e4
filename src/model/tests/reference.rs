//! What a client sees, said as plainly as possible: everything that ever happened is kept in one list, whole, and every
//! question goes through that list again. Slow on purpose. Nothing of the model's own code decides anything here.
//! `deeds` adds to the list.

mod deeds;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Attr, ClientId, Knobs, ObjectId, Place, Time, stamp};

/// A file, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) attr: Attr,
}

/// What clients see late: what a name stands for, and what a file is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Register {
    Name(Place),
    File(ObjectId),
}

#[derive(Debug)]
enum Deed {
    /// The file became this.
    File(ObjectId, File),
    /// The name became this. A name that `carries` does not show before the bytes that were in the file by then (R6).
    Name(Place, Option<ObjectId>, Bound),
    /// The server told the client how the register stands (R4). Changes nothing.
    Told(Register),
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    exclusive: bool,
    carries: bool,
}

/// Its place in the list is its version.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) by: ClientId,
    pub(super) when: Time,
    /// When others see it.
    visible: Time,
    deed: Deed,
}

impl Event {
    fn changes(&self) -> Option<Register> {
        match self.deed {
            Deed::File(object, _) => Some(Register::File(object)),
            Deed::Name(place, ..) => Some(Register::Name(place)),
            Deed::Told(_) => None,
        }
    }
}

/// A version that a client has fetched, or the version "never bound" of a name.
#[derive(Clone, Copy, Debug)]
struct Cached {
    version: Option<usize>,
    fetched: Time,
    until: Time,
}

/// Writes that were not flushed, in their order.
#[derive(Default, Clone, Debug)]
struct Dirty {
    writes: Vec<(usize, Vec<u8>)>,
    last: Time,
    deadline: Time,
}

#[derive(Default, Debug)]
pub(super) struct Reference {
    pub(super) log: Vec<Event>,
    knobs: BTreeMap<ClientId, Knobs>,
    cache: BTreeMap<(ClientId, Register), Cached>,
    listings: BTreeMap<(ClientId, ObjectId), (BTreeMap<Place, ObjectId>, Cached)>,
    dirty: BTreeMap<(ClientId, ObjectId), Dirty>,
}

impl Reference {
    pub(super) fn changes(&self, version: usize) -> Option<Register> {
        self.log[version].changes()
    }

    // ---- which version ---------------------------------------------------------------------------------------------

    /// R2: the last version that is the client's own, visible by now, or was told to it.
    fn visible_version(&self, client: ClientId, register: Register, now: Time) -> Option<usize> {
        let versions = (0..self.log.len()).rev().filter(|v| self.log[*v].changes() == Some(register));
        let told = |v: usize| {
            let tells = |e: &Event| e.by == client && matches!(e.deed, Deed::Told(r) if r == register);
            self.log[v..].iter().any(tells)
        };
        versions.into_iter().find(|v| self.log[*v].by == client || self.visible(*v) <= now || told(*v))
    }

    /// R6: a file's version is visible at the latest with the next name that is bound to the file.
    fn visible(&self, version: usize) -> Time {
        self.carriers(version).map(|e| e.visible).chain([self.log[version].visible]).min().unwrap_or_default()
    }

    fn carriers(&self, version: usize) -> impl Iterator<Item = &Event> {
        let file = self.log[version].changes();
        self.log[version..].iter().filter(move |e| {
            matches!(e.deed, Deed::Name(_, Some(o), bound) if bound.carries && file == Some(Register::File(o)))
        })
    }

    /// R5: the version that the client sees: the one that it believes, or else the visible one, which it believes then.
    pub(super) fn version(
        &mut self,
        c: ClientId,
        register: Register,
        now: Time,
        fresh: bool,
    ) -> Option<usize> {
        if let Some(cached) = self.cache.get(&(c, register))
            && (now < cached.until && !fresh && !self.overtaken(register, cached.version, now))
        {
            return cached.version;
        }
        let version = self.visible_version(c, register, now);
        let ttl = if self.asked_afresh(c, register, version) {
            Duration::ZERO
        } else {
            self.ttl(c, register, version)
        };
        let until = now.after(ttl);
        self.cache.insert((c, register), Cached { version, fetched: now, until });
        version
    }

    /// R6: whether a name has become visible which carries a newer version of the file.
    fn overtaken(&self, register: Register, version: Option<usize>, now: Time) -> bool {
        let newer = version.map_or(0, |v| v + 1)..self.log.len();
        let mut newer = newer.filter(|v| self.log[*v].changes() == Some(register));
        newer.any(|v| self.carriers(v).any(|e| e.visible <= now))
    }

    /// R7: a name that was bound exclusively, when it was last bound to what it stands for.
    fn asked_afresh(&self, client: ClientId, register: Register, version: Option<usize>) -> bool {
        let (Register::Name(place), Some(object)) = (register, self.object(version)) else { return false };
        let bound = self.log.iter().rev().find_map(|e| match e.deed {
            Deed::Name(p, Some(o), bound) if p == place && o == object => Some(bound.exclusive),
            _ => None,
        });
        bound == Some(true) && self.knobs[&client].exclusive_fresh
    }

    fn ttl(&self, client: ClientId, register: Register, version: Option<usize>) -> Duration {
        let knobs = &self.knobs[&client];
        match register {
            Register::File(_) => knobs.file_ttl,
            Register::Name(_) if self.object(version).is_some() => knobs.dir_ttl,
            Register::Name(_) => knobs.negative_ttl,
        }
    }

    fn object(&self, version: Option<usize>) -> Option<ObjectId> {
        match self.log[version?].deed {
            Deed::Name(_, object, _) => object,
            _ => None,
        }
    }

    // ---- what clients ask ------------------------------------------------------------------------------------------

    pub(super) fn lookup(&mut self, client: ClientId, place: Place, now: Time) -> Option<ObjectId> {
        let version = self.version(client, Register::Name(place), now, false);
        self.object(version)
    }

    /// R8: the version that the client sees, with its own unflushed writes in it.
    pub(super) fn file(&mut self, client: ClientId, object: ObjectId, now: Time, fresh: bool) -> File {
        let version = self.version(client, Register::File(object), now, fresh);
        let mut file = self.state(version);
        if let Some(dirty) = self.dirty.get(&(client, object)) {
            dirty.onto(&mut file, dirty.last);
        }
        file
    }

    fn state(&self, version: Option<usize>) -> File {
        match version.map(|v| &self.log[v].deed) {
            Some(Deed::File(_, file)) => file.clone(),
            _ => panic!("files are made before they are seen"),
        }
    }

    pub(super) fn list(&mut self, client: ClientId, dir: ObjectId, now: Time) -> BTreeMap<Place, ObjectId> {
        let knobs = self.knobs[&client];
        if knobs.revalidate_on_open {
            self.forget_dir(client, dir);
        }
        if let Some((listing, cached)) = self.listings.get(&(client, dir))
            && now < cached.until
        {
            return listing.clone();
        }
        let places = self.log.iter().filter_map(|e| match e.deed {
            Deed::Name(place, ..) if place.0 == dir => Some(place),
            _ => None,
        });
        let seen = |p: Place| Some((p, self.object(self.visible_version(client, Register::Name(p), now))?));
        let listing: BTreeMap<_, _> = places.filter_map(seen).collect();
        let cached = Cached { version: None, fetched: now, until: now.after(knobs.dir_ttl) };
        self.listings.insert((client, dir), (listing.clone(), cached));
        listing
    }
}

impl Dirty {
    fn onto(&self, file: &mut File, stamped: Time) {
        for (at, data) in &self.writes {
            let end = at + data.len();
            file.bytes.resize(file.bytes.len().max(end), 0);
            file.bytes[*at..end].copy_from_slice(data);
        }
        file.attr.size = file.bytes.len() as u64;
        (file.attr.mtime, file.attr.ctime) = (stamp(stamped), stamp(stamped));
    }
}
