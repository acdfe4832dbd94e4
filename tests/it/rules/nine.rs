//! R1 to R8, one by one.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use chaosfs::Knobs;
use rustix::fs::{FlockOperation, RenameFlags, fcntl_lock};

use crate::support::{
    NFS, NOCTO, NS, Two, create_new, edit, errno, exists, get, just_before, list, ms, open, put, reread,
    secs, size, write, write_at,
};

/// Names travel for a second, and nobody caches anything.
const LATE_NAMES: Knobs = Knobs::strict().rename_delay(secs(1));

#[test]
fn with_every_knob_at_zero_each_client_sees_the_backing_at_once() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict());
    assert!(!exists(&two.b, "d/f"));
    fs::create_dir(two.a.join("d")).unwrap();
    let file = File::create(two.a.join("d/f")).unwrap();
    write(&file, "not closed");
    assert_eq!(get(&two.b, "d/f"), "not closed");
    fs::rename(two.b.join("d/f"), two.b.join("g")).unwrap();
    assert_eq!((list(two.a.path()), list(&two.a.join("d"))), (vec!["d".into(), "g".into()], vec![]));
    // Someone who is no client at all.
    fs::write(two.backing.path().join("g"), "outside").unwrap();
    assert_eq!((get(&two.a, "g"), reread(&open(&two.b, "g"))), ("outside".into(), "outside".into()));
}

// ---- R1 --------------------------------------------------------------------------------------------------------------

#[test]
fn r1_the_truth_decides_what_a_stale_client_may_do() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "");
    assert!(exists(&two.b, "f") && !exists(&two.b, "d"));
    fs::remove_file(two.a.join("f")).unwrap();
    fs::create_dir(two.a.join("d")).unwrap();
    put(&two.a, "d/in", "");
    // B still sees the file and not the directory, and is told how it is.
    assert_eq!(errno(fs::remove_file(two.b.join("f"))), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(two.b.join("d"))), libc::EEXIST);
    assert_eq!(errno(fs::remove_dir(two.b.join("d"))), libc::ENOTEMPTY);
}

#[test]
fn r1_a_rename_is_never_seen_half_done() {
    chaosfs::require_fuse!();
    let two = Two::new(LATE_NAMES).file("x", "1").file("y", "2");
    fs::rename(two.a.join("x"), two.a.join("z")).unwrap();
    two.turns_at(
        secs(1),
        || assert_eq!((list(two.b.path()), exists(&two.b, "z")), (vec!["x".into(), "y".into()], false)),
        || assert_eq!((list(two.b.path()), exists(&two.b, "x")), (vec!["y".into(), "z".into()], false)),
    );
    // Two names in one commit.
    let dir = File::open(two.a.path()).unwrap();
    rustix::fs::renameat_with(&dir, "y", &dir, "z", RenameFlags::EXCHANGE).unwrap();
    let seen = || (get(&two.b, "y"), get(&two.b, "z"));
    two.turns_at(
        secs(1),
        || assert_eq!(seen(), ("2".into(), "1".into())),
        || assert_eq!(seen(), ("1".into(), "2".into())),
    );
}

// ---- R2 --------------------------------------------------------------------------------------------------------------

#[test]
fn r2_what_is_seen_is_always_one_past_state_and_never_an_older_one_than_before() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().meta_ttl(ms(70)).write_delay(ms(300)).close_to_open(false))
        .file("f", "00000000");
    let file = edit(&two.a, "f");
    let mut seen = vec![get(&two.b, "f")];
    for n in 1..=50_u8 {
        write_at(&file, 0, &n.to_string().repeat(8)[..8]);
        file.sync_all().unwrap();
        for _ in 0..3 {
            two.pass(ms(17));
            seen.push(get(&two.b, "f"));
        }
    }
    let states: Vec<String> = (0..=50_u8).map(|n| n.to_string().repeat(8)[..8].to_owned()).collect();
    let mut last = 0;
    for text in seen {
        let at = states[last..].iter().position(|s| *s == text);
        last += at
            .unwrap_or_else(|| panic!("{text:?} is no state of the file, or one before {:?}", states[last]));
    }
    assert!(last > 40, "B follows: it got to {last}");
}

