//! What happened: every operation of every client in order, with what the client was shown and why.
//!
//! Bounded: past the limit the oldest events go, and the history says how many. Two runs of a single-threaded test on a
//! manual clock give the same events to the byte, so nothing here comes from the machine: no pids, no inode numbers, no
//! wall-clock times.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::ids::{Name, Version};
use super::op::Op;
use super::time::Time;
use crate::errno::Errno;

/// What an event tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Deed {
    /// An operation that a program asked for.
    Op(Op),
    /// A client's bytes reached the truth because their `write_delay` was over, because of `settle`, because
    /// of the memory budget, or because the client left.
    WriteBack,
    /// Past states were given up to stay within the memory budget, so some became visible early.
    Collapse,
}

/// Why an operation answered what it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Why {
    /// The truth was asked and answered.
    Truth,
    /// The client's cache answered; it was this old.
    Cached(Duration),
    /// The truth was asked, and its newest state is not visible to this client yet.
    Past,
    /// The bytes stay with the client until a flush point.
    Buffered,
    /// `drop_prob` drew it.
    Dropped,
    /// An injected fault made it fail.
    Injected,
    /// It hung until it was released, cancelled, or too old.
    Parked,
}

/// A path relative to the mount, kept in two parts that events share.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EventPath {
    pub(crate) dir: Arc<[u8]>,
    pub(crate) name: Name,
}

impl EventPath {
    pub(crate) fn to_path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.dir)).join(self.name.as_os())
    }
}

impl fmt::Debug for EventPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.to_path();
        if path.as_os_str().is_empty() { f.write_str("\".\"") } else { write!(f, "{path:?}") }
    }
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub(crate) number: u64,
    pub(crate) at: Time,
    pub(crate) client: Arc<str>,
    pub(crate) deed: Deed,
    pub(crate) path: EventPath,
    pub(crate) to: Option<Box<EventPath>>,
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) version: Option<Version>,
    pub(crate) result: Result<u64, Errno>,
    pub(crate) why: Why,
}

impl Event {
    /// Its place in the order of all events of the backing, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it happened, on the backing's clock.
    pub fn at(&self) -> Time {
        self.at
    }

    /// Whose it was.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// What it was.
    pub fn deed(&self) -> Deed {
        self.deed
    }

    /// What it was about, relative to the mount.
    pub fn path(&self) -> PathBuf {
        self.path.to_path()
    }

    /// The new name, where there are two: rename, link.
    pub fn to(&self) -> Option<PathBuf> {
        self.to.as_ref().map(|to| to.to_path())
    }

    /// The version that was read or made, where there was one.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// How it ended: the bytes moved (0 where none are), or the error number.
    #[allow(clippy::missing_errors_doc)] // this is not an operation that fails, it tells of one
    pub fn result(&self) -> Result<u64, Errno> {
        self.result
    }

    /// Why it ended so.
    pub fn why(&self) -> Why {
        self.why
    }
}

impl fmt::Display for Event {
    /// `#7 1.500s b: read "f" 0+5 -> 5 bytes (cached 1.2s ago)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} {}: ", self.number, self.at, self.client)?;
        match self.deed {
            Deed::Op(op) => write!(f, "{op} {:?}", self.path)?,
            Deed::WriteBack => write!(f, "write back {:?}", self.path)?,
            Deed::Collapse => f.write_str("past given up for the memory budget")?,
        }
        if let Some(to) = &self.to {
            write!(f, " to {to:?}")?;
        }
        if let Some((at, len)) = self.range {
            write!(f, " {at}+{len}")?;
        }
        match self.result {
            Ok(0) => f.write_str(" -> ok")?,
            Ok(n) => write!(f, " -> {n} bytes")?,
            Err(e) => write!(f, " -> {e}")?,
        }
        match self.why {
            Why::Truth => Ok(()),
            Why::Cached(age) => write!(f, " (cached {:.1}s ago)", age.as_secs_f64()),
            Why::Past => f.write_str(" (the newest is not visible yet)"),
            Why::Buffered => f.write_str(" (not flushed)"),
            Why::Dropped => f.write_str(" (dropped by drop_prob)"),
            Why::Injected => f.write_str(" (injected)"),
            Why::Parked => f.write_str(" (parked)"),
        }
    }
}

/// The events of one backing directory, oldest first: a copy, taken when it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    pub(crate) events: Vec<Event>,
    pub(crate) lost: u64,
}

impl History {
    /// How many older events were dropped because the history is bounded.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.events.iter()
    }
}

impl<'a> IntoIterator for &'a History {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for History {
    /// One event a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lost > 0 {
            writeln!(f, "({} older events dropped)", self.lost)?;
        }
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

/// Where the engine writes events down.
#[derive(Debug)]
pub(crate) struct Recorder {
    events: VecDeque<Event>,
    next: u64,
    limit: usize,
}

impl Recorder {
    pub(crate) fn new(limit: usize) -> Self {
        Recorder { events: VecDeque::new(), next: 1, limit }
    }

    /// Adds an event; its number is given here.
    pub(crate) fn push(&mut self, mut event: Event) {
        if self.events.len() >= self.limit {
            self.events.pop_front();
        }
        event.number = self.next;
        self.next += 1;
        if self.limit > 0 {
            self.events.push_back(event);
        }
    }

    pub(crate) fn snapshot(&self) -> History {
        let lost = self.next - 1 - self.events.len() as u64;
        History { events: self.events.iter().cloned().collect(), lost }
    }
}
