//! Databases that live in one file: redb, which reads and writes, and LMDB, which reads through a mapping and has its locks
//! in another one, shared by processes. `SQLite` is with the other programs.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::process::Command;

use redb::{Database, DatabaseError, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::both;

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");

/// The value that `key` gets: its length and its bytes follow from the key.
fn value(key: u64) -> Vec<u8> {
    vec![key as u8; (key * 37 % 3001) as usize]
}

#[test]
fn redb_keeps_its_tables_through_commits_aborts_and_compaction() {
    let (rows, ok, _) = both(|dir| {
        let path = dir.join("a.redb");
        let mut db = Database::create(&path).unwrap();
        let twice = matches!(Database::create(&path), Err(DatabaseError::DatabaseAlreadyOpen));
        for round in 0..4 {
            let txn = db.begin_write().unwrap();
            let mut table = txn.open_table(TABLE).unwrap();
            for key in round * 200..(round + 1) * 200 {
                table.insert(key, &*value(key)).unwrap();
            }
            drop(table);
            if round == 2 { txn.abort().unwrap() } else { txn.commit().unwrap() }
        }
        let reader = db.begin_read().unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(TABLE).unwrap().retain(|key, _| key % 3 != 0).unwrap();
        txn.commit().unwrap();
        let old = reader.open_table(TABLE).unwrap().len().unwrap();
        drop(reader);
        assert!(twice && old == 600, "{twice} {old}");
        let compacted = db.compact().unwrap();
        drop(db);

        let mut db = Database::open(&path).unwrap();
        let sound = db.check_integrity().unwrap();
        let txn = db.begin_read().unwrap();
        let table = txn.open_table(TABLE).unwrap();
        let rows: Vec<u64> = table.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
        for row in table.iter().unwrap() {
            let (key, bytes) = row.unwrap();
            assert_eq!(bytes.value(), value(key.value()));
        }
        (rows, compacted && sound, fs::metadata(&path).unwrap().len())
    });
    assert!(ok);
    assert_eq!(rows.len(), 399);
}

/// LMDB, by way of `heed`.
mod lmdb {
    #![allow(unsafe_code, reason = "who opens an LMDB file promises that nothing else changes it")]

    use std::path::Path;

    use heed::types::{Bytes, Str};
    use heed::{Env, EnvFlags, EnvOpenOptions};

    pub(super) type Table = heed::Database<Str, Bytes>;

    pub(super) fn open(dir: &Path, flags: EnvFlags) -> Env {
        let mut options = EnvOpenOptions::new();
        options.map_size(16 << 20).max_dbs(2);
        // SAFETY: only LMDB itself touches the files of this directory, and with flags that keep them sound.
        unsafe { options.flags(flags).open(dir).unwrap() }
    }
}

/// Puts `keys` into the table, in transactions of a hundred.
fn put(env: &heed::Env, who: &str, keys: std::ops::Range<u64>) {
    for start in keys.clone().step_by(100) {
        let mut txn = env.write_txn().unwrap();
        let table: lmdb::Table = env.create_database(&mut txn, Some("t")).unwrap();
        for key in start..(start + 100).min(keys.end) {
            table.put(&mut txn, &format!("{who}{key:05}"), &value(key)).unwrap();
        }
        txn.commit().unwrap();
    }
}

/// What the table holds, with the length of each value and its bytes checked.
fn rows(env: &heed::Env) -> BTreeMap<String, usize> {
    let txn = env.read_txn().unwrap();
    let table: lmdb::Table = env.open_database(&txn, Some("t")).unwrap().unwrap();
    let row = |row: heed::Result<(&str, &[u8])>| {
        let (name, bytes) = row.unwrap();
        assert_eq!(bytes, value(name[1..].parse().unwrap()), "{name}");
        (name.to_owned(), bytes.len())
    };
    table.iter(&txn).unwrap().map(row).collect()
}

/// Writes as parent and as child, one after the other and both at once, and reads it all in both.
fn with_a_child(dir: &Path, flags: heed::EnvFlags) -> BTreeMap<String, usize> {
    let env = lmdb::open(dir, flags);
    put(&env, "a", 0..300);
    let seen = rows(&env);
    // By this way also where the directory of the program is closed to who runs this.
    let mut child = Command::new("/proc/self/exe");
    child.args(["programs::databases::lmdb_is_shared_by_two_processes", "--exact", "--nocapture"]);
    let child = child.env(CHILD, dir).env("CHAOSFS_TEST_FLAGS", flags.bits().to_string());
    let child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = child.spawn().unwrap();
    put(&env, "b", 0..300);
    let out = child.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&said));
    // What the child wrote is read through a mapping that was made before.
    let all = rows(&env);
    assert_eq!((seen.len(), all.len()), (300, 900));
    let mut txn = env.write_txn().unwrap();
    let table: lmdb::Table = env.open_database(&txn, Some("t")).unwrap().unwrap();
    table.delete_range(&mut txn, &(Bound::Included("a"), Bound::Excluded("b"))).unwrap();
    txn.commit().unwrap();
    env.force_sync().unwrap();
    env.prepare_for_closing().wait();
    let env = lmdb::open(dir, flags);
    let left = rows(&env);
    env.prepare_for_closing().wait();
    left
}

const CHILD: &str = "CHAOSFS_TEST_LMDB";

#[test]
fn lmdb_is_shared_by_two_processes() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let flags = std::env::var("CHAOSFS_TEST_FLAGS").unwrap().parse().unwrap();
        let env = lmdb::open(Path::new(&dir), heed::EnvFlags::from_bits_retain(flags));
        put(&env, "c", 0..300);
        assert!(rows(&env).len() >= 600);
        return;
    }
    for flags in [heed::EnvFlags::empty(), heed::EnvFlags::WRITE_MAP] {
        let left = both(|dir| with_a_child(dir, flags));
        assert_eq!(left.len(), 600);
    }
}
