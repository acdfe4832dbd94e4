//! The fast lanes: the kernel answers by itself, and no program can tell. Each test makes the kernel know something, changes
//! it in one of the ways that there are, and looks again at once.

mod taken_back;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use chaosfs::{Backing, Errno, Fault, Knobs, Mount, Op, Options};

use crate::ops::{as_nobody, is_root};
use crate::support::{eventually, exists, get, is_mounted, open, put, reread, secs, size, write_at};

/// A client alone on a new backing, which may have a lane, with a directory `d` that everyone may pass through: the kernel
/// keeps no names in others.
fn alone() -> Mount {
    let m = Backing::temp().unwrap().mount(fast()).unwrap();
    fs::create_dir(m.join("d")).unwrap();
    fs::set_permissions(m.join("d"), PermissionsExt::from_mode(0o755)).unwrap();
    m
}

fn fast() -> Options {
    Options::new().knobs(Knobs::strict()).exact(false)
}

/// Another client of the same backing.
fn join(m: &Mount) -> Mount {
    m.backing().mount(Options::new().knobs(Knobs::strict())).unwrap()
}

/// How many looks of `m` chaosfs was asked for while `f` ran.
fn asked(m: &Mount, f: impl FnOnce()) -> usize {
    let events = || m.backing().history().iter().last().map_or(0, chaosfs::Event::number);
    let before = events();
    f();
    (events() - before) as usize
}

#[test]
fn what_the_kernel_knows_it_does_not_ask_again() {
    let m = alone();
    put(&m, "d/f", "text");
    let look = || {
        assert_eq!((size(&m, "d/f"), exists(&m, "d/none")), (4, false));
        let file = open(&m, "d/f");
        assert_eq!(reread(&file), "text");
        file.metadata().unwrap();
    };
    look();
    look();
    // `open` and nothing else; `close` is no event when nothing was written.
    let all: usize = (0..10).map(|_| asked(&m, look)).sum();
    assert!(all < 10 + 10, "{all} operations for 10 rounds that open one file\n{}", m.backing().history());
}

#[test]
fn with_exact_every_look_is_asked_for() {
    let m = Backing::temp().unwrap().mount(fast().exact(true)).unwrap();
    fs::create_dir(m.join("d")).unwrap();
    put(&m, "d/f", "text");
    size(&m, "d/f");
    assert_eq!(asked(&m, || assert_eq!(size(&m, "d/f"), 4)), 3, "two names and the attributes");
}

