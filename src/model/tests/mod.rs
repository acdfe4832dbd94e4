//! Tests of the model as a whole. [`reference`] says in the plainest way what a client sees; [`driver`] plays the engine
//! around a `World`; [`agree`] compares the two over random programs, and [`rules`] shows each rule by an example.

mod agree;
mod budget;
mod driver;
mod program;
mod reference;
mod regressions;
mod rules;

use std::ffi::OsStr;
use std::time::Duration;

use proptest::test_runner::{Config, RngSeed};

use super::attr::{Attr, Kind, Stamp};
use super::ids::{ClientId, Name, ObjectId};
use super::knobs::Knobs;
use super::time::Time;

const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);
const C: ClientId = ClientId(3);

/// The two directories; the second one is told apart from the root only by its number.
const ROOT: ObjectId = ObjectId::ROOT;
const OTHER: ObjectId = ObjectId(2);
/// Objects from here on are files.
const FIRST_FILE: u64 = 10;

/// A directory entry: the directory, and a name of one letter.
type Place = (ObjectId, char);

const F: Place = (ROOT, 'f');
const G: Place = (ROOT, 'g');
const H: Place = (OTHER, 'h');

fn name(letter: char) -> Name {
    Name::new(OsStr::new(letter.encode_utf8(&mut [0; 4])))
}

/// The tests count in single nanoseconds: the model only ever compares times.
fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

const fn ns(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

/// What a file's time stamps say about something that happened at `t`.
fn stamp(t: Time) -> Stamp {
    Stamp { secs: 0, nanos: t.elapsed().subsec_nanos() }
}

/// The attributes of a file that has just been made.
fn empty_file(now: Time) -> Attr {
    let made = stamp(now);
    Attr {
        kind: Kind::File,
        perm: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: made,
        mtime: made,
        ctime: made,
    }
}

/// Delays and times to live that are short, different and easy to add up.
fn eventual() -> Knobs {
    Knobs::eventual().meta_ttl(ns(15)).write_delay(ns(8)).rename_delay(ns(12))
}

/// The same programs in every run, unless `PROPTEST_CASES` or `PROPTEST_RNG_SEED` asks for others. Failures are kept as
/// named tests in `regressions`, not as files.
fn config(cases: u32) -> Config {
    let asked = Config::default();
    let rng_seed = if asked.rng_seed == RngSeed::Random { RngSeed::Fixed(0x5eed) } else { asked.rng_seed };
    // 256 is what proptest says when nobody has asked.
    let cases = if asked.cases == 256 { cases } else { asked.cases };
    Config { cases, rng_seed, failure_persistence: None, ..asked }
}
