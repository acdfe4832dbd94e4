//! The shared truth behind every client: one backing directory, its engine and its clock.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::host::preflight;
use crate::host::server::{self, Home};
use crate::model::history::History;
use crate::model::time::Time;
use crate::mount::Mount;
use crate::options::{Options, keep_from_env};
use crate::shared::Shared;

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

/// The longest that `settle` waits in real time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How a backing directory is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackingOptions {
    pub(crate) clock: Option<Clock>,
    pub(crate) memory: usize,
    pub(crate) history: usize,
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
        let temp = shared.temp.lock().upgrade();
        Ok(Backing { shared, _temp: temp })
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
        let dir = Arc::new(dir);
        let backing = self.open(dir.path())?;
        *backing.shared.temp.lock() = Arc::downgrade(&dir);
        Ok(Backing { _temp: Some(dir), ..backing })
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

    /// What `client` sees at `path`, why, how old that is, and what the truth is. The path is relative to the mount; one that
    /// begins with the mountpoint, or with the backing directory, is understood as well.
    ///
    /// # Errors
    /// [`Error::NoSuchClient`].
    pub fn explain(&self, client: &str, path: impl AsRef<Path>) -> Result<String> {
        let asked = self.shared.relative(path.as_ref()).to_owned();
        let (shared, name) = (self.shared.clone(), client.to_owned());
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
