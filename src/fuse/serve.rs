//! How one request is served: admitted, executed, answered exactly once, whatever happens on the way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fuser::{ReplyEmpty, Request};
use parking_lot::Mutex;

use super::attr;
use crate::clock::Clock;
use crate::engine::as_caller;
use crate::engine::{
    Admission, Armed, Caller, Engine, Handle, Lock, LockOutcome, LockReply, Place, Result, Ticket, Wake,
};
use crate::errno::Errno;
use crate::host::{server, signals};
use crate::model::ids::{ClientId, ObjectId};
use crate::model::op::Op;

/// How often a held-back operation is looked at: whether its program was interrupted, whether it has waited too long.
const WATCH: Duration = Duration::from_millis(20);

/// A panic in a handler: which operation, and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Panicked {
    pub(crate) op: Op,
    pub(crate) message: String,
}

/// What a mount's requests need to be served.
pub(crate) struct Core {
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Clock,
    pub(crate) client: ClientId,
    pub(crate) armed: Armed,
    /// Whether its kernel may answer by itself where that makes no difference ...
    pub(crate) lane: bool,
    /// ... and can be told when that ends.
    pub(crate) tells: AtomicBool,
    /// The longest that an operation is parked, in real time.
    pub(crate) park_limit: Duration,
    /// Makes sure that what the kernel still has to tell of another client's mount has been told.
    pub(crate) drain: Box<dyn Fn(ClientId) + Send + Sync>,
    /// The first panic of a handler.
    pub(crate) panicked: Mutex<Option<Panicked>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("client", &self.client).finish_non_exhaustive()
    }
}

/// A reply that can say that the operation failed.
pub(super) trait Answer: Send + 'static {
    fn fail(self, e: Errno);
}

macro_rules! answers {
    ($($reply:ident),*) => {
        $(impl Answer for fuser::$reply {
            fn fail(self, e: Errno) {
                self.error(attr::errno(e));
            }
        })*
    };
}

answers!(
    ReplyEmpty,
    ReplyData,
    ReplyEntry,
    ReplyAttr,
    ReplyOpen,
    ReplyWrite,
    ReplyStatfs,
    ReplyCreate,
    ReplyLock,
    ReplyIoctl,
    ReplyXattr,
    ReplyLseek,
    ReplyDirectory
);

impl Core {
    pub(super) fn caller(&self, req: &Request) -> Caller {
        Caller { client: self.client, uid: req.uid(), gid: req.gid(), pid: req.pid(), now: self.clock.now() }
    }

    /// Whether a rule or chance may stand in the way, so that the request must own what it needs.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Executes and answers: at once, or when all kernels have been told what has changed for them.
    pub(super) fn run<R: Answer, T: Send + 'static>(
        &self,
        who: &Caller,
        op: Op,
        reply: R,
        work: impl FnOnce(&Engine, &Caller) -> Result<T>,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        let done = self.execute(who, op, work);
        if !self.engine.is_behind() {
            return answer(reply, done, send);
        }
        let engine = self.engine.clone();
        server::start(move || {
            engine.catch_up();
            answer(reply, done, send);
        });
    }

    /// Executes and answers at once: what those wait for who tell the kernel, or pages that it cannot forget meanwhile.
    pub(super) fn run_now<R: Answer, T>(
        &self,
        who: &Caller,
        op: Op,
        reply: R,
        work: impl FnOnce(&Engine, &Caller) -> Result<T>,
        send: impl FnOnce(R, T),
    ) {
        answer(reply, self.execute(who, op, work), send);
        self.catch_up_later();
    }

    /// The one or the other.
    pub(super) fn run_or_now<R: Answer, T: Send + 'static>(
        &self,
        now: bool,
        who: &Caller,
        op: Op,
        reply: R,
        work: impl FnOnce(&Engine, &Caller) -> Result<T>,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        if now {
            self.run_now(who, op, reply, work, send);
        } else {
            self.run(who, op, reply, work, send);
        }
    }

    fn execute<T>(
        &self,
        who: &Caller,
        op: Op,
        work: impl FnOnce(&Engine, &Caller) -> Result<T>,
    ) -> Result<T> {
        let work = || as_caller(who.uid, who.gid, who.pid, || work(&self.engine, who));
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            // A handler that unwound past fuser would end the session and hang every later operation.
            self.note_panic(op, panic.as_ref());
            Err(Errno::EIO)
        })
    }

    /// Does what has no answer, or answers in its own way.
    pub(super) fn quietly<T>(&self, op: Op, work: impl FnOnce(&Engine) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| work(&self.engine)));
        self.catch_up_later();
        done.map_err(|panic| self.note_panic(op, panic.as_ref())).ok()
    }

    fn catch_up_later(&self) {
        if self.engine.is_behind() {
            let engine = self.engine.clone();
            server::start(move || engine.catch_up());
        }
    }

    fn note_panic(&self, op: Op, panic: &(dyn std::any::Any + Send)) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let message = text.unwrap_or_else(|| "(no message)".to_owned());
        self.panicked.lock().get_or_insert(Panicked { op, message });
    }

    /// Admits the request, then executes and answers it: now, or when what it waits for lets it go.
    pub(super) fn serve<R: Answer, T: Send + 'static>(
        self: &Arc<Self>,
        req: &Request,
        (op, place): (Op, Place),
        reply: R,
        work: impl FnOnce(&Engine, &Caller) -> Result<T> + Send + 'static,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        let go = move |core: &Arc<Core>, who: &Caller, reply| core.run(who, op, reply, work, send);
        self.admit(self.caller(req), (op, place), reply, go);
    }

    /// Lets the request go on, now or when what it waits for lets it go; or answers it.
    pub(super) fn admit<R: Answer>(
        self: &Arc<Self>,
        who: Caller,
        (op, place): (Op, Place),
        reply: R,
        go: impl FnOnce(&Arc<Core>, &Caller, R) + Send + 'static,
    ) {
        if self.is_armed() {
            // Nothing that may panic runs outside of a guard: it would end the session.
            let admission = self.quietly(op, |engine| engine.admit(&who, op, &place));
            match admission.unwrap_or(Admission::Fail(Errno::EIO)) {
                Admission::Pass => {}
                Admission::Fail(e) => return reply.fail(e),
                Admission::Panic => {
                    return self.run(
                        &who,
                        op,
                        reply,
                        |_, _| -> Result<()> { panic!("injected") },
                        |_, ()| {},
                    );
                }
                Admission::Park(rule, path) => {
                    self.engine.park_pages(self.client, &place, true);
                    let core = self.clone();
                    let resume = Box::new(move |wake| {
                        match wake {
                            Wake::Proceed => {
                                let who = Caller { now: core.clock.now(), ..who };
                                go(&core, &who, reply);
                            }
                            Wake::Fail(e) => {
                                core.engine.note_unparked(&who, op, path, e);
                                reply.fail(e);
                            }
                        }
                        core.engine.park_pages(core.client, &place, false);
                    });
                    if let Some(ticket) = self.engine.park(self.client, rule, resume) {
                        watch_parked(&self.engine, ticket, who.pid, deadline(self.park_limit));
                    }
                    return;
                }
            }
        }
        go(self, &who, reply);
    }

    /// Answers a lock request that stands in a queue when its program is interrupted.
    pub(super) fn watch_lock(&self, object: ObjectId, number: u64, pid: u32) {
        watch_lock(Arc::downgrade(&self.engine), object, number, pid);
    }
}

