//! Directory listings: one moment of a directory, as a client sees it, kept while it is read.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use super::disk::{self, Key, Result};
use super::handles::Handle;
use super::{Caller, Engine, Errno, State};
use crate::model::attr::Kind;
use crate::model::hash::Set;
use crate::model::history::Why;
use crate::model::ids::{Name, ObjectId};
use crate::model::op::Op;
use crate::model::view::{Entry, Listing};

/// A directory that is open.
pub(super) struct OpenDir {
    object: ObjectId,
    listing: Listing,
    /// Whether reading has started; starting over looks again.
    started: bool,
}

/// The lines before the entries: `.` and `..`.
const DOTS: u64 = 2;

impl Engine {
    /// Opens a directory: its names, as the client sees them now, until it is closed or rewound.
    pub(crate) fn open_dir(&self, who: &Caller, dir: ObjectId) -> Result<Handle> {
        let mut st = self.lock();
        let fresh = st.world.knobs(who.client).revalidate_on_open;
        let opened = self.listing(&mut st, who, dir, fresh);
        let why = opened.as_ref().map_or(Why::Truth, |(_, why)| *why);
        let opened = opened.map(|(listing, _)| {
            let client = st.client(who.client);
            client.next_handle += 1;
            let handle = Handle(client.next_handle);
            client.dirs.insert(handle.0, OpenDir { object: dir, listing, started: false });
            handle
        });
        st.note(who, Op::Readdir, dir, why, opened)
    }

    /// Calls `each` with the lines from `from` on, and where to go on after each, until it answers true.
    pub(crate) fn read_dir(
        &self,
        who: &Caller,
        handle: Handle,
        from: u64,
        mut each: impl FnMut(u64, ObjectId, Kind, &OsStr) -> bool,
    ) -> Result<()> {
        let mut st = self.lock();
        let open = st.client(who.client).dirs.get_mut(&handle.0).ok_or(Errno::EBADF)?;
        let (dir, rewound) = (open.object, from == 0 && open.started);
        open.started = true;
        let mut listing = open.listing.clone();
        if rewound {
            listing = self.listing(&mut st, who, dir, false)?.0;
            if let Some(open) = st.client(who.client).dirs.get_mut(&handle.0) {
                open.listing = listing.clone();
            }
        }
        let parent = st.object(dir)?.at.as_ref().map_or(dir, |(parent, _)| *parent);
        drop(st);
        for (i, (id, name)) in [(dir, "."), (parent, "..")].into_iter().enumerate() {
            if from <= i as u64 && each(i as u64 + 1, id, Kind::Directory, OsStr::new(name)) {
                return Ok(());
            }
        }
        let skip = usize::try_from(from.saturating_sub(DOTS)).unwrap_or(usize::MAX);
        for (i, entry) in listing.iter().enumerate().skip(skip) {
            if each(i as u64 + 1 + DOTS, entry.object, entry.kind, entry.name.as_os()) {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn release_dir(&self, who: &Caller, handle: Handle) {
        self.lock().client(who.client).dirs.remove(&handle.0);
    }

    /// R5: the listing that the client believes, or a new one.
    fn listing(&self, st: &mut State, who: &Caller, dir: ObjectId, fresh: bool) -> Result<(Listing, Why)> {
        if !fresh && let Some((listing, age)) = st.world.view(who.client).listing(dir, who.now) {
            return Ok((listing, Why::Cached(age)));
        }
        let fd = st.dir_fd(dir)?;
        let dev = st.object(dir)?.key.dev;
        let mut entries: Vec<Entry> = Vec::new();
        let mut unknown: Vec<usize> = Vec::new();
        disk::list(fd.as_fd(), |name, kind, ino| {
            let object = st.objects.listed(Key { dev, ino });
            if kind.is_none() {
                unknown.push(entries.len());
            }
            entries.push(Entry { name: Name::new(name), kind: kind.unwrap_or(Kind::File), object });
        })?;
        for i in unknown {
            if let Ok(stat) = disk::stat_at(fd.as_fd(), entries[i].name.as_os()) {
                entries[i].kind = stat.attr.kind;
            }
        }
        let pasts = st.world.pasts(who.client, dir, who.now);
        let why = if pasts.is_empty() { Why::Truth } else { Why::Past };
        let mut late = Vec::new();
        let mut hidden: Set<Name> = Set::default();
        for (name, past) in pasts {
            match past.map(|id| (id, st.objects.get(id))) {
                Some((object, Some(o))) => late.push(Entry { name: name.clone(), kind: o.kind, object }),
                // No longer kept: as for who looks the name up, it is what the truth has there.
                Some((_, None)) => continue,
                None => {}
            }
            hidden.insert(name);
        }
        entries.retain(|e| !hidden.contains(&e.name));
        entries.append(&mut late);
        if self.calendar.decides {
            // The disk's order is its own business; a run must not depend on it.
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        let listing = Listing::new(entries);
        let view = st.world.view_mut(who.client);
        if fresh {
            // Opening a directory asks the server, and what it says of the names goes for all of them.
            view.forget_dir(dir);
        }
        view.believe_listing(dir, &listing, who.now);
        Ok((listing, why))
    }
}
