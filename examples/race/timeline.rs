//! From the history of a backing to a few lines that tell what happened, and what was odd about it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::turn::{Turn, show};
use chaosfs::{Deed, Errno, Event, History, Op, Time, Version, Why};

/// Follows the history: what is changed by whom, and who is shown something older.
#[derive(Default)]
pub(crate) struct Watcher {
    /// The number of the last event that was looked at.
    seen: u64,
    /// Who changed what last.
    changes: HashMap<(Aspect, PathBuf), Change>,
    /// When, and as of which event, a client last asked the truth about something.
    knows: HashMap<(String, Aspect, PathBuf), (Duration, u64)>,
    /// Written, and not flushed yet.
    buffered: HashSet<(String, PathBuf)>,
    /// What a client was shown although there was something newer.
    misled: HashMap<(String, PathBuf), Change>,
    totals: BTreeMap<&'static str, usize>,
}

/// What about a path: its name, its bytes and attributes, or the names in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Aspect {
    Name,
    Bytes,
    List,
}

#[derive(Clone)]
struct Change {
    number: u64,
    at: Time,
    version: Option<Version>,
    by: String,
    what: &'static str,
}

impl Watcher {
    /// What happened since the last call.
    pub(crate) fn since_last(&mut self, history: &History) -> Vec<String> {
        let mut turn = Turn::default();
        for event in history.iter().filter(|e| e.number() > self.seen).cloned().collect::<Vec<_>>() {
            self.judge(&event, &mut turn);
            self.learn(&event, &mut turn);
            self.seen = event.number();
        }
        turn.lines()
    }

    /// The same, without telling.
    pub(crate) fn skip(&mut self, history: &History) {
        self.since_last(history);
        self.totals.clear();
    }

    pub(crate) fn summary(&self) -> String {
        let all: Vec<String> = self.totals.iter().map(|(name, n)| format!("{name} {n}x")).collect();
        if all.is_empty() { "none".into() } else { all.join(", ") }
    }

    /// Whether the event showed its client something that the other had changed before.
    fn judge(&mut self, e: &Event, turn: &mut Turn) {
        let (Deed::Op(op), Some(aspect)) = (e.deed(), aspect(e)) else { return };
        let (me, path) = (e.client().to_owned(), e.path());
        let asked = (me.clone(), aspect, path.clone());
        let change = self.changes.get(&(aspect, path.clone())).filter(|c| c.by != me).cloned();
        let (how, late) = match e.why() {
            Why::Past => ("its newest state is not visible yet".to_owned(), true),
            Why::Cached(age) => {
                let (at, number) = self.knows.get(&asked).copied().unwrap_or_default();
                let fetched = e.at().elapsed().saturating_sub(age);
                let late = change.as_ref().is_some_and(|c| match (e.version(), c.version) {
                    (Some(shown), Some(made)) => shown < made,
                    // The same moment can be before and after: then the order of events decides, where it is known.
                    _ => c.at.elapsed() > fetched || (at == fetched && number < c.number),
                });
                (format!("from a cache {:.1}s old", age.as_secs_f64()), late)
            }
            _ => (String::new(), false),
        };
        if !matches!(e.why(), Why::Cached(_)) {
            let number = if late { 0 } else { e.number() };
            self.knows.insert(asked, (e.at().elapsed(), number));
        }
        let (true, Some(change)) = (late, change) else {
            self.misled.remove(&(me, path));
            return;
        };
        let missing = e.result() == Err(Errno::ENOENT);
        // Old news that the newest change has made true again.
        if op == Op::Lookup && change.what == if missing { "removed" } else { "created" } {
            return;
        }
        let name = match (op, e.why()) {
            (Op::Lookup, Why::Cached(_)) if missing => "negative dentry",
            (Op::Lookup, _) if missing => "name not visible yet",
            (Op::Lookup, _) if change.what == "removed" => "deleted file still there",
            (Op::Lookup, _) => "replaced file still there",
            (Op::Readdir, _) => "listing lag",
            (Op::Read, _) => "stale read",
            _ => "stale stat",
        };
        let Change { by, what, at, .. } = &change;
        turn.odd(format!("{name}: {} ({how}; {by} {what} it at {at})", show(&path)));
        *self.totals.entry(name).or_default() += 1;
        self.misled.insert((me, path), change);
    }

    /// Takes note of what the event changed.
    fn learn(&mut self, e: &Event, turn: &mut Turn) {
        if e.result().is_err() {
            return;
        }
        let me = e.client().to_owned();
        let path = e.path();
        match e.deed() {
            Deed::Op(Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink) => {
                self.renamed(e, &path, "created", turn);
            }
            Deed::Op(Op::Unlink | Op::Rmdir) => self.renamed(e, &path, "removed", turn),
            Deed::Op(Op::Rename | Op::Link) => {
                let to = e.to().unwrap_or_default();
                let there = self.changes.contains_key(&(Aspect::Name, to.clone()));
                self.overwrites(e, &to, turn);
                self.renamed(e, &to, if there { "replaced" } else { "created" }, turn);
                if e.deed() == Deed::Op(Op::Rename) {
                    self.renamed(e, &path, "removed", turn);
                }
            }
            Deed::Op(Op::Write) if e.why() == Why::Buffered => {
                self.buffered.insert((me, path.clone()));
                turn.touch(path, "wrote");
            }
            Deed::Op(Op::Write | Op::Truncate | Op::Setattr | Op::CopyFileRange) => {
                self.overwrites(e, &path, turn);
                turn.touch(path.clone(), "wrote");
                self.changed(e, Aspect::Bytes, path, "wrote");
            }
            Deed::WriteBack | Deed::Op(Op::Flush | Op::Fsync | Op::Lock)
                if self.buffered.remove(&(me.clone(), path.clone())) =>
            {
                self.overwrites(e, &path, turn);
                self.changed(e, Aspect::Bytes, path, "wrote");
            }
            _ => {}
        }
    }

    fn renamed(&mut self, e: &Event, path: &Path, what: &'static str, turn: &mut Turn) {
        turn.touch(path.to_owned(), what);
        self.changed(e, Aspect::Name, path.to_owned(), what);
        self.changed(e, Aspect::List, path.parent().unwrap_or(Path::new("")).to_owned(), "changed");
    }

    fn changed(&mut self, e: &Event, aspect: Aspect, path: PathBuf, what: &'static str) {
        let change =
            Change { number: e.number(), at: e.at(), version: e.version(), by: e.client().to_owned(), what };
        self.changes.insert((aspect, path), change);
    }

    /// Whether the event puts something new in place of what its client has never seen.
    fn overwrites(&mut self, e: &Event, path: &Path, turn: &mut Turn) {
        if let Some(change) = self.misled.remove(&(e.client().to_owned(), path.to_owned())) {
            let Change { by, what, at, .. } = change;
            turn.odd(format!("lost update: {} was overwritten unseen ({by} {what} it at {at})", show(path)));
            *self.totals.entry("lost update").or_default() += 1;
        }
    }
}

/// What an operation that looks asks about.
fn aspect(e: &Event) -> Option<Aspect> {
    match e.deed() {
        Deed::Op(Op::Lookup) => Some(Aspect::Name),
        Deed::Op(Op::Read | Op::Getattr) => Some(Aspect::Bytes),
        Deed::Op(Op::Readdir) => Some(Aspect::List),
        _ => None,
    }
}
