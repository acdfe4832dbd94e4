//! Every way a mount can end, in one child process, as every kind of user.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::memory::{Remote, memory, mounted};
use super::{again, dir, eventually, is_mounted, session_threads, succeeds, victims};
use crate::error::{Error, HeldBy};
use crate::fuse::session::{Serving, serve};
use crate::host::mounting::Spec;
use crate::host::server;

const PATIENCE: Duration = Duration::from_secs(5);
/// No ending may take this long, on a machine that runs other tests as well.
const BOUND: Duration = Duration::from_millis(1500);

/// Stops, and checks that it was quick and left nothing; what `stop` said.
fn stop(what: &str, serving: Serving) -> Result<(), Error> {
    let path = serving.mountpoint().to_owned();
    let begin = Instant::now();
    let result = serving.stop(PATIENCE);
    let took = begin.elapsed();
    let said = result.as_ref().err().map_or("ok".to_owned(), ToString::to_string);
    println!("{what:<22} {:>7.2} ms  {}", took.as_secs_f64() * 1e3, said.lines().next().unwrap_or_default());
    assert!(took < BOUND, "{what} took {took:?}");
    assert!(!is_mounted(&path), "{what} left {} mounted", path.display());
    assert!(eventually(PATIENCE, || session_threads() == 0), "{what} left threads");
    std::fs::remove_dir(&path).unwrap();
    result
}

fn holders(result: &Result<(), Error>) -> Vec<HeldBy> {
    match result {
        Err(Error::Busy { holders, .. }) => holders.iter().map(|holder| holder.by).collect(),
        other => panic!("not busy: {other:?}"),
    }
}

/// Reads `file` in a thread, which parks until it is answered or released.
fn park(serving: &Serving, remote: &Remote, file: &str) -> thread::JoinHandle<std::io::Result<Vec<u8>>> {
    let path = serving.mountpoint().join(file);
    let reader = thread::spawn(move || std::fs::read(path));
    remote.wait_for_one();
    reader
}

#[test]
fn scenarios() {
    // Runs in a process of its own, started by the tests below.
    if !super::is_part("scenarios") {
        return;
    }
    println!("uid {}", rustix::process::getuid().as_raw());
    idle_and_used();
    held();
    parked();
    failing();
    blocked();
    replaced();
    copied();
    together();
    victims::swept();
}

fn idle_and_used() {
    let (serving, _remote) = mounted();
    stop("idle", serving).unwrap();

    let (serving, _remote) = mounted();
    assert_eq!(std::fs::read(serving.mountpoint().join("plain")).unwrap(), b"hello");
    stop("used and closed", serving).unwrap();

    let (serving, _remote) = mounted();
    let path = serving.mountpoint().to_owned();
    drop(serving);
    assert!(!is_mounted(&path));
    std::fs::remove_dir(path).unwrap();
}

fn held() {
    let (serving, _remote) = mounted();
    let mut file = File::open(serving.mountpoint().join("plain")).unwrap();
    assert!(matches!(holders(&stop("file open", serving))[..], [HeldBy::Fd(_)]));
    assert!(file.read(&mut [0; 8]).is_err());
    drop(file);

    let (serving, _remote) = mounted();
    std::env::set_current_dir(serving.mountpoint()).unwrap();
    assert_eq!(holders(&stop("cwd inside", serving)), [HeldBy::Cwd]);
    std::env::set_current_dir("/").unwrap();

    let (serving, _remote) = mounted();
    let file = File::open(serving.mountpoint().join("plain")).unwrap();
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(file)).spawn().unwrap();
    let result = stop("child holds a file", serving);
    assert_eq!(holders(&result), [HeldBy::Fd(0)]);
    assert!(result.unwrap_err().to_string().contains(&format!("pid {} (sleep): fd 0", child.id())));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn parked() {
    for file in ["parks-open", "parks-read"] {
        let (serving, remote) = mounted();
        let reader = park(&serving, &remote, file);
        remote.answer_all();
        // A read is followed by another one, for the end of the file.
        if file == "parks-read" {
            remote.wait_for_one();
            remote.answer_all();
        }
        assert_eq!(reader.join().unwrap().unwrap(), b"hello");
        stop("parked, answered", serving).unwrap();

        let (serving, remote) = mounted();
        let reader = park(&serving, &remote, file);
        assert!(stop("parked, not answered", serving).unwrap_err().is_busy());
        assert!(reader.join().unwrap().is_err());
        // Answers that come after the end go nowhere.
        remote.answer_all();
    }
}

/// Does not even begin.
struct Refuses;

impl fuser::Filesystem for Refuses {
    fn init(&mut self, _: &fuser::Request, _: &mut fuser::KernelConfig) -> std::io::Result<()> {
        Err(std::io::Error::from_raw_os_error(libc::EPROTO))
    }
}

fn failing() {
    let (serving, _remote) = mounted();
    assert!(std::fs::read(serving.mountpoint().join("panics")).is_err());
    assert!(std::fs::read(serving.mountpoint().join("plain")).is_err());
    assert!(matches!(stop("handler panicked", serving), Err(Error::Unmount { .. })));

    // Replies that are still parked when the session dies must not keep later operations waiting.
    let (serving, remote) = mounted();
    let reader = park(&serving, &remote, "parks-read");
    assert!(std::fs::read(serving.mountpoint().join("panics")).is_err());
    assert!(reader.join().unwrap().is_err());
    assert!(matches!(stop("panicked with parked", serving), Err(Error::Unmount { .. })));
    remote.answer_all();

    let path = dir();
    assert!(matches!(serve(Refuses, Spec::new(&path)), Err(Error::Io { .. })));
    assert!(!is_mounted(&path));
    std::fs::remove_dir(&path).unwrap();
    let missing = serve(memory().0, Spec::new(&path)).unwrap_err();
    assert!(missing.is_bad_path(), "{missing}");
}

