//! Advisory locks, kept at the truth so that they exclude all clients: POSIX byte ranges, open-file-description locks and
//! `flock`, which FUSE hands on as a lock of the whole range, as NFS does.

use super::handles::Handle;
use super::{Caller, Engine, Errno, State};
use crate::model::hash::Map;
use crate::model::history::Why;
use crate::model::ids::{ClientId, ObjectId};
use crate::model::op::Op;
use crate::model::time::Time;

/// What a lock allows others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockKind {
    Read,
    Write,
}

/// A lock as asked for or held. `end` is inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lock {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: LockKind,
    pub(crate) pid: u32,
}

/// Called once, outside of the engine's lock, when a waiting request is answered.
pub(crate) type LockReply = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// What became of a lock request.
pub(crate) enum LockOutcome {
    /// Answered.
    Done,
    /// Held by this client; `reply` comes back because nobody waits.
    Busy(ClientId, LockReply),
    /// Waits in the queue under this number.
    Waiting(u64),
}

impl std::fmt::Debug for LockOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LockOutcome::Done => "Done",
            LockOutcome::Busy(..) => "Busy",
            LockOutcome::Waiting(_) => "Waiting",
        })
    }
}

/// Who owns a lock: an owner id of one client's kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    client: ClientId,
    id: u64,
}

#[derive(Clone, Copy)]
struct Held {
    owner: Owner,
    handle: Handle,
    lock: Lock,
}

struct Waiter {
    number: u64,
    who: Caller,
    owner: Owner,
    handle: Handle,
    lock: Lock,
    reply: LockReply,
}

/// A request that has waited and has the lock now. [`State::granted`] makes a reply of it.
pub(super) struct Granted {
    who: Caller,
    object: ObjectId,
    reply: LockReply,
}

#[derive(Default)]
struct File {
    held: Vec<Held>,
    /// First come, first served.
    waiting: Vec<Waiter>,
}

/// All locks of one backing directory.
#[derive(Default)]
pub(super) struct Locks {
    files: Map<ObjectId, File>,
    next: u64,
}

/// How many requests may wait for one file.
const WAITING: usize = 1024;
/// How many owners are looked at to find out whether they wait for each other in a circle.
const FOLLOWED: usize = 64;

impl File {
    fn conflicts(&self, owner: Owner, lock: Lock) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(move |h| {
            h.owner != owner
                && h.lock.start <= lock.end
                && lock.start <= h.lock.end
                && (h.lock.kind == LockKind::Write || lock.kind == LockKind::Write)
        })
    }

    fn conflict(&self, owner: Owner, lock: &Lock) -> Option<&Held> {
        self.conflicts(owner, *lock).next()
    }

    /// Cuts `[start, end]` out of what `owner` holds.
    fn cut(&mut self, owner: Owner, start: u64, end: u64) {
        let mut kept = Vec::with_capacity(self.held.len());
        for held in self.held.drain(..) {
            if held.owner != owner || held.lock.end < start || end < held.lock.start {
                kept.push(held);
                continue;
            }
            if held.lock.start < start {
                kept.push(Held { lock: Lock { end: start - 1, ..held.lock }, ..held });
            }
            if end < held.lock.end {
                kept.push(Held { lock: Lock { start: end + 1, ..held.lock }, ..held });
            }
        }
        self.held = kept;
    }

    /// Gives `owner` the lock, made one with what it holds of the same kind beside it. As in the kernel, the locks of an owner
    /// stand together in the order of their places, and so are asked about in that order.
    fn take(&mut self, owner: Owner, handle: Handle, mut lock: Lock) {
        self.cut(owner, lock.start, lock.end);
        self.held.retain(|h| {
            let touches = h.lock.end.checked_add(1) == Some(lock.start)
                || lock.end.checked_add(1) == Some(h.lock.start);
            let joins = h.owner == owner && h.lock.kind == lock.kind && touches;
            if joins {
                (lock.start, lock.end) = (lock.start.min(h.lock.start), lock.end.max(h.lock.end));
            }
            !joins
        });
        let after = self.held.iter().position(|h| h.owner == owner && h.lock.start > lock.start);
        let last = self.held.iter().rposition(|h| h.owner == owner).map(|i| i + 1);
        let place = after.or(last).unwrap_or(self.held.len());
        self.held.insert(place, Held { owner, handle, lock });
    }

    /// Grants what can be granted now.
    fn grant(&mut self, object: ObjectId) -> Vec<Granted> {
        let mut granted = Vec::new();
        let mut i = 0;
        while i < self.waiting.len() {
            let (owner, lock) = (self.waiting[i].owner, self.waiting[i].lock);
            if self.conflict(owner, &lock).is_some() {
                i += 1;
                continue;
            }
            let waiter = self.waiting.remove(i);
            self.take(waiter.owner, waiter.handle, waiter.lock);
            granted.push(Granted { who: waiter.who, object, reply: waiter.reply });
        }
        granted
    }
}

