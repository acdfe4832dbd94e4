//! The rules R2 to R8 of SEMANTICS.md, each by the smallest example.

use super::driver::Driver;
use super::*;

/// The file that the examples are about.
const O: ObjectId = ObjectId(FIRST_FILE);
const P: ObjectId = ObjectId(FIRST_FILE + 1);

/// A world in which `A` has made `f` with `bytes` in it, long enough ago for everyone to see it.
fn world(clients: &[(ClientId, Knobs)], bytes: &[u8]) -> Driver {
    let mut w = Driver::new(usize::MAX, clients);
    make(&mut w, O, F, bytes);
    w
}

fn make(w: &mut Driver, object: ObjectId, place: Place, bytes: &[u8]) {
    w.make(object, at(0));
    if let Some(file) = w.files.get_mut(&object) {
        file.bytes = bytes.to_vec();
        file.attr.size = bytes.len() as u64;
    }
    w.names.insert(place, object);
}

fn bytes(w: &mut Driver, c: ClientId, now: u64) -> Vec<u8> {
    w.file(c, O, at(now)).bytes
}

const STRICT: Knobs = Knobs::strict();

// ---- R2: what a client sees of one object is one of its states, and never an older one than before ------------------

#[test]
fn r2_a_late_change_hides_no_earlier_one() {
    // B's change is visible at once, and with it A's, which came before it.
    let mut w = world(&[(A, eventual()), (B, STRICT), (C, STRICT)], b"....");
    w.write(A, O, 0, b"A", at(10));
    w.flush(A, O, at(10));
    assert_eq!(bytes(&mut w, C, 11), b"....");
    w.write(B, O, 2, b"B", at(12));
    assert_eq!(bytes(&mut w, C, 12), b"A.B.");
}

#[test]
fn r2_who_commits_sees_everything_committed_before() {
    let mut w = world(&[(A, eventual()), (B, eventual())], b"....");
    assert_eq!(bytes(&mut w, B, 9), b"....");
    w.write(A, O, 0, b"A", at(10));
    w.flush(A, O, at(10));
    w.write(B, O, 2, b"B", at(11));
    assert_eq!(bytes(&mut w, B, 11), b"..B.");
    w.flush(B, O, at(12));
    assert_eq!(bytes(&mut w, B, 12), b"A.B.");
}

#[test]
fn r2_a_state_that_someone_was_shown_is_kept_apart_from_the_next() {
    // C keeps the past alive, B is shown the state between two commits that look alike in all else.
    let slow = STRICT.file_ttl(ns(100));
    let mut w = world(&[(A, STRICT), (B, slow), (C, slow)], b"..");
    assert_eq!(bytes(&mut w, C, 9), b"..");
    w.write(A, O, 0, b"1", at(10));
    assert_eq!(bytes(&mut w, B, 10), b"1.");
    w.write(A, O, 1, b"2", at(10));
    assert_eq!((bytes(&mut w, B, 11), bytes(&mut w, C, 11)), (b"1.".to_vec(), b"..".to_vec()));
}

#[test]
fn r2_a_client_that_joins_late_sees_what_is_visible_by_then() {
    let mut w = world(&[(A, eventual())], b"old");
    w.write(A, O, 0, b"new", at(10));
    w.flush(A, O, at(10));
    w.bind(A, at(11), &[(G, Some(P))], false);
    w.world.join(B, STRICT);
    assert_eq!(bytes(&mut w, B, 17), b"old");
    assert_eq!(bytes(&mut w, B, 18), b"new");
    assert_eq!(w.lookup(B, G, at(22)), None);
    assert_eq!(w.lookup(B, G, at(23)), Some(P));
}

#[test]
fn r2_a_shrunk_and_grown_file_is_shown_with_its_old_bytes() {
    let mut w = world(&[(A, eventual()), (B, STRICT)], b"abcdef");
    w.set(A, O, at(10), (Some(2), None));
    w.write(A, O, 4, b"Z", at(10));
    w.flush(A, O, at(10));
    assert_eq!(bytes(&mut w, B, 11), b"abcdef");
    assert_eq!(bytes(&mut w, B, 18), b"ab\0\0Z");
}

// ---- R3: bytes are visible at the latest `write_delay` after the write ----------------------------------------------

#[test]
fn r3_unflushed_bytes_are_nowhere_but_with_their_writer() {
    let mut w = world(&[(A, eventual()), (B, STRICT)], b"old");
    w.write(A, O, 0, b"new", at(10));
    assert_eq!(w.files[&O].bytes, b"old");
    assert_eq!((bytes(&mut w, A, 10), bytes(&mut w, B, 10)), (b"new".to_vec(), b"old".to_vec()));
    assert_eq!(w.world.due(at(17)), None);
    assert_eq!(w.world.due(at(18)), Some((at(18), A, O)));
}

