//! Plays the engine around a `World`, with a disk in memory: asks before, and tells after, as the engine does.

use std::collections::BTreeMap;

use super::reference::File;
use super::{Attr, ClientId, Kind, Knobs, Name, ObjectId, Place, Time, empty_file, name, stamp};
use crate::model::extents::Extents;
use crate::model::inodes::Change;
use crate::model::view::{Entry, Listing};
use crate::model::world::Rebind;
use crate::model::{Found, Sight, World};

#[derive(Debug)]
pub(super) struct Driver {
    pub(super) world: World,
    pub(super) files: BTreeMap<ObjectId, File>,
    pub(super) names: BTreeMap<Place, ObjectId>,
}

impl Driver {
    pub(super) fn new(budget: usize, clients: &[(ClientId, Knobs)]) -> Self {
        let mut world = World::new(budget);
        for (client, knobs) in clients {
            world.join(*client, *knobs);
        }
        Driver { world, files: BTreeMap::new(), names: BTreeMap::new() }
    }

    // ---- what clients ask ------------------------------------------------------------------------------------------

    pub(super) fn lookup(&mut self, c: ClientId, place: Place, now: Time) -> Option<ObjectId> {
        let (dir, name) = (place.0, name(place.1));
        match self.world.name(c, dir, &name, now) {
            Sight::Cached(value, _) | Sight::Past(value) => value,
            Sight::Truth => {
                let value = self.names.get(&place).copied();
                self.world.believe_name(c, dir, &name, value, now);
                value
            }
        }
    }

    fn found(&mut self, c: ClientId, object: ObjectId, now: Time, fresh: bool) -> Found {
        match self.world.object(c, object, now, fresh) {
            Sight::Cached(found, _) | Sight::Past(found) => found,
            Sight::Truth => self.world.believe(c, object, self.files[&object].attr, now),
        }
    }

    /// `stat`, or `open` where it asks the server.
    pub(super) fn stat(&mut self, c: ClientId, object: ObjectId, now: Time, fresh: bool) -> Attr {
        let attr = self.found(c, object, now, fresh).attr;
        self.world.view(c).with_own(object, attr, stamp)
    }

    pub(super) fn read(
        &mut self,
        c: ClientId,
        object: ObjectId,
        now: Time,
        (from, len): (u64, u64),
    ) -> Vec<u8> {
        let found = self.found(c, object, now, false);
        let size = self.world.view(c).with_own(object, found.attr, stamp).size;
        let to = size.min(from + len).max(from);
        let mut buf = vec![0; (to - from) as usize];
        let disk = &self.files[&object].bytes;
        let have = disk.iter().skip(from as usize);
        buf.iter_mut().zip(have).for_each(|(b, d)| *b = *d);
        self.world.show(c, object, found.version, from, &mut buf);
        buf
    }

    pub(super) fn file(&mut self, c: ClientId, object: ObjectId, now: Time) -> File {
        let attr = self.stat(c, object, now, false);
        File { bytes: self.read(c, object, now, (0, 1 << 20)), attr }
    }

    pub(super) fn list(&mut self, c: ClientId, dir: ObjectId, now: Time) -> BTreeMap<Place, ObjectId> {
        if self.world.knobs(c).revalidate_on_open {
            self.world.view_mut(c).forget_dir(dir);
        }
        let listing = self.world.view(c).listing(dir, now).map(|(listing, _)| listing);
        let listing = listing.unwrap_or_else(|| self.new_listing(c, dir, now));
        let letter = |n: &Name| n.as_bytes().first().map_or('?', |b| *b as char);
        listing.iter().map(|e| ((dir, letter(&e.name)), e.object)).collect()
    }

    fn new_listing(&mut self, c: ClientId, dir: ObjectId, now: Time) -> Listing {
        let disk = self.names.iter().filter(|(place, _)| place.0 == dir);
        let mut seen: BTreeMap<Name, ObjectId> = disk.map(|(place, o)| (name(place.1), *o)).collect();
        for (name, value) in self.world.pasts(c, dir, now) {
            match value {
                Some(object) => seen.insert(name, object),
                None => seen.remove(&name),
            };
        }
        let entries = seen.into_iter().map(|(name, object)| Entry { name, kind: Kind::File, object });
        let listing = Listing::new(entries.collect());
        self.world.view_mut(c).believe_listing(dir, &listing, now);
        listing
    }

