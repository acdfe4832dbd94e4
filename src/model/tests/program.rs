//! Random programs: what clients do, step by step, and a run of it through the driver and the reference at once.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use proptest::prelude::*;

use super::driver::Driver;
use super::reference::{Reference, Register};
use super::{ClientId, F, FIRST_FILE, G, H, Knobs, OTHER, ObjectId, Place, ROOT, Time, at, eventual, ns};

pub(super) const PLACES: [Place; 4] = [F, G, H, (ROOT, 'i')];

/// One step of a client. Files are those that the client has opened or made last.
#[derive(Clone, Debug)]
pub(super) enum Do {
    Create {
        at: Place,
        exclusive: bool,
    },
    Open(Place),
    Write {
        at: u64,
        len: usize,
    },
    Append(usize),
    Truncate(u64),
    Chmod(u16),
    Flush,
    Read(u64, u64),
    Stat,
    Lock,
    Lookup(Place),
    List(ObjectId),
    Rename(Place, Place),
    Exchange(Place, Place),
    Link(Place, Place),
    Unlink(Place),
    Knobs(usize),
    Join(usize),
    Leave,
    /// Everyone is shown the truth now.
    Reveal,
    /// Time passes.
    Pass(u64),
    /// Time passes to the next moment at which something ends or shows, and this much more or less.
    Until(i64),
    Expire,
}

pub(super) type Step = (u32, Do);

/// Every kind of client there is.
pub(super) fn knobs(i: usize) -> Knobs {
    let strict = Knobs::strict();
    let all = [
        strict,
        eventual(),
        strict.meta_ttl(ns(15)),
        eventual().close_to_open(true),
        eventual().rename_delay(ns(0)).revalidate_on_open(true),
        eventual().rename_delay(ns(0)).publish_on_close(true),
        strict.rename_delay(ns(12)),
        strict.write_delay(ns(8)).publish_on_close(false),
        eventual().write_delay(ns(20)).rename_delay(ns(5)).reorder(true),
        eventual().write_delay(ns(20)).rename_delay(ns(5)),
        eventual().negative_ttl(ns(0)).exclusive_fresh(false),
        strict.negative_ttl(ns(10)),
        eventual().file_ttl(ns(40)).dir_ttl(ns(4)).negative_ttl(ns(0)).write_delay(ns(30)),
    ];
    all[i % all.len()]
}

pub(super) const KINDS: usize = 13;

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![2 => Just(F), 3 => (1..PLACES.len()).prop_map(|i| PLACES[i])]
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        2 => (place(), any::<bool>()).prop_map(|(at, exclusive)| Do::Create { at, exclusive }),
        2 => place().prop_map(Do::Open),
        8 => (0..12u64, 1..6usize).prop_map(|(at, len)| Do::Write { at, len }),
        1 => (1..5usize).prop_map(Do::Append),
        3 => (0..12u64).prop_map(Do::Truncate),
        1 => (0..8u16).prop_map(Do::Chmod),
        5 => Just(Do::Flush),
        10 => (0..8u64, 0..16u64).prop_map(|(at, len)| Do::Read(at, len)),
        4 => Just(Do::Stat),
        1 => Just(Do::Lock),
        6 => place().prop_map(Do::Lookup),
        3 => prop_oneof![Just(ROOT), Just(OTHER)].prop_map(Do::List),
        4 => (place(), place()).prop_map(|(a, b)| Do::Rename(a, b)),
        1 => (place(), place()).prop_map(|(a, b)| Do::Exchange(a, b)),
        3 => (place(), place()).prop_map(|(a, b)| Do::Link(a, b)),
        3 => place().prop_map(Do::Unlink),
        1 => (0..KINDS).prop_map(Do::Knobs),
        1 => (0..KINDS).prop_map(Do::Join),
        5 => (1..20u64).prop_map(Do::Pass),
        6 => (-1..2i64).prop_map(Do::Until),
        1 => Just(Do::Expire),
        1 => prop_oneof![Just(Do::Leave), Just(Do::Reveal)],
    ]
}

/// What a run does: the kinds of its clients, and their steps.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) kinds: Vec<usize>,
    pub(super) steps: Vec<Step>,
}

impl fmt::Debug for Program {
    /// One step on each line, as a regression test writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "&{:?}, &[", self.kinds)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "    {step:?},"))?;
        write!(f, "]")
    }
}

pub(super) fn program() -> impl Strategy<Value = Program> {
    let clients = prop::collection::vec(0..KINDS, 2..4);
    let steps = prop::collection::vec((0..4u32, step()), 1..80);
    (clients, steps).prop_map(|(kinds, steps)| Program { kinds, steps })
}

/// What the programs check besides the answers; see `agree`.
pub(super) trait Watch: Default {
    /// The client was shown this version of the register.
    fn saw(&mut self, run: &Run, client: ClientId, register: Register, version: Option<usize>);
}

