//! The shared truth behind every client: one backing directory, its engine and its clock.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::{Clock, Due};
use crate::engine::{Calendar, Engine, Limits};
use crate::error::{BackingProblem, Error, Result};
use crate::host::server::{self, Home};
use crate::host::{descriptors, preflight};
use crate::model::history::History;
use crate::model::ids::ClientId;
use crate::model::time::Time;
use crate::mount::Mount;
use crate::options::{Options, keep_from_env};

/// A directory that several clients share: "the server". All mounts of one directory in one process share one `Backing`,
/// whether they were made through it or not. Clones are the same one; it lives as long as any of them or a mount does.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use chaosfs::{Backing, Clock, Options};
///
/// let backing = Backing::options().clock(Clock::manual()).temp()?;
/// let a = backing.mount(Options::new().client_id("a"))?;
/// let b = backing.mount(Options::new().client_id("b"))?;
/// std::fs::write(a.join("f"), "new")?;
/// assert!(!b.join("f").exists()); // names travel for 1.2 s by default
/// backing.settle()?;
/// assert_eq!(std::fs::read_to_string(b.join("f"))?, "new");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Backing {
    shared: Home<Shared>,
    /// A directory that was made for this backing and goes with it.
    _temp: Option<Arc<tempfile::TempDir>>,
}

/// What all handles on a backing and all of its mounts share. Holds descriptors: dropped on server threads.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    clock: Clock,
    path: PathBuf,
    key: (u64, u64),
    /// Where each client is mounted, while it is.
    mounts: Mutex<HashMap<ClientId, PathBuf>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The longest that `settle` waits in real time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Every backing that is open in this process, by device and inode number.
static OPEN: LazyLock<Mutex<OpenBackings>> = LazyLock::new(Mutex::default);

type OpenBackings = HashMap<(u64, u64), Weak<Shared>>;

/// How a backing directory is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackingOptions {
    clock: Option<Clock>,
    memory: usize,
    history: usize,
}

impl BackingOptions {
    /// Whose time decides what is late. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Bytes of memory for past states and unflushed writes together. Default 64 MiB. When it is used up the oldest past
    /// states are given up first, so that someone sees a change earlier than asked, and then the oldest unflushed writes
    /// are flushed early; the history says so. Never the other way round: nothing is lost.
    #[must_use]
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// How many events the history keeps; the oldest go first. Default 16,384. 0 keeps none.
    #[must_use]
    pub fn history_limit(mut self, events: usize) -> Self {
        self.history = events;
        self
    }

    /// Opens the directory `path`.
    ///
    /// # Errors
    /// [`Error::Backing`] when it is no directory that this user can use, or is open in this process already with
    /// another clock.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Backing> {
        let path = preflight::check_backing(path.as_ref())?;
        let shared = server::call(move || Shared::open(path, self))?;
        Ok(Backing { shared, _temp: None })
    }

    /// Opens a new temporary directory, which is removed with the last handle. `CHAOSFS_KEEP=1` keeps it.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no room for one.
    pub fn temp(self) -> Result<Backing> {
        let made =
            tempfile::Builder::new().prefix("chaosfs-backing-").disable_cleanup(keep_from_env()).tempdir();
        let io = |source| Error::Io { doing: "make a directory in", path: std::env::temp_dir(), source };
        let dir = made.map_err(io)?;
        let backing = self.open(dir.path())?;
        Ok(Backing { _temp: Some(Arc::new(dir)), ..backing })
    }
}

