//! Locks, as on the bare directory: POSIX ranges, open-file-description locks and `flock`, in one process, between
//! processes, and between two mounts.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use chaosfs::{Backing, Knobs, Options};

use crate::ops::locks::{Api, flock, get, set};
use crate::ops::{LIMIT, Twin, alone, read_write};
use crate::support::in_call;

const READ: i16 = libc::F_RDLCK as i16;
const WRITE: i16 = libc::F_WRLCK as i16;
const NONE: i16 = libc::F_UNLCK as i16;
const AGAIN: Result<(), i32> = Err(libc::EAGAIN);

#[test]
fn descriptions_exclude_each_other_by_range() {
    alone("ops_locks::descriptions_exclude_each_other_by_range", || {
        let t = Twin::new();
        t.same(|d| {
            let (a, b) = (read_write(&d.join("f")), read_write(&d.join("f")));
            let mut ends = Vec::new();
            let mut step = |file: &File, kind, start, len| ends.push(set(file, Api::Ofd, kind, start, len));
            step(&a, WRITE, 0, 10);
            step(&b, WRITE, 10, 10);
            step(&b, READ, 9, 1);
            step(&b, WRITE, 5, 0);
            // Split in two, turned into a read lock, and one end given up.
            step(&a, NONE, 3, 4);
            step(&b, WRITE, 3, 4);
            step(&a, READ, 0, 3);
            step(&b, READ, 0, 3);
            step(&b, WRITE, 0, 3);
            step(&a, NONE, 0, 0);
            step(&b, WRITE, 0, 0);
            let seen: Vec<_> = [0, 5, 15, 100].map(|at| get(&a, Api::Ofd, READ, at, 1)).to_vec();
            drop(b);
            (ends, seen, set(&a, Api::Ofd, WRITE, 0, 0))
        });
    });
}

#[test]
fn neighbouring_locks_are_told_as_one() {
    let t = Twin::new();
    t.same(|d| {
        let (a, b) = (read_write(&d.join("f")), read_write(&d.join("f")));
        for (start, len) in [(20, 10), (0, 10), (10, 10), (50, 5)] {
            set(&a, Api::Ofd, WRITE, start, len).unwrap();
        }
        let first = get(&b, Api::Ofd, WRITE, 0, 0);
        set(&a, Api::Ofd, NONE, 15, 1).unwrap();
        set(&a, Api::Ofd, READ, 16, 4).unwrap();
        let pieces = [0, 15, 16, 20, 31].map(|at| get(&b, Api::Ofd, WRITE, at, 0));
        (first, pieces)
    });
}

#[test]
fn a_process_keeps_no_locks_when_it_closes_any_descriptor_of_the_file() {
    alone("ops_locks::a_process_keeps_no_locks_when_it_closes_any_descriptor_of_the_file", || {
        let t = Twin::new();
        t.same(|d| {
            let (a, other) = (read_write(&d.join("f")), read_write(&d.join("f")));
            let own = set(&a, Api::Posix, WRITE, 0, 10);
            let again = set(&other, Api::Posix, WRITE, 5, 10);
            // Seen by another owner only.
            let seen = (get(&a, Api::Posix, WRITE, 0, 1), get(&a, Api::Ofd, WRITE, 0, 1));
            let refused = set(&other, Api::Ofd, WRITE, 0, 1);
            drop(other);
            (own, again, seen, refused, get(&a, Api::Ofd, WRITE, 0, 100))
        });
    });
}

#[test]
fn whole_files_are_locked_shared_and_exclusively() {
    alone("ops_locks::whole_files_are_locked_shared_and_exclusively", || {
        let t = Twin::new();
        t.same(|d| {
            let open = || read_write(&d.join("f"));
            let (a, b, c) = (open(), open(), open());
            let mut ends = Vec::new();
            let no_wait = libc::LOCK_NB;
            for (file, how) in [
                (&a, libc::LOCK_SH | no_wait),
                (&b, libc::LOCK_SH | no_wait),
                (&c, libc::LOCK_EX | no_wait),
                (&a, libc::LOCK_EX | no_wait),
                (&b, libc::LOCK_UN),
                (&a, libc::LOCK_EX | no_wait),
                (&b, libc::LOCK_SH | no_wait),
            ] {
                ends.push(flock(file, how));
            }
            let shared = a.try_clone().unwrap();
            drop(a);
            ends.push(flock(&b, libc::LOCK_EX | no_wait));
            drop(shared);
            // The kernel tells of the last close in its own time, and yet it is known here.
            ends.push(flock(&b, libc::LOCK_EX | no_wait));
            ends
        });
    });
}

#[test]
fn a_closed_file_is_unlocked_at_once_a_thousand_times() {
    alone("ops_locks::a_closed_file_is_unlocked_at_once_a_thousand_times", || {
        let t = Twin::new();
        t.same(|d| {
            let mut refused = 0;
            for _ in 0..1000 {
                let file = read_write(&d.join("f"));
                refused += u32::from(flock(&file, libc::LOCK_EX | libc::LOCK_NB).is_err());
            }
            refused
        });
    });
}

