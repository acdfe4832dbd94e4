//! Processes that are killed in the midst of work, again and again: each is gone at once, its mount goes with the next one,
//! and what was acknowledged is in the directory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chaosfs::{Knobs, Options};

use super::in_full;
use crate::support::{eventually, is_mounted};

const BACKING: &str = "CHAOSFS_TEST_BACKING";
const LATE: &str = "CHAOSFS_TEST_LATE";
const THREADS: usize = 2;

/// Works and says what is done, until it is killed; only in the processes that the test below starts.
#[test]
fn worker() {
    let Ok(backing) = std::env::var(BACKING) else { return };
    let late = std::env::var(LATE).unwrap() == "late";
    let knobs = if late { Knobs::eventual() } else { Knobs::strict() };
    let m = Options::new().knobs(knobs).mount(backing).unwrap();
    println!("\nserving {}", m.path().display());
    thread::scope(|s| {
        for t in 0..THREADS {
            let dir = m.path();
            s.spawn(move || {
                let mut log =
                    File::options().append(true).create(true).open(dir.join(format!("log{t}"))).unwrap();
                for n in 1.. {
                    writeln!(log, "{n}").unwrap();
                    if late {
                        log.sync_data().unwrap();
                    }
                    let (tmp, file) = (dir.join(format!("tmp{t}")), dir.join(format!("file{t}")));
                    let mut made = File::create(&tmp).unwrap();
                    made.write_all(format!("{n:0>1000}").as_bytes()).unwrap();
                    made.sync_all().unwrap();
                    drop(made);
                    fs::rename(tmp, file).unwrap();
                    println!("done {t} {n}");
                }
            });
        }
    });
}

/// A generator of numbers that is its state.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn start(backing: &Path, late: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "abuse::deaths::worker", "--nocapture"]);
    command.env(BACKING, backing).env(LATE, if late { "late" } else { "strict" });
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills a worker after it has said so many things; its mountpoint, and what each of its threads has done at least.
fn kill_after(child: &mut Child, lines: u64) -> (PathBuf, [u64; THREADS]) {
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mountpoint: PathBuf =
        said.find_map(|l| l.strip_prefix("serving ").map(PathBuf::from)).expect("it serves");
    // Others are at work in the mount when it dies. They get errors, and are not held.
    let stranger = thread::spawn({
        let mountpoint = mountpoint.clone();
        move || while fs::write(mountpoint.join("stranger"), "x").is_ok() {}
    });
    let mut done = [0; THREADS];
    let mut note = |line: &str| {
        let mut words = line.strip_prefix("done ").unwrap_or_default().split(' ');
        if let (Some(Ok(t)), Some(Ok(n))) =
            (words.next().map(str::parse::<usize>), words.next().map(str::parse))
        {
            done[t] = n;
        }
    };
    said.by_ref().take(lines as usize).for_each(|line| note(&line));
    child.kill().unwrap();
    // What it still said before it died is done as well.
    said.for_each(|line| note(&line));
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the process {} cannot be killed", child.id());
        thread::yield_now();
    }
    eventually("who was at work in the mount goes on", || stranger.is_finished());
    stranger.join().unwrap();
    (mountpoint, done)
}

#[test]
fn a_process_is_killed_at_any_moment_and_what_it_had_acknowledged_is_there() {
    chaosfs::require_fuse!();
    let deaths: u64 = if in_full() { 1000 } else { 30 };
    let mut seed = 0x5eed;
    let (mut mounts, mut most) = (Vec::new(), Duration::ZERO);
    for death in 0..deaths {
        let dir = tempfile::tempdir().unwrap();
        let lines = next(&mut seed) % 60;
        let mut child = start(dir.path(), death % 2 == 1);
        let (mountpoint, done) = kill_after(&mut child, lines);
        let begin = Instant::now();
        for (t, done) in done.into_iter().enumerate() {
            let log = fs::read_to_string(dir.path().join(format!("log{t}"))).unwrap_or_default();
            let whole: Vec<&str> = log.split_inclusive('\n').filter(|l| l.ends_with('\n')).collect();
            assert!(whole.len() as u64 >= done, "death {death}: {} lines of {done}", whole.len());
            assert!(
                whole.iter().enumerate().all(|(n, l)| l.trim_end().parse() == Ok(n + 1)),
                "death {death}: {log}"
            );
            if done > 0 {
                let file = fs::read_to_string(dir.path().join(format!("file{t}"))).unwrap();
                let kept: u64 = file.parse().unwrap();
                assert!(
                    file.len() == 1000 && (done..=done + 1).contains(&kept),
                    "death {death}: {kept}, not {done}"
                );
            }
        }
        most = most.max(begin.elapsed());
        mounts.push(mountpoint);
    }
    // The next process that mounts takes all of them away; of its own mount nobody is left to do that.
    let dir = tempfile::tempdir().unwrap();
    let (last, _) = kill_after(&mut start(dir.path(), false), 1);
    let left: Vec<_> = mounts.iter().filter(|m| is_mounted(m) || m.exists()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&last).output();
    let _ = fs::remove_dir(last);
}
