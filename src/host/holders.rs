//! Who holds a mount: the processes with an open file, a working or root directory, or a mapping inside.
//!
//! Owns nothing. Promises to come back within the time it is given, with as much as it found, and to give at most
//! [`MOST`] holders. Never touches the mount: it reads the links and lists in `/proc`, whose names the kernel keeps.
//! An ordinary user sees its own processes only.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, makedev, statx};

use super::server;
use crate::error::{HeldBy, Holder};

/// More names than this help nobody.
const MOST: usize = 32;
/// The largest list of mappings that is read, per process.
const MAPS_LIMIT: u64 = 4 << 20;

/// The holders of what is mounted at `mountpoint`, found within `limit`. `mount_id` tells it from mounts below and above
/// it on the same path.
pub(crate) fn find(mountpoint: &Path, mount_id: Option<u64>, limit: Duration) -> Vec<Holder> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let scan = Scan {
        mountpoint: mountpoint.to_owned(),
        mount_id,
        deadline: Instant::now() + limit,
        found: Arc::clone(&found),
    };
    // `/proc/<pid>/maps` waits for the lock of that address space, which a page fault in a stuck mount can hold.
    let done = server::start(move || scan.run());
    let _ = done.recv_timeout(limit);
    std::mem::take(&mut *found.lock())
}

/// A handle, as a path only, on something on device `st_dev` for a file system that can no longer be reached at `path`
/// from here: on what one of this user's processes has open there, or on a copy of the mount in the namespace of such a
/// process. Found within about `limit`.
pub(super) fn borrow(path: &Path, st_dev: u64, limit: Duration) -> Option<OwnedFd> {
    let deadline = Instant::now() + limit;
    let in_time = || Instant::now() < deadline;
    let is_inside = |link: &PathBuf| {
        // Through the link to what is held, without asking its file system anything.
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let stat = statx(CWD, link, flags, StatxFlags::empty());
        stat.is_ok_and(|stat| makedev(stat.stx_dev_major, stat.stx_dev_minor) == st_dev)
    };
    let open = |link: PathBuf| rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    pids().take_while(|_| in_time()).find_map(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let root = process.join("root");
        let copy = path.strip_prefix("/").map_or_else(|_| root.clone(), |path| root.join(path));
        let files =
            fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let all = [process.join("cwd"), root, copy].into_iter().chain(files);
        all.take_while(|_| in_time()).find(is_inside).and_then(open)
    })
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

struct Scan {
    mountpoint: PathBuf,
    mount_id: Option<u64>,
    deadline: Instant,
    found: Arc<Mutex<Vec<Holder>>>,
}

impl Scan {
    fn run(&self) {
        let pids: Vec<u32> = pids().take_while(|_| !self.over()).collect();
        for &pid in pids.iter().take_while(|_| !self.over()) {
            self.links(pid);
        }
        // Lists of mappings are long, and a mapping without an open file is rare: look only when nothing else explains it.
        if self.found.lock().is_empty() {
            for &pid in pids.iter().take_while(|_| !self.over()) {
                self.mappings(pid);
            }
        }
    }

    fn over(&self) -> bool {
        Instant::now() >= self.deadline || self.found.lock().len() >= MOST
    }

    fn links(&self, pid: u32) {
        for (name, by) in [("cwd", HeldBy::Cwd), ("root", HeldBy::Root)] {
            if let Ok(path) = fs::read_link(format!("/proc/{pid}/{name}")) {
                self.consider(pid, by, path);
            }
        }
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        for entry in descriptors.flatten().take_while(|_| !self.over()) {
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(path) = fs::read_link(entry.path()) else { continue };
            if path.starts_with(&self.mountpoint) && self.may_be_ours(pid, fd) {
                self.consider(pid, HeldBy::Fd(fd), path);
            }
        }
    }

    /// Whether an open file with a matching name is on this mount: not, if it says that it is on another one.
    fn may_be_ours(&self, pid: u32, fd: i32) -> bool {
        let Some(ours) = self.mount_id else { return true };
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")) else { return true };
        let theirs = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
        theirs.is_none_or(|id| id == ours)
    }

    fn mappings(&self, pid: u32) {
        use std::io::Read as _;
        let Ok(file) = fs::File::open(format!("/proc/{pid}/maps")) else { return };
        let mut maps = Vec::new();
        let _ = file.take(MAPS_LIMIT).read_to_end(&mut maps);
        for line in maps.split(|&b| b == b'\n') {
            // `from-to rwxp offset dev inode   path`
            if let Some(at) = line.iter().position(|&b| b == b'/') {
                self.consider(pid, HeldBy::Mapping, PathBuf::from(OsStr::from_bytes(&line[at..])));
            }
        }
    }

    fn consider(&self, pid: u32, by: HeldBy, path: PathBuf) {
        if !path.starts_with(&self.mountpoint) {
            return;
        }
        let program =
            fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
        let holder = Holder { pid, program, by, path };
        let mut found = self.found.lock();
        if found.len() < MOST && !found.contains(&holder) {
            found.push(holder);
        }
    }
}