#[test]
fn r2_a_client_that_writes_sees_what_its_own_write_was_merged_into() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(1)).publish_on_close(false)).file("f", "....");
    write_at(&edit(&two.a, "f"), 0, "AA");
    assert_eq!(get(&two.b, "f"), "....");
    write_at(&edit(&two.b, "f"), 2, "BB");
    // The states of a file are in one order: whoever has made the second sees the first.
    assert_eq!(get(&two.b, "f"), "AABB");
    assert_eq!(get(&two.a, "f"), "AA..");
    two.turns_at(secs(1), || assert_eq!(get(&two.a, "f"), "AA.."), || assert_eq!(get(&two.a, "f"), "AABB"));
}

// ---- R3 --------------------------------------------------------------------------------------------------------------

type Flush = fn(File);

#[test]
fn r3_every_flush_point_publishes_with_close_to_open() {
    chaosfs::require_fuse!();
    let points: [(&str, Flush); 6] = [
        ("close", drop),
        ("fsync", |f| f.sync_all().unwrap()),
        ("fdatasync", |f| f.sync_data().unwrap()),
        ("truncate", |f| f.set_len(4).unwrap()),
        ("lock", |f| fcntl_lock(&f, FlockOperation::NonBlockingLockExclusive).unwrap()),
        ("unlock", |f| fcntl_lock(&f, FlockOperation::Unlock).unwrap()),
    ];
    for (what, flush) in points {
        let two = Two::new(Knobs::strict().write_delay(secs(30))).file("f", "old!");
        let file = edit(&two.a, "f");
        // A second descriptor keeps the first from being the last.
        let kept = (what != "close").then(|| file.try_clone().unwrap());
        write_at(&file, 0, "new!");
        assert_eq!(get(&two.b, "f"), "old!", "{what}");
        if what == "close" {
            flush(file);
        } else {
            flush(file.try_clone().unwrap());
        }
        assert_eq!(get(&two.b, "f"), "new!", "{what}");
        drop(kept);
    }
}

#[test]
fn r3_a_synchronous_write_is_its_own_flush_point() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(30)));
    let how = fs::OpenOptions::new().write(true).create(true).custom_flags(libc::O_SYNC).clone();
    let mut file = how.open(two.a.join("f")).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(get(&two.b, "f"), "new");
}

#[test]
fn r3_without_publishing_the_delay_counts_from_the_write_whenever_it_is_flushed() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(ms(800)).publish_on_close(false)).file("f", "old");
    let file = edit(&two.a, "f");
    write_at(&file, 0, "new");
    two.pass(ms(500));
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(two.backing.path().join("f")).unwrap(), "new");
    two.turns_at(ms(300), || assert_eq!(get(&two.b, "f"), "old"), || assert_eq!(get(&two.b, "f"), "new"));
}

#[test]
fn r3_unflushed_bytes_reach_the_backing_when_their_delay_is_over() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "old");
    let file = edit(&two.a, "f");
    write_at(&file, 0, "new");
    let backing = || fs::read_to_string(two.backing.path().join("f")).unwrap();
    two.turns_at(secs(30), || assert_eq!(backing(), "old"), || assert_eq!(backing(), "new"));
}