/// A handler that does not come back: the mount goes, its users are released, and only the thread stays.
fn blocked() {
    let (serving, remote) = mounted();
    let path = serving.mountpoint().to_owned();
    let reader = park(&serving, &remote, "blocks");
    let begin = Instant::now();
    let said = serving.stop(Duration::from_millis(300)).unwrap_err();
    assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
    assert!(said.to_string().contains("does not end"), "{said}");
    assert!(!is_mounted(&path));
    assert!(reader.join().unwrap().is_err());
    remote.answer_all();
    assert!(eventually(PATIENCE, || session_threads() == 0));
    std::fs::remove_dir(path).unwrap();
}

/// Another mount namespace took a copy of the mount along: it must not keep the session.
fn copied() {
    let (serving, _remote) = mounted();
    let new = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let mut command = Command::new("unshare");
    command.args([new, "sh", "-c", "echo there; exec sleep 60"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(child.stdout.as_mut().unwrap().read(&mut [0; 6]).unwrap(), 6);
    stop("copied elsewhere", serving).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Unmounts by hand what is mounted at `path`.
fn unmount_by_hand(path: &Path) {
    let path = path.to_owned();
    let gone = server::call(move || crate::host::unmount::discard_path(&path));
    assert!(gone);
}

fn replaced() {
    let (serving, _remote) = mounted();
    unmount_by_hand(serving.mountpoint());
    stop("unmounted before", serving).unwrap();

    // Unmounted lazily while a file is open: the session must end although the kernel keeps it.
    let (serving, _remote) = mounted();
    let file = File::open(serving.mountpoint().join("plain")).unwrap();
    unmount_by_hand(serving.mountpoint());
    stop("unmounted, file open", serving).unwrap();
    drop(file);

    // Another mount of ours in the same place, which very likely has the same mount id and device number.
    let (first, _remote) = mounted();
    let path = first.mountpoint().to_owned();
    unmount_by_hand(&path);
    let second = serve(memory().0, Spec::new(&path)).unwrap();
    first.stop(PATIENCE).unwrap();
    assert_eq!(std::fs::read(path.join("plain")).unwrap(), b"hello");
    stop("replaced by ours", second).unwrap();

    // Another mount on top of it.
    let (below, _remote) = mounted();
    let path = below.mountpoint().to_owned();
    let Ok(above) = serve(memory().0, Spec::new(&path)) else {
        // `fusermount3` does not mount on a mount of this type.
        return stop("not covered", below).unwrap();
    };
    let begin = Instant::now();
    let said = below.stop(PATIENCE).unwrap_err();
    assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
    assert!(said.to_string().contains("mounted over it"), "{said}");
    assert_eq!(std::fs::read(path.join("plain")).unwrap(), b"hello");
    above.stop(PATIENCE).unwrap();
    unmount_by_hand(&path);
    assert!(!is_mounted(&path) && eventually(PATIENCE, || session_threads() == 0));
    std::fs::remove_dir(path).unwrap();

    // Moved along with the directory above it.
    let parent = dir();
    std::fs::create_dir(parent.join("m")).unwrap();
    let serving = serve(memory().0, Spec::new(parent.join("m"))).unwrap();
    let moved = dir();
    std::fs::rename(&parent, &moved).unwrap();
    assert!(is_mounted(&moved.join("m")));
    serving.stop(PATIENCE).unwrap();
    assert!(!is_mounted(&moved.join("m")));
    std::fs::remove_dir_all(moved).unwrap();
}

fn together() {
    let guards: Vec<_> = (0..2).map(|_| mounted()).collect();
    let files: Vec<_> =
        guards.iter().map(|(serving, _)| File::open(serving.mountpoint().join("plain")).unwrap()).collect();
    let threads: Vec<_> = guards
        .into_iter()
        .map(|(serving, remote)| {
            thread::spawn(move || {
                let path = serving.mountpoint().to_owned();
                let begin = Instant::now();
                let result = serving.stop(PATIENCE);
                assert!(begin.elapsed() < BOUND);
                assert!(result.unwrap_err().is_busy());
                assert!(!is_mounted(&path));
                std::fs::remove_dir(path).unwrap();
                drop(remote);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(eventually(PATIENCE, || session_threads() == 0));
    drop(files);
}

/// A shell line that hides `/dev/fuse` behind a node of mode `mode`, in a mount namespace of its own, and becomes `user`.
pub(super) fn as_user(mode: &str, user: &str) -> Vec<String> {
    let script = format!(
        "set -e; node=/tmp/chaosfs-node-$$; mknod -m {mode} $node c 10 229; mount --bind $node /dev/fuse; rm $node; \
         exec setpriv --reuid={user} --regid={user} --clear-groups -- \"$@\""
    );
    ["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

pub(super) fn run(wrapper: &[String]) {
    assert!(succeeds(again(wrapper, "endings::scenarios"), Duration::from_secs(60)));
}

#[test]
fn every_ending_as_this_user() {
    run(&[]);
    let few_descriptors = ["sh", "-c", "ulimit -n 128; exec \"$@\"", "sh"];
    run(&few_descriptors.map(str::to_owned));
}

#[test]
fn every_ending_as_the_root_of_a_user_namespace() {
    run(&["unshare", "-Urm"].map(str::to_owned));
}
