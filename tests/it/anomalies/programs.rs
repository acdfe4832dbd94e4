//! Anomalies 9, 10 and 11: programs of two clients that believe they are alone.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use chaosfs::{Knobs, Mount};
use rustix::fs::{FlockOperation, fcntl_lock};

use crate::support::{
    NFS, Two, append, create_new, edit, errno, exists, get, just_before, open, reread, secs, write,
};

// ---- 9: lost append --------------------------------------------------------------------------------------------------

#[test]
fn a9_two_clients_that_append_at_once_lose_one_record() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("log", "");
    let (a, b) = (append(&two.a, "log"), append(&two.b, "log"));
    write(&a, "from a\n");
    write(&b, "from b\n");
    drop(a);
    drop(b);
    two.backing.settle().unwrap();
    assert_eq!(get(&two.a, "log"), "from b\n");
    assert_eq!(get(&two.b, "log"), "from b\n");
}

#[test]
fn a9_an_append_is_lost_until_the_first_writer_is_flushed() {
    chaosfs::require_fuse!();
    let lost = |pause| {
        let two = Two::new(NFS).file("log", "");
        let (a, b) = (append(&two.a, "log"), append(&two.b, "log"));
        write(&a, "a\n");
        two.pass(pause);
        write(&b, "b\n");
        drop((a, b));
        two.backing.settle().unwrap();
        get(&two.a, "log")
    };
    assert_eq!(lost(just_before(secs(30))), "b\n");
    assert_eq!(lost(secs(30)), "a\nb\n", "B appends after what it sees when it writes");
}

#[test]
fn a9_no_record_is_lost_when_every_append_is_locked() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("log", "");
    let (a, b) = (append(&two.a, "log"), append(&two.b, "log"));
    for n in 0..10 {
        for (file, who) in [(&a, "a"), (&b, "b")] {
            fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).unwrap();
            write(file, &format!("{who}{n} "));
            fcntl_lock(file, FlockOperation::Unlock).unwrap();
        }
    }
    let all: String = (0..10).flat_map(|n| [format!("a{n} "), format!("b{n} ")]).collect();
    assert_eq!(get(&two.a, "log"), all);
    assert_eq!(get(&two.b, "log"), all);
}

#[test]
fn a9_no_record_is_lost_with_a_file_for_each_writer() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    let (a, b) = (append(&two.a, "log.a"), append(&two.b, "log.b"));
    for _ in 0..3 {
        write(&a, "a");
        write(&b, "b");
    }
    drop((a, b));
    for m in [&two.a, &two.b] {
        assert_eq!((get(m, "log.a"), get(m, "log.b")), ("aaa".to_owned(), "bbb".to_owned()));
    }
}

// ---- 10: check, then create ------------------------------------------------------------------------------------------

/// What careless programs do: looks, and creates when nothing is there. Whether it got in.
fn check_then_create(m: &Mount) -> bool {
    !exists(m, "lock") && File::create(m.join("lock")).is_ok()
}

#[test]
fn a10_a_lock_that_is_checked_and_then_created_lets_both_in_even_on_a_strict_mount() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict());
    // The interleaving that a race finds sooner or later.
    let (a_saw, b_saw) = (exists(&two.a, "lock"), exists(&two.b, "lock"));
    assert!(!a_saw && File::create(two.a.join("lock")).is_ok());
    assert!(!b_saw && File::create(two.b.join("lock")).is_ok());
}

#[test]
fn a10_a_stale_check_lets_the_second_in_for_the_ttl() {
    chaosfs::require_fuse!();
    let second_gets_in_after = |pause| {
        let two = Two::new(NFS);
        assert!(!exists(&two.b, "lock"));
        assert!(check_then_create(&two.a));
        two.pass(pause);
        check_then_create(&two.b)
    };
    assert!(second_gets_in_after(secs(0)));
    assert!(second_gets_in_after(just_before(secs(3))));
    assert!(!second_gets_in_after(secs(3)));
}

type Take = fn(&Mount) -> std::io::Result<()>;

#[test]
fn a10_an_exclusive_create_a_link_and_a_mkdir_let_one_in_whatever_the_caches_say() {
    chaosfs::require_fuse!();
    let takes: [(&str, Take); 3] = [
        ("O_EXCL", |m| create_new(&m.join("lock"))),
        ("link", |m| fs::hard_link(m.join("mine"), m.join("lock"))),
        ("mkdir", |m| fs::create_dir(m.join("lock"))),
    ];
    for knobs in [Knobs::strict(), NFS, Knobs::eventual()] {
        for (how, take) in takes {
            let two = Two::new(knobs).file("mine", "");
            assert!(!exists(&two.a, "lock") && !exists(&two.b, "lock"));
            take(&two.a).unwrap();
            assert_eq!(errno(take(&two.b)), libc::EEXIST, "{how} {knobs:?}");
            assert!(exists(&two.b, "lock"), "who was told that it exists sees it: {how} {knobs:?}");
        }
    }
}

// ---- 11: a lock without reopening ------------------------------------------------------------------------------------

fn lock(m: &Mount) {
    create_new(&m.join("lock")).unwrap();
}

fn unlock(m: &Mount) {
    fs::remove_file(m.join("lock")).unwrap();
}

fn add_one(file: &File) {
    let n: u32 = reread(file).trim().parse().unwrap();
    file.write_all_at(format!("{:4}", n + 1).as_bytes(), 0).unwrap();
}

#[test]
fn a11_a_counter_that_is_kept_open_loses_updates_under_a_lock_file_for_the_ttl() {
    chaosfs::require_fuse!();
    let counted_after = |pause| {
        let two = Two::new(NFS).file("counter", "   0");
        let kept = edit(&two.b, "counter");
        assert_eq!(reread(&kept), "   0");
        lock(&two.a);
        add_one(&edit(&two.a, "counter"));
        unlock(&two.a);
        two.pass(pause);
        lock(&two.b);
        add_one(&kept);
        drop(kept);
        unlock(&two.b);
        get(&two.a, "counter")
    };
    assert_eq!(counted_after(secs(0)), "   1");
    assert_eq!(counted_after(just_before(secs(3))), "   1");
    assert_eq!(counted_after(secs(3)), "   2");
}

#[test]
fn a11_a_writer_that_does_not_close_before_it_unlocks_loses_its_update() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("counter", "   0");
    let kept = edit(&two.a, "counter");
    lock(&two.a);
    add_one(&kept);
    unlock(&two.a);
    lock(&two.b);
    add_one(&edit(&two.b, "counter"));
    unlock(&two.b);
    two.backing.settle().unwrap();
    assert_eq!(get(&two.b, "counter"), "   1");
}

#[test]
fn a11_reopening_inside_the_lock_loses_no_update() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("counter", "   0");
    // Both have stale caches of it all along.
    let _warm = (open(&two.a, "counter"), open(&two.b, "counter"));
    for n in 0..20 {
        let m = if n % 3 == 0 { &two.a } else { &two.b };
        lock(m);
        add_one(&edit(m, "counter"));
        unlock(m);
    }
    assert_eq!(get(&two.a, "counter"), "  20");
}

#[test]
fn a11_an_fcntl_lock_loses_no_update_of_a_file_that_is_kept_open() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("counter", "   0");
    let (a, b) = (edit(&two.a, "counter"), edit(&two.b, "counter"));
    for n in 0..20 {
        let file = if n % 3 == 0 { &a } else { &b };
        fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).unwrap();
        add_one(file);
        fcntl_lock(file, FlockOperation::Unlock).unwrap();
    }
    assert_eq!(get(&two.a, "counter"), "  20");
}
