//! A reader that keeps a file open, or only asks its cache, goes on seeing what the file was.
//!
//! Close-to-open consistency, which NFS promises, is about *opening*: who opens after the writer has closed sees the new
//! bytes; who keeps the file open may see the old ones for as long as its cache is believed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use chaosfs::{Backing, Clock, Knobs, Options};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result {
    let backing = Backing::options().clock(Clock::manual()).temp()?;
    let shared = Options::new().knobs(Knobs::strict().close_to_open(true).meta_ttl(Duration::from_secs(3)));
    let writer = backing.mount(shared.clone().client_id("writer"))?;
    let reader = backing.mount(shared.client_id("reader"))?;

    std::fs::write(writer.join("config"), "old")?;
    let kept = File::open(reader.join("config"))?;
    println!("reader opens the file:          {}", read(&kept)?);

    std::fs::write(writer.join("config"), "new")?;
    println!("writer rewrites it. kept open:  {}", read(&kept)?);
    println!("  why: {}", backing.explain("reader", "config")?);

    backing.clock().advance(Duration::from_secs(2));
    println!("2 s later, kept open:           {}", read(&kept)?);
    println!("2 s later, opened again:        {}", read(&File::open(reader.join("config"))?)?);
    println!("2 s later, kept open:           {}", read(&kept)?);

    drop(kept);
    reader.unmount()?;
    writer.unmount()?;
    Ok(())
}

fn read(file: &File) -> Result<String> {
    let mut bytes = [0; 16];
    let n = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..n]).into_owned())
}
