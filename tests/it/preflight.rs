//! What a bad path gets: an error of its own that names it and says what to do, and nothing is left behind.

use std::path::Path;

use chaosfs::{Backing, BackingProblem, Clock, Error, Knobs, MountpointProblem, Options};

fn strict() -> Options {
    Options::new().knobs(Knobs::strict())
}

/// The error of mounting `backing` at `at`, which must name what is wrong and say what to do.
fn refused(backing: &Path, at: &Path) -> Error {
    let error = strict().at(at).mount(backing).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("\n  help: "), "no remedy in: {text}");
    assert!(error.is_bad_path() && !error.is_busy() && !error.is_fuse_unavailable(), "{text}");
    error
}

fn mountpoint_problem(backing: &Path, at: &Path) -> MountpointProblem {
    match refused(backing, at) {
        Error::Mountpoint { path, problem } => {
            assert_eq!(path, at);
            problem
        }
        other => panic!("not about the mountpoint: {other}"),
    }
}

fn backing_problem(backing: &Path, at: &Path) -> BackingProblem {
    match refused(backing, at) {
        Error::Backing { path, problem } => {
            assert_eq!(path, backing);
            problem
        }
        other => panic!("not about the backing: {other}"),
    }
}

#[test]
fn a_mountpoint_must_be_an_empty_directory() {
    let (backing, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = base.path().join("there");
    assert_eq!(mountpoint_problem(backing.path(), &at), MountpointProblem::Missing);
    std::fs::write(&at, "").unwrap();
    assert_eq!(mountpoint_problem(backing.path(), &at), MountpointProblem::NotADirectory);
    assert_eq!(mountpoint_problem(backing.path(), base.path()), MountpointProblem::NotEmpty);
}

#[test]
fn a_mountpoint_must_not_be_mounted_nor_overlap_the_backing() {
    let (backing, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = strict().at(at.path()).mount(backing.path()).unwrap();
    assert!(matches!(mountpoint_problem(backing.path(), at.path()), MountpointProblem::AlreadyMounted(_)));
    drop(first);
    std::fs::create_dir(backing.path().join("inside")).unwrap();
    for overlapping in [backing.path().join("inside"), backing.path().to_owned()] {
        let problem = mountpoint_problem(backing.path(), &overlapping);
        let full = problem == MountpointProblem::NotEmpty; // the backing itself now has an entry
        assert!(full || problem == MountpointProblem::OverlapsBacking, "{overlapping:?}: {problem}");
    }
}

#[test]
fn what_unwrap_prints_has_the_remedy_in_it() {
    let error = Backing::open("/no/such/directory").unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    assert!(format!("{error:?}").contains("\n  help: "));
}

#[test]
fn a_backing_must_be_a_directory() {
    let (base, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backing = base.path().join("there");
    assert_eq!(backing_problem(&backing, at.path()), BackingProblem::Missing);
    std::fs::write(&backing, "").unwrap();
    assert_eq!(backing_problem(&backing, at.path()), BackingProblem::NotADirectory);
}

#[test]
fn a_backing_has_one_clock_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual();
    let first = Backing::options().clock(clock.clone()).open(dir.path()).unwrap();
    let same = Backing::options().clock(clock).open(dir.path()).unwrap();
    assert_eq!(first.path(), same.path());
    assert!(Backing::open(dir.path()).unwrap().clock().is_manual(), "the one that is open is the one");
    let error = Backing::options().clock(Clock::manual()).open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Backing { problem: BackingProblem::AlreadyOpen, .. }), "{error}");
    drop((first, same));
    assert!(!Backing::open(dir.path()).unwrap().clock().is_manual(), "it is forgotten with its last handle");
}

#[test]
fn a_knob_that_cannot_have_its_value_is_named() {
    let backing = tempfile::tempdir().unwrap();
    let error = strict().drop_prob(1.5).mount(backing.path()).unwrap_err();
    assert!(error.to_string().starts_with("`drop_prob` cannot be `1.5`\n  help: "), "{error}");
    let m = strict().mount(backing.path()).unwrap();
    assert!(m.set_knobs(Knobs::strict().drop_prob(f64::NAN)).is_err());
    assert_eq!(m.knobs(), Knobs::strict());
    for never in ["", "/app.log", "./app.log", "a/../b"] {
        let error = m.try_inject(chaosfs::Fault::hang().path(never)).unwrap_err();
        assert!(error.to_string().contains("relative to the mount"), "{error}");
    }
    let error = m.try_inject(chaosfs::Fault::hang().path("a[")).unwrap_err();
    assert!(error.to_string().starts_with("`Fault::path` cannot be `a[`\n  help: "), "{error}");
}
