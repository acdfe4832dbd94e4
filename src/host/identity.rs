//! Acting as the caller: a server that runs as root does a file operation of another user with that user's identity, so
//! that the backing directory decides what it may do and whose a new file is, as it would without a mount between.
//!
//! Owns nothing that lasts: the identity of the one thread changes for one operation and changes back, also in a panic.
//! The kernel's own checking (`default_permissions`) would ask us for the attributes of every directory on every path, since
//! it may not remember them: a third of all requests.

use std::sync::OnceLock;

use super::raw;

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
    f()
}

fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| rustix::process::geteuid().is_root())
}

struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        static OWN: OnceLock<Vec<u32>> = OnceLock::new();
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
    fn what_is_made_as_a_caller_belongs_to_it_and_the_thread_is_itself_again_after() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        if !is_root() {
            return; // an ordinary user acts for nobody else
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
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        assert!(std::fs::read_dir(dir.path()).is_ok());
    }
}
