//! One mounted client, held by a guard.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backing::Backing;
use crate::error::{Error, MountpointProblem, Result};
use crate::fault::FaultGuard;
use crate::fuse::session::{Serving, serve};
use crate::fuse::{Adapter, Core};
use crate::host::mounting::Spec;
use crate::host::server::{self, Home};
use crate::host::{preflight, sweep};
use crate::model::fault::Fault;
use crate::model::ids::ClientId;
use crate::model::knobs::Knobs;
use crate::options::{Options, exact_from_env, seed_from_env};
use crate::shared::Shared;

/// A mounted client of a backing directory: a guard. The mount is usable as long as the guard lives and is taken away when
/// it drops, within its patience, whoever still uses it.
///
/// Three endings: dropping it logs what went wrong; [`unmount`](Mount::unmount) returns it; a process that is killed leaves
/// a dead mount, which the next process that uses chaosfs sweeps away.
///
/// Declare it before the temporary directories that hold it, so that those are removed after it is unmounted.
#[must_use = "the mount goes away with this guard; bind it to a name such as `m` or `_m` (`_` alone drops it at once)"]
pub struct Mount {
    live: Option<Live>,
    core: Home<Core>,
    backing: Backing,
    path: PathBuf,
    client: ClientId,
    name: String,
    seed: u64,
    patience: Duration,
}

/// What ends with the mount.
struct Live {
    serving: Serving,
    /// A mountpoint that was made for this mount and goes with it.
    made: Option<PathBuf>,
}

