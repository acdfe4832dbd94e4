//! The examples say what they are supposed to say. `cargo test` builds them next to this binary.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use chaosfs::{Backing, Clock, Options};

fn built(example: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.ancestors().nth(2).unwrap().join("examples").join(example)
}

/// What an example prints; it must end well, and leave nothing on standard error.
fn output(example: &str, args: &[&str]) -> String {
    let out = Command::new(built(example)).args(args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(out.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "");
    stdout
}

#[test]
fn stale_reader() {
    assert_eq!(
        output("stale_reader", &[]),
        "\
reader opens the file:          old
writer rewrites it. kept open:  old
  why: reader sees an older state of `config` (3 bytes): it fetched it 0.000s ago and asks again in 3.000s; \
the truth is v5 (3 bytes), committed by writer at t=0.000s; it is now t=0.000s
2 s later, kept open:           old
2 s later, opened again:        new
2 s later, kept open:           new
"
    );
}

#[test]
fn rename_race() {
    assert_eq!(
        output("rename_race", &[]),
        "\
Both rename a file of their own to `latest`:
  a: done
  b: done
  at once      a sees: by a   b sees: by b  
  1.2 s later  a sees: by a   b sees: by b  
  2.7 s later  a sees: by b   b sees: by b  
Both link a file of their own to `first`:
  a: done
  b: entity already exists
  at once      a sees: by a   b sees: by a  
"
    );
}

#[test]
fn lost_update() {
    assert_eq!(
        output("lost_update", &[]),
        "\
if !exists(lock) create(lock):  20 updates, 10 lost
create(lock) with O_EXCL:       20 updates, 0 lost
"
    );
}

#[test]
fn eio_on_purpose() {
    assert_eq!(
        output("eio_on_purpose", &[]),
        "\
a fault on fsync of **/*.wal:
  app.wal   fails: Input/output error (os error 5)
  app.data  is safe
  the fault was hit 1 time
without it:
  app.wal   is safe
drop_prob 0.2, seed 7: ...X.XXX.X
  #28 0.000s db: write \"f3\" -> EIO (dropped by drop_prob)
  #36 0.000s db: fsync \"f5\" -> EIO (dropped by drop_prob)
  #40 0.000s db: fsync \"f6\" -> EIO (dropped by drop_prob)
"
    );
}

/// Checks that `lines` are in `text`, in this order.
fn in_order(text: &str, lines: &[&str]) {
    let mut rest = text;
    for line in lines {
        let at = rest.find(line).unwrap_or_else(|| panic!("`{line}` is not where it should be in:\n{text}"));
        rest = &rest[at + line.len()..];
    }
}

#[test]
fn race_shows_a_repository_that_is_behind_then_broken_then_well() {
    let text = output("race", &["git"]);
    in_order(
        &text,
        &[
            "1.50s  b   $ git log --oneline\n              | c2a18cb one\n",
            "1.50s  a   $",
            "| 29ddcac two",
            "> replaced .git/refs/heads/main",
            "1.50s  b   $ git log --oneline\n              | c2a18cb one\n",
            "! replaced file still there: .git/refs/heads/main",
            "2.60s  b   $ git cat-file",
            "! name not visible yet: .git/objects/29",
            "3.10s  b   $ git log --oneline\n              | fatal: bad object HEAD",
            "! negative dentry: .git/objects/29",
            "settled",
            "| 29ddcac two\n              | c2a18cb one\n              | fsck: clean",
            "anomalies: ",
        ],
    );
    assert_eq!(text, output("race", &["git"]), "the same every time");
}

#[test]
fn race_shows_a_database_that_is_behind_then_half_written_then_well() {
    let text = output("race", &["sqlite"]);
    in_order(
        &text,
        &[
            "b   $ sqlite3 'file:db?vfs=unix-none' 'select count(*) from t'\n              | 3000\n",
            "a   $ sqlite3 db 'insert",
            "b   $ sqlite3 'file:db?vfs=unix-none' 'select count(*) from t'\n              | 3000\n",
            "! stale read: db",
            "b   $ sqlite3 db 'select count(*) from t'\n              | 3001\n",
            "kill -9",
            "b   $ sqlite3 db 'select count(*) from t where x=0",
            "! name not visible yet: db-journal",
            "settled",
            "pragma integrity_check'\n              | 0\n              | ok\n",
        ],
    );
}

#[test]
fn race_runs_commands_of_ones_own() {
    let write = "echo a >> log; echo $CHAOSFS_MOUNT; echo {}";
    let text =
        output("race", &["--turns", "--", "sh", "-c", write, "--", "sh", "-c", "cat log; echo b >> log"]);
    in_order(
        &text,
        &[
            "a   $ sh -c",
            "| {}\n              | {}\n",
            "b   $ sh",
            "! name not visible yet: log",
            "in the end: log (4 bytes)",
        ],
    );
    let text = output("race", &["--", "true", "--", "true"]);
    in_order(&text, &["a   $ true", "b   $ true", "a has ended", "b has ended", "anomalies: none"]);
    let out = Command::new(built("race")).arg("--wrong").output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("--wrong"));
}

