//! Chance: `drop_prob` and seeds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::thread;

use chaosfs::{Backing, Clock, Knobs, Options, Why};

use crate::support::{Two, errno, exists, list, put};

/// How many of these operations failed, of two hundred files with five droppable operations each.
fn failures(p: f64) -> usize {
    let two = Two::new(Knobs::strict().drop_prob(p));
    let mut failed = 0;
    for n in 0..200 {
        let path = two.a.join(format!("f{n}"));
        let done = [
            File::create(&path).and_then(|mut f| f.write_all(b"text")),
            fs::read(&path).map(drop),
            fs::rename(&path, two.a.join("target")),
        ];
        failed += done.iter().filter(|d| d.is_err()).count();
    }
    let history = two.backing.history();
    let dropped = history.iter().filter(|e| e.why() == Why::Dropped).count();
    assert_eq!(dropped == 0, failed == 0);
    failed
}

#[test]
fn zero_drops_nothing() {
    chaosfs::require_fuse!();
    assert_eq!(failures(0.0), 0);
}

#[test]
fn one_drops_everything_and_executes_nothing() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict()).file("f", "text").file("g", "");
    let held = fs::OpenOptions::new().write(true).read(true).open(two.a.join("f")).unwrap();
    two.a.set_knobs(Knobs::strict().drop_prob(1.0)).unwrap();
    for _ in 0..20 {
        let results = [
            File::create_new(two.a.join("new")).map(drop),
            File::open(two.a.join("f")).map(drop),
            (&held).write_all(b"TEXT"),
            held.sync_all(),
            held.set_len(0),
            fs::create_dir(two.a.join("d")),
            fs::remove_file(two.a.join("f")),
            fs::rename(two.a.join("f"), two.a.join("h")),
            fs::hard_link(two.a.join("f"), two.a.join("h")),
            std::os::unix::fs::symlink("f", two.a.join("s")),
            fs::read_dir(two.a.path()).map(drop),
            fs::set_permissions(two.a.join("f"), std::os::unix::fs::PermissionsExt::from_mode(0o600)),
        ];
        for (i, result) in results.into_iter().enumerate() {
            assert_eq!(errno(result), libc::EIO, "operation {i}");
        }
    }
    // Looking at names is never dropped, and the other client has its own chance.
    assert!(exists(&two.a, "f") && !exists(&two.a, "new"));
    assert_eq!(list(two.b.path()), ["f", "g"]);
    assert_eq!(fs::read_to_string(two.backing.path().join("f")).unwrap(), "text");
    put(&two.b, "f", "other");
    two.a.set_knobs(Knobs::strict()).unwrap();
    assert_eq!(list(two.a.path()), ["f", "g"]);
}

#[test]
fn a_probability_drops_about_that_many() {
    chaosfs::require_fuse!();
    let failed = failures(0.1);
    // Each of six hundred fails if any of its one to three operations does.
    assert!((60..240).contains(&failed), "{failed} of 600");
}

/// What became of each operation of four threads that work at once, by path.
fn fates(seed: u64, client: &str) -> BTreeMap<String, Vec<bool>> {
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let knobs = Knobs::strict().drop_prob(0.2);
    let m = backing.mount(Options::new().client_id(client).seed(seed).knobs(knobs)).unwrap();
    assert_eq!(m.seed(), seed);
    let work = |t: usize| {
        (0..25).map(move |n| format!("t{t}-{n}")).map(|name| {
            let path = m.join(&name);
            let mut fate = Vec::new();
            for _ in 0..4 {
                fate.push(fs::write(&path, "text").is_ok());
                fate.push(fs::read(&path).is_ok());
                fate.push(fs::remove_file(&path).is_ok());
            }
            (name, fate)
        })
    };
    thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|t| s.spawn(move || work(t).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn the_same_seed_gives_each_file_the_same_fate_whatever_the_threads_do() {
    chaosfs::require_fuse!();
    let first = fates(7, "c");
    assert_eq!(first.len(), 100);
    assert!(first.values().flatten().any(|ok| *ok) && first.values().flatten().any(|ok| !*ok));
    for _ in 0..3 {
        assert_eq!(fates(7, "c"), first);
    }
}

#[test]
fn another_seed_or_another_client_gives_another_fate() {
    chaosfs::require_fuse!();
    let first = fates(7, "c");
    assert_ne!(fates(8, "c"), first);
    assert_ne!(fates(7, "d"), first);
}
