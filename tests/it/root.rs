//! What several users may do to each other's files, as on the bare directory. Needs the root of the machine, who can become
//! each of them, so all such tests are here, and nowhere else is it asked who runs the tests; for others they are empty.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use chaosfs::{Backing, Knobs, Options};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, XattrFlags, mknodat, openat};

use crate::ops::{NOBODY, Number, Twin, as_nobody, as_user, chmod, is_root, looks, read_write, shell};
use crate::support::{Two, append, edit, put, reread, secs, write, write_at};

/// Another user.
const OTHER: u32 = 65_533;

#[test]
fn files_belong_to_who_makes_them() {
    if !is_root() {
        return;
    }
    let t = Twin::new();
    t.same(|d| {
        chmod(d, 0o777);
        fs::create_dir(d.join("group")).unwrap();
        chown(d.join("group"), None, Some(4242)).unwrap();
        chmod(&d.join("group"), 0o2777);
        as_nobody(|| {
            for dir in [d.to_owned(), d.join("group")] {
                fs::write(dir.join("file"), "").unwrap();
                fs::create_dir(dir.join("dir")).unwrap();
                std::os::unix::fs::symlink("x", dir.join("link")).unwrap();
                mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            }
        });
        let names = ["file", "dir", "link", "fifo"];
        names.map(|name| (looks(&d.join(name)), looks(&d.join("group").join(name))))
    });
}

