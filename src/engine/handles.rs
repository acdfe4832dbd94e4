//! Opening, creating and closing files: which descriptor of the backing stands behind a handle.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::disk::{self, Access, Opening, Result, Target};
use super::identity::as_server;
use super::lanes::Pages;
use super::objects::{OpenFile, OpenFlags};
use super::past::Binding;
use super::{Caller, Engine, Entry, Errno, State, Touched};
use crate::model::attr::Attr;
use crate::model::history::Why;
use crate::model::ids::{Name, ObjectId};
use crate::model::op::Op;

/// The number of an open file or directory of one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle(pub(crate) u64);

/// `X_OK`.
const EXECUTE: u32 = 1;

impl Engine {
    /// Opens a file that the client sees.
    pub(crate) fn open_file(
        &self,
        who: &Caller,
        object: ObjectId,
        flags: OpenFlags,
        truncate: bool,
    ) -> Result<(Handle, Pages)> {
        let mut st = self.lock();
        let (opened, why) = match self.open_seen(&mut st, who, object, flags, truncate) {
            Ok((handle, why)) => (Ok(handle), why),
            Err(e) => (Err(e), Why::Truth),
        };
        let opened = opened.map(|handle| (handle, st.pages_of(who, handle)));
        st.note(who, Op::Open, object, why, opened)
    }

    fn open_seen(
        &self,
        st: &mut State,
        who: &Caller,
        object: ObjectId,
        flags: OpenFlags,
        truncate: bool,
    ) -> Result<(Handle, Why)> {
        st.object(object)?;
        let fresh = st.world.knobs(who.client).revalidate_on_open;
        let mut why = Why::Truth;
        if !st.world.is_plain(who.client, object) {
            // R5: the reader's half of close-to-open. A name that leads to a removed object is forgotten, and the kernel,
            // told ESTALE, asks for it again.
            why = match self.look(st, who, object, fresh, None) {
                Ok((_, why)) => why,
                Err(e) => {
                    st.world.view_mut(who.client).forget_names_of(object);
                    return Err(e);
                }
            };
        }
        let mut file = self.open_disk(st, who, object, flags)?;
        file.pages = st.opens_pages(who, object, flags, truncate);
        let handle = st.keep(who, file);
        if truncate && let Err(e) = self.resize(st, who, object, 0, Some(handle)) {
            st.let_go(who, handle);
            return Err(e);
        }
        Ok((handle, why))
    }

    fn opening(&self, flags: OpenFlags) -> Opening {
        // Reading is asked for with writing, so that what a write overwrites can be kept for others.
        let access = if flags.write { Access::ReadWrite } else { Access::Read };
        Opening { access, sync: flags.sync, noatime: self.calendar.decides || flags.noatime }
    }

    pub(super) fn open_disk(
        &self,
        st: &mut State,
        who: &Caller,
        id: ObjectId,
        flags: OpenFlags,
    ) -> Result<OpenFile> {
        let (how, pages) = (self.opening(flags), Pages::Direct);
        let object = st.object(id)?;
        let key = object.key;
        if flags.execute {
            let stand = st.stand(id)?;
            disk::access(stand.as_fd(), EXECUTE)?;
            let (fd, access) = as_server(|| disk::reopen(stand.as_fd(), how))?;
            return Ok(OpenFile { client: who.client, object: id, fd, access, flags, pages });
        }
        let opened = if let Some(open) = object.open.first() {
            disk::reopen(open.fd.as_fd(), how)
        } else if let Some(anchor) = &object.anchor {
            disk::reopen(anchor.as_fd(), how)
        } else {
            let (parent, name) = object.at.clone().ok_or(Errno::ESTALE)?;
            let dir = st.dir_fd(parent)?;
            match disk::open_at(dir.as_fd(), name.as_os(), how) {
                // The name is gone, or something else is there: someone outside changed it. Asked again, the kernel
                // finds out what there is.
                Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => Err(Errno::ESTALE),
                // Perhaps only the way to it is closed to the caller, who has come by another one.
                Err(Errno::EACCES) => st.anchor(id).and_then(|fd| disk::reopen(fd.as_fd(), how)),
                Ok((fd, _)) if disk::stat_fd(&fd)?.key != key => Err(Errno::ESTALE),
                other => other,
            }
        };
        let (fd, access) = opened?;
        if flags.read && access == Access::Write {
            return Err(Errno::EACCES);
        }
        Ok(OpenFile { client: who.client, object: id, fd, access, flags, pages })
    }

    /// `open` with `O_CREAT` of a name that the client does not see. R1: the truth decides whether it is new.
    pub(crate) fn create(
        &self,
        who: &Caller,
        dir: ObjectId,
        name: &Name,
        mode: u32,
        flags: OpenFlags,
        (exclusive, truncate): (bool, bool),
    ) -> Result<(Entry, Handle)> {
        let mut st = self.lock();
        let made = self.create_new(&mut st, who, dir, name, mode, flags, exclusive);
        let made = match made {
            Err(Errno::EEXIST) => self.create_over(&mut st, who, dir, name, flags, exclusive, truncate),
            other => other,
        };
        st.note_name(who, Op::Create, dir, name, Why::Truth, made)
    }

