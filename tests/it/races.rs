//! Races of two clients for one thing: whatever their caches say, the truth decides, and exactly one wins.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Barrier, mpsc};
use std::thread;

use chaosfs::{Deed, Knobs, Mount, Op};
use rustix::fs::{FlockOperation, fcntl_lock, flock};

use super::support::{
    NS, PATIENCE, Two, create_new, edit, errno, eventually, exists, get, ms, ofd_lock, open,
};

const ROUNDS: usize = 100;
/// After this, others see what a client of [`Knobs::eventual`] did to a name, unless they have it in their cache.
const NAMES_TRAVEL: std::time::Duration = ms(1200);
/// How long those caches are believed.
const BELIEVED: std::time::Duration = ms(1500);

/// Lets both clients do the same thing at the same moment.
fn both<T: Send>(two: &Two, act: impl Fn(&Mount) -> T + Sync) -> [T; 2] {
    let start = Barrier::new(2);
    let run = |m| {
        start.wait();
        act(m)
    };
    thread::scope(|s| [&two.a, &two.b].map(|m| s.spawn(|| run(m))).map(|t| t.join().unwrap()))
}

/// Which of the two won, after a look at how the other lost.
fn winner<T: Debug>(round: usize, results: [io::Result<T>; 2], lost: i32) -> usize {
    match results {
        [Ok(_), Err(e)] if e.raw_os_error() == Some(lost) => 0,
        [Err(e), Ok(_)] if e.raw_os_error() == Some(lost) => 1,
        other => panic!("round {round}: not one winner and one {lost}: {other:?}"),
    }
}

/// How many operations of this kind reached the truth, and how many of them succeeded.
fn reached(two: &Two, op: Op) -> (usize, usize) {
    let history = two.backing.history();
    let events: Vec<_> = history.iter().filter(|e| e.deed() == Deed::Op(op)).collect();
    (events.len(), events.iter().filter(|e| e.result().is_ok()).count())
}

fn clients(two: &Two) -> [&Mount; 2] {
    [&two.a, &two.b]
}

// ---- names -----------------------------------------------------------------------------------------------------------

#[test]
fn of_two_exclusive_creates_one_wins_a_hundred_times() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual());
    for round in 0..ROUNDS {
        // Warm, and true for this once.
        assert!(!exists(&two.a, "lock") && !exists(&two.b, "lock"), "round {round}");
        let won = winner(round, both(&two, |m| create_new(&m.join("lock"))), libc::EEXIST);
        assert!(clients(&two).iter().all(|m| exists(m, "lock")), "round {round}: both know of the lock");
        fs::remove_file(clients(&two)[won].join("lock")).unwrap();
        // The loser has the name in its cache for longer than this, and R7 says that it does not believe it.
        two.pass(NAMES_TRAVEL);
    }
    // No kernel has answered from what it was told before: both clients asked the truth in every round.
    assert_eq!(reached(&two, Op::Create), (2 * ROUNDS, ROUNDS));
}

#[test]
fn of_two_links_one_wins_a_hundred_times() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("mine-a", "a").file("mine-b", "b");
    for round in 0..ROUNDS {
        assert!(!exists(&two.a, "lock") && !exists(&two.b, "lock"), "round {round}");
        let link = |m: &Mount| fs::hard_link(m.join(format!("mine-{}", m.client_id())), m.join("lock"));
        let won = clients(&two)[winner(round, both(&two, link), libc::EEXIST)];
        assert_eq!(get(won, "lock"), won.client_id());
        assert!(clients(&two).iter().all(|m| exists(m, "lock")), "round {round}: both know of the lock");
        fs::remove_file(won.join("lock")).unwrap();
        two.pass(NAMES_TRAVEL);
    }
    assert_eq!(reached(&two, Op::Link), (2 * ROUNDS, ROUNDS));
}

#[test]
fn of_two_mkdirs_one_wins_a_hundred_times() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual());
    for round in 0..ROUNDS {
        assert!(!exists(&two.a, "lock") && !exists(&two.b, "lock"), "round {round}");
        let won = winner(round, both(&two, |m| fs::create_dir(m.join("lock"))), libc::EEXIST);
        assert!(clients(&two).iter().all(|m| exists(m, "lock")), "round {round}: both know of the lock");
        fs::remove_dir(clients(&two)[won].join("lock")).unwrap();
        // A directory is believed like any other name: the loser waits for its cache too.
        two.pass(NAMES_TRAVEL.max(BELIEVED));
    }
    assert_eq!(reached(&two, Op::Mkdir), (2 * ROUNDS, ROUNDS));
}

