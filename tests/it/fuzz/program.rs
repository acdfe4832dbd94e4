//! What a program of the fuzz is made of.

use std::fmt;

/// How many files a program keeps open.
pub(super) const SLOTS: usize = 4;

/// A name: below the client's root, or below what is open in a slot.
#[derive(Clone)]
pub(super) struct Where {
    pub(super) base: Option<usize>,
    pub(super) path: Vec<u8>,
}

impl fmt::Debug for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(slot) = self.base {
            write!(f, "{slot}:")?;
        }
        let longest = self.path.split(|b| *b == b'/').map(<[u8]>::len).max().unwrap_or(0);
        if longest > 100 {
            return write!(f, "({longest} bytes in a path of {})", self.path.len());
        }
        write!(f, "\"{}\"", self.path.escape_ascii())
    }
}

/// An object: by its name, following a link at its end or not, or open in a slot.
#[derive(Clone, Debug)]
pub(super) enum What {
    At(Where, bool),
    Slot(usize),
}

/// One system call, or a few that belong together.
#[derive(Clone, Debug)]
pub(super) enum Do {
    Open {
        at: Where,
        flags: i32,
        mode: u32,
        slot: usize,
    },
    Close(usize),
    Dup(usize, usize),
    Read(usize, usize),
    Pread(usize, u64, usize),
    Write(usize, u8, usize),
    Pwrite(usize, u64, u8, usize),
    SetAppend(usize, bool),
    Seek(usize, i32, i64),
    Ftruncate(usize, u64),
    Truncate(Where, u64),
    Fallocate(usize, i32, u64, u64),
    Fsync(usize, bool),
    Copy {
        from: usize,
        at: u64,
        to: usize,
        to_at: u64,
        len: usize,
    },
    Rename(Where, Where, u32),
    Link(Where, Where, bool),
    Symlink(Vec<u8>, Where),
    Readlink(Where),
    Unlink(Where),
    Rmdir(Where),
    Mkdir(Where, u32),
    Mknod(Where, u32, u32),
    Chmod(What, u32),
    Chown(What, Option<u32>, Option<u32>),
    Times(What, Option<i64>, Option<i64>),
    SetXattr(What, &'static str, usize, i32),
    GetXattr(What, &'static str, usize),
    ListXattr(What),
    RemoveXattr(What, &'static str),
    Stat(What),
    Access(Where, u32),
    List(Where),
    /// Maps, reads or writes, unmaps.
    Mapped {
        slot: usize,
        write: bool,
        private: bool,
        at: usize,
        fill: u8,
        len: usize,
    },
    /// Keeps a shared mapping of the file.
    Map(usize),
    MapRead(usize, usize),
    MapWrite(usize, u8, usize),
    Unmap,
    Lock {
        slot: usize,
        ofd: bool,
        kind: i16,
        at: i64,
        len: i64,
    },
    TestLock {
        slot: usize,
        ofd: bool,
        kind: i16,
        at: i64,
        len: i64,
    },
    Pass(u64),
}

/// One step: who does what, on which client.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) client: usize,
    pub(super) user: u32,
    pub(super) what: Do,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} user {}: {:?}", self.client, self.user, self.what)
    }
}

impl Do {
    /// The names and slots that it is about.
    pub(super) fn touches(&self) -> (Vec<&Where>, Vec<usize>) {
        use Do as D;
        match self {
            D::Open { at, slot, .. } => (vec![at], vec![*slot]),
            D::Rename(a, b, _) | D::Link(a, b, _) => (vec![a, b], vec![]),
            D::Copy { from, to, .. } | D::Dup(from, to) => (vec![], vec![*from, *to]),
            D::Symlink(_, at)
            | D::Readlink(at)
            | D::Unlink(at)
            | D::Rmdir(at)
            | D::Mkdir(at, _)
            | D::Mknod(at, ..)
            | D::Truncate(at, _)
            | D::Access(at, _)
            | D::List(at) => (vec![at], vec![]),
            D::Chmod(w, _)
            | D::Chown(w, ..)
            | D::Times(w, ..)
            | D::Stat(w)
            | D::SetXattr(w, ..)
            | D::GetXattr(w, ..)
            | D::ListXattr(w)
            | D::RemoveXattr(w, _) => w.touches(),
            D::Close(slot)
            | D::Read(slot, _)
            | D::Pread(slot, ..)
            | D::Write(slot, ..)
            | D::Pwrite(slot, ..)
            | D::SetAppend(slot, _)
            | D::Seek(slot, ..)
            | D::Ftruncate(slot, _)
            | D::Fallocate(slot, ..)
            | D::Fsync(slot, _)
            | D::Map(slot)
            | D::Mapped { slot, .. }
            | D::Lock { slot, .. }
            | D::TestLock { slot, .. } => (vec![], vec![*slot]),
            D::MapRead(..) | D::MapWrite(..) | D::Unmap | D::Pass(_) => (vec![], vec![]),
        }
    }
}

impl What {
    fn touches(&self) -> (Vec<&Where>, Vec<usize>) {
        match self {
            What::At(w, _) => (vec![w], vec![]),
            What::Slot(slot) => (vec![], vec![*slot]),
        }
    }
}
