//! Whatever several threads did to several clients: after `settle` all of them see the one truth.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use chaosfs::{Backing, Clock, Knobs, Mount, Options};

use crate::support::{NFS, NOCTO, eventually, exists, ms, put};

/// A tree as text: for each path its kind, size, mode and links, and what is in it.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let mode = format!("{:o}", meta.mode());
            let what = if meta.is_dir() {
                left.push(path.clone());
                mode
            } else if meta.is_symlink() {
                format!("{mode} to {}", fs::read_link(&path).unwrap().display())
            } else {
                let bytes = fs::read(&path).unwrap();
                let zeros = bytes.split(|b| *b == 0).count() - 1;
                format!(
                    "{mode} {} links, {} bytes: {} read, {zeros} zeros",
                    meta.nlink(),
                    meta.len(),
                    bytes.len()
                )
            };
            all.insert(path.strip_prefix(root).unwrap().display().to_string(), what);
        }
    }
    all
}

/// Numbers that look random; the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn name(&mut self) -> String {
        let n = self.below(6);
        match self.below(3) {
            0 => format!("f{n}"),
            1 => format!("d{}/f{n}", self.below(3)),
            _ => format!("d{}", n % 3),
        }
    }
}

/// One thing that a program might do. It may well fail: others do the same to the same names.
fn step(m: &Mount, numbers: &mut Numbers, open: &mut Vec<fs::File>) {
    use std::io::{Read, Write};
    let (path, other) = (m.join(numbers.name()), m.join(numbers.name()));
    let some = "x".repeat(numbers.below(5000) as usize);
    let _ = match numbers.below(16) {
        0 | 1 => fs::write(&path, some),
        2 => fs::create_dir(&path),
        3 => fs::remove_file(&path),
        4 => fs::remove_dir_all(&path),
        5 | 6 => fs::rename(&path, &other),
        7 => fs::hard_link(&path, &other),
        8 => std::os::unix::fs::symlink(&some[..some.len().min(9)], &path),
        // The owner keeps all rights: who is not root could not look into it in the end.
        9 => fs::set_permissions(
            &path,
            std::os::unix::fs::PermissionsExt::from_mode(0o700 + numbers.below(64) as u32),
        ),
        10 => fs::read_dir(&path).map(|entries| entries.flatten().for_each(|e| drop(fs::metadata(e.path())))),
        11 => fs::OpenOptions::new().append(true).read(true).create(true).open(&path).map(|mut f| {
            let _ = f.write_all(some.as_bytes());
            open.push(f);
        }),
        12 => open.first().map_or(Ok(()), |f| f.set_len(numbers.below(9000))),
        13 if !open.is_empty() => open.swap_remove(0).sync_all(),
        14 => open.last().map_or(Ok(()), |mut f| f.read(&mut [0; 100]).map(drop)),
        _ => fs::read(&path).map(drop),
    };
}

/// Lets four threads on three clients work at once, settles, and compares what everyone sees.
fn work(knobs: &[Knobs; 3], seed: u64, clock: &Clock) {
    let backing = Backing::options().clock(clock.clone()).temp().unwrap();
    let mounts = (*knobs).map(|k| backing.mount(Options::new().seed(seed).knobs(k)).unwrap());
    for round in 0..3 {
        let kept: Vec<Vec<fs::File>> = thread::scope(|s| {
            let run = |t: usize| {
                let (mut numbers, mut open) = (Numbers(seed * 100 + round * 10 + t as u64), Vec::new());
                for n in 0..150 {
                    step(&mounts[t % 3], &mut numbers, &mut open);
                    if n % 10 == 0 && clock.is_manual() {
                        clock.advance(ms(numbers.below(400)));
                    }
                }
                open
            };
            let threads: Vec<_> = (0..4).map(|t| s.spawn(move || run(t))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        if round == 1 {
            backing.settle_now().unwrap();
        } else {
            backing.settle().unwrap();
        }
        let truth = tree(backing.path());
        for m in &mounts {
            let seen = tree(m.path());
            if let Some((path, what)) = truth.iter().find(|(path, what)| seen.get(*path) != Some(*what)) {
                let history = backing.history();
                // Everything under that name at the top, where directories are made and moved.
                let top = Path::new(path).iter().next().unwrap();
                let about = history
                    .iter()
                    .filter(|e| e.path().starts_with(top) || e.to().is_some_and(|to| to.starts_with(top)));
                let about: Vec<String> = about.map(ToString::to_string).collect();
                let last = about[about.len().saturating_sub(60)..].join("\n");
                panic!(
                    "seed {seed}, round {round}: `{path}` is {what}, {} sees {:?}\n{}\n{last}",
                    m.client_id(),
                    seen.get(path),
                    backing.explain(m.client_id(), path).unwrap(),
                );
            }
            assert_eq!(seen.len(), truth.len(), "seed {seed}, round {round}");
        }
        drop(kept);
    }
    // Says so if chaosfs itself has panicked.
    mounts.into_iter().for_each(|m| m.unmount().unwrap());
}

#[test]
fn after_settle_all_clients_see_the_truth_whatever_their_threads_did() {
    chaosfs::require_fuse!();
    let odd = Knobs::eventual().write_delay(ms(2000)).meta_ttl(ms(700)).reorder(true);
    for seed in 1..=4 {
        work(&[Knobs::eventual(), NFS, odd], seed, &Clock::manual());
        work(&[NOCTO, Knobs::strict(), NFS.rename_delay(ms(300))], seed, &Clock::manual());
    }
}

#[test]
fn after_settle_all_clients_see_the_truth_in_real_time_too() {
    chaosfs::require_fuse!();
    let quick = Knobs::eventual().meta_ttl(ms(30)).write_delay(ms(20)).rename_delay(ms(25));
    work(&[quick, quick.close_to_open(true), Knobs::strict()], 1, &Clock::system());
}

#[test]
fn in_real_time_unflushed_bytes_are_written_back_by_themselves() {
    chaosfs::require_fuse!();
    let backing = Backing::temp().unwrap();
    let m = backing.mount(Options::new().knobs(Knobs::strict().write_delay(ms(50)))).unwrap();
    put(&m, "f", "");
    assert!(exists(&m, "f"));
    let file = fs::OpenOptions::new().append(true).open(m.join("f")).unwrap();
    for n in 1..=3 {
        crate::support::write(&file, "text");
        let path = backing.path().join("f");
        eventually("the bytes are at the backing", || fs::metadata(&path).unwrap().len() == 4 * n);
    }
}
