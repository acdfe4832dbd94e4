//! The clock, and what ends all lateness: `settle`, `settle_now`, `explain`.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaosfs::{Backing, Clock, Error, Knobs};

use crate::support::{NFS, Two, append, edit, exists, get, list, ms, put, secs, size, write, write_at};

/// What a manual clock calls its zero.
fn manual(since: Duration) -> SystemTime {
    UNIX_EPOCH + secs(1_704_067_200) + since
}

fn mtime(path: &std::path::Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn under_a_manual_clock_the_times_of_files_are_the_clocks() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict());
    two.pass(secs(5));
    put(&two.a, "f", "text");
    let changed = |name: &str| {
        let meta = fs::metadata(two.b.join(name)).unwrap();
        UNIX_EPOCH + Duration::new(meta.ctime() as u64, meta.ctime_nsec() as u32)
    };
    assert_eq!((mtime(&two.b.join("f")), changed("f")), (manual(secs(5)), manual(secs(5))));
    assert_eq!(mtime(two.b.path()), manual(secs(5)), "the directory has a new entry");
    two.pass(ms(1));
    write(&append(&two.a, "f"), "+");
    assert_eq!((mtime(&two.b.join("f")), changed("f")), (manual(ms(5001)), manual(ms(5001))));
    two.pass(secs(1));
    // Only the change of the attributes moves.
    fs::set_permissions(two.a.join("f"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!((mtime(&two.b.join("f")), changed("f")), (manual(ms(5001)), manual(ms(6001))));
    // What a program sets, stays.
    let given = UNIX_EPOCH + secs(1_000_000_000);
    fs::File::options().write(true).open(two.a.join("f")).unwrap().set_modified(given).unwrap();
    assert_eq!((mtime(&two.b.join("f")), changed("f")), (given, manual(ms(6001))));
}

#[test]
fn a_writer_sees_the_time_of_its_write_and_the_others_that_of_the_flush() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(30)));
    put(&two.a, "f", "one");
    two.pass(secs(3));
    let file = edit(&two.a, "f");
    write_at(&file, 0, "two");
    assert_eq!((mtime(&two.a.join("f")), mtime(&two.b.join("f"))), (manual(secs(3)), manual(secs(0))));
    two.pass(secs(4));
    drop(file);
    assert_eq!((mtime(&two.a.join("f")), mtime(&two.b.join("f"))), (manual(secs(7)), manual(secs(7))));
}

#[test]
fn a_manual_clock_moves_only_when_it_is_moved() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    let clock = two.backing.clock();
    assert!(clock.is_manual());
    put(&two.a, "f", "text");
    assert_eq!(clock.now().elapsed(), secs(0));
    clock.advance(secs(86_400));
    assert_eq!(clock.now().elapsed(), secs(86_400));
}

#[test]
fn what_becomes_due_on_the_way_happens_at_its_own_time() {
    chaosfs::require_fuse!();
    let two = Two::with(Knobs::strict().write_delay(secs(1)), Knobs::strict().write_delay(secs(2)));
    put(&two.a, "f", "");
    let (a, b) = (append(&two.a, "f"), append(&two.b, "f"));
    write(&b, "b");
    write(&a, "a");
    two.pass(secs(60));
    let history = two.backing.history();
    let due: Vec<_> = history
        .iter()
        .filter(|e| e.deed() == chaosfs::Deed::WriteBack)
        .map(|e| (e.client().to_owned(), e.at().elapsed()))
        .collect();
    assert_eq!(due, [("a".to_owned(), secs(1)), ("b".to_owned(), secs(2))]);
}

