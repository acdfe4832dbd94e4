//! What the engine does for the guards rather than for a program: clients come and go, knobs and rules change, what is due
//! is done, and questions about the state are answered.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::parking::{Parked, Ticket, Wake};
use super::{Caller, Client, Engine, Errno, LockReply, State};
use crate::model::draw::Key;
use crate::model::fault::{Effect, Rule};
use crate::model::hash::Map;
use crate::model::history::{Deed, EventPath, History, Why};
use crate::model::ids::{ClientId, Name, ObjectId};
use crate::model::knobs::Knobs;
use crate::model::op::Op;
use crate::model::time::Time;

/// Whether an operation may go on.
#[derive(Debug)]
pub(crate) enum Admission {
    Pass,
    Fail(Errno),
    /// It waits until this rule lets it go.
    Park(Arc<Rule>, EventPath),
    /// The handler is made to panic, to see that this harms nobody.
    Panic,
}

/// What an operation is about, for rules and draws.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Object(ObjectId),
    Name(ObjectId, Name),
    Names((ObjectId, Name), (ObjectId, Name)),
    Bytes(ObjectId, u64),
    /// Bytes, so many of them, by the kernel for its own pages.
    Pages(ObjectId, u64, u64),
}

/// A client as an answer to "who is there".
#[derive(Clone, Debug)]
pub(crate) struct ClientReport {
    pub(crate) name: Arc<str>,
    pub(crate) parked: usize,
}

/// Whether anything can stand in the way of a client's operations; read on every one of them.
pub(crate) type Armed = Arc<AtomicBool>;

/// How many different operations the draws count; beyond, counting starts over.
const DRAWN: usize = 65_536;

impl Engine {
    // ---- clients -------------------------------------------------------------------------------------------------

    /// A new client by this name, unless another has it; without a name, by the first of `c1`, `c2`, ... that is free.
    pub(crate) fn join(
        &self,
        name: Option<&str>,
        seed: u64,
        knobs: Knobs,
    ) -> Option<(ClientId, Arc<str>, Armed)> {
        let mut st = self.lock();
        let free = |name: &String| !st.clients.values().any(|c| *c.name == **name);
        let mut wanted: Box<dyn Iterator<Item = String>> = match name {
            Some(name) => Box::new(std::iter::once(name.to_owned())),
            // Of one name more than there are clients, one is free.
            None => Box::new((1..=st.clients.len() + 1).map(|n| format!("c{n}"))),
        };
        let name: Arc<str> = wanted.find(free)?.into();
        drop(wanted);
        let id = ClientId(st.next_client);
        st.next_client += 1;
        let armed = Arc::new(AtomicBool::new(knobs.drop_prob > 0.0));
        let client = Client {
            name: name.clone(),
            seed,
            files: Map::default(),
            dirs: Map::default(),
            next_handle: 0,
            lookups: Map::default(),
            walked: Map::default(),
            late_errors: Map::default(),
            writers: Map::default(),
            rules: Vec::new(),
            armed: armed.clone(),
            drawn: Map::default(),
            lane: super::lanes::Lane::default(),
        };
        st.clients.insert(id, client);
        st.world.join(id, knobs);
        st.relane();
        drop(st);
        // From now on there is someone else who changes things.
        self.catch_up();
        Some((id, name, armed))
    }

    /// The client goes: what it has not flushed is flushed, its locks and handles end, its caches are gone.
    pub(crate) fn leave(&self, client: ClientId, now: Time) {
        let mut st = self.lock();
        if !st.clients.contains_key(&client) {
            return;
        }
        let who = Caller { client, uid: 0, gid: 0, pid: 0, now };
        let (granted, cancelled) = self.end_locks(&mut st, &who);
        let handles: Vec<u64> = st.client(client).files.keys().copied().collect();
        for handle in handles {
            st.let_go(&who, super::Handle(handle));
        }
        let lookups: Vec<ObjectId> = st.client(client).lookups.keys().copied().collect();
        for object in lookups {
            if let Some(known) = st.objects.get_mut(object) {
                known.refs -= 1;
            }
            st.unused(object);
        }
        st.clients.remove(&client);
        st.world.leave(client);
        st.relane();
        drop(st);
        self.parking.forget(client);
        self.catch_up();
        granted.into_iter().for_each(|reply| reply(Ok(())));
        cancelled.into_iter().for_each(|reply| reply(Err(Errno::EIO)));
    }

    /// Flushes what the client has written and ends its locks: who gets one next must see what was written under it.
    fn end_locks(&self, st: &mut State, who: &Caller) -> (Vec<LockReply>, Vec<LockReply>) {
        for (owner, object) in st.world.all_dirty() {
            if owner == who.client {
                self.write_back_now(st, who, object);
            }
        }
        let (granted, cancelled) = st.locks.leave(who.client);
        (st.granted(granted, who.now), cancelled)
    }