#[test]
fn a_second_client_changes_nothing_unseen() {
    let a = alone();
    for name in ["changed", "removed", "renamed", "replaced", "chmodded"] {
        put(&a, &format!("d/{name}"), "old");
    }
    let files = ["changed", "removed", "replaced"].map(|name| open(&a, &format!("d/{name}")));
    let know = || {
        files.iter().for_each(|file| drop((reread(file), file.metadata().unwrap())));
        let seen = ["changed", "removed", "renamed", "replaced", "chmodded", "made"];
        seen.map(|name| exists(&a, &format!("d/{name}")))
    };
    assert_eq!(know(), [true, true, true, true, true, false]);
    let b = join(&a);
    write_at(&File::options().write(true).open(b.join("d/changed")).unwrap(), 0, "NEW!");
    fs::remove_file(b.join("d/removed")).unwrap();
    fs::rename(b.join("d/renamed"), b.join("d/moved")).unwrap();
    put(&b, "d/tmp", "other");
    fs::rename(b.join("d/tmp"), b.join("d/replaced")).unwrap();
    fs::set_permissions(b.join("d/chmodded"), PermissionsExt::from_mode(0o600)).unwrap();
    put(&b, "d/made", "made");

    assert_eq!(files[0].metadata().unwrap().len(), 4);
    assert_eq!(reread(&files[0]), "NEW!");
    assert_eq!((reread(&files[1]), files[1].metadata().unwrap().nlink()), ("old".into(), 0));
    assert_eq!(reread(&files[2]), "old", "the file that was replaced");
    assert_eq!(know(), [true, false, false, true, true, true]);
    assert_eq!((get(&a, "d/changed"), get(&a, "d/replaced")), ("NEW!".into(), "other".into()));
    assert_eq!((get(&a, "d/moved"), get(&a, "d/made")), ("old".into(), "made".into()));
    assert_eq!(fs::metadata(a.join("d/chmodded")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_is_open_for_reading_shows_each_write_of_another_client_at_once() {
    let a = alone();
    put(&a, "d/f", "0000");
    let file = open(&a, "d/f");
    assert_eq!(reread(&file), "0000");
    let b = join(&a);
    let writer = File::options().write(true).open(b.join("d/f")).unwrap();
    for n in 1..200 {
        let text = format!("{n:04}");
        write_at(&writer, 0, &text);
        assert_eq!(reread(&file), text);
    }
}

#[test]
fn a_fault_hits_what_the_kernel_knew_and_the_lane_opens_again_after_it() {
    let m = alone();
    put(&m, "d/f", "text");
    let file = open(&m, "d/f");
    let look = || (fs::metadata(m.join("d/f")).is_ok(), exists(&m, "d/none"), file.metadata().is_ok());
    assert_eq!(reread(&file), "text");
    assert_eq!(look(), (true, false, true));
    let fails = |op: Op| m.inject(Fault::fail(Errno::EIO).on(op).path("d/f"));
    let read = |buf: &mut [u8]| file.read_at(buf, 0).map_err(|e| e.raw_os_error());
    {
        let fault = fails(Op::Read);
        for n in 1..4 {
            assert_eq!(read(&mut [0; 4]), Err(Some(5)), "the {n}th");
        }
        assert!(fault.hits() >= 3);
        assert_eq!(look(), (true, false, true));
    }
    assert_eq!(read(&mut [0; 4]), Ok(4));
    {
        let _fault = fails(Op::Lookup);
        assert_eq!(look(), (false, false, true));
    }
    {
        // It is for another file.
        let _fault = m.inject(Fault::fail(Errno::EIO).path("d/other"));
        assert_eq!((read(&mut [0; 4]), look()), (Ok(4), (true, false, true)));
        assert!(asked(&m, || _ = look()) > 2, "a rule is in force");
    }
    look();
    // The file has been read past the kernel since, but names and attributes are its own again.
    assert_eq!(asked(&m, || _ = look()), 0);
}

#[test]
fn turned_knobs_end_what_the_kernel_knew() {
    let m = alone();
    put(&m, "d/f", "text");
    assert_eq!((size(&m, "d/f"), exists(&m, "d/none")), (4, false));
    m.set_knobs(Knobs::eventual().drop_prob(0.0)).unwrap();
    assert!(asked(&m, || assert_eq!((size(&m, "d/f"), exists(&m, "d/none")), (4, false))) >= 2);
    m.set_knobs(Knobs::strict()).unwrap();
    size(&m, "d/f");
    assert_eq!(asked(&m, || _ = size(&m, "d/f")), 0);
}

#[test]
fn a_lane_is_open_to_the_last_client_that_is_left() {
    let a = alone();
    put(&a, "d/f", "text");
    let b = join(&a);
    size(&a, "d/f");
    assert!(!a.is_fast() && asked(&a, || _ = size(&a, "d/f")) > 0, "two clients");
    put(&b, "d/f", "longer");
    b.unmount().unwrap();
    size(&a, "d/f");
    assert_eq!(asked(&a, || assert_eq!(size(&a, "d/f"), 6)), 0);
    assert_eq!(get(&a, "d/f"), "longer");
}

#[test]
fn own_changes_are_seen_through_every_name_and_descriptor() {
    let m = alone();
    put(&m, "d/f", "text");
    let (reader, writer) = (open(&m, "d/f"), File::options().write(true).open(m.join("d/f")).unwrap());
    fs::hard_link(m.join("d/f"), m.join("d/g")).unwrap();
    for n in 0..100_usize {
        let text = "x".repeat(n + 1);
        writer.set_len(0).unwrap();
        write_at(&writer, 0, &text);
        assert_eq!((reread(&reader), get(&m, "d/g"), size(&m, "d/f")), (text.clone(), text, n as u64 + 1));
    }
    fs::remove_file(m.join("d/f")).unwrap();
    assert_eq!(fs::metadata(m.join("d/g")).unwrap().nlink(), 1);
    let before = fs::metadata(m.join("d")).unwrap();
    fs::create_dir(m.join("d/sub")).unwrap();
    let after = fs::metadata(m.join("d")).unwrap();
    assert_eq!(after.nlink(), before.nlink() + 1);
    assert!((after.mtime(), after.mtime_nsec()) >= (before.mtime(), before.mtime_nsec()));
}

#[test]
fn bytes_that_were_kept_are_those_of_the_last_write_whoever_reads_them() {
    let m = alone();
    for n in 0..100 {
        let text = format!("{n:08}");
        put(&m, "d/f", &text);
        // Twice: the second time out of the kernel's pages.
        assert_eq!((get(&m, "d/f"), get(&m, "d/f")), (text.clone(), text));
    }
}

#[test]
fn a_reader_never_finds_older_bytes_than_before_while_another_thread_writes() {
    let m = alone();
    put(&m, "d/f", "00000000");
    let (reader, writer) = (open(&m, "d/f"), File::options().write(true).open(m.join("d/f")).unwrap());
    let written = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|s| {
        s.spawn(|| {
            for n in 1..2000_u64 {
                write_at(&writer, 0, &format!("{n:08}"));
                written.store(n, std::sync::atomic::Ordering::SeqCst);
            }
        });
        loop {
            let known = written.load(std::sync::atomic::Ordering::SeqCst);
            let seen: u64 = reread(&reader).parse().unwrap();
            assert!(seen >= known, "{known} was written, and then {seen} was read");
            if known >= 1999 {
                break;
            }
        }
    });
}

#[test]
fn a_directory_that_is_closed_to_others_closes_what_the_kernel_knew_in_it() {
    if !is_root() {
        return; // only root has other users to try it with
    }
    let m = alone();
    fs::set_permissions(m.path(), PermissionsExt::from_mode(0o755)).unwrap();
    put(&m, "d/f", "text");
    let look = || as_nobody(|| fs::metadata(m.join("d/f")).map(drop).map_err(|e| e.raw_os_error()));
    let chmod = |mode| fs::set_permissions(m.join("d"), PermissionsExt::from_mode(mode)).unwrap();
    assert_eq!((size(&m, "d/f"), look()), (4, Ok(())));
    chmod(0o700);
    assert_eq!((size(&m, "d/f"), look()), (4, Err(Some(13))));
    chmod(0o711);
    assert_eq!((size(&m, "d/f"), look()), (4, Ok(())));
    let acl = |change: &str| {
        let done =
            std::process::Command::new("setfacl").args([change, "u:nobody:---"]).arg(m.join("d")).status();
        assert!(done.expect("setfacl, of the package acl").success());
    };
    acl("-m");
    assert_eq!((size(&m, "d/f"), look()), (4, Err(Some(13))));
}

#[test]
fn bits_that_a_write_or_an_access_list_takes_away_are_seen_to_be_gone() {
    let m = alone();
    put(&m, "d/f", "text");
    let mode = || fs::metadata(m.join("d/f")).unwrap().mode() & 0o7777;
    fs::set_permissions(m.join("d/f"), PermissionsExt::from_mode(0o4777)).unwrap();
    assert_eq!(mode(), 0o4777);
    if is_root() {
        fs::set_permissions(m.path(), PermissionsExt::from_mode(0o755)).unwrap();
        as_nobody(|| {
            fs::OpenOptions::new().write(true).open(m.join("d/f")).unwrap().write_at(b"T", 0).unwrap()
        });
        assert_eq!(mode(), 0o777);
    }
    fs::set_permissions(m.join("d/f"), PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(mode(), 0o640);
    // Asked for alone, it is not sent along with a change time that has moved.
    let only_mode = || {
        let mode = rustix::fs::StatxFlags::MODE;
        let found = rustix::fs::statx(rustix::fs::CWD, m.join("d/f"), rustix::fs::AtFlags::empty(), mode);
        u32::from(found.unwrap().stx_mode) & 0o7777
    };
    assert_eq!(only_mode(), 0o640);
    let done = std::process::Command::new("setfacl").args(["-m", "g::rwx"]).arg(m.join("d/f")).status();
    assert!(done.expect("setfacl, of the package acl").success());
    assert_eq!((only_mode(), mode()), (0o670, 0o670));
}

#[test]
fn a_working_directory_stays_one_when_the_lane_closes() {
    let a = alone();
    fs::create_dir(a.join("d/sub")).unwrap();
    let pwd = || {
        let script = "cd d/sub && pwd -P && read -r line && ls .. && pwd -P && stat . >/dev/null && pwd -P";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", script]).current_dir(a.path());
        shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut inside = pwd();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(inside.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let b = join(&a);
    put(&b, "d/made", "");
    std::io::Write::write_all(&mut inside.stdin.take().unwrap(), b"go on\n").unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert!(inside.wait().unwrap().success());
    let here = fs::canonicalize(a.join("d/sub")).unwrap();
    let here: PathBuf = here;
    assert_eq!(line.trim_end(), here.to_str().unwrap());
    assert_eq!(rest, format!("made\nsub\n{0}\n{0}\n", here.display()));
}

#[test]
fn who_changes_the_backing_behind_a_fast_mount_is_noticed_all_the_same() {
    let m = alone();
    put(&m, "d/f", "text");
    assert_eq!((get(&m, "d/f"), exists(&m, "d/new")), ("text".into(), false));
    fs::write(m.backing().path().join("d/f"), "outside").unwrap();
    fs::write(m.backing().path().join("d/new"), "").unwrap();
    eventually("the change is seen", || get(&m, "d/f") == "outside" && exists(&m, "d/new"));
}

#[test]
fn a_mapping_and_reading_are_one_in_a_lane_too() {
    let m = alone();
    put(&m, "d/f", &"a".repeat(8192));
    let script = "
import mmap, os, sys
path = sys.argv[1]
reader = os.open(path, os.O_RDONLY)
assert os.pread(reader, 4, 0) == b'aaaa'
writer = os.open(path, os.O_RDWR)
shared = mmap.mmap(writer, 8192)
for n in range(200):
    text = b'%04d' % n
    shared[0:4] = text
    shared.flush()
    assert os.pread(reader, 4, 0) == text, (os.pread(reader, 4, 0), text)
    assert open(path, 'rb').read(4) == text
    os.pwrite(writer, text, 4096)
    assert shared[4096:4100] == text and os.pread(reader, 4, 4096) == text
";
    let done =
        std::process::Command::new("python3").args(["-c", script]).arg(m.join("d/f")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(is_mounted(m.path()));
}

#[test]
fn clients_that_come_and_go_in_the_midst_of_reading_hide_nothing_and_hang_nobody() {
    let a = alone();
    put(&a, "d/f", "00000000");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let deadline = std::time::Instant::now() + secs(20);
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                let mut last = 0;
                let kept = open(&a, "d/f");
                while !stop.load(std::sync::atomic::Ordering::Acquire) {
                    for text in [reread(&kept), get(&a, "d/f")] {
                        let seen: u64 = text.parse().unwrap();
                        assert!(seen >= last, "{last} and then {seen}");
                        last = seen;
                    }
                }
            });
        }
        for n in 1..60_u64 {
            assert!(std::time::Instant::now() < deadline, "it takes too long");
            let b = join(&a);
            write_at(&File::options().write(true).open(b.join("d/f")).unwrap(), 0, &format!("{n:08}"));
            assert_eq!(get(&a, "d/f"), format!("{n:08}"));
            let _fault = a.inject(Fault::fail(Errno::EIO).path("nothing"));
            b.unmount().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Release);
    });
}
