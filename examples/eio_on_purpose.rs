//! An error where it hurts: the `fsync` of one file fails, then one write in five, drawn from a seed.

use std::fs::File;
use std::io::Write;

use chaosfs::{Backing, Clock, Errno, Fault, Knobs, Mount, Op, Options};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result {
    let backing = Backing::options().clock(Clock::manual()).temp()?;
    let host = backing.mount(Options::new().client_id("db").knobs(Knobs::strict()).seed(7))?;

    let fault = host.inject(Fault::fail(Errno::EIO).on(Op::Fsync).path("**/*.wal"));
    println!("a fault on fsync of **/*.wal:");
    for name in ["app.wal", "app.data"] {
        println!("  {name:<9} {}", told(save(&host, name)));
    }
    println!("  the fault was hit {} time", fault.hits());
    drop(fault);
    println!("without it:\n  app.wal   {}", told(save(&host, "app.wal")));

    // From here on chance decides; the same seed gives the same file the same fate, whatever other threads do.
    host.set_knobs(Knobs::strict().drop_prob(0.2))?;
    let fates: Vec<bool> = (0..10).map(|n| save(&host, &format!("f{n}")).is_ok()).collect();
    let line: String = fates.iter().map(|ok| if *ok { '.' } else { 'X' }).collect();
    println!("drop_prob 0.2, seed {}: {line}", host.seed());
    for event in backing.history().iter().filter(|e| e.why() == chaosfs::Why::Dropped).take(3) {
        println!("  {event}");
    }
    host.unmount()?;
    Ok(())
}

fn save(host: &Mount, name: &str) -> std::io::Result<()> {
    let mut file = File::create(host.join(name))?;
    file.write_all(b"precious")?;
    file.sync_all()
}

fn told(done: std::io::Result<()>) -> String {
    done.map_or_else(|e| format!("fails: {e}"), |()| "is safe".into())
}
