//! What becomes of objects that others still hold, name or believe: removed, replaced, moved, resized.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use chaosfs::Knobs;

use crate::support::{
    NFS, NOCTO, Two, append, edit, exists, get, list, ms, open, put, reread, secs, size, write, write_at,
};

const LATE_NAMES: Knobs = Knobs::strict().rename_delay(secs(1));

#[test]
fn a_removed_tree_can_be_walked_until_its_removal_is_visible() {
    chaosfs::require_fuse!();
    let two = Two::new(LATE_NAMES);
    fs::create_dir_all(two.backing.path().join("d/e")).unwrap();
    fs::write(two.backing.path().join("d/e/f"), "text").unwrap();
    std::os::unix::fs::symlink("e/f", two.backing.path().join("d/link")).unwrap();
    fs::remove_dir_all(two.a.join("d")).unwrap();
    assert!(!two.backing.path().join("d").exists());
    let there = || {
        assert_eq!(list(two.b.path()), ["d"]);
        assert_eq!(
            (list(&two.b.join("d")), list(&two.b.join("d/e"))),
            (vec!["e".into(), "link".into()], vec!["f".into()])
        );
        assert_eq!((get(&two.b, "d/e/f"), get(&two.b, "d/link")), ("text".into(), "text".into()));
        assert_eq!(fs::read_link(two.b.join("d/link")).unwrap().to_str(), Some("e/f"));
        assert_eq!(size(&two.b, "d/e/f"), 4);
    };
    there();
    two.turns_at(secs(1), there, || assert!(!exists(&two.b, "d") && list(two.b.path()).is_empty()));
}

#[test]
fn a_moved_directory_is_found_at_its_old_path_until_the_move_is_visible() {
    chaosfs::require_fuse!();
    let two = Two::new(LATE_NAMES);
    fs::create_dir_all(two.backing.path().join("d/e")).unwrap();
    fs::write(two.backing.path().join("d/e/f"), "text").unwrap();
    fs::rename(two.a.join("d"), two.a.join("moved")).unwrap();
    assert_eq!(get(&two.a, "moved/e/f"), "text");
    two.turns_at(
        secs(1),
        || {
            assert_eq!(
                (get(&two.b, "d/e/f"), list(&two.b.join("d")), exists(&two.b, "moved")),
                ("text".into(), vec!["e".into()], false)
            );
        },
        || {
            assert_eq!(
                (get(&two.b, "moved/e/f"), list(&two.b.join("moved")), exists(&two.b, "d")),
                ("text".into(), vec!["e".into()], false)
            );
        },
    );
}

#[test]
fn a_replaced_file_is_read_in_its_old_state_until_the_replacement_is_visible() {
    chaosfs::require_fuse!();
    let two = Two::new(LATE_NAMES).file("f", "old").file("g", "newer");
    let held = open(&two.b, "f");
    fs::rename(two.a.join("g"), two.a.join("f")).unwrap();
    assert_eq!(get(&two.a, "f"), "newer");
    two.turns_at(
        secs(1),
        || {
            assert_eq!(
                (get(&two.b, "f"), size(&two.b, "f"), get(&two.b, "g")),
                ("old".into(), 3, "newer".into())
            );
        },
        || assert_eq!((get(&two.b, "f"), size(&two.b, "f"), exists(&two.b, "g")), ("newer".into(), 5, false)),
    );
    assert_eq!(reread(&held), "old", "whoever has it open keeps it");
}

#[test]
fn names_that_come_and_go_are_seen_in_their_order() {
    chaosfs::require_fuse!();
    let two = Two::new(LATE_NAMES);
    // One name, four states, each a while after the other.
    put(&two.a, "f", "1");
    two.pass(ms(300));
    fs::remove_file(two.a.join("f")).unwrap();
    two.pass(ms(300));
    put(&two.a, "f", "2");
    two.pass(ms(300));
    fs::remove_file(two.a.join("f")).unwrap();
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(fs::read_to_string(two.b.join("f")).ok());
        assert_eq!(list(two.b.path()).len(), usize::from(seen.last().unwrap().is_some()));
        two.pass(ms(100));
    }
    seen.dedup();
    assert_eq!(seen, [None, Some("1".into()), None, Some("2".into()), None]);
}

