//! Programs that random ones have shrunk to, each by what it found.

use chaosfs::{Backing, Clock, Knobs};

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, OFlags, mknodat};

use super::{options, strict};
use crate::ops::{as_nobody, is_root};

#[test]
fn a_late_client_sees_at_once_that_its_open_file_has_no_name_any_more() {
    chaosfs::require_fuse!();
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let m = backing.mount(options(Knobs::eventual())).unwrap();
    let file = File::create(m.join("f")).unwrap();
    fs::remove_file(m.join("f")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn what_is_held_without_telling_the_server_can_be_asked_after_its_removal() {
    chaosfs::require_fuse!();
    for knobs in [Knobs::strict(), Knobs::eventual()] {
        let m = Backing::options().clock(Clock::manual()).temp().unwrap().mount(options(knobs)).unwrap();
        mknodat(CWD, m.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let fifo = File::options().read(true).write(true).open(m.join("fifo")).unwrap();
        fs::write(m.join("file"), "four").unwrap();
        let path_only = rustix::fs::open(m.join("file"), OFlags::PATH, Mode::empty()).unwrap();
        fs::remove_file(m.join("fifo")).unwrap();
        fs::remove_file(m.join("file")).unwrap();
        assert_eq!(fifo.metadata().unwrap().nlink(), 0);
        let stat = rustix::fs::fstat(path_only).unwrap();
        assert_eq!((stat.st_nlink, stat.st_size), (0, 4));
    }
}

#[test]
fn a_chown_to_nobody_ends_set_id_bits() {
    chaosfs::require_fuse!();
    let m = Backing::temp().unwrap().mount(strict()).unwrap();
    let file = File::create(m.join("f")).unwrap();
    fs::set_permissions(m.join("f"), fs::Permissions::from_mode(0o6755)).unwrap();
    rustix::fs::fchown(&file, None, None).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o755);
    // Another user's writing ends them as well, and is not refused for it.
    fs::set_permissions(m.join("f"), fs::Permissions::from_mode(0o2644)).unwrap();
    if is_root() {
        as_nobody(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1)).unwrap();
    }
}

#[test]
fn there_is_no_data_and_no_hole_before_the_start_of_a_file() {
    chaosfs::require_fuse!();
    let m = Backing::temp().unwrap().mount(strict()).unwrap();
    let file = File::create(m.join("f")).unwrap();
    file.set_len(1).unwrap();
    for whence in [libc::SEEK_DATA, libc::SEEK_HOLE] {
        assert_eq!(super::sys::seek(&file, whence, -1), Err(libc::ENXIO));
    }
}
