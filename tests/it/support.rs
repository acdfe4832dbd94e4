//! What the tests share: two clients on a manual clock, and short words for what programs do with files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chaosfs::{Backing, Clock, Knobs, Mount, Options};

/// The smallest step of a clock: a test that looks this long before and after a moment pins it exactly.
pub(crate) const NS: Duration = Duration::from_nanos(1);
/// How long a condition in real time may take; only a broken build needs it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A time that pins, together with `d`, the moment at which something turns.
pub(crate) fn just_before(d: Duration) -> Duration {
    d.checked_sub(NS).expect("a time after now")
}

/// An NFS client as `mount -t nfs` makes it, with round numbers: caches for 3 s, write-back after 30 s, close-to-open.
pub(crate) const NFS: Knobs = Knobs::strict().meta_ttl(secs(3)).write_delay(secs(30)).close_to_open(true);
/// The same mounted with `nocto`: opening asks nobody.
pub(crate) const NOCTO: Knobs = NFS.revalidate_on_open(false);

/// Two clients, `a` and `b`, of one new backing directory whose time only the test moves.
pub(crate) struct Two {
    pub(crate) a: Mount,
    pub(crate) b: Mount,
    // The last to go: a mount is never outlived by its backing.
    pub(crate) backing: Backing,
}

impl Two {
    pub(crate) fn new(knobs: Knobs) -> Two {
        Two::with(knobs, knobs)
    }

    pub(crate) fn with(a: Knobs, b: Knobs) -> Two {
        let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
        Two::on(backing, a, b)
    }

    pub(crate) fn on(backing: Backing, a: Knobs, b: Knobs) -> Two {
        let mount =
            |name: &str, knobs| backing.mount(Options::new().client_id(name).seed(1).knobs(knobs)).unwrap();
        Two { a: mount("a", a), b: mount("b", b), backing }
    }

    /// Puts a file there that both know nothing of yet.
    pub(crate) fn file(self, name: &str, text: &str) -> Two {
        fs::write(self.backing.path().join(name), text).unwrap();
        self
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.backing.clock().advance(time);
    }

    /// Lets time pass until just before `time` from now, calls `before`, and the same at the moment itself with `after`.
    pub(crate) fn turns_at(&self, time: Duration, before: impl FnOnce(), after: impl FnOnce()) {
        self.pass(just_before(time));
        before();
        self.pass(NS);
        after();
    }
}

// ---- what programs do ------------------------------------------------------------------------------------------------

/// Creates or replaces a file and closes it.
pub(crate) fn put(m: &Mount, name: &str, text: &str) {
    fs::write(m.join(name), text).unwrap();
}

/// Opens, reads, closes.
pub(crate) fn get(m: &Mount, name: &str) -> String {
    fs::read_to_string(m.join(name)).unwrap()
}

/// Whether `stat` finds the name. Any other error than "no such file" is a failure of the test.
pub(crate) fn exists(m: &Mount, name: &str) -> bool {
    match fs::symlink_metadata(m.join(name)) {
        Ok(_) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => panic!("stat of {name}: {e}"),
    }
}

/// The size as `stat` tells it, without opening.
pub(crate) fn size(m: &Mount, name: &str) -> u64 {
    fs::metadata(m.join(name)).unwrap().len()
}

/// A new listing, sorted.
pub(crate) fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn open(m: &Mount, name: &str) -> File {
    File::open(m.join(name)).unwrap()
}

/// Opens for reading and writing in place.
pub(crate) fn edit(m: &Mount, name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(m.join(name)).unwrap()
}

/// Opens for appending, creating the file when it is not seen.
pub(crate) fn append(m: &Mount, name: &str) -> File {
    OpenOptions::new().append(true).create(true).open(m.join(name)).unwrap()
}

/// Everything that an open file holds, read from its start.
pub(crate) fn reread(file: &File) -> String {
    let mut buf = vec![0; 64 << 10];
    let n = file.read_at(&mut buf, 0).unwrap();
    String::from_utf8(buf[..n].to_vec()).unwrap()
}

/// Creates a lock file that must be new.
pub(crate) fn create_new(path: &Path) -> io::Result<()> {
    File::create_new(path).map(drop)
}

/// The error number that a call failed with.
pub(crate) fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("this call must fail").raw_os_error().expect("an error of the system")
}

/// `F_OFD_SETLK` on the whole file.
#[allow(unsafe_code)] // rustix has no locks of open file descriptions
pub(crate) fn ofd_lock(file: &File, kind: i32) -> io::Result<()> {
    let lock =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the descriptor is open and the structure outlives the call, which only reads it.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// ---- real time and processes -----------------------------------------------------------------------------------------

/// Waits until `done` says so, at most [`PATIENCE`]. It looks again as soon as it can: the condition is cheap.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Whether anything is mounted at `path`, in any form.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// Runs one test of this binary in a child of its own, with these variables and no other of ours. The child is killed
/// when it takes longer than [`PATIENCE`].
pub(crate) fn rerun(test: &str, vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    for (name, _) in std::env::vars_os() {
        // Whether tests without FUSE are skipped is for all of them to know.
        if name.as_encoded_bytes().starts_with(b"CHAOSFS_") && name != "CHAOSFS_WITHOUT_FUSE" {
            command.env_remove(name);
        }
    }
    command.envs(vars.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    if let Ok(output) = told.recv_timeout(PATIENCE) {
        return output.unwrap();
    }
    // Nobody has waited for it, so the number is still that of the child.
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    panic!("the child that runs {test} did not end within {PATIENCE:?}");
}

/// Writes `text` at `at` into an open file, in one call.
pub(crate) fn write_at(file: &File, at: u64, text: &str) {
    file.write_all_at(text.as_bytes(), at).unwrap();
}

/// One `write` at the position of the file.
pub(crate) fn write(mut file: &File, text: &str) {
    assert_eq!(file.write(text.as_bytes()).unwrap(), text.len());
}

/// Waits until `thread` of this process is in the system call `number`.
pub(crate) fn in_call(thread: rustix::process::Pid, number: i64) {
    let call = format!("/proc/self/task/{}/syscall", thread.as_raw_nonzero());
    let number = format!("{number} ");
    eventually("the thread is in its system call", || {
        fs::read_to_string(&call).is_ok_and(|c| c.starts_with(&number))
    });
}
