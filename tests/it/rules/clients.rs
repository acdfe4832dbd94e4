//! Clients: their names, their knobs, and that all of them share one truth.

use std::fs;

use chaosfs::{Backing, Clock, Error, Knobs, Options};

use crate::support::{NFS, Two, edit, errno, exists, get, ms, open, put, reread, secs, size, write_at};

#[test]
fn the_default_is_eventual_with_the_classic_numbers() {
    let classic = Knobs::strict()
        .meta_ttl(ms(1500))
        .write_delay(ms(800))
        .rename_delay(ms(1200))
        .drop_prob(0.0)
        .close_to_open(false)
        .exclusive_fresh(true)
        .reorder(false);
    assert_eq!(Knobs::default(), classic);
    assert_eq!(Knobs::default(), Knobs::eventual());
    assert_eq!(
        Knobs::eventual().meta_ttl(ms(7)),
        Knobs::eventual().file_ttl(ms(7)).dir_ttl(ms(7)).negative_ttl(ms(7))
    );
}

#[test]
fn a_mount_without_options_has_the_default_knobs_and_each_knob_can_be_set_by_name() {
    chaosfs::require_fuse!();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(chaosfs::mount(dir.path()).unwrap().knobs(), Knobs::default());
    let named = Options::new()
        .meta_ttl(ms(9))
        .file_ttl(ms(1))
        .dir_ttl(ms(2))
        .negative_ttl(ms(3))
        .write_delay(ms(4))
        .rename_delay(ms(5))
        .drop_prob(0.25)
        .close_to_open(true)
        .revalidate_on_open(false)
        .exclusive_fresh(false)
        .reorder(true);
    let knobs = Knobs::strict()
        .file_ttl(ms(1))
        .dir_ttl(ms(2))
        .negative_ttl(ms(3))
        .write_delay(ms(4))
        .rename_delay(ms(5))
        .drop_prob(0.25)
        .publish_on_close(true)
        .revalidate_on_open(false)
        .exclusive_fresh(false)
        .reorder(true);
    assert_eq!(named.mount(dir.path()).unwrap().knobs(), knobs);
}

#[test]
fn the_classic_pair_has_the_classic_numbers() {
    chaosfs::require_fuse!();
    let base = tempfile::tempdir().unwrap();
    let pair = chaosfs::dual_mount(base.path()).unwrap();
    let numbers = |ttl, write, rename| {
        Knobs::eventual().meta_ttl(ms(ttl)).write_delay(ms(write)).rename_delay(ms(rename))
    };
    assert_eq!(pair.writer().knobs(), numbers(500, 100, 100));
    assert_eq!(pair.reader().knobs(), numbers(2000, 800, 500));
    assert_eq!((pair.writer().client_id(), pair.reader().client_id()), ("writer", "reader"));
    assert_eq!(pair.reader().path(), fs::canonicalize(base.path()).unwrap().join("reader"));
    pair.unmount().unwrap();
    let pair = Options::new().knobs(NFS).dual_mount(base.path()).unwrap();
    assert_eq!([pair.writer().knobs(), pair.reader().knobs()], [NFS, NFS]);
}

// ---- knobs at run time -----------------------------------------------------------------------------------------------

#[test]
fn knobs_change_at_run_time_for_what_starts_afterwards() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict()).file("f", "old");
    two.b.set_knobs(Knobs::strict().meta_ttl(secs(5))).unwrap();
    assert_eq!(two.b.knobs(), Knobs::strict().meta_ttl(secs(5)));
    assert_eq!(two.a.knobs(), Knobs::strict(), "each client has its own");
    assert_eq!(size(&two.b, "f"), 3);
    put(&two.a, "f", "longer");
    two.pass(secs(4));
    assert_eq!(size(&two.b, "f"), 3);
    // A shorter TTL holds for what is in the cache too: it is asked when the cache is looked at.
    two.b.set_knobs(Knobs::strict().meta_ttl(secs(4))).unwrap();
    assert_eq!(size(&two.b, "f"), 6);
}

#[test]
fn what_is_due_already_stays_due_when_the_knobs_change() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(10)).rename_delay(secs(10)).publish_on_close(false))
        .file("f", "old");
    let file = edit(&two.a, "f");
    write_at(&file, 0, "new");
    put(&two.a, "g", "");
    two.a.set_knobs(Knobs::strict()).unwrap();
    two.turns_at(
        secs(10),
        || assert_eq!((get(&two.b, "f"), exists(&two.b, "g")), ("old".into(), false)),
        || assert_eq!((get(&two.b, "f"), exists(&two.b, "g")), ("new".into(), true)),
    );
    put(&two.a, "h", "at once");
    assert_eq!(get(&two.b, "h"), "at once");
    drop(file);
}

#[test]
fn turning_the_delay_off_sends_the_older_bytes_first() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().write_delay(secs(10))).file("f", "....");
    let file = edit(&two.a, "f");
    write_at(&file, 0, "11");
    two.a.set_knobs(Knobs::strict()).unwrap();
    write_at(&file, 1, "22");
    assert_eq!((get(&two.a, "f"), get(&two.b, "f")), ("122.".into(), "122.".into()));
}

#[test]
fn a_knob_that_cannot_be_is_refused_and_changes_nothing() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    for p in [-0.1, 1.1, f64::NAN] {
        let bad = Knobs::strict().drop_prob(p);
        let error = two.a.set_knobs(bad).unwrap_err();
        assert!(matches!(&error, Error::InvalidValue { name, .. } if name == "drop_prob"), "{error}");
        assert_eq!(two.a.knobs(), NFS);
        let error = two.backing.mount(Options::new().knobs(bad)).unwrap_err();
        assert!(matches!(error, Error::InvalidValue { .. }), "{error}");
    }
}

