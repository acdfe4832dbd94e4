//! Where time comes from: the system's clock, or one that only a test moves.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::model::attr::Stamp;
use crate::model::time::Time;

/// The clock of a backing directory. Everything late is late by this clock, and files get their times from it.
///
/// With [`Clock::manual`] nothing happens by itself: a test moves the time with [`advance`](Clock::advance), and nothing
/// ever sleeps. Clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

enum Inner {
    System { started: Instant, epoch: Stamp },
    Manual(Mutex<Manual>),
}

struct Manual {
    now: Time,
    listeners: Vec<Arc<dyn Due>>,
}

/// Something that has effects which become due. Implemented by the owner of an engine.
pub(crate) trait Due: Send + Sync {
    /// Whether there is still anything to do it for.
    fn is_alive(&self) -> bool;
    /// When the next effect is due.
    fn next(&self) -> Option<Time>;
    /// Does everything that is due at `now`.
    fn run(&self, now: Time);
}

/// What a manual clock calls its zero: 2024-01-01T00:00:00Z. A round date, so that it is recognised in a listing.
const MANUAL_EPOCH: i64 = 1_704_067_200;

impl Clock {
    /// The system's clock: delays and TTLs pass in real time. The default.
    #[allow(clippy::disallowed_methods)] // this is the door through which time comes in
    pub fn system() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = Stamp { secs: since.as_secs() as i64, nanos: since.subsec_nanos() };
        Clock(Arc::new(Inner::System { started: Instant::now(), epoch }))
    }

    /// A clock that stands still until [`advance`](Clock::advance) moves it. Files get their times from it: its zero is
    /// 2024-01-01 00:00:00 UTC.
    pub fn manual() -> Self {
        Clock(Arc::new(Inner::Manual(Mutex::new(Manual { now: Time::ZERO, listeners: Vec::new() }))))
    }

    /// Whether only `advance` moves it.
    pub fn is_manual(&self) -> bool {
        matches!(*self.0, Inner::Manual(_))
    }

    /// The time by this clock, from when it was made.
    #[allow(clippy::disallowed_methods)] // this is the door through which time comes in
    pub fn now(&self) -> Time {
        match &*self.0 {
            Inner::System { started, .. } => Time::ZERO.after(started.elapsed()),
            Inner::Manual(manual) => manual.lock().now,
        }
    }

    /// Lets `d` pass. A manual clock moves by it: whatever becomes due on the way happens at its own time and in order,
    /// and has happened when this returns; nothing sleeps. The system's clock cannot be moved, so there this waits.
    pub fn advance(&self, d: Duration) {
        let manual = match &*self.0 {
            Inner::Manual(manual) => manual,
            Inner::System { .. } => return pause(d),
        };
        let target = manual.lock().now.after(d);
        // Bounded: each round runs everything that is due at one moment, and moments only move forward.
        loop {
            let listeners: Vec<Arc<dyn Due>> = {
                let mut manual = manual.lock();
                manual.listeners.retain(|listener| listener.is_alive());
                manual.listeners.clone()
            };
            let next = listeners.iter().filter_map(|l| l.next()).min().filter(|at| *at <= target);
            let Some(at) = next else { break };
            let at = {
                let mut manual = manual.lock();
                manual.now = manual.now.max(at);
                manual.now
            };
            listeners.iter().for_each(|l| l.run(at));
        }
        let mut manual = manual.lock();
        manual.now = manual.now.max(target);
    }

    pub(crate) fn listen(&self, listener: Arc<dyn Due>) {
        if let Inner::Manual(manual) = &*self.0 {
            manual.lock().listeners.push(listener);
        }
    }

    pub(crate) fn epoch(&self) -> Stamp {
        match &*self.0 {
            Inner::System { epoch, .. } => *epoch,
            Inner::Manual(_) => Stamp { secs: MANUAL_EPOCH, nanos: 0 },
        }
    }

    /// How long until `at`, in real time; none when only a test can bring that about.
    pub(crate) fn real_wait(&self, at: Time) -> Option<Duration> {
        match &*self.0 {
            Inner::System { .. } => Some(at.since(self.now())),
            Inner::Manual(_) => None,
        }
    }

    pub(crate) fn is_same(&self, other: &Clock) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The one place that waits for real time to pass, on request.
#[allow(clippy::disallowed_methods)]
fn pause(d: Duration) {
    std::thread::sleep(d);
}

impl Default for Clock {
    fn default() -> Self {
        Clock::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clock at {}", if self.is_manual() { "manual" } else { "system" }, self.now())
    }
}
