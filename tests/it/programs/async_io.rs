//! Files by way of the kernel's queues: `io_uring`, and the older `io_submit`.
#![allow(unsafe_code, reason = "the kernel reads and writes buffers while nobody is looking")]

use std::ffi::CString;
use std::fs;
use std::io::{self, Seek};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use chaosfs::{Errno, Fault, Knobs, Op};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};

use super::same;
use crate::ops::{Twin, done, read_write};
use crate::support::{self, Two, list};

/// A ring of one program.
struct Ring(IoUring);

impl Ring {
    /// None where the machine forbids rings, as many containers do.
    fn new() -> Option<Ring> {
        match IoUring::new(32) {
            Ok(ring) => Some(Ring(ring)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                eprintln!("io_uring is forbidden here ({e}): its tests find nothing");
                None
            }
            Err(e) => panic!("a ring: {e}"),
        }
    }

    /// Does all of these, and answers what each came to, in the order of the entries.
    fn run<const N: usize>(&mut self, entries: [Entry; N]) -> [i32; N] {
        for (number, entry) in entries.into_iter().enumerate() {
            // SAFETY: the callers keep buffers and paths until this function has seen every entry completed.
            unsafe { self.0.submission().push(&entry.user_data(number as u64)).unwrap() };
        }
        let mut ends = [i32::MIN; N];
        // Waiting may end early.
        for _ in 0..100 {
            let left = ends.iter().filter(|end| **end == i32::MIN).count();
            if left == 0 {
                return ends;
            }
            self.0.submit_and_wait(left).unwrap();
            for completed in self.0.completion() {
                ends[completed.user_data() as usize] = completed.result();
            }
        }
        panic!("{N} were asked for: {ends:?}")
    }

    fn one(&mut self, entry: Entry) -> i32 {
        self.run([entry])[0]
    }
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

const CWD: types::Fd = types::Fd(libc::AT_FDCWD);

#[test]
fn a_ring_opens_writes_syncs_reads_and_closes() {
    same(|dir| {
        let mut ring = Ring::new()?;
        let (path, missing) = (c(&dir.join("f")), c(&dir.join("missing")));
        let open =
            |path: &CString, flags| opcode::OpenAt::new(CWD, path.as_ptr()).flags(flags).mode(0o640).build();
        let refused = ring.one(open(&missing, libc::O_RDWR));
        let file = ring.one(open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL));
        let twice = ring.one(open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL));
        assert!(file >= 0, "{}", io::Error::from_raw_os_error(-file));
        let fd = types::Fd(file);
        let text = [b'x'; 9000];
        let write =
            |at: u64, len: usize| opcode::Write::new(fd, text.as_ptr(), len as u32).offset(at).build();
        // Eight at once, in any order, and then a sync that waits for them.
        let writes = ring.run([0, 1, 2, 3, 4, 5, 6, 7].map(|i| write(i * 10_000, 9000)));
        let linked = ring.run([
            write(100_000, 5).flags(Flags::IO_LINK),
            opcode::Fsync::new(fd).build().flags(Flags::IO_LINK),
            opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        ]);
        // SAFETY: a structure of integers.
        let mut stat: libc::statx = unsafe { std::mem::zeroed() };
        let at = (&raw mut stat).cast();
        let statx =
            ring.one(opcode::Statx::new(CWD, path.as_ptr(), at).mask(libc::STATX_BASIC_STATS).build());
        let looks = (statx, stat.stx_size, stat.stx_mode, stat.stx_nlink);
        let mut buffers = [[0_u8; 700]; 4];
        let reads = [0_u64, 8500, 69_900, 99_999];
        let mut n = 0;
        let ends = ring.run(buffers.each_mut().map(|b| {
            let read = opcode::Read::new(fd, b.as_mut_ptr(), 700).offset(reads[n]).build();
            n += 1;
            read
        }));
        let allocated = ring.one(opcode::Fallocate::new(fd, 50_000).offset(80_000).build());
        let (iov_a, iov_b) = (&text[..10], &text[..20]);
        let vectors =
            [iov_a, iov_b].map(|s| libc::iovec { iov_base: s.as_ptr() as *mut _, iov_len: s.len() });
        let vector = ring.one(opcode::Writev::new(fd, vectors.as_ptr(), 2).offset(129_990).build());
        let closed = ring.one(opcode::Close::new(fd).build());
        let content = fs::read(dir.join("f")).unwrap();
        let seen = buffers.map(|b| b.to_vec());
        Some(((refused, twice, writes, linked, looks), (ends, seen), (allocated, vector, closed), content))
    });
}