/// Makes everything that can be late, late. B knows only what was there before.
fn mess(two: &Two) -> std::fs::File {
    for (name, text) in [("old", "old"), ("moved", "moved"), ("gone", "gone")] {
        put(&two.a, name, text);
    }
    fs::create_dir(two.a.join("d")).unwrap();
    two.pass(secs(100));
    let known: Vec<String> = list(two.b.path()).iter().map(|n| format!("{n}: {}", size(&two.b, n))).collect();
    assert_eq!(known.len(), 4);
    assert!(!exists(&two.b, "new") && !exists(&two.b, "d/in"));
    put(&two.a, "new", "new");
    put(&two.a, "d/in", "in");
    fs::rename(two.a.join("moved"), two.a.join("old")).unwrap();
    fs::remove_file(two.a.join("gone")).unwrap();
    let open = append(&two.a, "new");
    write(&open, ", not closed");
    open
}

fn is_settled(two: &Two) {
    for m in [&two.a, &two.b] {
        assert_eq!(list(m.path()), ["d", "new", "old"]);
        assert_eq!(
            (get(m, "new"), get(m, "old"), get(m, "d/in")),
            ("new, not closed".into(), "moved".into(), "in".into())
        );
        assert!(!exists(m, "gone") && !exists(m, "moved"));
    }
    assert_eq!(fs::read_to_string(two.backing.path().join("new")).unwrap(), "new, not closed");
}

#[test]
fn after_settle_every_view_is_the_truth_and_time_has_passed() {
    chaosfs::require_fuse!();
    for knobs in [Knobs::strict(), NFS, Knobs::eventual(), Knobs::eventual().reorder(true).meta_ttl(secs(60))]
    {
        let two = Two::new(knobs);
        let _open = mess(&two);
        let before = two.backing.clock().now();
        two.backing.settle().unwrap();
        is_settled(&two);
        let passed = two.backing.clock().now().since(before);
        assert_eq!(passed.is_zero(), knobs == Knobs::strict(), "{knobs:?}: {passed:?}");
        // Nothing is left that would be late: no more time is needed.
        let before = two.backing.clock().now();
        two.backing.settle_now().unwrap();
        is_settled(&two);
        assert_eq!(two.backing.clock().now(), before);
    }
}

#[test]
fn after_settle_now_every_view_is_the_truth_and_no_time_has_passed() {
    chaosfs::require_fuse!();
    for knobs in [NFS, Knobs::eventual(), Knobs::eventual().reorder(true).meta_ttl(secs(60))] {
        let two = Two::new(knobs);
        let _open = mess(&two);
        let before = two.backing.clock().now();
        two.backing.settle_now().unwrap();
        is_settled(&two);
        assert_eq!(two.backing.clock().now(), before);
        assert_eq!(two.backing.memory_held(), 0);
    }
}

#[test]
fn settle_waits_in_real_time_on_the_system_clock() {
    chaosfs::require_fuse!();
    let two = Two::on(
        Backing::temp().unwrap(),
        Knobs::eventual().meta_ttl(ms(50)),
        Knobs::strict().meta_ttl(ms(80)),
    );
    two.a.set_knobs(Knobs::strict().write_delay(ms(40)).rename_delay(ms(60)).close_to_open(false)).unwrap();
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "text");
    assert!(!exists(&two.b, "f"));
    two.backing.settle().unwrap();
    assert_eq!(get(&two.b, "f"), "text");
}