#[test]
fn a_lock_directory_seems_taken_until_the_loser_stops_believing_it() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict().meta_ttl(ms(1500)));
    fs::create_dir(two.a.join("lock")).unwrap();
    assert_eq!(errno(fs::create_dir(two.b.join("lock"))), libc::EEXIST);
    assert!(exists(&two.b, "lock"));
    fs::remove_dir(two.a.join("lock")).unwrap();
    let take = || fs::create_dir(two.b.join("lock"));
    two.turns_at(ms(1500), || assert_eq!(errno(take()), libc::EEXIST), || take().unwrap());
}

#[test]
fn of_two_renames_of_a_token_one_wins_a_hundred_times() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("token", "the one");
    for round in 0..ROUNDS {
        assert!(exists(&two.a, "token") && exists(&two.b, "token"), "round {round}");
        let take = |m: &Mount| fs::rename(m.join("token"), m.join(m.client_id()));
        let won = clients(&two)[winner(round, both(&two, take), libc::ENOENT)];
        assert_eq!(get(won, won.client_id()), "the one");
        assert!(
            clients(&two).iter().all(|m| !exists(m, "token")),
            "round {round}: both know that it is gone"
        );
        assert_eq!(fs::read_dir(two.backing.path()).unwrap().count(), 1);
        fs::rename(won.join(won.client_id()), won.join("token")).unwrap();
        two.pass(NAMES_TRAVEL.max(BELIEVED));
    }
    let (_, renamed) = reached(&two, Op::Rename);
    assert_eq!(renamed, 2 * ROUNDS, "there and back");
}

#[test]
fn of_two_exclusive_creates_one_wins_in_real_time_too() {
    chaosfs::require_fuse!();
    let backing = chaosfs::Backing::temp().unwrap();
    let two = Two::on(backing, Knobs::eventual(), Knobs::eventual());
    for round in 0..ROUNDS {
        let name = format!("lock-{round}");
        assert!(!exists(&two.a, &name) && !exists(&two.b, &name));
        winner(round, both(&two, |m| create_new(&m.join(&name))), libc::EEXIST);
    }
}

#[test]
fn without_fresh_exclusive_names_a_lock_frees_itself_late() {
    chaosfs::require_fuse!();
    let freed_after = |knobs: Knobs| {
        let two = Two::new(knobs);
        create_new(&two.a.join("lock")).unwrap();
        assert_eq!(errno(create_new(&two.b.join("lock"))), libc::EEXIST);
        assert!(exists(&two.b, "lock"));
        fs::remove_file(two.a.join("lock")).unwrap();
        let mut passed = ms(0);
        while create_new(&two.b.join("lock")).is_err() {
            assert!(passed < ms(10_000));
            two.pass(ms(100));
            passed += ms(100);
        }
        passed
    };
    let knobs = Knobs::strict().meta_ttl(ms(1500));
    assert_eq!(freed_after(knobs), ms(0));
    assert_eq!(freed_after(knobs.exclusive_fresh(false)), ms(1500));
}

// ---- locks -----------------------------------------------------------------------------------------------------------

/// A hundred rounds in which both clients try to lock one file that each has open and in its cache.
fn lock_race(take: impl Fn(&File) -> io::Result<()> + Sync, free: impl Fn(&File) -> io::Result<()>) {
    let two = Two::new(Knobs::eventual()).file("f", "text");
    let files = clients(&two).map(|m| edit(m, "f"));
    for round in 0..ROUNDS {
        assert_eq!((get(&two.a, "f"), get(&two.b, "f")), ("text".into(), "text".into()));
        let file = |m: &Mount| if m.client_id() == "a" { &files[0] } else { &files[1] };
        let won = winner(round, both(&two, |m| take(file(m))), libc::EAGAIN);
        // No time passes: locks are decided at the truth and are in no cache.
        free(&files[won]).unwrap();
        take(&files[1 - won]).unwrap();
        assert_eq!(errno(take(&files[won])), libc::EAGAIN, "round {round}");
        free(&files[1 - won]).unwrap();
    }
}

#[test]
fn of_two_fcntl_locks_one_wins_a_hundred_times() {
    chaosfs::require_fuse!();
    lock_race(
        |f| Ok(fcntl_lock(f, FlockOperation::NonBlockingLockExclusive)?),
        |f| Ok(fcntl_lock(f, FlockOperation::Unlock)?),
    );
}

