//! What a review of the whole crate found: each test is a program that once went wrong.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use chaosfs::{Backing, Clock, Deed, Errno, Fault, Knobs, Mount, Op, Options};

use crate::ops::locks::flock;
use crate::support::{NFS, Two, edit, errno, eventually, in_call, list, ms, put, reread, secs, write_at};

/// Waits until `thread` is in `flock`, and the request of that is served.
fn waits_in_flock(thread: rustix::process::Pid, backing: &Backing) {
    in_call(thread, libc::SYS_flock);
    // Whoever is asked for the history has served everything before.
    drop(backing.history());
}

/// Client `b` waits for a lock that `a` holds and has written under; what `b` reads when it gets the lock.
fn read_under_the_next_lock(knobs: Knobs, let_go: impl FnOnce(Two, File) -> Two) -> String {
    let two = Two::new(knobs).file("f", "old");
    let (theirs, ours) = (edit(&two.a, "f"), edit(&two.b, "f"));
    assert_eq!(reread(&ours), "old");
    flock(&theirs, libc::LOCK_EX).unwrap();
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        flock(&ours, libc::LOCK_EX).unwrap();
        reread(&ours)
    });
    waits_in_flock(told.recv().unwrap(), &two.backing);
    let before = two.backing.history().len();
    write_at(&theirs, 0, "new");
    let two = let_go(two, theirs);
    let seen = waiter.join().unwrap();
    let granted = |e: &chaosfs::Event| e.client() == "b" && e.deed() == Deed::Op(Op::Lock);
    assert!(two.backing.history().iter().skip(before).any(granted), "{}", two.backing.history());
    seen
}

#[test]
fn who_has_waited_for_a_lock_sees_what_was_written_meanwhile() {
    chaosfs::require_fuse!();
    for knobs in [NFS, Knobs::eventual()] {
        let seen = read_under_the_next_lock(knobs, |two, file| {
            flock(&file, libc::LOCK_UN).unwrap();
            two
        });
        assert_eq!(seen, "new");
    }
}

#[test]
fn a_client_that_leaves_flushes_before_its_locks_end() {
    chaosfs::require_fuse!();
    let seen = read_under_the_next_lock(Knobs::eventual(), |two, file| {
        let Two { a, b, backing } = two;
        // Busy: the file is still open.
        a.unmount().unwrap_err();
        drop(file);
        Two { a: backing.mount(Options::new()).unwrap(), b, backing }
    });
    assert_eq!(seen, "new");
}

#[test]
fn a_fault_on_locks_hits_them() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict()).file("f", "");
    let file = edit(&two.a, "f");
    let fault = two.a.inject(Fault::fail(Errno::ENOLCK).on(Op::Lock).path("f"));
    assert_eq!(flock(&file, libc::LOCK_EX | libc::LOCK_NB), Err(libc::ENOLCK));
    assert_eq!(fault.hits(), 1);
    drop(fault);
    flock(&file, libc::LOCK_EX | libc::LOCK_NB).unwrap();
    // A lock that hangs is granted when it is let go.
    let hang = two.b.inject(Fault::hang().on(Op::Lock));
    let other = edit(&two.b, "f");
    let waiter = thread::spawn(move || flock(&other, libc::LOCK_EX | libc::LOCK_NB));
    assert!(two.b.wait_parked(1, secs(10)));
    flock(&file, libc::LOCK_UN).unwrap();
    hang.remove();
    waiter.join().unwrap().unwrap();
}

#[test]
fn a_listing_of_many_late_names_costs_little_more_than_one_of_none() {
    const FILES: usize = 30_000;
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().rename_delay(secs(10)));
    for n in 0..FILES {
        File::create(two.a.join(format!("a-file-{n}"))).unwrap();
    }
    let time = |m: &Mount| {
        let start = Instant::now();
        (fs::read_dir(m.path()).unwrap().count(), start.elapsed())
    };
    let ((all, plain), (none, late)) = (time(&two.a), time(&two.b));
    assert_eq!((all, none), (FILES, 0));
    assert!(late < 8 * plain + ms(500), "{late:?} where {plain:?} lists all");
}

#[test]
fn names_that_are_replaced_a_thousand_times_are_always_listed() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().rename_delay(secs(10)));
    for n in 0..1000 {
        put(&two.a, &format!("f{n}"), "old");
    }
    two.backing.settle().unwrap();
    for n in 0..1000 {
        put(&two.a, "new", "new");
        fs::rename(two.a.join("new"), two.a.join(format!("f{n}"))).unwrap();
    }
    assert_eq!(list(two.b.path()).len(), 1000);
}

