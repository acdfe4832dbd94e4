//! Ending a FUSE connection whose mount cannot be unmounted, or lives on in the hands of its holders.
//!
//! The kernel gives a connection up when the last reference to its open `/dev/fuse` goes. The server thread that waits in
//! `read` has one, so it must be woken, which only a request does. Owns the ways to send one. Promises never to wait for
//! the answer on the caller's thread, and that everybody who waits for the connection is released once the reader comes
//! out. Never aborts anything but the connection of the device it is given.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::mounting::Mounted;
use super::{holders, server};

/// How long to look for somebody who is inside.
const LOOK: Duration = Duration::from_millis(100);

/// Gives up `device`, the last descriptor of a connection, and wakes its reader. On a server thread.
///
/// `inside` is anything in its mount, if the caller could still open it; `mounted` is that mount.
pub(crate) fn sever(device: OwnedFd, inside: Option<OwnedFd>, mounted: &Mounted) {
    let found = inside
        .or_else(|| mount_again(&device).ok())
        .or_else(|| holders::borrow(&mounted.path, mounted.st_dev(), LOOK));
    let Some(inside) = found else {
        // An ordinary user whose mount was hidden: ask the kernel, if its files are there to be asked.
        let abort = format!("/sys/fs/fuse/connections/{}/abort", rustix::fs::minor(mounted.st_dev()));
        if let Ok(abort) = rustix::fs::open(abort, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(&abort, b"1");
        }
        return;
    };
    // From here on only the reader holds the device ...
    drop(device);
    // ... and this request makes it let go, which is also the answer.
    drop(server::start(move || rustix::fs::fstatfs(&inside).is_ok()));
}

/// A mount of the file system behind `device` in no place at all, for the privileged: the kernel finds the one that is
/// there already.
fn mount_again(device: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let number = CString::new(device.as_raw_fd().to_string()).map_err(|_| rustix::io::Errno::INVAL)?;
    let id = |id: u32| CString::new(id.to_string()).map_err(|_| rustix::io::Errno::INVAL);
    fsconfig_set_string(&context, "fd", number)?;
    fsconfig_set_string(&context, "rootmode", "40000")?;
    fsconfig_set_string(&context, "user_id", id(rustix::process::geteuid().as_raw())?)?;
    fsconfig_set_string(&context, "group_id", id(rustix::process::getegid().as_raw())?)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
