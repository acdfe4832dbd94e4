//! Nothing that is done through a mount leaves its backing directory, whatever an outsider does there meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;

use chaosfs::{Knobs, Mount, Options};
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags, mknodat};
use tempfile::TempDir;

use crate::ops::{LIMIT, Number, chmod};

/// A file, its mode, owner, links, times, content, and whether it was marked.
type State = (PathBuf, u32, u32, u64, i64, i64, Option<Vec<u8>>, bool);

/// A backing directory beside a tree that is none of its business. Seen from the mount, which is elsewhere, the same
/// relative links lead nowhere: whoever gets to the outside through them is the server.
struct Fenced {
    mount: Mount,
    outside: PathBuf,
    _base: TempDir,
}

impl Fenced {
    fn new() -> Fenced {
        let base = tempfile::tempdir().unwrap();
        for dir in ["server/backing/dir", "server/outside", "client/mount"] {
            fs::create_dir_all(base.path().join(dir)).unwrap();
        }
        let outside = base.path().join("server/outside");
        fs::write(outside.join("file"), "outside").unwrap();
        chmod(&outside.join("file"), 0o640);
        chmod(&outside, 0o750);
        let at = base.path().join("client/mount");
        let mount = Options::new()
            .knobs(Knobs::strict())
            .exact(true)
            .at(at)
            .mount(base.path().join("server/backing"))
            .unwrap();
        fs::write(mount.backing().path().join("dir/file"), "inside").unwrap();
        fs::write(mount.backing().path().join("file"), "inside").unwrap();
        Fenced { mount, outside, _base: base }
    }

    fn backing(&self) -> &Path {
        self.mount.backing().path()
    }

    /// Everything about the outside that an operation could change.
    fn state(&self) -> Vec<State> {
        let mut all: Vec<_> = fs::read_dir(&self.outside).unwrap().map(|e| e.unwrap().path()).collect();
        all.push(self.outside.clone());
        all.sort();
        all.into_iter()
            .map(|path| {
                let meta = fs::symlink_metadata(&path).unwrap();
                let marked = rustix::fs::lgetxattr(&path, "user.mark", &mut [0; 9][..]).is_ok();
                let times = (meta.mtime(), meta.ctime_nsec());
                let content = fs::read(&path).ok();
                (path, meta.mode(), meta.uid(), meta.nlink(), times.0, times.1, content, marked)
            })
            .collect()
    }

    /// Swaps two names of the backing directory in a loop while `act` is done `times` times through the mount; answers how
    /// often they were swapped.
    fn swapping(&self, names: (&str, &str), times: u32, act: impl Fn(u32) + Send) -> u32 {
        let (one, two) = (self.backing().join(names.0), self.backing().join(names.1));
        let (over, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            });
            (0..times).for_each(&act);
            over.store(true, Ordering::Relaxed);
        });
        swaps.into_inner()
    }
}

#[test]
fn links_out_of_the_backing_are_followed_by_the_client_only() {
    let f = Fenced::new();
    let m = |name: &str| f.mount.join(name);
    symlink("../outside/file", m("to-file")).unwrap();
    symlink("../outside", m("to-dir")).unwrap();
    symlink(f.outside.join("file"), m("absolute")).unwrap();
    let before = f.state();
    // Relative ones lead to the mountpoint's neighbours, where there is nothing.
    assert_eq!(fs::read(m("to-file")).number(), Err(libc::ENOENT));
    assert_eq!(fs::read_dir(m("to-dir")).map(drop).number(), Err(libc::ENOENT));
    assert_eq!(fs::read_link(m("to-dir")).unwrap(), Path::new("../outside"));
    // Absolute ones lead where they say, for whoever follows them.
    assert_eq!(fs::read_to_string(m("absolute")).unwrap(), "outside");
    for name in ["to-file", "to-dir", "absolute"] {
        std::os::unix::fs::lchown(m(name), Some(4242), Some(4242)).unwrap_or_default();
        let times = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: times, last_modification: times };
        rustix::fs::utimensat(CWD, m(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let _ = rustix::fs::lsetxattr(m(name), "trusted.mark", b"x", XattrFlags::empty());
        let no_follow = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(m(name));
        assert_eq!(no_follow.map(drop).number(), Err(libc::ELOOP));
        fs::hard_link(m(name), m("other")).unwrap();
        fs::rename(m("other"), m("moved")).unwrap();
        fs::remove_file(m("moved")).unwrap();
        assert_eq!(fs::create_dir(m(name)).number(), Err(libc::EEXIST));
        fs::remove_file(m(name)).unwrap();
    }
    assert_eq!(f.state(), before);
}

#[test]
fn a_directory_that_turns_into_a_link_leads_nowhere() {
    let f = Fenced::new();
    symlink("../outside", f.backing().join("link")).unwrap();
    let before = f.state();
    let dir = f.mount.join("dir");
    let done = AtomicU32::new(0);
    let swaps = f.swapping(("dir", "link"), 1500, |i| {
        let new = dir.join(format!("new-{i}"));
        let steps = [
            fs::write(&new, "x"),
            fs::create_dir(dir.join("sub")),
            fs::read(dir.join("file")).map(|bytes| assert_eq!(bytes, b"inside")),
            fs::set_permissions(dir.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o777)),
            fs::rename(dir.join("file"), dir.join("renamed")),
            fs::rename(dir.join("renamed"), dir.join("file")),
            fs::hard_link(dir.join("file"), dir.join(format!("hard-{i}"))),
            symlink("x", dir.join(format!("soft-{i}"))),
            OpenOptions::new().append(true).open(&new).map(drop),
            fs::read_dir(&dir).map(|entries| assert!(entries.flatten().all(|e| e.file_name() != "secret"))),
            fs::remove_file(&new),
            fs::remove_dir(dir.join("sub")),
        ];
        done.fetch_add(steps.into_iter().flatten().count() as u32, Ordering::Relaxed);
    });
    assert!(swaps > 10 && done.into_inner() > 10, "{swaps} swaps");
    assert_eq!(f.state(), before);
}

