//! A process that serves its own mount can always die, and what it leaves is cleaned up by the next.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chaosfs::{Backing, Fault, Knobs, Op, Options};
use rustix::fs::FlockOperation;

/// Tells a child process how it is to end.
const ENDING: &str = "CHAOSFS_TEST_ENDING";
const BACKING: &str = "CHAOSFS_TEST_BACKING";

/// Plays the process that dies: serves a mount with a file open below the descriptors of FUSE, and an operation parked.
/// Only in the processes that the tests below start; among the tests it has nothing to do.
#[test]
fn victim() {
    let Ok(ending) = std::env::var(ENDING) else { return };
    let backing = std::env::var(BACKING).unwrap();
    let place = File::open("/dev/null").unwrap();
    let low = place.as_raw_fd();
    let m = Options::new().knobs(Knobs::strict()).mount(backing).unwrap();
    drop(place);
    let file = File::open(m.join("f")).unwrap();
    assert_eq!(file.as_raw_fd(), low);
    let _hang = m.inject(Fault::hang().on(Op::Read));
    let path = m.join("f");
    std::thread::spawn(move || std::fs::read(path));
    assert!(m.wait_parked(1, Duration::from_secs(5)));
    println!("\nserving {}", m.path().display());
    match ending.as_str() {
        "exit" => std::process::exit(7),
        _ => std::thread::park_timeout(Duration::from_secs(60)),
    }
}

/// Starts a victim and waits until it serves; it and its mountpoint.
fn start(ending: &str, backing: &std::path::Path) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::victim", "--nocapture"]).env(ENDING, ending).env(BACKING, backing);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("serving ").map(str::to_owned));
    let mountpoint = said.next().expect("it serves");
    (child, mountpoint)
}

fn is_mounted(path: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

/// Whether the process has ended, all of its threads included, within a few seconds.
fn ends(child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_process_dies_at_once_however_it_ends_and_its_mount_is_swept_by_the_next() {
    let backing = tempfile::tempdir().unwrap();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let mut left = Vec::new();
    for ending in ["exit", "TERM", "KILL", "INT"] {
        let (mut child, mountpoint) = start(ending, backing.path());
        if ending != "exit" {
            let signal = format!("-{ending}");
            assert!(
                Command::new("kill").args([&signal, &child.id().to_string()]).status().unwrap().success()
            );
        }
        assert!(ends(&mut child), "it does not die of {ending}");
        left.push(mountpoint);
    }
    // The next process that mounts takes them away; this one may have swept before.
    let (mut next, mountpoint) = start("exit", backing.path());
    assert!(ends(&mut next));
    let dead = left.iter().filter(|path| is_mounted(path)).count();
    assert_eq!(dead, 0, "dead mounts are left");
    left.iter().for_each(|path| assert!(!std::path::Path::new(path).exists(), "{path} is left"));
    // Of the last one the sweep of this process is too late; it is ours to clean up.
    let _ = Command::new("umount").args(["-l", &mountpoint]).status();
    let _ = std::fs::remove_dir(&mountpoint);
    assert_eq!(std::fs::read(backing.path().join("f")).unwrap(), b"x");
}

/// Plays a process in which one client asks for locks that another one has, all the time.
#[test]
fn refused() {
    let Ok(backing) = std::env::var(REFUSED) else { return };
    let backing = Backing::open(backing).unwrap();
    let [a, b] = [(); 2].map(|()| backing.mount(Options::new().knobs(Knobs::strict())).unwrap());
    let held = File::open(a.join("f")).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    let ask = || {
        let asking = File::open(b.join("f")).unwrap();
        move || rustix::fs::flock(&asking, FlockOperation::NonBlockingLockExclusive).is_err()
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let refused = ask();
            scope.spawn(move || while refused() {});
        }
        let refused = ask();
        assert!((0..100).all(|_| refused()));
        println!("\nserving {} {}", a.path().display(), b.path().display());
    });
}

const REFUSED: &str = "CHAOSFS_TEST_REFUSED";

#[test]
fn a_process_dies_while_one_of_its_clients_asks_for_locks_of_another() {
    let backing = tempfile::tempdir().unwrap();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    for _ in 0..12 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::refused", "--nocapture"]).env(REFUSED, backing.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said =
            lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("serving ").map(str::to_owned));
        let mounts = said.next().expect("it serves");
        child.kill().unwrap();
        let died = ends(&mut child);
        // What a process that cannot die is freed by as well.
        let _ = Command::new("umount").arg("-f").args(mounts.split(' ')).stderr(Stdio::null()).status();
        mounts.split(' ').for_each(|path| drop(std::fs::remove_dir(path)));
        assert!(died, "it waits for a server that is gone");
    }
}
