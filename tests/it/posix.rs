//! What programs rarely ask of a file system: answered as on the bare directory, or, where FUSE or its library does not hand
//! it on, in the way that CONFORMANCE.md says.

use std::fs::{self, File, OpenOptions};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Barrier, mpsc};

use chaosfs::Knobs;
use rustix::event::epoll;
use rustix::fs::{
    AtFlags, CWD, IFlags, StatxFlags, Timespec, Timestamps, inotify, ioctl_ficlone, ioctl_getflags,
    ioctl_setflags, statx, utimensat,
};

use crate::ops::locks::{Api, set};
use crate::ops::mapping::Mapping;
use crate::ops::{LIMIT, Number, Twin, done, fallocate, read_write};
use crate::support::{NFS, Two, edit, put, size, write_at};

const WRITE: i16 = libc::F_WRLCK as i16;

// ---- locks -----------------------------------------------------------------------------------------------------------

/// Each of `n` owners of locks holds one and waits for that of the next, all in a circle; how it ends for each. Where the
/// file of a lock is, and the byte, depends on who asks for which.
fn crossing(n: usize, place: impl Fn(usize, usize) -> (PathBuf, i64)) -> Vec<Result<(), i32>> {
    let (tell, told) = mpsc::channel();
    let all_hold = Arc::new(Barrier::new(n));
    for i in 0..n {
        let (mine, next) = (place(i, i), place(i, (i + 1) % n));
        let (tell, all_hold) = (tell.clone(), all_hold.clone());
        // A thread with descriptors of its own counts as a process. Not waited for: it would be for ever if this fails.
        std::thread::spawn(move || {
            own_descriptors();
            let (held, wanted) = (read_write(&mine.0), read_write(&next.0));
            set(&held, Api::Posix, WRITE, mine.1, 1).unwrap();
            all_hold.wait();
            tell.send(set(&wanted, Api::PosixWait, WRITE, next.1, 1)).unwrap();
        });
    }
    let mut ends: Vec<_> =
        (0..n).map(|_| told.recv_timeout(LIMIT).expect("one is told, so the others go on")).collect();
    ends.sort();
    ends
}

#[allow(unsafe_code, reason = "neither the standard library nor rustix unshares without a warning")]
fn own_descriptors() {
    // SAFETY: an integer; this thread owns no descriptors yet.
    done(unsafe { libc::unshare(libc::CLONE_FILES) }).unwrap();
}

#[test]
fn of_those_who_wait_for_each_other_one_is_told() {
    let t = Twin::new();
    let told = |n: usize| std::iter::repeat_n(Ok(()), n - 1).chain([Err(libc::EDEADLK)]).collect::<Vec<_>>();
    assert_eq!(t.both(|d| crossing(2, |_, lock| (d.join("f"), lock as i64))), told(2));
    assert_eq!(t.both(|d| crossing(5, |_, lock| (d.join("f"), lock as i64))), told(5));
    assert_eq!(t.both(|d| crossing(3, |_, lock| (d.join(format!("f{lock}")), 0))), told(3));
    // Also of two hosts.
    let two = Two::new(NFS).file("f", "").file("g", "");
    let ends = crossing(2, |host, lock| ([&two.a, &two.b][host].join(["f", "g"][lock]), 0));
    assert_eq!(ends, told(2));
}

#[test]
#[allow(unsafe_code, reason = "neither the standard library nor rustix has leases")]
fn a_lease_binds_its_own_mount_only() {
    let two = Two::new(Knobs::strict()).file("f", "text");
    let leased = edit(&two.a, "f");
    // SAFETY: integers.
    let lease = |kind: i32| done(unsafe { libc::fcntl(leased.as_raw_fd(), libc::F_SETLEASE, kind) });
    assert_eq!(lease(libc::F_WRLCK), Ok(0));
    let open =
        |m: &chaosfs::Mount| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(m.join("f"));
    assert!(open(&two.b).is_ok());
    // The signal that asks for the lease back ends a process that does not expect it.
    assert_eq!(lease(libc::F_UNLCK), Ok(0));
}

// ---- attributes ------------------------------------------------------------------------------------------------------

#[test]
fn the_flags_that_chattr_sets_are_those_of_the_backing() {
    let t = Twin::new();
    t.same(|d| {
        fs::write(d.join("f"), "text").unwrap();
        fs::create_dir(d.join("d")).unwrap();
        ["f", "d"].map(|name| {
            let file = File::open(d.join(name)).unwrap();
            let before = ioctl_getflags(&file).number();
            let with = |flag| {
                ioctl_setflags(
                    &file,
                    IFlags::from_bits_retain(before.unwrap_or(IFlags::empty()).bits() | flag),
                )
            };
            let set = with(IFlags::NODUMP.bits()).number();
            let then = ioctl_getflags(&file).number().map(|flags| flags.contains(IFlags::NODUMP));
            // Only root may, and then nobody can write any more.
            let fixed = with(IFlags::IMMUTABLE.bits()).number();
            let write = OpenOptions::new().write(true).open(d.join("f")).map(drop).number();
            let back = with(0).number();
            (before, set, then, fixed, write, back)
        })
    });
}

