//! The whole model of one backing directory: the registers of names and objects, every client's view of them, and what
//! is due when. The engine asks it before and tells it after everything that it does to the disk.

mod limits;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::attr::Attr;
use super::extents::Extents;
use super::hash::Map;
use super::ids::{ClientId, Name, ObjectId, Version};
use super::inodes::{Change, Inodes};
use super::knobs::Knobs;
use super::names::Names;
use super::time::Time;
use super::view::{Dirty, View};

/// Where a client's answer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sight<T> {
    /// From its cache, this old. No server was asked.
    Cached(T, Duration),
    /// The server was asked, and the newest is not visible to this client yet.
    Past(T),
    /// The server was asked and answers what is on the disk.
    Truth,
}

/// What a client sees of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) version: Version,
    pub(crate) attr: Attr,
}

/// One name that a commit changes.
#[derive(Clone, Debug)]
pub(crate) struct Rebind<'a> {
    pub(crate) dir: ObjectId,
    pub(crate) name: &'a Name,
    pub(crate) before: Option<ObjectId>,
    pub(crate) after: Option<ObjectId>,
}

/// The model of one backing directory.
#[derive(Debug)]
pub(crate) struct World {
    newest: Version,
    /// The latest time at which anyone has asked for an object, see [`World::tick`].
    latest: Time,
    names: Names,
    inodes: Inodes,
    views: Map<ClientId, View>,
    /// R7: the names of an object that were bound by `O_EXCL` or `link`.
    exclusive: Map<ObjectId, Vec<(ObjectId, Name)>>,
    /// Removed objects with such names, which someone may still be shown.
    erased: VecDeque<ObjectId>,
    /// When which client's unflushed bytes of which object are flushed.
    due: BTreeSet<(Time, ClientId, ObjectId)>,
    dirty_bytes: usize,
    budget: usize,
    /// How many commits were given up for the budget.
    collapsed: u64,
}

impl World {
    pub(crate) fn new(budget: usize) -> Self {
        World {
            newest: Version(0),
            latest: Time::ZERO,
            names: Names::default(),
            inodes: Inodes::default(),
            views: Map::default(),
            exclusive: Map::default(),
            erased: VecDeque::new(),
            due: BTreeSet::new(),
            dirty_bytes: 0,
            budget,
            collapsed: 0,
        }
    }

    // ---- clients -------------------------------------------------------------------------------------------------

    pub(crate) fn join(&mut self, client: ClientId, knobs: Knobs) {
        self.views.insert(client, View::new(client, knobs));
    }

    /// The client is gone, with its caches. What it had not flushed must have been flushed before.
    pub(crate) fn leave(&mut self, client: ClientId) {
        if let Some(view) = self.views.remove(&client) {
            self.dirty_bytes -= view.dirty.values().map(|d| d.extents.bytes()).sum::<usize>();
        }
        self.due.retain(|(_, c, _)| *c != client);
    }

    pub(crate) fn view(&self, client: ClientId) -> &View {
        &self.views[&client]
    }

    pub(crate) fn knobs(&self, client: ClientId) -> Knobs {
        self.views[&client].knobs
    }

    /// New knobs bind operations that start from now on; what is due already stays due.
    pub(crate) fn set_knobs(&mut self, client: ClientId, knobs: Knobs) {
        if let Some(view) = self.views.get_mut(&client) {
            view.set_knobs(knobs);
        }
    }

    fn me(&mut self, client: ClientId) -> &mut View {
        self.views.get_mut(&client).expect("an operation of a client that has joined")
    }

    pub(crate) fn newest(&self) -> Version {
        self.newest
    }

    fn next(&mut self) -> Version {
        self.newest.0 += 1;
        self.newest
    }

    // ---- names ---------------------------------------------------------------------------------------------------

    /// R5, R2: what `client` sees of a name, without taking note of it.
    pub(crate) fn peek_name(
        &self,
        client: ClientId,
        dir: ObjectId,
        name: &Name,
        now: Time,
    ) -> Sight<Option<ObjectId>> {
        if let Some((value, age)) = self.views[&client].name(dir, name.as_bytes(), now) {
            return Sight::Cached(value, age);
        }
        self.names.past(client, dir, name.as_bytes(), now).map_or(Sight::Truth, Sight::Past)
    }

    /// R5, R2: what `client` sees of a name. After `Truth` the engine looks at the disk and tells [`Self::believe_name`].
    pub(crate) fn name(
        &mut self,
        client: ClientId,
        dir: ObjectId,
        name: &Name,
        now: Time,
    ) -> Sight<Option<ObjectId>> {
        let seen = self.peek_name(client, dir, name, now);
        if let Sight::Past(past) = seen {
            self.believe_name(client, dir, name, past, now);
        }
        seen
    }

