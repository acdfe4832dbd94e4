//! Which operations a fault is meant for: by the names that its client uses.

use std::fs;
use std::time::Duration;

use chaosfs::{Backing, Clock, Errno, Fault, Knobs, Op, Options};

#[test]
fn a_fault_on_a_path_goes_on_meaning_it_when_another_host_replaces_the_file() {
    let backing = Backing::options().clock(Clock::manual()).temp().unwrap();
    let writer = backing.mount(Options::new().client_id("writer").knobs(Knobs::strict())).unwrap();
    let reader = backing.mount(Options::new().client_id("reader")).unwrap();
    fs::write(writer.join("app.json"), "old").unwrap();
    assert_eq!(fs::read_to_string(reader.join("app.json")).unwrap(), "old");
    let fault = reader.inject(Fault::fail(Errno::EIO).on(Op::Read).path("app.json"));
    fs::write(writer.join("app.json.tmp"), "new").unwrap();
    fs::rename(writer.join("app.json.tmp"), writer.join("app.json")).unwrap();
    // The reader still sees the old file, whose only name is gone from the truth; then the new one.
    assert!(fs::read(reader.join("app.json")).is_err());
    assert_eq!(fault.hits(), 1);
    backing.clock().advance(Duration::from_secs(3));
    assert!(fs::read(reader.join("app.json")).is_err());
    assert_eq!(fault.hits(), 2);
    drop(fault);
    assert_eq!(fs::read_to_string(reader.join("app.json")).unwrap(), "new");
    let names = backing.history();
    assert!(
        names
            .iter()
            .filter(|e| e.client() == "reader")
            .all(|e| !e.path().to_string_lossy().contains("removed"))
    );
}

#[test]
fn a_rename_is_hit_by_either_of_its_names() {
    let backing = Backing::temp().unwrap();
    let m = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    for path in ["from", "to"] {
        fs::write(m.join("from"), "x").unwrap();
        let fault = m.inject(Fault::fail(Errno::ENOSPC).on(Op::Rename).path(path));
        let error = fs::rename(m.join("from"), m.join("to")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC.raw()));
        assert_eq!(fault.hits(), 1);
        drop(fault);
        fs::rename(m.join("from"), m.join("to")).unwrap();
    }
}

#[test]
fn an_operation_on_another_path_or_of_another_kind_is_left_alone() {
    let backing = Backing::temp().unwrap();
    let m = backing.mount(Options::new().knobs(Knobs::strict())).unwrap();
    let fault = m.inject(Fault::fail(Errno::EIO).on([Op::Write, Op::Fsync]).path("db/*.wal"));
    fs::create_dir_all(m.join("db/deep")).unwrap();
    fs::write(m.join("db/a.data"), "x").unwrap();
    fs::write(m.join("db/deep/a.wal"), "x").unwrap();
    fs::write(m.join("a.wal"), "x").unwrap();
    fs::File::create(m.join("db/a.wal")).unwrap();
    assert_eq!(fault.hits(), 0);
    assert!(fs::write(m.join("db/a.wal"), "x").is_err());
    assert_eq!(fault.hits(), 1);
}
