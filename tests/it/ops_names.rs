//! Operations on names, as on the bare directory: links, special files, renames, strange names, removed things.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, makedev, mknodat, openat};

use crate::ops::{Number, Twin, looks, read_write, shell, tree};

#[test]
fn hard_links_are_one_file() {
    let t = Twin::new();
    let content = t.both(|d| {
        fs::write(d.join("a"), "one").unwrap();
        fs::create_dir(d.join("dir")).unwrap();
        fs::hard_link(d.join("a"), d.join("dir/b")).unwrap();
        let same = fs::metadata(d.join("a")).unwrap().ino() == fs::metadata(d.join("dir/b")).unwrap().ino();
        fs::OpenOptions::new().append(true).open(d.join("dir/b")).unwrap().write_all(b" two").unwrap();
        let taken = fs::hard_link(d.join("a"), d.join("dir/b")).number();
        let of_dir = fs::hard_link(d.join("dir"), d.join("dir2")).number();
        let before = looks(&d.join("a"));
        fs::remove_file(d.join("a")).unwrap();
        let of_nothing = fs::hard_link(d.join("a"), d.join("c")).number();
        (
            same,
            taken,
            of_dir,
            of_nothing,
            before,
            looks(&d.join("dir/b")),
            fs::read_to_string(d.join("dir/b")).unwrap(),
        )
    });
    assert_eq!((content.0, content.6.as_str()), (true, "one two"));
}

