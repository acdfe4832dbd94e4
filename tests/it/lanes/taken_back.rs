//! What a kernel still has when its lane closes or opens again, and who may have to wait for that.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use chaosfs::{Errno, Fault, Knobs, Op};

use super::{alone, join};
use crate::support::{append, open, put, reread, secs, write, write_at};

/// Runs a program of Python's on a file, for at most this long: None when it takes longer.
fn python(script: &str, file: &std::path::Path) -> Option<Output> {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    told.recv_timeout(secs(10)).ok().map(Result::unwrap)
}

#[test]
fn a_mapping_that_was_written_and_not_synced_does_not_stand_in_the_way_of_truncating() {
    let m = alone();
    put(&m, "d/f", &"a".repeat(8192));
    let script = "
import mmap, os, sys
path = sys.argv[1]
reader = os.open(path, os.O_RDONLY)
assert os.pread(reader, 4, 0) == b'aaaa'
writer = os.open(path, os.O_RDWR)
shared = mmap.mmap(writer, 4096)
for size in (4096, 5000, 4500, 8192):
    shared[0:4] = b'%04d' % size
    os.ftruncate(writer, size)
    assert os.pread(reader, 4, 0) == b'%04d' % size
    assert os.fstat(reader).st_size == size
    shared[0:4] = b'dirt'
    os.truncate(path, size - 1)
    shared[0:4] = b'more'
    os.close(os.open(path, os.O_RDWR | os.O_TRUNC))
    assert os.pread(reader, 4, 0) == b''
    os.ftruncate(writer, 8192)
    assert os.pread(reader, 4, 0) == bytes(4)
";
    let done = python(script, &m.join("d/f")).expect("nobody waits for himself");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_was_read_while_others_were_there_is_not_kept_when_the_lane_opens_again() {
    let a = alone();
    put(&a, "d/f", "old!");
    let file = open(&a, "d/f");
    assert_eq!(reread(&file), "old!");
    a.set_knobs(Knobs::strict().file_ttl(secs(1000))).unwrap();
    assert_eq!(reread(&file), "old!");
    let b = join(&a);
    let other = File::options().write(true).open(b.join("d/f")).unwrap();
    let time = other.metadata().unwrap().modified().unwrap();
    write_at(&other, 0, "NEW!");
    // Nothing about it says that it has changed.
    other.set_modified(time).unwrap();
    drop(other);
    assert_eq!(reread(&file), "old!", "it has a cache");
    b.unmount().unwrap();
    a.set_knobs(Knobs::strict()).unwrap();
    assert_eq!(reread(&file), "NEW!", "it has none");
}

#[test]
fn reading_moves_the_access_time_whenever_the_backing_wants_it() {
    let m = alone();
    put(&m, "d/f", "text");
    fs::write(m.backing().path().join("bare"), "text").unwrap();
    let there = [m.join("d/f"), m.backing().path().join("bare")];
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let moved = |change: &dyn Fn(&std::path::Path)| {
        there.each_ref().map(|path| {
            let read = || fs::read(path).unwrap();
            read();
            File::open(path).unwrap().set_times(fs::FileTimes::new().set_accessed(old)).unwrap();
            change(path);
            read();
            fs::metadata(path).unwrap().atime() > 1_000_000_000
        })
    };
    let touched = moved(&|_| {});
    assert_eq!(touched[0], touched[1], "after its time was set");
    let changed = moved(&|path| fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap());
    assert_eq!(changed[0], changed[1], "after its mode was set");
    let named = moved(&|path| fs::hard_link(path, path.with_extension("link")).unwrap());
    assert_eq!(named[0], named[1], "after it got a name");
    let lost = moved(&|path| fs::remove_file(path.with_extension("link")).unwrap());
    assert_eq!(lost[0], lost[1], "after it lost a name");
    let renamed = moved(&|path| {
        fs::rename(path, path.with_extension("moved")).unwrap();
        fs::rename(path.with_extension("moved"), path).unwrap();
    });
    assert_eq!(renamed[0], renamed[1], "after it was renamed");
    // And when it had been read since its times were set, so that its pages are there.
    let renamed_again = there.map(|path| {
        fs::read(&path).unwrap();
        let time = || fs::metadata(&path).map(|m| (m.atime(), m.atime_nsec())).unwrap();
        let before = time();
        // The clock of files moves in steps.
        (0..2000).any(|_| {
            fs::rename(&path, path.with_extension("moved")).unwrap();
            fs::rename(path.with_extension("moved"), &path).unwrap();
            fs::read(&path).unwrap();
            time() > before
        })
    });
    assert_eq!(renamed_again[0], renamed_again[1], "after it was renamed once more");
}

#[test]
fn what_is_sent_out_of_a_file_that_was_opened_in_a_lane_is_what_there_is_now() {
    let a = alone();
    put(&a, "d/f", "0000");
    let file = open(&a, "d/f");
    let b = join(&a);
    let writer = File::options().write(true).open(b.join("d/f")).unwrap();
    for n in 1..20 {
        let text = format!("{n:04}");
        // At once, and when it is flushed.
        let delay = if n < 10 { secs(0) } else { secs(1000) };
        b.set_knobs(Knobs::strict().write_delay(delay)).unwrap();
        write_at(&writer, 0, &text);
        writer.sync_all().unwrap();
        let (mut sent, into) = ([0; 4], tempfile::tempfile().unwrap());
        rustix::fs::sendfile(&into, &file, Some(&mut 0), 4).unwrap();
        into.read_exact_at(&mut sent, 0).unwrap();
        assert_eq!(std::str::from_utf8(&sent), Ok(&*text));
    }
}

#[test]
fn files_that_are_first_seen_while_another_client_comes_are_as_that_one_leaves_them() {
    let a = alone();
    let rounds: usize = std::env::var("CHAOSFS_FUZZ_CASES").map_or(10, |n| n.parse().unwrap());
    for round in 0..rounds {
        let names: Vec<String> = (0..100).map(|n| format!("d/{round}-{n}")).collect();
        // The kernel of `a` has not heard of them.
        let below = |name: &String| a.backing().path().join(name);
        names.iter().for_each(|name| fs::write(below(name), "four").unwrap());
        let files: Vec<File> = std::thread::scope(|s| {
            let opened = s.spawn(|| names.iter().map(|name| open(&a, name)).collect());
            let b = join(&a);
            for name in &names {
                File::options().append(true).open(b.join(name)).unwrap().write_all(b"more").unwrap();
            }
            opened.join().unwrap()
        });
        let sizes: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().len()).collect();
        assert_eq!(sizes, vec![8; 100], "in round {round}");
        names.iter().for_each(|name| fs::remove_file(below(name)).unwrap());
    }
}

