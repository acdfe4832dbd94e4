//! The host layer on a real kernel: every way a mount or its process can end, as every kind of user.
//!
//! What counts threads and mounts of the whole process runs in a child process of its own (`scenarios`, `victim`), which
//! the tests here start.

#![allow(clippy::print_stdout, reason = "the measurements are for the reader of the test's output")]
#![allow(clippy::disallowed_methods, reason = "a child process learns its part from the environment")]

mod checks;
mod endings;
mod figures;
mod memory;
mod root;
mod victims;

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{mountinfo, server};

/// A fresh directory for a mount.
fn dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("chaosfs-host-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

fn is_mounted(path: &Path) -> bool {
    mountinfo::read().unwrap().iter().any(|entry| entry.mountpoint == path)
}

/// Waits for a condition that nobody announces.
fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        Condvar::new().wait_for(&mut Mutex::new(()).lock(), Duration::from_millis(1));
    }
    true
}

/// The threads that serve mounts.
fn session_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("chaosfs-session") || name.starts_with("fuser-")).count()
}

/// Names the part that a child process of a test plays.
const PART: &str = "CHAOSFS_TEST_PART";

/// Whether this process was started to play the part `name`. In all others a part is a test that has nothing to do.
fn is_part(name: &str) -> bool {
    std::env::var_os(PART).is_some_and(|part| part == name)
}

/// This test program again, playing one part, under the command `wrapper`.
fn again(wrapper: &[String], test: &str) -> Command {
    let me = if wrapper.is_empty() { std::env::current_exe().unwrap() } else { for_everybody().to_owned() };
    let test = format!("host::tests::{test}");
    let mut command = match wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(me);
            command
        }
        None => Command::new(me),
    };
    let part = test.rsplit("::").next().unwrap_or_default();
    command.env(PART, part).args(["--exact", &test, "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// This test program where another user can start it: a checkout in someone's home is closed to all others.
fn for_everybody() -> &'static Path {
    static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
        let me = std::env::current_exe().unwrap();
        let open = |dir: &Path| std::fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 != 0);
        if me.ancestors().skip(1).all(open) {
            return me;
        }
        let copy = std::env::temp_dir().join(format!("chaosfs-tests-{}", std::process::id()));
        std::fs::copy(&me, &copy).unwrap();
        copy
    });
    &PLACE
}

/// Waits for the end of a child; whether it came in time.
fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    let ended = poll(&mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap() > 0;
    if ended {
        child.wait().unwrap();
    }
    ended
}

/// Runs a child to its end and prints what it says; whether it succeeded within `limit`.
fn succeeds(mut command: Command, limit: Duration) -> bool {
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        stdout.read_to_string(&mut said).map(|_| said)
    });
    let ended = ends_within(&mut child, limit);
    if !ended {
        child.kill().unwrap();
    }
    println!("{}", reader.join().unwrap().unwrap());
    ended && child.wait().unwrap().success()
}

#[test]
fn a_call_runs_on_a_server_thread_and_its_panic_comes_back() {
    assert!(!server::on_server_thread());
    assert!(server::call(server::on_server_thread));
    assert_eq!(server::call(|| server::call(|| 7)), 7);
    let panic = std::panic::catch_unwind(|| server::call(|| panic!("as asked"))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"as asked"));
    assert!(server::call(|| true));
}

#[test]
fn a_call_never_waits_behind_a_busy_worker() {
    let gates: Vec<_> = (0..20)
        .map(|_| {
            let (open, gate) = std::sync::mpsc::channel::<()>();
            (open, server::start(move || gate.recv().is_ok()))
        })
        .collect();
    assert!(server::call(|| true));
    for (open, done) in gates {
        open.send(()).unwrap();
        assert_eq!(done.recv_timeout(Duration::from_secs(5)), Ok(true));
    }
}

#[test]
fn server_descriptors_are_high_and_mean_nothing_elsewhere() {
    use std::os::fd::AsRawFd;
    let (file, number) = server::call(|| {
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        (server::Home::new(std::sync::Arc::new(file)), number)
    });
    assert!(number >= 512, "{number}");
    assert!(!Path::new(&format!("/proc/self/fd/{number}")).exists());
    // A number of this table is a plug over there.
    let here = std::fs::File::open("/dev/null").unwrap();
    let number_here = here.as_raw_fd();
    let link = server::call(move || {
        let entry = format!("/proc/thread-self/fdinfo/{number_here}");
        std::fs::read_to_string(entry).unwrap()
    });
    assert!(link.contains("flags:\t012"), "O_PATH | O_CLOEXEC: {link}");
    drop(file);
}

#[test]
fn the_last_home_is_dropped_on_a_server_thread() {
    struct Tell(std::sync::mpsc::Sender<bool>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(server::on_server_thread());
        }
    }
    let (tx, rx) = std::sync::mpsc::channel();
    let home = server::Home::new(std::sync::Arc::new(Mutex::new(Tell(tx))));
    let others: Vec<_> = (0..8).map(|_| home.clone()).collect();
    let threads: Vec<_> = others.into_iter().map(|home| std::thread::spawn(move || drop(home))).collect();
    drop(home);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(true));
    assert!(rx.recv().is_err());
}

#[test]
fn deadlines_come_in_order_and_an_earlier_one_overtakes() {
    let (tx, rx) = std::sync::mpsc::channel();
    let now = Instant::now();
    for ms in [40_u64, 20, 30, 1] {
        let tx = tx.clone();
        let deadline = now + Duration::from_millis(ms);
        server::at(deadline, move || {
            let _ = tx.send((ms, Instant::now() >= deadline, server::on_server_thread()));
        });
    }
    let got: Vec<_> = rx.iter().take(4).collect();
    assert_eq!(got, [1, 20, 30, 40].map(|ms| (ms, true, true)));
}

#[test]
fn a_thread_can_be_waited_for() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let thread = server::spawn("chaosfs-test".to_owned(), move || {
        let _ = gate.recv();
    })
    .unwrap();
    assert!(!thread.wait(Duration::from_millis(5)));
    drop(open);
    assert!(thread.wait(Duration::from_secs(5)));
    assert!(thread.wait(Duration::ZERO));
}

#[test]
fn no_signal_handler_runs_on_a_server_thread() {
    let status = server::call(|| std::fs::read_to_string("/proc/thread-self/status").unwrap());
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
    let blocked = u64::from_str_radix(blocked, 16).unwrap();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGALRM, libc::SIGUSR1, libc::SIGPROF] {
        assert_ne!(blocked & 1 << (signal - 1), 0, "{signal}");
    }
    assert_eq!(blocked & 1 << (libc::SIGSEGV - 1), 0);
}