#[test]
fn what_a_user_may_not_is_refused() {
    if !is_root() {
        return;
    }
    let t = Twin::new();
    let ends = t.both(|d| {
        chmod(d, 0o755);
        for (name, mode) in [("r", 0o444), ("w", 0o222), ("x", 0o711), ("none", 0o700), ("rx", 0o755)] {
            fs::write(d.join(name), "#!/bin/sh\necho ran\n").unwrap();
            chmod(&d.join(name), mode);
            let dir = d.join(format!("dir-{name}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("in"), "in").unwrap();
            chmod(&dir, mode);
        }
        as_nobody(|| {
            let mut ends = Vec::new();
            for name in ["r", "w", "x", "none", "rx"] {
                let (path, dir) = (d.join(name), d.join(format!("dir-{name}")));
                let open =
                    |read, write| OpenOptions::new().read(read).write(write).open(&path).map(drop).number();
                ends.push((name, "open", [open(true, false), open(false, true), open(true, true)].to_vec()));
                let may = |mask| rustix::fs::accessat(CWD, &path, mask, AtFlags::empty()).number();
                let may =
                    [Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK, Access::EXISTS].map(may).to_vec();
                ends.push((name, "access", may));
                let change = [
                    fs::set_permissions(&path, fs::metadata(&path).unwrap().permissions()).number(),
                    chown(&path, Some(NOBODY), None).number(),
                    truncate(&path),
                    rustix::fs::setxattr(&path, "user.k", b"v", XattrFlags::empty()).number(),
                    std::process::Command::new(&path).output().map(drop).number(),
                    rename_away(&path),
                    fs::remove_file(&path).number(),
                    File::create(d.join("new")).map(drop).number(),
                ];
                ends.push((name, "change", change.to_vec()));
                let inside = [
                    fs::read_dir(&dir).map(drop).number(),
                    fs::metadata(dir.join("in")).map(drop).number(),
                    fs::read(dir.join("in")).map(drop).number(),
                    fs::write(dir.join("new"), "").number(),
                    rustix::fs::accessat(CWD, &dir, Access::EXEC_OK, AtFlags::empty()).number(),
                ];
                ends.push((name, "inside", inside.to_vec()));
            }
            ends
        })
    });
    assert!(
        ends.iter().any(|(name, what, ends)| *name == "w" && *what == "open" && ends[2] == Err(libc::EACCES))
    );
}

fn truncate(path: &Path) -> Result<(), i32> {
    OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(path).map(drop).number()
}

fn rename_away(path: &Path) -> Result<(), i32> {
    fs::rename(path, path.with_extension("away")).number()
}

#[test]
fn programs_run_where_they_may_be_executed_and_only_there() {
    if !is_root() {
        return;
    }
    let t = Twin::new();
    t.same(|d| {
        for mode in [0o711, 0o744, 0o755, 0o611] {
            let path = d.join(format!("{mode:o}"));
            // Another name for `true`, that can be given a mode of its own.
            fs::copy("/bin/true", &path).unwrap();
            chmod(&path, mode);
        }
        let run = || ["711", "744", "755", "611"].map(|name| shell(d, &format!("./{name} 2>/dev/null")).0);
        (run(), as_nobody(run))
    });
}

#[test]
fn set_id_bits_go_when_another_writes_or_owns() {
    if !is_root() {
        return;
    }
    let t = Twin::new();
    t.same(|d| {
        let path = d.join("f");
        let mode_after = |change: &(dyn Fn() + Sync)| {
            fs::write(&path, "content").unwrap();
            chown(&path, Some(0), Some(0)).unwrap();
            chmod(&path, 0o6777);
            change();
            looks(&path).unwrap().0
        };
        [
            mode_after(&|| as_nobody(|| read_write(&path).write_all(b"x").unwrap())),
            mode_after(&|| read_write(&path).write_all(b"x").unwrap()),
            mode_after(&|| as_nobody(|| read_write(&path).set_len(2).unwrap())),
            mode_after(&|| chown(&path, Some(OTHER), None).unwrap()),
            mode_after(&|| chown(&path, None, Some(OTHER)).unwrap()),
        ]
    });
}

#[test]
fn a_write_that_is_held_back_takes_set_id_bits_along_at_once() {
    if !is_root() {
        return;
    }
    let t = Twin::with(Knobs::eventual());
    t.same(|d| {
        let path = d.join("file");
        fs::write(&path, "text").unwrap();
        chmod(&path, 0o6777);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let mut file = as_nobody(|| OpenOptions::new().append(true).open(&path).unwrap());
        let before = mode();
        as_nobody(|| file.write_all(b"more").unwrap());
        let between = mode();
        // And again, with bytes held back.
        as_nobody(|| file.write_all(b"more").unwrap());
        chmod(&path, 0o4777);
        let again = mode();
        as_nobody(|| file.write_all(b"more").unwrap());
        (before, between, again, mode())
    });
}

#[test]
fn sticky_directories_protect_and_groups_count() {
    if !is_root() {
        return;
    }
    let t = Twin::new();
    t.same(|d| {
        fs::create_dir(d.join("sticky")).unwrap();
        chmod(&d.join("sticky"), 0o1777);
        fs::write(d.join("sticky/roots"), "").unwrap();
        as_nobody(|| fs::write(d.join("sticky/nobodys"), "").unwrap());
        let theft = as_user(OTHER, OTHER, &[], || {
            let remove =
                ["roots", "nobodys"].map(|name| fs::remove_file(d.join("sticky").join(name)).number());
            (remove, fs::rename(d.join("sticky/nobodys"), d.join("sticky/mine")).number())
        });
        fs::write(d.join("club"), "members only").unwrap();
        chown(d.join("club"), None, Some(4242)).unwrap();
        chmod(&d.join("club"), 0o640);
        let read = || fs::read(d.join("club")).map(drop).number();
        let regroup = || {
            fs::write(d.join("sticky/own"), "").unwrap();
            let given = [4242, 4243].map(|gid| chown(d.join("sticky/own"), None, Some(gid)).number());
            let owner = chown(d.join("sticky/own"), Some(0), None).number();
            (given, owner, looks(&d.join("sticky/own")))
        };
        let member = as_user(NOBODY, NOBODY, &[4242], || (read(), regroup()));
        (theft, as_nobody(read), as_user(NOBODY, 4242, &[], read), member)
    });
}

#[test]
fn what_was_reached_stays_reached_when_the_way_is_closed() {
    if !is_root() {
        return;
    }
    let t = Twin::new();
    let ends = t.both(|d| {
        let (way, path) = (d.join("way"), d.join("way/in"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("f"), "f").unwrap();
        chmod(&path, 0o777);
        let (dir, file) = as_nobody(|| {
            let file = openat(CWD, path.join("f"), OFlags::PATH, Mode::empty()).unwrap();
            (File::open(&path).unwrap(), file)
        });
        chmod(&way, 0o700);
        as_nobody(|| {
            let stat = rustix::fs::fstat(&dir).number().map(|s| s.st_mode);
            let empty = rustix::fs::statat(&file, "", AtFlags::EMPTY_PATH).number().map(|s| s.st_mode);
            let made =
                openat(&dir, "new", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).number();
            (stat, empty, made.is_ok(), fs::metadata(way.join("in")).map(drop).number())
        })
    });
    assert_eq!((ends.2, ends.3), (true, Err(libc::EACCES)));
}

#[test]
fn an_open_file_lets_nobody_else_truncate_it() {
    chaosfs::require_fuse!();
    if !is_root() {
        return;
    }
    for knobs in [Knobs::strict(), Knobs::eventual()] {
        let two = Two::new(knobs).file("f", "all of it");
        chmod(two.backing.path(), 0o777);
        chmod(&two.backing.path().join("f"), 0o644);
        let file = edit(&two.a, "f");
        write_at(&file, 4, "IT IS HERE");
        let path = two.a.join("f");
        let refused = as_nobody(|| truncate_path(&path));
        assert_eq!(refused, Err(libc::EACCES), "{knobs:?}");
        assert_eq!(reread(&file), "all IT IS HERE");
        file.set_len(3).unwrap();
        assert_eq!(reread(&file), "all");
    }
}

/// `truncate(path, 0)`.
#[allow(unsafe_code, reason = "neither the standard library nor rustix has it")]
fn truncate_path(path: &std::path::Path) -> Result<i64, i32> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a string that outlives the call.
    crate::ops::done(unsafe { libc::truncate(path.as_ptr(), 0) })
}

#[test]
fn a_clock_that_decides_decides_for_every_user() {
    chaosfs::require_fuse!();
    if !is_root() {
        return;
    }
    let two = Two::new(Knobs::strict()).file("f", "");
    chmod(two.backing.path(), 0o777);
    chmod(&two.backing.path().join("f"), 0o666);
    two.pass(secs(5));
    as_nobody(|| {
        write(&append(&two.a, "f"), "x");
        put(&two.a, "g", "");
    });
    let at = 1_704_067_200 + 5;
    let time = |path: &std::path::Path| fs::metadata(path).unwrap().mtime();
    let found = ["f", "g", ""].map(|name| time(&two.a.join(name)));
    assert_eq!(found, [at; 3]);
}

#[test]
fn a_fifo_is_open_to_whoever_can_reach_it() {
    if !is_root() {
        return;
    }
    let backing = Backing::temp().unwrap();
    fs::set_permissions(backing.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let m = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(m.join("fifo")).status().unwrap().success());
    fs::write(m.join("file"), "secret").unwrap();
    fs::set_permissions(m.join("file"), PermissionsExt::from_mode(0o600)).unwrap();
    let as_nobody = |what: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", what]);
        command.current_dir(m.path()).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(!as_nobody("cat file"), "the backing decides for files");
    assert!(as_nobody("exec 3<>fifo"), "for fifos the kernel does not ask");
}
