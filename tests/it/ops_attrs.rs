//! Attributes, and who may do what, as on the bare directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};

use crate::ops::{Number, Twin, chmod, in_user_namespace, looks, read_write, shell};

#[test]
fn extended_attributes_are_kept_replaced_listed_and_removed() {
    let t = Twin::new();
    t.same(|d| {
        let path = d.join("f");
        fs::write(&path, "").unwrap();
        let big = vec![7_u8; 3000];
        let set = |name: &str, value: &[u8], flags| rustix::fs::lsetxattr(&path, name, value, flags).number();
        let sets = [
            set("user.a", b"1", XattrFlags::empty()),
            set("user.a", b"2", XattrFlags::CREATE),
            set("user.none", b"2", XattrFlags::REPLACE),
            set("user.a", b"22", XattrFlags::REPLACE),
            set("user.empty", b"", XattrFlags::CREATE),
            set("user.big", &big, XattrFlags::empty()),
            set("nonsense", b"1", XattrFlags::empty()),
            set("user.", b"1", XattrFlags::empty()),
            set("trusted.t", b"3", XattrFlags::empty()),
            set(&format!("user.{}", "n".repeat(251)), b"1", XattrFlags::empty()),
            set("user.huge", &vec![1; 65_537], XattrFlags::empty()),
        ];
        let get = |name: &str, room: usize| {
            let mut value = vec![0; room];
            let n = rustix::fs::lgetxattr(&path, name, &mut value[..]).number();
            (n, value)
        };
        let gets = [
            ("user.a", 10),
            ("user.a", 1),
            ("user.a", 0),
            ("user.empty", 5),
            ("user.big", 4000),
            ("user.x", 9),
        ];
        let gets = gets.map(|(name, room)| get(name, room));
        let list = |room: usize| {
            let mut names = vec![0; room];
            let n = rustix::fs::llistxattr(&path, &mut names[..]).number();
            let mut names: Vec<Vec<u8>> = names.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
            names.sort();
            (n, names)
        };
        let removed = ["user.a", "user.a"].map(|name| rustix::fs::lremovexattr(&path, name).number());
        (sets, gets, list(1000), list(4), list(0), removed, list(1000))
    });
}

#[test]
fn directories_and_links_have_attributes_of_their_own() {
    let t = Twin::new();
    t.same(|d| {
        fs::create_dir(d.join("dir")).unwrap();
        std::os::unix::fs::symlink("dir", d.join("link")).unwrap();
        let on_dir = rustix::fs::lsetxattr(d.join("dir"), "user.d", b"d", XattrFlags::empty()).number();
        let on_link = rustix::fs::lsetxattr(d.join("link"), "user.l", b"l", XattrFlags::empty()).number();
        let trusted = rustix::fs::lsetxattr(d.join("link"), "trusted.l", b"l", XattrFlags::empty()).number();
        let mut value = [0; 4];
        let through = rustix::fs::getxattr(d.join("link"), "user.d", &mut value[..]).number();
        let times = Timestamps {
            last_access: Timespec { tv_sec: 1, tv_nsec: 2 },
            last_modification: Timespec { tv_sec: 3, tv_nsec: 4 },
        };
        let timed = utimensat(CWD, d.join("link"), &times, AtFlags::SYMLINK_NOFOLLOW).number();
        let meta = fs::symlink_metadata(d.join("link")).unwrap();
        let owned = std::os::unix::fs::lchown(d.join("link"), Some(12), Some(13)).number();
        let seen = (meta.mtime(), meta.mtime_nsec(), looks(&d.join("link")), looks(&d.join("dir")));
        (on_dir, on_link, trusted, through, value, timed, owned, seen)
    });
}

#[test]
fn times_go_to_the_nanosecond_and_before_1970() {
    let t = Twin::new();
    t.same(|d| {
        let path = d.join("f");
        fs::write(&path, "x").unwrap();
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let set = |last_access, last_modification| {
            let times = Timestamps { last_access, last_modification };
            let end = utimensat(CWD, &path, &times, AtFlags::empty()).number();
            let meta = fs::metadata(&path).unwrap();
            (end, meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec())
        };
        let sets = [
            set(at(1_700_000_000, 123_456_789), at(1_600_000_000, 1)),
            set(at(-1, 999_999_999), at(-315_619_200, 500)),
            set(omit, at(0, 0)),
            set(at(1, 0), omit),
            set(at(4_000_000_000, 5), at(2_147_483_648, 6)),
            set(omit, omit),
        ];
        let before = std::time::SystemTime::now() - std::time::Duration::from_secs(5);
        let end =
            utimensat(CWD, &path, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty());
        let fresh = fs::metadata(&path).unwrap().modified().unwrap() > before;
        (sets, end.number(), fresh)
    });
}

