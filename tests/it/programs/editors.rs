//! How editors save a file, system call by system call, and what those who watch the directory are told.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{both, same};
use crate::ops::{Number, chmod, looks, tree};

/// What is left of a saved file: all names, contents, modes and links.
fn left(dir: &Path) -> impl PartialEq + std::fmt::Debug + Send + use<> {
    let of = |(name, bytes): (std::path::PathBuf, _)| (looks(&dir.join(&name)), name, bytes);
    tree(dir).into_iter().map(of).collect::<Vec<_>>()
}

/// The file that is edited, with a mode of its own.
fn document(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("text");
    fs::write(&path, "first\n".repeat(1000)).unwrap();
    chmod(&path, 0o640);
    path
}

fn new(path: &Path, mode: u32) -> File {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap()
}

#[test]
fn vim_keeps_a_swap_file_and_renames_the_old_text_to_a_backup() {
    same(|dir| {
        let (text, swap, backup) = (document(dir), dir.join(".text.swp"), dir.join("text~"));
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&swap).unwrap();
        // That nobody has put a link there meanwhile.
        let (by_name, by_file) = (fs::symlink_metadata(&swap).unwrap(), file.metadata().unwrap());
        let same = (by_name.dev(), by_name.ino()) == (by_file.dev(), by_file.ino());
        file.write_all(&[b'b'; 4096]).unwrap();
        file.sync_all().unwrap();
        let again = File::create_new(&swap).number().map(drop);
        // It tries out whether it may write here, under a name of four digits.
        drop(new(&dir.join("4913"), 0o640));
        fs::remove_file(dir.join("4913")).unwrap();
        let old = File::open(&text).unwrap();
        fs::rename(&text, &backup).unwrap();
        let mut saved = new(&text, 0o640);
        saved.write_all(b"second\n").unwrap();
        saved.sync_all().unwrap();
        drop(saved);
        chmod(&text, 0o640);
        let both_there = left(dir);
        let still = (std::io::read_to_string(&old).unwrap().len(), old.metadata().unwrap().nlink());
        fs::remove_file(&backup).unwrap();
        file.rewind().unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        fs::remove_file(&swap).unwrap();
        (same, again, both_there, still, all, old.metadata().unwrap().nlink(), left(dir))
    });
}

#[test]
fn emacs_locks_with_a_broken_link_and_saves_beside() {
    same(|dir| {
        let (text, lock, temp) = (document(dir), dir.join(".#text"), dir.join(".#text1x2y3z"));
        symlink("me@here.4711:1700000000", &lock).unwrap();
        let second = symlink("you@there.1:1", &lock).number();
        let owner = fs::read_link(&lock).unwrap();
        let follows =
            (File::open(&lock).number().map(drop), fs::metadata(&lock).number().map(drop), lock.exists());
        fs::hard_link(&text, dir.join("text~")).unwrap();
        let mut file = new(&temp, 0o600);
        file.write_all(b"second\n").unwrap();
        file.sync_all().unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        drop(file);
        chmod(&temp, 0o640);
        fs::rename(&temp, &text).unwrap();
        // Else it asks whether somebody else has changed the file.
        let same_time = fs::metadata(&text).unwrap().modified().unwrap() == written;
        let broken = fs::read_link(&lock).unwrap() == owner;
        fs::remove_file(&lock).unwrap();
        (second, owner, follows, same_time, broken, left(dir))
    });
}

#[test]
fn others_truncate_and_write_in_place() {
    same(|dir| {
        let text = document(dir);
        fs::hard_link(&text, dir.join("hard")).unwrap();
        let reader = File::open(&text).unwrap();
        let before = fs::metadata(&text).unwrap();
        let mut file = OpenOptions::new().write(true).truncate(true).open(&text).unwrap();
        let empty = (fs::metadata(&text).unwrap().len(), reader.metadata().unwrap().len());
        file.write_all(b"second\n").unwrap();
        file.sync_data().unwrap();
        let other = fs::read(dir.join("hard")).unwrap();
        drop(file);
        // And the other way round: written over, then cut.
        let mut file = OpenOptions::new().write(true).open(&text).unwrap();
        file.write_all(b"third\n").unwrap();
        file.set_len(6).unwrap();
        file.sync_all().unwrap();
        let after = fs::metadata(&text).unwrap();
        let times = (before.modified().unwrap() <= after.modified().unwrap(), before.ino() == after.ino());
        (empty, other, times, std::io::read_to_string(reader).unwrap(), left(dir))
    });
}

#[test]
fn a_safe_write_exchanges_old_and_new_by_three_renames() {
    same(|dir| {
        let (text, temp, old) = (document(dir), dir.join("text___tmp___"), dir.join("text___old___"));
        fs::write(&temp, "second\n").unwrap();
        fs::rename(&text, &old).unwrap();
        let between = fs::metadata(&text).number().map(drop);
        fs::rename(&temp, &text).unwrap();
        fs::remove_file(&old).unwrap();
        // Where the kernel exchanges two names, nobody finds the name missing.
        fs::write(&temp, "third\n").unwrap();
        let cwd = rustix::fs::CWD;
        let swap =
            rustix::fs::renameat_with(cwd, &temp, cwd, &text, rustix::fs::RenameFlags::EXCHANGE).number();
        (between, swap, left(dir))
    });
}

#[test]
fn lock_files_by_link_and_by_exclusive_create_belong_to_one() {
    same(|dir| {
        let (mine, lock) = (dir.join("mine.4711"), dir.join("lock"));
        fs::write(&mine, "4711\n").unwrap();
        let first = fs::hard_link(&mine, &lock).number();
        // Who is not sure of the answer counts the links.
        let links = fs::metadata(&mine).unwrap().nlink();
        let second = fs::hard_link(&mine, &lock).number();
        let by_create = File::create_new(&lock).number().map(drop);
        fs::remove_file(&lock).unwrap();
        let links_after = fs::metadata(&mine).unwrap().nlink();
        // A new text without a moment of none: linked under a name of its own, then unlinked.
        let text = document(dir);
        fs::rename(&mine, &text).unwrap();
        let owned = (0..3).map(|_| File::create_new(&lock).number().map(drop)).collect::<Vec<_>>();
        (first, links, second, by_create, links_after, owned, left(dir))
    });
}

#[test]
fn who_watches_a_directory_is_told_the_same() {
    let told = both(|dir| {
        let text = document(dir);
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let flags = WatchFlags::ALL_EVENTS;
        let names =
            [dir.to_owned(), text.clone()].map(|p| (inotify::add_watch(&watch, &p, flags).unwrap(), p));
        fs::read(&text).unwrap();
        fs::write(&text, "second\n").unwrap();
        chmod(&text, 0o600);
        fs::write(dir.join("new"), "third\n").unwrap();
        fs::rename(dir.join("new"), &text).unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        fs::remove_dir(dir.join("d")).unwrap();
        fs::remove_file(&text).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let mut told = Vec::new();
        while let Ok(event) = events.next() {
            let of = names.iter().position(|(wd, _)| *wd == event.wd());
            let name = event.file_name().map(|n| n.to_string_lossy().into_owned());
            told.push(format!("{of:?} {:?} {name:?}", event.events()));
        }
        told
    });
    assert!(told.len() > 15, "{told:#?}");
}
