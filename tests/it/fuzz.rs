//! Random programs of system calls, run through mounts and on a bare directory: after each call both must say the same, and
//! at the end the directory under the mounts must be what the bare one is.
//!
//! By default the same programs in every run. `CHAOSFS_FUZZ_CASES=n` runs `n` new ones for each test, and
//! `PROPTEST_RNG_SEED` says which. A failure is shrunk, and the program that is left is printed.

mod draw;
mod limits;
mod place;
mod program;
mod regressions;
mod sys;
mod threads;
mod toggles;
mod tree;

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chaosfs::{Backing, Clock, Knobs, Mount, Options};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use super::ops::{alone, is_root};
use super::support::NFS;
use draw::{Profile, program};
use place::{Outcome, Place};
use program::{Do, Step};
use tree::{same, tree};

/// How every mount of the fuzz is made, whatever its knobs.
fn options(knobs: Knobs) -> Options {
    Options::new().knobs(knobs)
}

fn strict() -> Options {
    options(Knobs::strict())
}

/// Mounts of one directory, and a bare directory beside it.
struct Ground {
    mounts: Vec<Mount>,
    backing: Backing,
    bare: PathBuf,
    base: tempfile::TempDir,
}

impl Ground {
    fn new(mounts: &[Options], clock: Clock) -> Ground {
        let base = tempfile::tempdir().unwrap();
        let open = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        open(base.path());
        let place = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            open(&path);
            path
        };
        let (bare, dir) = (place("bare"), place("backing"));
        let backing = Backing::options().clock(clock).open(dir).unwrap();
        let mount = |(n, options): (usize, &Options)| {
            backing.mount(options.clone().at(place(&format!("mount{n}")))).unwrap()
        };
        let mounts = mounts.iter().enumerate().map(mount).collect();
        Ground { mounts, backing, bare, base }
    }

    fn places(&self) -> (Place, Place) {
        let roots: Vec<PathBuf> = self.mounts.iter().map(|m| m.path().to_owned()).collect();
        let (mut through, mut bare) = (Place::new(&roots), Place::new(std::slice::from_ref(&self.bare)));
        (through.several, bare.several) = (roots.len() > 1, roots.len() > 1);
        (through, bare)
    }

    /// Every mount shows what the bare directory has, and so does the directory under them; then all of it goes.
    fn end(self) -> Result<(), String> {
        let Ground { mounts, backing, bare, base } = self;
        open_up(&bare);
        open_up(mounts[0].path());
        let truth = tree(&bare);
        for m in &mounts {
            same("the mount (first) and the bare directory (second)", &tree(m.path()), &truth)?;
        }
        backing.settle().map_err(|e| e.to_string())?;
        same("the directory under it (first) and the bare one (second)", &tree(backing.path()), &truth)?;
        for m in mounts {
            m.unmount().map_err(|e| e.to_string())?;
        }
        drop(backing);
        base.close().map_err(|e| e.to_string())
    }
}

/// Makes every directory accessible to its owner, as root need not.
fn open_up(dir: &Path) {
    if is_root() {
        return;
    }
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            open_up(&entry.path());
        } else if kind.is_file() {
            fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o644)).unwrap();
        }
    }
}

/// How many steps have failed, and how many have not.
static STEPS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Does the steps on both sides; the first difference is the error.
fn steps((mut through, mut bare): (Place, Place), backing: &Backing, program: &[Step]) -> Result<(), String> {
    for (n, step) in program.iter().enumerate() {
        if let Do::Pass(ms) = step.what {
            backing.clock().advance(Duration::from_millis(ms));
        }
        compare((&mut through, &mut bare), n, step)?;
    }
    Ok(())
}

