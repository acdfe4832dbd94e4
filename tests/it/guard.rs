//! The guards: a mount always goes away, whatever still happens on it, and says who was in the way.

use std::fs::File;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chaosfs::{Errno, Error, Fault, HeldBy, Knobs, Mount, Op, Options};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn strict() -> Options {
    Options::new().knobs(Knobs::strict())
}

fn is_mounted(path: &std::path::Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// The session threads of this process. Others come and go with jobs.
fn sessions() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    names.filter(|n| n.starts_with("chaosfs-session") || n.starts_with("fuser-")).count()
}

/// Runs `end` and checks that it is done within a moment and leaves no mount.
fn goes_away<T>(m: Mount, end: impl FnOnce(Mount) -> T) -> T {
    let path = m.path().to_owned();
    let started = Instant::now();
    let result = end(m);
    // The patience; what is asked for here takes milliseconds on a machine that has time.
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    assert!(!is_mounted(&path));
    assert!(!path.exists(), "the mountpoint that was made for it is left");
    result
}

#[test]
fn an_idle_mount_goes_away_on_unmount_and_on_drop() {
    let backing = dir();
    goes_away(strict().mount(backing.path()).unwrap(), Mount::unmount).unwrap();
    goes_away(strict().mount(backing.path()).unwrap(), drop);
}

#[test]
fn an_open_file_does_not_hold_a_mount_and_the_error_names_pid_program_fd_and_path() {
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let m = strict().mount(backing.path()).unwrap();
    let path = m.path().to_owned();
    let mut file = File::open(m.join("f")).unwrap();
    let error = goes_away(m, Mount::unmount).unwrap_err();
    assert!(error.is_busy());
    let Error::Busy { holders, .. } = &error else { panic!("{error}") };
    let me = holders.iter().find(|h| h.pid == std::process::id()).expect("this process holds it");
    assert!(matches!(me.by, HeldBy::Fd(_)));
    assert_eq!(me.path, path.join("f"));
    assert!(error.to_string().contains("help:"), "{error}");
    assert!(file.read_to_string(&mut String::new()).is_err(), "nobody serves it any more");
}

#[test]
fn a_child_with_a_working_directory_and_a_file_inside_is_named_and_does_not_hold_the_mount() {
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let m = strict().mount(backing.path()).unwrap();
    // `read` waits for a line that comes when the pipe closes.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 7<f; echo ready; read line"]).current_dir(m.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let error = goes_away(m, Mount::unmount).unwrap_err();
    let Error::Busy { holders, .. } = &error else { panic!("{error}") };
    let theirs: Vec<_> = holders.iter().filter(|h| h.pid == child.id()).collect();
    assert!(theirs.iter().any(|h| h.by == HeldBy::Cwd), "{error}");
    assert!(theirs.iter().any(|h| h.by == HeldBy::Fd(7)), "{error}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn parked_operations_are_answered_when_their_mount_goes() {
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let m = strict().mount(backing.path()).unwrap();
    let hang = m.inject(Fault::hang().on(Op::Read).path("f"));
    let file = m.join("f");
    let reader = std::thread::spawn(move || std::fs::read(file));
    assert!(m.wait_parked(1, Duration::from_secs(5)));
    assert_eq!((m.parked(), hang.hits()), (1, 1));
    goes_away(m, |m| {
        drop(m);
        let error = reader.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO.raw()));
    });
}

#[test]
fn a_released_operation_is_executed_and_what_is_not_meant_never_waits() {
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    std::fs::write(backing.path().join("g"), "y").unwrap();
    let m = strict().mount(backing.path()).unwrap();
    let hang = m.inject(Fault::hang().on(Op::Open).path("f"));
    let file = m.join("f");
    let reader = std::thread::spawn(move || std::fs::read_to_string(file));
    assert!(m.wait_parked(1, Duration::from_secs(5)));
    assert_eq!(std::fs::read_to_string(m.join("g")).unwrap(), "y");
    let error = m.backing().settle().unwrap_err();
    assert!(error.to_string().contains("hanging"), "{error}");
    hang.release();
    assert_eq!(reader.join().unwrap().unwrap(), "x");
    hang.remove();
    assert_eq!(std::fs::read_to_string(m.join("f")).unwrap(), "x");
}

