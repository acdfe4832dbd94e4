//! Operations on the bytes of files, as on the bare directory: offsets, holes, sizes, mappings, copies.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::SeekFrom as To;
use rustix::io::ReadWriteFlags;

use crate::ops::mapping::Mapping;
use crate::ops::{Number, Twin, fallocate, read_write, set_flags, shell};

const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
const PUNCH: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32 | KEEP_SIZE;
const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

/// A file of `n` pages, each of its own letter.
fn pages(path: &Path, n: u8) -> File {
    let mut file = read_write(path);
    for letter in (b'a'..).take(n as usize) {
        file.write_all(&[letter; 4096]).unwrap();
    }
    file
}

#[test]
fn room_is_allocated_punched_and_zeroed() {
    let t = Twin::new();
    t.same(|d| {
        let file = pages(&d.join("f"), 8);
        let modes =
            [(0, 30_000, 20_000), (KEEP_SIZE, 90_000, 4096), (PUNCH, 5000, 9000), (PUNCH, 49_000, 100_000)];
        let mut ends: Vec<_> =
            modes.into_iter().map(|(mode, at, len)| fallocate(&file, mode, at, len)).collect();
        ends.push(fallocate(&file, 0, 0, 0));
        // Not every file system can zero a range; who cannot says so through the mount as well.
        ends.push(fallocate(&file, ZERO, 20_000, 5000));
        let read_only = File::open(d.join("f")).unwrap();
        ends.push(fallocate(&read_only, 0, 0, 100));
        (ends, file.metadata().unwrap().size(), fs::read(d.join("f")).unwrap())
    });
}

#[test]
fn data_and_holes_are_found() {
    let t = Twin::new();
    t.same(|d| {
        let file = read_write(&d.join("f"));
        file.set_len(40 << 20).unwrap();
        file.write_all_at(&[1; 8192], 8 << 20).unwrap();
        file.write_all_at(&[2; 4096], 32 << 20).unwrap();
        let at = [0, 5, 8 << 20, (8 << 20) + 100, 20 << 20, 32 << 20, (32 << 20) + 4096, 40 << 20, 41 << 20];
        let found = at.map(|at| {
            let of = |whence| rustix::fs::seek(&file, whence).number();
            (of(To::Data(at)), of(To::Hole(at)))
        });
        let blocks = file.metadata().unwrap().blocks();
        let mut ends = Vec::new();
        for whence in [SeekFrom::End(-3), SeekFrom::Current(-1), SeekFrom::Current(-(1 << 40))] {
            ends.push((&file).seek(whence).number());
        }
        (found, blocks, ends)
    });
}

#[test]
fn ranges_are_copied_by_the_server() {
    let t = Twin::new();
    t.same(|d| {
        let (from, to) = (pages(&d.join("from"), 5), read_write(&d.join("to")));
        let copy = |mut at: u64, mut to_at: u64, len| {
            let n = rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut to_at), len).number();
            (n, at, to_at)
        };
        let ends =
            [copy(0, 0, 4096), copy(6000, 20_000, 3000), copy(16_000, 0, 1 << 20), copy(1 << 20, 0, 10)];
        let mut overlapping = 100;
        let same =
            rustix::fs::copy_file_range(&from, Some(&mut 0), &from, Some(&mut overlapping), 500).number();
        let read_only = File::open(d.join("to")).unwrap();
        let refused = rustix::fs::copy_file_range(&from, None, &read_only, None, 10).number();
        let whole = fs::copy(d.join("from"), d.join("copy")).number();
        (ends, same, refused, whole, fs::read(d.join("to")).unwrap(), fs::read(d.join("copy")).unwrap())
    });
}