#[test]
fn r3_the_delay_counts_from_the_first_write_and_binds_even_after_close() {
    let mut w = world(&[(A, eventual()), (B, STRICT)], b"old");
    w.write(A, O, 0, b"n", at(10));
    w.write(A, O, 1, b"ew", at(14));
    w.flush(A, O, at(15));
    assert_eq!(bytes(&mut w, B, 17), b"old");
    assert_eq!(bytes(&mut w, B, 18), b"new");
}

#[test]
fn r3_with_publish_on_close_a_flush_is_visible_at_once() {
    let mut w = world(&[(A, eventual().publish_on_close(true)), (B, STRICT)], b"old");
    w.write(A, O, 0, b"new", at(10));
    w.flush(A, O, at(11));
    assert_eq!(bytes(&mut w, B, 11), b"new");
}

#[test]
fn r3_an_endless_delay_ends_with_the_flush_only_if_that_publishes() {
    let endless = STRICT.write_delay(std::time::Duration::MAX);
    let mut w = world(&[(A, endless), (B, STRICT)], b"old");
    w.write(A, O, 0, b"new", at(10));
    assert_eq!(w.world.due(at(u64::MAX - 1)), None);
    w.flush(A, O, at(11));
    assert_eq!(bytes(&mut w, B, 11), b"new");
}

#[test]
fn r3_names_are_visible_rename_delay_after_the_call_and_to_their_author_at_once() {
    let mut w = world(&[(A, eventual()), (B, STRICT)], b"");
    w.bind(A, at(10), &[(F, None), (G, Some(O))], false);
    assert_eq!((w.lookup(A, F, at(10)), w.lookup(A, G, at(10))), (None, Some(O)));
    assert_eq!((w.lookup(B, F, at(21)), w.lookup(B, G, at(21))), (Some(O), None));
    assert_eq!((w.lookup(B, F, at(22)), w.lookup(B, G, at(22))), (None, Some(O)));
}

#[test]
fn r3_new_knobs_do_not_change_what_is_on_its_way() {
    let mut w = world(&[(A, eventual()), (B, STRICT)], b"");
    w.bind(A, at(10), &[(F, None)], false);
    w.world.set_knobs(A, STRICT);
    assert_eq!(w.lookup(B, F, at(21)), Some(O));
    assert_eq!(w.lookup(B, F, at(22)), None);
}

// ---- R4: who was told how something stands does not see it otherwise again ------------------------------------------

#[test]
fn r4_who_was_told_that_a_name_exists_sees_it_and_what_is_in_it() {
    let mut w = world(&[(A, eventual()), (B, eventual()), (C, eventual())], b"");
    w.bind(A, at(10), &[(G, Some(O))], true);
    w.write(A, O, 0, b"mine", at(10));
    w.flush(A, O, at(11));
    assert_eq!(w.lookup(B, G, at(11)), None);
    w.reveal_name(B, G);
    assert_eq!((w.lookup(B, G, at(11)), bytes(&mut w, B, 11)), (Some(O), b"mine".to_vec()));
    assert_eq!((w.lookup(C, G, at(11)), bytes(&mut w, C, 11)), (None, Vec::new()));
}

#[test]
fn r4_who_was_told_still_sees_that_state_when_its_author_goes_on() {
    let mut w = world(&[(A, eventual()), (B, STRICT)], b"..");
    w.write(A, O, 0, b"1", at(10));
    w.flush(A, O, at(10));
    w.world.reveal(B, O);
    w.write(A, O, 1, b"2", at(10));
    w.flush(A, O, at(10));
    assert_eq!(
        bytes(&mut w, B, 11),
        b"1.",
        "the second commit must not be merged into the first, which B was told of"
    );
}

// ---- R5: caches ---------------------------------------------------------------------------------------------------

#[test]
fn r5_attributes_and_bytes_are_believed_together_until_the_ttl_ends() {
    let mut w = world(&[(A, STRICT), (B, STRICT.file_ttl(ns(15)))], b"old");
    assert_eq!(w.stat(B, O, at(10), false).size, 3);
    w.write(A, O, 0, b"newer", at(11));
    assert_eq!(bytes(&mut w, B, 24), b"old");
    assert_eq!(bytes(&mut w, B, 25), b"newer");
    assert_eq!(w.world.held(), 0, "nobody can be shown the old bytes any more");
}

#[test]
fn r5_open_asks_the_server_with_revalidate_on_open() {
    let mut w = world(&[(A, STRICT), (B, STRICT.file_ttl(ns(15)))], b"old");
    assert_eq!(bytes(&mut w, B, 10), b"old");
    w.write(A, O, 0, b"newer", at(11));
    assert_eq!(w.stat(B, O, at(12), true).size, 5);
    assert_eq!(bytes(&mut w, B, 12), b"newer");
}