    #[allow(clippy::too_many_arguments)] // the arguments of `open(2)`
    fn create_new(
        &self,
        st: &mut State,
        who: &Caller,
        dir: ObjectId,
        name: &Name,
        mode: u32,
        flags: OpenFlags,
        exclusive: bool,
    ) -> Result<(Entry, Handle)> {
        let parent = st.dir_fd(dir)?;
        let mut made: Option<(OwnedFd, ObjectId, Attr)> = None;
        self.rebind(st, who, &[dir], |st| {
            let fd = disk::create(parent.as_fd(), name.as_os(), mode, flags.sync)?;
            let stat = disk::stat_fd(&fd)?;
            let id = st.objects.intern(&stat, dir, name);
            self.touch(st, who, id, Target::Fd(fd.as_fd()), Touched::New);
            made = Some((fd, id, stat.attr));
            Ok(vec![Binding { dir, name: name.clone(), before: None, after: Some(id) }])
        })?;
        let (fd, id, mut attr) = made.ok_or(Errno::EIO)?;
        if exclusive {
            st.world.bound_exclusively(id, dir, name);
        }
        if self.calendar.decides {
            attr = disk::stat_fd(&fd)?.attr;
        }
        let access = Access::ReadWrite;
        let file = OpenFile { client: who.client, object: id, fd, access, flags, pages: Pages::Direct };
        let handle = st.keep(who, file);
        let entry = self.shown(st, who, id, (dir, name), Some(attr))?;
        Ok((st.bound(who, dir, entry), handle))
    }

    #[allow(clippy::too_many_arguments)] // the arguments of `open(2)`
    fn create_over(
        &self,
        st: &mut State,
        who: &Caller,
        dir: ObjectId,
        name: &Name,
        flags: OpenFlags,
        exclusive: bool,
        truncate: bool,
    ) -> Result<(Entry, Handle)> {
        // R4: the client is told that the name exists, so from now on it does for this client.
        let parent = st.dir_fd(dir)?;
        let stat = disk::stat_at(parent.as_fd(), name.as_os())?;
        let id = st.objects.intern(&stat, dir, name);
        st.world.reveal_name(who.client, dir, name, Some(id));
        if exclusive {
            return Err(Errno::EEXIST);
        }
        if stat.attr.kind != crate::model::attr::Kind::File {
            // A link or directory that the client did not see: the kernel must look again.
            return Err(Errno::ESTALE);
        }
        let (handle, _) = self.open_seen(st, who, id, flags, truncate)?;
        let entry = self.shown(st, who, id, (dir, name), None)?;
        Ok((entry, handle))
    }

    /// The last descriptor of an open file was closed.
    pub(crate) fn release(&self, who: &Caller, handle: Handle, flock_owner: Option<u64>) {
        let mut st = self.lock();
        let Some(file) = st.client(who.client).files.get(&handle.0).cloned() else { return };
        // Pages of a mapping can arrive after the last `close`; this is the last moment to flush them.
        let writers = st
            .objects
            .get(file.object)
            .map_or(0, |o| o.open.iter().filter(|f| f.client == who.client && f.flags.write).count());
        if writers <= 1 && file.flags.write {
            let flushed = self.flush_dirty(&mut st, who, file.object);
            st.remember_error(who.client, file.object, flushed);
        }
        st.let_go(who, handle);
        let granted = st.locks.released(who.client, handle, flock_owner, file.object);
        let granted = st.granted(granted, who.now);
        drop(st);
        granted.into_iter().for_each(|reply| reply(Ok(())));
    }
}

impl State {
    fn keep(&mut self, who: &Caller, file: OpenFile) -> Handle {
        let file = Arc::new(file);
        if let Some(object) = self.objects.get_mut(file.object) {
            object.open.push(file.clone());
            object.refs += 1;
        }
        let client = self.client(who.client);
        client.next_handle += 1;
        let handle = Handle(client.next_handle);
        client.files.insert(handle.0, file);
        handle
    }

    pub(super) fn let_go(&mut self, who: &Caller, handle: Handle) {
        let Some(file) = self.client(who.client).files.remove(&handle.0) else { return };
        if let Some(object) = self.objects.get_mut(file.object) {
            object.open.retain(|f| !Arc::ptr_eq(f, &file));
            object.refs -= 1;
            if !object.open.iter().any(|f| f.client == who.client) {
                self.client(who.client).writers.remove(&file.object);
            }
        }
        if file.pages != Pages::Direct {
            self.closes_pages(who.client, file.object);
        }
        self.unused(file.object);
    }

    fn pages_of(&self, who: &Caller, handle: Handle) -> Pages {
        self.file(who, handle).map_or(Pages::Direct, |file| file.pages)
    }

    pub(super) fn file(&self, who: &Caller, handle: Handle) -> Result<Arc<OpenFile>> {
        self.clients.get(&who.client).and_then(|c| c.files.get(&handle.0)).cloned().ok_or(Errno::EBADF)
    }

    /// A descriptor through which this client may write an object.
    pub(super) fn writer(&self, who: &Caller, object: ObjectId) -> Option<Arc<OpenFile>> {
        let open = &self.objects.get(object)?.open;
        open.iter().find(|f| f.client == who.client && f.access != Access::Read).cloned()
    }
}