impl Shared {
    /// Runs on a server thread: the engine holds descriptors.
    fn open(path: PathBuf, options: BackingOptions) -> Result<Home<Shared>> {
        let io = |source: std::io::Error| Error::Io { doing: "open", path: path.clone(), source };
        let meta = std::fs::metadata(&path).map_err(io)?;
        let key = (meta.dev(), meta.ino());
        let mut open = OPEN.lock();
        if let Some(shared) = open.get(&key).and_then(Weak::upgrade) {
            let shared = Home::new(shared);
            drop(open);
            return match options.clock {
                Some(clock) if !clock.is_same(&shared.clock) => {
                    Err(Error::Backing { path, problem: BackingProblem::AlreadyOpen })
                }
                _ => Ok(shared),
            };
        }
        let clock = options.clock.unwrap_or_default();
        let calendar = Calendar { epoch: clock.epoch(), decides: clock.is_manual() };
        let limits =
            Limits { memory: options.memory, events: options.history, dir_fds: descriptors::spare() };
        let alarm = Arc::new(Alarm {
            engine: OnceLock::new(),
            clock: clock.clone(),
            set_for: Mutex::new(Time::NEVER),
        });
        let theirs = alarm.clone();
        let engine = Engine::open(&path, calendar, limits, Box::new(move |at| theirs.set(at)));
        let engine = Arc::new(engine.map_err(|e| io(e.into()))?);
        let _ = alarm.engine.set(Arc::downgrade(&engine));
        let shared = Arc::new(Shared { engine, clock, path, key, mounts: Mutex::default() });
        shared.clock.listen(Arc::new(Ticker(Arc::downgrade(&shared))));
        open.retain(|_, shared| shared.strong_count() > 0);
        open.insert(key, Arc::downgrade(&shared));
        Ok(Home::new(shared))
    }

    /// Makes sure that everything that a client's kernel had to tell so far has been served.
    pub(crate) fn drain(&self, client: ClientId) {
        let mountpoint = self.mounts.lock().get(&client).cloned();
        if let Some(mountpoint) = mountpoint {
            // Requests of one mount are served in order, and this one is answered always.
            let _ = rustix::fs::statfs(&mountpoint);
        }
    }

    fn drain_all(&self) {
        let clients: Vec<ClientId> = self.mounts.lock().keys().copied().collect();
        clients.into_iter().for_each(|client| self.drain(client));
    }

    pub(crate) fn mounted(&self, client: ClientId, mountpoint: PathBuf) {
        self.mounts.lock().insert(client, mountpoint);
    }

    pub(crate) fn unmounting(&self, client: ClientId) {
        self.mounts.lock().remove(&client);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        // Another may have taken the place since the last handle went.
        if open.get(&self.key).is_some_and(|shared| shared.strong_count() == 0) {
            open.remove(&self.key);
        }
    }
}

/// Wakes an engine on the system's clock when something becomes due.
struct Alarm {
    engine: OnceLock<Weak<Engine>>,
    clock: Clock,
    /// The earliest time for which the timer is set.
    set_for: Mutex<Time>,
}

impl Alarm {
    fn set(self: &Arc<Self>, at: Time) {
        let Some(wait) = self.clock.real_wait(at) else { return };
        let mut set_for = self.set_for.lock();
        if *set_for <= at {
            return;
        }
        *set_for = at;
        drop(set_for);
        let alarm = self.clone();
        #[allow(clippy::disallowed_methods)] // the system's clock passes in real time
        server::at(Instant::now() + wait, move || {
            // Flushing takes as long as the disk takes: not on the timer's thread.
            server::start(move || {
                *alarm.set_for.lock() = Time::NEVER;
                let Some(engine) = alarm.engine.get().and_then(Weak::upgrade) else { return };
                if let Some(next) = engine.run_due(alarm.clock.now()) {
                    alarm.set(next);
                }
            });
        });
    }
}

/// Does what is due when a manual clock is moved.
struct Ticker(Weak<Shared>);

impl Ticker {
    /// The engine is only ever held on server threads: it might be the last to hold it.
    fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&Engine) -> T + Send + 'static) -> Option<T> {
        let shared = self.0.clone();
        server::call(move || shared.upgrade().map(|shared| ask(&shared.engine)))
    }
}

impl Due for Ticker {
    fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    fn next(&self) -> Option<Time> {
        self.ask(Engine::next_due).flatten()
    }

    fn run(&self, now: Time) {
        self.ask(move |engine| engine.run_due(now));
    }
}

impl Backing {
    /// Opens the directory `path` with the system's clock, or the `Backing` that this process has open on it.
    ///
    /// # Errors
    /// [`Error::Backing`] when it is no directory that this user can use.
    pub fn open(path: impl AsRef<Path>) -> Result<Backing> {
        Backing::options().open(path)
    }

    /// Opens a new temporary directory, which is removed with the last handle.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no room for one.
    pub fn temp() -> Result<Backing> {
        Backing::options().temp()
    }