#[test]
fn of_two_locks_of_open_file_descriptions_one_wins_a_hundred_times() {
    chaosfs::require_fuse!();
    lock_race(|f| ofd_lock(f, libc::F_WRLCK), |f| ofd_lock(f, libc::F_UNLCK));
}

#[test]
fn of_two_flocks_one_wins_a_hundred_times() {
    chaosfs::require_fuse!();
    lock_race(
        |f| Ok(flock(f, FlockOperation::NonBlockingLockExclusive)?),
        |f| Ok(flock(f, FlockOperation::Unlock)?),
    );
}

#[test]
fn readers_share_a_lock_and_keep_writers_of_the_other_client_out() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "text");
    let (a, b) = (edit(&two.a, "f"), edit(&two.b, "f"));
    flock(&a, FlockOperation::NonBlockingLockShared).unwrap();
    flock(&b, FlockOperation::NonBlockingLockShared).unwrap();
    assert_eq!(flock(&b, FlockOperation::NonBlockingLockExclusive), Err(rustix::io::Errno::WOULDBLOCK));
    flock(&a, FlockOperation::Unlock).unwrap();
    flock(&b, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn a_flock_that_ends_with_close_is_free_for_the_other_client_at_once() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "text");
    for round in 0..ROUNDS {
        let (one, other) = if round % 2 == 0 { (&two.a, &two.b) } else { (&two.b, &two.a) };
        let (held, wanted) = (open(one, "f"), open(other, "f"));
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(
            flock(&wanted, FlockOperation::NonBlockingLockExclusive),
            Err(rustix::io::Errno::WOULDBLOCK)
        );
        // The kernel tells of it after `close` has returned.
        drop(held);
        flock(&wanted, FlockOperation::NonBlockingLockExclusive)
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
}

#[test]
fn an_fcntl_lock_ends_with_any_close_of_the_file_by_its_process() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "text");
    let (a, b) = (edit(&two.a, "f"), edit(&two.b, "f"));
    fcntl_lock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    fcntl_lock(&b, FlockOperation::NonBlockingLockExclusive).unwrap_err();
    drop(open(&two.a, "f"));
    fcntl_lock(&b, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn the_locks_of_a_client_end_with_its_mount() {
    chaosfs::require_fuse!();
    let Two { a, b, backing } = Two::new(Knobs::eventual()).file("f", "text");
    let (mine, other) = (edit(&b, "f"), edit(&a, "f"));
    flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    flock(&mine, FlockOperation::NonBlockingLockExclusive).unwrap_err();
    // It is in use, and gone all the same.
    assert!(a.unmount().unwrap_err().is_busy());
    flock(&mine, FlockOperation::NonBlockingLockExclusive).unwrap();
    drop((mine, other, b, backing));
}

/// Waits until a thread of this process is inside `fcntl(2)`.
fn waits_in_fcntl(thread: rustix::process::Pid) {
    let call = Path::new("/proc/self/task").join(thread.to_string()).join("syscall");
    let number = format!("{} ", libc::SYS_fcntl);
    eventually("the thread waits for the lock", || {
        fs::read_to_string(&call).is_ok_and(|c| c.starts_with(&number))
    });
}

#[test]
fn a_blocking_fcntl_lock_is_granted_when_the_other_client_releases_it() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "0");
    let (a, b) = (edit(&two.a, "f"), edit(&two.b, "f"));
    for round in 0..10 {
        fcntl_lock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
        let (tell, told) = mpsc::channel();
        let (tell_id, id) = mpsc::channel();
        thread::scope(|s| {
            let waiter = s.spawn(|| {
                tell_id.send(rustix::thread::gettid()).unwrap();
                tell.send(fcntl_lock(&b, FlockOperation::LockExclusive)).unwrap();
            });
            waits_in_fcntl(id.recv().unwrap());
            assert!(told.try_recv().is_err(), "round {round}: granted while the other client held it");
            fcntl_lock(&a, FlockOperation::Unlock).unwrap();
            told.recv_timeout(PATIENCE).expect("granted after the release").unwrap();
            waiter.join().unwrap();
        });
        fcntl_lock(&a, FlockOperation::NonBlockingLockExclusive).unwrap_err();
        fcntl_lock(&b, FlockOperation::Unlock).unwrap();
    }
    two.pass(NS);
}