// ---- the example that stands in for a command-line program -----------------------------------------------------------

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// Starts `mount`, waits until it says that it is ready, lets `end` end it, and checks that it ends well and soon.
fn mounts_until(end: impl FnOnce(u32, &Path)) {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    let (backing, at) = (base.join("backing"), base.join("mnt"));
    std::fs::create_dir_all(&backing).unwrap();
    std::fs::create_dir_all(&at).unwrap();
    let flags = [
        "--meta-ttl",
        "1.5s",
        "--profile",
        "strict",
        "--seed",
        "7",
        "--client-id",
        "me",
        "--write-delay",
        "20",
    ];
    let mut child = Command::new(built("mount"))
        .args([&backing, &at])
        .args(flags)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, format!("ready: client `me` at {}, seed 7\n", at.display()));
    std::fs::write(at.join("f"), "through the mount").unwrap();
    end(child.id(), &at);
    let (ended, status) = std::sync::mpsc::channel();
    let pid = child.id().to_string();
    std::thread::spawn(move || ended.send(child.wait()));
    let Ok(status) = status.recv_timeout(Duration::from_secs(5)) else {
        Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        panic!("it does not end");
    };
    assert!(status.unwrap().success());
    assert!(!is_mounted(&at));
    assert_eq!(std::fs::read_to_string(backing.join("f")).unwrap(), "through the mount");
}

#[test]
fn mount_ends_cleanly_when_it_is_told_to_and_when_it_is_unmounted_from_outside() {
    for signal in ["-INT", "-TERM"] {
        mounts_until(|pid, _| {
            Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
        });
    }
    mounts_until(|_, at| {
        let out = Command::new("fusermount3").arg("-u").arg(at).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    });
}

#[test]
fn mount_names_what_it_does_not_understand() {
    let cases: [(&[&str], &str); 5] = [
        (&["a", "b", "--meta-ttl", "soon"], "`--meta-ttl soon` is not understood"),
        (&["a", "b", "--meta-tll", "1s"], "`--meta-tll 1s` is not understood"),
        (&["a", "b", "--seed"], "`--seed ` is not understood"),
        (&["a"], "usage: mount BACKING MOUNTPOINT"),
        (&["/nowhere/at/all", "/tmp"], "/nowhere/at/all"),
    ];
    for (args, text) in cases {
        let out = Command::new(built("mount")).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && stderr.contains(text), "{args:?}: {stderr}");
    }
    let out =
        Command::new(built("mount")).args(["a", "b"]).env("CHAOSFS_META_TTL_MS", "soon").output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("CHAOSFS_META_TTL_MS"));
}

/// The test in README.md, word for word.
#[test]
fn a_worker_waits_for_the_result_to_arrive() -> Result<(), Box<dyn std::error::Error>> {
    // One directory, two hosts, and a clock that only this test moves.
    let backing = Backing::options().clock(Clock::manual()).temp()?;
    let producer = backing.mount(Options::new().client_id("producer"))?;
    let worker = backing.mount(Options::new().client_id("worker"))?;

    std::fs::write(producer.join("result"), "42")?;
    assert!(!worker.join("result").exists(), "{}", backing.explain("worker", "result")?);

    // Names travel for 1200 ms, and the worker believes "no such file" for 1500 ms from when it asked.
    backing.clock().advance(Duration::from_millis(1500));
    assert_eq!(std::fs::read_to_string(worker.join("result"))?, "42");

    worker.unmount()?;
    producer.unmount()?;
    Ok(())
}

#[test]
fn the_test_in_the_readme_is_the_one_above() {
    let (readme, tests) = (include_str!("../../README.md"), include_str!("examples.rs"));
    let code = readme.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(tests.contains(code.split_once("#[test]").unwrap().1), "README.md and this file differ");
}
