//! What the handles on one backing directory share: its engine, its clock, who is mounted where; and the effects that
//! become due while nobody calls.
//!
//! Everything here holds descriptors of the server threads, or leads to them: it is used and dropped there.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::backing::BackingOptions;
use crate::clock::{Clock, Due};
use crate::engine::{Calendar, Engine, Limits};
use crate::error::{BackingProblem, Error, Result};
use crate::host::descriptors;
use crate::host::mounting;
use crate::host::server::{self, Home};
use crate::model::ids::ClientId;
use crate::model::time::Time;

/// What all handles on a backing and all of its mounts share. Holds descriptors: dropped on server threads.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Clock,
    pub(crate) path: PathBuf,
    key: (u64, u64),
    /// Where each client is mounted, while it is.
    mounts: Mutex<HashMap<ClientId, PathBuf>>,
    /// The temporary directory that this is, if it is one: it stays as long as any handle.
    pub(crate) temp: Mutex<Weak<tempfile::TempDir>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Every backing that is open in this process, by device and inode number.
static OPEN: LazyLock<Mutex<OpenBackings>> = LazyLock::new(Mutex::default);

type OpenBackings = HashMap<(u64, u64), Weak<Shared>>;

impl Shared {
    /// Runs on a server thread: the engine holds descriptors.
    pub(crate) fn open(path: PathBuf, options: BackingOptions) -> Result<Home<Shared>> {
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
        let alarm =
            Arc::new(Alarm { engine: OnceLock::new(), clock: clock.clone(), set_for: Mutex::default() });
        let theirs = alarm.clone();
        let engine = Engine::open(&path, calendar, limits, Box::new(move |at| theirs.set(at)));
        let engine = Arc::new(engine.map_err(|e| io(e.into()))?);
        let _ = alarm.engine.set(Arc::downgrade(&engine));
        let shared =
            Arc::new(Shared { engine, clock, path, key, mounts: Mutex::default(), temp: Mutex::default() });
        shared.clock.listen(Arc::new(Ticker(Arc::downgrade(&shared))));
        open.retain(|_, shared| shared.strong_count() > 0);
        open.insert(key, Arc::downgrade(&shared));
        Ok(Home::new(shared))
    }

    /// The open backing directory of this process in which `path` lies, if there is one. Runs on a server thread.
    pub(crate) fn around(path: &Path) -> Option<PathBuf> {
        let open: Vec<Arc<Shared>> = OPEN.lock().values().filter_map(Weak::upgrade).collect();
        open.iter().find(|shared| path.starts_with(&shared.path)).map(|shared| shared.path.clone())
    }

    /// Makes sure that everything that a client's kernel had to tell so far has been served.
    pub(crate) fn drain(&self, client: ClientId) {
        let mountpoint = self.mounts.lock().get(&client).cloned();
        if let Some(mountpoint) = mountpoint {
            mounting::round_trip(mountpoint);
        }
    }

    /// The same for all clients.
    pub(crate) fn drain_all(&self) {
        let clients: Vec<ClientId> = self.mounts.lock().keys().copied().collect();
        clients.into_iter().for_each(|client| self.drain(client));
    }

    /// A path below the backing directory or one of its mountpoints, relative to that; others stay as they are.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        let mounts = self.mounts.lock();
        let known = mounts.values().chain([&self.path]);
        known.into_iter().find_map(|base| path.strip_prefix(base).ok()).unwrap_or(path)
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
    /// The times for which a timer is set; none is set for later than one that is there.
    set_for: Mutex<BTreeSet<Time>>,
}

impl Alarm {
    fn set(self: &Arc<Self>, at: Time) {
        let Some(wait) = self.clock.real_wait(at) else { return };
        let mut set_for = self.set_for.lock();
        if set_for.first().is_some_and(|first| *first <= at) {
            return;
        }
        set_for.insert(at);
        drop(set_for);
        let alarm = self.clone();
        #[allow(clippy::disallowed_methods)] // the system's clock passes in real time
        server::at(Instant::now() + wait, move || {
            // Flushing takes as long as the disk takes: not on the timer's thread.
            server::start(move || {
                alarm.set_for.lock().remove(&at);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn alarms_of_short_delays_do_not_pile_up_behind_a_long_one() {
        let alarm =
            Arc::new(Alarm { engine: OnceLock::new(), clock: Clock::system(), set_for: Mutex::default() });
        let after = |hours: u64| Time::ZERO.after(Duration::from_secs(3600 * hours));
        for (hours, set) in [(4, 1), (4, 1), (5, 1), (2, 2), (3, 2), (4, 2)] {
            alarm.set(after(hours));
            assert_eq!(alarm.set_for.lock().len(), set, "after the one in {hours} h");
        }
        // The one in two hours has rung: what comes next is set already.
        alarm.set_for.lock().remove(&after(2));
        alarm.set(after(4));
        assert_eq!(alarm.set_for.lock().len(), 1);
    }
}
