//! Limits: memory and the history.

use std::fs::{self, File};

use chaosfs::{Backing, Clock, Deed, Knobs};

use crate::support::{NFS, Two, edit, exists, get, list, ms, put, secs, write_at};

const BUDGET: usize = 1 << 20;
const PIECE: usize = 64 << 10;
/// 16 MiB.
const PIECES: usize = 256;

/// The bytes of one piece: no two are alike.
fn piece(round: usize, n: usize) -> String {
    format!("{round:07} {n:07} ").repeat(PIECE / 16)
}

fn small() -> Backing {
    Backing::options().clock(Clock::manual()).memory_budget(BUDGET).temp().unwrap()
}

#[test]
fn unflushed_writes_stay_within_the_memory_budget_and_none_is_lost() {
    chaosfs::require_fuse!();
    for knobs in [NFS, Knobs::eventual().write_delay(secs(3600))] {
        let two = Two::on(small(), knobs, knobs);
        let file = File::create(two.a.join("f")).unwrap();
        let mut most = 0;
        for n in 0..PIECES {
            write_at(&file, (n * PIECE) as u64, &piece(0, n));
            let held = two.backing.memory_held();
            assert!(held <= BUDGET, "{held} bytes after {n} pieces");
            most = most.max(held);
        }
        assert!(most > BUDGET / 2, "writes do stay in memory: {most}");
        drop(file);
        two.backing.settle().unwrap();
        let whole: String = (0..PIECES).map(|n| piece(0, n)).collect();
        assert!(get(&two.a, "f") == whole && get(&two.b, "f") == whole);
        assert!(fs::read(two.backing.path().join("f")).unwrap() == whole.as_bytes());
        assert!(two.backing.memory_held() <= BUDGET);
    }
}

#[test]
fn past_states_stay_within_the_memory_budget_and_the_history_says_what_was_given_up() {
    chaosfs::require_fuse!();
    let knobs = Knobs::strict().write_delay(secs(3600)).close_to_open(false);
    let whole = |round| (0..PIECES).map(|n| piece(round, n)).collect::<String>();
    let two = Two::on(small(), knobs, knobs).file("f", &whole(0));
    let file = edit(&two.a, "f");
    for n in 0..PIECES {
        write_at(&file, (n * PIECE) as u64, &piece(1, n));
        file.sync_all().unwrap();
        let held = two.backing.memory_held();
        assert!(held <= BUDGET, "{held} bytes after {n} pieces");
    }
    let history = two.backing.history();
    assert!(history.iter().any(|e| e.deed() == Deed::Collapse));
    // The oldest changes are seen early, the newest are not: a state of the file that there was.
    let seen = get(&two.b, "f");
    let new = (0..PIECES).take_while(|n| seen[n * PIECE..].starts_with(&piece(1, *n))).count();
    assert!(new > PIECES / 2 && new < PIECES, "{new} pieces are seen early");
    assert!((new..PIECES).all(|n| seen[n * PIECE..].starts_with(&piece(0, n))));
    drop(file);
    two.backing.settle().unwrap();
    assert!(get(&two.b, "f") == whole(1));
}

#[test]
fn memory_is_given_back_when_nobody_can_be_shown_the_past() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "old");
    assert_eq!(get(&two.b, "f"), "old");
    put(&two.a, "f", "new");
    assert!(two.backing.memory_held() > 0);
    two.backing.settle().unwrap();
    assert_eq!(two.backing.memory_held(), 0);
}

#[test]
fn the_history_keeps_the_newest_events_and_counts_the_others() {
    chaosfs::require_fuse!();
    let backing = Backing::options().clock(Clock::manual()).history_limit(10).temp().unwrap();
    let two = Two::on(backing, Knobs::strict(), Knobs::strict());
    for n in 0..20 {
        put(&two.a, &format!("f{n}"), "");
        two.pass(ms(1));
    }
    let history = two.backing.history();
    assert_eq!((history.len(), history.iter().count(), history.is_empty()), (10, 10, false));
    let numbers: Vec<u64> = history.iter().map(chaosfs::Event::number).collect();
    let lost = history.lost();
    assert!(lost > 20);
    assert_eq!(numbers, (lost + 1..=lost + 10).collect::<Vec<_>>());
    assert!(history.to_string().starts_with(&format!("({lost} older events dropped)\n#{} ", lost + 1)));
    assert_eq!(history.iter().last().unwrap().path().to_str(), Some("f19"));
}

#[test]
fn a_history_of_no_events_keeps_none() {
    chaosfs::require_fuse!();
    let backing = Backing::options().clock(Clock::manual()).history_limit(0).temp().unwrap();
    let two = Two::on(backing, Knobs::strict(), Knobs::strict());
    put(&two.a, "f", "");
    assert!(exists(&two.b, "f") && list(two.b.path()) == ["f"]);
    let history = two.backing.history();
    assert!(history.is_empty() && history.lost() > 0);
}
