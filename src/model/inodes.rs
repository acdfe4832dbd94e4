//! The history of objects: for each commit to a file's bytes or attributes that someone may still have to be shown the
//! past of, what it overwrote.
//!
//! The newest bytes are always on the disk. An older state is the disk with the overwritten bytes put back, newest
//! commit first, so the cost of a past is in the bytes that changed. All that is kept is counted, and [`Inodes::collapse`]
//! gives the oldest of it up.

use std::collections::VecDeque;

use super::attr::Attr;
use super::extents::Extents;
use super::hash::Map;
use super::ids::{ClientId, ObjectId, Version};
use super::time::Time;

/// One commit: what it made, and what it takes to go back.
#[derive(Clone, Debug)]
struct Commit {
    version: Version,
    /// The first of the commits that were merged into this one; its key in `Inodes::order`.
    first: Version,
    author: ClientId,
    visible: Time,
    /// R6: when a name becomes visible that must not be seen without this. Older versions are not believed after it.
    carried: Time,
    after: Attr,
    overwritten: Extents,
}

#[derive(Clone, Debug)]
struct Register {
    /// The attributes before the first of `commits`.
    base: Attr,
    commits: VecDeque<Commit>,
    /// R4: up to which version the server has told a client the truth.
    revealed: Vec<(ClientId, Version)>,
    /// Whether anyone has looked since the last commit; until then the next one may be merged into it.
    looked: bool,
}

impl Register {
    /// R2: the version that a client sees if it asks now; none when that is the newest.
    fn seen(&self, client: ClientId, now: Time) -> Option<Version> {
        let told = self.revealed.iter().find(|(c, _)| *c == client).map_or(Version(0), |(_, v)| *v);
        let last =
            self.commits.iter().rposition(|c| c.author == client || c.visible <= now || c.version <= told);
        match last {
            Some(i) if i + 1 == self.commits.len() => None,
            Some(i) => Some(self.commits[i].version),
            None => Some(self.before_all()),
        }
    }

    /// A version that is before every commit held.
    fn before_all(&self) -> Version {
        self.commits.front().map_or(Version(0), |c| Version(c.version.0 - 1))
    }
}

/// What a commit changed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) before: Attr,
    pub(crate) after: Attr,
    /// The bytes that were there before, as far as they existed.
    pub(crate) overwritten: Extents,
}

/// All objects with a past that someone may still see.
#[derive(Default, Debug)]
pub(crate) struct Inodes {
    registers: Map<ObjectId, Register>,
    bytes: usize,
    /// Commits in their order, for `collapse`. Entries whose commit is gone are skipped.
    order: VecDeque<(Version, ObjectId)>,
}

/// What one commit costs besides its bytes, for the budget.
const COMMIT_COST: usize = 256;

impl Inodes {
    pub(crate) fn has_past(&self, object: ObjectId) -> bool {
        self.registers.contains_key(&object)
    }

    /// Bytes of memory that the past takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records a commit.
    pub(crate) fn commit(
        &mut self,
        object: ObjectId,
        (version, author): (Version, ClientId),
        visible: Time,
        now: Time,
        change: Change,
    ) {
        let Change { before, after, overwritten } = change;
        let register = self.registers.entry(object).or_insert_with(|| Register {
            base: before,
            commits: VecDeque::new(),
            revealed: Vec::new(),
            looked: true,
        });
        if let Some(last) = register.commits.back_mut() {
            // Nobody can tell the two apart: one step instead of two, and the older bytes win.
            if !register.looked && last.author == author && visible.max(now) == last.visible.max(now) {
                let had = last.overwritten.bytes();
                for (at, piece) in overwritten.iter() {
                    last.overwritten.write_below(at, piece);
                }
                self.bytes += last.overwritten.bytes() - had;
                last.after = after;
                last.version = version;
                return;
            }
        }
        register.looked = false;
        self.bytes += overwritten.bytes() + COMMIT_COST;
        self.order.push_back((version, object));
        let carried = Time::NEVER;
        register.commits.push_back(Commit {
            version,
            first: version,
            author,
            visible,
            carried,
            after,
            overwritten,
        });
    }

    /// Which version `client` sees if it asks now, and its attributes, where that is not the truth.
    pub(crate) fn past(&self, client: ClientId, object: ObjectId, now: Time) -> Option<(Version, Attr)> {
        let version = self.registers.get(&object)?.seen(client, now)?;
        Some((version, *self.attr_at(object, version)?))
    }

    /// Someone has looked at the object: the next commit can be told from the last.
    pub(crate) fn looked(&mut self, object: ObjectId) {
        if let Some(register) = self.registers.get_mut(&object) {
            register.looked = true;
        }
    }

    /// The attributes at `version`; none when they are those of the disk.
    pub(crate) fn attr_at(&self, object: ObjectId, version: Version) -> Option<&Attr> {
        let register = self.registers.get(&object)?;
        match register.commits.partition_point(|c| c.version <= version) {
            0 => Some(&register.base),
            n if n == register.commits.len() => None,
            n => Some(&register.commits[n - 1].after),
        }
    }