    pub(crate) fn believe_name(
        &mut self,
        c: ClientId,
        dir: ObjectId,
        name: &Name,
        value: Option<ObjectId>,
        now: Time,
    ) {
        if value.is_some_and(|object| self.is_exclusive(object, dir, name))
            && self.views[&c].knobs.exclusive_fresh
        {
            // R7: asked for afresh next time. What was believed before is older than what was shown now.
            self.me(c).forget_name(dir, name.as_bytes());
        } else {
            self.me(c).believe_name(dir, name, value, now);
        }
    }

    pub(crate) fn forget_name(&mut self, client: ClientId, dir: ObjectId, name: &Name) {
        self.me(client).forget_name(dir, name.as_bytes());
    }

    /// Whether a change of names by `author` now can be seen late by anyone, so that its past must be recorded.
    pub(crate) fn names_need_past(&self, author: ClientId, changes: &[(ObjectId, &Name)]) -> bool {
        !self.views[&author].knobs.rename_delay.is_zero()
            || changes.iter().any(|(dir, name)| self.names.has_past(*dir, name.as_bytes()))
    }

    /// Whether anyone but `author` may still be shown an object after it has lost its last name.
    pub(crate) fn removal_is_seen_late(&self, author: ClientId) -> bool {
        // Another of its names may have been removed by someone else, visibly later.
        !self.views[&author].knobs.rename_delay.is_zero()
            || self.names.len() > 0
            || self.views.values().any(|v| v.client != author && v.knobs.caches())
    }