#[test]
fn no_access_time_moves_for_who_opens_without() {
    let t = Twin::new();
    t.same(|d| {
        let path = d.join("f");
        fs::write(&path, "text").unwrap();
        let long_ago = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        let moved = |flags| {
            let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
            assert_eq!(file.read_at(&mut [0; 9], 0).unwrap(), 4);
            fs::metadata(&path).unwrap().atime() != 1
        };
        (moved(libc::O_NOATIME), moved(0))
    });
}

#[test]
fn a_shared_mapping_moves_the_time_of_change() {
    let t = Twin::new();
    t.same(|d| {
        let (path, zero) = (d.join("f"), Timespec { tv_sec: 1, tv_nsec: 0 });
        fs::write(&path, [0; 4096]).unwrap();
        let file = read_write(&path);
        let times = Timestamps { last_access: zero, last_modification: zero };
        utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        let mut mapping = Mapping::shared(&file, 4096);
        mapping.bytes()[0] = 1;
        mapping.sync();
        fs::metadata(&path).unwrap().mtime() != 1
    });
}

// ---- bytes -----------------------------------------------------------------------------------------------------------

#[test]
fn files_may_be_far_larger_than_four_gigabytes_and_mostly_holes() {
    let t = Twin::new();
    t.same(|d| {
        let file = read_write(&d.join("f"));
        let read = [(1_u64 << 31) - 5, (1 << 32) - 5, (1 << 40) + 1].map(|at| {
            write_at(&file, at, "0123456789");
            let mut bytes = [0; 12];
            (file.read_at(&mut bytes, at - 1).unwrap(), bytes)
        });
        let meta = file.metadata().unwrap();
        let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(1 << 33)).number();
        (read, meta.len(), meta.blocks() < 1000, data, file.set_len(1 << 62).number())
    });
}

#[test]
fn direct_reading_and_writing_needs_no_alignment() {
    let t = Twin::new();
    let path = t.mount.join("f");
    fs::write(&path, "0123456789").unwrap();
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    write_at(&file, 3, "abc");
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 2).unwrap();
    assert_eq!(&bytes, b"2abc6");
}

// ---- what the kernel or fuser does not hand on -----------------------------------------------------------------------

#[test]
fn what_does_not_reach_a_file_system_in_user_space_is_refused() {
    let t = Twin::new();
    fs::write(t.mount.join("f"), vec![1; 1 << 16]).unwrap();
    let file = read_write(&t.mount.join("f"));
    for (what, mode) in [("collapse", 0x8), ("insert", 0x20)] {
        assert_eq!(fallocate(&file, mode, 4096, 4096), Err(libc::EOPNOTSUPP), "{what}");
    }
    let other = read_write(&t.mount.join("g"));
    assert_eq!(ioctl_ficlone(&other, &file).number(), Err(libc::EOPNOTSUPP));
    // A time of birth is not told, and nobody is told a wrong one.
    let seen = statx(CWD, t.mount.join("f"), AtFlags::empty(), StatxFlags::ALL | StatxFlags::BTIME).unwrap();
    assert_eq!(seen.stx_mask & StatxFlags::BTIME.bits(), 0);
    assert_eq!(seen.stx_mask & StatxFlags::BASIC_STATS.bits(), StatxFlags::BASIC_STATS.bits());
    // Readiness: a file can always be read and written.
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&watch, &file, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
}

#[test]
fn syncing_a_whole_file_system_flushes_nothing_of_a_client() {
    let two = Two::new(NFS).file("f", "");
    let file = edit(&two.a, "f");
    write_at(&file, 0, "text");
    rustix::fs::syncfs(&file).unwrap();
    assert_eq!((size(&two.a, "f"), fs::read(two.backing.path().join("f")).unwrap()), (4, Vec::new()));
    file.sync_all().unwrap();
    assert_eq!(fs::read(two.backing.path().join("f")).unwrap(), b"text");
}

#[test]
fn inotify_tells_of_what_is_done_through_its_own_mount() {
    let two = Two::new(Knobs::strict());
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, two.a.path(), inotify::WatchFlags::CREATE).unwrap();
    put(&two.b, "theirs", "");
    put(&two.a, "mine", "");
    assert!(fs::exists(two.a.join("theirs")).unwrap());
    let mut buf = [MaybeUninit::uninit(); 4096];
    let mut told = inotify::Reader::new(&watch, &mut buf);
    assert_eq!(told.next().unwrap().file_name().unwrap(), c"mine");
    assert!(told.is_buffer_empty());
}