impl Mount {
    pub(crate) fn new(backing: Backing, options: Options) -> Result<Mount> {
        let Options { knobs, client_id, seed, at, patience, park_limit, allow_other, exact } = options;
        knobs.validate()?;
        if client_id.as_deref() == Some("") {
            let expected = "give a name that is not empty, or none";
            return Err(Error::InvalidValue { name: "client_id".into(), value: String::new(), expected });
        }
        let seed = match seed.map_or_else(seed_from_env, |seed| Ok(Some(seed)))? {
            Some(seed) => seed,
            None => process_seed(),
        };
        let exact = exact.map_or_else(exact_from_env, Ok)?;
        preflight::check_fuse()?;
        let (mountpoint, made) = if let Some(at) = at {
            (preflight::check_mountpoint(&at, backing.path())?, None)
        } else {
            let dir = make_mountpoint()?;
            (dir.clone(), Some(MadeDir(Some(dir))))
        };
        let shared = backing.shared().clone();
        let clock = backing.clock().clone();
        let spec = Spec {
            allow_other: allow_other.unwrap_or_else(|| rustix::process::geteuid().is_root()),
            ..Spec::new(mountpoint)
        };
        let (core, name, serving) = server::call(move || {
            if let Some(backing) = Shared::around(&spec.mountpoint) {
                let problem = MountpointProblem::InBacking(backing);
                return Err(Error::Mountpoint { path: spec.mountpoint, problem });
            }
            let engine = shared.engine.clone();
            let Some((client, name, armed)) = engine.join(client_id.as_deref(), seed, knobs) else {
                return Err(Error::InvalidValue {
                    name: "client_id".into(),
                    value: client_id.unwrap_or_default(),
                    expected: "another client of this backing has this name; give one that is free",
                });
            };
            let drained = Arc::downgrade(shared.arc());
            let drain = Box::new(move |client| {
                if let Some(shared) = drained.upgrade() {
                    shared.drain(client);
                }
            });
            let core = Arc::new(Core {
                engine,
                clock,
                client,
                armed,
                lane: !exact,
                tells: AtomicBool::new(false),
                park_limit,
                drain,
                panicked: Mutex::new(None),
            });
            match serve(Adapter(core.clone()), spec) {
                Ok(serving) => {
                    shared.mounted(client, serving.mountpoint().to_owned());
                    let lane = core.tells.load(Ordering::Acquire);
                    if let Some(kernel) = serving.kernel(lane) {
                        core.engine.mounted(client, kernel, lane);
                    }
                    Ok((Home::new(core), name.to_string(), serving))
                }
                Err(e) => {
                    core.engine.leave(client, core.clock.now());
                    Err(e)
                }
            }
        })?;
        let path = serving.mountpoint().to_owned();
        let live = Live { serving, made: made.and_then(MadeDir::keep) };
        let client = core.client;
        Ok(Mount { live: Some(live), core, backing, path, client, name, seed, patience })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the mount.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// The backing directory that this is a view of.
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// The name of this client.
    pub fn client_id(&self) -> &str {
        &self.name
    }

    /// What this client's chance is drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the kernel may answer by itself at this moment: see [`Options::exact`](crate::Options::exact).
    pub fn is_fast(&self) -> bool {
        self.core.engine.is_fast(self.client)
    }

    /// The knobs in force.
    pub fn knobs(&self) -> Knobs {
        self.core.engine.knobs(self.client)
    }

    /// Turns the knobs. They bind operations that start after this call; what is due already stays due.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] when a knob has a value that it cannot have.
    pub fn set_knobs(&self, knobs: Knobs) -> Result<()> {
        knobs.validate()?;
        self.core.engine.set_knobs(self.client, knobs);
        Ok(())
    }

    /// Puts a fault in force on this client, until the guard is dropped.
    ///
    /// # Panics
    /// When the path of the fault is not a glob; [`try_inject`](Mount::try_inject) returns that.
    pub fn inject(&self, fault: Fault) -> FaultGuard {
        self.try_inject(fault).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same, for faults whose path comes from outside of the test.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] when the path of the fault is not a glob.
    #[allow(clippy::needless_pass_by_value)] // as `inject`
    pub fn try_inject(&self, fault: Fault) -> Result<FaultGuard> {
        FaultGuard::new(&self.core, self.client, &fault)
    }

    /// How many operations of this client hang at this moment.
    pub fn parked(&self) -> usize {
        self.core.engine.parked(self.client)
    }

    /// Waits until at least `n` operations of this client hang, at most for `limit` of real time. Whether they do.
    #[must_use = "it returns false when the time is over"]
    #[allow(clippy::disallowed_methods)] // programs hang in real time
    pub fn wait_parked(&self, n: usize, limit: Duration) -> bool {
        self.core.engine.wait_parked(self.client, n, Instant::now() + limit)
    }

    /// Waits until someone else has taken the mount away (`umount`), at most for `limit` of real time; whether that happened.
    pub fn wait_unmounted(&self, limit: Duration) -> bool {
        self.live.as_ref().is_none_or(|live| live.serving.wait_ended(limit))
    }

    /// Takes the mount away and says what was wrong with that. It is gone in any case: whoever still used it gets errors.
    ///
    /// # Errors
    /// [`Error::Busy`] with who used it; [`Error::Unmount`] when it did not go cleanly; [`Error::HandlerPanicked`] when
    /// chaosfs itself has failed while it was mounted.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(Live { serving, made }) = self.live.take() else { return Ok(()) };
        let (shared, core, client) = (self.backing.shared().clone(), self.core.clone(), self.client);
        // Whatever is parked would keep the mount busy and its callers waiting.
        server::call(move || {
            shared.unmounting(client);
            core.engine.close_parking(client, core.clock.now());
        });
        let stopped = serving.stop(self.patience);
        let core = self.core.clone();
        let panicked = server::call(move || {
            core.engine.leave(client, core.clock.now());
            core.panicked.lock().take()
        });
        drop(MadeDir(made));
        stopped?;
        match panicked {
            Some(p) => Err(Error::HandlerPanicked {
                client: self.name.clone(),
                op: p.op.to_string(),
                message: p.message,
            }),
            None => Ok(()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() && self.live.is_some() && self.knobs().drop_prob > 0.0 {
            say(&format!(
                "client `{}` had seed {}; CHAOSFS_SEED={} draws the same again",
                self.name, self.seed, self.seed
            ));
        }
        if let Err(e) = self.end() {
            say(&e.to_string());
        }
    }
}

/// One random seed for all clients of this process that are given none, so that one variable draws them all again.
fn process_seed() -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    *SEED
}

/// Tells what cannot be returned: to the log, or where nobody listens there, to standard error, which tests show.
pub(crate) fn say(text: &str) {
    if log::log_enabled!(log::Level::Warn) {
        log::warn!("{text}");
    } else {
        eprintln!("chaosfs: {text}");
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount")
            .field("path", &self.path)
            .field("client_id", &self.name)
            .field("backing", &self.backing)
            .finish_non_exhaustive()
    }
}

/// A directory that was made to mount on. Only ever removed when it is empty: were it still a mount, nothing of what is
/// mounted there may go.
struct MadeDir(Option<PathBuf>);

impl MadeDir {
    fn keep(mut self) -> Option<PathBuf> {
        self.0.take()
    }
}

impl Drop for MadeDir {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_dir(path);
        }
    }
}

fn make_mountpoint() -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix(sweep::OWN_PREFIX).tempdir();
    let dir = made.and_then(|dir| std::fs::canonicalize(dir.keep()));
    dir.map_err(|source| Error::Io { doing: "make a mountpoint in", path: std::env::temp_dir(), source })
}
