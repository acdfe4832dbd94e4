//! A rename is decided at once and noticed late. Two hosts publish one name: both succeed, the last one stays, and for a
//! while each host sees its own file. A link to a name that must not exist tells one of them.

use std::path::Path;
use std::time::Duration;

use chaosfs::{Backing, Clock, Mount, Options};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result {
    let backing = Backing::options().clock(Clock::manual()).temp()?;
    let a = backing.mount(Options::new().client_id("a"))?;
    let b = backing.mount(Options::new().client_id("b"))?;

    println!("Both rename a file of their own to `latest`:");
    for host in [&a, &b] {
        std::fs::write(host.join(host.client_id()), format!("by {}", host.client_id()))?;
        let done = std::fs::rename(host.join(host.client_id()), host.join("latest"));
        println!("  {}: {}", host.client_id(), if done.is_ok() { "done" } else { "refused" });
    }
    tell(&[&a, &b], "at once", "latest")?;
    backing.clock().advance(Duration::from_millis(1200));
    tell(&[&a, &b], "1.2 s later", "latest")?;
    backing.clock().advance(Duration::from_millis(1500));
    tell(&[&a, &b], "2.7 s later", "latest")?;

    println!("Both link a file of their own to `first`:");
    for host in [&a, &b] {
        std::fs::write(host.join(host.client_id()), format!("by {}", host.client_id()))?;
        let done = std::fs::hard_link(host.join(host.client_id()), host.join("first"));
        println!(
            "  {}: {}",
            host.client_id(),
            done.map_or_else(|e| e.kind().to_string(), |()| "done".into())
        );
    }
    tell(&[&a, &b], "at once", "first")?;

    a.unmount()?;
    b.unmount()?;
    Ok(())
}

fn tell(hosts: &[&Mount], when: &str, name: impl AsRef<Path>) -> Result {
    print!("  {when:<12}");
    for host in hosts {
        print!(" {} sees: {:<6}", host.client_id(), std::fs::read_to_string(host.join(&name))?);
    }
    println!();
    Ok(())
}
