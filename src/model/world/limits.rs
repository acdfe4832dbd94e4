//! What a [`World`] holds in memory: unflushed bytes (R3), the budget that keeps it small, and the ends of it.

use super::{ClientId, Dirty, Extents, ObjectId, Time, View, World};

impl World {
    /// Whether `client` holds bytes of this object back.
    pub(crate) fn holds_back(&self, client: ClientId, object: ObjectId) -> bool {
        self.views[&client].dirty.contains_key(&object)
    }

    // ---- unflushed bytes -----------------------------------------------------------------------------------------

    /// R3: `data` was written at `at` and stays with the client until a flush point. Answers when that is at the latest,
    /// where this is the first of the bytes.
    pub(crate) fn write(
        &mut self,
        client: ClientId,
        object: ObjectId,
        at: u64,
        data: &[u8],
        now: Time,
    ) -> Option<Time> {
        let view = self.views.get_mut(&client).expect("an operation of a client that has joined");
        let knobs = view.knobs;
        let mut due = None;
        let dirty = view.dirty.entry(object).or_insert_with(|| {
            let deadline = now.after(knobs.write_delay);
            self.due.insert((deadline, client, object));
            due = Some(deadline);
            Dirty { extents: Extents::default(), last: now, deadline }
        });
        let had = dirty.extents.bytes();
        dirty.extents.write(at, data);
        dirty.last = now;
        self.dirty_bytes = self.dirty_bytes + dirty.extents.bytes() - had;
        due
    }

    /// Takes the unflushed bytes for a flush, with the time at which others see them (R3).
    pub(crate) fn take_dirty(
        &mut self,
        client: ClientId,
        object: ObjectId,
        now: Time,
    ) -> Option<(Dirty, Time)> {
        let view = self.views.get_mut(&client)?;
        let knobs = view.knobs;
        let dirty = view.dirty.remove(&object)?;
        self.dirty_bytes -= dirty.extents.bytes();
        self.due.remove(&(dirty.deadline, client, object));
        let visible = if knobs.publish_on_close { now } else { now.max(dirty.deadline) };
        Some((dirty, visible))
    }

    /// Unflushed bytes beyond `size` are cut off, as the file was.
    pub(crate) fn truncate_dirty(&mut self, client: ClientId, object: ObjectId, size: u64) {
        if let Some(dirty) = self.me(client).dirty.get_mut(&object) {
            let had = dirty.extents.bytes();
            dirty.extents.truncate(size);
            let has = dirty.extents.bytes();
            self.dirty_bytes -= had - has;
        }
    }

    /// The next flush that is due at or before `by`.
    pub(crate) fn due(&self, by: Time) -> Option<(Time, ClientId, ObjectId)> {
        self.due.first().copied().filter(|(at, ..)| *at <= by)
    }

    /// Everything unflushed, in the order in which `settle` flushes it.
    pub(crate) fn all_dirty(&self) -> Vec<(ClientId, ObjectId)> {
        let mut all: Vec<_> =
            self.views.values().flat_map(|v| v.dirty.keys().map(|o| (v.client, *o))).collect();
        all.sort_unstable();
        all
    }

    // ---- limits and rest -----------------------------------------------------------------------------------------

    /// Keeps the memory of the past and of unflushed bytes within the budget: the oldest past is given up first, and what
    /// it was kept for becomes visible early. Answers whose unflushed bytes must be flushed when that is not enough.
    pub(crate) fn enforce_budget(&mut self, now: Time) -> Option<(ClientId, ObjectId)> {
        while self.inodes.bytes() + self.dirty_bytes > self.budget {
            // What nobody can be shown any more is not given up, it is over.
            let held = self.inodes.bytes();
            if let Some(oldest) = self.inodes.oldest() {
                self.fold(oldest, now);
            }
            if self.inodes.bytes() < held {
                continue;
            }
            let Some(object) = self.inodes.collapse() else {
                return self.due.first().map(|(_, c, o)| (*c, *o));
            };
            self.collapsed += 1;
            self.views.values_mut().for_each(|view| view.forget(object));
        }
        None
    }

    /// How many bytes of memory may be held.
    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// Gives up the whole past of one object: everyone sees its truth from now on.
    pub(crate) fn give_up(&mut self, object: ObjectId) {
        self.inodes.remove(object);
        self.collapsed += 1;
        self.views.values_mut().for_each(|view| view.forget(object));
    }

    /// Bytes of memory held for the past and for unflushed writes.
    pub(crate) fn held(&self) -> usize {
        self.inodes.bytes() + self.dirty_bytes
    }

    /// How many past states were given up for the budget.
    pub(crate) fn collapsed(&self) -> u64 {
        self.collapsed
    }

    /// When, as far as is known now, everyone sees the truth.
    pub(crate) fn settled_at(&self, now: Time) -> Time {
        let views = self.views.values().filter_map(|v| v.latest(now));
        views.chain(self.names.latest()).chain(self.inodes.latest()).max().unwrap_or(now).max(now)
    }

    /// Everyone sees the truth from now on.
    pub(crate) fn reveal_all(&mut self) {
        self.names.clear();
        self.inodes.clear();
        self.views.values_mut().for_each(View::forget_all);
    }

    /// Lets go of every past that has ended.
    pub(crate) fn expire(&mut self, now: Time) {
        self.names.expire(now);
        self.forget_erased();
        for object in self.inodes.objects() {
            self.fold(object, now);
        }
    }
}
