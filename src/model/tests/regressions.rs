//! Programs on which the model and the reference once disagreed, as they were found and shrunk.

use super::agree::run;
use super::driver::Driver;
use super::program::Do;
use super::*;

/// The bytes of a longer file showed through between the end of an older version and the client's own unflushed bytes.
#[test]
fn bytes_of_others_do_not_show_through_below_own_unflushed_ones() {
    run(
        &[4, 3, 1],
        &[
            (0, Do::Truncate(0)),
            (0, Do::Create { at: F, exclusive: false }),
            (1, Do::Write { at: 0, len: 5 }),
            (0, Do::Read(0, 0)),
            (1, Do::Truncate(0)),
            (0, Do::Write { at: 5, len: 1 }),
            (0, Do::Read(0, 3)),
        ],
    );
}

/// A TTL of zero hid what was believed, and a longer one brought it back: after newer answers, and with its past gone.
#[test]
fn longer_ttls_do_not_bring_back_what_was_believed_before() {
    run(
        &[0, 12],
        &[
            (1, Do::Lookup(F)),
            (1, Do::Read(0, 8)),
            (1, Do::Knobs(0)),
            (0, Do::Write { at: 0, len: 3 }),
            (0, Do::Unlink(F)),
            (1, Do::Read(0, 8)),
            (1, Do::Lookup(F)),
            (1, Do::Knobs(12)),
            (1, Do::Read(0, 8)),
            (1, Do::Lookup(F)),
        ],
    );
}

/// What was told to a client was merged with the next commit of its author, and then seemed not to have been told.
#[test]
fn a_commit_that_was_told_to_someone_is_not_merged_with_the_next() {
    run(&[4, 0, 0], &[(0, Do::Truncate(0)), (1, Do::Lock), (0, Do::Truncate(0)), (1, Do::Read(0, 1))]);
}

/// Who had read the clock first and came second believed a cache whose past was not kept any more: old attributes, new bytes.
#[test]
fn a_cache_that_had_ended_for_one_has_ended_for_all() {
    let (a, b) = (ClientId(1), ClientId(2));
    let o = ObjectId(FIRST_FILE);
    let mut w = Driver::new(usize::MAX, &[(a, Knobs::strict()), (b, Knobs::strict().file_ttl(ns(10)))]);
    w.make(o, at(0));
    assert_eq!(w.file(b, o, at(0)).bytes, b"");
    w.write(a, o, 0, b"new", at(10));
    w.flush(a, o, at(10));
    let seen = w.file(b, o, at(9));
    assert_eq!((seen.bytes.as_slice(), seen.attr.size), (&b"new"[..], 3));
}

/// A rename ended every cache of the file, also those that had all its bytes: less stale than asked.
#[test]
fn a_rename_ends_no_cache_that_has_all_the_bytes() {
    run(
        &[0, 2],
        &[
            (1, Do::Read(0, 8)),
            (0, Do::Rename(F, G)),
            (0, Do::Write { at: 0, len: 2 }),
            (1, Do::Pass(5)),
            (1, Do::Read(0, 8)),
        ],
    );
}

/// A cache filled between a rename and the moment at which it shows outlived that moment: a new name with old bytes.
#[test]
fn a_cache_filled_before_a_name_shows_ends_when_it_shows() {
    run(
        &[9, 2],
        &[
            (0, Do::Write { at: 0, len: 3 }),
            (0, Do::Flush),
            (0, Do::Rename(F, G)),
            (1, Do::Pass(2)),
            (1, Do::Read(0, 8)),
            (1, Do::Pass(3)),
            (1, Do::Lookup(G)),
            (1, Do::Read(0, 8)),
        ],
    );
}

/// A link took the cache from the file's other names.
#[test]
fn a_link_leaves_the_other_names_of_a_file_as_they_are() {
    run(&[0, 2], &[(1, Do::Lookup(F)), (0, Do::Link(F, G)), (0, Do::Unlink(F)), (1, Do::Lookup(F))]);
}

/// Renaming a file by one name took the freshness from the link that was its lock.
#[test]
fn renaming_one_name_leaves_a_link_exclusive() {
    run(
        &[0, 2],
        &[
            (0, Do::Link(F, G)),
            (0, Do::Rename(F, H)),
            (1, Do::Lookup(G)),
            (0, Do::Unlink(G)),
            (1, Do::Lookup(G)),
        ],
    );
}

/// The removal of a lock file made the clients believe that it is there.
#[test]
fn a_removed_lock_file_stays_exclusive_while_anyone_is_shown_it() {
    run(
        &[2, 0, 1],
        &[
            (0, Do::Create { at: G, exclusive: true }),
            (2, Do::Unlink(G)),
            (0, Do::Lookup(G)),
            (0, Do::Pass(12)),
            (0, Do::Lookup(G)),
        ],
    );
}

/// The file of a name whose removal is not visible yet was let go when another client removed its other name.
#[test]
fn a_removal_is_seen_late_while_an_earlier_one_is() {
    let strict = Knobs::strict();
    let mut w = Driver::new(usize::MAX, &[(A, strict.rename_delay(ns(12))), (B, strict), (C, strict)]);
    let object = ObjectId(FIRST_FILE);
    w.make(object, at(0));
    w.bind(B, at(1), &[(F, Some(object)), (G, Some(object))], false);
    assert!(!w.world.removal_is_seen_late(B));
    w.bind(A, at(2), &[(F, None)], false);
    w.bind(B, at(3), &[(G, None)], false);
    assert_eq!(w.lookup(C, F, at(3)), Some(object));
    assert!(w.world.removal_is_seen_late(B));
    w.world.expire(at(14));
    assert!(!w.world.removal_is_seen_late(B));
}