#[test]
fn a_file_that_turns_into_a_link_leads_nowhere() {
    let f = Fenced::new();
    symlink("../outside/file", f.backing().join("link")).unwrap();
    let before = f.state();
    let file = f.mount.join("file");
    let times = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: times, last_modification: times };
    let done = AtomicU32::new(0);
    let swaps = f.swapping(("file", "link"), 1500, |i| {
        let steps = [
            fs::read(&file).map(|bytes| assert_ne!(bytes, b"outside")),
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o777)),
            OpenOptions::new().write(true).truncate(true).open(&file).map(drop),
            OpenOptions::new()
                .append(true)
                .open(&file)
                .and_then(|mut f| std::io::Write::write_all(&mut f, b"x")),
            std::os::unix::fs::lchown(&file, Some(4242), None),
            rustix::fs::utimensat(CWD, &file, &times, AtFlags::empty()).map_err(Into::into),
            rustix::fs::setxattr(&file, "user.mark", b"x", XattrFlags::empty()).map_err(Into::into),
            fs::hard_link(&file, f.mount.join(format!("hard-{i}"))),
        ];
        done.fetch_add(steps.into_iter().flatten().count() as u32, Ordering::Relaxed);
    });
    assert!(swaps > 10 && done.into_inner() > 10, "{swaps} swaps");
    assert_eq!(f.state(), before);
}

/// What `act` comes to; a server that hangs is a failure, not a hanging test.
fn in_time<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || tx.send(act()));
    rx.recv_timeout(LIMIT).expect("the server hangs")
}

#[test]
fn a_file_that_turns_into_a_fifo_does_not_hang_the_server() {
    let f = Fenced::new();
    mknodat(CWD, f.backing().join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let (file, other) = (f.mount.join("file"), f.mount.join("dir/file"));
    let swaps = f.swapping(("file", "fifo"), 1000, |_| {
        let (file, other) = (file.clone(), other.clone());
        in_time(move || {
            // A fifo is opened by the client's kernel, which this flag keeps from waiting for the other end.
            let mut how = OpenOptions::new();
            let opened = how.read(true).custom_flags(libc::O_NONBLOCK).open(&file);
            let _ = opened.map(|mut file| file.read(&mut [0; 8]));
            let _ = rustix::fs::setxattr(&file, "user.mark", b"x", XattrFlags::empty());
            assert_eq!(fs::read(other).unwrap(), b"inside");
        });
    });
    assert!(swaps > 10, "{swaps} swaps");
    // And for one that is open, nothing has changed.
    let (path, backing) = (f.mount.join("dir/file"), f.backing().to_owned());
    let text = in_time(move || {
        let mut open = File::open(path).unwrap();
        fs::rename(backing.join("fifo"), backing.join("dir/file"))
            .or_else(|_| fs::rename(backing.join("file"), backing.join("dir/file")))
            .unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(text, "inside");
}
