//! Two users in one directory: whose files are, who may what, sticky and set-gid directories, umasks and groups, told by
//! programs that run as them, and the same as without a mount.

use std::path::Path;
use std::process::Command;

use crate::ops::{Twin, chmod, is_root};

/// Runs a script in `dir` as this user, and answers all that it said.
fn as_user(dir: &Path, user: u32, groups: &str, script: &str) -> String {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}"), format!("--groups={groups}")]);
    let out = command.args(["sh", "-c", script]).current_dir(dir).env("LC_ALL", "C").output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

const ONE: u32 = 5001;
const OTHER: u32 = 5002;
/// A group of both.
const CLUB: &str = "6000";
const SHOW: &str = "find . -mindepth 1 -printf '%M %U %G %n %s %p -> %l\\n' | sort -k6";

/// Every script once as each user, alternately, and what there is after each.
fn alternately(twin: &Twin, prepare: &str, scripts: &[&str]) {
    if !is_root() {
        return;
    }
    let said = twin.both(|dir| {
        let mut said = vec![as_user(dir, 0, "0", prepare)];
        for script in scripts {
            for (user, groups) in [(ONE, CLUB), (OTHER, CLUB), (OTHER, "6001")] {
                said.push(format!("{script} as {user} in {groups}: {}", as_user(dir, user, groups, script)));
                said.push(as_user(dir, 0, "0", SHOW));
            }
        }
        said
    });
    assert!(said.iter().any(|said| said.contains("denied") || said.contains("not permitted")), "{said:#?}");
}

#[test]
fn a_sticky_directory_lets_users_remove_and_move_only_their_own() {
    chaosfs::require_fuse!();
    let scripts = [
        "echo mine > tmp/$(id -u); mkdir tmp/d$(id -u); ln -s nowhere tmp/l$(id -u)",
        "rm -f tmp/5001; mv tmp/d5001 tmp/taken; rm -rf tmp/l5001; mv tmp/roots tmp/taken",
        "echo more >> tmp/5001; cat tmp/*; mv -T tmp/5002 tmp/roots; ln tmp/roots tmp/linked$(id -u)",
        "mv tmp/d$(id -u) free/; mv free/d5001 tmp/back; chmod 0 tmp/roots; chmod 600 tmp/$(id -u); touch tmp/*",
    ];
    let prepare = "umask 0; mkdir -m 1777 tmp; mkdir -m 777 free; echo root > tmp/roots; chmod 666 tmp/roots";
    alternately(&Twin::new(), prepare, &scripts);
}

#[test]
fn a_set_gid_directory_hands_its_group_down_and_groups_and_umasks_count() {
    chaosfs::require_fuse!();
    let scripts = [
        "umask 002; echo a > club/a$(id -u)-$(id -G | tr ' ' -); mkdir -p club/d$(id -u)",
        "umask 077; echo b > club/d5001/b$(id -u); echo more >> club/a5001-5001-6000; mkfifo club/p$(id -u)",
        "echo c > secret/c; cat secret/s; ls secret; cd secret; cat known/s; cat inner/s",
        "chgrp 6000 club/d$(id -u); chgrp 6001 club/d$(id -u); chmod 2775 club/d$(id -u); chmod g+s club/a$(id -u)-*",
        "umask 027; cp club/a5001-5001-6000 copy$(id -u); install -m 4755 /bin/true club/suid$(id -u); echo x >> club/suid5001",
        "chown 5002 club/a5001-5001-6000; chmod o-x .; rm -rf club/d5001; test -w club && test -r secret && echo both",
    ];
    let prepare = "umask 0; mkdir club; chgrp 6000 club; chmod 2770 club; mkdir -p secret/inner; echo s > secret/s; \
                   echo s > secret/inner/s; chmod 640 secret/s; chgrp 6000 secret secret/s; chmod 710 secret";
    let twin = Twin::new();
    // Users make files at the top as well.
    [twin.bare(), twin.backing()].iter().for_each(|dir| chmod(dir, 0o777));
    alternately(&twin, prepare, &scripts);
}
