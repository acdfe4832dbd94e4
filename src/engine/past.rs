//! Looking at objects through a client's eyes, keeping what removed objects may still be shown, and committing changes
//! with their past.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::disk::{self, Result, Target};
use super::objects::Removal;
use super::{Caller, Engine, Errno, State, Touched};
use crate::model::attr::{Attr, Kind};
use crate::model::extents::Extents;
use crate::model::history::Why;
use crate::model::ids::{ClientId, Name, ObjectId, Version};
use crate::model::inodes::Change;
use crate::model::time::Time;
use crate::model::{Found, Rebind, Sight};

/// One name that a change binds.
pub(super) struct Binding {
    pub(super) dir: ObjectId,
    pub(super) name: Name,
    pub(super) before: Option<ObjectId>,
    pub(super) after: Option<ObjectId>,
}

/// Removed objects that are kept because someone may still be shown them.
pub(super) type Retained = VecDeque<(Time, ObjectId)>;

/// How many removed objects are kept at most; the oldest go first, and are then gone for everyone.
const RETAINED: usize = 512;

/// The largest piece of a file that is kept as the past of one change; a larger one is not kept, and its readers see the
/// change early.
const LARGEST_PAST: u64 = 64 << 20;

impl Engine {
    /// R5, R2, R8: an object as the client sees it, with its own unflushed bytes, and why.
    pub(super) fn look(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        fresh: bool,
        known: Option<Attr>,
    ) -> Result<(Found, Why)> {
        let (mut found, why) = self.see(st, who, object, fresh, known)?;
        let calendar = self.calendar;
        found.attr = st.world.view(who.client).with_own(object, found.attr, |at| calendar.stamp(at));
        Ok((found, why))
    }

    /// R5, R2: the version of an object that the client sees, and why. `fresh` asks the truth whatever the cache says;
    /// `known` saves asking the disk again.
    pub(super) fn see(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        fresh: bool,
        known: Option<Attr>,
    ) -> Result<(Found, Why)> {
        let (found, why) = match st.world.object(who.client, object, who.now, fresh) {
            Sight::Cached(found, age) => (found, Why::Cached(age)),
            Sight::Past(found) => (found, Why::Past),
            Sight::Truth => {
                let attr = match self.removed(st, who, object)? {
                    Some(attr) => attr,
                    None => match known {
                        Some(attr) => st.corrected(object, attr),
                        None => st.truth(object)?,
                    },
                };
                (st.world.believe(who.client, object, attr, who.now), Why::Truth)
            }
        };
        Ok((found, why))
    }

    /// What a client that asks now is told of a removed object: its last attributes while it does not see the removal,
    /// the real ones while it has it open, `ESTALE` otherwise. None for an object that is there.
    fn removed(&self, st: &mut State, who: &Caller, id: ObjectId) -> Result<Option<Attr>> {
        let Some(removal) = st.object(id)?.dead else { return Ok(None) };
        if removal.author != who.client && who.now < removal.visible {
            return Ok(Some(removal.attr));
        }
        let object = st.object(id)?;
        // A removed directory can still be a working directory.
        let inside = object.kind == Kind::Directory
            && object.anchor.is_some()
            && st.clients.get(&who.client).is_some_and(|c| c.lookups.contains_key(&id));
        let held = inside || object.open.iter().any(|f| f.client == who.client);
        if held { st.truth(id).map(Some) } else { Err(Errno::ESTALE) }
    }

