//! Two hosts add one to a counter in a file, ten times each, in turns. With a lock file that is looked for and then made,
//! both are let in and updates are lost. With `O_EXCL`, and the counter opened inside the lock, none are.

use std::fs::OpenOptions;
use std::io::ErrorKind::AlreadyExists;
use std::path::Path;
use std::time::Duration;

use chaosfs::{Backing, Clock, Knobs, Options};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result {
    let broken = count(|lock| {
        let free = !lock.exists();
        if free {
            std::fs::write(lock, "")?;
        }
        Ok(free)
    })?;
    println!("if !exists(lock) create(lock):  20 updates, {} lost", 20 - broken);
    let correct = count(|lock| match OpenOptions::new().write(true).create_new(true).open(lock) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == AlreadyExists => Ok(false),
        Err(e) => Err(e.into()),
    })?;
    println!("create(lock) with O_EXCL:       20 updates, {} lost", 20 - correct);
    Ok(())
}

/// What the counter says in the end.
fn count(take: impl Fn(&Path) -> Result<bool>) -> Result<u32> {
    let backing = Backing::options().clock(Clock::manual()).temp()?;
    std::fs::write(backing.path().join("counter"), "0")?;
    // What is closed is seen by who opens after, as on NFS; names travel for a second, as on a replicated store.
    let second = Duration::from_secs(1);
    let knobs = Knobs::strict().close_to_open(true).meta_ttl(second).rename_delay(second);
    let mount = |name: &str| backing.mount(Options::new().client_id(name).knobs(knobs));
    let hosts = [mount("a")?, mount("b")?];
    let (mut left, mut seen) = ([10, 10], [None, None]);
    while left != [0, 0] {
        for (i, host) in hosts.iter().enumerate() {
            let (lock, counter) = (host.join("lock"), host.join("counter"));
            if let Some(n) = seen[i].take() {
                // In the lock, as this host believes: add one, and let go.
                std::fs::write(&counter, format!("{}", n + 1))?;
                let _ = std::fs::remove_file(&lock);
                left[i] -= 1;
            } else if left[i] > 0 && take(&lock)? {
                seen[i] = Some(std::fs::read_to_string(&counter)?.parse::<u32>()?);
            }
        }
        backing.clock().advance(Duration::from_millis(500));
    }
    drop(hosts);
    Ok(std::fs::read_to_string(backing.path().join("counter"))?.parse()?)
}