    // ---- what clients do -------------------------------------------------------------------------------------------

    pub(super) fn make(&mut self, object: ObjectId, now: Time) {
        self.files.insert(object, File { bytes: Vec::new(), attr: empty_file(now) });
    }

    pub(super) fn bind(
        &mut self,
        by: ClientId,
        now: Time,
        changes: &[(Place, Option<ObjectId>)],
        exclusive: bool,
    ) {
        let names: Vec<Name> = changes.iter().map(|(place, _)| name(place.1)).collect();
        let places: Vec<_> = changes.iter().zip(&names).map(|((place, _), n)| (place.0, n)).collect();
        let needed = self.world.names_need_past(by, &places);
        let rebinds = changes.iter().zip(&names).map(|((place, after), name)| Rebind {
            dir: place.0,
            name,
            // Where no past is needed, what was before must not matter: say something wrong.
            before: if needed { self.names.get(place).copied() } else { Some(ObjectId(u64::MAX)) },
            after: *after,
        });
        self.world.bind(by, now, &rebinds.collect::<Vec<_>>());
        let mut removed = Vec::new();
        for (place, after) in changes {
            let lost = match after {
                Some(object) => self.names.insert(*place, *object),
                None => self.names.remove(place),
            };
            removed.extend(lost);
            if let Some(object) = after.filter(|_| exclusive) {
                self.world.bound_exclusively(object, place.0, &name(place.1));
            }
        }
        removed.retain(|object| !self.names.values().any(|o| o == object));
        for object in removed {
            self.world.erase(object);
        }
    }

    pub(super) fn reveal_name(&mut self, c: ClientId, place: Place) {
        let object = self.names.get(&place).copied();
        self.world.reveal_name(c, place.0, &name(place.1), object);
    }

    pub(super) fn write(&mut self, c: ClientId, object: ObjectId, at: u64, data: &[u8], now: Time) {
        self.world.write(c, object, at, data, now);
        if self.world.knobs(c).write_delay.is_zero() {
            self.flush(c, object, now);
        }
    }

    pub(super) fn flush(&mut self, c: ClientId, object: ObjectId, now: Time) {
        let Some((dirty, visible)) = self.world.take_dirty(c, object, now) else { return };
        let size = self.files[&object].bytes.len().max(dirty.extents.end() as usize);
        let pieces: Vec<_> = dirty.extents.iter().map(|(at, piece)| (at as usize, piece.len())).collect();
        self.change(c, object, visible, now, &pieces, |file| {
            file.bytes.resize(size, 0);
            for (at, piece) in dirty.extents.iter() {
                file.bytes[at as usize..at as usize + piece.len()].copy_from_slice(piece);
            }
        });
    }

    /// A change of attributes, or of the size.
    pub(super) fn set(
        &mut self,
        c: ClientId,
        object: ObjectId,
        now: Time,
        (size, perm): (Option<u64>, Option<u16>),
    ) {
        self.flush(c, object, now);
        let knobs = self.world.knobs(c);
        let visible = if knobs.publish_on_close { now } else { now.after(knobs.write_delay) };
        let had = self.files[&object].bytes.len();
        let cut = size.map_or(had, |s| s as usize).min(had);
        self.change(c, object, visible, now, &[(cut, had - cut)], |file| {
            file.bytes.resize(size.map_or(had, |s| s as usize), 0);
            file.attr.perm = perm.unwrap_or(file.attr.perm);
        });
    }

    /// A commit: what it overwrites is read first where someone may still see it.
    fn change(
        &mut self,
        by: ClientId,
        object: ObjectId,
        visible: Time,
        now: Time,
        pieces: &[(usize, usize)],
        edit: impl FnOnce(&mut File),
    ) {
        let needed = self.world.needs_past(by, object, visible, now);
        let Some(file) = self.files.get_mut(&object) else { return };
        let before = file.attr;
        let mut overwritten = Extents::default();
        for (at, len) in pieces {
            let to = (at + len).min(file.bytes.len());
            overwritten.write(*at as u64, file.bytes.get(*at..to).unwrap_or_default());
        }
        edit(file);
        file.attr.size = file.bytes.len() as u64;
        (file.attr.mtime, file.attr.ctime) = (stamp(now), stamp(now));
        let change = Change { before, after: file.attr, overwritten };
        self.world.commit(by, object, visible, now, needed.then_some(change));
    }
}
