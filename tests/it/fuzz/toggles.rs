//! Programs on a mount with a fast lane that is closed and opened again between their steps, and nobody can tell.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use chaosfs::{Clock, Errno, Fault, Knobs, Mount};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::draw::{Profile, program};
use super::place::Place;
use super::program::Step;
use super::{ALL, Ground, compare, config, strict};
use crate::ops::{alone, is_root};

/// What ends the lane for one step, if anything does.
#[derive(Clone, Debug)]
enum Toggle {
    Nothing,
    /// A fault for a file that is not there.
    Fault,
    /// Knobs that a program cannot notice.
    Knobs,
    /// Another client, which may write to a file, do the step itself, and still be there at the next.
    Other {
        writes: Option<(&'static str, u8, usize)>,
        steps: bool,
        stays: bool,
    },
}

fn toggle() -> impl Strategy<Value = Toggle> {
    let file = prop::sample::select(&["a", "b", "d/b", "e/c"][..]);
    let writes = prop::option::of((file, any::<u8>(), 1..6000_usize));
    let other = (writes, any::<bool>(), any::<bool>());
    prop_oneof![
        16 => Just(Toggle::Nothing),
        2 => Just(Toggle::Fault),
        2 => Just(Toggle::Knobs),
        3 => other.prop_map(|(writes, steps, stays)| Toggle::Other { writes, steps, stays }),
    ]
}

/// Writes at the start of a file that is there already; whether it could.
fn write(path: &std::path::Path, fill: u8, len: usize) -> Result<(), Option<i32>> {
    // A fifo with nobody at its other end would wait for somebody.
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    let done = || File::options().write(true).open(path)?.write_all(&vec![fill; len]);
    if is_file { done().map_err(|e| e.raw_os_error()) } else { Err(None) }
}

/// Does the steps on both sides, with their toggles; the first difference is the error.
fn steps(ground: &Ground, program: &[(Step, Toggle)]) -> Result<(), String> {
    let (mut through, mut bare) = ground.places();
    (through.several, bare.several) = (true, true);
    let mount = &ground.mounts[0];
    let mut other: Option<Mount> = None;
    for (n, (step, toggle)) in program.iter().enumerate() {
        let (names, slots) = step.what.touches();
        let named = slots.is_empty() && !names.is_empty() && names.iter().all(|w| w.base.is_none());
        let mut fault = None;
        match toggle {
            Toggle::Nothing => {}
            Toggle::Fault => fault = Some(mount.inject(Fault::fail(Errno::EIO).path("not/there"))),
            Toggle::Knobs => {
                let moment = Duration::from_nanos(1);
                mount.set_knobs(Knobs::strict().negative_ttl(moment).close_to_open(true)).unwrap();
            }
            Toggle::Other { writes, .. } => {
                let client = other.get_or_insert_with(|| ground.backing.mount(strict()).unwrap());
                if let Some((name, fill, len)) = writes {
                    let [seen, meant] =
                        [client.path(), &ground.bare].map(|root| write(&root.join(name), *fill, *len));
                    if seen != meant {
                        return Err(format!("before step {n}, {toggle:?}: {seen:?}, not {meant:?}"));
                    }
                }
            }
        }
        match (&other, toggle) {
            (Some(client), Toggle::Other { steps: true, .. }) if named => {
                let mut beside = Place::new(&[client.path().to_owned()]);
                beside.several = true;
                compare((&mut beside, &mut bare), n, step)?;
                let (seen, meant) = (through.glance(step), bare.glance(step));
                if seen != meant {
                    return Err(format!("beside step {n}, {step:?}:\n  {seen:?}\n  {meant:?}"));
                }
            }
            _ => compare((&mut through, &mut bare), n, step)?,
        }
        drop(fault);
        if matches!(toggle, Toggle::Knobs) {
            mount.set_knobs(Knobs::strict()).unwrap();
        }
        if !matches!(toggle, Toggle::Other { stays: true, .. })
            && let Some(client) = other.take()
        {
            client.unmount().map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

#[test]
fn a_lane_that_closes_and_opens_at_any_moment_cannot_be_told_from_none() {
    chaosfs::require_fuse!();
    alone("fuzz::toggles::a_lane_that_closes_and_opens_at_any_moment_cannot_be_told_from_none", || {
        // Two, though one does most: on the bare directory the other's `close` would end the locks of this process.
        let profile = Profile { clients: 2, users: is_root(), ..ALL };
        let programs = (program(profile), vec(toggle(), 130));
        let test = |(program, toggles): (Vec<Step>, Vec<Toggle>)| {
            let ground = Ground::new(&[strict().exact(false)], Clock::system());
            let program: Vec<_> = program.into_iter().zip(toggles).collect();
            let done = steps(&ground, &program).and_then(|()| ground.end());
            done.map_err(TestCaseError::fail)
        };
        if let Err(e) = TestRunner::new(config(40)).run(&programs, test) {
            panic!("{e}");
        }
    });
}