#[test]
fn pages_from_before_the_lane_opened_are_not_used_in_it() {
    let a = alone();
    put(&a, "d/f", "old!");
    let b = join(&a);
    let file = open(&a, "d/f");
    // Out of pages, whatever `open` was told.
    rustix::fs::sendfile(tempfile::tempfile().unwrap(), &file, Some(&mut 0), 4).unwrap();
    let other = File::options().write(true).open(b.join("d/f")).unwrap();
    let time = other.metadata().unwrap().modified().unwrap();
    write_at(&other, 0, "NEW!");
    other.set_modified(time).unwrap();
    drop(other);
    b.unmount().unwrap();
    assert_eq!(reread(&open(&a, "d/f")), "NEW!");
}

#[test]
fn what_a_cache_has_shown_is_read_anew_when_it_is_over() {
    let backing = chaosfs::Backing::options().clock(chaosfs::Clock::manual()).temp().unwrap();
    let a = backing.mount(super::fast()).unwrap();
    put(&a, "f", "old!");
    let file = open(&a, "f");
    assert_eq!(reread(&file), "old!");
    a.set_knobs(Knobs::strict().file_ttl(secs(10))).unwrap();
    assert_eq!(reread(&file), "old!");
    let b = join(&a);
    write_at(&File::options().write(true).open(b.join("f")).unwrap(), 0, "NEW!");
    assert_eq!(reread(&file), "old!");
    backing.clock().advance(secs(10));
    assert_eq!(reread(&file), "NEW!");
}

