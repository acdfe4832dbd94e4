//! How one client is mounted: its knobs and its placement. The only file that reads the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backing::Backing;
use crate::error::{Error, Result};
use crate::model::knobs::Knobs;
use crate::mount::Mount;
use crate::pair::DualMount;

/// Everything about one mount besides its backing directory: what it simulates ([`Knobs`]) and where it is.
///
/// Setters consume and return; the knobs' setters are here too, so that one chain says it all. `Clone` it to mount
/// several clients alike.
///
/// ```
/// # use std::time::Duration;
/// # fn main() -> chaosfs::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let m = chaosfs::Options::new().client_id("writer").meta_ttl(Duration::from_millis(500)).seed(42).mount(&dir)?;
/// assert_eq!((m.client_id(), m.seed()), ("writer", 42));
/// # m.unmount()
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    pub(crate) knobs: Knobs,
    pub(crate) client_id: Option<String>,
    pub(crate) seed: Option<u64>,
    pub(crate) at: Option<PathBuf>,
    pub(crate) patience: Duration,
    pub(crate) park_limit: Duration,
    pub(crate) allow_other: Option<bool>,
    pub(crate) exact: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

macro_rules! knob_setters {
    ($($(#[$doc:meta])* $name:ident($arg:ty);)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $arg) -> Self {
            self.knobs = self.knobs.$name(value);
            self
        })*
    };
}

impl Options {
    /// The default knobs ([`Knobs::eventual`]), a fresh mountpoint, a client name that is free, a random seed.
    pub fn new() -> Self {
        Options {
            knobs: Knobs::default(),
            client_id: None,
            seed: None,
            at: None,
            patience: Duration::from_secs(5),
            park_limit: Duration::from_secs(10),
            allow_other: None,
            exact: None,
        }
    }

    /// The same, with what the environment says: `CHAOSFS_META_TTL_MS`, `CHAOSFS_WRITE_DELAY_MS`,
    /// `CHAOSFS_RENAME_DELAY_MS` (milliseconds), `CHAOSFS_DROP_PROB` (0 to 1), `CHAOSFS_SEED` and `CHAOSFS_CLIENT_ID`.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] with the variable whose value cannot be read.
    pub fn from_env() -> Result<Self> {
        const MS: &str = "give a whole number of milliseconds";
        const PROBABILITY: &str = "give a probability from 0 (never) to 1 (always)";
        let mut options = Options::new();
        if let Some(ms) = env("CHAOSFS_META_TTL_MS", MS)? {
            options = options.meta_ttl(Duration::from_millis(ms));
        }
        if let Some(ms) = env("CHAOSFS_WRITE_DELAY_MS", MS)? {
            options = options.write_delay(Duration::from_millis(ms));
        }
        if let Some(ms) = env("CHAOSFS_RENAME_DELAY_MS", MS)? {
            options = options.rename_delay(Duration::from_millis(ms));
        }
        if let Some(p) = env("CHAOSFS_DROP_PROB", PROBABILITY)? {
            options = options.drop_prob(p);
            options.knobs.validate().map_err(|_| bad("CHAOSFS_DROP_PROB", &p.to_string(), PROBABILITY))?;
        }
        options.seed = seed_from_env()?;
        options.client_id = env("CHAOSFS_CLIENT_ID", "give a name")?;
        Ok(options)
    }

    /// All knobs at once, such as a preset.
    #[must_use]
    pub fn knobs(mut self, knobs: Knobs) -> Self {
        self.knobs = knobs;
        self
    }

    knob_setters! {
        /// See [`Knobs::meta_ttl`].
        meta_ttl(Duration);
        /// See [`Knobs::file_ttl`].
        file_ttl(Duration);
        /// See [`Knobs::dir_ttl`].
        dir_ttl(Duration);
        /// See [`Knobs::negative_ttl`].
        negative_ttl(Duration);
        /// See [`Knobs::write_delay`].
        write_delay(Duration);
        /// See [`Knobs::rename_delay`].
        rename_delay(Duration);
        /// See [`Knobs::close_to_open`].
        close_to_open(bool);
        /// See [`Knobs::revalidate_on_open`].
        revalidate_on_open(bool);
        /// See [`Knobs::publish_on_close`].
        publish_on_close(bool);
        /// See [`Knobs::exclusive_fresh`].
        exclusive_fresh(bool);
        /// See [`Knobs::reorder`].
        reorder(bool);
        /// See [`Knobs::drop_prob`].
        drop_prob(f64);
    }

    /// The name of this client in the history, in `explain`, and in the draws. Default `c1`, `c2`, ...
    #[must_use]
    pub fn client_id(mut self, name: impl Into<String>) -> Self {
        self.client_id = Some(name.into());
        self
    }