#[test]
fn r5_found_and_missing_names_have_lives_of_their_own() {
    let mut w = world(&[(A, STRICT), (B, STRICT.dir_ttl(ns(15)).negative_ttl(ns(5)))], b"");
    assert_eq!((w.lookup(B, F, at(10)), w.lookup(B, G, at(10))), (Some(O), None));
    w.bind(A, at(11), &[(F, None), (G, Some(O))], false);
    assert_eq!((w.lookup(B, F, at(14)), w.lookup(B, G, at(14))), (Some(O), None));
    assert_eq!((w.lookup(B, F, at(15)), w.lookup(B, G, at(15))), (Some(O), Some(O)));
    assert_eq!(w.lookup(B, F, at(25)), None);
}

#[test]
fn r5_an_own_change_makes_the_directory_be_looked_at_afresh() {
    let mut w = world(&[(A, STRICT), (B, STRICT.dir_ttl(ns(100)).revalidate_on_open(false))], b"");
    assert_eq!(w.list(B, ROOT, at(10)).len(), 1);
    make(&mut w, P, G, b"");
    assert_eq!(w.list(B, ROOT, at(11)).len(), 1);
    w.bind(B, at(12), &[((ROOT, 'x'), Some(P))], false);
    assert_eq!(w.list(B, ROOT, at(12)).len(), 3);
}

#[test]
fn r5_a_listing_shows_names_as_they_are_visible() {
    let mut w = world(&[(A, eventual()), (B, STRICT)], b"");
    w.bind(A, at(10), &[(F, None), (G, Some(O))], false);
    assert_eq!(w.list(A, ROOT, at(10)).into_keys().collect::<Vec<_>>(), [G]);
    assert_eq!(w.list(B, ROOT, at(21)).into_keys().collect::<Vec<_>>(), [F]);
    assert_eq!(w.list(B, ROOT, at(22)).into_keys().collect::<Vec<_>>(), [G]);
}

// ---- R6: a name does not show before its bytes ----------------------------------------------------------------------

/// Writes take longer than names.
fn slow_writes() -> Knobs {
    STRICT.write_delay(ns(50)).publish_on_close(false).rename_delay(ns(10))
}

#[test]
fn r6_a_renamed_file_is_never_empty() {
    let mut w = world(&[(A, slow_writes()), (B, STRICT)], b"");
    w.write(A, O, 0, b"full", at(10));
    w.flush(A, O, at(10));
    w.bind(A, at(11), &[(F, None), (G, Some(O))], false);
    assert_eq!((w.lookup(B, G, at(20)), bytes(&mut w, B, 20)), (None, Vec::new()));
    assert_eq!((w.lookup(B, G, at(21)), bytes(&mut w, B, 21)), (Some(O), b"full".to_vec()));
}

#[test]
fn r6_with_reorder_it_may_be() {
    let mut w = world(&[(A, slow_writes().reorder(true)), (B, STRICT)], b"");
    w.write(A, O, 0, b"full", at(10));
    w.flush(A, O, at(10));
    w.bind(A, at(11), &[(F, None), (G, Some(O))], false);
    assert_eq!((w.lookup(B, G, at(21)), bytes(&mut w, B, 21)), (Some(O), Vec::new()));
    assert_eq!(bytes(&mut w, B, 60), b"full");
}

#[test]
fn r6_holds_through_a_cache_filled_before_the_rename() {
    let mut w = world(&[(A, slow_writes()), (B, STRICT.file_ttl(ns(100)))], b"");
    assert_eq!(bytes(&mut w, B, 9), b"");
    w.write(A, O, 0, b"full", at(10));
    w.flush(A, O, at(10));
    w.bind(A, at(11), &[(G, Some(O))], false);
    assert_eq!(bytes(&mut w, B, 20), b"");
    assert_eq!((w.lookup(B, G, at(21)), bytes(&mut w, B, 21)), (Some(O), b"full".to_vec()));
}

#[test]
fn r6_holds_through_a_cache_filled_after_the_rename_and_before_it_shows() {
    let mut w = world(&[(A, slow_writes()), (B, STRICT.file_ttl(ns(100)))], b"");
    w.write(A, O, 0, b"full", at(10));
    w.flush(A, O, at(10));
    w.bind(A, at(11), &[(G, Some(O))], false);
    assert_eq!(bytes(&mut w, B, 15), b"");
    assert_eq!((w.lookup(B, G, at(21)), bytes(&mut w, B, 21)), (Some(O), b"full".to_vec()));
}

#[test]
fn r6_makes_no_cache_end_that_has_the_bytes_already() {
    let mut w = world(&[(A, STRICT), (B, STRICT.file_ttl(ns(100)))], b"full");
    assert_eq!(bytes(&mut w, B, 10), b"full");
    w.bind(A, at(11), &[(F, None), (G, Some(O))], false);
    w.write(A, O, 0, b"more", at(12));
    assert_eq!((w.lookup(B, G, at(12)), bytes(&mut w, B, 12)), (Some(O), b"full".to_vec()));
}

