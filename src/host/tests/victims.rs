//! Processes that serve their own mount and die: they must be gone at once, and their mounts with the next process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::memory::memory;
use super::{again, dir, ends_within, eventually, is_mounted};
use crate::fuse::session::serve;
use crate::host::mounting::Spec;
use crate::host::{server, sweep};

#[test]
fn victim() {
    // Dies, in a process of its own, started by the tests below.
    if !super::is_part("victim") {
        return;
    }
    // Free again after the mount: were `/dev/fuse` in this table, the file would come before it.
    let place = File::open("/dev/null").unwrap();
    let low = place.as_raw_fd();
    let (fs, remote) = memory();
    let serving = serve(fs, Spec::new(std::env::var("CHAOSFS_TEST_DIR").unwrap())).unwrap();
    let path = serving.mountpoint().to_owned();
    drop(place);
    let file = File::open(path.join("plain")).unwrap();
    assert_eq!(file.as_raw_fd(), low, "the lowest number that is free");
    let end = std::env::var("CHAOSFS_TEST_END").unwrap();
    let read = move || std::fs::read(path.join("parks-read"));
    if end == "itself" {
        // What a server thread must never do: the table that it keeps has `/dev/fuse` in it.
        let _ = server::start(read);
    } else {
        std::thread::spawn(read);
    }
    remote.wait_for_one();
    println!("ready");
    match end.as_str() {
        "exit" => std::process::exit(0),
        "abort" => {
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap();
            std::process::abort()
        }
        _ => std::thread::park(),
    }
    drop((serving, file));
}

pub(super) fn dies(wrapper: &[String], end: &str, signal: Option<Signal>) {
    let path = dir();
    let mut command = again(wrapper, "victims::victim");
    if !wrapper.is_empty() {
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    }
    let mut child = command.env("CHAOSFS_TEST_DIR", &path).env("CHAOSFS_TEST_END", end).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the victim did not get ready");
    let begin = Instant::now();
    if let Some(signal) = signal {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    assert!(ends_within(&mut child, Duration::from_secs(3)), "{end}: pid {} does not die", child.id());
    println!("{end:<6} gone after {:.2} ms", begin.elapsed().as_secs_f64() * 1e3);
    assert!(!std::path::Path::new(&format!("/proc/{}", child.id())).exists());
    if wrapper.is_empty() {
        // Other tests may sweep at the same time, so what counts is the result.
        sweep::sweep();
        assert!(eventually(Duration::from_secs(2), || !is_mounted(&path) && !path.exists()));
    } else {
        std::fs::remove_dir(&path).unwrap();
    }
}

/// Kills a process while one of its server threads waits for its own mount, and sweeps.
pub(super) fn let_go() {
    let path = dir();
    let mut command = again(&[], "victims::victim");
    let mut child = command.env("CHAOSFS_TEST_DIR", &path).env("CHAOSFS_TEST_END", "itself").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the victim did not get ready");
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert!(eventually(Duration::from_secs(20), || {
        sweep::sweep();
        !is_mounted(&path) && !path.exists()
    }));
    assert!(ends_within(&mut child, Duration::from_secs(3)), "pid {} does not die", child.id());
}

/// Kills a process that serves a mount, under the command `wrapper`, and sweeps.
pub(super) fn swept() {
    kill_and_sweep(&[]);
}

fn kill_and_sweep(wrapper: &[String]) {
    let path = dir();
    if !wrapper.is_empty() {
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    }
    let mut command = again(wrapper, "victims::victim");
    let mut child = command.env("CHAOSFS_TEST_DIR", &path).env("CHAOSFS_TEST_END", "kill").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the victim did not get ready");
    sweep::sweep();
    assert!(is_mounted(&path), "it is alive");
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert!(ends_within(&mut child, Duration::from_secs(3)));
    let begin = Instant::now();
    sweep::sweep();
    println!("{:<22} {:>7.2} ms", "swept", begin.elapsed().as_secs_f64() * 1e3);
    // Another test may have swept it first.
    assert!(eventually(Duration::from_secs(2), || !is_mounted(&path) && !path.exists()));
}

#[test]
fn sweeps_the_mount_of_a_user() {
    // Runs where a user may mount, started by the test below.
    if !super::is_part("sweeps_the_mount_of_a_user") {
        return;
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    kill_and_sweep(&user.map(str::to_owned));
}

#[test]
fn a_process_with_a_mount_can_always_end() {
    dies(&[], "exit", None);
    dies(&[], "abort", None);
    dies(&[], "term", Some(Signal::TERM));
    dies(&[], "kill", Some(Signal::KILL));
}

#[test]
fn the_sweep_leaves_the_living_alone() {
    let (serving, _remote) = super::memory::mounted();
    sweep::sweep();
    assert_eq!(std::fs::read(serving.mountpoint().join("plain")).unwrap(), b"hello");
    let path = serving.mountpoint().to_owned();
    serving.stop(Duration::from_secs(5)).unwrap();
    std::fs::remove_dir(path).unwrap();
}
