//! Names: looking them up as a client sees them, and changing them as the truth decides.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::disk::{self, Result, Stat, Target};
use super::identity::as_server;
use super::lanes::Keep;
use super::past::Binding;
use super::{Caller, Engine, Entry, Errno, LookedUp, State, Touched};
use crate::model::Sight;
use crate::model::attr::{Attr, Kind};
use crate::model::history::Why;
use crate::model::ids::{Name, ObjectId};
use crate::model::op::Op;

/// `renameat2`: the two names swap.
const EXCHANGE: u32 = 2;
/// `X_OK`, of a directory.
const SEARCH: u32 = 1;
/// `renameat2`: a marker stays at the old name.
const WHITEOUT: u32 = 4;

impl Engine {
    // ---- looking -------------------------------------------------------------------------------------------------

    /// R5, R2: the object that the client sees at a name. None when it sees none and its kernel may go on believing that.
    pub(crate) fn lookup(&self, who: &Caller, dir: ObjectId, name: &Name) -> Result<Option<Entry>> {
        let mut st = self.lock();
        let sight = st.world.name(who.client, dir, name, who.now);
        // What is remembered is for those who may pass through the directory now; of what is not the disk decides.
        if sight != Sight::Truth && st.is_closed(dir) {
            return st.note_name(who, Op::Lookup, dir, name, Why::Truth, Err(Errno::EACCES));
        }
        let (why, found) = match sight {
            Sight::Cached(None, age) => (Why::Cached(age), Err(Errno::ENOENT)),
            Sight::Past(None) => (Why::Past, Err(Errno::ENOENT)),
            Sight::Cached(Some(id), age) => {
                (Why::Cached(age), self.shown(&mut st, who, id, (dir, name), None))
            }
            Sight::Past(Some(id)) => (Why::Past, self.shown(&mut st, who, id, (dir, name), None)),
            Sight::Truth => (Why::Truth, self.lookup_truth(&mut st, who, dir, name)),
        };
        let (why, found) = match found {
            // The object behind the believed name is gone, and its removal is visible: ask for the name again.
            Err(Errno::ESTALE) if why != Why::Truth => {
                st.world.forget_name(who.client, dir, name);
                (Why::Truth, self.lookup_truth(&mut st, who, dir, name))
            }
            found => (why, found),
        };
        let found_dir =
            found.ok().filter(|entry| entry.attr.kind == Kind::Directory).map(|entry| entry.object);
        st.walk(who, dir, name, found_dir);
        match st.note_name(who, Op::Lookup, dir, name, why, found) {
            Ok(entry) => {
                // Of an object with several names the kernel tells which one it came by each time.
                let one_name = entry.attr.kind == Kind::Directory || entry.attr.nlink <= 1;
                let name = one_name && why == Why::Truth && st.keeps_name(who, dir);
                Ok(Some(Entry { keep: Keep { name, ..entry.keep }, ..entry }))
            }
            Err(Errno::ENOENT) if why == Why::Truth && st.keeps_name(who, dir) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn lookup_truth(&self, st: &mut State, who: &Caller, dir: ObjectId, name: &Name) -> Result<Entry> {
        let fd = st.dir_fd(dir)?;
        let found = disk::stat_at(fd.as_fd(), name.as_os());
        let id = match &found {
            Ok(stat) => Some(st.objects.intern(stat, dir, name)),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(*e),
        };
        st.world.believe_name(who.client, dir, name, id, who.now);
        match (id, found) {
            (Some(id), Ok(stat)) => self.shown(st, who, id, (dir, name), Some(stat.attr)),
            _ => Err(Errno::ENOENT),
        }
    }

    /// An object as it is handed to the client's kernel, found at a name, which refers to it from now on. `known` are its attributes on
    /// the disk, where they were just asked for.
    pub(super) fn shown(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        (dir, name): (ObjectId, &Name),
        known: Option<Attr>,
    ) -> Result<Entry> {
        let attr = match known {
            Some(attr) if st.world.is_plain(who.client, object) => st.corrected(object, attr),
            known => self.look(st, who, object, false, known)?.0.attr,
        };
        let fresh = || LookedUp { count: 0, at: (dir, name.clone()) };
        let known = st.client(who.client).lookups.entry(object).or_insert_with(fresh);
        known.count += 1;
        if known.count == 1 {
            st.objects.get_mut(object).ok_or(Errno::ESTALE)?.refs += 1;
        } else if known.at.0 != dir || known.at.1 != *name {
            known.at = (dir, name.clone());
        }
        let keep = Keep { name: false, attr: st.keeps_attr(who, object, &attr) };
        Ok(Entry { object, attr, keep })
    }

    /// The kernel has forgotten `count` look-ups of an object.
    pub(crate) fn forget(&self, who: &Caller, object: ObjectId, count: u64) {
        let mut st = self.lock();
        let lookups = &mut st.client(who.client).lookups;
        let Some(known) = lookups.get_mut(&object) else { return };
        known.count = known.count.saturating_sub(count);
        if known.count > 0 {
            return;
        }
        lookups.remove(&object);
        if let Some(object) = st.objects.get_mut(object) {
            object.refs -= 1;
        }
        st.forget_lane(who.client, object);
        st.unused(object);
        let State { objects, world, .. } = &mut *st;
        for gone in objects.sweep(|id| world.remembers(id)) {
            world.erase(gone);
        }
    }

    /// The target of a symbolic link. It never changes, so no version is asked for; and it is nobody's secret.
    pub(crate) fn readlink(&self, who: &Caller, object: ObjectId) -> Result<Vec<u8>> {
        let mut st = self.lock();
        let done = match st.object(object)?.at.clone() {
            Some((dir, name)) => {
                st.dir_fd(dir).and_then(|dir| as_server(|| disk::readlink(dir.as_fd(), name.as_os())))
            }
            None => st.stand(object).and_then(|fd| disk::readlink_fd(fd.as_fd())),
        };
        st.note(who, Op::Readlink, object, Why::Truth, done)
    }

    // ---- making --------------------------------------------------------------------------------------------------

    /// Makes a name that must not exist, by `make`, and shows what it now stands for.
    fn add(
        &self,
        who: &Caller,
        op: Op,
        (dir, name): (ObjectId, &Name),
        make: impl FnOnce(&Arc<std::os::fd::OwnedFd>) -> Result<()>,
    ) -> Result<Entry> {
        let mut st = self.lock();
        let made = self.add_inner(&mut st, who, dir, name, make);
        if made.is_err() {
            st.told(who, dir, name);
        }
        st.note_name(who, op, dir, name, Why::Truth, made)
    }

    fn add_inner(
        &self,
        st: &mut State,
        who: &Caller,
        dir: ObjectId,
        name: &Name,
        make: impl FnOnce(&Arc<std::os::fd::OwnedFd>) -> Result<()>,
    ) -> Result<Entry> {
        let parent = st.dir_fd(dir)?;
        let mut made: Option<(ObjectId, Stat)> = None;
        self.rebind(st, who, &[dir], |st| {
            make(&parent)?;
            let target = Target::At(parent.as_fd(), name.as_os());
            let stat = disk::stat_at(parent.as_fd(), name.as_os())?;
            let id = st.objects.intern(&stat, dir, name);
            self.touch(st, who, id, target, Touched::New);
            made = Some((id, disk::stat_at(parent.as_fd(), name.as_os())?));
            Ok(vec![Binding { dir, name: name.clone(), before: None, after: Some(id) }])
        })?;
        let (id, stat) = made.ok_or(Errno::EIO)?;
        let entry = self.shown(st, who, id, (dir, name), Some(stat.attr))?;
        Ok(st.bound(who, dir, entry))
    }

    pub(crate) fn mkdir(&self, who: &Caller, dir: ObjectId, name: &Name, mode: u32) -> Result<Entry> {
        self.add(who, Op::Mkdir, (dir, name), |parent| disk::mkdir(parent.as_fd(), name.as_os(), mode))
    }

    pub(crate) fn mknod(
        &self,
        who: &Caller,
        dir: ObjectId,
        name: &Name,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        self.add(who, Op::Mknod, (dir, name), |parent| disk::mknod(parent.as_fd(), name.as_os(), mode, rdev))
    }

    pub(crate) fn symlink(&self, who: &Caller, dir: ObjectId, name: &Name, target: &OsStr) -> Result<Entry> {
        self.add(who, Op::Symlink, (dir, name), |parent| disk::symlink(target, parent.as_fd(), name.as_os()))
    }

    /// Gives an object another name. The truth must still have it.
    pub(crate) fn link(&self, who: &Caller, object: ObjectId, dir: ObjectId, name: &Name) -> Result<Entry> {
        let mut st = self.lock();
        let made = self.link_inner(&mut st, who, object, dir, name);
        if made.is_err() {
            st.told(who, dir, name);
        }
        let path = st.path_of(who.client, object);
        let mut event = st.event(who, Op::Link, path);
        event.to = Some(Box::new(st.path_at(dir, name)));
        event.version = st.made(Op::Link).filter(|_| made.is_ok());
        event.result = made.as_ref().map(|_| 0).map_err(|e| *e);
        st.recorder.push(event);
        made
    }

    fn link_inner(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        dir: ObjectId,
        name: &Name,
    ) -> Result<Entry> {
        let new_dir = st.dir_fd(dir)?;
        let visible = Self::attr_visible(st, who);
        let before = st.before(who, object, visible, None);
        self.rebind(st, who, &[dir], |st| {
            match st.object(object)?.at.clone() {
                Some((from, old)) => {
                    let from = st.dir_fd(from)?;
                    disk::link(from.as_fd(), old.as_os(), new_dir.as_fd(), name.as_os())?;
                }
                None => disk::link_fd(st.stand(object)?.as_fd(), new_dir.as_fd(), name.as_os())?,
            }
            self.touch(st, who, object, Target::At(new_dir.as_fd(), name.as_os()), Touched::Attributes);
            Ok(vec![Binding { dir, name: name.clone(), before: None, after: Some(object) }])
        })?;
        st.after(who, object, visible, before);
        st.world.bound_exclusively(object, dir, name);
        self.shown(st, who, object, (dir, name), None)
    }

    // ---- removing ------------------------------------------------------------------------------------------------

    pub(crate) fn unlink(&self, who: &Caller, dir: ObjectId, name: &Name) -> Result<()> {
        self.remove(who, dir, name, Op::Unlink)
    }

    pub(crate) fn rmdir(&self, who: &Caller, dir: ObjectId, name: &Name) -> Result<()> {
        self.remove(who, dir, name, Op::Rmdir)
    }

    fn remove(&self, who: &Caller, dir: ObjectId, name: &Name, op: Op) -> Result<()> {
        let mut st = self.lock();
        let removed = self.remove_inner(&mut st, who, dir, name, op);
        if removed.is_err() {
            st.told(who, dir, name);
        }
        st.note_name(who, op, dir, name, Why::Truth, removed)
    }

    fn remove_inner(&self, st: &mut State, who: &Caller, dir: ObjectId, name: &Name, op: Op) -> Result<()> {
        let parent = st.dir_fd(dir)?;
        let stat = disk::stat_at(parent.as_fd(), name.as_os())?;
        if op == Op::Rmdir {
            st.looks_again(who, dir, name, Some(&stat))?;
        }
        let losing = st.losing(who, dir, name, &stat);
        let before =
            losing.as_ref().and_then(|l| st.before(who, l.object, Self::attr_visible(st, who), None));
        let (_, visible) = self.rebind(st, who, &[dir], |_| {
            if op == Op::Rmdir {
                disk::rmdir(parent.as_fd(), name.as_os())?;
            } else {
                disk::unlink(parent.as_fd(), name.as_os())?;
            }
            let before = losing.as_ref().map(|l| l.object);
            Ok(vec![Binding { dir, name: name.clone(), before, after: None }])
        })?;
        if let Some(losing) = losing {
            self.lost(st, who, dir, name, losing, visible, before);
        }
        Ok(())
    }

    // ---- moving --------------------------------------------------------------------------------------------------

    /// `renameat2`: one commit, however many names it changes.
    pub(crate) fn rename(
        &self,
        who: &Caller,
        (dir, name): (ObjectId, &Name),
        (new_dir, new_name): (ObjectId, &Name),
        flags: u32,
    ) -> Result<()> {
        let mut st = self.lock();
        let path = st.path_at(dir, name);
        let to = st.path_at(new_dir, new_name);
        let done = self.rename_inner(&mut st, who, (dir, name), (new_dir, new_name), flags);
        if done.is_err() {
            st.told(who, dir, name);
            st.told(who, new_dir, new_name);
        }
        let mut event = st.event(who, Op::Rename, path);
        event.to = Some(Box::new(to));
        event.version = done.as_ref().ok().copied();
        event.result = done.map(|_| 0);
        st.recorder.push(event);
        done.map(drop)
    }

    fn rename_inner(
        &self,
        st: &mut State,
        who: &Caller,
        (dir, name): (ObjectId, &Name),
        (new_dir, new_name): (ObjectId, &Name),
        flags: u32,
    ) -> Result<crate::model::ids::Version> {
        let (from, to) = (st.dir_fd(dir)?, st.dir_fd(new_dir)?);
        let stat = disk::stat_at(from.as_fd(), name.as_os())?;
        let object = st.objects.intern(&stat, dir, name);
        let target = disk::stat_at(to.as_fd(), new_name.as_os()).ok();
        let exchange = flags & EXCHANGE != 0;
        if !exchange {
            st.looks_again(who, new_dir, new_name, target.as_ref())?;
        }
        // Two names of one object: POSIX says that nothing happens.
        if target.is_some_and(|t| t.key == stat.key) && flags == 0 {
            return disk::rename(from.as_fd(), name.as_os(), to.as_fd(), new_name.as_os(), 0)
                .map(|()| st.world.newest());
        }
        let losing = match &target {
            Some(target) if !exchange => st.losing(who, new_dir, new_name, target),
            _ => None,
        };
        let swapped = target.filter(|_| exchange).map(|t| st.objects.intern(&t, new_dir, new_name));
        let before =
            losing.as_ref().and_then(|l| st.before(who, l.object, Self::attr_visible(st, who), None));
        let dirs: &[ObjectId] = if dir == new_dir { &[dir] } else { &[dir, new_dir] };
        let (version, visible) = self.rebind(st, who, dirs, |st| {
            disk::rename(from.as_fd(), name.as_os(), to.as_fd(), new_name.as_os(), flags)?;
            let replaced = swapped.or(losing.as_ref().map(|l| l.object));
            self.moved(st, who, object, (new_dir, new_name));
            let mut left = swapped;
            if let Some(swapped) = swapped {
                self.moved(st, who, swapped, (dir, name));
            } else if flags & WHITEOUT != 0 {
                left = disk::stat_at(from.as_fd(), name.as_os())
                    .ok()
                    .map(|stat| st.objects.intern(&stat, dir, name));
            }
            Ok(vec![
                Binding { dir, name: name.clone(), before: Some(object), after: left },
                Binding { dir: new_dir, name: new_name.clone(), before: replaced, after: Some(object) },
            ])
        })?;
        if let Some(losing) = losing {
            self.lost(st, who, new_dir, new_name, losing, visible, before);
        }
        Ok(version)
    }

    /// An object is found at another name from now on.
    fn moved(&self, st: &mut State, who: &Caller, id: ObjectId, (dir, name): (ObjectId, &Name)) {
        if let Some(known) = st.client(who.client).lookups.get_mut(&id) {
            known.at = (dir, name.clone());
        }
        let Some(object) = st.objects.get_mut(id) else { return };
        object.at = Some((dir, name.clone()));
        object.anchor = None;
        if self.calendar.decides {
            object.ctime = Some(self.calendar.stamp(who.now));
        }
        if object.kind == Kind::Directory {
            // Every path below it has changed.
            st.paths.clear();
        }
    }
}

impl State {
    /// Whether a directory is there and closed to the caller.
    fn is_closed(&mut self, dir: ObjectId) -> bool {
        self.dir_fd(dir).is_ok_and(|fd| disk::access(fd.as_fd(), SEARCH) == Err(Errno::EACCES))
    }
}
