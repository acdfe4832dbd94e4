//! The server threads: a group of threads that share a file descriptor table no other thread of the process has.
//!
//! A process that serves its own FUSE mount from ordinary threads can become unkillable: on exit the kernel closes the
//! table's files in order of number, and closing a file of the mount waits for a server whose threads are gone while
//! `/dev/fuse`, further on in the same table, still keeps the connection up. With a table of their own the last server
//! thread takes `/dev/fuse` with it and the kernel lets everybody go.
//!
//! Owns one control thread (which makes that table at first use and does nothing but start workers), a few idle workers,
//! and the threads made with [`spawn`]. Promises that a job never waits for another one to finish, that what is dropped
//! through [`Home`] is dropped where its descriptors are, and that no signal handler runs on these threads.
//! Never shares a descriptor with the rest of the process: a number means another file on the other side. So descriptors
//! stay inside jobs and [`Home`]s, and the low numbers of the table are plugged: a stray write through a number of the
//! other side is `EBADF`.
//!
//! The group belongs to the mount namespace and the credentials of the thread that used it first. A forked child that
//! does not `exec` has no server threads and must not use this crate.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;

pub(crate) use super::timer::at;
use crate::raw;

/// Idle workers kept for the next jobs: mounts come and go one or two at a time.
const KEPT_IDLE: usize = 4;
/// Descriptor numbers from 3 up to here are plugged ...
const PLUGGED: i32 = 512;
/// ... or up to here where descriptors are scarce.
const PLUGGED_SCARCE: i32 = 64;
/// The soft limit below which descriptors are scarce.
const SCARCE: u64 = 4096;
/// The size the table is grown to before it has users: growing it later stalls every thread for milliseconds.
const ROOM: i32 = 4095;

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static MEMBER: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is a server thread.
pub(crate) fn on_server_thread() -> bool {
    MEMBER.try_with(Cell::get).unwrap_or(false)
}

/// Runs `job` on a server thread and waits for it; on a server thread it simply runs. A panic goes on in the caller.
pub(crate) fn call<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    if on_server_thread() {
        return job();
    }
    let (tx, rx) = mpsc::sync_channel(1);
    submit(Box::new(move || {
        let _ = tx.send(catch_unwind(AssertUnwindSafe(job)));
    }));
    match rx.recv() {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(mpsc::RecvError) => unreachable!("a job that was submitted runs"),
    }
}

/// Starts `job` on a server thread; the receiver gets its result, or is disconnected if it panics.
///
/// For jobs that may never come back, which the caller gives up on after a while.
pub(crate) fn start<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (tx, rx) = mpsc::sync_channel(1);
    submit(Box::new(move || {
        let _ = tx.send(job());
    }));
    rx
}

/// Like [`start`], on a thread that shares its table with nobody: for calls that may hang in a foreign file system. If
/// one hangs for good, it keeps nothing of ours open.
pub(crate) fn start_alone<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (tx, rx) = mpsc::sync_channel(1);
    // If the thread cannot start, `tx` is dropped and the receiver says so.
    let _ = spawn("chaosfs-probe".to_owned(), move || {
        if raw::private_fd_table().is_ok() {
            let _ = tx.send(job());
        }
    });
    rx
}

/// Starts a server thread of its own for `f`.
pub(crate) fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    call(move || {
        let ended = Arc::new(Ended::default());
        let mark = MarkEnded(Arc::clone(&ended));
        let body = move || {
            MEMBER.set(true);
            let _mark = mark;
            f();
        };
        let handle = std::thread::Builder::new().name(name).spawn(body)?;
        Ok(Thread { ended, handle: Mutex::new(Some(handle)) })
    })
}

/// A thread made with [`spawn`]. Dropping this does not end it.
#[derive(Debug)]
pub(crate) struct Thread {
    ended: Arc<Ended>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Thread {
    /// Waits until the thread has ended, at most for `timeout`; whether it has.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut done = self.ended.done.lock();
        while !*done {
            match deadline {
                Some(at) if self.ended.changed.wait_until(&mut done, at).timed_out() => break,
                Some(_) => {}
                None => self.ended.changed.wait(&mut done),
            }
        }
        let ended = *done;
        drop(done);
        // The closure is gone; what is left of the thread is its own tidying up, so this returns at once.
        if ended && let Some(handle) = self.handle.lock().take() {
            let _ = handle.join();
        }
        ended
    }
}

#[derive(Debug, Default)]
struct Ended {
    done: Mutex<bool>,
    changed: Condvar,
}

struct MarkEnded(Arc<Ended>);

impl Drop for MarkEnded {
    fn drop(&mut self) {
        *self.0.done.lock() = true;
        self.0.changed.notify_all();
    }
}

/// A shared value with descriptors in it, like an `Arc`, which is always dropped on a server thread.
pub(crate) struct Home<T: Send + Sync + 'static>(Option<Arc<T>>);

impl<T: Send + Sync + 'static> Home<T> {
    /// A handle on `value`.
    pub(crate) fn new(value: Arc<T>) -> Self {
        Home(Some(value))
    }

    /// The `Arc` inside. A clone of it may leave a server thread only inside another `Home`.
    pub(crate) fn arc(&self) -> &Arc<T> {
        self.0.as_ref().expect("only `drop` takes it")
    }
}

