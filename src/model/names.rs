//! The history of names: for each directory entry, which object it was bound to before, as long as someone may still
//! be shown that.
//!
//! An entry that everyone sees as it is on the disk has no record here. A record is a *register* of SEMANTICS.md: what a
//! client sees of it is always one of its past values, and never an older one than it saw before (R2).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::Map;
use super::ids::{ClientId, Name, ObjectId, Version};
use super::time::Time;

/// One change of one name.
#[derive(Clone, Debug)]
struct Bind {
    version: Version,
    author: ClientId,
    visible: Time,
    value: Option<ObjectId>,
}

#[derive(Clone, Debug)]
struct Register {
    /// The value before the first of `binds`.
    base: Option<ObjectId>,
    binds: Vec<Bind>,
    /// R4: up to which version the server has told a client the truth.
    revealed: Vec<(ClientId, Version)>,
}

impl Register {
    /// R2: the last value that is the client's own, visible by now, or revealed; and whether it is the newest.
    fn seen(&self, client: ClientId, now: Time) -> Option<Option<ObjectId>> {
        let told = self.revealed.iter().find(|(c, _)| *c == client).map_or(Version(0), |(_, v)| *v);
        let last =
            self.binds.iter().rposition(|b| b.author == client || b.visible <= now || b.version <= told);
        match last {
            Some(i) if i + 1 == self.binds.len() => None,
            Some(i) => Some(self.binds[i].value),
            None => Some(self.base),
        }
    }

    /// Lets go of the values that nobody can be shown any more. True when none is left.
    fn fold(&mut self, now: Time) -> bool {
        if let Some(last) = self.binds.iter().rposition(|b| b.visible <= now) {
            self.base = self.binds[last].value;
            self.binds.drain(..=last);
        }
        self.binds.is_empty()
    }
}

/// All names with a past that someone may still see.
#[derive(Default, Debug)]
pub(crate) struct Names {
    dirs: Map<ObjectId, Map<Name, Register>>,
    /// When the newest value of a name becomes visible to all; the end of its record.
    expiry: BinaryHeap<Reverse<(Time, ObjectId, Name)>>,
}

impl Names {
    /// Records that `name` changed from `before` to `after`. Not called when the change is visible at once and the name
    /// has no past: then the disk says it all.
    pub(crate) fn commit(
        &mut self,
        (dir, name): (ObjectId, &Name),
        (version, author): (Version, ClientId),
        (before, after): (Option<ObjectId>, Option<ObjectId>),
        visible: Time,
    ) {
        let register = self.dirs.entry(dir).or_default().entry(name.clone()).or_insert_with(|| Register {
            base: before,
            binds: Vec::new(),
            revealed: Vec::new(),
        });
        register.binds.push(Bind { version, author, visible, value: after });
        self.expiry.push(Reverse((visible, dir, name.clone())));
    }

    /// Whether `name` has a past that someone may still see.
    pub(crate) fn has_past(&self, dir: ObjectId, name: &[u8]) -> bool {
        self.dirs.get(&dir).is_some_and(|names| names.contains_key(name))
    }

    /// What `client` sees of a name if it asks now, where that is not the truth.
    pub(crate) fn past(
        &self,
        client: ClientId,
        dir: ObjectId,
        name: &[u8],
        now: Time,
    ) -> Option<Option<ObjectId>> {
        self.dirs.get(&dir)?.get(name)?.seen(client, now)
    }

    /// The names of `dir` that `client` does not see as they are.
    pub(crate) fn pasts(&self, client: ClientId, dir: ObjectId, now: Time) -> Vec<(Name, Option<ObjectId>)> {
        let names = self.dirs.get(&dir).into_iter().flatten();
        let mut out: Vec<_> =
            names.filter_map(|(name, r)| Some((name.clone(), r.seen(client, now)?))).collect();
        out.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// R4: the server has told `client` how this name stands.
    pub(crate) fn reveal(&mut self, client: ClientId, dir: ObjectId, name: &[u8]) {
        let Some(register) = self.dirs.get_mut(&dir).and_then(|names| names.get_mut(name)) else { return };
        let newest = register.binds.last().map_or(Version(0), |b| b.version);
        match register.revealed.iter_mut().find(|(c, _)| *c == client) {
            Some((_, told)) => *told = newest,
            None => register.revealed.push((client, newest)),
        }
    }

    /// Lets go of the records that have ended by `now`.
    pub(crate) fn expire(&mut self, now: Time) {
        while let Some(Reverse((at, ..))) = self.expiry.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((_, dir, name))) = self.expiry.pop() else { break };
            let Some(names) = self.dirs.get_mut(&dir) else { continue };
            if names.get_mut(&name).is_some_and(|register| register.fold(now)) {
                names.remove(&name);
                if names.is_empty() {
                    self.dirs.remove(&dir);
                }
            }
        }
    }

    /// When the last record ends.
    pub(crate) fn latest(&self) -> Option<Time> {
        self.expiry.iter().map(|Reverse((at, ..))| *at).max()
    }

    /// How many changes are remembered.
    pub(crate) fn len(&self) -> usize {
        self.expiry.len()
    }

    /// Everyone sees the truth from now on.
    pub(crate) fn clear(&mut self) {
        self.dirs.clear();
        self.expiry.clear();
    }
}
