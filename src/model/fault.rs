//! Faults: which operations of a client do not go as they should.
//!
//! Two effects so far: an operation fails with an error number, or hangs until it is released.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::op::{Op, OpSet};
use crate::errno::Errno;
use crate::error::{Error, Result};

/// What goes wrong (`fail`, `hang`) and where (`on`, `path`). Nothing happens until it is injected:
/// see [`Mount::inject`](crate::Mount::inject).
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    on: OpSet,
    path: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Fail(Errno),
    Hang,
    Panic,
}

impl Fault {
    /// The operation is not executed and answers `errno`.
    pub fn fail(errno: Errno) -> Self {
        Fault { effect: Effect::Fail(errno), on: Op::any(), path: None }
    }

    /// The operation waits, and with it the program, until it is released, and is then executed: a server that does not
    /// answer for a while. Dropping the guard releases what hangs and ends it; a program that reads on after a mere
    /// [`release`](crate::FaultGuard::release) hangs again at its next `read`. It never waits
    /// longer than the wall-clock limit of [`Options::patience_parked`](crate::Options::patience_parked); then it fails with `EIO`.
    pub fn hang() -> Self {
        Fault { effect: Effect::Hang, on: Op::any(), path: None }
    }

    /// The handler panics: for the tests of chaosfs itself.
    #[doc(hidden)]
    pub fn panic() -> Self {
        Fault { effect: Effect::Panic, on: Op::any(), path: None }
    }

    /// Only these operations; all of them when not called.
    #[must_use]
    pub fn on(mut self, ops: impl Into<OpSet>) -> Self {
        self.on = ops.into();
        self
    }

    /// Only on paths that match this glob, relative to the mount: `*` stays within a directory, `**` does not. A path is
    /// the name by which the client came to the file; of the two names of a rename either one counts.
    #[must_use]
    pub fn path(mut self, glob: impl AsRef<str>) -> Self {
        self.path = Some(glob.as_ref().to_owned());
        self
    }
}

/// A fault in force, with the count of what it hit.
pub(crate) struct Rule {
    pub(crate) effect: Effect,
    on: OpSet,
    glob: Option<glob::Pattern>,
    text: String,
    hits: AtomicU64,
}

impl Rule {
    pub(crate) fn new(fault: &Fault) -> Result<Self> {
        let glob = fault.path.as_deref().map(|text| {
            let wrong = |expected| Error::InvalidValue {
                name: "Fault::path".into(),
                value: text.to_owned(),
                expected,
            };
            let usual = |c| matches!(c, Component::Normal(_));
            if text.is_empty() || !Path::new(text).components().all(usual) {
                return Err(wrong(
                    "paths are relative to the mount: give one such as `db/app.wal` or `**/*.wal`",
                ));
            }
            glob::Pattern::new(text).map_err(|_| wrong("give a glob such as `db/*.wal` or `**/lock`"))
        });
        let glob = glob.transpose()?;
        Ok(Rule {
            effect: fault.effect,
            on: fault.on,
            glob,
            text: format!("{fault:?}"),
            hits: AtomicU64::new(0),
        })
    }

    /// Whether the rule is meant for this operation on one or two paths, and counts it if so. The paths are only asked for
    /// where they matter.
    pub(crate) fn hits(&self, op: Op, paths: impl FnOnce() -> [Option<PathBuf>; 2]) -> bool {
        const OPTIONS: glob::MatchOptions = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let meant = self.on.contains(op)
            && self.glob.as_ref().is_none_or(|glob| {
                paths().iter().flatten().any(|path| glob.matches_path_with(path, OPTIONS))
            });
        if meant {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        meant
    }

    pub(crate) fn count(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