impl Locks {
    /// Whether `owner`, if it waited for this lock, would wait for itself: those who hold it wait for `owner`, directly or by
    /// way of others.
    fn in_a_circle(&self, owner: Owner, object: ObjectId, lock: Lock) -> bool {
        let (mut ahead, mut next): (Vec<Owner>, usize) = (Vec::new(), 0);
        let mut waits = vec![(object, owner, lock)];
        loop {
            for (object, who, lock) in waits.drain(..) {
                for held in self.files.get(&object).into_iter().flat_map(|file| file.conflicts(who, lock)) {
                    if !ahead.contains(&held.owner) {
                        ahead.push(held.owner);
                    }
                }
            }
            let Some(who) = ahead.get(next).copied().filter(|_| next < FOLLOWED) else {
                return ahead.contains(&owner);
            };
            next += 1;
            for (object, file) in &self.files {
                let theirs = file.waiting.iter().filter(|w| w.owner == who);
                waits.extend(theirs.map(|w| (*object, w.owner, w.lock)));
            }
        }
    }

    fn change(&mut self, object: ObjectId, change: impl FnOnce(&mut File)) -> Vec<Granted> {
        let Some(file) = self.files.get_mut(&object) else { return Vec::new() };
        change(file);
        let granted = file.grant(object);
        if file.held.is_empty() && file.waiting.is_empty() {
            self.files.remove(&object);
        }
        granted
    }

    /// A `close` by this owner: its POSIX locks of the file end.
    #[must_use]
    pub(super) fn unlock_all(&mut self, client: ClientId, owner: u64, object: ObjectId) -> Vec<Granted> {
        let owner = Owner { client, id: owner };
        self.change(object, |file| file.cut(owner, 0, u64::MAX))
    }

    /// The open file description is gone, and with it the locks that were taken through it.
    #[must_use]
    pub(super) fn released(
        &mut self,
        c: ClientId,
        handle: Handle,
        flock: Option<u64>,
        object: ObjectId,
    ) -> Vec<Granted> {
        self.change(object, |file| {
            file.held.retain(|h| h.owner.client != c || (h.handle != handle && Some(h.owner.id) != flock));
        })
    }

    /// The client is gone. Its waiting requests are handed back.
    #[must_use]
    pub(super) fn leave(&mut self, client: ClientId) -> (Vec<Granted>, Vec<LockReply>) {
        let (mut granted, mut cancelled) = (Vec::new(), Vec::new());
        let mut objects: Vec<ObjectId> = self.files.keys().copied().collect();
        objects.sort_unstable();
        for object in objects {
            granted.extend(self.change(object, |file| {
                file.held.retain(|h| h.owner.client != client);
                let (gone, stay) =
                    std::mem::take(&mut file.waiting).into_iter().partition(|w| w.owner.client == client);
                file.waiting = stay;
                let gone: Vec<Waiter> = gone;
                cancelled.extend(gone.into_iter().map(|w| w.reply));
            }));
        }
        (granted, cancelled)
    }
}

impl State {
    /// R4: who gets a lock after a wait sees what was committed meanwhile. The replies are sent without the engine's lock.
    pub(super) fn granted(&mut self, granted: Vec<Granted>, now: Time) -> Vec<LockReply> {
        let mut replies = Vec::new();
        for Granted { who, object, reply } in granted {
            self.world.reveal(who.client, object);
            let _ = self.note(&Caller { now, ..who }, Op::Lock, object, Why::Truth, Ok(()));
            replies.push(reply);
        }
        replies
    }
}