    pub(crate) fn knobs(&self, client: ClientId) -> Knobs {
        self.lock().world.knobs(client)
    }

    pub(crate) fn set_knobs(&self, client: ClientId, knobs: Knobs) {
        let mut st = self.lock();
        st.world.set_knobs(client, knobs);
        st.rearm(client);
        drop(st);
        self.catch_up();
    }

    pub(crate) fn clients(&self) -> Vec<ClientReport> {
        let st = self.lock();
        let mut all: Vec<_> = st.clients.iter().map(|(id, c)| (*id, c.name.clone())).collect();
        drop(st);
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter().map(|(id, name)| ClientReport { name, parked: self.parking.count(id) }).collect()
    }

    // ---- rules and chance ----------------------------------------------------------------------------------------

    pub(crate) fn add_rule(&self, client: ClientId, rule: Arc<Rule>) {
        let mut st = self.lock();
        if let Some(client) = st.clients.get_mut(&client) {
            client.rules.push(rule);
        }
        st.rearm(client);
        drop(st);
        self.catch_up();
    }

    /// Takes a rule out of force and lets go what it holds.
    pub(crate) fn remove_rule(&self, client: ClientId, rule: &Arc<Rule>) {
        let mut st = self.lock();
        if let Some(client) = st.clients.get_mut(&client) {
            client.rules.retain(|r| !Arc::ptr_eq(r, rule));
        }
        st.rearm(client);
        drop(st);
        self.release_rule(rule);
        self.catch_up();
    }

    /// Lets what the rule holds go on; the rule stays in force.
    pub(crate) fn release_rule(&self, rule: &Arc<Rule>) {
        self.parking.take_rule(rule).into_iter().for_each(|resume| resume(Wake::Proceed));
    }

    /// Whether an operation goes on, fails, or waits. Only asked when the client is armed.
    pub(crate) fn admit(&self, who: &Caller, op: Op, place: &Place) -> Admission {
        let mut st = self.lock();
        let path = match place {
            Place::Object(object) | Place::Bytes(object, _) | Place::Pages(object, ..) => {
                st.path_of(who.client, *object)
            }
            Place::Name(dir, name) | Place::Names((dir, name), _) => st.path_at(*dir, name),
        };
        // What has two names is meant by a rule for either.
        let other = match place {
            Place::Names(_, (dir, name)) => Some(st.path_at(*dir, name)),
            _ => None,
        };
        let client = st.client(who.client);
        let rule = client
            .rules
            .iter()
            .find(|rule| rule.hits(op, || [Some(path.to_path()), other.as_ref().map(EventPath::to_path)]))
            .cloned();
        let (errno, why) = match rule {
            Some(rule) => match rule.effect {
                Effect::Hang => return Admission::Park(rule, path),
                Effect::Panic => return Admission::Panic,
                Effect::Fail(errno) => (errno, Why::Injected),
            },
            None if op.is_droppable() && st.draw(who, op, &path.to_path(), place) => {
                (Errno::EIO, Why::Dropped)
            }
            None => return Admission::Pass,
        };
        let mut event = st.event(who, op, path);
        event.result = Err(errno);
        event.why = why;
        st.recorder.push(event);
        Admission::Fail(errno)
    }

    // ---- parking -------------------------------------------------------------------------------------------------

    pub(crate) fn park(&self, client: ClientId, rule: Arc<Rule>, resume: Parked) -> Option<Ticket> {
        match self.parking.park(client, rule, resume) {
            Ok(ticket) => Some(ticket),
            Err((resume, errno)) => {
                resume(Wake::Fail(errno));
                None
            }
        }
    }

    pub(crate) fn is_parked(&self, ticket: Ticket) -> bool {
        self.parking.is_parked(ticket)
    }

    /// Answers one parked operation, unless that has happened.
    pub(crate) fn wake(&self, ticket: Ticket, wake: Wake) {
        if let Some(resume) = self.parking.take_one(ticket) {
            resume(wake);
        }
    }

    /// The mount of this client goes away: everything parked is answered, and nothing parks from now on.
    pub(crate) fn close_parking(&self, client: ClientId, now: Time) {
        self.parking.close(client).into_iter().for_each(|resume| resume(Wake::Fail(Errno::EIO)));
        // Whoever waits for a lock would keep the mount busy as well.
        let mut st = self.lock();
        let who = Caller { client, uid: 0, gid: 0, pid: 0, now };
        let (granted, cancelled) = self.end_locks(&mut st, &who);
        drop(st);
        granted.into_iter().for_each(|reply| reply(Ok(())));
        cancelled.into_iter().for_each(|reply| reply(Err(Errno::EIO)));
    }

