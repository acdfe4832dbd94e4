//! What a mount costs: each operation on the bare directory and on a strict mount of it, also with the fast lanes. The ratio of the two medians of one
//! run is the figure; absolute times belong to the machine. On one CPU (`taskset -c 0 cargo bench --bench passthrough`)
//! the ratios are steadiest.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chaosfs::{Backing, Knobs, Mount, Options};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// Where the operations run.
const PLACES: [&str; 4] = ["bare", "fast", "strict", "eventual"];
const MIB: usize = 1 << 20;

fn options(name: &str) -> Option<Options> {
    match name {
        "fast" => Some(Options::new().knobs(Knobs::strict()).exact(false)),
        "strict" => Some(Options::new().knobs(Knobs::strict()).exact(true)),
        "eventual" => Some(Options::new().knobs(Knobs::eventual()).exact(true)),
        _ => None,
    }
}

struct Place {
    // The mount goes before the directory under it.
    mount: Option<Mount>,
    dir: tempfile::TempDir,
}

impl Place {
    fn new(name: &str) -> Place {
        // Memory, where there is such a file system: the disk is not what is measured.
        let base =
            if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let dir = tempfile::tempdir_in(base).expect("a temporary directory");
        // The kernel keeps names only of directories that everybody may pass through.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
        let options = options(name);
        let mount = options.map(|options| options.mount(dir.path()).expect("a mount"));
        Place { mount, dir }
    }

    fn path(&self) -> &Path {
        self.mount.as_ref().map_or(self.dir.path(), Mount::path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

#[divan::bench(args = PLACES)]
fn stat(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    let file = place.join("f");
    fs::write(&file, "x").expect("a file");
    bencher.bench_local(|| fs::metadata(black_box(&file)).expect("its attributes").len());
}

#[divan::bench(args = PLACES)]
fn open_and_close(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    let file = place.join("f");
    fs::write(&file, "x").expect("a file");
    bencher.bench_local(|| drop(File::open(black_box(&file)).expect("to open it")));
}

#[divan::bench(args = PLACES)]
fn create(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    let mut n = 0;
    bencher.bench_local(|| {
        n += 1;
        drop(File::create_new(place.join(&n.to_string())).expect("a new file"));
    });
}

#[divan::bench(args = PLACES)]
fn list_1000(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    for n in 0..1000 {
        File::create(place.dir.path().join(format!("file-{n}"))).expect("a file");
    }
    bencher.bench_local(|| fs::read_dir(place.path()).expect("the listing").count());
}

#[divan::bench(args = PLACES)]
fn sequential_read_64_mib(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    fs::write(place.dir.path().join("f"), vec![7; 64 * MIB]).expect("a file");
    let file = File::open(place.join("f")).expect("to open it");
    let mut buf = vec![0; MIB];
    bencher.counter(divan::counter::BytesCount::new(64 * MIB)).bench_local(|| {
        for n in 0..64 {
            file.read_exact_at(&mut buf, (n * MIB) as u64).expect("its bytes");
        }
    });
}

#[divan::bench(args = PLACES)]
fn sequential_write_64_mib(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    let file = File::create(place.join("f")).expect("a file");
    let buf = vec![7; MIB];
    bencher.counter(divan::counter::BytesCount::new(64 * MIB)).bench_local(|| {
        for n in 0..64 {
            file.write_all_at(&buf, (n * MIB) as u64).expect("room");
        }
    });
}

/// Offsets that jump about in a file of `blocks` blocks of 4 KiB, the same in every run.
fn random_offsets(blocks: u64) -> impl FnMut() -> u64 {
    let mut x: u64 = 1;
    move || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) % blocks * 4096
    }
}

#[divan::bench(args = PLACES)]
fn random_read_4_kib(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    fs::write(place.dir.path().join("f"), vec![7; 16 * MIB]).expect("a file");
    let file = File::open(place.join("f")).expect("to open it");
    let mut buf = [0; 4096];
    let mut next = random_offsets(4096);
    bencher.bench_local(|| file.read_exact_at(&mut buf, next()).expect("its bytes"));
}

/// The cost is in the bytes that are written, not in the size of the file: the two sizes must come out the same.
#[divan::bench(args = PLACES, consts = [1, 512])]
fn overwrite_4_kib_in_mib<const SIZE: usize>(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    fs::write(place.dir.path().join("f"), vec![7; SIZE * MIB]).expect("a file");
    let file = OpenOptions::new().write(true).open(place.join("f")).expect("to open it");
    let mut next = random_offsets((SIZE * MIB / 4096) as u64);
    bencher.bench_local(|| file.write_all_at(&[8; 4096], next()).expect("room"));
}

#[divan::bench(args = PLACES)]
fn append_and_fsync(bencher: Bencher<'_, '_>, place: &str) {
    let place = Place::new(place);
    let mut file = OpenOptions::new().create(true).append(true).open(place.join("log")).expect("a file");
    bencher.bench_local(|| {
        file.write_all(&[9; 100]).expect("room");
        file.sync_data().expect("to sync");
    });
}

/// Two clients of one directory, one that writes and one that reads: what it costs that they see each other late.
#[divan::bench(args = ["strict", "eventual"])]
fn two_clients_at_work(bencher: Bencher<'_, '_>, knobs: &str) {
    let backing = Backing::temp().expect("a backing");
    let mount = || backing.mount(options(knobs).expect("one that is mounted")).expect("a mount");
    let (a, b) = (mount(), mount());
    let mut n = 0_u64;
    let mut buf = vec![0; 4096];
    bencher.bench_local(|| {
        n += 1;
        let (new, tmp) = (a.join(format!("f{}", n % 500)), a.join("tmp"));
        let mut file = File::create(&tmp).expect("a file");
        file.write_all(&buf).expect("room");
        file.write_all_at(&buf, 2048).expect("room");
        file.sync_data().expect("to sync");
        drop(file);
        fs::rename(&tmp, &new).expect("to rename it");
        for back in [1, 7, 100] {
            let old = b.join(format!("f{}", (n + 500 - back) % 500));
            if let Ok(file) = File::open(&old) {
                let _ = file.read_exact_at(&mut buf, 0);
                black_box(file.metadata().expect("its attributes").len());
            }
            let _ = black_box(fs::metadata(&old));
        }
        if n.is_multiple_of(50) {
            black_box(fs::read_dir(b.path()).expect("the listing").count());
            fs::remove_file(&new).expect("to remove it");
        }
    });
}

/// Mount, first `stat`, unmount.
#[divan::bench]
fn guard_cycle(bencher: Bencher<'_, '_>) {
    let place = Place::new("bare");
    fs::write(place.join("f"), "x").expect("a file");
    bencher.bench_local(|| {
        let m = Options::new().knobs(Knobs::strict()).mount(place.path()).expect("a mount");
        fs::metadata(m.join("f")).expect("its attributes");
        m.unmount().expect("nobody uses it");
    });
}

/// A tree of so many files, a thousand in a directory. What one operation costs must be the same in each: flat.
struct Tree {
    place: Place,
    files: usize,
    next: usize,
}

impl Tree {
    fn new(place: &str, files: usize) -> Tree {
        let place = Place::new(place);
        for n in 0..files {
            if n % 1000 == 0 {
                fs::create_dir(place.dir.path().join((n / 1000).to_string())).expect("a directory");
            }
            File::create(place.dir.path().join(Tree::name(n))).expect("a file");
        }
        let mut tree = Tree { place, files, next: 0 };
        // Known to the mount, as after some work in it.
        for _ in 0..files {
            fs::metadata(tree.path()).expect("its attributes");
        }
        tree
    }

