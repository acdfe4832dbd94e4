//! Memory: what is merged, what is let go, and what gives way when there is too much.

use proptest::prelude::*;

use super::driver::Driver;
use super::*;

const O: ObjectId = ObjectId(FIRST_FILE);
const P: ObjectId = ObjectId(FIRST_FILE + 1);

fn world(budget: usize, clients: &[(ClientId, Knobs)]) -> Driver {
    let mut w = Driver::new(budget, clients);
    w.make(O, at(0));
    w.make(P, at(0));
    w
}

/// Writes `data` to the truth as client A.
fn put(w: &mut Driver, object: ObjectId, offset: u64, data: &[u8], now: u64) {
    w.write(A, object, offset, data, at(now));
    w.flush(A, object, at(now));
}

fn bytes(w: &mut Driver, c: ClientId, object: ObjectId, now: u64) -> Vec<u8> {
    w.file(c, object, at(now)).bytes
}

/// What the engine does after each change.
fn enforce(w: &mut Driver, now: u64) {
    while let Some((client, object)) = w.world.enforce_budget(at(now)) {
        w.flush(client, object, at(now));
    }
}

#[test]
fn commits_that_nobody_can_tell_apart_cost_what_one_costs() {
    let mut w = world(usize::MAX, &[(A, eventual()), (B, Knobs::strict())]);
    put(&mut w, O, 0, &[b'.'; 100], 1);
    w.world.expire(at(9));
    put(&mut w, O, 0, &[b'a'; 100], 10);
    let one = w.world.held();
    for i in 0..50 {
        put(&mut w, O, 2 * i, b"bb", 10);
    }
    assert_eq!(w.world.held(), one, "only what was there before the first of them is kept");
    assert_eq!((bytes(&mut w, B, O, 17), bytes(&mut w, B, O, 18)), (vec![b'.'; 100], vec![b'b'; 100]));
}

#[test]
fn merged_commits_rewind_to_the_bytes_before_the_first_of_them() {
    let mut w = world(usize::MAX, &[(A, Knobs::strict()), (B, Knobs::strict().file_ttl(ns(100)))]);
    put(&mut w, O, 0, b"abcdefgh", 10);
    assert_eq!(bytes(&mut w, B, O, 10), b"abcdefgh");
    put(&mut w, O, 2, b"12", 11);
    put(&mut w, O, 1, b"3456", 12);
    w.set(A, O, at(13), (Some(3), None));
    put(&mut w, O, 6, b"!", 14);
    assert_eq!(bytes(&mut w, B, O, 15), b"abcdefgh");
    assert_eq!(bytes(&mut w, B, O, 110), b"a34\0\0\0!");
}

#[test]
fn a_past_is_let_go_when_the_last_cache_that_needs_it_ends() {
    let mut w = world(usize::MAX, &[(A, Knobs::strict()), (B, Knobs::strict().file_ttl(ns(10)))]);
    put(&mut w, O, 0, b"old", 1);
    assert_eq!((w.world.held(), bytes(&mut w, B, O, 5)), (0, b"old".to_vec()));
    put(&mut w, O, 0, b"new", 6);
    w.world.expire(at(14));
    assert!(w.world.held() > 0);
    w.world.expire(at(15));
    assert_eq!(w.world.held(), 0);
}

#[test]
fn a_client_that_leaves_takes_its_needs_and_its_unflushed_bytes_with_it() {
    let mut w = world(usize::MAX, &[(A, Knobs::strict()), (B, eventual().file_ttl(ns(1000)))]);
    put(&mut w, O, 0, b"old", 1);
    assert_eq!(bytes(&mut w, B, O, 5), b"old");
    put(&mut w, O, 0, b"new", 6);
    w.write(B, P, 0, b"unflushed", at(6));
    w.world.leave(B);
    w.world.expire(at(6));
    assert_eq!((w.world.held(), w.world.due(Time::NEVER), w.world.all_dirty()), (0, None, Vec::new()));
}

