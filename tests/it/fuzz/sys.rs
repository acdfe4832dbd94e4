//! The calls that neither the standard library nor rustix has as they are wanted here.
#![allow(
    unsafe_code,
    reason = "files in memory, identities of one thread, offsets that rustix does not let through"
)]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::ops::{Number, done};

/// Whether there is a fifo at a name, or at the end of the links there.
pub(super) fn is_fifo(base: BorrowedFd<'_>, path: &[u8]) -> bool {
    let stat = rustix::fs::statat(base, path, rustix::fs::AtFlags::empty());
    stat.is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

pub(super) fn is_file(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFREG)
}

/// After appending the kernel is where it believes the end to be, which another client may have moved.
pub(super) fn after_appending(file: &File) {
    let flags = rustix::fs::fcntl_getfl(file);
    if is_file(file) && flags.is_ok_and(|flags| flags.contains(rustix::fs::OFlags::APPEND)) {
        let _ = seek(file, libc::SEEK_END, 0);
    }
}

pub(super) fn is_dir(file: &File) -> bool {
    let mode = rustix::fs::fstat(file).map_or(0, |s| s.st_mode);
    mode & libc::S_IFMT == libc::S_IFDIR
}

pub(super) fn seek(file: &File, whence: i32, to: i64) -> Result<u64, i32> {
    // SAFETY: integers.
    done(unsafe { libc::lseek(file.as_raw_fd(), to, whence) }).map(|at| at as u64)
}

pub(super) fn truncate(path: &CStr, size: u64) -> Result<(), i32> {
    // SAFETY: a string with its end.
    done(unsafe { libc::truncate(path.as_ptr(), size as i64) }).map(drop)
}

/// Makes this thread touch files as another user, until it is dropped. The kernel does that for each thread.
pub(super) struct User(u32);

impl User {
    pub(super) fn new(id: u32) -> User {
        if id != 0 {
            become_user(id);
        }
        User(id)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.0 != 0 {
            become_user(0);
        }
    }
}

fn become_user(id: u32) {
    // SAFETY: integers; the raw calls change this thread only.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, id);
        libc::syscall(libc::SYS_setfsuid, id);
    }
}

/// A file in memory.
pub(super) struct Map {
    at: *mut libc::c_void,
    len: usize,
    write: bool,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Map {}

impl Map {
    pub(super) fn new(file: &File, len: usize, write: bool, private: bool) -> Result<Map, i32> {
        let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let how = if private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
        // SAFETY: at an address of the kernel's choice, so nothing is replaced.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, how, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(-1));
        }
        Ok(Map { at, len, write })
    }

    /// Reads what there is of this range, and then fills it; beyond the end of the file there is nothing.
    pub(super) fn touch(
        &mut self,
        file: &File,
        at: usize,
        len: usize,
        fill: Option<u8>,
    ) -> Result<Vec<u8>, i32> {
        let size = usize::try_from(rustix::fs::fstat(file).number()?.st_size).unwrap_or(0);
        let end = (at + len).min(size).min(self.len);
        if at >= end {
            return Ok(Vec::new());
        }
        // SAFETY: mapped in `new` until `drop`, and the file reaches this far: nobody else changes it meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.at.cast::<u8>().add(at), end - at) };
        let was = bytes.to_vec();
        if let Some(fill) = fill.filter(|_| self.write) {
            bytes.fill(fill);
            // SAFETY: the mapping of `new`.
            done(unsafe { libc::msync(self.at, self.len, libc::MS_SYNC) })?;
        }
        Ok(was)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nobody borrows any more.
        unsafe { libc::munmap(self.at, self.len) };
    }
}