#[test]
fn nothing_hangs_longer_than_its_limit() {
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let m = strict().patience_parked(Duration::from_millis(50)).mount(backing.path()).unwrap();
    let _hang = m.inject(Fault::hang().on(Op::Open));
    let error = std::fs::read(m.join("f")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EIO.raw()));
    assert!(m.backing().history().to_string().contains("open \"f\" -> EIO (hung until it was given up)"));
}

#[test]
fn a_program_that_is_killed_while_its_operation_hangs_dies() {
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let m = strict().mount(backing.path()).unwrap();
    let _hang = m.inject(Fault::hang().on(Op::Read));
    let mut child = Command::new("cat").arg(m.join("f")).stdout(Stdio::null()).spawn().unwrap();
    assert!(m.wait_parked(1, Duration::from_secs(5)));
    child.kill().unwrap();
    let started = Instant::now();
    child.wait().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_panic_in_a_handler_is_an_error_for_the_program_and_told_at_the_end() {
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let m = strict().client_id("victim").mount(backing.path()).unwrap();
    let bug = m.inject(Fault::panic().on(Op::Open));
    assert_eq!(std::fs::read(m.join("f")).unwrap_err().raw_os_error(), Some(Errno::EIO.raw()));
    drop(bug);
    assert_eq!(std::fs::read(m.join("f")).unwrap(), b"x", "the mount goes on");
    let error = goes_away(m, Mount::unmount).unwrap_err();
    assert!(
        matches!(&error, Error::HandlerPanicked { client, op, .. } if client == "victim" && op == "open"),
        "{error}"
    );
}

#[test]
fn a_panicking_test_leaves_no_mount() {
    let backing = dir();
    let mut path = None;
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let m = strict().mount(backing.path()).unwrap();
        path = Some(m.path().to_owned());
        let _file = File::create(m.join("open")).unwrap();
        panic!("the test fails");
    }));
    assert!(panicked.is_err());
    assert!(!is_mounted(&path.unwrap()));
}

#[test]
fn guards_that_drop_at_the_same_time_do_not_wait_for_each_other() {
    let backing = dir();
    let mounts: Vec<_> = (0..8).map(|_| strict().mount(backing.path()).unwrap()).collect();
    let threads: Vec<_> =
        mounts.into_iter().map(|m| std::thread::spawn(move || goes_away(m, Mount::unmount))).collect();
    threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
}

#[test]
fn a_guard_leaves_alone_what_was_mounted_in_its_place_and_does_not_mind_that_its_own_is_gone() {
    let (backing, at) = (dir(), dir());
    let first = strict().at(at.path()).mount(backing.path()).unwrap();
    assert!(!first.wait_unmounted(Duration::ZERO));
    let gone = Command::new("umount").arg(at.path()).status().unwrap();
    assert!(gone.success());
    assert!(first.wait_unmounted(Duration::from_secs(5)), "the guard notices");
    let second = strict().at(at.path()).mount(backing.path()).unwrap();
    let _ = first.unmount();
    assert!(
        is_mounted(second.path()),
        "the second was mounted in the same place and is not the first's to take away"
    );
    std::fs::write(second.join("f"), "x").unwrap();
    second.unmount().unwrap();
}

#[test]
fn a_mount_that_is_dropped_after_its_backing_was_deleted_goes_away() {
    let backing = dir();
    let m = strict().mount(backing.path()).unwrap();
    drop(backing);
    assert!(std::fs::write(m.join("f"), "x").is_err());
    goes_away(m, drop);
}

#[test]
fn two_hundred_mounts_fit_into_little_memory_and_leave_no_thread() {
    const MOUNTS: u64 = 200;
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let backing = dir();
    std::fs::write(backing.path().join("f"), "x").unwrap();
    let before = resident();
    let mounts: Vec<_> = (0..MOUNTS).map(|_| strict().mount(backing.path()).unwrap()).collect();
    for m in &mounts {
        assert_eq!(std::fs::read(m.join("f")).unwrap(), b"x");
    }
    let each = resident().saturating_sub(before) / MOUNTS;
    assert!(each < 4 << 20, "{each} bytes a mount");
    drop(mounts);
    // Other tests have mounts of their own in the meantime; two hundred are not among them.
    assert!(sessions() < MOUNTS as usize, "{} session threads are left", sessions());
}
