//! How programs are drawn.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::program::{Do, SLOTS, Step, What, Where};
use crate::ops::is_root;

/// What a run can and cannot compare.
#[derive(Clone, Copy)]
pub(super) struct Profile {
    /// How many clients take turns.
    pub(super) clients: usize,
    /// Other users than the one that runs the test; only root can be them.
    pub(super) users: bool,
    /// Files in memory, which are the kernel's affair where clients differ.
    pub(super) maps: bool,
    /// Data and holes, and offsets beyond what a file may have: known at the truth only.
    pub(super) holes: bool,
    /// Time passes between the steps.
    pub(super) time: bool,
    /// At most this many steps.
    pub(super) steps: usize,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    // No `.`: see D22.
    let odd: [&'static [u8]; 3] = [b"\n \\x", b"\xff\xfe", b"..."];
    prop_oneof![
        30 => select(&b"abcde"[..]).prop_map(|c| vec![c]),
        4 => select(odd.to_vec()).prop_map(<[u8]>::to_vec),
        1 => Just(vec![b'n'; 255]),
        1 => Just(vec![b'n'; 256]),
    ]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    // `d` and `e` are directories at first, and often later.
    let dir = || prop_oneof![8 => select(&b"de"[..]).prop_map(|c| vec![c]), 1 => name()];
    let joined = |parts: [Vec<u8>; 2]| parts.join(&b'/');
    prop_oneof![
        12 => name(),
        8 => (dir(), name()).prop_map(move |(a, b)| joined([a, b])),
        3 => (dir(), dir(), name()).prop_map(move |(a, b, c)| joined([joined([a, b]), c])),
        1 => name().prop_map(|n| [&n[..], b"/"].concat()),
    ]
}

fn slot() -> impl Strategy<Value = usize> {
    0..SLOTS
}

fn place() -> impl Strategy<Value = Where> {
    let base = prop_oneof![9 => Just(None), 1 => slot().prop_map(Some)];
    (base, path()).prop_map(|(base, path)| Where { base, path })
}

/// Two names with one base: a slot may be another client's.
fn places() -> impl Strategy<Value = (Where, Where)> {
    (place(), path()).prop_map(|(one, path)| (one.clone(), Where { base: one.base, path }))
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        3 => (place(), any::<bool>()).prop_map(|(at, follow)| What::At(at, follow)),
        2 => slot().prop_map(What::Slot),
    ]
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![
        5 => select(&[0o755, 0o777, 0o644, 0o666, 0o600][..]),
        2 => 0..0o10000_u32,
    ]
}

fn open_flags() -> impl Strategy<Value = i32> {
    let usual = [libc::O_RDWR | libc::O_CREAT, libc::O_RDWR, libc::O_WRONLY | libc::O_APPEND, libc::O_RDONLY];
    prop_oneof![3 => select(usual.to_vec()), 2 => odd_flags()]
}

fn odd_flags() -> impl Strategy<Value = i32> {
    let flag = |bit: i32, one_in: u32| {
        prop::bool::weighted(1.0 / f64::from(one_in)).prop_map(move |b| if b { bit } else { 0 })
    };
    (
        select(&[libc::O_RDWR, libc::O_RDWR, libc::O_WRONLY, libc::O_RDONLY, libc::O_ACCMODE][..]),
        prop::bool::weighted(0.6).prop_map(|b| if b { libc::O_CREAT } else { 0 }),
        (flag(libc::O_EXCL, 5), flag(libc::O_TRUNC, 5), flag(libc::O_APPEND, 5)),
        (flag(libc::O_DIRECTORY, 6), flag(libc::O_NOFOLLOW, 6), flag(libc::O_PATH, 12)),
        (flag(libc::O_SYNC, 8), flag(libc::O_DSYNC, 8), flag(libc::O_NOATIME, 8)),
    )
        .prop_map(|(access, create, a, b, c)| {
            access | create | a.0 | a.1 | a.2 | b.0 | b.1 | b.2 | c.0 | c.1 | c.2
        })
}

fn offset(holes: bool) -> BoxedStrategy<u64> {
    let far = if holes { vec![1 << 33, i64::MAX as u64 - 10] } else { vec![1 << 21] };
    prop_oneof![6 => 0..20_000_u64, 2 => (0..8_u64).prop_map(|n| n * 4096), 1 => Just(3 << 18), 1 => select(far)].boxed()
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..200_usize, 2 => 0..10_000_usize, 1 => Just(4096)]
}