// ---- R7: exclusive names are asked for afresh -----------------------------------------------------------------------

#[test]
fn r7_a_lock_file_that_its_holder_removed_is_gone_at_once() {
    for (fresh, seen) in [(true, None), (false, Some(P))] {
        let mut w = world(&[(A, STRICT), (B, STRICT.dir_ttl(ns(15)).exclusive_fresh(fresh))], b"");
        make(&mut w, P, G, b"");
        w.names.remove(&G);
        w.bind(A, at(10), &[(G, Some(P))], true);
        assert_eq!(w.lookup(B, G, at(11)), Some(P));
        w.bind(A, at(12), &[(G, None)], false);
        assert_eq!(w.lookup(B, G, at(12)), seen);
        assert_eq!(w.lookup(B, G, at(26)), None);
    }
}

#[test]
fn r7_a_lock_file_is_not_believed_past_the_moment_at_which_its_removal_shows() {
    let mut w = world(&[(A, STRICT.rename_delay(ns(10))), (B, STRICT.dir_ttl(ns(15)))], b"");
    w.bind(A, at(10), &[(F, None), (G, Some(O))], true);
    w.bind(A, at(30), &[(G, None)], false);
    assert_eq!(w.lookup(B, G, at(39)), Some(O));
    assert_eq!(w.lookup(B, G, at(40)), None);
    w.world.expire(at(40));
    assert!(!w.world.remembers_exclusive_names());
}

#[test]
fn r7_a_file_made_exclusively_and_renamed_is_believed_under_its_new_name() {
    let mut w = world(&[(A, STRICT), (B, STRICT.dir_ttl(ns(15)))], b"");
    w.bind(A, at(10), &[(F, Some(O))], true);
    w.bind(A, at(11), &[(F, None), (G, Some(O))], false);
    assert_eq!(w.lookup(B, G, at(12)), Some(O));
    w.bind(A, at(13), &[(G, None)], false);
    assert_eq!(w.lookup(B, G, at(14)), Some(O));
}

#[test]
fn r7_a_name_that_was_renamed_away_and_back_is_not_exclusive_any_more() {
    let mut w = world(&[(A, STRICT), (B, STRICT.dir_ttl(ns(15)))], b"");
    w.bind(A, at(10), &[(F, Some(O))], true);
    w.bind(A, at(11), &[(F, None), (G, Some(O))], false);
    w.bind(A, at(12), &[(G, None), (F, Some(O))], false);
    assert_eq!(w.lookup(B, F, at(13)), Some(O));
    w.bind(A, at(14), &[(F, None)], false);
    assert_eq!(w.lookup(B, F, at(15)), Some(O));
}

#[test]
fn r7_a_link_makes_its_own_name_fresh_and_no_other_name_of_the_file() {
    let mut w = world(&[(A, STRICT), (B, STRICT.dir_ttl(ns(15)))], b"");
    w.bind(A, at(10), &[(G, Some(O))], true);
    assert_eq!((w.lookup(B, F, at(11)), w.lookup(B, G, at(11))), (Some(O), Some(O)));
    // Renaming the other name leaves the link what it is.
    w.bind(A, at(12), &[(F, None), (H, Some(O))], false);
    assert_eq!(w.lookup(B, G, at(12)), Some(O));
    w.bind(A, at(13), &[(G, None)], false);
    assert_eq!((w.lookup(B, F, at(13)), w.lookup(B, G, at(13))), (Some(O), None));
}

// ---- R8: a client reads its own writes ------------------------------------------------------------------------------

#[test]
fn r8_own_unflushed_bytes_lie_on_top_of_the_version_seen() {
    let mut w = world(&[(A, STRICT), (B, eventual())], b"old bytes");
    assert_eq!(bytes(&mut w, B, 10), b"old bytes");
    w.write(A, O, 0, b"NEW BYTES", at(11));
    w.write(B, O, 4, b"my", at(12));
    let seen = w.file(B, O, at(12));
    assert_eq!((seen.bytes, seen.attr.mtime), (b"old mytes".to_vec(), stamp(at(12))));
}

#[test]
fn r8_before_own_bytes_that_begin_past_the_end_there_are_zeros() {
    let mut w = world(&[(A, STRICT), (B, eventual())], b"ab");
    assert_eq!(bytes(&mut w, B, 10), b"ab");
    // What others have put there is not part of the version that B believes.
    w.write(A, O, 2, b"cdefgh", at(11));
    w.write(A, O, 3, b"XY", at(11));
    w.write(B, O, 6, b"!", at(12));
    assert_eq!(bytes(&mut w, B, 12), b"ab\0\0\0\0!");
}
