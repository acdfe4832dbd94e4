//! What needs the root of the machine, who can become every kind of user: all such tests of this layer. For others they are
//! empty; another user plays the same parts itself, in the tests beside this file.

use std::time::Duration;

use rustix::process::Signal;

use super::endings::{as_user, run};
use super::victims::{dies, let_go};
use super::{again, succeeds};

fn is_root() -> bool {
    // That of a user namespace can become nobody.
    let all = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    rustix::process::geteuid().is_root() && all
}

#[test]
fn every_ending_as_a_user_with_fusermount3() {
    if is_root() {
        run(&as_user("666", "65534"));
    }
}

#[test]
fn every_ending_as_a_user_who_is_root_in_a_namespace() {
    if is_root() {
        let mut wrapper = as_user("666", "65534");
        wrapper.extend(["unshare", "-Urm"].map(str::to_owned));
        run(&wrapper);
    }
}

#[test]
fn figures_as_a_user_with_fusermount3() {
    if is_root() {
        assert!(succeeds(again(&as_user("666", "65534"), "figures::measure"), Duration::from_secs(60)));
    }
}

#[test]
fn root_sweeps_the_mounts_of_users() {
    if is_root() {
        let command = again(&as_user("666", "0"), "victims::sweeps_the_mount_of_a_user");
        assert!(succeeds(command, Duration::from_secs(20)));
    }
}

#[test]
fn a_process_of_a_user_with_a_mount_can_always_end() {
    if is_root() {
        for (end, signal) in [("exit", None), ("term", Some(Signal::TERM)), ("kill", Some(Signal::KILL))] {
            dies(&as_user("666", "65534"), end, signal);
        }
    }
}

#[test]
fn a_user_is_told_what_is_missing() {
    if !is_root() {
        return;
    }
    for (mode, case) in [("600", "no device"), ("666", "no helper"), ("666", "not ours")] {
        let mut wrapper = as_user(mode, "65534");
        if case == "no helper" {
            wrapper.extend(["env", "PATH=/nowhere"].map(str::to_owned));
        }
        let mut command = again(&wrapper, "checks::as_a_user");
        command.env("CHAOSFS_TEST_CASE", case);
        assert!(succeeds(command, Duration::from_secs(20)), "{case}");
    }
}

#[test]
fn a_process_that_waits_for_its_own_mount_when_it_is_killed_is_let_go_by_the_next_sweep() {
    // Only root can force an unmount, and others need the control file system of FUSE to end a connection.
    if is_root() {
        let_go();
    }
}
