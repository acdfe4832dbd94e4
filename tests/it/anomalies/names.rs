//! Anomalies 1, 4, 5 and 6: names that are seen late.

use std::fs::{self, File};
use std::io::ErrorKind;

use chaosfs::Knobs;

use crate::support::{NFS, NOCTO, Two, exists, get, just_before, list, ms, open, put, reread, secs};

// ---- 1: negative dentry ----------------------------------------------------------------------------------------------

#[test]
fn a1_a_name_that_was_missing_stays_missing_for_the_ttl_even_to_open() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "here");
    let missing = || assert_eq!(File::open(two.b.join("f")).unwrap_err().kind(), ErrorKind::NotFound);
    missing();
    two.turns_at(secs(3), missing, || assert_eq!(get(&two.b, "f"), "here"));
}

#[test]
fn a1_a_name_is_missing_for_the_negative_ttl_alone() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().negative_ttl(ms(700)));
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "here");
    two.turns_at(ms(700), || assert!(!exists(&two.b, "f")), || assert!(exists(&two.b, "f")));
    // What is found is not believed: no TTL but that of the negative.
    fs::remove_file(two.a.join("f")).unwrap();
    assert!(!exists(&two.b, "f"));
}

#[test]
fn a1_opening_the_parent_directory_before_looking_again_finds_the_name() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "here");
    assert!(!exists(&two.b, "f"));
    drop(fs::read_dir(two.b.path()).unwrap());
    assert_eq!(get(&two.b, "f"), "here");
}

#[test]
fn a1_a_name_that_was_never_asked_for_is_found_at_once() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    for n in 0..10 {
        let name = format!("job-{n}");
        put(&two.a, &name, "told out of band");
        assert_eq!(get(&two.b, &name), "told out of band");
    }
}

// ---- 4: the deleted file is still there ------------------------------------------------------------------------------

#[test]
fn a4_stat_finds_a_removed_file_for_the_ttl() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "text");
    assert!(exists(&two.b, "f"));
    fs::remove_file(two.a.join("f")).unwrap();
    two.turns_at(secs(3), || assert!(exists(&two.b, "f")), || assert!(!exists(&two.b, "f")));
}

#[test]
fn a4_opening_is_the_test_that_tells_a_removed_file() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "text");
    assert!(exists(&two.b, "f"));
    fs::remove_file(two.a.join("f")).unwrap();
    assert!(exists(&two.b, "f"));
    // The open is told ESTALE, and the kernel asks for the name again.
    assert_eq!(File::open(two.b.join("f")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!exists(&two.b, "f"), "who was told so is not told otherwise afterwards");
}

#[test]
fn a4_with_a_rename_delay_a_removed_file_can_even_be_opened_and_read() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().rename_delay(ms(1200))).file("f", "text");
    fs::remove_file(two.a.join("f")).unwrap();
    assert!(!exists(&two.a, "f"), "the author sees its own removal at once");
    two.turns_at(ms(1200), || assert_eq!(get(&two.b, "f"), "text"), || assert!(!exists(&two.b, "f")));
}

#[test]
fn a4_a_file_opened_before_its_removal_was_visible_can_be_read_to_its_end() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().rename_delay(ms(1200))).file("f", "text");
    fs::remove_file(two.a.join("f")).unwrap();
    let file = open(&two.b, "f");
    two.pass(just_before(ms(1200)));
    assert_eq!(reread(&file), "text");
}

// ---- 5: listing lag --------------------------------------------------------------------------------------------------

#[test]
fn a5_a_listing_misses_a_new_file_for_the_rename_delay() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS.rename_delay(ms(1200))).file("old", "");
    put(&two.a, "new", "text");
    assert_eq!(list(two.a.path()), ["new", "old"]);
    two.turns_at(
        ms(1200),
        || assert_eq!(list(two.b.path()), ["old"]),
        || assert_eq!(list(two.b.path()), ["new", "old"]),
    );
}

#[test]
fn a5_without_close_to_open_a_listing_is_believed_for_the_ttl() {
    chaosfs::require_fuse!();
    let two = Two::new(NOCTO).file("old", "");
    assert_eq!(list(two.b.path()), ["old"]);
    put(&two.a, "new", "text");
    two.turns_at(
        secs(3),
        || assert_eq!(list(two.b.path()), ["old"]),
        || assert_eq!(list(two.b.path()), ["new", "old"]),
    );
}

#[test]
fn a5_with_close_to_open_a_new_listing_is_complete() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("old", "");
    assert_eq!(list(two.b.path()), ["old"]);
    put(&two.a, "new", "text");
    assert_eq!(list(two.b.path()), ["new", "old"]);
    fs::remove_file(two.a.join("old")).unwrap();
    assert_eq!(list(two.b.path()), ["new"]);
}

#[test]
fn a5_whoever_sees_a_manifest_sees_every_file_that_it_names() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual());
    for n in 0..3 {
        put(&two.a, &format!("part-{n}"), &format!("text {n}"));
        two.pass(ms(100));
    }
    put(&two.a, "manifest.tmp", "part-0 part-1 part-2");
    fs::rename(two.a.join("manifest.tmp"), two.a.join("manifest")).unwrap();
    let mut steps = 0;
    while !exists(&two.b, "manifest") {
        steps += 1;
        assert!(steps < 100, "the manifest never became visible");
        two.pass(ms(100));
    }
    for (n, name) in get(&two.b, "manifest").split(' ').enumerate() {
        assert_eq!(get(&two.b, name), format!("text {n}"));
    }
}

// ---- 6: listing and stat disagree ------------------------------------------------------------------------------------

#[test]
fn a6_a_listing_shows_a_file_that_stat_does_not_find() {
    chaosfs::require_fuse!();
    let two = Two::new(NOCTO);
    assert_eq!(list(two.b.path()), [""; 0]);
    two.pass(secs(2));
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "text");
    two.pass(secs(1));
    // The listing was too old, the missing name is not.
    assert_eq!(list(two.b.path()), ["f"]);
    two.turns_at(secs(2), || assert!(!exists(&two.b, "f")), || assert!(exists(&two.b, "f")));
}

#[test]
fn a6_stat_finds_a_file_that_the_open_directory_does_not_list() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    let dir = fs::read_dir(two.b.path()).unwrap();
    put(&two.a, "f", "text");
    assert!(exists(&two.b, "f"));
    assert_eq!(dir.count(), 0, "a directory is listed as it was when it was opened");
    assert_eq!(list(two.b.path()), ["f"]);
}

#[test]
fn a6_with_close_to_open_what_a_new_listing_shows_is_found() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    assert_eq!(list(two.b.path()), [""; 0]);
    two.pass(secs(2));
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "text");
    two.pass(secs(1));
    assert_eq!(list(two.b.path()), ["f"]);
    assert!(exists(&two.b, "f"));
}

#[test]
fn a6_a_walk_that_skips_missing_names_gets_through() {
    chaosfs::require_fuse!();
    let two = Two::new(NOCTO).file("gone", "").file("kept", "text");
    assert_eq!(list(two.b.path()), ["gone", "kept"]);
    fs::remove_file(two.a.join("gone")).unwrap();
    let mut found = Vec::new();
    for name in list(two.b.path()) {
        match fs::read_to_string(two.b.join(&name)) {
            Ok(text) => found.push((name, text)),
            Err(e) => assert_eq!((e.kind(), name.as_str()), (ErrorKind::NotFound, "gone")),
        }
    }
    assert_eq!(found, [("kept".to_owned(), "text".to_owned())]);
}
