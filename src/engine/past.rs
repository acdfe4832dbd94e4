//! Looking at objects through a client's eyes, keeping what removed objects may still be shown, and committing changes
//! with their past.

use std::os::fd::{AsFd, OwnedFd};

use super::disk::{self, Result, Target};
use super::lanes::Own;
use super::{Caller, Engine, State, Touched};
use crate::model::attr::Attr;
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
        let (mut found, why) = st.see(who, object, fresh, known)?;
        let calendar = self.calendar;
        found.attr = st.world.view(who.client).with_own(object, found.attr, |at| calendar.stamp(at));
        Ok((found, why))
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
        let before: Vec<_> = dirs.iter().map(|dir| st.before(who, *dir, visible, None)).collect();
        let bindings = change(st)?;
        let rebinds: Vec<Rebind<'_>> = bindings
            .iter()
            .map(|b| Rebind { dir: b.dir, name: &b.name, before: b.before, after: b.after })
            .collect();
        let (version, visible) = st.world.bind(who.client, who.now, &rebinds);
        for object in bindings.iter().filter_map(|b| b.after) {
            st.committed(object, version, who);
        }
        for object in bindings.iter().flat_map(|b| [b.before, b.after]).flatten() {
            st.bytes_changed(who.client, object, None);
        }
        for (dir, before) in dirs.iter().zip(before) {
            if self.calendar.decides
                && let Ok(fd) = st.dir_fd(*dir)
            {
                self.touch(st, who, *dir, Target::Fd(fd.as_fd()), Touched::Content);
            }
            st.after(who, *dir, visible, before);
        }
        Ok((version, visible))
    }

    /// When a change of an object's attributes by this client becomes visible to others.
    pub(super) fn attr_visible(st: &State, who: &Caller) -> Time {
        let knobs = st.world.knobs(who.client);
        if knobs.publish_on_close { who.now } else { who.now.after(knobs.write_delay) }
    }

    /// Gives up pasts, and then flushes the oldest unflushed bytes, until memory is within the budget.
    pub(super) fn stay_within_budget(&self, st: &mut State, who: &Caller) {
        // Each flush frees what it flushed, so this ends; the bound is for the reader.
        for _ in 0..1024 {
            let Some((client, object)) = st.world.enforce_budget(who.now) else { break };
            self.write_back_now(st, &Caller { client, ..*who }, object);
        }
        st.note_collapse(who);
    }
}

impl State {
    /// R5, R2: the version of an object that the client sees, and why. `fresh` asks the truth whatever the cache says;
    /// `known` saves asking the disk again.
    pub(super) fn see(
        &mut self,
        who: &Caller,
        object: ObjectId,
        fresh: bool,
        known: Option<Attr>,
    ) -> Result<(Found, Why)> {
        let (found, why) = match self.world.object(who.client, object, who.now, fresh) {
            Sight::Cached(found, age) => (found, Why::Cached(age)),
            Sight::Past(found) => (found, Why::Past),
            Sight::Truth => {
                let attr = match self.removed(who, object)? {
                    Some(attr) => attr,
                    None => match known {
                        Some(attr) => self.corrected(object, attr),
                        None => self.truth(object)?,
                    },
                };
                (self.world.believe(who.client, object, attr, who.now), Why::Truth)
            }
        };
        Ok((found, why))
    }

    /// R1: commits a change of an object. `attempt` makes it; what it is going to overwrite is `range`, as far as that
    /// exists and anyone may have to be shown it; `pages` are those of the client's own kernel.
    pub(super) fn commit<T>(
        &mut self,
        who: &Caller,
        object: ObjectId,
        visible: Time,
        overwrites: Option<(&OwnedFd, u64, u64)>,
        pages: Own,
        attempt: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<(T, Version)> {
        let before = self.before(who, object, visible, overwrites);
        let done = attempt(self)?;
        let version = self.after(who, object, visible, before);
        self.bytes_changed(who.client, object, (pages == Own::Right).then_some(who.client));
        Ok((done, version))
    }

    /// What has to be remembered of an object before it changes.
    pub(super) fn before(
        &mut self,
        who: &Caller,
        object: ObjectId,
        visible: Time,
        overwrites: Option<(&OwnedFd, u64, u64)>,
    ) -> Option<(Attr, Extents)> {
        if !self.world.needs_past(who.client, object, visible, who.now) {
            return None;
        }
        let before = self.truth(object).ok()?;
        let mut extents = Extents::default();
        if let Some((file, from, to)) = overwrites {
            let to = to.min(before.size);
            if to.saturating_sub(from) > self.world.budget() as u64 {
                // Kept in part it would be a mix of two states. Everyone sees the change early instead.
                self.world.give_up(object);
                return None;
            }
            if from < to {
                let mut bytes = vec![0; (to - from) as usize];
                let Ok(n) = disk::read(file, from, &mut bytes) else {
                    // Written by someone who may not read it: no past, as above.
                    self.world.give_up(object);
                    return None;
                };
                extents.write(from, &bytes[..n]);
            }
        }
        Some((before, extents))
    }

    /// Tells the model of the change for which `before` was remembered.
    pub(super) fn after(
        &mut self,
        who: &Caller,
        object: ObjectId,
        visible: Time,
        before: Option<(Attr, Extents)>,
    ) -> Version {
        let change = before.and_then(|(before, overwritten)| {
            let after = self.truth(object).ok()?;
            Some(Change { before, after, overwritten })
        });
        let version = self.world.commit(who.client, object, visible, who.now, change);
        self.committed(object, version, who);
        // The past that this has added may be too much; unflushed bytes are dealt with where they are written.
        let _ = self.world.enforce_budget(who.now);
        self.note_collapse(who);
        version
    }

    /// The error of a flush that nobody waited for is told at the next `close` or `fsync`.
    pub(super) fn remember_error<T>(&mut self, client: ClientId, object: ObjectId, flushed: Result<T>) {
        if let (Err(e), Some(client)) = (flushed, self.clients.get_mut(&client)) {
            client.late_errors.insert(object, e);
        }
    }
}