    pub(crate) fn parked(&self, client: ClientId) -> usize {
        self.parking.count(client)
    }

    pub(crate) fn wait_parked(&self, client: ClientId, n: usize, deadline: Instant) -> bool {
        self.parking.wait(client, n, deadline)
    }

    /// Writes down that a parked operation was answered without being executed.
    pub(crate) fn note_unparked(&self, who: &Caller, op: Op, path: EventPath, errno: Errno) {
        let mut st = self.lock();
        if !st.clients.contains_key(&who.client) {
            return;
        }
        let mut event = st.event(who, op, path);
        event.result = Err(errno);
        event.why = Why::Parked;
        st.recorder.push(event);
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    /// Does what is due by `until`, each at its own time and in order. Answers when the next thing is due.
    pub(crate) fn run_due(&self, until: Time) -> Option<Time> {
        loop {
            let mut st = self.lock();
            let Some((at, client, object)) = st.world.due(until) else {
                st.release_retained(until);
                let next = st.world.due(Time::NEVER).map(|(at, ..)| at);
                drop(st);
                self.catch_up();
                return next;
            };
            let who = Caller { client, uid: 0, gid: 0, pid: 0, now: at };
            self.write_back_now(&mut st, &who, object);
        }
    }

    /// When the next thing is due.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.lock().world.due(Time::NEVER).map(|(at, ..)| at)
    }

    /// Flushes everything of every client. Answers when, as far as is known, everyone will see it.
    pub(crate) fn flush_all(&self, now: Time) -> Time {
        let mut st = self.lock();
        for (client, object) in st.world.all_dirty() {
            let who = Caller { client, uid: 0, gid: 0, pid: 0, now };
            self.write_back_now(&mut st, &who, object);
        }
        let settled = st.world.settled_at(now);
        drop(st);
        self.catch_up();
        settled
    }

    /// Lets go of every past that has ended.
    pub(crate) fn expire(&self, now: Time) {
        let mut st = self.lock();
        st.world.expire(now);
        st.release_retained(now);
    }

    /// Makes everyone see the truth at once.
    pub(crate) fn reveal_all(&self) {
        self.lock().world.reveal_all();
    }

    // ---- questions -----------------------------------------------------------------------------------------------

    pub(crate) fn history(&self) -> History {
        self.lock().recorder.snapshot()
    }

    /// Bytes of memory held for the past and for unflushed writes.
    pub(crate) fn held(&self) -> usize {
        self.lock().world.held()
    }

    /// What `client` sees at `path`, why, and what the truth is, in one sentence. None when there is no such client.
    pub(crate) fn explain(&self, client: &str, path: &Path, now: Time) -> Option<String> {
        let mut st = self.lock();
        let (id, name) =
            st.clients.iter().find(|(_, c)| &*c.name == client).map(|(id, c)| (*id, c.name.clone()))?;
        Some(
            st.explain(id, &name, path, now)
                .unwrap_or_else(|e| format!("`{}` cannot be looked at: {e}", path.display())),
        )
    }
}

impl State {
    fn rearm(&mut self, client: ClientId) {
        if let Some(c) = self.clients.get(&client) {
            let armed = !c.rules.is_empty() || self.world.knobs(client).drop_prob > 0.0;
            c.armed.store(armed, Ordering::Release);
        }
        self.relane();
    }

    /// Whether chance drops this operation: by seed, client, operation, path, and how often that has been asked.
    fn draw(&mut self, who: &Caller, op: Op, path: &Path, place: &Place) -> bool {
        let p = self.world.knobs(who.client).drop_prob;
        if p <= 0.0 {
            return false;
        }
        let client = self.client(who.client);
        let offset = if let Place::Bytes(_, at) | Place::Pages(_, at, _) = place { *at } else { 0 };
        let key = Key::new(client.seed)
            .bytes(client.name.as_bytes())
            .bytes(op.name().as_bytes())
            .bytes(path.as_os_str().as_encoded_bytes())
            .number(offset);
        if client.drawn.len() >= DRAWN {
            client.drawn.clear();
        }
        let nth = client.drawn.entry(key.bits()).or_insert(0);
        *nth += 1;
        key.number(*nth).hits(p)
    }

    /// Writes down that past states were given up.
    pub(super) fn note_collapse(&mut self, who: &Caller) {
        if self.world.collapsed() == self.collapsed {
            return;
        }
        self.collapsed = self.world.collapsed();
        let path = self.path_of(who.client, ObjectId::ROOT);
        let mut event = self.event(who, Op::Write, path);
        event.deed = Deed::Collapse;
        self.recorder.push(event);
    }
}
