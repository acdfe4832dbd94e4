//! The model against the reference, over random programs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::program::{KINDS, PLACES, Run, Step, Watch, knobs, program};
use super::reference::Register;
use super::{ClientId, OTHER, ROOT, Time, config};

/// What every client may rely on, whatever the reference says.
#[derive(Default)]
struct Promises {
    latest: BTreeMap<(ClientId, Register), Option<usize>>,
}

impl Watch for Promises {
    fn saw(&mut self, run: &Run, client: ClientId, register: Register, version: Option<usize>) {
        let before = self.latest.insert((client, register), version);
        assert!(before.is_none_or(|b| b <= version), "{client:?} was shown {register:?} backwards");
        assert!(
            own(run, client, register) <= version,
            "{client:?} was not shown its own change of {register:?}"
        );
        assert!(
            young(run, client, register, version),
            "{client:?} was shown {register:?} later than the bound"
        );
    }
}

fn own(run: &Run, client: ClientId, register: Register) -> Option<usize> {
    (0..run.spec.log.len())
        .rev()
        .find(|v| run.spec.changes(*v) == Some(register) && run.spec.log[*v].by == client)
}

/// The bound of SEMANTICS.md: the successor of what was shown was committed after `now - (ttl + lag)`.
fn young(run: &Run, client: ClientId, register: Register, version: Option<usize>) -> bool {
    let first = version.map_or(0, |v| v + 1);
    let Some(next) = (first..run.spec.log.len()).find(|v| run.spec.changes(*v) == Some(register)) else {
        return true;
    };
    let next = &run.spec.log[next];
    let ttls = run.had[&client].iter().map(|k| match register {
        Register::File(_) => k.file_ttl,
        Register::Name(_) => k.dir_ttl.max(k.negative_ttl),
    });
    let lags = run.had[&next.by].iter().map(|k| match register {
        Register::File(_) => {
            if k.publish_on_close {
                super::ns(0)
            } else {
                k.write_delay
            }
        }
        Register::Name(_) => k.rename_delay,
    });
    let late = ttls.max().unwrap_or_default() + lags.max().unwrap_or_default();
    // A file shown exactly as it is on the disk is late by nothing; otherwise strictly less than the bound.
    run.now < next.when.after(late)
}

pub(super) fn run(kinds: &[usize], steps: &[Step]) {
    let mut run = Run::new(kinds);
    let mut promises = Promises::default();
    for step in steps {
        run.step(&mut promises, step);
    }
    settles(&mut run, &mut promises);
}

/// After all delays everybody sees the truth, and nothing is held in memory for the past.
fn settles(run: &mut Run, promises: &mut Promises) {
    run.flush_all(None);
    let settled: Time = run.model.world.settled_at(run.now);
    run.advance(settled);
    run.model.world.expire(run.now);
    for client in run.clients.clone() {
        for place in PLACES {
            let seen = run.lookup(promises, client, place);
            assert_eq!(seen, run.spec.bound(place), "{client:?} sees {place:?} as it is after all delays");
        }
        for object in run.all_files() {
            run.read(promises, client, object, (0, 1000));
            let seen = run.model.file(client, object, run.now);
            assert_eq!(
                &seen, &run.model.files[&object],
                "{client:?} sees the file as it is after all delays"
            );
        }
        for dir in [ROOT, OTHER] {
            let listed = run.model.list(client, dir, run.now);
            let names = run.model.names.iter().filter(|(p, _)| p.0 == dir).map(|(p, o)| (*p, *o));
            assert_eq!(listed, names.collect(), "{client:?} lists the directory as it is after all delays");
        }
    }
    assert_eq!(run.model.world.held(), 0, "no past is kept when all delays are over");
}

/// Strict clients see the truth after each step.
fn run_strict(clients: usize, steps: &[Step]) {
    let mut run = Run::new(&vec![0; clients]);
    let mut promises = Promises::default();
    for step in steps {
        if matches!(step.1, super::program::Do::Knobs(_) | super::program::Do::Join(_)) {
            continue;
        }
        run.step(&mut promises, step);
        for client in run.clients.clone() {
            for place in PLACES {
                assert_eq!(run.model.lookup(client, place, run.now), run.model.names.get(&place).copied());
            }
            for object in run.all_files() {
                assert_eq!(run.model.file(client, object, run.now), run.model.files[&object]);
            }
        }
        assert_eq!(run.model.world.held(), 0, "strict clients cost no memory");
    }
}

/// Every kind of client is a kind of its own.
#[test]
fn the_kinds_of_clients_are_all_different() {
    let all: Vec<_> = (0..KINDS).map(knobs).collect();
    assert!(all.iter().enumerate().all(|(i, k)| !all[..i].contains(k)));
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn every_answer_is_what_the_reference_says(program in program()) {
        run(&program.kinds, &program.steps);
    }

    #[test]
    fn strict_clients_always_see_the_truth(program in program()) {
        run_strict(program.kinds.len(), &program.steps);
    }
}
