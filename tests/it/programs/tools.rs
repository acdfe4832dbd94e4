//! Tools that read names and times by the thousand: cargo, find, sed, make's idea of what is newer.

use std::path::Path;
use std::process::Command;

use super::script;
use crate::ops::Twin;

#[test]
fn cargo_builds_into_the_mount_and_knows_what_is_fresh() {
    // As who runs the tests: an ordinary user has no cargo where root has one.
    let said = Twin::new().both(|dir| {
        let root = dir.join("crate");
        std::fs::create_dir_all(root.join("src")).unwrap();
        let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
        std::fs::write(root.join("Cargo.toml"), manifest).unwrap();
        std::fs::write(root.join("src/lib.rs"), "pub fn answer() -> u32 { 6 * 7 }\n").unwrap();
        std::fs::write(root.join("src/main.rs"), "fn main() { println!(\"{}\", tiny::answer()) }\n").unwrap();
        let mut said = cargo(&root, &["build"]);
        said += &cargo(&root, &["build", "-v"]);
        said += &cargo(&root, &["run", "-q"]);
        std::fs::write(root.join("src/lib.rs"), "pub fn answer() -> u32 { 6 * 8 }\n").unwrap();
        said += &cargo(&root, &["run"]);
        said += &cargo(&root, &["clean", "-q"]);
        said
    });
    assert_eq!(said.matches("Compiling").count(), 2, "{said}");
    assert_eq!(said.matches("Fresh").count(), 1, "{said}");
    assert!(said.contains("\n42\n") && said.contains("\n48\n"), "{said}");
}

/// Runs cargo in `dir`, with what it builds beside the source, and answers what it says without what differs from run to run.
fn cargo(dir: &Path, args: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args).arg("--offline").current_dir(dir);
    // What the cargo that runs the tests tells its children is not meant for this one.
    for name in
        ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WRAPPER"]
    {
        command.env_remove(name);
    }
    let out = command.env("CARGO_TERM_COLOR", "never").env("CARGO_INCREMENTAL", "1").output().unwrap();
    let said = String::from_utf8([out.stderr, out.stdout].concat()).unwrap();
    assert!(out.status.success(), "cargo {args:?} in {}: {said}", dir.display());
    let known = |line: &&str| !line.contains("Finished") && !line.contains("Running");
    said.lines().filter(known).map(|line| line.replace(dir.to_str().unwrap(), "CRATE") + "\n").collect()
}

#[test]
fn find_tells_files_by_age_links_size_mode_and_number() {
    let said = script(
        "umask 022; mkdir -p a/b/c; for i in 1 2 3 4 5 6; do head -c $((i * 700)) /dev/zero >a/f$i; done
        ln a/f1 a/b/hard; ln -s ../f2 a/b/soft; ln -s nowhere a/b/broken; mkfifo a/b/c/fifo; : >a/b/c/empty
        chmod 700 a/f2; chmod 4755 a/f3; chmod 1777 a/b; chmod 000 a/f4
        touch -d '2020-02-02 02:02:02.5' a/f5; touch -d '2020-02-02 02:02:02.4' a/f6; touch -d '2020-02-02 02:02:02.45' mark
        f() { echo \"== $*\" | sed 's/-inum .*/-inum/'; find \"$@\" | sort; }
        f . -newer mark -type f; f . ! -newer mark; f . -links 2 -type f; f . -links +1 -type d; f . -perm 700; f . -perm /4000
        f . -perm -1000; f . -size 3; f . -size +2k; f . -size -1; f . -empty; f . -type l; f -L . -type l; f . -xtype f
        f . -inum $(stat -c %i a/b/hard); f . -samefile a/f1; f . -lname '*f2'; f . -mtime +1000; f . -newermt '2020-02-02 02:02:03'
        f . -user $(id -u); f . -nouser; f . -readable -type f; f . -maxdepth 2 -mindepth 2; f . -depth; f . -path '*/c/*' -prune
        f . -type f -printf '%P %s %m %n %y %D\\n' | sed 's/ [0-9]*$//'; f . -type d -printf '%P %m %y %d\\n'; f . -fstype none
        f . -type f -size +5 -delete; f . -name 'f*' -execdir test -s {} ';' -print; f . -delete; ls -A",
    );
    assert!(said.contains("== . -inum") && said.contains("./a/b/hard\n"), "{said}");
    assert!(said.ends_with("== . -delete\n"), "{said}");
}

#[test]
fn sed_replaces_in_place_and_keeps_modes_links_and_backups() {
    script(
        "umask 027; printf 'one\\ntwo\\n' >f; chmod 640 f; ln f hard; ln -s f soft; cp f g; cp f h; chmod 444 h
        sed -i s/one/1/ f; cat f hard soft; stat -c '%n %a %h %s' f hard; sed -i.bak s/two/2/ g; cat g g.bak
        sed -i --follow-symlinks 's/two/zwei/' soft; test -L soft; cat soft; sed -i 1d h; stat -c %a h; cat h
        sed -i s/x/y/ missing 2>&1 || echo $?; mkdir d; sed -i s/x/y/ d 2>&1 || echo $?; chmod 500 d; ls -A",
    );
}

#[test]
fn test_and_touch_tell_newer_from_older_to_the_nanosecond() {
    script(
        "for n in 1 2 3 4 5 6 7 8 9; do touch -d \"2021-01-01 00:00:00.00000000$n\" t$n; done
        for a in t*; do for b in t*; do [ $a -nt $b ] && printf 1 || printf 0; [ $a -ef $b ] && printf = || printf .; done; done
        ls -t | tr '\\n' ' '; touch -r t3 r; [ r -nt t2 ] && [ r -ot t4 ] && stat -c %y r; cp -p t5 p; stat -c %y p
        cp -u t1 t9; echo x >n; cp -u n t1; cat t1; mv -u t2 n; ls -A; touch -a -d 2001-01-01 t4; stat -c '%x %y' t4
        install -m 751 -p t6 i; stat -c '%a %y' i",
    );
}

#[test]
fn shells_redirect_append_and_read_while_they_write() {
    let said = script(
        "echo one >f; { echo two; echo three; } >>f; exec 3<>f; read l <&3; echo \"$l\"; printf 2222 >&3; cat <&3; cat f
        set -C; (echo x >f) 2>/dev/null || echo refused; set +C; echo new >|f; cat f; cat <<END >h
        here $(wc -c <f)
END
        cat h; (echo a; echo b) | tee t1 t2 >t3; cmp t1 t3; : >f; test ! -s f; seq 1 20000 >n; head -c 100 n | tail -n 1
        tail -n 2 n; sort -R n | sort -n | cmp - n; sort -n -S 100k -T . -r n | head -n 2; split -n 5 n part; cat part* | cmp - n
        dd if=n of=o bs=1000 conv=sync,notrunc oflag=append status=none; wc -c <o; truncate -s -5 n; tail -c 3 n; mktemp -d ./tXXXXXX | wc -c
        mkdir deep; cd deep; rmdir ../deep; ls -A; pwd | grep -c deep; cd ..; flock lock -c 'flock -n lock true || echo locked'",
    );
    assert!(said.ends_with("locked\n"), "{said}");
}