#[test]
fn another_name_of_a_file_shows_the_same_file() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::eventual()).file("f", "text");
    assert_eq!(fs::metadata(two.b.join("f")).unwrap().nlink(), 1);
    fs::hard_link(two.a.join("f"), two.a.join("g")).unwrap();
    assert_eq!(fs::metadata(two.a.join("f")).unwrap().nlink(), 2);
    two.backing.settle().unwrap();
    let (f, g) = (fs::metadata(two.b.join("f")).unwrap(), fs::metadata(two.b.join("g")).unwrap());
    assert_eq!((f.ino(), f.nlink()), (g.ino(), 2));
    fs::remove_file(two.a.join("f")).unwrap();
    write(&append(&two.a, "g"), "+");
    assert_eq!((get(&two.a, "g"), fs::metadata(two.a.join("g")).unwrap().nlink()), ("text+".into(), 1));
    two.backing.settle().unwrap();
    assert_eq!(
        (get(&two.b, "g"), fs::metadata(two.b.join("g")).unwrap().nlink(), exists(&two.b, "f")),
        ("text+".into(), 1, false)
    );
}

#[test]
fn a_cut_and_grown_file_is_shown_in_its_old_size_and_bytes_to_those_who_believe_them() {
    chaosfs::require_fuse!();
    let two = Two::new(NOCTO).file("f", "0123456789");
    let held = open(&two.b, "f");
    assert_eq!(reread(&held), "0123456789");
    let file = edit(&two.a, "f");
    file.set_len(3).unwrap();
    file.set_len(6).unwrap();
    write_at(&file, 12, "tail");
    file.sync_all().unwrap();
    assert_eq!(reread(&open(&two.a, "f")), "012\0\0\0\0\0\0\0\0\0tail");
    let mut piece = [0; 4];
    assert_eq!(held.read_at(&mut piece, 8).unwrap(), 2, "the end of the file is where it was");
    two.turns_at(
        secs(3),
        || assert_eq!((reread(&held), size(&two.b, "f")), ("0123456789".into(), 10)),
        || assert_eq!((reread(&held), size(&two.b, "f")), ("012\0\0\0\0\0\0\0\0\0tail".into(), 16)),
    );
}

#[test]
fn opening_with_truncation_is_a_commit_of_its_own_and_seen_late_by_believers() {
    chaosfs::require_fuse!();
    let two = Two::new(NOCTO).file("f", "old");
    assert_eq!(get(&two.b, "f"), "old");
    let file = File::create(two.a.join("f")).unwrap();
    write(&file, "newer");
    drop(file);
    two.turns_at(secs(3), || assert_eq!(get(&two.b, "f"), "old"), || assert_eq!(get(&two.b, "f"), "newer"));
}

#[test]
fn what_is_written_to_a_file_that_another_removed_is_in_no_file() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "old");
    let held = edit(&two.b, "f");
    write_at(&held, 0, "new");
    fs::remove_file(two.a.join("f")).unwrap();
    put(&two.a, "f", "another file");
    let _ = held.sync_all();
    drop(held);
    two.backing.settle().unwrap();
    assert_eq!((get(&two.a, "f"), get(&two.b, "f")), ("another file".into(), "another file".into()));
}

#[test]
fn a_file_that_its_own_client_removed_stays_usable_while_it_is_open() {
    chaosfs::require_fuse!();
    for knobs in [Knobs::strict(), NFS, Knobs::eventual()] {
        let two = Two::new(knobs).file("f", "old");
        let held = edit(&two.a, "f");
        fs::remove_file(two.a.join("f")).unwrap();
        write_at(&held, 3, "+new");
        two.pass(secs(60));
        assert_eq!((reread(&held), held.metadata().unwrap().len()), ("old+new".into(), 7), "{knobs:?}");
        held.sync_all().unwrap();
        assert_eq!(held.metadata().unwrap().nlink(), 0, "{knobs:?}");
        assert!(list(two.a.path()).is_empty() && !exists(&two.a, "f"), "{knobs:?}");
    }
}

#[test]
fn writes_of_two_clients_to_one_file_are_merged_byte_by_byte_at_the_truth() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "........");
    let (a, b) = (edit(&two.a, "f"), edit(&two.b, "f"));
    write_at(&a, 0, "AA");
    write_at(&b, 4, "BB");
    write_at(&a, 5, "A");
    assert_eq!((reread(&a), reread(&b)), ("AA...A..".into(), "....BB..".into()));
    drop((a, b));
    two.backing.settle().unwrap();
    // B closed last.
    assert_eq!((get(&two.a, "f"), get(&two.b, "f")), ("AA..BB..".into(), "AA..BB..".into()));
}

