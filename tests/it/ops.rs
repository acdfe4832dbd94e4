//! What the tests of operations share: the same is done on a bare directory and through a strict mount, and must come to
//! the same.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaosfs::{Knobs, Mount, Options};
use tempfile::TempDir;

/// Longer than anything here takes; what is waited for is an event, never this.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// A user and a group that are nobody's.
pub(crate) const NOBODY: u32 = 65534;

/// A bare directory, and a strict mount over another one beside it.
pub(crate) struct Twin {
    pub(crate) mount: Mount,
    bare: PathBuf,
    _base: TempDir,
}

impl Twin {
    pub(crate) fn new() -> Twin {
        Twin::with(Knobs::strict())
    }

    pub(crate) fn with(knobs: Knobs) -> Twin {
        let base = open_to_all(tempfile::tempdir().unwrap());
        let place = |name: &str| {
            let path = base.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            path
        };
        let (bare, backing, at) = (place("n"), place("b"), place("m"));
        let mount = Options::new().knobs(knobs).at(at).mount(backing).unwrap();
        Twin { mount, bare, _base: base }
    }

    /// Does the same on the bare directory and through the mount, and answers what it came to on both.
    #[track_caller]
    pub(crate) fn both<T: PartialEq + Debug>(&self, f: impl Fn(&Path) -> T) -> T {
        let bare = f(&self.bare);
        let through = f(self.mount.path());
        assert_eq!(through, bare, "through the mount (left) and on the bare directory (right)");
        bare
    }

    /// Does the same on both, where only that it comes to the same counts.
    #[track_caller]
    pub(crate) fn same<T: PartialEq + Debug>(&self, f: impl Fn(&Path) -> T) {
        let _ = self.both(f);
    }

    pub(crate) fn bare(&self) -> &Path {
        &self.bare
    }

    pub(crate) fn backing(&self) -> &Path {
        self.mount.backing().path()
    }
}

fn open_to_all(dir: TempDir) -> TempDir {
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A result that can be compared: the value, or the error number.
pub(crate) trait Number<T> {
    fn number(self) -> Result<T, i32>;
}

impl<T> Number<T> for io::Result<T> {
    fn number(self) -> Result<T, i32> {
        self.map_err(|e| e.raw_os_error().unwrap_or(-1))
    }
}

impl<T> Number<T> for rustix::io::Result<T> {
    fn number(self) -> Result<T, i32> {
        self.map_err(rustix::io::Errno::raw_os_error)
    }
}

/// The end of a C library call.
pub(crate) fn done(result: impl Into<i64>) -> Result<i64, i32> {
    match result.into() {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap_or(-1)),
        n => Ok(n),
    }
}

/// What `stat` says of a file and two directories can agree on.
pub(crate) fn looks(path: &Path) -> Result<(u32, u64, u64, u32, u32, u64), i32> {
    let meta = std::fs::symlink_metadata(path).number()?;
    // The size of a directory is the file system's business.
    let size = if meta.is_dir() { 0 } else { meta.size() };
    Ok((meta.mode(), meta.nlink(), size, meta.uid(), meta.gid(), meta.rdev()))
}

pub(crate) fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Whether this is the root of the machine, who can become every user. That of a user namespace cannot.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root() && !in_user_namespace()
}

/// Whether there are users of the machine that do not exist here.
pub(crate) fn in_user_namespace() -> bool {
    !std::fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295")
}

/// Runs `f` in a thread that is `uid` and `gid` in all respects, with the groups given. For tests that run as root.
#[allow(unsafe_code, reason = "the C library changes all threads; the kernel can change one")]
pub(crate) fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| {
        let body = || {
            // SAFETY: integers, and the pointer and length of one slice of `gid_t`.
            let failed = unsafe {
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr())
                    | libc::syscall(libc::SYS_setresgid, gid, gid, gid)
                    | libc::syscall(libc::SYS_setresuid, uid, uid, uid)
            };
            assert_eq!(failed, 0, "{}", io::Error::last_os_error());
            f()
        };
        s.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The same as an ordinary user.
pub(crate) fn as_nobody<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    as_user(NOBODY, NOBODY, &[], f)
}

