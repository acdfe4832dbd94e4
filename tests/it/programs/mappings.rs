//! Files in memory, as programs use them: written and closed, grown under the mapping, shared by processes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{same, script};
use crate::ops::mapping::Mapping;
use crate::ops::{Twin, read_write};

const PAGE: usize = 4096;

fn sized(path: &Path, pages: usize) -> File {
    let file = read_write(path);
    file.set_len((pages * PAGE) as u64).unwrap();
    file
}

#[test]
fn what_a_mapping_wrote_arrives_though_its_file_was_closed_long_ago() {
    let t = Twin::new();
    t.same(|dir| {
        let path = dir.join("f");
        let mut map = Mapping::shared(&sized(&path, 3), 3 * PAGE);
        map.bytes()[PAGE - 2..PAGE + 2].copy_from_slice(b"page");
        let at_once = fs::read(&path).unwrap();
        map.bytes()[2 * PAGE] = b'!';
        drop(map);
        (at_once, fs::read(&path).unwrap())
    });
    assert_eq!(fs::read(t.backing().join("f")).unwrap(), fs::read(t.bare().join("f")).unwrap());
}

#[test]
fn msync_brings_what_was_written_to_the_backing() {
    let t = Twin::new();
    let file = sized(&t.mount.join("f"), 2);
    let mut map = Mapping::shared(&file, 2 * PAGE);
    map.bytes()[5000..5003].copy_from_slice(b"new");
    map.sync();
    assert_eq!(&fs::read(t.backing().join("f")).unwrap()[4999..5004], b"\0new\0");
    // So does a sync of the file by another descriptor.
    map.bytes()[5000..5003].copy_from_slice(b"old");
    File::open(t.mount.join("f")).unwrap().sync_all().unwrap();
    assert_eq!(&fs::read(t.backing().join("f")).unwrap()[4999..5004], b"\0old\0");
}

#[test]
fn a_file_grows_under_its_mapping() {
    same(|dir| {
        let file = sized(&dir.join("f"), 1);
        // More than there is, as databases do.
        let mut map = Mapping::shared(&file, 4 * PAGE);
        map.bytes()[..3].copy_from_slice(b"one");
        file.set_len(3 * PAGE as u64).unwrap();
        file.write_all_at(b"two", 2 * PAGE as u64 - 1).unwrap();
        let grown = map.bytes()[2 * PAGE - 2..2 * PAGE + 3].to_vec();
        map.bytes()[PAGE..PAGE + 5].copy_from_slice(b"three");
        file.write_all_at(b"end", 4 * PAGE as u64 - 3).unwrap();
        let end = map.bytes()[4 * PAGE - 4..].to_vec();
        file.set_len(PAGE as u64 + 2).unwrap();
        let cut = map.bytes()[PAGE..PAGE + 5].to_vec();
        file.set_len(4 * PAGE as u64).unwrap();
        (grown, end, cut, fs::read(dir.join("f")).unwrap())
    });
}

#[test]
fn a_private_mapping_of_a_growing_file_sees_it_and_keeps_its_own_pages() {
    same(|dir| {
        let file = sized(&dir.join("f"), 1);
        let mut map = Mapping::private(&file, 2 * PAGE);
        map.bytes()[..4].copy_from_slice(b"mine");
        file.set_len(2 * PAGE as u64).unwrap();
        file.write_all_at(b"theirs", 0).unwrap();
        file.write_all_at(b"theirs", PAGE as u64).unwrap();
        let seen = (map.bytes()[..6].to_vec(), map.bytes()[PAGE..PAGE + 6].to_vec());
        (seen, fs::read(dir.join("f")).unwrap())
    });
}

#[test]
fn a_removed_or_replaced_file_lives_on_in_its_mapping() {
    same(|dir| {
        fs::write(dir.join("f"), [b'a'; 2 * PAGE]).unwrap();
        fs::write(dir.join("g"), [b'b'; 2 * PAGE]).unwrap();
        let mut gone = Mapping::shared(&read_write(&dir.join("f")), 2 * PAGE);
        let mut replaced = Mapping::shared(&read_write(&dir.join("g")), 2 * PAGE);
        let first = (gone.bytes()[0], replaced.bytes()[0]);
        fs::remove_file(dir.join("f")).unwrap();
        fs::write(dir.join("new"), [b'c'; 2 * PAGE]).unwrap();
        fs::rename(dir.join("new"), dir.join("g")).unwrap();
        // Pages that were not touched before, too.
        gone.bytes()[PAGE + 1] = b'x';
        replaced.bytes()[PAGE + 1] = b'x';
        gone.sync();
        replaced.sync();
        (first, gone.bytes()[PAGE..PAGE + 3].to_vec(), replaced.bytes()[PAGE..PAGE + 3].to_vec(), list(dir))
    });
}

fn list(dir: &Path) -> Vec<(String, Vec<u8>)> {
    crate::support::list(dir).into_iter().map(|n| (n.clone(), fs::read(dir.join(n)).unwrap())).collect()
}

#[test]
fn two_processes_count_in_one_mapping() {
    // Each page has a counter; who adds holds a lock on the file. A third process only reads, by `read`.
    let said = script(
        r#"cat >count.py <<'END'
import fcntl, mmap, os, struct, sys
f = os.open("counters", os.O_RDWR)
m = mmap.mmap(f, 0)
for i in range(200):
    at = (i % 4) * 4096 + 8
    fcntl.lockf(f, fcntl.LOCK_EX)
    n, = struct.unpack_from("<Q", m, at)
    struct.pack_into("<Q", m, at, n + 1)
    fcntl.lockf(f, fcntl.LOCK_UN)
END
truncate -s 16384 counters
python3 count.py & one=$!; python3 count.py & two=$!; wait $one; wait $two
python3 -c 'import struct; b = open("counters", "rb").read(); print([struct.unpack_from("<Q", b, i * 4096 + 8)[0] for i in range(4)])'"#,
    );
    assert_eq!(said, "[100, 100, 100, 100]\n");
}

#[test]
fn a_killed_process_leaves_what_it_wrote_into_its_mapping() {
    let said = script(
        r#"truncate -s 8192 f
python3 -c 'import mmap, os
m = mmap.mmap(os.open("f", os.O_RDWR), 0); m[4000:4006] = b"before"; m[8000:8005] = b"death"; os.kill(os.getpid(), 9)' || echo $?
dd if=f bs=1 skip=4000 count=6 status=none; dd if=f bs=1 skip=8000 count=5 status=none"#,
    );
    assert!(said.contains("137\nbeforedeath"), "{said}");
}