/// A program on its way, in both worlds.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) model: Driver,
    pub(super) spec: Reference,
    pub(super) now: Time,
    pub(super) clients: Vec<ClientId>,
    /// Every set of knobs that a client has had.
    pub(super) had: BTreeMap<ClientId, Vec<Knobs>>,
    open: BTreeMap<ClientId, ObjectId>,
    pub(super) files: u64,
}

impl Run {
    pub(super) fn new(kinds: &[usize]) -> Self {
        let mut run = Run {
            model: Driver::new(usize::MAX, &[]),
            spec: Reference::default(),
            now: at(100),
            clients: Vec::new(),
            had: BTreeMap::new(),
            open: BTreeMap::new(),
            files: 0,
        };
        for kind in kinds {
            run.join(knobs(*kind));
        }
        run.start();
        run
    }

    /// One file is there from the start, and everyone has it open: most programs are about one file.
    fn start(&mut self) {
        let (first, object) = (self.clients[0], ObjectId(FIRST_FILE));
        self.create(first, F, false);
        self.write(first, object, 0, 8);
        self.flush(first, object);
        self.advance(self.now.after(ns(100)));
        self.open = self.clients.iter().map(|client| (*client, object)).collect();
    }

    fn join(&mut self, knobs: Knobs) {
        let client = ClientId(self.had.len() as u32 + 1);
        self.model.world.join(client, knobs);
        self.spec.set_knobs(client, knobs);
        self.had.entry(client).or_default().push(knobs);
        self.clients.push(client);
    }

    fn leave(&mut self, client: ClientId) {
        self.flush_all(Some(client));
        self.model.world.leave(client);
        self.spec.leave(client);
        self.clients.retain(|c| *c != client);
    }

    /// Flushes what this client has not flushed, or what any has not.
    pub(super) fn flush_all(&mut self, whose: Option<ClientId>) {
        for (client, object) in self.model.world.all_dirty() {
            if whose.is_none_or(|whose| whose == client) {
                self.flush(client, object);
            }
        }
    }

    pub(super) fn all_files(&self) -> impl Iterator<Item = ObjectId> + use<> {
        (FIRST_FILE..FIRST_FILE + self.files).map(ObjectId)
    }

    pub(super) fn step<W: Watch>(&mut self, watch: &mut W, (who, what): &Step) {
        let client = self.clients[*who as usize % self.clients.len()];
        let now = self.now;
        match what {
            Do::Create { at, exclusive } => self.create(client, *at, *exclusive),
            Do::Open(place) => {
                if let Some(object) = self.lookup(watch, client, *place) {
                    let fresh = self.model.world.knobs(client).revalidate_on_open;
                    self.open.insert(client, object);
                    self.stat(watch, client, object, fresh);
                }
            }
            Do::Lookup(place) => {
                self.lookup(watch, client, *place);
            }
            Do::List(dir) => same(&self.model.list(client, *dir, now), &self.spec.list(client, *dir, now)),
            Do::Rename(from, to) => self.rename(client, *from, *to, false),
            Do::Exchange(from, to) => self.rename(client, *from, *to, true),
            Do::Link(from, to) => match (self.spec.bound(*from), self.spec.bound(*to)) {
                (Some(object), None) => self.bind(client, &[(*to, Some(object))], true),
                (None, _) => self.told(client, *from),
                (_, Some(_)) => self.told(client, *to),
            },
            Do::Unlink(place) if self.spec.bound(*place).is_none() => self.told(client, *place),
            Do::Unlink(place) => self.bind(client, &[(*place, None)], false),
            Do::Knobs(kind) => {
                self.model.world.set_knobs(client, knobs(*kind));
                self.spec.set_knobs(client, knobs(*kind));
                self.had.entry(client).or_default().push(knobs(*kind));
            }
            Do::Join(kind) if self.clients.len() < 4 => self.join(knobs(*kind)),
            Do::Pass(n) => self.advance(self.now.after(ns(*n))),
            Do::Until(off) => {
                let next = self.spec.next_moment(now).map_or(0, |t| t.elapsed().as_nanos() as u64);
                self.advance(at(next.saturating_add_signed(*off)).max(now));
            }
            Do::Expire => self.model.world.expire(now),
            Do::Leave if self.clients.len() > 1 => self.leave(client),
            Do::Join(_) | Do::Leave => {}
            Do::Reveal => {
                self.flush_all(None);
                self.model.world.reveal_all();
                self.spec.reveal_all(now);
            }
            _ => {
                if let Some(object) = self.open.get(&client).copied() {
                    self.step_on_file(watch, client, object, what);
                }
            }
        }
    }