#[test]
fn explain_says_what_a_client_sees_and_why_and_what_is_true() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS.rename_delay(secs(1)));
    let says = |client: &str, path: &str, parts: &[&str]| {
        let text = two.backing.explain(client, path).unwrap();
        assert!(parts.iter().all(|p| text.contains(p)), "{text:?} lacks one of {parts:?}");
    };
    says("b", "f", &["b does not see `f`", "the truth has no such file"]);
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "text");
    two.pass(ms(500));
    says("b", "f", &["b does not see `f`", "0.500s ago", "in 2.500s", "(4 bytes)", "committed by a"]);
    says("b", "f/", &["b does not see `f"]);
    two.pass(ms(2500));
    assert_eq!(size(&two.b, "f"), 4);
    two.pass(ms(1200));
    write(&append(&two.a, "f"), "+more");
    says(
        "b",
        "f",
        &[
            "b sees an older state",
            "(4 bytes)",
            "fetched it 1.200s ago",
            "asks again in 1.800s",
            "truth is v",
            "(9 bytes)",
            "by a at t=4.200s",
        ],
    );
    let file = edit(&two.b, "f");
    write_at(&file, 0, "TEXT");
    says("b", "f", &["4 bytes of its own", "flushed at t=34.200s"]);
    put(&two.a, "g", "");
    says("b", "g", &["b does not see `g` yet", "rename_delay"]);
    says("a", "g", &["a sees", "(0 bytes)", "committed by a"]);
    fs::remove_file(two.a.join("f")).unwrap();
    says("b", "f", &["b still sees `f`", "the truth has no such file"]);
    says("a", "f", &["a does not see `f`", "the truth has no such file"]);
    says("a", "no/such/file", &["the truth has no `no`"]);
    says("a", "", &["a sees"]);
    let absolute = two.b.join("g");
    says("b", absolute.to_str().unwrap(), &["b does not see `g` yet"]);
}

#[test]
fn explain_of_a_client_that_is_not_there_says_who_is() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    let error = two.backing.explain("c", "f").unwrap_err();
    assert!(matches!(&error, Error::NoSuchClient { client, .. } if client == "c"));
    assert!(error.to_string().contains("there is `a`, `b`"), "{error}");
}

/// A listing of what may be dropped.
fn listed(dir: &std::path::Path) -> Vec<OsString> {
    fs::read_dir(dir).map_or(vec![], |entries| entries.map_while(Result::ok).map(|e| e.file_name()).collect())
}

/// A program of one thread that does a little of everything with both clients. Its history.
fn script() -> String {
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let two = Two::on(backing, Knobs::eventual(), NFS);
    let held = append(&two.a, "held");
    for n in 0..12 {
        let (one, other) = if n % 2 == 0 { (&two.a, &two.b) } else { (&two.b, &two.a) };
        let dir = format!("d{}", n % 3);
        let _ = fs::create_dir(one.join(&dir));
        let _ = fs::write(one.join(&dir).join(format!("f{n}")), "text".repeat(n));
        let _ = fs::rename(other.join(&dir).join(format!("f{n}")), other.join(format!("g{n}")));
        two.pass(ms(350));
        let _ = fs::hard_link(one.join(&dir).join("f0"), one.join(format!("link{n}")));
        let _ = std::os::unix::fs::symlink(&dir, other.join(format!("symlink{n}")));
        for m in [other, one] {
            for name in listed(m.path()) {
                let _ = fs::read(m.join(&name));
                if m.join(&name).is_dir() {
                    listed(&m.join(&name));
                }
            }
        }
        write(&held, "never closed\n");
        if let Ok(mut log) = fs::OpenOptions::new().append(true).create(true).open(one.join("log")) {
            let _ = log.write_all(b"line\n");
            two.pass(ms(200));
            let _ = rustix::fs::flock(&log, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        }
        let _ = fs::remove_file(other.join(format!("d{}/f{}", (n + 1) % 3, n / 2)));
        if n == 7 {
            two.b.set_knobs(NFS.drop_prob(0.3)).unwrap();
        }
    }
    two.backing.settle().unwrap();
    two.backing.history().to_string()
}

#[test]
fn two_runs_of_one_script_have_the_same_history_to_the_byte() {
    chaosfs::require_fuse!();
    let (first, second) = (script(), script());
    assert!(first.lines().count() > 300, "{first}");
    for word in ["dropped", "cached", "not visible yet", "not flushed", "write back"] {
        assert!(first.contains(word), "no event says {word:?}: {first}");
    }
    let differ = first.lines().zip(second.lines()).find(|(x, y)| x != y);
    assert_eq!(differ, None);
    assert_eq!(first, second);
}
