use std::time::Duration;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let b = chaosfs::Backing::options().clock(chaosfs::Clock::manual()).temp()?;
    let a = b.mount(chaosfs::Options::new().client_id("a"))?;
    let c = b.mount(chaosfs::Options::new().client_id("b"))?;
    std::fs::write(a.join("f"), "hello")?;
    println!("a: {:?}", std::fs::read_to_string(a.join("f")));
    println!("b: {:?}", std::fs::read_to_string(c.join("f")));
    println!("{}", b.explain("b", "f")?);
    b.clock().advance(Duration::from_millis(800));
    println!("b: {:?}", std::fs::read_to_string(c.join("f")));
    b.clock().advance(Duration::from_millis(700));
    println!("{}", b.explain("b", "f")?);
    println!("b: {:?}", std::fs::read_to_string(c.join("f")));
    println!("{}", b.history());
    a.unmount()?;
    c.unmount()?;
    Ok(())
}
