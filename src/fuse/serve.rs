//! How one request is served: admitted, executed, answered exactly once, whatever happens on the way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fuser::Request;
use parking_lot::Mutex;

use super::attr;
use crate::clock::Clock;
use crate::engine::as_caller;
use crate::engine::{Admission, Armed, Caller, Engine, LockReply, Place, Result, Ticket, Wake};
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

    /// Executes and answers at once.
    pub(super) fn run<R: Answer, T>(
        &self,
        who: &Caller,
        op: Op,
        reply: R,
        work: impl FnOnce(&Engine, &Caller) -> Result<T>,
        send: impl FnOnce(R, T),
    ) {
        let work = || as_caller(who.uid, who.gid, who.pid, || work(&self.engine, who));
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => send(reply, value),
            Ok(Err(e)) => reply.fail(e),
            Err(panic) => {
                // A handler that unwound past fuser would end the session and hang every later operation.
                self.note_panic(op, panic.as_ref());
                reply.fail(Errno::EIO);
            }
        }
    }

    /// Does what has no answer, or answers in its own way.
    pub(super) fn quietly<T>(&self, op: Op, work: impl FnOnce(&Engine) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| work(&self.engine)));
        done.map_err(|panic| self.note_panic(op, panic.as_ref())).ok()
    }

    fn note_panic(&self, op: Op, panic: &(dyn std::any::Any + Send)) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let message = text.unwrap_or_else(|| "(no message)".to_owned());
        self.panicked.lock().get_or_insert(Panicked { op, message });
    }

    /// Admits the request, then executes and answers it: now, or when what it waits for lets it go.
    pub(super) fn serve<R: Answer, T: 'static>(
        self: &Arc<Self>,
        req: &Request,
        (op, place): (Op, Place<'_>),
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
        (op, place): (Op, Place<'_>),
        reply: R,
        go: impl FnOnce(&Arc<Core>, &Caller, R) + Send + 'static,
    ) {
        if self.is_armed() {
            // Nothing that may panic runs outside of a guard: it would end the session.
            let admission = self.quietly(op, |engine| engine.admit(&who, op, place));
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
                    let core = self.clone();
                    let resume = Box::new(move |wake| match wake {
                        Wake::Proceed => {
                            let who = Caller { now: core.clock.now(), ..who };
                            go(&core, &who, reply);
                        }
                        Wake::Fail(e) => {
                            core.engine.note_unparked(&who, op, path, e);
                            reply.fail(e);
                        }
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