#[test]
fn nothing_appended_is_lost() {
    let t = Twin::new();
    let lines = |d: &Path, outside: &Path| {
        let path = d.join("log");
        fs::write(&path, "").unwrap();
        std::thread::scope(|s| {
            for who in ["a", "b", "outside"] {
                let path = if who == "outside" { outside.join("log") } else { path.clone() };
                s.spawn(move || {
                    let mut file = append(&path);
                    (0..300).for_each(|i| file.write_all(format!("{who} {i}\n").as_bytes()).unwrap());
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines.dedup();
        lines.len()
    };
    assert_eq!(lines(t.bare(), t.bare()), 900);
    assert_eq!(lines(t.mount.path(), t.backing()), 900);
}

#[test]
fn appending_can_be_turned_on_and_off_while_a_file_is_open() {
    let t = Twin::new();
    let text = t.both(|d| {
        fs::write(d.join("f"), "0123456789").unwrap();
        let mut file = read_write(&d.join("f"));
        file.write_all(b"A").unwrap();
        set_flags(&file, libc::O_APPEND);
        file.write_all(b"B").unwrap();
        // At the end, although an offset is given: so it is on Linux.
        file.write_all_at(b"C", 3).unwrap();
        let place = file.stream_position().unwrap();
        set_flags(&file, 0);
        file.write_all_at(b"D", 5).unwrap();
        let synced =
            rustix::io::pwritev2(&file, &[std::io::IoSlice::new(b"E")], 6, ReadWriteFlags::DSYNC).number();
        let at_end =
            rustix::io::pwritev2(&file, &[std::io::IoSlice::new(b"F")], 0, ReadWriteFlags::APPEND).number();
        (fs::read_to_string(d.join("f")).unwrap(), place, synced, at_end)
    });
    assert_eq!(text.0, "A1234DE789BCF");
}

#[test]
fn opening_truncates_creates_and_excludes() {
    let t = Twin::new();
    t.same(|d| {
        let path = d.join("f");
        let open = |flags: i32| {
            let mut how = OpenOptions::new();
            how.read(true)
                .write(flags & libc::O_RDWR != 0)
                .mode(0o640)
                .custom_flags(flags & !libc::O_ACCMODE);
            let end = how.open(&path).map(drop).number();
            (end, fs::metadata(&path).map(|m| m.size()).number())
        };
        let rw = libc::O_RDWR;
        let mut ends =
            vec![open(rw), open(rw | libc::O_CREAT | libc::O_EXCL), open(rw | libc::O_CREAT | libc::O_EXCL)];
        fs::write(&path, "content").unwrap();
        ends.extend([open(rw | libc::O_CREAT), open(libc::O_TRUNC)]);
        fs::write(&path, "content").unwrap();
        ends.extend([
            open(rw | libc::O_CREAT | libc::O_TRUNC),
            open(libc::O_DIRECTORY),
            open(libc::O_NOFOLLOW),
        ]);
        std::os::unix::fs::symlink("f", d.join("link")).unwrap();
        let link =
            |flags| OpenOptions::new().read(true).custom_flags(flags).open(d.join("link")).map(drop).number();
        (ends, link(libc::O_NOFOLLOW), link(0), OpenOptions::new().write(true).open(d).map(drop).number())
    });
}

#[test]
fn synchronous_and_direct_files_read_what_was_written() {
    let t = Twin::new();
    for flags in [libc::O_SYNC, libc::O_DSYNC] {
        t.same(|d| {
            let path = d.join("f");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(flags)
                .open(&path)
                .unwrap();
            file.write_all(b"safe").unwrap();
            file.sync_all().unwrap();
            file.sync_data().unwrap();
            (fs::read(&path).unwrap(), File::open(d).unwrap().sync_all().number())
        });
    }
    // Through the mount alone: whether the file system under the bare directory offers it is its own business.
    let path = t.mount.join("direct");
    let mut direct = OpenOptions::new();
    direct.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = direct.open(&path).unwrap();
    file.write_all_at(&[7; 8192], 4096).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(t.backing().join("direct"))
        .unwrap()
        .write_all_at(&[8; 4096], 4096)
        .unwrap();
    let mut bytes = vec![0; 12_288];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[0], bytes[4096], bytes[8192]), (0, 8, 7));
}

#[test]
fn a_shared_mapping_is_one_with_reading_and_writing() {
    let t = Twin::new();
    t.same(|d| {
        let file = pages(&d.join("f"), 4);
        let mut map = Mapping::shared(&file, 4 * 4096);
        map.bytes()[5000..5003].copy_from_slice(b"map");
        let mut seen = [0; 5];
        file.read_exact_at(&mut seen, 4999).unwrap();
        file.write_all_at(b"write", 9000).unwrap();
        let through_map = map.bytes()[8999..9006].to_vec();
        map.bytes()[0] = b'Z';
        map.sync();
        let by_name = fs::read(d.join("f")).unwrap();
        drop(map);
        (seen, through_map, by_name, file.metadata().unwrap().size())
    });
    // And it arrives where it belongs.
    assert_eq!(fs::read(t.backing().join("f")).unwrap(), fs::read(t.bare().join("f")).unwrap());
}

#[test]
fn a_mapping_of_an_appending_file_is_written_where_it_belongs() {
    let t = Twin::new();
    t.same(|d| {
        drop(pages(&d.join("f"), 2));
        let file = OpenOptions::new().read(true).append(true).open(d.join("f")).unwrap();
        let mut map = Mapping::shared(&file, 2 * 4096);
        map.bytes()[4096] = b'!';
        map.sync();
        drop(map);
        let bytes = fs::read(d.join("f")).unwrap();
        (bytes.len(), bytes[4096], bytes[0])
    });
}

#[test]
fn a_mapping_outlives_its_descriptor_and_its_name() {
    let t = Twin::new();
    t.same(|d| {
        let file = pages(&d.join("f"), 2);
        let mut map = Mapping::shared(&file, 2 * 4096);
        drop(file);
        fs::hard_link(d.join("f"), d.join("g")).unwrap();
        fs::remove_file(d.join("f")).unwrap();
        map.bytes()[4095] = b'!';
        map.sync();
        drop(map);
        fs::read(d.join("g")).unwrap()
    });
}

#[test]
fn a_private_mapping_is_private() {
    let t = Twin::new();
    t.same(|d| {
        let file = pages(&d.join("f"), 2);
        let mut map = Mapping::private(&file, 2 * 4096);
        map.bytes()[..2].copy_from_slice(b"me");
        (map.bytes()[..3].to_vec(), fs::read(d.join("f")).unwrap()[..3].to_vec())
    });
}

#[test]
fn a_file_beyond_four_gibibytes_is_sparse() {
    let t = Twin::new();
    t.same(|d| {
        let far = (5 << 30) + 123;
        let file = read_write(&d.join("f"));
        file.write_all_at(b"far", far).unwrap();
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, far - 3).unwrap();
        let meta = file.metadata().unwrap();
        let small = meta.blocks() < 1000;
        file.set_len(far + 1).unwrap();
        let beyond = file.write_at(b"x", i64::MAX as u64).number();
        let end = file.read_at(&mut [0; 8], far).unwrap();
        (bytes, meta.size(), small, end, beyond, file.set_len(0).number(), file.metadata().unwrap().blocks())
    });
}

#[test]
fn reads_end_where_the_file_ends_and_writes_leave_holes() {
    let t = Twin::new();
    t.same(|d| {
        let file = read_write(&d.join("f"));
        file.write_all_at(b"tail", 10_000).unwrap();
        let mut bytes = vec![9; 20_000];
        let reads = [0, 9_999, 10_003, 10_004, 50_000].map(|at| file.read_at(&mut bytes, at).number());
        file.set_len(10_002).unwrap();
        file.set_len(10_010).unwrap();
        // What was cut off does not come back.
        let again = fs::read(d.join("f")).unwrap();
        let read_only = File::open(d.join("f")).unwrap();
        let write_only = OpenOptions::new().write(true).open(d.join("f")).unwrap();
        let refused = (read_only.write_at(b"x", 0).number(), write_only.read_at(&mut bytes, 0).number());
        (
            reads,
            again,
            refused,
            read_only.set_len(0).number(),
            File::open(d).unwrap().read(&mut bytes).number(),
        )
    });
}

#[test]
fn large_writes_and_reads_arrive_whole() {
    let t = Twin::new();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    t.same(|d| {
        let mut file = read_write(&d.join("f"));
        file.write_all(&bytes).unwrap();
        fs::read(d.join("f")).unwrap() == bytes
    });
    assert!(
        t.both(|d| shell(d, "cmp f f && dd if=f of=g bs=7777 2>/dev/null && cmp f g"))
            == (Some(0), String::new())
    );
}

#[test]
fn a_limit_on_file_sizes_holds() {
    let t = Twin::new();
    let script = "ulimit -f 8; trap '' XFSZ; head -c 9000 /dev/zero >f 2>/dev/null; echo $?; stat -c %s f";
    t.same(|d| shell(d, script));
}