    /// R6: when `version` must not be believed any more because of a name that carries a newer one.
    pub(crate) fn believable(&self, object: ObjectId, version: Version) -> Time {
        let commits = self.registers.get(&object).into_iter().flat_map(|r| &r.commits).rev();
        commits.take_while(|c| c.version > version).map(|c| c.carried).min().unwrap_or(Time::NEVER)
    }

    /// Turns bytes of the truth, read at `at`, into those of `version`.
    pub(crate) fn rewind(&self, object: ObjectId, version: Version, at: u64, buf: &mut [u8]) {
        let Some(register) = self.registers.get(&object) else { return };
        for commit in register.commits.iter().rev().take_while(|c| c.version > version) {
            commit.overwritten.overlay(at, buf);
        }
        // Past the end of that version there was nothing yet, also where a longer file has bytes now: a client whose own
        // unflushed bytes begin further out sees zeros up to them.
        if let Some(attr) = self.attr_at(object, version) {
            let kept = attr.size.saturating_sub(at).min(buf.len() as u64) as usize;
            buf[kept..].fill(0);
        }
    }

    /// R4: the server has told `client` how this object stands.
    pub(crate) fn reveal(&mut self, client: ClientId, object: ObjectId) {
        let Some(register) = self.registers.get_mut(&object) else { return };
        // Told of this commit, not of one that would be merged into it later.
        register.looked = true;
        let newest = register.commits.back().map_or(Version(0), |c| c.version);
        match register.revealed.iter_mut().find(|(c, _)| *c == client) {
            Some((_, told)) => *told = newest,
            None => register.revealed.push((client, newest)),
        }
    }

    /// R6: what has been committed so far is visible to everyone by `by`. Answers the newest of it.
    pub(crate) fn hurry(&mut self, object: ObjectId, by: Time) -> Option<Version> {
        let register = self.registers.get_mut(&object)?;
        for commit in &mut register.commits {
            commit.visible = commit.visible.min(by);
            commit.carried = commit.carried.min(by);
        }
        register.commits.back().map(|c| c.version)
    }

    /// Lets go of what nobody can be shown any more; `held` says whether someone holds on to a version before the given.
    pub(crate) fn fold(&mut self, object: ObjectId, now: Time, held: impl Fn(Version) -> bool) {
        let Some(register) = self.registers.get_mut(&object) else { return };
        // What is before the last visible commit is seen by nobody who asks now.
        let ended = register.commits.iter().rposition(|c| c.visible <= now).map_or(0, |last| last + 1);
        for _ in 0..ended {
            if register.commits.front().is_none_or(|c| held(c.version)) {
                return;
            }
            let Some(first) = register.commits.pop_front() else { return };
            self.bytes -= first.overwritten.bytes() + COMMIT_COST;
            register.base = first.after;
        }
        if register.commits.is_empty() {
            self.registers.remove(&object);
        }
    }

    /// The object of the oldest commit.
    pub(crate) fn oldest(&mut self) -> Option<ObjectId> {
        while let Some((version, object)) = self.order.front() {
            let first = self.registers.get(object).and_then(|r| r.commits.front());
            if first.is_some_and(|c| c.first <= *version) {
                return Some(*object);
            }
            self.order.pop_front();
        }
        None
    }

    /// Gives up the oldest commit: everyone sees the state after it from now on. None when there is none.
    pub(crate) fn collapse(&mut self) -> Option<ObjectId> {
        while let Some(object) = self.oldest() {
            self.order.pop_front();
            let Some(register) = self.registers.get_mut(&object) else { continue };
            let Some(first) = register.commits.pop_front() else { continue };
            self.bytes -= first.overwritten.bytes() + COMMIT_COST;
            register.base = first.after;
            if register.commits.is_empty() {
                self.registers.remove(&object);
            }
            return Some(object);
        }
        None
    }

    /// Gives up all commits of one object.
    pub(crate) fn remove(&mut self, object: ObjectId) {
        if let Some(register) = self.registers.remove(&object) {
            self.bytes -= register.commits.iter().map(|c| c.overwritten.bytes() + COMMIT_COST).sum::<usize>();
        }
    }

    /// Drops the book-keeping of commits that are gone, when there is much of it.
    pub(crate) fn tidy(&mut self) {
        let held: usize = self.bytes / COMMIT_COST;
        if self.order.len() > 1024 + 2 * held {
            let registers = &self.registers;
            self.order.retain(|(v, o)| {
                registers.get(o).is_some_and(|r| r.commits.front().is_some_and(|c| c.first <= *v))
            });
        }
    }

    pub(crate) fn objects(&self) -> Vec<ObjectId> {
        self.registers.keys().copied().collect()
    }

    /// When the last commit becomes visible to all.
    pub(crate) fn latest(&self) -> Option<Time> {
        self.registers.values().flat_map(|r| &r.commits).map(|c| c.visible).max()
    }

    /// Everyone sees the truth from now on.
    pub(crate) fn clear(&mut self) {
        *self = Inodes::default();
    }
}