#[test]
fn r3_names_of_every_kind_are_visible_to_others_after_the_rename_delay() {
    chaosfs::require_fuse!();
    let two = Two::new(LATE_NAMES).file("gone", "").file("moved", "").file("linked", "");
    fs::create_dir(two.backing.path().join("gone.d")).unwrap();
    put(&two.a, "new", "");
    fs::create_dir(two.a.join("new.d")).unwrap();
    std::os::unix::fs::symlink("new", two.a.join("symlink")).unwrap();
    fs::hard_link(two.a.join("linked"), two.a.join("link")).unwrap();
    fs::remove_file(two.a.join("gone")).unwrap();
    fs::remove_dir(two.a.join("gone.d")).unwrap();
    fs::rename(two.a.join("moved"), two.a.join("target")).unwrap();
    let before = ["gone", "gone.d", "linked", "moved"];
    let after = ["link", "linked", "new", "new.d", "symlink", "target"];
    let sees = |names: &[&str]| {
        assert_eq!(list(two.b.path()), names);
        for name in before.iter().chain(&after) {
            assert_eq!(exists(&two.b, name), names.contains(name), "{name}");
        }
    };
    assert_eq!(list(two.a.path()), after, "the author sees its own changes at once");
    two.turns_at(secs(1), || sees(&before), || sees(&after));
}

// ---- R4 --------------------------------------------------------------------------------------------------------------

#[test]
fn r4_who_was_told_that_a_name_exists_sees_it_from_then_on() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual());
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "text");
    assert!(!exists(&two.b, "f"));
    assert_eq!(errno(create_new(&two.b.join("f"))), libc::EEXIST);
    for _ in 0..40 {
        assert_eq!(get(&two.b, "f"), "text", "and what is in it");
        two.pass(ms(100));
    }
}

#[test]
fn r4_who_was_told_that_a_name_is_gone_does_not_see_it_again() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "text");
    assert!(exists(&two.b, "f"));
    fs::remove_file(two.a.join("f")).unwrap();
    assert!(exists(&two.b, "f"));
    assert_eq!(errno(fs::remove_file(two.b.join("f"))), libc::ENOENT);
    for _ in 0..40 {
        assert!(!exists(&two.b, "f"));
        two.pass(ms(100));
    }
}

#[test]
fn r4_create_dir_all_survives_a_directory_that_it_does_not_see() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual());
    assert!(!exists(&two.b, "d"));
    fs::create_dir_all(two.a.join("d/e")).unwrap();
    fs::create_dir_all(two.b.join("d/e/f")).unwrap();
    put(&two.b, "d/e/f/g", "text");
}

// ---- R5 --------------------------------------------------------------------------------------------------------------

#[test]
fn r5_each_ttl_is_its_own() {
    chaosfs::require_fuse!();
    let two = Two::new(
        Knobs::strict().file_ttl(secs(1)).dir_ttl(secs(2)).negative_ttl(secs(3)).close_to_open(false),
    );
    put(&two.a, "f", "old");
    assert_eq!((size(&two.b, "f"), exists(&two.b, "g"), list(two.b.path())), (3, false, vec!["f".into()]));
    write_at(&edit(&two.a, "f"), 3, "er");
    put(&two.a, "g", "");
    two.turns_at(secs(1), || assert_eq!(size(&two.b, "f"), 3), || assert_eq!(size(&two.b, "f"), 5));
    two.turns_at(
        secs(1),
        || assert_eq!(list(two.b.path()), ["f"]),
        || assert_eq!(list(two.b.path()), ["f", "g"]),
    );
    two.turns_at(secs(1), || assert!(!exists(&two.b, "g")), || assert!(exists(&two.b, "g")));
}

#[test]
fn r5_opening_a_file_asks_the_truth_only_with_close_to_open() {
    chaosfs::require_fuse!();
    for (knobs, seen) in [(NFS, "new"), (NOCTO, "old")] {
        let two = Two::new(knobs).file("f", "old");
        assert_eq!(get(&two.b, "f"), "old");
        write_at(&edit(&two.a, "f"), 0, "new");
        assert_eq!(get(&two.b, "f"), seen);
    }
}