#[test]
fn a_ring_reads_to_the_end_of_a_file_and_no_further() {
    same(|dir| {
        let mut ring = Ring::new()?;
        let file = read_write(&dir.join("f"));
        file.write_all_at(&(0..=255).collect::<Vec<u8>>().repeat(20), 0).unwrap();
        let fd = types::Fd(file.as_raw_fd());
        let mut buffer = vec![0; 1 << 20];
        Some([0, 1, 4096, 5000, 5119, 5120, 9000].map(|at| {
            buffer.fill(b'.');
            let len = (10_000 + 100_000 * (at % 2)) as u32;
            let n = ring.one(opcode::Read::new(fd, buffer.as_mut_ptr(), len).offset(at).build());
            (n, buffer[..=n.max(0) as usize].to_vec())
        }))
    });
}

#[test]
fn a_ring_reads_and_writes_its_own_buffers_and_files() {
    same(|dir| {
        let mut ring = Ring::new()?;
        let file = read_write(&dir.join("f"));
        let mut memory = [vec![b'a'; 70_000], vec![b'.'; 70_000]];
        let vectors =
            memory.each_mut().map(|m| libc::iovec { iov_base: m.as_mut_ptr().cast(), iov_len: m.len() });
        // SAFETY: the memory outlives the ring's use of it, below.
        unsafe { ring.0.submitter().register_buffers(&vectors).unwrap() };
        ring.0.submitter().register_files(&[file.as_raw_fd()]).unwrap();
        let (own, len) = (types::Fixed(0), 70_000);
        let [wrote, synced, read] = ring.run([
            opcode::WriteFixed::new(own, vectors[0].iov_base.cast(), len, 0)
                .offset(123)
                .build()
                .flags(Flags::IO_LINK),
            opcode::Fsync::new(own).build().flags(Flags::IO_LINK),
            opcode::ReadFixed::new(own, vectors[1].iov_base.cast(), len, 1).offset(0).build(),
        ]);
        ring.0.submitter().unregister_buffers().unwrap();
        ring.0.submitter().unregister_files().unwrap();
        let appender = fs::OpenOptions::new().append(true).open(dir.join("f")).unwrap();
        let end = types::Fd(appender.as_raw_fd());
        let appended =
            ring.run([0, 1, 2].map(|_| opcode::Write::new(end, b"end".as_ptr(), 3).offset(0).build()));
        Some((wrote, synced, read, memory[1].clone(), appended, fs::read(dir.join("f")).unwrap()))
    });
}

#[test]
fn a_ring_changes_names() {
    same(|dir| {
        let mut ring = Ring::new()?;
        let [d, f, g, hard, soft] = ["d", "d/f", "d/g", "h", "s"].map(|n| c(&dir.join(n)));
        let create =
            opcode::OpenAt::new(CWD, f.as_ptr()).flags(libc::O_CREAT | libc::O_WRONLY).mode(0o600).build();
        let made = [
            ring.one(opcode::MkDirAt::new(CWD, d.as_ptr()).mode(0o751).build()),
            ring.one(opcode::MkDirAt::new(CWD, d.as_ptr()).mode(0o751).build()),
        ];
        let file = ring.one(create);
        let ends = [
            ring.one(opcode::LinkAt::new(CWD, f.as_ptr(), CWD, hard.as_ptr()).build()),
            ring.one(opcode::RenameAt::new(CWD, f.as_ptr(), CWD, g.as_ptr()).build()),
            ring.one(
                opcode::RenameAt::new(CWD, g.as_ptr(), CWD, hard.as_ptr())
                    .flags(libc::RENAME_NOREPLACE)
                    .build(),
            ),
            ring.one(opcode::SymlinkAt::new(CWD, g.as_ptr(), soft.as_ptr()).build()),
            ring.one(opcode::UnlinkAt::new(CWD, d.as_ptr()).flags(libc::AT_REMOVEDIR).build()),
            ring.one(opcode::UnlinkAt::new(CWD, g.as_ptr()).build()),
            ring.one(opcode::UnlinkAt::new(CWD, d.as_ptr()).flags(libc::AT_REMOVEDIR).build()),
            ring.one(opcode::UnlinkAt::new(CWD, d.as_ptr()).build()),
            ring.one(opcode::Close::new(types::Fd(file)).build()),
        ];
        Some((made, file >= 0, ends, list(dir)))
    });
}

/// What the kernel is given for one operation, as `linux/aio_abi.h` has it.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// What it answers.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

const READ: u16 = 0;
const WRITE: u16 = 1;
const SYNC: u16 = 2;