    /// How to open: with a manual clock, other limits.
    pub fn options() -> BackingOptions {
        BackingOptions { clock: None, memory: 64 << 20, history: 16_384 }
    }

    /// Mounts one more client.
    ///
    /// # Errors
    /// See [`mount`](crate::mount()).
    pub fn mount(&self, options: Options) -> Result<Mount> {
        Mount::new(self.clone(), options)
    }

    /// The directory itself: always as the truth is, and the place to look at it from outside.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Ends all lateness that has built up so far: flushes every client's writes, then lets the time pass (moves a manual
    /// clock, waits on the system's) until every delay and every TTL is over. After it every view equals the truth.
    ///
    /// # Errors
    /// [`Error::CannotSettle`] when an operation hangs (release it first), or when it would take for ever, or more than a
    /// minute of real time (use a manual clock or [`settle_now`](Backing::settle_now)).
    pub fn settle(&self) -> Result<()> {
        self.refuse_parked()?;
        let now = self.clock().now();
        let shared = self.shared.clone();
        let settled = server::call(move || {
            shared.drain_all();
            shared.engine.flush_all(now)
        });
        let wait = settled.since(now);
        if settled == Time::NEVER || (!self.clock().is_manual() && wait > LONGEST_WAIT) {
            let why = format!(
                "it takes {} s until the last delay and the last TTL are over\n  help: use `settle_now()`, or a manual clock",
                wait.as_secs()
            );
            return Err(Error::CannotSettle { path: self.path().to_owned(), why });
        }
        self.clock().advance(wait);
        let (shared, now) = (self.shared.clone(), self.clock().now());
        server::call(move || shared.engine.expire(now));
        Ok(())
    }

    /// The same without letting time pass: everything becomes visible at once and every cache is dropped.
    ///
    /// # Errors
    /// [`Error::CannotSettle`] when an operation hangs; release it first.
    pub fn settle_now(&self) -> Result<()> {
        self.refuse_parked()?;
        let (shared, now) = (self.shared.clone(), self.clock().now());
        server::call(move || {
            shared.drain_all();
            shared.engine.flush_all(now);
            shared.engine.reveal_all();
        });
        Ok(())
    }

    fn refuse_parked(&self) -> Result<()> {
        let hung: Vec<String> = self
            .shared
            .engine
            .clients()
            .iter()
            .filter(|c| c.parked > 0)
            .map(|c| format!("{} operation(s) of client `{}`", c.parked, c.name))
            .collect();
        if hung.is_empty() {
            return Ok(());
        }
        let why =
            format!("still hanging: {}\n  help: release or drop the fault that holds them", hung.join(", "));
        Err(Error::CannotSettle { path: self.path().to_owned(), why })
    }

    /// What `client` sees at `path` (relative to the mount), why, how old that is, and what the truth is.
    ///
    /// # Errors
    /// [`Error::NoSuchClient`].
    pub fn explain(&self, client: &str, path: impl AsRef<Path>) -> Result<String> {
        let (shared, name, asked) = (self.shared.clone(), client.to_owned(), path.as_ref().to_owned());
        let now = self.clock().now();
        let said = server::call(move || {
            shared.drain_all();
            shared.engine.explain(&name, &asked, now)
        });
        said.ok_or_else(|| {
            let known: Vec<String> =
                self.shared.engine.clients().iter().map(|c| format!("`{}`", c.name)).collect();
            let known = if known.is_empty() {
                "nobody is mounted".into()
            } else {
                format!("there is {}", known.join(", "))
            };
            Error::NoSuchClient { client: client.to_owned(), path: self.path().to_owned(), known }
        })
    }

    /// What has happened so far, of all clients, in order.
    pub fn history(&self) -> History {
        let shared = self.shared.clone();
        server::call(move || {
            shared.drain_all();
            shared.engine.history()
        })
    }

    /// How many bytes of memory are held for past states and unflushed writes: at most the memory budget.
    pub fn memory_held(&self) -> usize {
        self.shared.engine.held()
    }

    pub(crate) fn shared(&self) -> &Home<Shared> {
        &self.shared
    }
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backing")
            .field("path", &self.path())
            .field("clock", self.clock())
            .finish_non_exhaustive()
    }
}