fn xattr() -> impl Strategy<Value = &'static str> {
    select(&["user.a", "user.a", "user.b", "user.", "trusted.t", "security.s", "nonsense", "system.no"][..])
}

fn bytes(p: Profile) -> BoxedStrategy<Do> {
    let whence = if p.holes { 5 } else { 3 };
    let near = || prop_oneof![4 => -100..20_000_i64, 1 => Just(1 << 40)];
    let modes: [i32; 7] = [
        0,
        libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE,
        libc::FALLOC_FL_ZERO_RANGE,
        libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
        0x4000,
    ];
    prop_oneof![
        1 => (slot(), len()).prop_map(|(s, n)| Do::Read(s, n)),
        1 => (slot(), offset(p.holes), len()).prop_map(|(s, at, n)| Do::Pread(s, at, n)),
        2 => (slot(), any::<u8>(), len()).prop_map(|(s, fill, n)| Do::Write(s, fill, n)),
        2 => (slot(), offset(p.holes), any::<u8>(), len()).prop_map(|(s, at, fill, n)| Do::Pwrite(s, at, fill, n)),
        1 => (slot(), any::<bool>()).prop_map(|(s, on)| Do::SetAppend(s, on)),
        1 => (slot(), 0..whence, near()).prop_map(|(s, whence, to)| Do::Seek(s, whence, to)),
        1 => (slot(), offset(p.holes)).prop_map(|(s, n)| Do::Ftruncate(s, n)),
        1 => (place(), offset(p.holes)).prop_map(|(at, n)| Do::Truncate(at, n)),
        1 => (slot(), select(modes.to_vec()), 0..40_000_u64, 0..40_000_u64).prop_map(|(s, mode, at, n)| Do::Fallocate(s, mode, at, n)),
        1 => (slot(), any::<bool>()).prop_map(|(s, data)| Do::Fsync(s, data)),
        1 => (slot(), 0..20_000_u64, slot(), 0..20_000_u64, len())
            .prop_map(|(from, at, to, to_at, len)| Do::Copy { from, at, to, to_at, len }),
    ]
    .boxed()
}

fn names() -> BoxedStrategy<Do> {
    let target = prop_oneof![
        8 => path(),
        1 => Just(vec![b'n'; 4095]),
        1 => Just(Vec::new()),
    ];
    let kind = select(&[libc::S_IFIFO, libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFREG, libc::S_IFDIR][..]);
    prop_oneof![
        4 => (places(), select(&[0, 0, 0, 1, 2, 2, 3, 4, 8][..])).prop_map(|((a, b), flags)| Do::Rename(a, b, flags)),
        3 => (places(), any::<bool>()).prop_map(|((a, b), follow)| Do::Link(a, b, follow)),
        2 => (target, place()).prop_map(|(to, at)| Do::Symlink(to, at)),
        1 => place().prop_map(Do::Readlink),
        2 => place().prop_map(Do::Unlink),
        2 => place().prop_map(Do::Rmdir),
        4 => (place(), mode()).prop_map(|(at, mode)| Do::Mkdir(at, mode)),
        1 => (place(), kind, mode()).prop_map(|(at, kind, mode)| Do::Mknod(at, kind, mode)),
        3 => place().prop_map(Do::List),
    ]
    .boxed()
}

fn attributes() -> BoxedStrategy<Do> {
    let id = || select(&[None, Some(0), Some(1000), Some(1001)][..]);
    let time = || select(&[None, Some(-5), Some(0), Some(1_000_000), Some(77_777_777)][..]);
    let size = || select(&[0, 1, 10, 100, 70_000][..]);
    prop_oneof![
        2 => (what(), mode()).prop_map(|(w, mode)| Do::Chmod(w, mode)),
        1 => (what(), id(), id()).prop_map(|(w, uid, gid)| Do::Chown(w, uid, gid)),
        1 => (what(), time(), time()).prop_map(|(w, a, m)| Do::Times(w, a, m)),
        1 => (what(), xattr(), size(), select(&[0, 0, 1, 2, 3][..])).prop_map(|(w, name, n, flags)| Do::SetXattr(w, name, n, flags)),
        1 => (what(), xattr(), size()).prop_map(|(w, name, n)| Do::GetXattr(w, name, n)),
        1 => what().prop_map(Do::ListXattr),
        1 => (what(), xattr()).prop_map(|(w, name)| Do::RemoveXattr(w, name)),
        1 => what().prop_map(Do::Stat),
        1 => (place(), 0..8_u32).prop_map(|(at, mask)| Do::Access(at, mask)),
    ]
    .boxed()
}

