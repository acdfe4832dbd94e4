//! `fusermount3`, the set-uid program that mounts and unmounts for ordinary users. (It opens `/dev/fuse` with the rights of
//! the user, so it is no help where the device is root's alone.)
//!
//! Owns the conversation: the program gets one end of a socket pair as its standard input, is told that number in
//! `_FUSE_COMMFD`, and sends the open `/dev/fuse` back over it. Promises that each run is given up on after a limit.
//! Never leaves a child unwaited for (one that hangs is killed and waited for by a worker), and never runs off a server
//! thread, whose table the descriptor belongs to.

use std::ffi::OsStr;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::server;
use crate::error::Error;

const PROGRAM: &str = "fusermount3";
/// A run takes 3 to 12 ms; a machine that is short of time gets this much.
const LIMIT: Duration = Duration::from_secs(10);
/// More of its words than this help nobody.
const WORDS: usize = 2048;

/// The helper on the `PATH`.
#[allow(clippy::disallowed_methods, reason = "the search path is the machine's, not an option of ours")]
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(executable)
}

/// Mounts at `mountpoint`; returns the open `/dev/fuse`.
pub(super) fn mount(mountpoint: &Path, options: &str) -> Result<OwnedFd, Error> {
    let refused = |said: String| {
        let help = advice(&said);
        Error::HelperRefused { path: mountpoint.to_owned(), said, help }
    };
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|e| refused(format!("no socket pair: {}", io::Error::from(e))))?;
    let deadline = Instant::now() + LIMIT;
    let mut command = Command::new(PROGRAM);
    command.args([OsStr::new("-o"), OsStr::new(options), OsStr::new("--")]).arg(mountpoint);
    // As standard input the socket is inherited without ever being inheritable by other children.
    command.env("_FUSE_COMMFD", "0").stdin(theirs);
    let child = spawn(&mut command)?;
    // The command holds the other end; without it, the end of the child is the end of the stream.
    drop(command);
    let device = if ready(ours.as_fd(), deadline) { receive(&ours) } else { None };
    let said = finish(child, deadline);
    match (device, said) {
        (Some(device), _) => Ok(device),
        (None, Ok(())) => Err(refused("it ended without handing over `/dev/fuse`".to_owned())),
        (None, Err(said)) => Err(refused(said)),
    }
}

/// Unmounts `mountpoint`; the error is what the helper said.
pub(super) fn unmount(mountpoint: &Path, lazily: bool) -> Result<(), String> {
    let mut command = Command::new(PROGRAM);
    command.arg(if lazily { "-uz" } else { "-u" }).arg("--").arg(mountpoint).stdin(Stdio::null());
    let child = spawn(&mut command).map_err(|e| e.to_string())?;
    drop(command);
    finish(child, Instant::now() + LIMIT)
}

fn spawn(command: &mut Command) -> Result<Child, Error> {
    // Its messages are matched below, so they come in English.
    command.env("LC_ALL", "C").stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::HelperMissing,
        _ => Error::Io { doing: "run", path: PROGRAM.into(), source },
    })
}

/// Waits until there is something to read from `fd`; whether there was before the deadline.
fn ready(fd: BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(n) => return n > 0,
            Err(_) => return false,
        }
    }
}

/// Takes the one descriptor that came over the socket.
fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// Waits for the end of the child; if it failed, the error is what it said.
fn finish(mut child: Child, deadline: Instant) -> Result<(), String> {
    let ended = Pid::from_raw(child.id() as i32)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        .is_none_or(|pidfd| ready(pidfd.as_fd(), deadline));
    if !ended {
        let _ = child.kill();
        drop(server::start(move || child.wait()));
        return Err(format!("it did not end within {} s", LIMIT.as_secs()));
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take()
        && ready(stderr.as_fd(), Instant::now())
    {
        let mut text = [0; WORDS];
        let length = rustix::io::read(&stderr, &mut text).unwrap_or(0);
        String::from_utf8_lossy(&text[..length]).trim().clone_into(&mut said);
    }
    match child.wait() {
        Ok(status) if !status.success() => Err(if said.is_empty() { status.to_string() } else { said }),
        // Someone else in this process waited for it (or nobody may): its words are all there is.
        Err(_) if !said.is_empty() => Err(said),
        _ => Ok(()),
    }
}

/// What to do about what the helper said.
fn advice(said: &str) -> &'static str {
    let table: [(&str, &str); 6] = [
        (
            "allow_other",
            "write the line `user_allow_other` to /etc/fuse.conf, or mount without `allow_other`",
        ),
        (
            "device not found",
            "run `modprobe fuse` as root; in a container, start it with `--device /dev/fuse`",
        ),
        ("too many FUSE", "unmount some, or raise `mount_max` in /etc/fuse.conf"),
        ("write access", "use a mountpoint that you own and may write to"),
        ("not owner", "use a mountpoint that you own"),
        (
            "Operation not permitted",
            "`fusermount3` must be set-uid root and allowed to mount (a container needs `--cap-add SYS_ADMIN`)",
        ),
    ];
    let known = table.iter().find(|(sign, _)| said.contains(sign));
    known.map_or("run the tests as root or under `unshare -Urm` to do without the helper", |(_, help)| *help)
}
