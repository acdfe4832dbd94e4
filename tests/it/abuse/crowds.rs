//! Very many mounts, very many files, very large files.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use chaosfs::{Backing, Clock, Knobs, Mount, Options};
use rustix::fs::{CWD, FileType, Mode, SeekFrom};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::in_full;
use crate::ops::alone;
use crate::support::{eventually, list};

const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;
const MOUNTS: usize = 200;
const THREADS: usize = 8;

fn strict() -> Options {
    Options::new().knobs(Knobs::strict())
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn two_hundred_mounts_are_alive_and_at_work_at_the_same_time() {
    chaosfs::require_fuse!();
    let backing = Backing::temp().unwrap();
    let mounts: Vec<Mount> = (0..MOUNTS).map(|_| backing.mount(strict()).unwrap()).collect();
    thread::scope(|s| {
        for t in 0..THREADS {
            let mine: Vec<PathBuf> =
                mounts.iter().skip(t).step_by(THREADS).map(|m| m.path().to_owned()).collect();
            s.spawn(move || {
                for round in 0..4 {
                    for (n, m) in mine.iter().enumerate() {
                        let name = format!("{t}-{n}-{round}");
                        fs::write(m.join("tmp-".to_owned() + &name), &name).unwrap();
                        fs::rename(m.join("tmp-".to_owned() + &name), m.join(&name)).unwrap();
                        // Through the next one's eyes.
                        let next = &mine[(n + 1) % mine.len()];
                        assert_eq!(fs::read_to_string(next.join(&name)).unwrap(), name);
                    }
                }
            });
        }
    });
    let all = list(backing.path());
    assert_eq!(all.len(), MOUNTS * 4);
    assert!(mounts.iter().step_by(20).all(|m| list(m.path()) == all));
    thread::scope(|s| mounts.into_iter().for_each(|m| drop(s.spawn(|| m.unmount().unwrap()))));
}

#[test]
fn very_many_files_need_no_more_than_a_thousand_descriptors() {
    chaosfs::require_fuse!();
    let files = if in_full() { 100_000 } else { 20_000 };
    alone("abuse::crowds::very_many_files_need_no_more_than_a_thousand_descriptors", || {
        setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(1024) }).unwrap();
        let backing = Backing::temp().unwrap();
        let m = backing.mount(strict()).unwrap();
        let open: Vec<File> = (0..400).map(|n| File::create(m.join(format!("open{n}"))).unwrap()).collect();
        let dir = |n: usize| m.join(format!("d{}", n % 1500));
        let name = |n: usize| dir(n).join(n.to_string());
        (0..1500).for_each(|n| fs::create_dir(dir(n)).unwrap());
        for n in 0..files {
            rustix::fs::mknodat(CWD, name(n), FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        let listed: usize = (0..1500).map(|n| fs::read_dir(dir(n)).unwrap().count()).sum();
        assert_eq!(listed, files);
        (0..files).for_each(|n| assert_eq!(fs::metadata(name(n)).unwrap().len(), 0));
        open.iter().for_each(|file| file.write_all_at(b"still here", 0).unwrap());
        (0..files).for_each(|n| fs::remove_file(name(n)).unwrap());
        (0..1500).for_each(|n| fs::remove_dir(dir(n)).unwrap());
        assert_eq!(list(backing.path()).len(), open.len());
        drop(open);
        m.unmount().unwrap();
    });
}

#[test]
fn a_sparse_file_of_ten_gibibytes_takes_no_memory() {
    chaosfs::require_fuse!();
    alone("abuse::crowds::a_sparse_file_of_ten_gibibytes_takes_no_memory", || {
        for knobs in [Knobs::strict(), Knobs::eventual()] {
            let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
            let (m, other) =
                (backing.mount(strict().knobs(knobs)).unwrap(), backing.mount(strict()).unwrap());
            let before = resident();
            let file = File::options().read(true).write(true).create_new(true).open(m.join("f")).unwrap();
            file.set_len(10 * GIB).unwrap();
            file.write_all_at(b"the end", 10 * GIB).unwrap();
            file.write_all_at(b"in the midst", 5 * GIB).unwrap();
            file.sync_all().unwrap();
            let mut piece = vec![1; MIB];
            file.read_exact_at(&mut piece, 3 * GIB).unwrap();
            assert!(piece.iter().all(|b| *b == 0));
            backing.settle().unwrap();
            let seen = File::open(other.join("f")).unwrap();
            assert_eq!(seen.metadata().unwrap().len(), 10 * GIB + 7);
            let seek = |to| rustix::fs::seek(seen.as_fd(), to).unwrap();
            assert_eq!(seek(SeekFrom::Data(0)), 5 * GIB);
            assert!(seek(SeekFrom::Hole(5 * GIB)) <= 5 * GIB + MIB as u64);
            assert!(seek(SeekFrom::Data(6 * GIB)) >= 10 * GIB - MIB as u64);
            // What is cut off is a past that is larger than every budget.
            file.set_len(5 * GIB).unwrap();
            let grown = resident().saturating_sub(before);
            assert!(grown < 64 * MIB, "{grown} bytes more in memory");
            drop((file, seen));
            [m, other].into_iter().for_each(|m| m.unmount().unwrap());
        }
    });
}

#[test]
fn a_write_of_many_times_the_budget_stays_within_the_budget() {
    chaosfs::require_fuse!();
    let (total, budget) = if in_full() { (10 * 1024 * MIB, 64 * MIB) } else { (128 * MIB, 8 * MIB) };
    alone("abuse::crowds::a_write_of_many_times_the_budget_stays_within_the_budget", || {
        let options = || Backing::options().clock(Clock::manual()).memory_budget(budget);
        for knobs in [Knobs::strict(), Knobs::eventual()] {
            let backing = options().temp().unwrap();
            let late = strict().knobs(Knobs::strict().meta_ttl(Duration::from_secs(9)));
            let (m, other) = (backing.mount(strict().knobs(knobs)).unwrap(), backing.mount(late).unwrap());
            fs::write(backing.path().join("f"), "").unwrap();
            let file = File::options().write(true).open(m.join("f")).unwrap();
            let _believed = fs::metadata(other.join("f")).unwrap();
            let piece: Vec<u8> = (0..MIB).map(|n| (n % 251) as u8).collect();
            let (before, mut most, mut held) = (resident(), 0, 0);
            for n in 0..total / MIB {
                file.write_all_at(&piece, (n * MIB) as u64).unwrap();
                most = most.max(resident().saturating_sub(before));
                held = held.max(backing.memory_held());
            }
            println!("{total} bytes written, budget {budget}: {most} more in memory, {held} held");
            assert!(held <= budget, "{held} bytes held");
            assert!(most < 2 * budget + 48 * MIB, "{most} bytes more in memory");
            file.sync_all().unwrap();
            drop(file);
            backing.settle().unwrap();
            let (back, mut got) = (File::open(other.join("f")).unwrap(), vec![0; MIB]);
            for n in (0..total / MIB).step_by(7) {
                back.read_exact_at(&mut got, (n * MIB) as u64).unwrap();
                assert!(got == piece, "MiB {n}");
            }
            drop(back);
            [m, other].into_iter().for_each(|m| m.unmount().unwrap());
        }
    });
}

#[test]
fn clients_come_and_go_and_leave_no_thread_and_no_memory_behind() {
    chaosfs::require_fuse!();
    alone("abuse::crowds::clients_come_and_go_and_leave_no_thread_and_no_memory_behind", || {
        let backing = Backing::temp().unwrap();
        let steady = backing.mount(strict()).unwrap();
        let cycle = |n: usize| {
            let m = backing.mount(Options::new()).unwrap();
            fs::write(m.join(format!("f{}", n % 10)), "x").unwrap();
            let open = File::open(m.join(format!("f{}", n % 10))).unwrap();
            if n.is_multiple_of(2) { drop(open) } else { drop((m, open)) }
        };
        let threads = || fs::read_dir("/proc/self/task").unwrap().count();
        (0..50).for_each(cycle);
        let (before, running) = (resident(), threads());
        (0..if in_full() { 5000 } else { 200 }).for_each(cycle);
        let grown = resident().saturating_sub(before);
        assert!(grown < 32 * MIB, "{grown} bytes more in memory");
        eventually("their threads are gone", || threads() <= running + 2);
        assert_eq!(list(steady.path()).len(), 10);
        steady.unmount().unwrap();
    });
}