#[test]
fn r5_an_own_change_in_a_directory_makes_its_author_look_again() {
    chaosfs::require_fuse!();
    let two = Two::new(NOCTO);
    assert_eq!((list(two.b.path()), exists(&two.b, "f")), (vec![], false));
    put(&two.a, "f", "");
    assert_eq!((list(two.b.path()), exists(&two.b, "f")), (vec![], false));
    put(&two.b, "own", "");
    assert_eq!((list(two.b.path()), exists(&two.b, "f")), (vec!["f".into(), "own".into()], true));
}

#[test]
fn r5_a_direct_read_asks_the_truth() {
    chaosfs::require_fuse!();
    let two = Two::new(NOCTO).file("f", "old");
    let how = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).clone();
    let (cached, direct) = (open(&two.b, "f"), how.open(two.b.join("f")).unwrap());
    assert_eq!(reread(&cached), "old");
    write_at(&edit(&two.a, "f"), 0, "new");
    assert_eq!(reread(&cached), "old");
    assert_eq!(reread(&direct), "new");
}

// ---- R6, R7, R8 ------------------------------------------------------------------------------------------------------

#[test]
fn r6_who_sees_a_name_sees_what_was_in_the_file_when_it_was_renamed() {
    chaosfs::require_fuse!();
    let publish = |knobs: Knobs| {
        let two = Two::new(knobs.write_delay(secs(10)).publish_on_close(false)).file("f", "old");
        assert_eq!(get(&two.b, "f"), "old");
        put(&two.a, "f.tmp", "new");
        fs::rename(two.a.join("f.tmp"), two.a.join("f")).unwrap();
        two.pass(just_before(secs(1)));
        let before = get(&two.b, "f");
        two.pass(NS);
        (before, get(&two.b, "f"))
    };
    assert_eq!(publish(LATE_NAMES), ("old".into(), "new".into()));
    // And the switch that breaks it: renamed, but empty.
    assert_eq!(publish(LATE_NAMES.reorder(true)), ("old".into(), String::new()));
}

#[test]
fn r7_a_name_that_was_made_exclusively_is_looked_up_every_time() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("mine", "");
    create_new(&two.a.join("excl")).unwrap();
    fs::hard_link(two.a.join("mine"), two.a.join("link")).unwrap();
    put(&two.a, "plain", "");
    for name in ["excl", "link", "plain"] {
        assert!(exists(&two.b, name));
        fs::remove_file(two.a.join(name)).unwrap();
    }
    assert_eq!(["excl", "link", "plain"].map(|name| exists(&two.b, name)), [false, false, true]);
}

#[test]
fn r7_a_temporary_file_is_like_any_other_after_its_rename() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    create_new(&two.a.join("f.tmp")).unwrap();
    fs::rename(two.a.join("f.tmp"), two.a.join("f")).unwrap();
    assert!(exists(&two.b, "f"));
    fs::remove_file(two.a.join("f")).unwrap();
    two.turns_at(secs(3), || assert!(exists(&two.b, "f")), || assert!(!exists(&two.b, "f")));
}

#[test]
fn r8_a_client_reads_its_own_writes_through_every_descriptor_and_name() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "old");
    let reader = open(&two.a, "f");
    assert_eq!(reread(&reader), "old");
    let file = edit(&two.a, "f");
    write_at(&file, 2, "w words");
    let own = "olw words";
    assert_eq!((reread(&reader), get(&two.a, "f"), size(&two.a, "f")), (own.into(), own.into(), 9));
    fs::rename(two.a.join("f"), two.a.join("g")).unwrap();
    fs::set_permissions(two.a.join("g"), Permissions::from_mode(0o600)).unwrap();
    let meta = fs::metadata(two.a.join("g")).unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (9, 0o600));
    assert_eq!(File::open(two.a.join("f")).unwrap_err().kind(), ErrorKind::NotFound);
    drop(file);
    assert_eq!(get(&two.a, "g"), own);
    two.backing.settle().unwrap();
    assert_eq!((get(&two.a, "g"), get(&two.b, "g")), (own.into(), own.into()));
}