fn maps() -> BoxedStrategy<Do> {
    prop_oneof![
        2 => (slot(), any::<bool>(), any::<bool>(), 0..9000_usize, any::<u8>(), len())
            .prop_map(|(slot, write, private, at, fill, len)| Do::Mapped { slot, write, private, at, fill, len }),
        1 => slot().prop_map(Do::Map),
        2 => (0..9000_usize, len()).prop_map(|(at, n)| Do::MapRead(at, n)),
        2 => (0..9000_usize, any::<u8>(), len()).prop_map(|(at, fill, n)| Do::MapWrite(at, fill, n)),
        1 => Just(Do::Unmap),
    ]
    .boxed()
}

fn locks(p: Profile) -> BoxedStrategy<Do> {
    // Clients are hosts: what one process locks through two of them is not one process's.
    let ofd = || if p.clients > 1 { Just(true).boxed() } else { any::<bool>().boxed() };
    let kinds = [libc::F_RDLCK as i16, libc::F_WRLCK as i16, libc::F_UNLCK as i16];
    let kind = move |of: usize| select(kinds[..of].to_vec());
    let range = || (select(&[0_i64, 5, 10, 1000][..]), select(&[0_i64, 1, 5, 20][..]));
    prop_oneof![
        3 => (slot(), ofd(), kind(3), range()).prop_map(|(slot, ofd, kind, (at, len))| Do::Lock { slot, ofd, kind, at, len }),
        1 => (slot(), ofd(), kind(2), range()).prop_map(|(slot, ofd, kind, (at, len))| Do::TestLock { slot, ofd, kind, at, len }),
    ]
    .boxed()
}

fn act(p: Profile) -> BoxedStrategy<Do> {
    let open = (place(), open_flags(), mode(), slot()).prop_map(|(at, flags, mode, slot)| Do::Open {
        at,
        flags,
        mode,
        slot,
    });
    let hold = prop_oneof![
        2 => slot().prop_map(Do::Close),
        1 => (slot(), slot()).prop_map(|(a, b)| Do::Dup(a, b)),
    ];
    prop_oneof![
        12 => open,
        3 => hold,
        14 => bytes(p),
        16 => names(),
        9 => attributes(),
        3 => locks(p),
        if p.maps { 4 } else { 0 } => maps(),
        if p.time { 5 } else { 0 } => select(&[0, 1, 300, 800, 1200, 1500, 4000][..]).prop_map(Do::Pass),
    ]
    .boxed()
}

/// What there is before a program starts: two directories in each other, and open files.
fn first(n: usize) -> Do {
    let at = |path: &[u8]| Where { base: None, path: path.to_vec() };
    let open =
        |path: &[u8], slot| Do::Open { at: at(path), flags: libc::O_RDWR | libc::O_CREAT, mode: 0o666, slot };
    match n {
        0 => Do::Mkdir(at(b"d"), 0o777),
        1 => Do::Mkdir(at(b"e"), 0o777),
        2 => Do::Mkdir(at(b"d/e"), 0o777),
        3 => open(b"a", 0),
        4 => open(b"d/b", 1),
        5 => open(b"e/c", 2),
        _ => open(b"a", 3),
    }
}

/// In a mount of anyone but root the kernel opens no devices, and in none does it ask who may open a fifo (D10).
fn without_special_files(what: Do) -> Do {
    const WHITEOUT: u32 = 4;
    match what {
        Do::Mknod(at, kind, mode) if kind != libc::S_IFDIR => Do::Mknod(at, libc::S_IFREG, mode),
        Do::Rename(from, to, flags) => Do::Rename(from, to, flags & !WHITEOUT),
        other => other,
    }
}

/// A program for this profile.
pub(super) fn program(p: Profile) -> impl Strategy<Value = Vec<Step>> {
    let user = if p.users {
        prop_oneof![4 => Just(0), 1 => Just(1000), 1 => Just(1001)].boxed()
    } else {
        Just(0).boxed()
    };
    let tame = !is_root();
    let act = act(p).prop_map(move |what| if tame { without_special_files(what) } else { what });
    let step = (0..p.clients, user, act).prop_map(|(client, user, what)| Step { client, user, what });
    let start = 0..=7_usize;
    (start, vec(step, 1..=p.steps)).prop_map(move |(start, steps)| {
        let first = (0..7 - start).map(|n| Step { client: n % p.clients, user: 0, what: first(n) });
        first.chain(steps).collect()
    })
}