impl Engine {
    /// `F_GETLK`: a lock that stands in the way.
    pub(crate) fn get_lock(&self, who: &Caller, object: ObjectId, owner: u64, lock: Lock) -> Option<Lock> {
        let st = self.lock();
        let owner = Owner { client: who.client, id: owner };
        st.locks.files.get(&object)?.conflict(owner, &lock).map(|held| held.lock)
    }

    /// Takes a lock. It is a point of coherency: the client flushes before, and sees the newest after (R4).
    pub(crate) fn set_lock(
        &self,
        who: &Caller,
        (object, handle): (ObjectId, Handle),
        owner: u64,
        lock: Lock,
        wait: bool,
        reply: LockReply,
    ) -> LockOutcome {
        let mut st = self.lock();
        if !st.clients.contains_key(&who.client) {
            // Asked again after a wait in which the mount went away.
            drop(st);
            reply(Err(Errno::EIO));
            return LockOutcome::Done;
        }
        let owner = Owner { client: who.client, id: owner };
        let flushed = self.flush_dirty(&mut st, who, object).map(drop);
        if let Err(e) = flushed {
            let done = st.note(who, Op::Lock, object, Why::Truth, Err(e));
            drop(st);
            reply(done);
            return LockOutcome::Done;
        }
        st.world.reveal(who.client, object);
        let file = st.locks.files.entry(object).or_default();
        match file.conflict(owner, &lock).map(|held| held.owner.client) {
            None => {
                file.take(owner, handle, lock);
                // A write lock turned into a read lock lets others in.
                let granted = file.grant(object);
                let done = st.note(who, Op::Lock, object, Why::Truth, Ok(()));
                let granted = st.granted(granted, who.now);
                drop(st);
                reply(done);
                granted.into_iter().for_each(|reply| reply(Ok(())));
                LockOutcome::Done
            }
            Some(holder) if !wait => LockOutcome::Busy(holder, reply),
            Some(_) if file.waiting.len() >= WAITING => {
                drop(st);
                reply(Err(Errno::ENOLCK));
                LockOutcome::Done
            }
            Some(_) if st.locks.in_a_circle(owner, object, lock) => {
                let done = st.note(who, Op::Lock, object, Why::Truth, Err(Errno::EDEADLK));
                drop(st);
                reply(done);
                LockOutcome::Done
            }
            Some(_) => {
                let number = st.locks.next;
                st.locks.next += 1;
                let file = st.locks.files.entry(object).or_default();
                file.waiting.push(Waiter { number, who: *who, owner, handle, lock, reply });
                LockOutcome::Waiting(number)
            }
        }
    }

    /// Writes down that a request was refused because someone else holds the lock.
    pub(crate) fn lock_refused(&self, who: &Caller, object: ObjectId) {
        let mut st = self.lock();
        if st.clients.contains_key(&who.client) {
            let _ = st.note(who, Op::Lock, object, Why::Truth, Err::<(), _>(Errno::EAGAIN));
        }
    }

    /// Releases a range, after flushing: who gets the lock next must see what was written under it.
    pub(crate) fn unlock(
        &self,
        who: &Caller,
        object: ObjectId,
        owner: u64,
        start: u64,
        end: u64,
    ) -> Result<(), Errno> {
        let mut st = self.lock();
        let flushed = self.flush_dirty(&mut st, who, object).map(drop);
        let owner = Owner { client: who.client, id: owner };
        let granted = st.locks.change(object, |file| file.cut(owner, start, end));
        let done = st.note(who, Op::Lock, object, Why::Truth, flushed);
        let granted = st.granted(granted, who.now);
        drop(st);
        granted.into_iter().for_each(|reply| reply(Ok(())));
        done
    }

    /// Takes a waiting request out of the queue, to be answered by the caller: its program was interrupted.
    pub(crate) fn cancel_lock(&self, object: ObjectId, number: u64) -> Option<LockReply> {
        let mut st = self.lock();
        let file = st.locks.files.get_mut(&object)?;
        let i = file.waiting.iter().position(|w| w.number == number)?;
        Some(file.waiting.remove(i).reply)
    }

    /// Whether the request still waits.
    pub(crate) fn lock_waits(&self, object: ObjectId, number: u64) -> bool {
        let st = self.lock();
        st.locks.files.get(&object).is_some_and(|f| f.waiting.iter().any(|w| w.number == number))
    }
}