#[test]
fn a_descriptor_stands_for_its_file_when_the_name_it_came_by_is_gone() {
    let t = Twin::new();
    t.same(|d| {
        fs::write(d.join("a"), "x").unwrap();
        fs::hard_link(d.join("a"), d.join("b")).unwrap();
        let path_only = openat(CWD, d.join("a"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        fs::remove_file(d.join("a")).unwrap();
        let left = rustix::fs::fstat(&path_only).number().map(|s| (s.st_nlink, s.st_size));
        fs::rename(d.join("b"), d.join("c")).unwrap();
        let moved = rustix::fs::fstat(&path_only).number().map(|s| (s.st_nlink, s.st_size));
        (left, moved)
    });
}

#[test]
fn special_files_are_what_they_were_made_as() {
    let t = Twin::new();
    t.same(|d| {
        let make = |name: &str, kind, dev| {
            mknodat(CWD, d.join(name), kind, Mode::from_raw_mode(0o640), dev).number()
        };
        let made = [
            make("fifo", FileType::Fifo, 0),
            make("file", FileType::RegularFile, 0),
            make("socket", FileType::Socket, 0),
            make("fifo", FileType::Fifo, 0),
            // Numbers beyond eight bits travel in pieces.
            make("device", FileType::CharacterDevice, makedev(0x1a3, 0x2_1357)),
            make("block", FileType::BlockDevice, makedev(7, 300)),
        ];
        (made, ["fifo", "file", "socket", "device", "block"].map(|name| looks(&d.join(name))))
    });
}

#[test]
fn two_processes_talk_through_a_fifo() {
    let t = Twin::new();
    let heard = t.both(|d| {
        mknodat(CWD, d.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let reader =
            Command::new("cat").arg(d.join("fifo")).stdout(std::process::Stdio::piped()).spawn().unwrap();
        File::options().write(true).open(d.join("fifo")).unwrap().write_all(b"hello").unwrap();
        String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap()
    });
    assert_eq!(heard, "hello");
}

#[test]
fn a_socket_connects_by_its_name() {
    let t = Twin::new();
    let heard = t.both(|d| {
        let listener = UnixListener::bind(d.join("s")).unwrap();
        let kind = fs::metadata(d.join("s")).unwrap().file_type().is_socket();
        UnixStream::connect(d.join("s")).unwrap().write_all(b"hi").unwrap();
        let mut heard = String::new();
        listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
        (kind, heard, UnixListener::bind(d.join("s")).map(drop).number())
    });
    assert_eq!(heard, (true, "hi".into(), Err(libc::EADDRINUSE)));
}

#[test]
fn symbolic_links_dangle_turn_back_and_are_long() {
    let t = Twin::new();
    t.same(|d| {
        fs::create_dir_all(d.join("x/y")).unwrap();
        fs::write(d.join("top"), "top").unwrap();
        let long = "l".repeat(4000);
        for (target, name) in [
            ("nowhere", "dangling"),
            ("../../top", "x/y/back"),
            ("loop", "loop"),
            (long.as_str(), "long"),
            ("x", "dir"),
        ] {
            symlink(target, d.join(name)).unwrap();
        }
        let links = ["dangling", "x/y/back", "loop", "long", "dir"].map(|name| {
            let path = d.join(name);
            (
                fs::read_link(&path).number(),
                looks(&path),
                fs::metadata(&path).is_ok(),
                fs::read(&path).number(),
            )
        });
        let made = File::create(d.join("dangling")).map(drop).number();
        let taken = (symlink("a", d.join("dir")).number(), symlink("", d.join("empty")).number());
        let through = (fs::read_dir(d.join("dir")).unwrap().count(), fs::remove_dir(d.join("dir")).number());
        (links, made, taken, through, d.join("nowhere").exists(), fs::read_link(d.join("top")).number())
    });
}

#[test]
fn renames_with_every_flag_come_to_the_same() {
    let flags = [
        RenameFlags::empty(),
        RenameFlags::NOREPLACE,
        RenameFlags::EXCHANGE,
        RenameFlags::WHITEOUT,
        RenameFlags::NOREPLACE | RenameFlags::EXCHANGE,
        RenameFlags::NOREPLACE | RenameFlags::WHITEOUT,
    ];
    let names = ["file", "other", "dir", "empty", "dir/in", "none", "dir/none", "same", "link"];
    let t = Twin::new();
    for flags in flags {
        t.same(|d| {
            let mut ends = Vec::new();
            for from in names {
                for to in names {
                    let base = d.join("base");
                    fs::create_dir_all(base.join("dir")).unwrap();
                    fs::create_dir(base.join("empty")).unwrap();
                    for name in ["file", "other", "dir/in"] {
                        fs::write(base.join(name), name).unwrap();
                    }
                    fs::hard_link(base.join("file"), base.join("same")).unwrap();
                    symlink("file", base.join("link")).unwrap();
                    let end =
                        rustix::fs::renameat_with(CWD, base.join(from), CWD, base.join(to), flags).number();
                    ends.push((from, to, end, tree(&base)));
                    fs::remove_dir_all(&base).unwrap();
                }
            }
            ends
        });
    }
}

#[test]
fn a_directory_moves_with_everything_below_and_never_into_itself() {
    let t = Twin::new();
    t.same(|d| {
        fs::create_dir_all(d.join("a/b/c")).unwrap();
        fs::create_dir(d.join("z")).unwrap();
        fs::write(d.join("a/b/c/f"), "f").unwrap();
        let inside = File::open(d.join("a/b/c")).unwrap();
        let into_itself = fs::rename(d.join("a"), d.join("a/b/a")).number();
        fs::rename(d.join("a/b"), d.join("z/moved")).unwrap();
        let by_fd = openat(inside.as_fd(), "f", OFlags::RDONLY, Mode::empty()).number().is_ok();
        let up =
            openat(inside.as_fd(), "../../../z/moved/c/f", OFlags::RDONLY, Mode::empty()).number().is_ok();
        let links = ["a", "z", "z/moved"].map(|name| looks(&d.join(name)).unwrap().1);
        (into_itself, by_fd, up, links, tree(d))
    });
}

#[test]
fn names_are_bytes_up_to_255_of_them() {
    let t = Twin::new();
    t.same(|d| {
        let odd: [&[u8]; 6] = [b"\xff\xfe", b"a\nb", b" ", b"-rf", b"\x01\x7f", "n\u{e9}".as_bytes()];
        let mut results = Vec::new();
        for name in odd {
            results.push(fs::write(d.join(OsStr::from_bytes(name)), name).number());
        }
        for len in [255, 256] {
            let name = d.join("n".repeat(len));
            results.push(fs::write(&name, "long").number());
            results.push(fs::create_dir(name.with_file_name("d".repeat(len))).number());
            results.push(symlink("x", name.with_file_name("s".repeat(len))).number());
            results.push(fs::metadata(&name).map(drop).number());
            results.push(fs::rename(d.join(OsStr::from_bytes(b" ")), &name).number());
        }
        (results, tree(d))
    });
}

#[test]
fn paths_reach_as_far_as_the_kernel_lets_them_and_trees_further() {
    let t = Twin::new();
    t.same(|d| {
        let mut deep = d.to_owned();
        while deep.as_os_str().len() + 201 < 4000 {
            deep.push("d".repeat(200));
        }
        fs::create_dir_all(&deep).unwrap();
        let left = 4095 - deep.as_os_str().len() - 1;
        let fits = fs::write(deep.join("f".repeat(left)), "far").number();
        let not = fs::write(deep.join("f".repeat(left + 1)), "far").number();
        // Further down only by descriptors.
        let mut here = File::open(&deep).unwrap();
        for _ in 0..30 {
            let name = "e".repeat(200);
            rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
            here = openat(&here, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap().into();
        }
        let bottom =
            openat(&here, "f", OFlags::CREATE | OFlags::RDWR, Mode::from_raw_mode(0o600)).number().is_ok();
        drop(here);
        let removed = shell(d, "rm -rf ddd*");
        (fits, not, bottom, removed, fs::read_dir(d).unwrap().count())
    });
}

#[test]
fn a_removed_file_lives_on_while_it_is_open() {
    let t = Twin::new();
    t.same(|d| {
        let mut file = read_write(&d.join("f"));
        file.write_all(b"before ").unwrap();
        fs::remove_file(d.join("f")).unwrap();
        file.write_all(b"after").unwrap();
        let again = fs::write(d.join("f"), "another").number();
        chmod_by_fd(&file, 0o611);
        let xattr = rustix::fs::fsetxattr(&file, "user.k", b"v", rustix::fs::XattrFlags::empty()).number();
        let mut value = [0; 8];
        let got = rustix::fs::fgetxattr(&file, "user.k", &mut value[..]).number();
        file.set_len(9).unwrap();
        let meta = file.metadata().unwrap();
        let mut bytes = [0; 32];
        let n = std::os::unix::fs::FileExt::read_at(&file, &mut bytes, 0).unwrap();
        let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
        file.sync_all().unwrap();
        (
            again,
            xattr,
            got,
            value,
            meta.mode(),
            meta.nlink(),
            meta.size(),
            text,
            fs::read(d.join("f")).unwrap(),
        )
    });
}

fn chmod_by_fd(file: &File, mode: u32) {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).unwrap();
}

#[test]
fn a_removed_directory_lives_on_while_someone_is_inside() {
    let t = Twin::new();
    let script = "mkdir d && cd d && rmdir ../d && ls -A . && stat -c '%F %h' . ; echo $?; echo x 2>&1 >f; echo $?; \
                  mkdir y 2>/dev/null; echo $?; cd ../d 2>/dev/null; echo $?; /bin/pwd -P 2>/dev/null; echo $?";
    t.same(|d| shell(d, script));
}

#[test]
fn a_directory_of_ten_thousand_loses_half_of_them_while_it_is_read() {
    let t = Twin::new();
    let all = |dir: &Path| {
        let dir = dir.join("big");
        fs::create_dir(&dir).unwrap();
        for i in 0..10_000 {
            mknodat(CWD, dir.join(i.to_string()), FileType::RegularFile, Mode::from_raw_mode(0o600), 0)
                .unwrap();
        }
        let mut seen = Vec::new();
        for entry in fs::read_dir(&dir).unwrap() {
            let i: u32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
            // Those that are odd go as soon as their even neighbour is met.
            let _ = if i.is_multiple_of(2) { fs::remove_file(dir.join((i + 1).to_string())) } else { Ok(()) };
            seen.push(i);
        }
        let mut even: Vec<u32> = seen.into_iter().filter(|i| i.is_multiple_of(2)).collect();
        even.sort_unstable();
        let left = fs::read_dir(&dir).unwrap().count();
        (even, left)
    };
    let (even, left) = t.both(all);
    assert!(even.into_iter().eq((0..10_000).step_by(2)), "each untouched name exactly once");
    assert_eq!(left, 5_000);
}

#[test]
fn a_place_in_a_directory_can_be_gone_back_to() {
    let t = Twin::new();
    t.same(|d| {
        for i in 0..500 {
            fs::write(d.join(format!("entry-{i}")), "").unwrap();
        }
        let mut dir = rustix::fs::Dir::read_from(File::open(d).unwrap()).unwrap();
        let entries: Vec<_> = std::iter::from_fn(|| dir.next())
            .map(|e| e.map(|e| (e.offset(), e.file_name().to_owned())).unwrap())
            .collect();
        // From each place on, exactly what came after it the first time.
        let back = [0, 1, 7, 250, 500].map(|i: usize| {
            dir.seek(entries[i].0).unwrap();
            let next = dir.next().map(|e| e.unwrap().file_name().to_owned());
            next.as_ref() == entries.get(i + 1).map(|(_, name)| name)
        });
        dir.rewind();
        (entries.len(), back, std::iter::from_fn(|| dir.next()).count())
    });
}

#[test]
fn a_directory_counts_its_subdirectories() {
    let t = Twin::new();
    t.same(|d| {
        let links = || looks(d).unwrap().1;
        fs::create_dir(d.join("a")).unwrap();
        fs::create_dir(d.join("b")).unwrap();
        let two = links();
        fs::rename(d.join("b"), d.join("a/b")).unwrap();
        let (one, inner) = (links(), looks(&d.join("a")).unwrap().1);
        let full = fs::remove_dir(d.join("a")).number();
        fs::remove_dir(d.join("a/b")).unwrap();
        fs::remove_dir(d.join("a")).unwrap();
        (two, one, inner, full, links(), fs::remove_dir(d.join("a")).number())
    });
}

#[test]
fn a_nameless_file_is_refused_as_file_systems_without_it_refuse_it() {
    let t = Twin::new();
    // There is no request for it in FUSE's protocol as it is served here; programs fall back to a name.
    let end =
        openat(CWD, t.mount.path(), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600)).map(drop);
    assert_eq!(end, Err(rustix::io::Errno::OPNOTSUPP));
    assert!(tempfile::tempfile_in(t.mount.path()).is_ok());
}