/// A race that is seldom lost: a run that passes proves little, one that fails proves it.
#[test]
fn a_strict_reader_never_sees_a_flush_before_its_time() {
    const LEN: usize = 1 << 20;
    const PIECE: usize = 16 << 10;
    chaosfs::require_fuse!();
    let backing = Backing::options().clock(Clock::manual()).memory_budget(1 << 30).temp().unwrap();
    let two = Two::on(backing, Knobs::strict().write_delay(secs(9)).publish_on_close(false), Knobs::strict());
    for n in 0..100 {
        let name = format!("f{n}");
        fs::write(two.backing.path().join(&name), vec![b'o'; LEN]).unwrap();
        let (writer, reader) = (edit(&two.a, &name), edit(&two.b, &name));
        // Each piece is flushed quickly, and read slowly, its end last.
        (1..=LEN / PIECE).for_each(|n| write_at(&writer, (n * PIECE - 1) as u64, "n"));
        let (started, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let early = thread::scope(|s| {
            s.spawn(|| {
                eventually("it is read", || started.load(Ordering::Relaxed));
                writer.sync_all().unwrap();
                done.store(true, Ordering::Relaxed);
            });
            let (mut buf, mut early) = (vec![0; LEN], false);
            while !done.load(Ordering::Relaxed) {
                reader.read_exact_at(&mut buf, 0).unwrap();
                early |= buf.contains(&b'n');
                started.store(true, Ordering::Relaxed);
            }
            early
        });
        assert!(!early, "bytes of {name} were seen before their time");
        fs::remove_file(two.a.join(&name)).unwrap();
    }
}

#[test]
fn the_kernel_does_not_move_a_directory_on_the_way_that_another_client_has_moved() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict());
    fs::create_dir(two.a.join("x")).unwrap();
    fs::create_dir(two.a.join("y")).unwrap();
    assert!(fs::metadata(two.b.join("x")).unwrap().is_dir());
    fs::rename(two.a.join("x"), two.a.join("y/x")).unwrap();
    let rename = || fs::rename(two.b.join("y/x"), two.b.join("z"));
    assert_eq!(errno(rename()), libc::ESTALE);
    // Any other look at it brings the kernel's tree up to date.
    assert!(fs::metadata(two.b.join("y/x")).unwrap().is_dir());
    rename().unwrap();
}

#[test]
fn mounts_that_are_made_at_once_get_names_of_their_own() {
    chaosfs::require_fuse!();
    let backing = Backing::temp().unwrap();
    for _ in 0..20 {
        let start = Barrier::new(4);
        thread::scope(|s| {
            let one = || {
                start.wait();
                backing.mount(Options::new()).map(drop)
            };
            let all = [s.spawn(one), s.spawn(one), s.spawn(one), s.spawn(one)];
            all.into_iter().for_each(|t| t.join().unwrap().unwrap());
        });
    }
}

#[test]
fn the_history_tells_of_writes_that_were_flushed_early() {
    chaosfs::require_fuse!();
    let backing = Backing::options().clock(Clock::manual()).memory_budget(1 << 16).temp().unwrap();
    let two = Two::on(backing, NFS, NFS);
    let file = File::create(two.a.join("f")).unwrap();
    write_at(&file, 0, &"x".repeat(1 << 17));
    assert_eq!(fs::metadata(two.backing.path().join("f")).unwrap().len(), 1 << 17);
    let history = two.backing.history();
    assert!(history.iter().any(|e| e.deed() == Deed::WriteBack), "{history}");
}

#[test]
fn a_past_that_nobody_could_see_any_more_is_not_given_up_but_over() {
    chaosfs::require_fuse!();
    let backing = Backing::options().clock(Clock::manual()).memory_budget(1 << 18).temp().unwrap();
    let knobs = Knobs::strict().write_delay(secs(1)).publish_on_close(false);
    let two = Two::on(backing, knobs, knobs);
    for n in 0..40 {
        let name = format!("f{n}");
        fs::write(two.backing.path().join(&name), "o".repeat(1 << 14)).unwrap();
        write_at(&edit(&two.a, &name), 0, &"n".repeat(1 << 14));
        two.pass(secs(2));
    }
    let history = two.backing.history();
    assert!(history.iter().all(|e| e.deed() != Deed::Collapse), "{history}");
}