/// Another open file waits for a lock that `let_go` lets go; whether it came too early, and how it ended.
fn waits_until(d: &Path, let_go: impl FnOnce(File) + Send) -> (bool, Result<(), i32>) {
    let held = read_write(&d.join("f"));
    set(&held, Api::Ofd, WRITE, 0, 0).unwrap();
    let path = d.join("f");
    let (tx, rx) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|s| {
        s.spawn(move || {
            let file = read_write(&path);
            tell.send(rustix::thread::gettid()).unwrap();
            tx.send(set(&file, Api::OfdWait, WRITE, 0, 10)).unwrap();
        });
        // It has been asked for, and does not come as long as the lock is held.
        in_call(told.recv().unwrap(), libc::SYS_fcntl);
        let early = rx.try_recv().is_ok();
        let_go(held);
        (early, rx.recv_timeout(LIMIT).unwrap())
    })
}

#[test]
fn who_waits_gets_the_lock_when_it_is_let_go() {
    let t = Twin::new();
    assert_eq!(t.both(|d| waits_until(d, drop)), (false, Ok(())));
    let unlock = |held: File| set(&held, Api::Ofd, NONE, 0, 0).unwrap();
    assert_eq!(t.both(|d| waits_until(d, unlock)), (false, Ok(())));
    let downgrade = |held: File| {
        set(&held, Api::Ofd, READ, 0, 0).unwrap();
        set(&held, Api::Ofd, NONE, 0, 10).unwrap();
    };
    assert_eq!(t.both(|d| waits_until(d, downgrade)), (false, Ok(())));
}

/// A process with an open, locked file, until its input ends.
fn holder(path: &Path) -> Child {
    let script = "exec 9<>\"$1\"; flock -x 9; echo locked; read line";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    child
}

#[test]
fn a_process_that_is_killed_holds_no_lock() {
    let t = Twin::new();
    t.same(|d| {
        fs::write(d.join("f"), "").unwrap();
        let mut child = holder(&d.join("f"));
        let file = read_write(&d.join("f"));
        let before = flock(&file, libc::LOCK_SH | libc::LOCK_NB);
        child.kill().unwrap();
        child.wait().unwrap();
        (before, flock(&file, libc::LOCK_SH))
    });
}

#[test]
fn a_process_that_waits_for_a_lock_can_be_killed() {
    let t = Twin::new();
    t.same(|d| {
        let file = read_write(&d.join("f"));
        flock(&file, libc::LOCK_EX).unwrap();
        let mut waiting = Command::new("sh");
        waiting.args(["-c", "exec 9<\"$1\"; echo asks; exec flock -x 9", "sh"]).arg(d.join("f"));
        let mut child = waiting.stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // Whoever it was that waited, it does not get the lock now.
        (flock(&file, libc::LOCK_UN), flock(&read_write(&d.join("f")), libc::LOCK_EX | libc::LOCK_NB))
    });
}

#[test]
fn two_mounts_exclude_each_other() {
    alone("ops_locks::two_mounts_exclude_each_other", || {
        let backing = Backing::temp().unwrap();
        let mount = || backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
        let (one, two) = (mount(), mount());
        let (a, b) = (read_write(&one.join("f")), read_write(&two.join("f")));
        for api in [Api::Posix, Api::Ofd] {
            assert_eq!(set(&a, api, WRITE, 0, 10), Ok(()));
            assert_eq!(set(&b, api, WRITE, 9, 1), AGAIN);
            assert_eq!(set(&b, api, WRITE, 10, 1), Ok(()));
            let seen = get(&b, api, WRITE, 0, 5).unwrap();
            assert_eq!((seen.0, seen.1, seen.2), (WRITE, 0, 10));
            assert_eq!(set(&a, api, NONE, 0, 0), Ok(()));
            assert_eq!(set(&b, api, WRITE, 0, 0), Ok(()));
            assert_eq!(set(&b, api, NONE, 0, 0), Ok(()));
        }
        assert_eq!(flock(&a, libc::LOCK_EX), Ok(()));
        assert_eq!(flock(&b, libc::LOCK_SH | libc::LOCK_NB), AGAIN);
        drop(a);
        // The other kernel has perhaps not told of the close yet.
        assert_eq!(flock(&b, libc::LOCK_EX | libc::LOCK_NB), Ok(()));
    });
}

#[test]
fn what_was_written_under_a_lock_is_read_under_the_next() {
    let backing = Backing::temp().unwrap();
    let mount = || backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    let mounts = [mount(), mount()];
    fs::write(backing.path().join("n"), "0").unwrap();
    std::thread::scope(|s| {
        for m in &mounts {
            s.spawn(|| {
                for _ in 0..200 {
                    let mut file = OpenOptions::new().read(true).write(true).open(m.join("n")).unwrap();
                    flock(&file, libc::LOCK_EX).unwrap();
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    let next = text.parse::<u32>().unwrap() + 1;
                    let mut again = File::options().write(true).truncate(true).open(m.join("n")).unwrap();
                    again.write_all(next.to_string().as_bytes()).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(backing.path().join("n")).unwrap(), "400");
}