    /// R1, R3': one commit that changes one or more names, visible to others after the author's `rename_delay`.
    pub(crate) fn bind(&mut self, author: ClientId, now: Time, changes: &[Rebind<'_>]) -> (Version, Time) {
        let knobs = self.views[&author].knobs;
        let visible = now.after(knobs.rename_delay);
        let version = self.next();
        self.names.expire(now);
        self.forget_erased();
        for change in changes {
            let late = visible > now || self.names.has_past(change.dir, change.name.as_bytes());
            if late {
                let values = (change.before, change.after);
                self.names.commit((change.dir, change.name), (version, author), values, visible);
            }
            if let Some(object) = change.after {
                if let Some(names) = self.exclusive.get_mut(&object) {
                    names.retain(|(d, n)| (*d, n) != (change.dir, change.name));
                }
                self.hurry(author, object, visible, knobs.reorder);
            }
            // Own changes make the author look at the directory afresh (R5).
            self.me(author).forget_dir(change.dir);
        }
        (version, visible)
    }

    /// R6: who sees the new name sees what was in the object by then: the author at once, the others by `visible`.
    fn hurry(&mut self, author: ClientId, object: ObjectId, visible: Time, reorder: bool) {
        self.inodes.reveal(author, object);
        self.me(author).forget(object);
        if reorder {
            return;
        }
        let Some(newest) = self.inodes.hurry(object, visible) else { return };
        for view in self.views.values_mut() {
            view.hurry(object, newest, visible);
        }
    }

    /// R7: the name that was just bound to `object` was bound exclusively.
    pub(crate) fn bound_exclusively(&mut self, object: ObjectId, dir: ObjectId, name: &Name) {
        self.exclusive.entry(object).or_default().push((dir, name.clone()));
    }

    fn is_exclusive(&self, object: ObjectId, dir: ObjectId, name: &Name) -> bool {
        self.exclusive.get(&object).is_some_and(|names| names.iter().any(|(d, n)| *d == dir && n == name))
    }

    #[cfg(test)]
    pub(super) fn remembers_exclusive_names(&self) -> bool {
        !self.exclusive.is_empty()
    }

    /// Lets go of the exclusive names of removed objects when nobody is shown them any more.
    fn forget_erased(&mut self) {
        while let Some(object) = self.erased.front() {
            let mut names = self.exclusive.get(object).into_iter().flatten();
            if names.any(|(dir, name)| self.names.has_past(*dir, name.as_bytes())) {
                return;
            }
            self.exclusive.remove(object);
            self.erased.pop_front();
        }
    }

    /// R4: the server has told `client` how a name and the object behind it stand.
    pub(crate) fn reveal_name(
        &mut self,
        client: ClientId,
        dir: ObjectId,
        name: &Name,
        object: Option<ObjectId>,
    ) {
        self.names.reveal(client, dir, name.as_bytes());
        self.me(client).forget_name(dir, name.as_bytes());
        if let Some(object) = object {
            self.reveal(client, object);
        }
    }

    /// The names of a directory that `client` does not see as they are on the disk.
    pub(crate) fn pasts(
        &mut self,
        client: ClientId,
        dir: ObjectId,
        now: Time,
    ) -> Vec<(Name, Option<ObjectId>)> {
        self.names.expire(now);
        self.names.pasts(client, dir, now)
    }

    /// The client's memory, for listings.
    pub(crate) fn view_mut(&mut self, client: ClientId) -> &mut View {
        self.me(client)
    }

    // ---- objects -------------------------------------------------------------------------------------------------

    /// The time by which objects are looked at. Who asks read the clock before it was its turn; a past that had ended for
    /// whoever was quicker has ended for all, for it may be gone.
    fn tick(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Whether `client` sees exactly the disk of this object, now and without any book-keeping.
    pub(crate) fn is_plain(&self, client: ClientId, object: ObjectId) -> bool {
        let view = &self.views[&client];
        view.knobs.file_ttl.is_zero()
            && view.knobs.dir_ttl.is_zero()
            && !self.inodes.has_past(object)
            && !view.dirty.contains_key(&object)
    }

    /// Whether no client holds bytes back, so that no flush can make others' bytes visible late.
    pub(crate) fn all_write_through(&self) -> bool {
        self.views.values().all(|v| v.knobs.write_delay.is_zero() && v.dirty.is_empty())
    }

    /// R5, R2: what `client` sees of an object, without taking note of it.
    pub(crate) fn peek_object(&self, client: ClientId, object: ObjectId, now: Time) -> Sight<Found> {
        let now = now.max(self.latest);
        if let Some(pin) = self.views[&client].pin(object, now) {
            return Sight::Cached(Found { version: pin.version, attr: pin.attr }, now.since(pin.fetched));
        }
        self.inodes
            .past(client, object, now)
            .map_or(Sight::Truth, |(version, attr)| Sight::Past(Found { version, attr }))
    }

    /// R5, R2: what `client` sees of an object, without its own unflushed bytes. After `Truth` the engine looks at the
    /// disk and tells [`Self::believe`]. `fresh` asks the server whatever the cache says.
    pub(crate) fn object(
        &mut self,
        client: ClientId,
        object: ObjectId,
        now: Time,
        fresh: bool,
    ) -> Sight<Found> {
        let now = self.tick(now);
        self.fold(object, now);
        if fresh {
            self.me(client).forget(object);
        }
        let seen = self.peek_object(client, object, now);
        if !matches!(seen, Sight::Cached(..)) {
            self.inodes.looked(object);
        }
        if let Sight::Past(Found { version, attr }) = seen {
            let until = self.inodes.believable(object, version);
            self.me(client).believe(object, version, attr, (now, until));
        }
        seen
    }

    /// The client was shown the disk's state of an object.
    pub(crate) fn believe(&mut self, client: ClientId, object: ObjectId, attr: Attr, now: Time) -> Found {
        let version = self.newest;
        self.me(client).believe(object, version, attr, (now, Time::NEVER));
        Found { version, attr }
    }

    /// Turns bytes of the disk into those of `version`, and puts the client's own unflushed bytes on top (R8).
    pub(crate) fn show(&self, client: ClientId, object: ObjectId, version: Version, at: u64, buf: &mut [u8]) {
        self.inodes.rewind(object, version, at, buf);
        if let Some(dirty) = self.views[&client].dirty.get(&object) {
            dirty.extents.overlay(at, buf);
        }
    }

    /// R4: the server has told `client` how an object stands.
    pub(crate) fn reveal(&mut self, client: ClientId, object: ObjectId) {
        self.inodes.reveal(client, object);
        self.me(client).forget(object);
    }

    /// Whether a commit by `author` needs its past recorded: someone may have to be shown what was before.
    pub(crate) fn needs_past(
        &mut self,
        author: ClientId,
        object: ObjectId,
        visible: Time,
        now: Time,
    ) -> bool {
        let now = self.tick(now);
        self.fold(object, now);
        visible > now
            || self.inodes.has_past(object)
            || self.views.values().any(|v| v.client != author && v.pin(object, now).is_some())
    }

    /// R1: a commit to the bytes or attributes of an object. `change` is given where [`Self::needs_past`] asks for it.
    pub(crate) fn commit(
        &mut self,
        author: ClientId,
        object: ObjectId,
        visible: Time,
        now: Time,
        change: Option<Change>,
    ) -> Version {
        let now = self.tick(now);
        let version = self.next();
        self.me(author).forget(object);
        if let Some(change) = change {
            self.inodes.commit(object, (version, author), visible, now, change);
            self.inodes.tidy();
        }
        version
    }

    fn fold(&mut self, object: ObjectId, now: Time) {
        if self.inodes.has_past(object) {
            let views = &self.views;
            self.inodes.fold(object, now, |first| {
                views.values().any(|v| v.pin(object, now).is_some_and(|p| p.version < first))
            });
        }
    }

    /// Whether anything about the object must not be forgotten.
    pub(crate) fn remembers(&self, object: ObjectId) -> bool {
        // An exclusive name stays one (R7) as long as anyone caches names.
        let exclusive = self.exclusive.contains_key(&object);
        self.inodes.has_past(object)
            || self.views.values().any(|v| v.knows(object) || exclusive && v.knobs.caches())
    }

    /// The object is gone from the truth. Whoever is still shown its exclusive names must not believe them (R7), so they
    /// are kept until then.
    pub(crate) fn erase(&mut self, object: ObjectId) {
        if self.exclusive.contains_key(&object) {
            self.erased.push_back(object);
        }
    }
}