/// Takes a lock for a program: at once, after a wait if it wants to wait, or not at all.
pub(super) fn take_lock(
    core: &Arc<Core>,
    who: Caller,
    file: (ObjectId, Handle),
    owner: u64,
    lock: Lock,
    sleep: bool,
    reply: ReplyEmpty,
) {
    let answer = Box::new(move |done| match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.fail(e),
    });
    // fuser answers a reply that is dropped, in a panic, with EIO.
    let asked = core.quietly(Op::Lock, |engine| engine.set_lock(&who, file, owner, lock, sleep, answer));
    match asked.unwrap_or(LockOutcome::Done) {
        LockOutcome::Done => {}
        LockOutcome::Waiting(number) => core.watch_lock(file.0, number, who.pid),
        LockOutcome::Busy(_, answer) if sleep => answer(Err(Errno::EAGAIN)),
        LockOutcome::Busy(holder, answer) => {
            // The holder may have closed the file already: the kernel tells of that in its own time. Before the request
            // is refused, everything that its mount still has to tell is waited for, on another thread.
            let core = core.clone();
            server::start(move || {
                (core.drain)(holder);
                let again =
                    core.quietly(Op::Lock, |engine| engine.set_lock(&who, file, owner, lock, false, answer));
                if let Some(LockOutcome::Busy(_, answer)) = again {
                    core.engine.lock_refused(&who, file.0);
                    answer(Err(Errno::EAGAIN));
                }
            });
        }
    }
}

fn answer<R: Answer, T>(reply: R, done: Result<T>, send: impl FnOnce(R, T)) {
    match done {
        Ok(value) => send(reply, value),
        Err(e) => reply.fail(e),
    }
}

#[allow(clippy::disallowed_methods)] // limits in real time: a program waits in real time
fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}

/// Sees to it that a parked operation is answered when its program is interrupted or its time is over.
fn watch_parked(engine: &Arc<Engine>, ticket: Ticket, pid: u32, limit: Instant) {
    let weak = Arc::downgrade(engine);
    let next = deadline(WATCH);
    server::at(next.min(limit), move || {
        let Some(engine) = weak.upgrade() else { return };
        if !engine.is_parked(ticket) {
            return;
        }
        if next >= limit {
            engine.wake(ticket, Wake::Fail(Errno::EIO));
        } else if signals::pending(pid) {
            engine.wake(ticket, Wake::Fail(Errno::EINTR));
        } else {
            watch_parked(&engine, ticket, pid, limit);
        }
    });
}

fn watch_lock(engine: Weak<Engine>, object: ObjectId, number: u64, pid: u32) {
    server::at(deadline(WATCH), move || {
        let Some(strong) = engine.upgrade() else { return };
        if !strong.lock_waits(object, number) {
            return;
        }
        if signals::pending(pid) {
            let reply: Option<LockReply> = strong.cancel_lock(object, number);
            if let Some(reply) = reply {
                reply(Err(Errno::EINTR));
            }
            return;
        }
        drop(strong);
        watch_lock(engine, object, number, pid);
    });
}