#[test]
fn changes_move_the_times_that_they_move() {
    let t = Twin::new();
    let old = Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
    let moved = |path: &Path, change: &dyn Fn()| {
        let times = Timestamps { last_access: old, last_modification: old };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        change();
        fs::symlink_metadata(path).unwrap().mtime() != old.tv_sec
    };
    t.same(|d| {
        let (f, dir) = (d.join("f"), d.join("dir"));
        fs::create_dir(&dir).unwrap();
        fs::write(&f, "content").unwrap();
        let file = read_write(&f);
        [
            moved(&f, &|| (&file).write_all(b"x").unwrap()),
            moved(&f, &|| file.set_len(3).unwrap()),
            moved(&f, &|| chmod(&f, 0o600)),
            moved(&f, &|| drop(fs::read(&f).unwrap())),
            moved(&f, &|| {
                fs::rename(&f, dir.join("f")).and_then(|()| fs::rename(dir.join("f"), &f)).unwrap();
            }),
            moved(&dir, &|| fs::write(dir.join("new"), "").unwrap()),
            moved(&dir, &|| fs::write(dir.join("new"), "again").unwrap()),
            moved(&dir, &|| fs::hard_link(&f, dir.join("link")).unwrap()),
            moved(&dir, &|| fs::remove_file(dir.join("link")).unwrap()),
            moved(&f, &|| drop(OpenOptions::new().write(true).truncate(true).open(&f).unwrap())),
        ]
    });
}

#[test]
fn the_room_of_the_file_system_is_told() {
    let t = Twin::new();
    t.same(|d| {
        let s = rustix::fs::statvfs(d).unwrap();
        (s.f_bsize, s.f_frsize, s.f_blocks, s.f_files, s.f_namemax)
    });
}

#[test]
fn modes_keep_all_their_bits_and_heed_the_umask() {
    let t = Twin::new();
    t.same(|d| {
        fs::write(d.join("f"), "").unwrap();
        let modes = [0o4755, 0o2755, 0o1755, 0o6777, 0, 0o7777].map(|mode| {
            chmod(&d.join("f"), mode);
            looks(&d.join("f")).unwrap().0
        });
        // A umask belongs to a process, so others make these.
        let mut made = Vec::new();
        for umask in ["000", "022", "077", "777"] {
            let script = format!("umask {umask}; rm -rf g e p; >g; mkdir e; mkfifo p; stat -c %a g e p");
            made.push(shell(d, &script));
        }
        (modes, made)
    });
}

/// The extended attribute of a default ACL: everything for the owner, reading for the rest.
const DEFAULT_ACL: [u8; 28] = {
    let mut acl = [0xff; 28];
    let mut i = 4;
    (acl[0], acl[1], acl[2], acl[3]) = (2, 0, 0, 0);
    while i < 28 {
        (acl[i], acl[i + 1], acl[i + 3]) = ([1, 4, 32][i / 8 % 3], 0, 0);
        acl[i + 2] = if i < 12 { 7 } else { 6 };
        i += 8;
    }
    acl
};

#[test]
fn a_default_acl_replaces_the_umask() {
    let t = Twin::new();
    let name = "system.posix_acl_default";
    let set =
        |d: &Path| rustix::fs::setxattr(d.join("dir"), name, &DEFAULT_ACL, XattrFlags::empty()).number();
    t.same(|d| fs::create_dir(d.join("dir")).number());
    assert_eq!(set(t.backing()), set(t.bare()));
    t.same(|d| shell(&d.join("dir"), "umask 077; >f; mkdir d; stat -c %a f d"));
    // Through mounts that were made in a user namespace the kernel sets no ACLs.
    let through = if in_user_namespace() { Err(libc::EOPNOTSUPP) } else { set(t.bare()) };
    assert_eq!(set(t.mount.path()), through);
}
