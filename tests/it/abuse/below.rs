//! What happens to the directory under a mount: it is read-only, full, unmounted, deleted, or a mount itself. Programs get
//! errors with the right names, nothing hangs, and the guard still unmounts.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use chaosfs::{Backing, BackingProblem, Clock, Error, Knobs, Mount, MountpointProblem, Options};
use tempfile::TempDir;

use crate::ops::{as_nobody, is_root};
use crate::support::{errno, eventually, get, list, put};

/// A file system in memory of one MiB, which only root can make.
struct Small(TempDir);

impl Small {
    fn new() -> Option<Small> {
        let small = is_root().then(|| Small(tempfile::tempdir().unwrap()))?;
        small.mount(&["-t", "tmpfs", "-o", "size=1m,mode=755", "none"]);
        Some(small)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount(&self, args: &[&str]) {
        assert!(Command::new("mount").args(args).arg(self.path()).status().unwrap().success());
    }

    fn unmount(&self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn strict() -> Options {
    Options::new().knobs(Knobs::strict())
}

/// The error of the first thing that fails in writing so much to a new file: a write, or the flush that was late.
fn fill(m: &Mount, name: &str) -> io::Result<()> {
    let mut file = File::create(m.join(name))?;
    for _ in 0..64 {
        file.write_all(&vec![7; 64 << 10])?;
    }
    file.sync_all()
}

#[test]
fn a_full_disk_is_told_and_work_goes_on_when_there_is_room_again() {
    chaosfs::require_fuse!();
    for knobs in [Knobs::strict(), Knobs::eventual(), Knobs::nfs()] {
        let Some(small) = Small::new() else { return };
        let backing = Backing::options().clock(Clock::manual()).open(small.path()).unwrap();
        let m = backing.mount(Options::new().knobs(knobs)).unwrap();
        put(&m, "before", "kept");
        assert_eq!(errno(fill(&m, "large")), libc::ENOSPC, "{knobs:?}");
        assert_eq!(get(&m, "before"), "kept");
        fs::remove_file(m.join("large")).unwrap();
        // Nobody is shown the removed file any more, and nothing is left that could fail later.
        backing.settle().unwrap();
        // A process that another test is starting has a copy of the descriptor for a moment.
        let write = || {
            let mut after = File::create(m.join("after"))?;
            after.write_all(b"there is room").and_then(|()| after.sync_all())
        };
        eventually("there is room", || write().is_ok());
        assert_eq!(fs::read_to_string(small.path().join("after")).unwrap(), "there is room");
        assert_eq!(list(small.path()), ["after", "before"]);
        m.unmount().unwrap();
    }
}

#[test]
fn a_disk_that_turns_read_only_says_so_and_can_be_turned_back() {
    chaosfs::require_fuse!();
    let Some(small) = Small::new() else { return };
    let m = strict().mount(small.path()).unwrap();
    put(&m, "f", "text");
    small.mount(&["-o", "remount,ro"]);
    assert_eq!(get(&m, "f"), "text");
    let path = |name: &str| m.join(name);
    assert_eq!(errno(fs::write(path("f"), "other")), libc::EROFS);
    assert_eq!(errno(fs::write(path("new"), "")), libc::EROFS);
    assert_eq!(errno(fs::create_dir(path("d"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(path("f"))), libc::EROFS);
    assert_eq!(errno(fs::rename(path("f"), path("g"))), libc::EROFS);
    assert_eq!(errno(fs::set_permissions(path("f"), PermissionsExt::from_mode(0o600))), libc::EROFS);
    assert_eq!(get(&m, "f"), "text");
    small.mount(&["-o", "remount,rw"]);
    put(&m, "f", "other");
    assert_eq!(fs::read_to_string(small.path().join("f")).unwrap(), "other");
    m.unmount().unwrap();
}

#[test]
fn a_directory_that_may_not_be_written_is_not_written_by_users() {
    chaosfs::require_fuse!();
    if !is_root() {
        return;
    }
    let backing = Backing::temp().unwrap();
    fs::set_permissions(backing.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let m = backing.mount(strict()).unwrap();
    put(&m, "f", "text");
    let tried =
        || as_nobody(|| (fs::write(m.join("new"), ""), fs::remove_file(m.join("f")), fs::read(m.join("f"))));
    let (made, removed, read) = tried();
    assert_eq!((errno(made), errno(removed), read.unwrap()), (libc::EACCES, libc::EACCES, b"text".to_vec()));
    // What happens under the mount counts at once.
    fs::set_permissions(backing.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let (made, removed, read) = tried();
    assert_eq!((made.is_ok(), removed.is_ok(), errno(read)), (true, true, libc::ENOENT));
    m.unmount().unwrap();
}

#[test]
fn a_disk_that_is_unmounted_under_a_mount_takes_nothing_down_with_it() {
    chaosfs::require_fuse!();
    let Some(small) = Small::new() else { return };
    let m = strict().mount(small.path()).unwrap();
    put(&m, "f", "text");
    let open = File::options().read(true).write(true).open(m.join("f")).unwrap();
    small.unmount();
    assert_eq!(list(small.path()), [""; 0]);
    // The mount holds what it was made of, as an open directory does.
    assert_eq!(get(&m, "f"), "text");
    open.write_all_at(b"T", 0).unwrap();
    put(&m, "g", "new");
    assert_eq!((get(&m, "f"), list(m.path())), ("Text".to_owned(), vec!["f".to_owned(), "g".to_owned()]));
    assert_eq!(list(small.path()), [""; 0], "nothing goes to the directory that was under the disk");
    drop(open);
    m.unmount().unwrap();
}

#[test]
fn a_deleted_directory_gives_errors_and_keeps_what_is_open() {
    chaosfs::require_fuse!();
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("backing");
    fs::create_dir_all(dir.join("d")).unwrap();
    let m = strict().exact(true).mount(&dir).unwrap();
    put(&m, "d/f", "text");
    let open = File::options().read(true).write(true).open(m.join("d/f")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(errno(fs::read(m.join("d/f"))), libc::ENOENT);
    assert_eq!(errno(fs::write(m.join("new"), "")), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(m.join("new"))), libc::ENOENT);
    assert_eq!(list(m.path()), [""; 0]);
    open.write_all_at(b"T", 0).unwrap();
    let mut back = [0; 4];
    open.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"Text");
    // A new directory at the old path is another one.
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("other"), "").unwrap();
    assert_eq!(list(m.path()), [""; 0]);
    drop(open);
    m.unmount().unwrap();
}

/// Serves a mount until it is killed; only in the process that the next test starts.
#[test]
fn outer() {
    let Ok(dir) = std::env::var("CHAOSFS_TEST_OUTER") else { return };
    let m = strict().mount(dir).unwrap();
    println!("\nserving {}", m.path().display());
    thread::park_timeout(Duration::from_secs(60));
}

#[test]
fn a_mount_of_another_process_can_be_mounted_again_and_dies_alone() {
    chaosfs::require_fuse!();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "abuse::below::outer", "--nocapture"]).env("CHAOSFS_TEST_OUTER", dir.path());
    let mut outer = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(outer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let under = said.find_map(|l| l.strip_prefix("serving ").map(PathBuf::from)).expect("it serves");
    let backing = Backing::options().clock(Clock::manual()).open(&under).unwrap();
    let m = backing.mount(Options::new()).unwrap();
    for n in 0..50 {
        fs::write(m.join("f"), "text").unwrap();
        fs::rename(m.join("f"), m.join(n.to_string())).unwrap();
        assert_eq!(get(&m, &n.to_string()), "text");
    }
    backing.settle().unwrap();
    assert_eq!(list(dir.path()).len(), 50);
    let open = File::create(m.join("open")).unwrap();
    outer.kill().unwrap();
    outer.wait().unwrap();
    assert_eq!(errno(fs::write(m.join("new"), "x")), libc::ENOTCONN);
    drop(open);
    m.unmount().unwrap();
    drop(backing);
    let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&under).output();
    let _ = fs::remove_dir(under);
}

#[test]
fn a_mount_of_this_process_cannot_be_mounted_again() {
    chaosfs::require_fuse!();
    let m = Backing::temp().unwrap().mount(strict()).unwrap();
    fs::create_dir(m.join("d")).unwrap();
    for dir in [m.path().to_owned(), m.join("d")] {
        // Killed with a file open there, the process could never end.
        let refused = Backing::open(&dir).unwrap_err();
        assert!(matches!(&refused, Error::Backing { problem: BackingProblem::InOwnMount, .. }), "{refused}");
    }
    m.unmount().unwrap();
}

#[test]
fn a_mount_in_a_directory_under_another_one_is_refused_either_way_round() {
    chaosfs::require_fuse!();
    let (one, two) = (tempfile::tempdir().unwrap(), Backing::temp().unwrap());
    let at = one.path().join("at");
    fs::create_dir(&at).unwrap();
    {
        let _first = strict().mount(one.path()).unwrap();
        let refused = two.mount(strict().at(&at)).unwrap_err();
        let problem = matches!(&refused, Error::Mountpoint { problem: MountpointProblem::InBacking(_), .. });
        assert!(problem, "{refused}");
    }
    let _second = two.mount(strict().at(&at)).unwrap();
    let refused = Backing::open(one.path()).unwrap_err();
    let problem = matches!(&refused, Error::Backing { problem: BackingProblem::ContainsOwnMount(_), .. });
    assert!(problem, "{refused}");
}

#[test]
fn a_mount_cannot_be_its_own_directory_and_says_so() {
    chaosfs::require_fuse!();
    let backing = Backing::temp().unwrap();
    let m = backing.mount(strict()).unwrap();
    // A mount of itself on a place in itself, and of the backing on a place in the mount.
    fs::create_dir(m.join("here")).unwrap();
    for dir in [m.path(), backing.path()] {
        let tried = strict().at(m.join("here")).patience(Duration::from_secs(5)).mount(dir);
        if let Err(e) = &tried {
            let said = e.to_string();
            assert!([dir, m.path()].iter().any(|place| said.contains(place.to_str().unwrap())), "{said}");
        }
        drop(tried);
    }
    assert_eq!(list(m.path()), ["here"]);
    m.unmount().unwrap();
}