/// Does the `n`th step on both sides; a difference is the error.
fn compare((through, bare): (&mut Place, &mut Place), n: usize, step: &Step) -> Result<(), String> {
    let differ = |when: &str, seen: &dyn Debug, meant: &dyn Debug| {
        Err(format!(
            "{when} step {n}, {step:?}:\n  through the mount     {seen:?}\n  on the bare directory {meant:?}"
        ))
    };
    let (seen, meant) = (through.act(step), bare.act(step));
    STEPS[usize::from(seen.is_ok())].fetch_add(1, Ordering::Relaxed);
    if seen != meant && !refused_otherwise(step, &seen, &meant) {
        return differ("in", &seen, &meant);
    }
    let (seen, meant) = (through.glance(step), bare.glance(step));
    if seen != meant {
        return differ("after", &seen, &meant);
    }
    Ok(())
}

/// D19: of two reasons to refuse a call the kernel tells ours, which is the lack of permission, last. D20: a change of owner
/// to nobody is not refused.
fn refused_otherwise(step: &Step, seen: &Outcome, meant: &Outcome) -> bool {
    let nothing = matches!(step.what, Do::Chown(_, None, None));
    (step.user != 0 || !is_root())
        && (seen.is_err() || nothing)
        && matches!(meant, Err(libc::EACCES | libc::EPERM))
}

fn config(cases: u32) -> Config {
    let asked = Config::default();
    let long = std::env::var("CHAOSFS_FUZZ_CASES").ok().map(|n| n.parse().expect("a number of cases"));
    let fixed = long.is_none() && asked.rng_seed == RngSeed::Random;
    let rng_seed = if fixed { RngSeed::Fixed(0x5eed) } else { asked.rng_seed };
    let cases = long.unwrap_or(cases);
    Config {
        cases,
        rng_seed,
        failure_persistence: None,
        max_shrink_time: 120_000,
        max_shrink_iters: 20_000,
        ..asked
    }
}

/// Runs random programs of this profile, each in mounts of its own.
fn fuzz(cases: u32, profile: Profile, mounts: &[Options], clock: impl Fn() -> Clock) {
    let profile = Profile { users: profile.users && is_root(), ..profile };
    let test = |program: Vec<Step>| {
        let ground = Ground::new(mounts, clock());
        let done = steps(ground.places(), &ground.backing, &program).and_then(|()| ground.end());
        done.map_err(TestCaseError::fail)
    };
    if let Err(e) = TestRunner::new(config(cases)).run(&program(profile), test) {
        panic!("{e}");
    }
    let [failed, done] = [0, 1].map(|n| STEPS[n].load(Ordering::Relaxed));
    println!("{} steps, {done} of them without an error", failed + done);
    assert!(done * 6 > failed, "errors only are no test");
}

const ALL: Profile = Profile { clients: 1, users: true, maps: true, holes: true, time: false, steps: 120 };

#[test]
fn a_strict_mount_cannot_be_told_from_the_directory_under_it() {
    chaosfs::require_fuse!();
    alone("fuzz::a_strict_mount_cannot_be_told_from_the_directory_under_it", || {
        fuzz(90, ALL, &[strict()], Clock::system);
    });
}

#[test]
fn a_late_client_sees_its_own_work_at_once_and_loses_none_of_it() {
    chaosfs::require_fuse!();
    alone("fuzz::a_late_client_sees_its_own_work_at_once_and_loses_none_of_it", || {
        let profile = Profile { users: false, holes: false, time: true, ..ALL };
        for knobs in [Knobs::eventual(), NFS, Knobs::eventual().reorder(true).exclusive_fresh(false)] {
            fuzz(25, profile, &[options(knobs)], Clock::manual);
        }
    });
}

#[test]
fn strict_clients_that_take_turns_are_like_one_program_in_one_directory() {
    chaosfs::require_fuse!();
    alone("fuzz::strict_clients_that_take_turns_are_like_one_program_in_one_directory", || {
        let profile = Profile { clients: 3, maps: false, ..ALL };
        fuzz(50, profile, &[strict(), strict(), strict()], Clock::system);
    });
}
