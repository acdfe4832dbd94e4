//! Where a mount is not like the backing directory, or a client not like a real one: the D rows of SEMANTICS.md.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use chaosfs::{Backing, Clock, Knobs, Options};
use rustix::fs::{FlockOperation, SeekFrom as To};
use rustix::io::Errno;

#[test]
fn flock_and_fcntl_locks_of_one_file_conflict() {
    let backing = Backing::temp().unwrap();
    let m = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    let open =
        |path| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    let conflict = |dir: &std::path::Path| {
        let (one, other) = (open(dir.join("f")), open(dir.join("f")));
        rustix::fs::flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
        rustix::fs::fcntl_lock(&other, FlockOperation::NonBlockingLockExclusive).is_err()
    };
    assert!(conflict(m.path()), "as on NFS");
    assert!(!conflict(backing.path()), "on a local file system the two do not see each other");
}

#[test]
fn a_past_state_is_all_data_to_lseek() {
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let knobs = Knobs::strict().meta_ttl(Duration::from_secs(3)).close_to_open(false);
    let a = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    let b = backing.mount(Options::new().knobs(knobs)).unwrap();
    let file = File::create(a.join("f")).unwrap();
    file.write_all_at(b"data", 1 << 20).unwrap();
    let mut seen = File::open(b.join("f")).unwrap();
    assert_eq!(seen.seek(SeekFrom::End(0)).unwrap(), (1 << 20) + 4);
    file.set_len(0).unwrap();
    // The truth has nothing any more; b still sees the file as it was, and of that only the size is known.
    assert_eq!(rustix::fs::seek(seen.as_fd(), To::Data(0)).unwrap(), 0);
    assert_eq!(rustix::fs::seek(seen.as_fd(), To::Hole(0)).unwrap(), (1 << 20) + 4);
    backing.clock().advance(Duration::from_secs(3));
    assert_eq!(rustix::fs::seek(seen.as_fd(), To::Data(0)), Err(Errno::NXIO));
}

#[test]
fn reading_under_a_manual_clock_moves_no_access_time() {
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let m = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    fs::write(m.join("f"), "x").unwrap();
    let made = fs::metadata(m.join("f")).unwrap().atime();
    backing.clock().advance(Duration::from_secs(48 * 3600));
    fs::read(m.join("f")).unwrap();
    assert_eq!(fs::metadata(m.join("f")).unwrap().atime(), made);
    assert_eq!(
        fs::metadata(m.join("f")).unwrap().atime(),
        fs::metadata(backing.path().join("f")).unwrap().atime()
    );
}

#[test]
fn of_very_many_removed_files_the_oldest_are_gone_early() {
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let a =
        backing.mount(Options::new().knobs(Knobs::strict().rename_delay(Duration::from_secs(9)))).unwrap();
    let b = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    (0..600).for_each(|n| fs::write(backing.path().join(format!("f{n}")), "x").unwrap());
    (0..600).for_each(|n| fs::remove_file(a.join(format!("f{n}"))).unwrap());
    let seen: Vec<bool> = (0..600).map(|n| fs::read(b.join(format!("f{n}"))).is_ok()).collect();
    assert_eq!(seen.iter().filter(|seen| **seen).count(), 512);
    assert!(!seen[0] && seen[599]);
}

#[test]
fn a_temporary_backing_stays_as_long_as_any_handle_on_it() {
    let first = Backing::temp().unwrap();
    let path = first.path().to_owned();
    let second = Backing::open(&path).unwrap();
    let m = second.mount(Options::new().knobs(Knobs::strict())).unwrap();
    drop((first, second));
    fs::write(m.join("f"), "x").unwrap();
    drop(m);
    assert!(!path.exists());
}
