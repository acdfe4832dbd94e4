//! Anomalies 2, 3, 7 and 8: bytes and attributes that are seen late.

use std::fs::{self, File};
use std::io::Write;

use chaosfs::Knobs;

use crate::support::{
    NFS, Two, append, edit, exists, get, just_before, ms, open, put, reread, secs, size, write, write_at,
};

// ---- 2: stale stat ---------------------------------------------------------------------------------------------------

#[test]
fn a2_stat_shows_the_old_size_and_time_for_the_ttl() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    put(&two.a, "f", "one");
    let before = fs::metadata(two.b.join("f")).unwrap();
    two.pass(secs(1));
    write(&append(&two.a, "f"), "+two");
    let stale = || {
        let now = fs::metadata(two.b.join("f")).unwrap();
        assert_eq!((now.len(), now.modified().unwrap()), (3, before.modified().unwrap()));
    };
    stale();
    two.turns_at(secs(2), stale, || {
        let now = fs::metadata(two.b.join("f")).unwrap();
        assert_eq!(now.len(), 7);
        assert_eq!(now.modified().unwrap(), before.modified().unwrap() + secs(1));
    });
}

#[test]
fn a2_stat_of_an_opened_file_shows_what_was_closed_before() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "one");
    assert_eq!(size(&two.b, "f"), 3);
    write(&append(&two.a, "f"), "+two");
    assert_eq!(size(&two.b, "f"), 3);
    assert_eq!(open(&two.b, "f").metadata().unwrap().len(), 7);
    assert_eq!(size(&two.b, "f"), 7, "what was seen once is not unseen");
}

// ---- 3: stale read on an open file -----------------------------------------------------------------------------------

#[test]
fn a3_an_open_file_reads_old_bytes_for_the_ttl() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "old");
    let file = open(&two.b, "f");
    assert_eq!(reread(&file), "old");
    write_at(&edit(&two.a, "f"), 0, "new");
    two.turns_at(secs(3), || assert_eq!(reread(&file), "old"), || assert_eq!(reread(&file), "new"));
}

#[test]
fn a3_opening_again_for_every_read_sees_what_was_closed() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "0");
    let kept = open(&two.b, "f");
    for n in 0..5 {
        assert_eq!(get(&two.b, "f"), n.to_string());
        write_at(&edit(&two.a, "f"), 0, &(n + 1).to_string());
        assert_eq!(reread(&kept), n.to_string());
    }
}

#[test]
fn a3_taking_a_lock_makes_an_open_file_read_the_newest() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "old");
    let file = edit(&two.b, "f");
    assert_eq!(reread(&file), "old");
    write_at(&edit(&two.a, "f"), 0, "new");
    assert_eq!(reread(&file), "old");
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(reread(&file), "new");
}

// ---- 7: the empty-file window ----------------------------------------------------------------------------------------

#[test]
fn a7_a_file_that_is_being_written_is_seen_empty_for_the_write_delay() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(30)));
    let file = File::create(two.a.join("f")).unwrap();
    write(&file, "text");
    let empty = || assert_eq!((size(&two.b, "f"), get(&two.b, "f")), (0, String::new()));
    empty();
    assert_eq!(get(&two.a, "f"), "text", "the writer reads its own bytes");
    drop(file);
    assert_eq!(get(&two.b, "f"), "text", "closing publishes");

    let file = File::create(two.a.join("g")).unwrap();
    write(&file, "text");
    two.turns_at(secs(30), || assert_eq!(size(&two.b, "g"), 0), || assert_eq!(get(&two.b, "g"), "text"));
}

#[test]
fn a7_the_window_counts_from_the_first_write() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(30)));
    let file = File::create(two.a.join("f")).unwrap();
    write(&file, "one");
    two.pass(secs(20));
    write(&file, "two");
    two.turns_at(secs(10), || assert_eq!(size(&two.b, "f"), 0), || assert_eq!(get(&two.b, "f"), "onetwo"));
}

#[test]
fn a7_without_publishing_on_close_the_window_outlives_the_close() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(30)).publish_on_close(false));
    put(&two.a, "f", "text");
    assert_eq!(fs::read_to_string(two.backing.path().join("f")).unwrap(), "text");
    two.turns_at(secs(30), || assert_eq!(get(&two.b, "f"), ""), || assert_eq!(get(&two.b, "f"), "text"));
}

#[test]
fn a7_a_file_that_is_renamed_into_place_after_its_close_is_never_empty() {
    chaosfs::require_fuse!();
    for knobs in [NFS, Knobs::eventual(), Knobs::eventual().write_delay(secs(60))] {
        let two = Two::new(knobs);
        put(&two.a, "f.tmp", "text");
        fs::rename(two.a.join("f.tmp"), two.a.join("f")).unwrap();
        for _ in 0..40 {
            if exists(&two.b, "f") {
                assert_eq!(get(&two.b, "f"), "text", "{knobs:?}");
            }
            two.pass(secs(1) / 10);
        }
        assert_eq!(get(&two.b, "f"), "text", "{knobs:?}");
    }
}

// ---- 8: torn read ----------------------------------------------------------------------------------------------------

#[test]
fn a8_a_rewrite_in_place_longer_than_the_write_delay_is_seen_half_done() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(1))).file("f", "aaaabbbb");
    let file = edit(&two.a, "f");
    write_at(&file, 0, "AAAA");
    two.turns_at(
        secs(1),
        || assert_eq!(get(&two.b, "f"), "aaaabbbb"),
        || assert_eq!(get(&two.b, "f"), "AAAAbbbb", "half of each"),
    );
    write_at(&file, 4, "BBBB");
    two.turns_at(
        secs(1),
        || assert_eq!(get(&two.b, "f"), "AAAAbbbb"),
        || assert_eq!(get(&two.b, "f"), "AAAABBBB"),
    );
}

#[test]
fn a8_replacing_the_content_of_a_file_has_a_moment_of_nothing() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS.meta_ttl(secs(0))).file("f", "old");
    let mut file = File::create(two.a.join("f")).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(get(&two.b, "f"), "", "truncation travels at once, the bytes do not");
    drop(file);
    assert_eq!(get(&two.b, "f"), "new");
}

#[test]
fn a8_a_reader_of_a_file_that_is_replaced_by_rename_sees_all_old_or_all_new() {
    chaosfs::require_fuse!();
    for knobs in [NFS, Knobs::eventual(), Knobs::eventual().write_delay(secs(60))] {
        let two = Two::new(knobs).file("f", "aaaabbbb");
        let mut seen = vec![get(&two.b, "f")];
        let file = File::create(two.a.join("f.tmp")).unwrap();
        write(&file, "AAAA");
        two.pass(secs(2));
        write(&file, "BBBB");
        drop(file);
        seen.push(get(&two.b, "f"));
        fs::rename(two.a.join("f.tmp"), two.a.join("f")).unwrap();
        for _ in 0..40 {
            seen.push(get(&two.b, "f"));
            two.pass(just_before(ms(100)));
        }
        seen.dedup();
        assert_eq!(seen, ["aaaabbbb", "AAAABBBB"], "{knobs:?}");
    }
}
