//! A whole tree as it can be compared: names, attributes, contents, targets, extended attributes, and which names are one
//! file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Stat};

/// What is compared of the contents of a large file: so much at its start and at its end.
const PIECE: u64 = 128 << 10;

/// What `stat` says and two directories can agree on. A time counts when a program has set it; otherwise it is now.
#[derive(PartialEq, Eq, Debug, Clone)]
pub(super) struct Look {
    mode: u32,
    nlink: u64,
    size: i64,
    owner: (u32, u32),
    rdev: u64,
    mtime: Option<(i64, u64)>,
}

/// Later than any time that programs set, earlier than any clock.
const SET: i64 = 100_000_000;

pub(super) fn look(s: &Stat) -> Look {
    Look {
        mode: s.st_mode,
        nlink: s.st_nlink,
        size: s.st_size,
        owner: (s.st_uid, s.st_gid),
        rdev: s.st_rdev,
        mtime: (s.st_mtime < SET).then_some((s.st_mtime, s.st_mtime_nsec)),
    }
}

/// Everything below `root`, and the root itself, by path.
pub(super) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    while let Some(path) = todo.pop() {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mut said = format!("{:?}, xattrs {}", look(&stat), xattrs(&path));
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap();
                let ino = std::fs::symlink_metadata(entry.path()).unwrap().ino();
                assert_eq!(entry.ino(), ino, "the listing and `stat` of {}", entry.path().display());
                todo.push(entry.path());
            }
        } else if meta.is_symlink() {
            write!(said, ", to {}", std::fs::read_link(&path).unwrap().as_os_str().as_bytes().escape_ascii())
                .unwrap();
        } else if meta.is_file() {
            write!(said, ", holds {:016x}", contents(&path, meta.len())).unwrap();
            names.entry(meta.ino()).or_default().push(name.clone());
        }
        found.insert(name, said);
    }
    for mut same in names.into_values().filter(|names| names.len() > 1) {
        same.sort();
        let said = format!("is {same:?}");
        found.insert(format!("{}*", same[0]), said);
    }
    found
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..n].split(|b| *b == 0).filter(|name| !name.is_empty());
    let each = names.map(|name| {
        let mut value = vec![0; 70_000];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]);
        format!("{}={n:?}", name.escape_ascii())
    });
    each.collect::<Vec<_>>().join(",")
}

/// FNV-1a over what is compared.
fn contents(path: &Path, len: u64) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let last = len.saturating_sub(PIECE);
    for at in [0, last] {
        let mut buf = vec![0; PIECE.min(len - at) as usize];
        file.read_exact_at(&mut buf, at).unwrap();
        hash = buf.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    }
    hash
}

/// Fails with the first differences of two trees.
pub(super) fn same(
    what: &str,
    one: &BTreeMap<String, String>,
    other: &BTreeMap<String, String>,
) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
    let differ = names.filter(|name| one.get(*name) != other.get(*name)).take(5);
    let said = differ.map(|name| format!("`{name}`:\n    {:?}\n    {:?}", one.get(name), other.get(name)));
    Err(format!("{what}\n{}", said.collect::<Vec<_>>().join("\n")))
}