    fn name(n: usize) -> String {
        format!("{}/{n}", n / 1000)
    }

    /// The next file, far from the one before.
    fn path(&mut self) -> PathBuf {
        self.next = (self.next + 7919) % self.files;
        self.place.join(&Tree::name(self.next))
    }
}

#[divan::bench(args = PLACES, consts = [10, 1000, 100_000], sample_count = 20)]
fn stat_among<const FILES: usize>(bencher: Bencher<'_, '_>, place: &str) {
    let mut tree = Tree::new(place, FILES);
    bencher.bench_local(|| fs::metadata(tree.path()).expect("its attributes").len());
}

#[divan::bench(args = PLACES, consts = [10, 1000, 100_000], sample_count = 20)]
fn read_among<const FILES: usize>(bencher: Bencher<'_, '_>, place: &str) {
    let mut tree = Tree::new(place, FILES);
    bencher.bench_local(|| fs::read(tree.path()).expect("its bytes").len());
}

#[divan::bench(args = PLACES, consts = [10, 1000, 100_000], sample_count = 20)]
fn create_and_remove_among<const FILES: usize>(bencher: Bencher<'_, '_>, place: &str) {
    let mut tree = Tree::new(place, FILES);
    bencher.bench_local(|| {
        let path = tree.path().with_extension("new");
        drop(File::create_new(&path).expect("a new file"));
        fs::remove_file(&path).expect("to remove it");
    });
}