    /// R1: commits a change of an object. `attempt` makes it; what it is going to overwrite is `range`, as far as that
    /// exists and anyone may have to be shown it.
    pub(super) fn commit<T>(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        visible: Time,
        overwrites: Option<(&OwnedFd, u64, u64)>,
        attempt: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<(T, Version)> {
        let before = self.before(st, who, object, visible, overwrites);
        let done = attempt(st)?;
        let version = self.after(st, who, object, visible, before);
        Ok((done, version))
    }

    /// What has to be remembered of an object before it changes.
    pub(super) fn before(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        visible: Time,
        overwrites: Option<(&OwnedFd, u64, u64)>,
    ) -> Option<(Attr, Extents)> {
        if !st.world.needs_past(who.client, object, visible, who.now) {
            return None;
        }
        let before = st.truth(object).ok()?;
        let mut extents = Extents::default();
        if let Some((file, from, to)) = overwrites {
            let to = to.min(before.size);
            if from < to && to - from <= LARGEST_PAST {
                let mut bytes = vec![0; (to - from) as usize];
                let n = disk::read(file, from, &mut bytes).unwrap_or(0);
                extents.write(from, &bytes[..n]);
            }
        }
        Some((before, extents))
    }

    /// Tells the model of the change for which `before` was remembered.
    pub(super) fn after(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        visible: Time,
        before: Option<(Attr, Extents)>,
    ) -> Version {
        let change = before.and_then(|(before, overwritten)| {
            let after = st.truth(object).ok()?;
            Some(Change { before, after, overwritten })
        });
        let version = st.world.commit(who.client, object, visible, who.now, change);
        st.committed(object, version, who);
        // The past that this has added may be too much; unflushed bytes are dealt with where they are written.
        let _ = st.world.enforce_budget();
        st.note_collapse(who);
        version
    }

    /// R1, R3': makes one change of names, on the disk and in the model, in one commit. `dirs` are the directories whose
    /// own attributes change with it; `change` answers which names it bound from what to what.
    pub(super) fn rebind(
        &self,
        st: &mut State,
        who: &Caller,
        dirs: &[ObjectId],
        change: impl FnOnce(&mut State) -> Result<Vec<Binding>>,
    ) -> Result<(Version, Time)> {
        let visible = who.now.after(st.world.knobs(who.client).rename_delay);
        let before: Vec<_> = dirs.iter().map(|dir| self.before(st, who, *dir, visible, None)).collect();
        let bindings = change(st)?;
        let rebinds: Vec<Rebind<'_>> = bindings
            .iter()
            .map(|b| Rebind { dir: b.dir, name: &b.name, before: b.before, after: b.after })
            .collect();
        let (version, visible) = st.world.bind(who.client, who.now, &rebinds);
        for object in bindings.iter().filter_map(|b| b.after) {
            st.committed(object, version, who);
        }
        for (dir, before) in dirs.iter().zip(before) {
            if self.calendar.decides
                && let Ok(fd) = st.dir_fd(*dir)
            {
                self.touch(st, who, *dir, Target::Fd(fd.as_fd()), Touched::Content);
            }
            self.after(st, who, *dir, visible, before);
        }
        Ok((version, visible))
    }

    /// When a change of an object's attributes by this client becomes visible to others.
    pub(super) fn attr_visible(st: &State, who: &Caller) -> Time {
        let knobs = st.world.knobs(who.client);
        if knobs.publish_on_close { who.now } else { who.now.after(knobs.write_delay) }
    }

    /// Keeps a removed object as long as someone may still be shown it.
    pub(super) fn retain(
        &self,
        st: &mut State,
        who: &Caller,
        id: ObjectId,
        removal: Removal,
        anchor: Option<Arc<OwnedFd>>,
    ) {
        let late = st.world.removal_is_seen_late(who.client);
        let lost_before = st.objects.get(id).map_or(Time::ZERO, |o| o.shown_until);
        let removal = Removal { visible: removal.visible.max(lost_before), ..removal };
        st.objects.kill(id, removal, anchor);
        st.world.erase(id);
        if late {
            let knobs = st.clients.keys().map(|c| st.world.knobs(*c));
            let ttl = knobs.map(|k| k.file_ttl.max(k.dir_ttl)).max().unwrap_or_default();
            if let Some(object) = st.objects.get_mut(id) {
                object.refs += 1;
            }
            st.retained.push_back((removal.visible.max(who.now.after(ttl)), id));
        }
        st.release_retained(who.now);
        st.unused(id);
    }

    /// Gives up pasts, and then flushes the oldest unflushed bytes, until memory is within the budget.
    pub(super) fn stay_within_budget(&self, st: &mut State, who: &Caller) {
        // Each flush frees what it flushed, so this ends; the bound is for the reader.
        for _ in 0..1024 {
            let Some((client, object)) = st.world.enforce_budget() else { break };
            let owner = Caller { client, ..*who };
            let flushed = self.flush_dirty(st, &owner, object);
            st.remember_error(client, object, flushed);
        }
        st.note_collapse(who);
    }
}

impl State {
    /// Lets go of removed objects that nobody can be shown any more.
    pub(super) fn release_retained(&mut self, now: Time) {
        while self.retained.front().is_some_and(|(until, _)| *until <= now) || self.retained.len() > RETAINED
        {
            let Some((_, id)) = self.retained.pop_front() else { break };
            if let Some(object) = self.objects.get_mut(id) {
                object.refs -= 1;
            }
            self.unused(id);
        }
    }

    /// Drops what nothing refers to any more.
    pub(super) fn unused(&mut self, id: ObjectId) {
        if self.objects.bury(id) {
            self.dir_fds.remove(id);
            self.paths.remove(&id);
        }
    }

    /// The error of a flush that nobody waited for is told at the next `close` or `fsync`.
    pub(super) fn remember_error<T>(&mut self, client: ClientId, object: ObjectId, flushed: Result<T>) {
        if let (Err(e), Some(client)) = (flushed, self.clients.get_mut(&client)) {
            client.late_errors.insert(object, e);
        }
    }
}
