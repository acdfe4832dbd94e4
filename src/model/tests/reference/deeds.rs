//! The reference's other half: what clients do, which is at once in the list of all that happened, and what they forget.

use super::{Bound, Deed, Dirty, Event, File, Reference, Register};
use crate::model::tests::{Attr, ClientId, Knobs, ObjectId, Place, Time, empty_file, stamp};

impl Reference {
    pub(in crate::model::tests) fn truth(&self, register: Register) -> Option<usize> {
        (0..self.log.len()).rev().find(|v| self.log[*v].changes() == Some(register))
    }

    pub(in crate::model::tests) fn bound(&self, place: Place) -> Option<ObjectId> {
        self.object(self.truth(Register::Name(place)))
    }

    pub(in crate::model::tests) fn make(&mut self, by: ClientId, object: ObjectId, now: Time) {
        let file = File { bytes: Vec::new(), attr: empty_file(now) };
        self.log.push(Event { by, when: now, visible: Time::ZERO, deed: Deed::File(object, file) });
    }

    pub(in crate::model::tests) fn bind(
        &mut self,
        by: ClientId,
        now: Time,
        changes: &[(Place, Option<ObjectId>)],
        exclusive: bool,
    ) {
        let knobs = self.knobs[&by];
        let bound = Bound { exclusive, carries: !knobs.reorder };
        for (place, object) in changes {
            let deed = Deed::Name(*place, *object, bound);
            self.log.push(Event { by, when: now, visible: now.after(knobs.rename_delay), deed });
            if let Some(object) = object {
                self.tell(by, Register::File(*object));
            }
            self.forget_dir(by, place.0);
        }
    }

    /// R4.
    pub(in crate::model::tests) fn tell(&mut self, client: ClientId, register: Register) {
        let event = Event { by: client, when: Time::ZERO, visible: Time::NEVER, deed: Deed::Told(register) };
        self.log.push(event);
        self.cache.remove(&(client, register));
    }

    pub(super) fn forget_dir(&mut self, client: ClientId, dir: ObjectId) {
        self.listings.remove(&(client, dir));
        self.cache.retain(|(c, r), _| *c != client || !matches!(r, Register::Name(p) if p.0 == dir));
    }

    pub(in crate::model::tests) fn write(
        &mut self,
        client: ClientId,
        object: ObjectId,
        at: u64,
        data: &[u8],
        now: Time,
    ) {
        let deadline = now.after(self.knobs[&client].write_delay);
        let fresh = || Dirty { deadline, ..Dirty::default() };
        let dirty = self.dirty.entry((client, object)).or_insert_with(fresh);
        dirty.writes.push((at as usize, data.to_vec()));
        dirty.last = now;
    }

    pub(in crate::model::tests) fn flush(&mut self, client: ClientId, object: ObjectId, now: Time) {
        let Some(dirty) = self.dirty.remove(&(client, object)) else { return };
        let late = if self.knobs[&client].publish_on_close { now } else { dirty.deadline.max(now) };
        self.change(client, object, late, now, |file| dirty.onto(file, now));
    }

    /// A commit: the truth, changed.
    fn change(
        &mut self,
        by: ClientId,
        object: ObjectId,
        visible: Time,
        now: Time,
        edit: impl FnOnce(&mut File),
    ) {
        let mut file = self.state(self.truth(Register::File(object)));
        edit(&mut file);
        self.log.push(Event { by, when: now, visible, deed: Deed::File(object, file) });
        self.cache.remove(&(by, Register::File(object)));
    }

    /// A change of attributes, or of the size: at once at the truth, after a flush.
    pub(in crate::model::tests) fn set(
        &mut self,
        by: ClientId,
        object: ObjectId,
        now: Time,
        (size, perm): (Option<u64>, Option<u16>),
    ) {
        self.flush(by, object, now);
        let knobs = self.knobs[&by];
        let visible = if knobs.publish_on_close { now } else { now.after(knobs.write_delay) };
        self.change(by, object, visible, now, |file| {
            file.bytes.resize(size.map_or(file.bytes.len(), |s| s as usize), 0);
            file.attr =
                Attr { size: file.bytes.len() as u64, perm: perm.unwrap_or(file.attr.perm), ..file.attr };
            (file.attr.mtime, file.attr.ctime) = (stamp(now), stamp(now));
        });
    }

    // ---- time and knobs --------------------------------------------------------------------------------------------

    /// New knobs never make an old memory live longer.
    pub(in crate::model::tests) fn set_knobs(&mut self, client: ClientId, knobs: Knobs) {
        self.knobs.insert(client, knobs);
        let mine: Vec<_> = self.cache.keys().copied().filter(|(c, _)| *c == client).collect();
        for key in mine {
            let ttl = self.ttl(client, key.1, self.cache[&key].version);
            let cached = self.cache.entry(key);
            cached.and_modify(|c| c.until = c.until.min(c.fetched.after(ttl)));
        }
        for ((c, _), (_, cached)) in &mut self.listings {
            if *c == client {
                cached.until = cached.until.min(cached.fetched.after(knobs.dir_ttl));
            }
        }
    }

    pub(in crate::model::tests) fn leave(&mut self, client: ClientId) {
        self.cache.retain(|(c, _), _| *c != client);
        self.listings.retain(|(c, _), _| *c != client);
    }

    /// From now on everyone sees what has happened so far.
    pub(in crate::model::tests) fn reveal_all(&mut self, now: Time) {
        self.cache.clear();
        self.listings.clear();
        for event in &mut self.log {
            event.visible = event.visible.min(now);
        }
    }

    /// What is flushed by its write delay, in its order.
    pub(in crate::model::tests) fn due(&self) -> Option<(Time, ClientId, ObjectId)> {
        self.dirty.iter().map(|((c, o), d)| (d.deadline, *c, *o)).min()
    }

    /// When something changes for someone, after `now`.
    pub(in crate::model::tests) fn next_moment(&self, now: Time) -> Option<Time> {
        let ends = self.cache.values().chain(self.listings.values().map(|(_, c)| c)).map(|c| c.until);
        let shows = self.log.iter().map(|e| e.visible).filter(|t| *t < Time::NEVER);
        ends.chain(shows).chain(self.dirty.values().map(|d| d.deadline)).filter(|t| *t > now).min()
    }
}
