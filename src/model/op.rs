//! The operations of a file system, as a rule, a draw and an event name them.

use std::fmt;

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $class:ident;)*) => {
        /// An operation that a program performs on a mount, named after its system call.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[non_exhaustive]
        pub enum Op { $($(#[$doc])* $variant,)* }

        impl Op {
            const ALL: &'static [Op] = &[$(Op::$variant),*];

            /// The name, as in rules and events.
            pub const fn name(self) -> &'static str {
                match self { $(Op::$variant => $name,)* }
            }

            const fn class(self) -> Class {
                match self { $(Op::$variant => Class::$class,)* }
            }
        }
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Looks at data or attributes.
    Read,
    /// Changes data or attributes.
    Write,
    /// Changes a directory.
    Name,
    /// Neither: opening, closing, locking.
    Other,
}

ops! {
    /// Finding a name in a directory.
    Lookup = "lookup" Read;
    /// `stat`.
    Getattr = "getattr" Read;
    /// `chmod`, `chown`, `utimens`.
    Setattr = "setattr" Write;
    /// `truncate` and `ftruncate`. With `O_TRUNC` it is a part of `open` or `create`.
    Truncate = "truncate" Write;
    /// `readlink`.
    Readlink = "readlink" Read;
    /// `mknod`, `mkfifo`.
    Mknod = "mknod" Name;
    /// `mkdir`.
    Mkdir = "mkdir" Name;
    /// `unlink`.
    Unlink = "unlink" Name;
    /// `rmdir`.
    Rmdir = "rmdir" Name;
    /// `symlink`.
    Symlink = "symlink" Name;
    /// `rename`.
    Rename = "rename" Name;
    /// `link`.
    Link = "link" Name;
    /// `open` of a file that exists.
    Open = "open" Other;
    /// `open` with `O_CREAT` of a name that the client does not see.
    Create = "create" Name;
    /// `read`.
    Read = "read" Read;
    /// `write`.
    Write = "write" Write;
    /// `close`, once for every descriptor.
    Flush = "flush" Other;
    /// `fsync` and `fdatasync`.
    Fsync = "fsync" Other;
    /// `opendir` and reading the listing.
    Readdir = "readdir" Read;
    /// `fsync` of a directory.
    Fsyncdir = "fsyncdir" Other;
    /// `statfs`. No fault hits it: chaosfs relies on its answer itself.
    Statfs = "statfs" Read;
    /// `setxattr`.
    Setxattr = "setxattr" Write;
    /// `getxattr`.
    Getxattr = "getxattr" Read;
    /// `listxattr`.
    Listxattr = "listxattr" Read;
    /// `removexattr`.
    Removexattr = "removexattr" Write;
    /// `access`.
    Access = "access" Read;
    /// `fcntl` and `flock` locks.
    Lock = "lock" Other;
    /// `fallocate`.
    Fallocate = "fallocate" Write;
    /// `lseek` for holes and data.
    Lseek = "lseek" Read;
    /// `copy_file_range`.
    CopyFileRange = "copy_file_range" Write;
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Op {
    /// Every operation.
    pub fn any() -> OpSet {
        OpSet::of(|_| true)
    }

    /// Operations that look at data or attributes.
    pub fn reads() -> OpSet {
        OpSet::of(|op| op.class() == Class::Read)
    }

    /// Operations that change data or attributes.
    pub fn writes() -> OpSet {
        OpSet::of(|op| op.class() == Class::Write)
    }

    /// Operations that change a directory.
    pub fn names() -> OpSet {
        OpSet::of(|op| op.class() == Class::Name)
    }

    /// Whether a program asks for it with a system call of its own. How many look-ups and getattrs the kernel adds
    /// differs from kernel to kernel, so chance never falls on those.
    pub(crate) fn is_droppable(self) -> bool {
        !matches!(
            self,
            Op::Lookup | Op::Getattr | Op::Access | Op::Flush | Op::Fsyncdir | Op::Statfs | Op::Lock
        )
    }
}

/// A set of operations. `Op` and arrays of `Op` convert into one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpSet(u64);

impl OpSet {
    fn of(keep: impl Fn(Op) -> bool) -> Self {
        OpSet(Op::ALL.iter().filter(|op| keep(**op)).fold(0, |set, op| set | 1 << *op as u32))
    }

    /// Whether `op` is in it.
    pub const fn contains(self, op: Op) -> bool {
        self.0 & (1 << op as u32) != 0
    }
}

impl From<Op> for OpSet {
    fn from(op: Op) -> Self {
        OpSet(1 << op as u32)
    }
}

impl<const N: usize> From<[Op; N]> for OpSet {
    fn from(ops: [Op; N]) -> Self {
        OpSet::of(|op| ops.contains(&op))
    }
}

impl fmt::Debug for OpSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Op::ALL.iter().filter(|op| self.contains(**op))).finish()
    }
}