#[test]
fn a_file_that_grows_under_who_has_it_open_is_read_to_its_new_end() {
    let a = alone();
    put(&a, "d/f", "one\n");
    let file = open(&a, "d/f");
    let read = || {
        let mut bytes = [0; 40];
        let n = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    assert_eq!(read(), "one\n");
    let b = join(&a);
    let mut meant = "one\n".to_owned();
    for n in 0..20 {
        let more = format!("line {n}\n");
        meant = if n == 10 { "again\n".to_owned() } else { meant + &more };
        if n == 10 {
            put(&b, "d/f", &meant);
        } else {
            write(&append(&b, "d/f"), &more);
        }
        assert_eq!(read(), meant[..meant.len().min(40)]);
        // Also where each read is to reach chaosfs.
        let fault = a.inject(Fault::fail(Errno::EIO).on(Op::Read).path("other"));
        assert_eq!(read(), meant[..meant.len().min(40)]);
        drop(fault);
    }
}

#[test]
fn a_read_of_a_page_that_hangs_holds_up_nobody_else() {
    let a = alone();
    put(&a, "d/f", "text");
    put(&a, "d/g", "text");
    let file = open(&a, "d/f");
    assert_eq!(reread(&file), "text");
    let hang = a.inject(Fault::hang().on(Op::Read).path("d/f"));
    let b = join(&a);
    std::thread::scope(|s| {
        let reader = s.spawn(|| reread(&file));
        assert!(a.wait_parked(1, secs(10)));
        let started = std::time::Instant::now();
        write_at(&File::options().write(true).open(b.join("d/f")).unwrap(), 0, "NEW!");
        put(&b, "d/g", "other");
        a.set_knobs(Knobs::strict()).unwrap();
        assert!(started.elapsed() < secs(5), "it took {:?}", started.elapsed());
        assert_eq!(a.parked(), 1);
        drop(hang);
        assert_eq!(reader.join().unwrap(), "NEW!");
    });
    assert_eq!(reread(&file), "NEW!");
}

#[test]
fn what_is_sent_or_mapped_out_of_a_file_is_what_another_client_wrote_last() {
    let backing = chaosfs::Backing::temp().unwrap();
    let mount = || backing.mount(chaosfs::Options::new().knobs(Knobs::strict()).exact(true)).unwrap();
    let (a, b) = (mount(), mount());
    put(&a, "f", "0000");
    let (file, writer) = (open(&a, "f"), File::options().write(true).open(b.join("f")).unwrap());
    let script = "
import mmap, os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(f, 4, prot=mmap.PROT_READ)
for line in sys.stdin:
    print(m[:].decode(), flush=True)
";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(a.join("f")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut mapper = command.spawn().unwrap();
    let (mut ask, told) = (mapper.stdin.take().unwrap(), mapper.stdout.take().unwrap());
    let mut told = std::io::BufRead::lines(std::io::BufReader::new(told));
    for n in 1..20 {
        let text = format!("{n:04}");
        write_at(&writer, 0, &text);
        ask.write_all(b"\n").unwrap();
        assert_eq!(told.next().unwrap().unwrap(), text, "mapped");
        let mut sent = tempfile::tempfile().unwrap();
        assert_eq!(rustix::fs::sendfile(&sent, &file, Some(&mut 0), 4), Ok(4));
        std::io::Seek::rewind(&mut sent).unwrap();
        assert_eq!(reread(&sent), text, "sent");
    }
    drop(ask);
    assert!(mapper.wait().unwrap().success());
}
