//! The timer thread: short jobs that run at a point in time, on a server thread.
//!
//! Owns one thread, started with the first deadline, and a heap of what is due. Promises that jobs run in the order of
//! their deadlines, never early, and late only by the jobs before them. Never runs a job that may block: the jobs that
//! are handed to it say so by being handed to it. The heap holds one entry for each parked operation, and those the
//! kernel bounds.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::server;

type Job = Box<dyn FnOnce() + Send>;

struct Due {
    deadline: Instant,
    /// Keeps jobs of one deadline in the order they came.
    turn: u64,
    job: Job,
}

// The heap gives the greatest first, so the earliest is the greatest.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.turn).cmp(&(self.deadline, self.turn))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

#[derive(Default)]
struct Queue {
    due: BinaryHeap<Due>,
    turns: u64,
    started: bool,
}

static QUEUE: Mutex<Option<Queue>> = Mutex::new(None);
static EARLIER: Condvar = Condvar::new();

/// Runs `job` on the timer thread at `deadline`, or as soon after it as can be. The job must be short.
pub(crate) fn at(deadline: Instant, job: impl FnOnce() + Send + 'static) {
    let mut queue = QUEUE.lock();
    let q = queue.get_or_insert_default();
    q.turns += 1;
    let turn = q.turns;
    q.due.push(Due { deadline, turn, job: Box::new(job) });
    let earliest = q.due.peek().is_some_and(|due| due.turn == turn);
    let first = !std::mem::replace(&mut q.started, true);
    drop(queue);
    if first {
        start();
    } else if earliest {
        EARLIER.notify_one();
    }
}

fn start() {
    if server::spawn("chaosfs-timer".to_owned(), keep_time).is_ok() {
        return;
    }
    // No thread to be had: late is what nobody waits for, early is only a delay that was too short.
    let mut queue = QUEUE.lock();
    let all = queue.take().unwrap_or_default().due.into_sorted_vec();
    drop(queue);
    for due in all.into_iter().rev() {
        server::call(move || server::run(due.job));
    }
}

fn keep_time() {
    // Wake when asked, not up to 50 us later.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut queue = QUEUE.lock();
    loop {
        let now = Instant::now();
        let q = queue.get_or_insert_default();
        match q.due.peek().map(|due| due.deadline) {
            None => EARLIER.wait(&mut queue),
            Some(deadline) if deadline > now => {
                EARLIER.wait_until(&mut queue, deadline);
            }
            Some(_) => {
                let next = q.due.pop();
                drop(queue);
                if let Some(next) = next {
                    server::run(next.job);
                }
                queue = QUEUE.lock();
            }
        }
    }
}
