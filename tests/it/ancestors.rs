//! The promises that the ancestor of this crate was known by, kept here in our own words.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use chaosfs::{Backing, Clock, Knobs, Options};

use super::support::{PATIENCE, Two, eventually, exists, get, is_mounted, just_before, list, ms, put};

#[test]
fn a_single_client_is_a_live_file_system() {
    chaosfs::require_fuse!();
    let backing = tempfile::tempdir().unwrap();
    let m = chaosfs::mount(backing.path()).unwrap();
    fs::create_dir_all(m.join("a/b")).unwrap();
    fs::write(m.join("a/b/f"), "one").unwrap();
    assert_eq!(fs::read_to_string(m.join("a/b/f")).unwrap(), "one");
    fs::rename(m.join("a/b/f"), m.join("a/g")).unwrap();
    assert_eq!(list(&m.join("a")), ["b", "g"]);
    assert_eq!(fs::metadata(m.join("a/g")).unwrap().len(), 3);
    fs::remove_dir(m.join("a/b")).unwrap();
    fs::remove_file(m.join("a/g")).unwrap();
    assert_eq!(list(&m.join("a")), [""; 0]);
    // What one client does is at the backing as soon as it has closed, whatever its knobs say.
    fs::write(m.join("kept"), "two").unwrap();
    assert_eq!(fs::read_to_string(backing.path().join("kept")).unwrap(), "two");
    let path = m.path().to_owned();
    m.unmount().unwrap();
    assert!(!is_mounted(&path) && !path.exists(), "the mount and the directory made for it are gone");
    assert_eq!(fs::read_to_string(backing.path().join("kept")).unwrap(), "two");
}

#[test]
fn a_write_is_at_the_truth_on_close_and_visible_to_the_other_client_after_the_delay() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().close_to_open(false).write_delay(ms(300))).file("f", "old");
    put(&two.a, "f", "new");
    assert_eq!(fs::read_to_string(two.backing.path().join("f")).unwrap(), "new");
    assert_eq!(get(&two.a, "f"), "new", "the writer sees its own write at once");
    two.turns_at(ms(300), || assert_eq!(get(&two.b, "f"), "old"), || assert_eq!(get(&two.b, "f"), "new"));
}

#[test]
fn two_mounts_agree_in_the_end_on_the_system_clock() {
    chaosfs::require_fuse!();
    let base = tempfile::tempdir().unwrap();
    let pair = chaosfs::dual_mount(base.path()).unwrap();
    for n in 0..20 {
        let (w, r) = (pair.writer(), pair.reader());
        // Whoever asks too early believes the answer for a while.
        let _ = exists(r, &format!("w{n}"));
        put(w, &format!("w{n}"), "from the writer");
        put(r, &format!("r{n}"), "from the reader");
    }
    let agreed = || {
        let names = list(pair.backing().path());
        names.len() == 40
            && [pair.writer(), pair.reader()].iter().all(|m| {
                list(m.path()) == names
                    && names.iter().all(|n| fs::read(m.join(n)).is_ok_and(|b| b.starts_with(b"from the ")))
            })
    };
    eventually("both mounts and the backing hold the same forty files", agreed);
    pair.unmount().unwrap();
}

#[test]
fn two_mounts_agree_after_every_delay_and_ttl_of_a_manual_clock() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual());
    assert!(!exists(&two.b, "f"));
    put(&two.a, "f", "text");
    assert!(!exists(&two.b, "f"));
    // B asked just before the name became visible, and believes that for its whole TTL.
    two.pass(ms(1500));
    assert!(exists(&two.b, "f"));
    two.pass(just_before(ms(1500)));
    assert_eq!(get(&two.b, "f"), "text");
    assert_eq!(list(two.b.path()), ["f"]);
}

#[test]
fn a_test_that_panics_leaves_no_mount_behind() {
    chaosfs::require_fuse!();
    let mut paths: Vec<PathBuf> = Vec::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
        let a = backing.mount(Options::new().client_id("a").patience(PATIENCE)).unwrap();
        let b = backing.mount(Options::new().client_id("b").patience(PATIENCE)).unwrap();
        paths = vec![a.path().to_owned(), b.path().to_owned(), backing.path().to_owned()];
        put(&a, "f", "unfinished business");
        let _held = fs::File::open(a.join("f")).unwrap();
        assert!(paths[..2].iter().all(|p| is_mounted(p)));
        // Not `panic!`, so that no backtrace of an intended panic is printed.
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
    for path in paths {
        assert!(!is_mounted(&path), "{} is still mounted", path.display());
        assert!(!path.exists(), "{} was made for the test and is still there", path.display());
    }
}
