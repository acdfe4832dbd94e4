//! Acting as the caller: a server that runs as root does a file operation of another user with that user's identity, so
//! that the backing directory decides what it may do and whose a new file is, as it would without a mount between.
//!
//! Owns nothing that lasts: the identity of the one thread changes for one operation and changes back, also in a panic.
//! The kernel's own checking (`default_permissions`) would ask us for the attributes of every directory on every path, since
//! it may not remember them: a third of all requests.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::raw;

thread_local! {
    /// Who this thread acts as; none when it is itself.
    static ACTING: Cell<Option<u32>> = const { Cell::new(None) };
    /// The umask that this thread has, if it has one of its own.
    static UMASK: Cell<Umask> = const { Cell::new(Umask::Unknown) };
}

/// What is known of a thread's umask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Umask {
    Unknown,
    /// It cannot be made this thread's own.
    Shared,
    Own(u32),
}

/// The most supplementary groups that are handed on.
const GROUPS: usize = 1024;

/// Runs `f` as the given user where this process is root and the caller is not.
pub(crate) fn as_caller<T>(uid: u32, gid: u32, tid: u32, f: impl FnOnce() -> T) -> T {
    if (uid == 0 && gid == 0) || !is_root() {
        return f();
    }
    let _back = Back;
    raw::set_groups(&groups_of(tid));
    raw::set_fs_gid(gid);
    // Last: with it the rights of root over files go.
    raw::set_fs_uid(uid);
    ACTING.set(Some(uid));
    f()
}

/// Makes the thread act as this user again.
struct Again(u32);

impl Drop for Again {
    fn drop(&mut self) {
        raw::set_fs_uid(self.0);
    }
}

/// Runs `f` with this process's own rights in the midst of acting for a caller: to find again what the caller has reached
/// before, on a way that may have been closed to it since. What is done with it is the caller's business again.
pub(crate) fn as_server<T>(f: impl FnOnce() -> T) -> T {
    let Some(uid) = ACTING.get() else { return f() };
    raw::set_fs_uid(0);
    let _again = Again(uid);
    f()
}

/// Runs `f`, which makes something with the mode it is given, under the caller's umask. The backing directory itself
/// decides whether that counts: in a directory with a default ACL it does not.
pub(crate) fn with_umask<T>(umask: u32, mode: u32, f: impl FnOnce(u32) -> T) -> T {
    let umask = umask & 0o777;
    if UMASK.get() == Umask::Unknown {
        UMASK.set(if raw::private_umask() { Umask::Own(0) } else { Umask::Shared });
    }
    match UMASK.get() {
        Umask::Own(now) => {
            if now != umask {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
                UMASK.set(Umask::Own(umask));
            }
            f(mode)
        }
        Umask::Unknown | Umask::Shared => f(mode & !umask),
    }
}

fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| rustix::process::geteuid().is_root())
}

struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        static OWN: OnceLock<Vec<u32>> = OnceLock::new();
        ACTING.set(None);
        raw::set_fs_uid(0);
        raw::set_fs_gid(rustix::process::getegid().as_raw());
        raw::set_groups(OWN.get_or_init(|| groups_of(std::process::id())));
    }
}

/// The supplementary groups of a thread; none when it is gone.
fn groups_of(tid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|group| group.parse().ok()).take(GROUPS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_umask_is_that_of_one_call_and_one_thread() {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let make = |umask: u32, name: &str| {
            let path = dir.path().join(name);
            with_umask(umask, 0o666, |mode| {
                std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
            });
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        // In a thread of its own, since it changes the thread for good.
        std::thread::scope(|s| {
            let made = s.spawn(|| (make(0o077, "a"), make(0, "b"), make(0o022, "c"))).join().unwrap();
            assert_eq!(made, (0o600, 0o666, 0o644));
        });
    }

    /// Needs the root of the machine; for others it is empty.
    mod root {
        use super::*;

        #[test]
        fn what_is_made_as_a_caller_belongs_to_it_and_the_thread_is_itself_again_after() {
            use std::os::unix::fs::{MetadataExt, PermissionsExt};
            // Everybody: not the root of a user namespace, who can become nobody else.
            let all =
                std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
            if !is_root() || !all {
                return;
            }
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
            as_caller(65534, 65533, 0, || std::fs::write(dir.path().join("theirs"), "").unwrap());
            std::fs::write(dir.path().join("ours"), "").unwrap();
            let theirs = std::fs::metadata(dir.path().join("theirs")).unwrap();
            assert_eq!((theirs.uid(), theirs.gid()), (65534, 65533));
            assert_eq!(std::fs::metadata(dir.path().join("ours")).unwrap().uid(), 0);
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
            let refused = as_caller(65534, 65534, 0, || std::fs::read_dir(dir.path()).map(drop));
            let found = as_caller(65534, 65534, 0, || {
                let found = as_server(|| std::fs::metadata(dir.path().join("ours")).is_ok());
                found && std::fs::metadata(dir.path().join("ours")).is_err()
            });
            assert!(found, "as the server, and then as the caller again");
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            assert!(std::fs::read_dir(dir.path()).is_ok());
        }
    }
}
