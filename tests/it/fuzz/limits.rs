//! Where random programs found a mount to be unlike the directory under it, and the kernel lets it be no other: the newer D
//! rows of SEMANTICS.md.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};

use chaosfs::Backing;

use super::strict;
use crate::ops::{Number, Twin, as_nobody, chmod, is_root};

#[test]
fn a_call_that_is_wrong_in_two_ways_is_not_refused_for_lack_of_permission() {
    chaosfs::require_fuse!();
    if !is_root() {
        return;
    }
    let twin = Twin::new();
    let remove = |dir: &std::path::Path| {
        fs::write(dir.join("file"), "").unwrap();
        as_nobody(|| fs::remove_dir(dir.join("file")).number())
    };
    assert_eq!(remove(twin.bare()), Err(libc::EACCES));
    assert_eq!(remove(twin.mount.path()), Err(libc::ENOTDIR));
}

#[test]
fn a_dot_in_a_path_is_not_asked_for() {
    chaosfs::require_fuse!();
    if !is_root() {
        return;
    }
    let twin = Twin::new();
    let look = |dir: &std::path::Path| {
        fs::create_dir(dir.join("listed")).unwrap();
        fs::write(dir.join("listed/file"), "").unwrap();
        chmod(&dir.join("listed"), 0o644);
        let through = |path: &str| as_nobody(|| fs::symlink_metadata(dir.join(path)).map(drop).number());
        (through("listed/."), through("listed/file"))
    };
    assert_eq!(look(twin.bare()), (Err(libc::EACCES), Err(libc::EACCES)));
    assert_eq!(look(twin.mount.path()), (Ok(()), Err(libc::EACCES)));
}

#[test]
fn a_chown_to_nobody_is_refused_to_nobody() {
    chaosfs::require_fuse!();
    if !is_root() {
        return;
    }
    let twin = Twin::new();
    let change = |dir: &std::path::Path| {
        let file = File::create(dir.join("file")).unwrap();
        chmod(&dir.join("file"), 0o4755);
        let done = as_nobody(|| rustix::fs::fchown(&file, None, None).number());
        (done, file.metadata().unwrap().permissions().mode() & 0o7777)
    };
    assert_eq!(change(twin.bare()), (Err(libc::EPERM), 0o4755));
    assert_eq!(change(twin.mount.path()), (Ok(()), 0o4755), "and changes nothing");
}

#[test]
fn only_writing_finds_out_how_large_a_file_may_be() {
    chaosfs::require_fuse!();
    let m = Backing::temp().unwrap().mount(strict()).unwrap();
    let mut file = File::create(m.join("file")).unwrap();
    let far = i64::MAX as u64 - 4096;
    assert_eq!(file.seek(SeekFrom::Start(far)).unwrap(), far);
    // Where the backing file system knows no limit of its own, this is one large hole.
    let written = file.write(b"x").number();
    let beneath = File::create(m.backing().path().join("other")).unwrap().write_at(b"x", far).number();
    assert_eq!(written, beneath);
}
