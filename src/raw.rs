//! The few calls that Rust cannot check, in one place: all the `unsafe` of the crate.
//!
//! Owns nothing. Promises that each function is safe for its callers inside this crate, for the reason that stands with
//! its `unsafe` block. Never does anything that is not a single job of the C library or the kernel.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Gives the calling thread a descriptor table of its own that holds nothing but 0, 1 and 2.
///
/// To be called by a thread that owns no descriptor: what the table held is closed in it, and only in it.
#[allow(unsafe_code)]
pub(crate) fn private_fd_table() -> io::Result<()> {
    // SAFETY: plain integers. The table is unshared before anything is closed, so no descriptor of another thread is
    // touched, and the callers (the first lines of two thread bodies) own none themselves.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread a umask and a working directory of its own: none and the root. The mode of a new file is what
/// the program asked for, whatever the umask of this process is, and no directory is kept busy. False where that cannot be.
#[allow(unsafe_code)]
pub(crate) fn private_umask() -> bool {
    // SAFETY: plain integers; the thread stops sharing these two with the others.
    let done = unsafe { libc::unshare(libc::CLONE_FS) } == 0;
    if done {
        rustix::process::umask(rustix::fs::Mode::empty());
        let _ = rustix::process::chdir("/");
    }
    done
}

/// Runs `f` with every signal blocked in this thread, so that a thread it starts inherits that from its first moment.
///
/// Signals that an instruction raises stay open: blocked, they would kill the process without a word.
#[allow(unsafe_code)]
pub(crate) fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises `all` before it is read; `pthread_sigmask` writes `before`. It can only fail for a
    // wrong `how`, which SIG_BLOCK is not.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for raised in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS] {
            libc::sigdelset(all.as_mut_ptr(), raised);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = f();
    // SAFETY: `before` was written by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

/// Tells glibc to take large blocks from the kernel and give them back, always.
///
/// fuser asks for two zeroed buffers of 16 MiB a session. By default glibc learns from the first `free` of such a block
/// to keep them, and from then on clears 16 MiB by hand for each: 4 times the cost of a mount, and 5 MB more resident.
/// 8 MiB leaves the smaller blocks of the program that is being tested alone.
#[allow(unsafe_code)]
pub(crate) fn steady_malloc() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const THRESHOLD: libc::c_int = 8 << 20;
        // SAFETY: plain integers; glibc takes its own lock.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
    }
}

/// Moves the open file behind descriptor `number` to a new descriptor and leaves that of `stand_in` in its place.
///
/// The caller keeps whatever owns `number` alive across the call, and that owner never relies on which file it has.
#[allow(unsafe_code)]
pub(crate) fn swap_out(number: RawFd, stand_in: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; a new descriptor that nobody else knows is returned, or -1.
    let moved = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if moved < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `moved` was just made and is owned by nobody else.
    let moved = unsafe { OwnedFd::from_raw_fd(moved) };
    // SAFETY: both are open: `stand_in` by its type, `number` by the contract above. Its owner stays the owner, of
    // another open file.
    let done = unsafe { libc::dup3(stand_in.as_raw_fd(), number, libc::O_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(moved) }
}

/// Tells the kernel on the other side of an open `/dev/fuse` to believe no name that it was given until now
/// (`FUSE_NOTIFY_INC_EPOCH`, which fuser 0.18 lacks).
///
/// The caller keeps whatever owns `number` alive across the call.
#[allow(unsafe_code)]
pub(crate) fn forget_names(number: RawFd) -> io::Result<()> {
    const LENGTH: u32 = 16;
    const INC_EPOCH: u32 = 8;
    // The header of a message that answers nothing: length, code, and no request.
    let message = [LENGTH, INC_EPOCH, 0, 0];
    // SAFETY: the pointer and the length are those of one array; `number` is open by the contract above.
    let done = unsafe { libc::write(number, message.as_ptr().cast(), LENGTH as usize) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The requests by which `lsattr` and `chattr` ask for, and set, the flags of a file: in two ways each.
pub(crate) const FLAG_REQUESTS: [u32; 4] = [0x8008_6601, 0x4008_6602, 0x801c_581f, 0x401c_5820];

/// Does one of [`FLAG_REQUESTS`]; anything else is `ENOTTY`.
#[allow(unsafe_code)]
pub(crate) fn file_flags(file: BorrowedFd<'_>, request: u32, argument: &mut [u8; 28]) -> io::Result<()> {
    if !FLAG_REQUESTS.contains(&request) {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    // SAFETY: the kernel reads and writes at most 28 bytes (`struct fsxattr`) for these requests, and the argument has as many.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(request), argument.as_mut_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the calling thread touch files as `uid`, and nobody else: for the kernel this is a property of a thread.
#[allow(unsafe_code)]
pub(crate) fn set_fs_uid(uid: u32) {
    // SAFETY: plain integers. The raw call changes the calling thread only, which is what is wanted.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
}

/// The same for the group.
#[allow(unsafe_code)]
pub(crate) fn set_fs_gid(gid: u32) {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
}

/// Gives the calling thread, and nobody else, these supplementary groups. Ignored where the process may not.
#[allow(unsafe_code)]
pub(crate) fn set_groups(groups: &[u32]) {
    // SAFETY: the pointer and the length are those of one slice of `gid_t`. The raw call changes the calling thread only;
    // the C library's wrapper would change all of them.
    unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
}
