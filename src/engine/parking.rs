//! The parking lot: operations whose answer is held back. A parked operation keeps its reply and what it still has to do,
//! never a thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::errno::Errno;
use crate::model::fault::Rule;
use crate::model::ids::ClientId;

/// The number of a parked operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket(u64);

/// How a parked operation goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// It is executed now.
    Proceed,
    /// It is answered with an error and not executed.
    Fail(Errno),
}

/// What is left to do for a parked operation. Runs on a server thread, once.
pub(crate) type Parked = Box<dyn FnOnce(Wake) + Send>;

struct Slot {
    client: ClientId,
    rule: Arc<Rule>,
    resume: Parked,
}

#[derive(Default)]
struct Lot {
    slots: BTreeMap<Ticket, Slot>,
    next: u64,
    /// Clients whose mounts are going away: nothing parks for them any more.
    closed: Vec<ClientId>,
}

/// All parked operations of one engine. Has a lock of its own, so that looking at it waits for nobody.
#[derive(Default)]
pub(super) struct Parking {
    lot: Mutex<Lot>,
    changed: Condvar,
}

/// How many operations may be parked at once; one more fails with `EAGAIN`.
const PLACES: usize = 65_536;

impl Parking {
    /// Parks an operation; when there is no place (any more), it is given back to be answered at once.
    pub(super) fn park(
        &self,
        client: ClientId,
        rule: Arc<Rule>,
        resume: Parked,
    ) -> Result<Ticket, (Parked, Errno)> {
        let mut lot = self.lot.lock();
        if lot.closed.contains(&client) {
            return Err((resume, Errno::EIO));
        }
        if lot.slots.len() >= PLACES {
            return Err((resume, Errno::EAGAIN));
        }
        let ticket = Ticket(lot.next);
        lot.next += 1;
        lot.slots.insert(ticket, Slot { client, rule, resume });
        self.changed.notify_all();
        Ok(ticket)
    }

    pub(super) fn is_parked(&self, ticket: Ticket) -> bool {
        self.lot.lock().slots.contains_key(&ticket)
    }

    /// Takes out what `pick` picks, in the order of arrival.
    fn take(&self, pick: impl Fn(Ticket, &Slot) -> bool) -> Vec<Parked> {
        let mut lot = self.lot.lock();
        let picked: Vec<Ticket> = lot.slots.iter().filter(|(t, s)| pick(**t, s)).map(|(t, _)| *t).collect();
        let taken = picked.iter().filter_map(|t| lot.slots.remove(t)).map(|s| s.resume).collect();
        self.changed.notify_all();
        taken
    }

    pub(super) fn take_one(&self, ticket: Ticket) -> Option<Parked> {
        self.take(|t, _| t == ticket).pop()
    }

    pub(super) fn take_rule(&self, rule: &Arc<Rule>) -> Vec<Parked> {
        self.take(|_, slot| Arc::ptr_eq(&slot.rule, rule))
    }

    /// Takes out everything of a client, for which nothing is parked from now on.
    pub(super) fn close(&self, client: ClientId) -> Vec<Parked> {
        self.lot.lock().closed.push(client);
        self.take(|_, slot| slot.client == client)
    }

    /// The client is gone for good.
    pub(super) fn forget(&self, client: ClientId) {
        self.lot.lock().closed.retain(|c| *c != client);
    }

    pub(super) fn count(&self, client: ClientId) -> usize {
        self.lot.lock().slots.values().filter(|s| s.client == client).count()
    }

    /// Waits until at least `n` operations of the client are parked, at most until `deadline`; whether they are.
    pub(super) fn wait(&self, client: ClientId, n: usize, deadline: Instant) -> bool {
        let mut lot = self.lot.lock();
        while lot.slots.values().filter(|s| s.client == client).count() < n {
            if self.changed.wait_until(&mut lot, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}
