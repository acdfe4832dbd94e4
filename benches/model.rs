//! What the model costs for each operation, without a mount: every number must be small against the microseconds that
//! the kernel takes for a call.

use chaosfs::model_bench::{Bench, From};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

#[divan::bench(args = [From::Cache, From::Truth, From::Past])]
fn name(bencher: Bencher, from: From) {
    let mut bench = Bench::new(from);
    bencher.bench_local(|| black_box(&mut bench).name());
}

#[divan::bench(args = [From::Cache, From::Truth])]
fn object(bencher: Bencher, from: From) {
    let mut bench = Bench::new(from);
    bencher.bench_local(|| black_box(&mut bench).object());
}

/// The reader's answer about a file with that many commits that it does not see yet.
#[divan::bench(args = [1, 16, 256])]
fn object_past(bencher: Bencher, commits: u64) {
    let mut bench = Bench::new(From::Past);
    bench.commit(commits, true);
    bencher.bench_local(|| black_box(&mut bench).object());
}

#[divan::bench]
fn write_4k_and_take(bencher: Bencher) {
    let mut bench = Bench::new(From::Truth);
    let data = [7; 4096];
    bencher.bench_local(|| bench.write_and_take(black_box(&data)));
}

/// 4 KiB read in the state before that many commits, of which one touches them.
#[divan::bench(args = [1, 16, 256])]
fn stale_read_4k(bencher: Bencher, commits: u64) {
    let mut bench = Bench::new(From::Past);
    bench.commit(commits, true);
    let mut buf = [0; 4096];
    bencher.bench_local(|| bench.stale_read(0, black_box(&mut buf)));
}

/// 4 KiB read in the state before that many commits, which all overwrote them.
#[divan::bench(args = [1, 16, 256])]
fn stale_read_4k_overwritten(bencher: Bencher, commits: u64) {
    let mut bench = Bench::new(From::Past);
    bench.commit(commits, false);
    let mut buf = [0; 4096];
    bencher.bench_local(|| bench.stale_read(0, black_box(&mut buf)));
}

/// `Past`: visible late, so each binding is recorded; the history of the one name grows while this runs.
#[divan::bench(args = [From::Truth, From::Past])]
fn bind(bencher: Bencher, from: From) {
    let mut bench = Bench::new(from);
    bencher.bench_local(|| black_box(&mut bench).bind());
}