#[test]
fn the_oldest_past_gives_way_first_and_its_readers_see_the_next_state() {
    let mut w = world(1000, &[(A, eventual()), (B, Knobs::strict())]);
    for (i, state) in [b"11111111", b"22222222", b"33333333"].iter().enumerate() {
        put(&mut w, O, 0, *state, 10 + i as u64);
    }
    assert_eq!((bytes(&mut w, B, O, 13), w.world.collapsed()), (Vec::new(), 0));
    // The fourth does not fit: what was before the first is given up.
    put(&mut w, P, 0, &[b'p'; 200], 13);
    w.write(A, P, 200, &[0; 200], at(13));
    enforce(&mut w, 13);
    assert_eq!(w.world.collapsed(), 1);
    assert!(w.world.held() <= 1000);
    assert_eq!(bytes(&mut w, B, O, 13), b"11111111");
    assert_eq!(bytes(&mut w, B, P, 13), b"", "the newer past is still there");
}

#[test]
fn a_cache_that_needs_what_gave_way_ends() {
    let mut w = world(600, &[(A, Knobs::strict()), (B, Knobs::strict().file_ttl(ns(1000)))]);
    put(&mut w, O, 0, &[1; 400], 1);
    assert_eq!(bytes(&mut w, B, O, 5), [1; 400]);
    put(&mut w, O, 0, &[2; 400], 6);
    assert!(w.world.held() > 600);
    enforce(&mut w, 6);
    assert_eq!((w.world.held(), w.world.collapsed()), (0, 1));
    assert_eq!(bytes(&mut w, B, O, 7), [2; 400]);
}

#[test]
fn unflushed_bytes_are_flushed_when_no_past_is_left_to_give_up() {
    let mut w = world(100, &[(A, eventual()), (B, eventual())]);
    w.write(A, O, 0, &[b'a'; 80], at(10));
    w.write(B, P, 0, &[b'b'; 80], at(9));
    assert_eq!(w.world.enforce_budget(at(10)), Some((B, P)), "the one that is due first");
    enforce(&mut w, 10);
    assert!(w.world.held() <= 100);
    assert_eq!((w.files[&P].bytes.len(), bytes(&mut w, A, O, 10).len()), (80, 80));
}

#[test]
fn a_long_run_of_merged_commits_takes_no_memory_and_no_time() {
    // Ten times as long a run must not take a hundred times as long: 200,000 commits would not end otherwise.
    let mut w = world(usize::MAX, &[(A, Knobs::strict()), (B, Knobs::strict().file_ttl(ns(1000)))]);
    put(&mut w, O, 0, b"before", 1);
    let _ = bytes(&mut w, B, O, 1);
    put(&mut w, O, 0, b"first.", 2);
    let _ = w.world.object(A, O, at(2), true);
    for i in 0..200_000_u64 {
        put(&mut w, O, i % 6, b"x", 3);
    }
    assert!(w.world.held() < 1000);
    assert_eq!(bytes(&mut w, B, O, 4), b"before");
}

proptest! {
    #![proptest_config(config(256))]

    /// Whatever gives way: what is shown was the file's state once, and never an older one than before.
    #[test]
    fn under_any_budget_every_answer_is_a_real_state_and_none_goes_backwards(
        budget in 0..1500usize,
        steps in prop::collection::vec((0..4u8, 0..8u64, 1..12usize, 1..6u64, any::<bool>()), 1..50),
    ) {
        let mut w = world(budget, &[(A, eventual().publish_on_close(false)), (B, eventual()), (C, Knobs::strict())]);
        let (mut now, mut states, mut seen) = (10, vec![w.files[&O].clone()], [0; 2]);
        for (step, (what, offset, len, pass, cut)) in steps.into_iter().enumerate() {
            match what {
                0 => w.set(A, O, at(now), (Some(offset), None)),
                _ => put(&mut w, O, offset, &vec![step as u8 + 1; len], now),
            }
            states.push(w.files[&O].clone());
            if cut {
                put(&mut w, P, 0, &[step as u8; 64], now);
            }
            enforce(&mut w, now);
            prop_assert!(w.world.held() <= budget);
            for (client, last) in [B, C].into_iter().zip(&mut seen) {
                let shown = w.file(client, O, at(now));
                let real = states.iter().enumerate().skip(*last).find(|(_, s)| **s == shown);
                prop_assert!(real.is_some(), "{client:?} was shown {shown:?}");
                *last = real.map_or(*last, |(i, _)| i);
            }
            if what == 3 {
                now += pass;
            }
        }
    }
}
