//! Losing names: what is kept of an object whose name goes, and who may still be shown it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::disk::{self, Result, Stat};
use super::objects::Removal;
use super::{Caller, Engine, Errno, State};
use crate::model::attr::{Attr, Kind};
use crate::model::extents::Extents;
use crate::model::ids::{Name, ObjectId};
use crate::model::time::Time;

/// Removed objects that are kept because someone may still be shown them.
pub(super) type Retained = VecDeque<(Time, ObjectId)>;

/// How many removed objects are kept at most; the oldest go first, and are then gone for everyone.
const RETAINED: usize = 512;

/// An object that is about to lose a name.
pub(super) struct Losing {
    pub(super) object: ObjectId,
    /// Whether it is its last.
    last: bool,
    attr: Attr,
    /// What keeps it reachable.
    anchor: Option<Arc<OwnedFd>>,
}

/// Whether the kernel opens objects of this kind, or is inside, without telling us.
fn is_the_kernels(kind: Kind) -> bool {
    !matches!(kind, Kind::File | Kind::Symlink)
}

impl Engine {
    #[allow(clippy::too_many_arguments)] // who lost what, where, and what was kept of it
    pub(super) fn lost(
        &self,
        st: &mut State,
        who: &Caller,
        dir: ObjectId,
        name: &Name,
        losing: Losing,
        visible: Time,
        before: Option<(Attr, Extents)>,
    ) {
        let Losing { object, last, attr, anchor } = losing;
        if last {
            st.paths.remove(&object);
            // R8: that it has no name any more, its remover sees at once.
            st.world.view_mut(who.client).forget(object);
            st.retain(who, object, Removal { author: who.client, visible, attr }, anchor);
            return;
        }
        if let Some(object) = st.objects.get_mut(object) {
            object.shown_until = object.shown_until.max(visible);
            if object.at.as_ref().is_some_and(|(d, n)| *d == dir && n == name) {
                object.at = None;
                object.anchor = anchor;
            }
            if self.calendar.decides {
                object.ctime = Some(self.calendar.stamp(who.now));
            }
        }
        st.after(who, object, Self::attr_visible(st, who), before);
    }
}

impl State {
    /// R4: the truth has just refused a change of this name, and so told the client how it stands.
    pub(super) fn told(&mut self, who: &Caller, dir: ObjectId, name: &Name) {
        let Ok(parent) = self.dir_fd(dir) else { return };
        let object = match disk::stat_at(parent.as_fd(), name.as_os()) {
            Ok(stat) => self.objects.known(stat.key),
            Err(Errno::ENOENT) => None,
            // It may not be told.
            Err(_) => return,
        };
        self.world.reveal_name(who.client, dir, name, object);
    }

    /// What has to be kept of an object that is about to lose a name.
    pub(super) fn losing(&mut self, who: &Caller, dir: ObjectId, name: &Name, stat: &Stat) -> Option<Losing> {
        let late = self.world.removal_is_seen_late(who.client)
            || self.world.names_need_past(who.client, &[(dir, name)]);
        let object = match self.objects.known(stat.key) {
            Some(object) => object,
            None if late => self.objects.intern(stat, dir, name),
            None => return None,
        };
        let last = stat.attr.kind == Kind::Directory || stat.attr.nlink <= 1;
        // Someone may have to be shown it later, or be inside it; or it is known by this name only, and has others.
        let keep = !last || late || is_the_kernels(stat.attr.kind);
        let anchor = if keep { self.anchor(object).ok() } else { None };
        let attr = self.corrected(object, stat.attr);
        Some(Losing { object, last, attr, anchor })
    }

    /// What a client that asks now is told of a removed object: its last attributes while it does not see the removal,
    /// the real ones while it has it open, `ESTALE` otherwise. None for an object that is there.
    /// Who removed it can ask only by a descriptor of before: an `O_PATH` one, of which nobody tells us.
    pub(super) fn removed(&mut self, who: &Caller, id: ObjectId) -> Result<Option<Attr>> {
        let Some(removal) = self.object(id)?.dead else { return Ok(None) };
        if removal.author != who.client && who.now < removal.visible {
            return Ok(Some(removal.attr));
        }
        let object = self.object(id)?;
        let known = self.clients.get(&who.client).is_some_and(|c| c.lookups.contains_key(&id));
        // A removed directory can still be a working directory, and a removed fifo open.
        let inside = known && is_the_kernels(object.kind) && object.anchor.is_some();
        if inside || object.open.iter().any(|f| f.client == who.client) {
            self.truth(id).map(Some)
        } else if known && removal.author == who.client {
            Ok(Some(Attr { nlink: 0, ..removal.attr }))
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// Keeps a removed object as long as someone may still be shown it.
    fn retain(&mut self, who: &Caller, id: ObjectId, removal: Removal, anchor: Option<Arc<OwnedFd>>) {
        let late = self.world.removal_is_seen_late(who.client);
        let lost_before = self.objects.get(id).map_or(Time::ZERO, |o| o.shown_until);
        let removal = Removal { visible: removal.visible.max(lost_before), ..removal };
        self.objects.kill(id, removal, anchor);
        self.world.erase(id);
        if late {
            let knobs = self.clients.keys().map(|c| self.world.knobs(*c));
            let ttl = knobs.map(|k| k.file_ttl.max(k.dir_ttl)).max().unwrap_or_default();
            if let Some(object) = self.objects.get_mut(id) {
                object.refs += 1;
            }
            self.retained.push_back((removal.visible.max(who.now.after(ttl)), id));
        }
        self.release_retained(who.now);
        self.unused(id);
    }

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
}
