//! Guards and clocks in the midst of other people's work: nothing hangs, nothing is left, nobody is harmed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaosfs::{Backing, Clock, Fault, Knobs, Op, Options};

/// How long each of these is done; what it finds, it finds in the first moments or in a very long time.
const LONG: Duration = Duration::from_millis(1500);

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// One program's work: writes, renames, reads back, lists, removes. Errors are its own business; data is checked.
fn work(dir: &Path, name: &str) -> std::io::Result<()> {
    let (tmp, file) = (dir.join(format!("{name}.tmp")), dir.join(name));
    fs::write(&tmp, name.repeat(100))?;
    fs::rename(&tmp, &file)?;
    let back = fs::read_to_string(&file)?;
    assert!(back == name.repeat(100), "`{name}` came back as something else: {} bytes", back.len());
    fs::read_dir(dir)?.count();
    fs::remove_file(&file)
}

/// Tells the other threads to stop, also when this one fails: a scope waits for all of them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn mounts_come_and_go_under_programs_that_work_in_them() {
    let backing = Backing::temp().unwrap();
    let steady = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    // Below the mountpoint, so that nothing is written to the bare directory in the moment before that is removed.
    fs::create_dir(backing.path().join("d")).unwrap();
    let stop = AtomicBool::new(false);
    let mut seen: Vec<PathBuf> = Vec::new();
    thread::scope(|s| {
        for t in 0..2 {
            let (steady, stop) = (steady.path(), &stop);
            s.spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(steady, &format!("steady{t}-{rounds}")).expect("nobody takes this mount away");
                    rounds += 1;
                }
                assert!(rounds > 0, "it was not under way");
            });
        }
        let _stop = Stop(&stop);
        let deadline = Instant::now() + LONG;
        let mut n = 0;
        while Instant::now() < deadline || n < 6 {
            n += 1;
            let m = backing.mount(Options::new()).unwrap();
            let path = m.path().to_owned();
            let hang = (n % 3 == 0).then(|| m.inject(Fault::hang().on([Op::Write, Op::Rename])));
            // Threads that are at work, or hang, when the mount goes: they get errors, and end.
            let busy: Vec<_> = (0..2)
                .map(|t| {
                    let path = path.join("d");
                    s.spawn(move || (0..1000).try_for_each(|i| work(&path, &format!("gone{n}-{t}-{i}"))))
                })
                .collect();
            if hang.is_some() {
                assert!(m.wait_parked(1, Duration::from_secs(5)));
            }
            let started = Instant::now();
            drop(m);
            assert!(started.elapsed() < Duration::from_secs(5), "unmounting took {:?}", started.elapsed());
            for thread in busy {
                assert!(thread.join().unwrap().is_err(), "the mount went, and the work in it went on");
            }
            drop(hang);
            seen.push(path);
        }
    });
    seen.iter().for_each(|path| assert!(!is_mounted(path) && !path.exists()));
    steady.unmount().unwrap();
}

#[test]
fn a_manual_clock_is_moved_while_programs_work() {
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let mounts: Vec<_> = (0..3).map(|_| backing.mount(Options::new()).unwrap()).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        for (t, m) in mounts.iter().enumerate() {
            let (dir, stop) = (m.path(), &stop);
            s.spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(dir, &format!("f{t}-{rounds}")).expect("each has its own files");
                    rounds += 1;
                }
            });
        }
        for n in 0..2 {
            let (clock, stop) = (backing.clock(), &stop);
            s.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    clock.advance(Duration::from_millis(37 + n));
                }
            });
        }
        let _stop = Stop(&stop);
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            backing.history();
            backing.settle().unwrap();
            mounts[0].set_knobs(Knobs::strict()).unwrap();
            mounts[0].set_knobs(Knobs::eventual()).unwrap();
        }
    });
    backing.settle().unwrap();
    for m in &mounts {
        assert_eq!(fs::read_dir(m.path()).unwrap().count(), 0);
    }
    assert_eq!(backing.memory_held(), 0);
}

#[test]
fn one_clock_drives_two_backings() {
    let clock = Clock::manual();
    let open = || Backing::options().clock(clock.clone()).temp().unwrap();
    let (one, other) = (open(), open());
    let a = one.mount(Options::new()).unwrap();
    let b = other.mount(Options::new()).unwrap();
    let text = |backing: &Backing| fs::read_to_string(backing.path().join("f")).unwrap();
    let held: Vec<_> = [&a, &b]
        .iter()
        .map(|m| {
            let mut file = fs::File::create(m.join("f")).unwrap();
            std::io::Write::write_all(&mut file, b"late").unwrap();
            file
        })
        .collect();
    assert_eq!((text(&one), text(&other)), (String::new(), String::new()));
    clock.advance(Duration::from_millis(800));
    assert_eq!((text(&one), text(&other)), ("late".to_owned(), "late".to_owned()));
    drop(held);
}