// ---- names of clients ------------------------------------------------------------------------------------------------

#[test]
fn a_client_has_the_name_that_it_was_given_or_the_first_that_is_free() {
    chaosfs::require_fuse!();
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let first = backing.mount(Options::new()).unwrap();
    let given = backing.mount(Options::new().client_id("c2")).unwrap();
    let third = backing.mount(Options::new()).unwrap();
    assert_eq!([&first, &given, &third].map(chaosfs::Mount::client_id), ["c1", "c2", "c3"]);
    drop(given);
    assert_eq!(backing.mount(Options::new()).unwrap().client_id(), "c2");
}

#[test]
fn a_name_that_is_taken_is_refused_until_its_client_is_gone() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    let taken = two.backing.mount(Options::new().client_id("b")).unwrap_err();
    assert!(
        matches!(&taken, Error::InvalidValue { name, value, .. } if name == "client_id" && value == "b"),
        "{taken}"
    );
    let Two { a: _a, b, backing } = two;
    b.unmount().unwrap();
    assert_eq!(backing.mount(Options::new().client_id("b")).unwrap().client_id(), "b");
    // Names are the backing's own: another may have the same.
    let other = Backing::temp().unwrap();
    assert_eq!(other.mount(Options::new().client_id("a")).unwrap().client_id(), "a");
}

#[test]
fn the_history_says_whose_deed_each_was() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS);
    put(&two.a, "f", "from a");
    put(&two.b, "g", "from b");
    let history = two.backing.history();
    let created: Vec<(String, String)> = history
        .iter()
        .filter(|e| e.deed() == chaosfs::Deed::Op(chaosfs::Op::Create))
        .map(|e| (e.client().to_owned(), e.path().display().to_string()))
        .collect();
    assert_eq!(created, [("a".into(), "f".into()), ("b".into(), "g".into())]);
}

// ---- one truth -------------------------------------------------------------------------------------------------------

#[test]
fn two_mounts_of_one_directory_share_one_backing() {
    chaosfs::require_fuse!();
    let dir = tempfile::tempdir().unwrap();
    let one = chaosfs::mount(dir.path()).unwrap();
    // By another path of the same directory.
    let two = chaosfs::mount(dir.path().join("../").join(dir.path().file_name().unwrap())).unwrap();
    assert_eq!((one.client_id(), two.client_id()), ("c1", "c2"));
    put(&one, "f", "text");
    assert!(!exists(&two, "f"), "the delay of one is seen by the other");
    assert_eq!(errno(fs::File::create_new(two.join("f"))), libc::EEXIST);
    let (a, b) = (edit(&one, "f"), edit(&two, "f"));
    rustix::fs::flock(&a, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    rustix::fs::flock(&b, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap_err();
    let histories =
        [one.backing().history(), two.backing().history(), Backing::open(dir.path()).unwrap().history()];
    assert_eq!(histories[0], histories[1]);
    assert_eq!(histories[1], histories[2]);
    two.backing().settle_now().unwrap();
    assert_eq!(reread(&open(&one, "f")), "text");
}

#[test]
fn a_backing_that_is_open_is_not_opened_again_with_another_clock() {
    chaosfs::require_fuse!();
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual();
    let first = Backing::options().clock(clock.clone()).open(dir.path()).unwrap();
    let again = Backing::options().clock(clock).open(dir.path()).unwrap();
    again.clock().advance(secs(1));
    assert_eq!(first.clock().now().elapsed(), secs(1));
    let error = Backing::options().clock(Clock::manual()).open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Backing { .. }), "{error}");
    drop((first, again));
    Backing::options().clock(Clock::manual()).open(dir.path()).unwrap();
}

#[test]
fn the_nfs_presets_differ_in_what_opening_and_looking_believe() {
    chaosfs::require_fuse!();
    // For each: what b sees of a file that a has rewritten and closed: by stat, and by opening it.
    for (knobs, by_stat, by_open) in [
        (Knobs::nfs(), 3, "new text"),
        (Knobs::nocto(), 3, "old"),
        (Knobs::actimeo(secs(1)), 3, "new text"),
        (Knobs::actimeo(secs(0)), 8, "new text"),
        (Knobs::noac(), 8, "new text"),
    ] {
        let two = Two::new(knobs);
        put(&two.a, "f", "old");
        assert_eq!(size(&two.b, "f"), 3, "{knobs:?}");
        put(&two.a, "f", "new text");
        assert_eq!(size(&two.b, "f"), by_stat, "{knobs:?}");
        assert_eq!(fs::read_to_string(two.b.join("f")).unwrap(), by_open, "{knobs:?}");
    }
    // Bytes that nobody closes are seen after half a minute, and with `noac` at once.
    for (knobs, later) in [(Knobs::nfs(), "old"), (Knobs::actimeo(secs(0)), "old"), (Knobs::noac(), "new")] {
        let two = Two::new(knobs);
        put(&two.a, "f", "old");
        let file = edit(&two.a, "f");
        write_at(&file, 0, "new");
        assert_eq!(fs::read_to_string(two.b.join("f")).unwrap(), later, "{knobs:?}");
        two.pass(secs(30));
        assert_eq!(fs::read_to_string(two.b.join("f")).unwrap(), "new", "{knobs:?}");
    }
}