    fn step_on_file<W: Watch>(&mut self, watch: &mut W, client: ClientId, object: ObjectId, what: &Do) {
        let now = self.now;
        match what {
            Do::Write { at, len } => self.write(client, object, *at, *len),
            Do::Append(len) => {
                let end = self.stat(watch, client, object, true);
                self.write(client, object, end, *len);
            }
            Do::Truncate(size) => {
                self.model.set(client, object, now, (Some(*size), None));
                self.spec.set(client, object, now, (Some(*size), None));
            }
            Do::Chmod(perm) => {
                self.model.set(client, object, now, (None, Some(*perm)));
                self.spec.set(client, object, now, (None, Some(*perm)));
            }
            Do::Flush => self.flush(client, object),
            Do::Lock => {
                self.flush(client, object);
                self.model.world.reveal(client, object);
                self.spec.tell(client, Register::File(object));
            }
            Do::Read(from, len) => self.read(watch, client, object, (*from, *len)),
            _ => {
                self.stat(watch, client, object, false);
            }
        }
    }

    pub(super) fn lookup<W: Watch>(&mut self, watch: &mut W, c: ClientId, place: Place) -> Option<ObjectId> {
        let seen = self.model.lookup(c, place, self.now);
        same(&seen, &self.spec.lookup(c, place, self.now));
        let version = self.spec.version(c, Register::Name(place), self.now, false);
        watch.saw(self, c, Register::Name(place), version);
        seen
    }

    /// Answers the size.
    fn stat<W: Watch>(&mut self, watch: &mut W, c: ClientId, object: ObjectId, fresh: bool) -> u64 {
        let attr = self.model.stat(c, object, self.now, fresh);
        same(&attr, &self.spec.file(c, object, self.now, fresh).attr);
        let version = self.spec.version(c, Register::File(object), self.now, false);
        watch.saw(self, c, Register::File(object), version);
        attr.size
    }

    pub(super) fn read<W: Watch>(
        &mut self,
        watch: &mut W,
        c: ClientId,
        object: ObjectId,
        (from, len): (u64, u64),
    ) {
        let bytes = self.model.read(c, object, self.now, (from, len));
        let whole = self.spec.file(c, object, self.now, false).bytes;
        same(&bytes, &whole.into_iter().skip(from as usize).take(len as usize).collect());
        let version = self.spec.version(c, Register::File(object), self.now, false);
        watch.saw(self, c, Register::File(object), version);
    }

    /// Every write has bytes of its own, so that a mix of two states does not look like either.
    fn write(&mut self, client: ClientId, object: ObjectId, at: u64, len: usize) {
        let data =
            vec![(self.spec.log.len() * 7 + self.now.elapsed().subsec_nanos() as usize) as u8 | 1; len];
        self.model.write(client, object, at, &data, self.now);
        self.spec.write(client, object, at, &data, self.now);
        if self.model.world.knobs(client).write_delay.is_zero() {
            self.spec.flush(client, object, self.now);
        }
        let read = self.model.read(client, object, self.now, (at, len as u64));
        assert_eq!(read, data, "a client reads its own writes");
        // Reading fetches: the reference has to do so too.
        self.spec.file(client, object, self.now, false);
    }

    pub(super) fn flush(&mut self, client: ClientId, object: ObjectId) {
        self.model.flush(client, object, self.now);
        self.spec.flush(client, object, self.now);
    }

    fn create(&mut self, client: ClientId, place: Place, exclusive: bool) {
        if let Some(object) = self.spec.bound(place) {
            self.told(client, place);
            if !exclusive {
                self.open.insert(client, object);
            }
            return;
        }
        let object = ObjectId(FIRST_FILE + self.files);
        self.files += 1;
        self.model.make(object, self.now);
        self.spec.make(client, object, self.now);
        self.bind(client, &[(place, Some(object))], exclusive);
        self.open.insert(client, object);
    }

    fn rename(&mut self, client: ClientId, from: Place, to: Place, exchange: bool) {
        let (moved, replaced) = (self.spec.bound(from), self.spec.bound(to));
        match moved {
            None => self.told(client, from),
            Some(_) if exchange && replaced.is_none() => self.told(client, to),
            // Two names of one file: POSIX says that nothing happens.
            Some(_) if moved == replaced => {}
            Some(_) => {
                let back = replaced.filter(|_| exchange);
                self.bind(client, &[(from, back), (to, moved)], false);
            }
        }
    }

    fn bind(&mut self, client: ClientId, changes: &[(Place, Option<ObjectId>)], exclusive: bool) {
        self.model.bind(client, self.now, changes, exclusive);
        self.spec.bind(client, self.now, changes, exclusive);
    }

    /// R4: EEXIST or ENOENT.
    fn told(&mut self, client: ClientId, place: Place) {
        self.model.reveal_name(client, place);
        self.spec.tell(client, Register::Name(place));
        if let Some(object) = self.spec.bound(place) {
            self.spec.tell(client, Register::File(object));
        }
    }

    pub(super) fn advance(&mut self, to: Time) {
        loop {
            let due = self.spec.due().filter(|(when, ..)| *when <= to);
            same(&self.model.world.due(to), &due);
            let Some((when, client, object)) = due else { break };
            self.now = self.now.max(when);
            self.flush(client, object);
        }
        self.now = to;
    }
}

pub(super) fn same<T: PartialEq + Debug>(model: &T, reference: &T) {
    assert_eq!(model, reference, "the model (left) is not what the reference says (right)");
}
