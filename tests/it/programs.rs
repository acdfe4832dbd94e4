//! Whole programs on a mount, with strict knobs and as the one client of eventual ones: what they come to is what they come
//! to on the bare directory.

mod async_io;
mod databases;
mod editors;
mod mappings;
mod python;
mod tools;

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use chaosfs::Knobs;

use crate::ops::{NOBODY, Twin, as_nobody, is_root, shell};

/// Does the same on the bare directory and on a strict mount, each in a directory of its own, and answers what it came to.
/// As root it is done once more by a thread that is an ordinary user.
#[track_caller]
fn both<T: PartialEq + Debug + Send>(work: impl Fn(&Path) -> T + Sync) -> T {
    let t = Twin::new();
    let place = |dir: &Path, name: &str| {
        let place = dir.join(name);
        fs::create_dir(&place).unwrap();
        place
    };
    let came_to = t.both(|dir| work(&place(dir, "own")));
    if is_root() {
        t.same(|dir| {
            let theirs = place(dir, "theirs");
            std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
            as_nobody(|| work(&theirs))
        });
    }
    came_to
}

/// The same, where only that it comes to the same counts.
#[track_caller]
fn same<T: PartialEq + Debug + Send>(work: impl Fn(&Path) -> T + Sync) {
    let _ = both(work);
}

/// Runs a script by [`both`]; it must succeed.
#[track_caller]
fn script(text: &str) -> String {
    both(|dir| {
        let (code, said) = shell(dir, &format!("set -e\nexport LC_ALL=C HOME=$PWD\n{text}"));
        assert_eq!(code, Some(0), "in {}: {said}", dir.display());
        said
    })
}

/// Runs the script on the bare directory and through mounts of both kinds, and answers what it said.
fn everywhere(script: &str) -> String {
    let run = |dir: &Path| {
        let (code, said) = shell(dir, &format!("set -e\n{script}"));
        assert_eq!(code, Some(0), "in {}: {said}", dir.display());
        said
    };
    let strict = Twin::new().both(run);
    let eventual = Twin::with(Knobs::eventual()).both(run);
    assert_eq!(strict, eventual);
    strict
}

/// What a git that is told nothing by its surroundings needs.
const GIT: &str = "
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a
    export GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
";

#[test]
fn git_keeps_two_thousand_files() {
    let script = "
        mkdir w; cd w; git init -q -b main
        for d in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do mkdir d$d; for f in 0 1 2 3 4 5 6 7 8 9; do
            for g in 0 1 2 3 4 5 6 7 8 9; do echo $d $f $g >d$d/$f$g; done; done; done
        git add -A; git commit -qm one
        echo changed >d3/33; git mv d7 moved; git rm -rqf d9; git add -A; git commit -qm two
        git gc -q --prune=now; git fsck --full --strict 2>&1; git status --porcelain
        git rev-parse HEAD 'HEAD^{tree}'; git ls-files | wc -l
        git checkout -q HEAD~1; git status --porcelain; git ls-files | wc -l
        cd ..; rm -rf w; ls -A";
    let said = everywhere(&format!("{GIT}{script}"));
    assert!(said.contains("1900") && said.contains("2000"), "{said}");
}

#[test]
fn sqlite_loses_nothing_in_either_journal_with_two_processes() {
    let script = "
        for mode in DELETE WAL; do
            db=$mode.db
            sqlite3 $db \"PRAGMA journal_mode=$mode; CREATE TABLE t(who INT, i INT, b BLOB); CREATE INDEX x ON t(i);
                WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<2000)
                INSERT INTO t SELECT 0, i, zeroblob(i%700) FROM c;\"
            for who in 1 2; do
                { echo .timeout 20000; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
                    echo \"INSERT INTO t VALUES($who, $i, 'x');\"; done; } | sqlite3 $db >out.$who 2>&1 &
            done
            wait; cat out.1 out.2
            sqlite3 $db 'BEGIN; DELETE FROM t; ROLLBACK;' 'SELECT count(*), sum(i), count(DISTINCT who) FROM t'
            sqlite3 $db 'DELETE FROM t WHERE i%3=0; VACUUM;' 'PRAGMA integrity_check' 'SELECT count(*) FROM t'
        done";
    let said = everywhere(script);
    assert_eq!(said.matches("2040|2001420|3\nok\n").count(), 2, "{said}");
}

/// A tree of many kinds of things.
const TREE: &str = "
    mkdir src; cd src; umask 022
    for d in a b c d; do mkdir -p $d/e/f; for f in 1 2 3 4 5 6 7 8 9; do
        head -c $((f * 3001)) /dev/zero | tr '\\0' $f >$d/e/f$f; ln $d/e/f$f $d/e/f/hard$f; ln -s ../f$f $d/e/f/soft$f
        chmod 6$((f % 8))$((f % 5)) $d/e/f$f; done; done
    mkfifo fifo; truncate -s 30M sparse; printf x | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
    chmod 1777 a; chmod 2755 b; find . -exec touch -h -d '2002-02-02 02:02:02' {} +
    for d in a b c d; do for f in 1 2 3 4 5 6 7 8 9; do touch -d \"2001-02-0$f 01:02:03.$f\" $d/e/f$f; done; done; cd ..
    sums() { (cd $1; find . -type f | LC_ALL=C sort | xargs sha256sum; find . | LC_ALL=C sort |
        xargs stat -c '%n %f %h %u %g %Y' | sed 's/^\\(.*\\) 41[0-9a-f]* .*/\\1 dir/'; find . -type l -printf '%p %l\\n' |
        LC_ALL=C sort); }
";

#[test]
fn tar_goes_there_and_back() {
    let script = "
        tar -C src --sparse -cf a.tar .; mkdir back; tar -C back -xpf a.tar
        sums src >one; sums back >two; cmp one two; tar -C back -df a.tar; test $(stat -c %b back/sparse) -lt 2000
        cp -a back copy; sums copy >three; cmp one three
        wc -l <one; sha256sum one; rm -rf src back copy; ls -A";
    let said = everywhere(&format!("{TREE}{script}"));
    assert!(said.ends_with("a.tar\none\nthree\ntwo\n"), "{said}");
}

#[test]
fn rsync_brings_nothing_the_second_time() {
    // Not everywhere; the rest of the file stands without it.
    if std::process::Command::new("rsync").arg("--version").output().is_err() {
        return;
    }
    let script = "
        rsync -aH src/ dst/; sums src >one; sums dst >two; cmp one two
        rsync -aHi --delete src/ dst/; echo more >>dst/a/e/f1; rsync -aH --inplace --checksum src/ dst/
        rm dst/b/e/f2; rsync -aHi --existing src/ dst/; rsync -aHc src/ dst/; sums dst >two; cmp one two; rm -rf src dst";
    everywhere(&format!("{TREE}{script}"));
}