#[test]
fn a_change_of_mode_travels_like_bytes_do() {
    chaosfs::require_fuse!();
    let mode = |m: &chaosfs::Mount| fs::metadata(m.join("f")).unwrap().mode() & 0o777;
    let two = Two::new(Knobs::strict().write_delay(secs(1)).publish_on_close(false)).file("f", "");
    fs::set_permissions(two.a.join("f"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(mode(&two.a), 0o600);
    two.turns_at(secs(1), || assert_eq!(mode(&two.b), 0o644), || assert_eq!(mode(&two.b), 0o600));
}

#[test]
fn changes_from_outside_are_seen_when_the_cache_is_over() {
    chaosfs::require_fuse!();
    let two = Two::new(NFS).file("f", "old").file("gone", "");
    assert_eq!((size(&two.b, "f"), exists(&two.b, "gone"), exists(&two.b, "new")), (3, true, false));
    fs::write(two.backing.path().join("f"), "longer").unwrap();
    fs::remove_file(two.backing.path().join("gone")).unwrap();
    fs::write(two.backing.path().join("new"), "").unwrap();
    two.turns_at(
        secs(3),
        || assert_eq!((size(&two.b, "f"), exists(&two.b, "new")), (3, false)),
        || assert_eq!((size(&two.b, "f"), exists(&two.b, "gone"), exists(&two.b, "new")), (6, false, true)),
    );
    assert_eq!(get(&two.b, "f"), "longer");
}

#[test]
fn one_of_two_names_is_removed_late_like_an_only_name() {
    chaosfs::require_fuse!();
    for warm in [false, true] {
        let two = Two::new(LATE_NAMES).file("f", "text").file("x", "other");
        for name in ["g", "h"] {
            fs::hard_link(two.backing.path().join("f"), two.backing.path().join(name)).unwrap();
        }
        if warm {
            assert!(["f", "g", "h"].iter().all(|name| get(&two.b, name) == "text"));
        }
        fs::remove_file(two.a.join("g")).unwrap();
        fs::rename(two.a.join("x"), two.a.join("h")).unwrap();
        two.turns_at(
            secs(1),
            || {
                assert_eq!(list(two.b.path()), ["f", "g", "h", "x"]);
                assert_eq!(
                    ["g", "h", "f", "x"].map(|name| get(&two.b, name)),
                    ["text", "text", "text", "other"]
                );
            },
            || {
                assert_eq!(list(two.b.path()), ["f", "h"]);
                assert_eq!(["h", "f"].map(|name| get(&two.b, name)), ["other", "text"]);
            },
        );
    }
}

#[test]
fn a_long_listing_is_that_of_one_moment() {
    chaosfs::require_fuse!();
    let two = Two::new(Knobs::strict());
    let before: Vec<String> = (0..1000).map(|n| format!("a-rather-long-name-of-a-file-{n:04}")).collect();
    before.iter().for_each(|name| fs::write(two.backing.path().join(name), "").unwrap());
    let mut entries = fs::read_dir(two.b.path()).unwrap();
    let mut seen = vec![entries.next().unwrap().unwrap().file_name().into_string().unwrap()];
    for (n, name) in before.iter().enumerate() {
        if n % 2 == 0 {
            fs::remove_file(two.a.join(name)).unwrap();
        } else {
            fs::rename(two.a.join(name), two.a.join(format!("z{n}"))).unwrap();
        }
    }
    seen.extend(entries.map(|e| e.unwrap().file_name().into_string().unwrap()));
    seen.sort();
    assert_eq!(seen, before);
    assert_eq!(list(two.b.path()).len(), 500);
}

type Remove = fn(&chaosfs::Mount);

#[test]
fn a_directory_that_a_stale_client_removes_by_its_old_name_is_the_one_that_is_there() {
    chaosfs::require_fuse!();
    let removes: [Remove; 2] = [
        |m| fs::remove_dir(m.join("d")).unwrap(),
        |m| {
            fs::create_dir(m.join("own")).unwrap();
            fs::rename(m.join("own"), m.join("d")).unwrap();
        },
    ];
    for remove in removes {
        for knobs in [NFS, LATE_NAMES, Knobs::eventual()] {
            let two = Two::new(knobs);
            fs::create_dir(two.backing.path().join("d")).unwrap();
            fs::write(two.backing.path().join("d/f"), "text").unwrap();
            assert_eq!(get(&two.b, "d/f"), "text");
            fs::rename(two.a.join("d"), two.a.join("moved")).unwrap();
            fs::create_dir(two.a.join("d")).unwrap();
            // B sees the full directory there, and the truth has an empty one.
            let _held = open(&two.b, "d/f");
            remove(&two.b);
            two.backing.settle().unwrap();
            assert_eq!(list(&two.b.join("moved")), ["f"], "the other one was not removed: {knobs:?}");
            assert_eq!((get(&two.b, "moved/f"), list(two.a.path())), ("text".into(), list(two.b.path())));
        }
    }
}
