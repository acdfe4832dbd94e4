//! Python's modules that do much with files: what they come to, and that they clean up.

use super::script;

fn python(program: &str) -> String {
    script(&format!("export TMPDIR=$PWD PYTHONDONTWRITEBYTECODE=1; python3 - <<'END'\n{program}\nEND\nls -A"))
}

#[test]
fn shutil_tempfile_and_pathlib_make_copy_move_and_remove_trees() {
    let said = python(
        r#"import os, pathlib, shutil, stat, tempfile
top = pathlib.Path(tempfile.mkdtemp())
for d in "abc":
    for f in range(20):
        p = top / d / str(f % 4) / f"f{f}"
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(bytes([f]) * f * 999)
        p.chmod(0o600 | f)
(top / "a" / "link").symlink_to("0/f0"); (top / "dir").symlink_to("b"); os.mkfifo(top / "c" / "fifo")
os.utime(top / "a/0/f4", ns=(10**18 + 1, 10**18 + 3))
def shape(of):
    out = []
    for here, dirs, files in os.walk(of):
        dirs.sort()
        for n in sorted(dirs + files):
            p = os.path.join(here, n); s = os.lstat(p)
            out.append((os.path.relpath(p, of), oct(s.st_mode), s.st_nlink, s.st_mtime_ns if stat.S_ISREG(s.st_mode) else 0,
                        s.st_size if stat.S_ISREG(s.st_mode) else 0))
    return out
os.unlink(top / "c" / "fifo")
copy = shutil.copytree(top, "copy", symlinks=True)
assert shape(copy) == shape(top), "a copy is like the original"
print(shutil.move("copy/a", "copy/b"), sorted(os.listdir("copy/b")), len(list(top.rglob("f*"))))
for kind in ("tar", "zip", "gztar"):
    name = shutil.make_archive("arc" + kind, kind, top)
    shutil.unpack_archive(name, "un" + kind)
    print(kind, sum(len(f) for _, _, f in os.walk("un" + kind)))
with tempfile.TemporaryFile() as f:
    f.write(b"x" * 100000); f.seek(-10, 2); f.truncate(); print(f.tell(), os.fstat(f.fileno()).st_nlink, os.fstat(f.fileno()).st_size)
with tempfile.NamedTemporaryFile() as f, tempfile.SpooledTemporaryFile(max_size=10) as s:
    s.write(b"more than ten bytes"); s.seek(0); print(os.path.exists(f.name), s.read())
print([e.name for e in sorted(os.scandir("copy"), key=lambda e: e.name) if e.is_dir(follow_symlinks=False) and e.inode() == os.lstat(e.path).st_ino])
p = pathlib.Path("one"); p.touch(); print(p.samefile("./one"), p.replace("two"), p.exists(), pathlib.Path("two").stat().st_size)
for d in (top, "copy"): shutil.rmtree(d)
for n in os.listdir("."): shutil.rmtree(n) if os.path.isdir(n) else os.unlink(n)"#,
    );
    assert!(said.contains("gztar 61"), "{said}");
}

#[test]
fn mailboxes_are_locked_filled_flushed_and_packed() {
    python(
        r#"import mailbox, os
for kind, name in ((mailbox.mbox, "mbox"), (mailbox.Maildir, "dir"), (mailbox.MH, "mh"), (mailbox.MMDF, "mmdf"), (mailbox.Babyl, "babyl")):
    box = kind(name)
    box.lock()
    keys = [box.add(f"From: a@b\nSubject: {i}\n\n" + "text\n" * i) for i in range(40)]
    box.flush(); box.unlock()
    for key in keys[::3]: box.remove(key)
    box[keys[1]] = "Subject: new\n\nnew\n"
    box.flush()
    if kind is mailbox.MH: box.pack()
    if kind is mailbox.Maildir: box.clean()
    box.close()
    again = kind(name, create=False)
    print(kind.__name__, len(again), sorted(m["subject"] for m in again)[:5], sorted(os.listdir(name))[:3] if os.path.isdir(name) else os.path.getsize(name))"#,
    );
}

#[test]
fn zipfile_sqlite3_and_dbm_keep_what_they_are_given() {
    python(
        r#"import dbm.dumb, io, mmap, os, sqlite3, zipfile
with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for i in range(50): z.writestr(f"d/{i}", b"x" * i * 100)
with zipfile.ZipFile("a.zip", "a") as z: z.writestr("late", "text")
with zipfile.ZipFile("a.zip") as z: print(z.testzip(), len(z.namelist())); z.extractall("out")
db = sqlite3.connect("a.db", isolation_level=None)
print(db.execute("PRAGMA journal_mode=WAL").fetchone(), db.execute("PRAGMA mmap_size=1000000").fetchone())
db.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, b)")
other = sqlite3.connect("a.db", isolation_level=None, timeout=0)
for n in range(200):
    (db if n % 2 else other).execute("INSERT INTO t(b) VALUES(zeroblob(?))", (n * 50,))
db.execute("BEGIN IMMEDIATE")
try: other.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as e: print(e)
db.execute("DELETE FROM t WHERE i % 2"); print(other.execute("SELECT count(*) FROM t").fetchone()); db.execute("COMMIT")
print(other.execute("SELECT count(*), sum(length(b)) FROM t").fetchone(), db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
print(db.execute("VACUUM").fetchall(), db.execute("PRAGMA integrity_check").fetchone()); db.close(); other.close()
with dbm.dumb.open("d", "c") as d:
    for i in range(100): d[str(i)] = b"v" * i
    del d["5"]
with dbm.dumb.open("d") as d: print(len(d), d["99"] == b"v" * 99)
f = open("m", "w+b"); f.truncate(10000); m = mmap.mmap(f.fileno(), 0); m[9990:9995] = b"bytes"; m.flush(); m.resize(20000); m[19990:] = b"0123456789"
print(os.path.getsize("m"), open("m", "rb").read()[9989:9996], m.find(b"0123")); m.close()
with open("t", "w+", buffering=1) as t: t.write("line\nrest"); print(repr(open("t").read())); t.seek(2); t.write("N"); t.flush(); print(repr(open("t").read()))"#,
    );
}
