//! Programs at once: each thread in a tree of its own must not notice the others, and of several in one directory nothing
//! may be lost and nobody may hang.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use chaosfs::{Clock, Knobs};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::draw::{Profile, program};
use super::place::Place;
use super::program::Step;
use super::{ALL, Ground, config, options, steps, strict};
use crate::ops::{alone, is_root};
use crate::support::list;

const THREADS: usize = 4;

/// Runs one program for each thread at the same time, each in its own directory on both sides.
fn apart(ground: &Ground, programs: &[Vec<Step>]) -> Result<(), String> {
    let start = Barrier::new(programs.len());
    thread::scope(|s| {
        let run = |(n, program): (usize, &Vec<Step>)| {
            let dir = format!("thread{n}");
            let inside = |root: &Path| root.join(&dir);
            let (through, bare) =
                (inside(ground.mounts[n % ground.mounts.len()].path()), inside(&ground.bare));
            fs::create_dir(&through).map_err(|e| e.to_string())?;
            fs::create_dir(&bare).map_err(|e| e.to_string())?;
            start.wait();
            let places = (Place::new(&[through]), Place::new(&[bare]));
            steps(places, &ground.backing, program).map_err(|e| format!("thread {n}: {e}\nof {program:#?}"))
        };
        let threads: Vec<_> = programs.iter().enumerate().map(|p| s.spawn(move || run(p))).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap())
    })
}

#[test]
fn threads_in_trees_of_their_own_do_not_notice_each_other() {
    chaosfs::require_fuse!();
    alone("fuzz::threads::threads_in_trees_of_their_own_do_not_notice_each_other", || {
        // Not shrunk: with threads, a shorter program is another one.
        // What is a hole depends on what the kernel has read ahead, here and there.
        let profile = Profile { users: is_root(), holes: false, steps: 150, ..ALL };
        let config = config(20);
        let cases = config.cases;
        let mut runner = TestRunner::new(config);
        for case in 0..cases {
            let programs: Vec<_> =
                (0..THREADS).map(|_| program(profile).new_tree(&mut runner).unwrap().current()).collect();
            let mounts: &[_] = if case % 2 == 0 { &[strict()] } else { &[strict(), strict()] };
            let ground = Ground::new(mounts, Clock::system());
            let done = apart(&ground, &programs).and_then(|()| ground.end());
            done.unwrap_or_else(|e| panic!("case {case}: {e}"));
        }
    });
}

/// One thread's work among others': makes files of its own in every way there is, moves them about, and removes some. The
/// names that it leaves.
fn crowd(dir: &Path, thread: usize, rounds: usize) -> BTreeSet<String> {
    let mut mine = BTreeSet::new();
    for n in 0..rounds {
        let name = format!("{thread}-{n}");
        let (file, text) = (dir.join(&name), name.repeat(20));
        let mut made = fs::File::create_new(&file).unwrap();
        made.write_all(text.as_bytes()).unwrap();
        drop(made);
        match n % 5 {
            0 => fs::hard_link(&file, dir.join(format!("{name}-link"))).unwrap(),
            1 => fs::rename(&file, dir.join(format!("{name}-link"))).unwrap(),
            2 => fs::remove_file(&file).unwrap(),
            // One name that everyone fights for: any of them may win, and whoever reads it reads the whole of one.
            3 => fs::rename(&file, dir.join("shared")).unwrap(),
            _ => match fs::create_dir(dir.join("lock")) {
                Ok(()) => fs::remove_dir(dir.join("lock")).unwrap(),
                Err(e) => assert_eq!(e.kind(), ErrorKind::AlreadyExists),
            },
        }
        if matches!(n % 5, 0 | 4) {
            mine.insert(name.clone());
        }
        if n % 5 < 2 {
            assert_eq!(fs::read_to_string(dir.join(format!("{name}-link"))).unwrap(), text);
            mine.insert(format!("{name}-link"));
        }
        if let Ok(shared) = fs::read_to_string(dir.join("shared")) {
            let (whose, _) = shared.split_at(shared.len() / 20);
            assert_eq!(shared, whose.repeat(20), "a mix of two files");
        }
        if n % 16 == 0 {
            let seen: BTreeSet<String> = list(dir).into_iter().collect();
            let lost: Vec<_> = mine.difference(&seen).collect();
            assert!(lost.is_empty(), "not in the listing: {lost:?}");
        }
    }
    mine
}

#[test]
fn of_many_threads_in_one_directory_no_file_is_lost() {
    chaosfs::require_fuse!();
    for knobs in [Knobs::strict(), Knobs::eventual()] {
        let ground = Ground::new(&[options(knobs), options(knobs)], Clock::system());
        let rounds = 20 * config(8).cases.min(200) as usize;
        let mut left: BTreeSet<String> = thread::scope(|s| {
            let work = |n: usize| {
                let dir: PathBuf = ground.mounts[n % ground.mounts.len()].path().to_owned();
                s.spawn(move || crowd(&dir, n, rounds))
            };
            let threads: Vec<_> = (0..THREADS).map(work).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        left.insert("shared".to_owned());
        ground.backing.settle().unwrap();
        let left: Vec<String> = left.into_iter().collect();
        assert_eq!(list(ground.backing.path()), left, "the directory itself");
        for m in &ground.mounts {
            assert_eq!(list(m.path()), left, "through a mount");
        }
        ground.mounts.into_iter().for_each(|m| m.unmount().unwrap());
    }
}