/// Submits all of these and waits for them; answers what each came to.
fn submit<const N: usize>(ops: [(u16, RawFd, *const u8, usize, i64); N]) -> [i64; N] {
    let mut number = 0;
    let mut blocks = ops.map(|(opcode, file, buffer, length, offset)| {
        number += 1;
        let (buffer, length) = (buffer as u64, length as u64);
        Iocb { data: number - 1, opcode, file: file as u32, buffer, length, offset, ..Iocb::default() }
    });
    let pointers = blocks.each_mut().map(std::ptr::from_mut);
    let mut events = [IoEvent::default(); N];
    let mut context = 0_u64;
    let none = std::ptr::null_mut::<libc::timespec>();
    // SAFETY: the blocks, events and the callers' buffers outlive the context, which waits for all that was submitted.
    let (set, sent, got, end) = unsafe {
        (
            done(libc::syscall(libc::SYS_io_setup, N, &raw mut context)),
            done(libc::syscall(libc::SYS_io_submit, context, N, pointers.as_ptr())),
            done(libc::syscall(libc::SYS_io_getevents, context, N, N, events.as_mut_ptr(), none)),
            done(libc::syscall(libc::SYS_io_destroy, context)),
        )
    };
    assert_eq!((set, sent, got, end), (Ok(0), Ok(N as i64), Ok(N as i64), Ok(0)));
    let mut ends = [0; N];
    events.iter().for_each(|e| ends[e.data as usize] = e.result);
    ends
}

#[test]
fn submitted_reads_and_writes_come_to_the_same() {
    same(|dir| {
        let file = read_write(&dir.join("f"));
        let fd = file.as_raw_fd();
        let text: Vec<u8> = (0..60_000_u32).map(|i| (i % 251) as u8).collect();
        let writes =
            submit([0, 1, 2, 3, 4, 5].map(|i| (WRITE, fd, text[i * 10..].as_ptr(), 5000, i as i64 * 5000)));
        let synced = submit([(SYNC, fd, std::ptr::null(), 0, 0)]);
        let mut seen = [[0_u8; 3000]; 4];
        let mut at = [0, 7000, 29_000, 40_000].into_iter();
        let reads = submit(
            seen.each_mut().map(|b| (READ, fd, b.as_mut_ptr().cast_const(), 3000, at.next().unwrap())),
        );
        (writes, synced, reads, seen.map(|b| b.to_vec()), fs::read(dir.join("f")).unwrap())
    });
}

#[test]
fn a_ring_that_writes_at_the_position_of_a_file_does_not_move_it() {
    let t = Twin::new();
    let ends = [t.bare(), t.mount.path()].map(|dir| {
        let mut ring = Ring::new()?;
        let file = read_write(&dir.join("f"));
        let fd = types::Fd(file.as_raw_fd());
        let here = u64::MAX;
        let wrote =
            [b"one", b"two"].map(|t| ring.one(opcode::Write::new(fd, t.as_ptr(), 3).offset(here).build()));
        Some((wrote, (&file).stream_position().unwrap(), fs::read_to_string(dir.join("f")).unwrap()))
    });
    if let [Some(bare), Some(through)] = ends {
        assert_eq!(bare, ([3, 3], 6, "onetwo".to_owned()));
        assert_eq!(through, ([3, 3], 0, "two".to_owned()), "the kernel forgets it");
    }
}

#[test]
fn a_ring_asks_nothing_beyond_the_end_that_the_kernel_knows() {
    let two = Two::new(Knobs::strict()).file("f", "1234");
    let Some(mut ring) = Ring::new() else { return };
    let (grows, reads) = (support::append(&two.a, "f"), support::open(&two.b, "f"));
    let mut buffer = [0; 20];
    let mut read = |at| {
        let read = opcode::Read::new(types::Fd(reads.as_raw_fd()), buffer.as_mut_ptr(), 20).offset(at);
        ring.one(read.build())
    };
    support::write(&grows, "567890");
    assert_eq!(read(4), 0, "no request was sent");
    assert_eq!(read(2), 8, "what was asked was answered");
    assert_eq!(reads.metadata().unwrap().len(), 10);
    assert_eq!(read(4), 6, "the kernel was told the size");
}

#[test]
fn after_a_failed_write_of_a_ring_the_kernel_cuts_the_file_where_it_thinks_it_ends() {
    let two = Two::new(Knobs::strict()).file("f", "1234");
    let Some(mut ring) = Ring::new() else { return };
    let file = support::edit(&two.b, "f");
    let write = opcode::Write::new(types::Fd(file.as_raw_fd()), b"late".as_ptr(), 4).offset(100).build();
    let content = || fs::read_to_string(two.backing.path().join("f")).unwrap();
    let fault = two.b.inject(Fault::fail(Errno::EIO).on(Op::Write));
    assert_eq!(ring.one(write.clone()), -libc::EIO);
    assert_eq!(content(), "1234", "alone, nobody notices");
    support::write(&support::append(&two.a, "f"), "567890");
    assert_eq!(ring.one(write), -libc::EIO);
    // It comes as an `ftruncate` does, so nobody can tell that no program meant it.
    assert_eq!((fault.hits(), content()), (2, "1234".to_owned()));
}