    /// What chance is drawn from, together with the client's name. Default: `CHAOSFS_SEED` if that is set, otherwise one
    /// random number for the whole process; a test that fails with a `drop_prob` prints it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Where to mount: an empty directory on which nothing is mounted. Default: a new temporary directory that goes with
    /// the guard.
    #[must_use]
    pub fn at(mut self, mountpoint: impl AsRef<Path>) -> Self {
        self.at = Some(mountpoint.as_ref().to_owned());
        self
    }

    /// How long dropping or unmounting may take in real time. Default 5 s.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// How long an operation hangs at most, in real time, before it fails with `EIO`: nothing hangs for ever. Default 10 s.
    #[must_use]
    pub fn patience_parked(mut self, limit: Duration) -> Self {
        self.park_limit = limit;
        self
    }

    /// Whether other users may enter the mount. Default: yes for root, no for others, who need `user_allow_other` in
    /// `/etc/fuse.conf` for it.
    #[must_use]
    pub fn allow_other(mut self, on: bool) -> Self {
        self.allow_other = Some(on);
        self
    }

    /// Whether every look of a program reaches chaosfs. Default: yes, unless `CHAOSFS_EXACT` is 0.
    ///
    /// `exact(false)` gives the mount fast lanes: the kernel answers look-ups, `stat`s and reads that it has been answered
    /// before, at its own speed. They are open while all of this holds, and open again when it does
    /// ([`Mount::is_fast`](crate::Mount::is_fast)):
    /// - the client is the only one of its backing in this process;
    /// - its knobs have no TTL, no delay and no `drop_prob` ([`Knobs::strict`](crate::Knobs::strict));
    /// - no fault is in force on it, whatever it is for;
    /// - the kernel is Linux 6.16 or newer.
    ///
    /// What ends one of these waits until everything that the kernel knew has been taken back, so programs see the same
    /// with lanes and without, but for this:
    /// - Nobody should change the backing directory behind the mount: who does is noticed a second or so late.
    /// - Looks that the kernel answered are not in the [history](crate::Backing::history).
    /// - A file that was opened for reading while a lane was open is read in whole pages, and ahead, as long as it is open.
    ///   A fault that is injected later hits it, but may count one `read` as two hits, and may hit bytes that the program
    ///   did not ask for. Open files after [`inject`](crate::Mount::inject) to have exact counts.
    /// - Names in directories that not everybody may pass through (mode without all three `x`, or an ACL) are asked for
    ///   every time.
    #[must_use]
    pub fn exact(mut self, on: bool) -> Self {
        self.exact = Some(on);
        self
    }

    /// Mounts the directory `backing`.
    ///
    /// # Errors
    /// See [`mount`](crate::mount()).
    pub fn mount(self, backing: impl AsRef<Path>) -> Result<Mount> {
        Backing::open(backing)?.mount(self)
    }

    /// Mounts two clients, both with these options, over `base/backing`, at `base/writer` and `base/reader`.
    ///
    /// # Errors
    /// See [`mount`](crate::mount()).
    pub fn dual_mount(self, base: impl AsRef<Path>) -> Result<DualMount> {
        DualMount::new(base.as_ref(), self.clone(), self)
    }
}

/// The value of a variable, if it is set.
#[allow(clippy::disallowed_methods)] // this is the door through which the environment comes in
fn env<T: std::str::FromStr>(name: &str, expected: &'static str) -> Result<Option<T>> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let parsed = value.to_str().and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| bad(name, &value.to_string_lossy(), expected))
}

/// The error of a variable whose value cannot be used.
fn bad(name: &str, value: &str, expected: &'static str) -> Error {
    Error::InvalidValue { name: name.to_owned(), value: value.to_owned(), expected }
}

/// `CHAOSFS_SEED`.
pub(crate) fn seed_from_env() -> Result<Option<u64>> {
    env("CHAOSFS_SEED", "give a whole number from 0 to 18446744073709551615")
}

/// `CHAOSFS_EXACT`.
pub(crate) fn exact_from_env() -> Result<bool> {
    const EXPECTED: &str = "set it to 0 (the kernel answers where that makes no difference) or to 1";
    match env::<u8>("CHAOSFS_EXACT", EXPECTED)? {
        None | Some(1) => Ok(true),
        Some(0) => Ok(false),
        Some(other) => Err(bad("CHAOSFS_EXACT", &other.to_string(), EXPECTED)),
    }
}

/// `CHAOSFS_KEEP`: temporary backing directories stay for a look at them.
pub(crate) fn keep_from_env() -> bool {
    matches!(env::<String>("CHAOSFS_KEEP", ""), Ok(Some(value)) if !value.is_empty() && value != "0")
}

/// `CHAOSFS_WITHOUT_FUSE=skip`: tests that need FUSE are skipped where there is none.
pub(crate) fn skip_without_fuse() -> bool {
    match env::<String>("CHAOSFS_WITHOUT_FUSE", "") {
        Ok(Some(value)) => {
            assert!(
                value == "skip",
                "`CHAOSFS_WITHOUT_FUSE` cannot be `{value}`\n  help: set it to `skip`, or not at all"
            );
            true
        }
        _ => false,
    }
}