/// Runs a script in `dir`, and answers how it ended and what it said.
pub(crate) fn shell(dir: &Path, script: &str) -> (Option<i32>, String) {
    let out = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs `body` in a process of its own, this program once more for the one test `name`. A child that another test starts
/// has copies of all descriptors for a moment, and with them the locks of files that are closed here.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    const ALONE: &str = "CHAOSFS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let out = again.args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// What there is below `dir`: names, kinds and contents.
pub(crate) fn tree(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(here) = todo.pop() {
        for entry in std::fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                todo.push(path.clone());
            }
            let content = kind.is_file().then(|| std::fs::read(&path).unwrap());
            found.push((path.strip_prefix(dir).unwrap().to_owned(), content));
        }
    }
    found.sort();
    found
}

/// `fallocate`, whose modes the standard library does not know.
pub(crate) fn fallocate(file: &File, mode: u32, at: u64, len: u64) -> Result<(), i32> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::from_bits_retain(mode), at, len).number()
}

/// `fcntl(F_SETFL)`.
#[allow(unsafe_code, reason = "not in the standard library")]
pub(crate) fn set_flags(file: &File, flags: i32) {
    // SAFETY: integers.
    assert_eq!(done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) }), Ok(0));
}

/// Files in memory.
pub(crate) mod mapping {
    #![allow(unsafe_code, reason = "the standard library maps no files")]

    use std::fs::File;
    use std::os::fd::AsRawFd;

    pub(crate) struct Mapping {
        at: *mut libc::c_void,
        len: usize,
    }

    impl Mapping {
        pub(crate) fn shared(file: &File, len: usize) -> Mapping {
            Mapping::new(file, len, libc::MAP_SHARED)
        }

        pub(crate) fn private(file: &File, len: usize) -> Mapping {
            Mapping::new(file, len, libc::MAP_PRIVATE)
        }

        fn new(file: &File, len: usize, how: libc::c_int) -> Mapping {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: at an address of the kernel's choice, so nothing is replaced.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, how, file.as_raw_fd(), 0) };
            assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            Mapping { at, len }
        }

        pub(crate) fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: mapped in `new` for this length until `drop`. That the file changes by other means as well is what
            // is tested; no reference is held meanwhile.
            unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.len) }
        }

        /// `msync`.
        pub(crate) fn sync(&self) {
            // SAFETY: the mapping of `new`.
            assert_eq!(unsafe { libc::msync(self.at, self.len, libc::MS_SYNC) }, 0);
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping of `new`, which nobody borrows any more.
            unsafe { libc::munmap(self.at, self.len) };
        }
    }
}

/// Advisory locks.
pub(crate) mod locks {
    #![allow(unsafe_code, reason = "the standard library has none on ranges")]

    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::done;

    /// Whose a lock is: the process's or the open file description's.
    #[derive(Clone, Copy)]
    pub(crate) enum Api {
        Posix,
        PosixWait,
        Ofd,
        OfdWait,
    }

    fn lock(kind: i16, start: i64, len: i64) -> libc::flock {
        libc::flock { l_type: kind, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
    }

    pub(crate) fn set(file: &File, api: Api, kind: i16, start: i64, len: i64) -> Result<(), i32> {
        let command = match api {
            Api::Posix => libc::F_SETLK,
            Api::PosixWait => libc::F_SETLKW,
            Api::Ofd => libc::F_OFD_SETLK,
            Api::OfdWait => libc::F_OFD_SETLKW,
        };
        let lock = lock(kind, start, len);
        // SAFETY: the pointer is to a lock that lives across the call.
        done(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) }).map(drop)
    }

    /// The lock that stands in the way: its kind, start and length.
    pub(crate) fn get(
        file: &File,
        api: Api,
        kind: i16,
        start: i64,
        len: i64,
    ) -> Result<(i16, i64, i64), i32> {
        let command = if matches!(api, Api::Posix) { libc::F_GETLK } else { libc::F_OFD_GETLK };
        let mut lock = lock(kind, start, len);
        // SAFETY: as above; the kernel writes it.
        done(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) })?;
        Ok((lock.l_type, lock.l_start, lock.l_len))
    }

    pub(crate) fn flock(file: &File, how: i32) -> Result<(), i32> {
        // SAFETY: integers.
        done(unsafe { libc::flock(file.as_raw_fd(), how) }).map(drop)
    }
}
