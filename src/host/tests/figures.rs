//! What it costs. The limits are generous; the figures are printed.

use std::time::{Duration, Instant};

use super::memory::{memory, mounted};
use super::{again, dir, session_threads, succeeds};
use crate::fuse::session::serve;
use crate::host::mounting::Spec;
use crate::host::{preflight, server};

/// The shortest and the middle one: the second is what one gets, the first what a busy machine cannot spoil.
fn best_and_median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[0], times[times.len() / 2])
}

fn times(n: usize, mut f: impl FnMut()) -> (Duration, Duration) {
    let one = |()| {
        let begin = Instant::now();
        f();
        begin.elapsed()
    };
    best_and_median(std::iter::repeat_n((), n).map(one).collect())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn measure() {
    // Runs in a process of its own, started by the tests below.
    if !super::is_part("measure") {
        return;
    }
    let begin = Instant::now();
    let (first, _remote) = mounted();
    println!("first mount           {:?}", begin.elapsed());
    std::fs::remove_dir({
        let path = first.mountpoint().to_owned();
        first.stop(Duration::from_secs(5)).unwrap();
        path
    })
    .unwrap();
    println!("call                  {:?}", times(2000, || server::call(|| ())));
    let path = dir();
    let backing = dir();
    println!("check_fuse            {:?}", times(200, || preflight::check_fuse().unwrap()));
    let check = || drop(preflight::check_mountpoint(&path, &backing).unwrap());
    println!("check_mountpoint      {:?}", times(200, check));
    let cycle = times(100, || {
        let serving = serve(memory().0, Spec::new(&path)).unwrap();
        std::fs::metadata(serving.mountpoint()).unwrap();
        serving.stop(Duration::from_secs(5)).unwrap();
    });
    println!("mount, stat, unmount  {cycle:?}");
    let mount = best_and_median(
        (0..50)
            .map(|_| {
                let begin = Instant::now();
                let serving = serve(memory().0, Spec::new(&path)).unwrap();
                let took = begin.elapsed();
                serving.stop(Duration::from_secs(5)).unwrap();
                took
            })
            .collect(),
    );
    println!("mount                 {mount:?}");
    let root = rustix::process::geteuid().is_root();
    assert!(cycle.0 < Duration::from_micros(if root { 1500 } else { 24_000 }), "{cycle:?}");
    std::fs::remove_dir(path).unwrap();
    std::fs::remove_dir(backing).unwrap();
    if root {
        many();
    }
}

fn many() {
    const MOUNTS: usize = 200;
    let before = resident_kib();
    let begin = Instant::now();
    let all: Vec<_> = (0..MOUNTS).map(|_| mounted()).collect();
    println!("{MOUNTS} mounts up in    {:?}, {} threads", begin.elapsed(), session_threads());
    let begin = Instant::now();
    for (serving, _) in &all {
        assert_eq!(std::fs::read(serving.mountpoint().join("plain")).unwrap(), b"hello");
    }
    let each = (resident_kib() - before) / MOUNTS as u64;
    println!("each used once in     {:?}, {each} KiB resident each", begin.elapsed());
    assert!(each < 1024, "{each} KiB");
    let begin = Instant::now();
    for (serving, _) in all {
        let path = serving.mountpoint().to_owned();
        serving.stop(Duration::from_secs(5)).unwrap();
        std::fs::remove_dir(path).unwrap();
    }
    println!("and down in {:?}", begin.elapsed());
}

#[test]
fn figures_as_this_user() {
    assert!(succeeds(again(&[], "figures::measure"), Duration::from_secs(60)));
}