impl<T: Send + Sync + 'static> Clone for Home<T> {
    fn clone(&self) -> Self {
        Home(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Deref for Home<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.arc()
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Home<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arc().fmt(f)
    }
}

impl<T: Send + Sync + 'static> Drop for Home<T> {
    fn drop(&mut self) {
        // Of several handles dropped at the same time exactly one gets the value, so only the last one pays for the trip.
        let Some(last) = self.0.take().and_then(Arc::into_inner) else { return };
        if on_server_thread() {
            drop(last);
        } else {
            submit(Box::new(move || drop(last)));
        }
    }
}

/// Jobs, and how many workers there are for them.
#[derive(Default)]
struct Pool {
    jobs: VecDeque<Job>,
    /// Workers waiting for a job.
    idle: usize,
    /// Workers on their way, of which the control thread has yet to start `wanted`.
    starting: usize,
    wanted: usize,
}

/// `jobs.len() <= idle + starting` after each [`submit`]: no job ever waits for another one to finish.
#[derive(Default)]
struct Group {
    pool: Mutex<Pool>,
    for_workers: Condvar,
    for_control: Condvar,
    /// Whether there is a control thread at all; without one jobs run where they are submitted.
    alive: bool,
}

/// The group, which starts at first use.
fn group() -> &'static Group {
    static GROUP: OnceLock<Group> = OnceLock::new();
    static STARTED: std::sync::Once = std::sync::Once::new();
    let group = GROUP.get_or_init(|| {
        raw::steady_malloc();
        let control = || {
            MEMBER.set(true);
            let _ = raw::private_umask();
            // Without a table of our own (a sandbox that forbids the call) all else still holds.
            if raw::private_fd_table().is_ok() {
                prepare_table();
            }
            control(group());
        };
        let thread = std::thread::Builder::new().name("chaosfs-control".to_owned());
        let alive = raw::with_signals_blocked(|| thread.spawn(control)).is_ok();
        Group { alive, ..Group::default() }
    });
    STARTED.call_once(|| {
        if !group.alive {
            log::warn!("chaosfs cannot start a thread: its mounts are served without protection at exit");
        }
    });
    group
}

/// Plugs the low numbers of the new table and gives it room. Failing means less comfort, not less safety.
fn prepare_table() {
    let scarce = rustix::process::getrlimit(Resource::Nofile).current.is_some_and(|limit| limit < SCARCE);
    // As a path only: it can be neither read nor written, and it is no directory to look names up in.
    let path_only = |path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let Ok(first) = path_only("/dev/null").or_else(|_| path_only("/")) else { return };
    if let Ok(high) = rustix::io::fcntl_dupfd_cloexec(&first, ROOM) {
        drop(high);
    }
    for _ in 4..if scarce { PLUGGED_SCARCE } else { PLUGGED } {
        match rustix::io::fcntl_dupfd_cloexec(&first, 3) {
            Ok(plug) => std::mem::forget(plug),
            Err(_) => break,
        }
    }
    std::mem::forget(first);
}

/// The control thread: starts a worker each time one is wanted.
fn control(group: &'static Group) {
    let mut pool = group.pool.lock();
    loop {
        if pool.wanted == 0 {
            group.for_control.wait(&mut pool);
        } else {
            pool.wanted -= 1;
            drop(pool);
            start_worker(group);
            pool = group.pool.lock();
        }
    }
}

fn submit(job: Job) {
    let group = group();
    if !group.alive {
        return run(job);
    }
    let mut pool = group.pool.lock();
    pool.jobs.push_back(job);
    if pool.jobs.len() <= pool.idle + pool.starting {
        drop(pool);
        group.for_workers.notify_one();
        return;
    }
    pool.starting += 1;
    if on_server_thread() {
        drop(pool);
        start_worker(group);
    } else {
        pool.wanted += 1;
        drop(pool);
        group.for_control.notify_one();
    }
}

/// Starts a worker from a server thread, whose table it shares.
fn start_worker(group: &'static Group) {
    let thread = std::thread::Builder::new().name("chaosfs-worker".to_owned());
    if thread.spawn(move || work(group)).is_ok() {
        return;
    }
    // No thread to be had: better late in this one than never.
    let mut pool = group.pool.lock();
    pool.starting -= 1;
    let job = if pool.jobs.len() > pool.idle + pool.starting { pool.jobs.pop_front() } else { None };
    drop(pool);
    if let Some(job) = job {
        run(job);
    }
}

fn work(group: &'static Group) {
    MEMBER.set(true);
    let mut pool = group.pool.lock();
    pool.starting -= 1;
    loop {
        if let Some(job) = pool.jobs.pop_front() {
            drop(pool);
            run(job);
            pool = group.pool.lock();
            continue;
        }
        if pool.idle >= KEPT_IDLE {
            return;
        }
        pool.idle += 1;
        while pool.jobs.is_empty() {
            group.for_workers.wait(&mut pool);
        }
        pool.idle -= 1;
    }
}

/// Runs a job; a panic in it (which the panic hook has reported) must not take the thread along.
pub(super) fn run(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}
