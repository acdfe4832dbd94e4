//! Taking away the mounts that dead processes left behind.
//!
//! A process that is killed leaves a mount on which everything fails with `ENOTCONN`. Owns that cleaning up, once per
//! process at first use. Promises to touch only mounts of our type whose server is certainly gone: by its label (pid, start
//! time, pid namespace), and by the mount itself, which says so. Root sweeps everyone's, a user its own. Never waits more
//! than a moment for a mount to answer, and removes a directory only if chaosfs made it and it is empty.

use std::path::PathBuf;
use std::sync::Once;

use super::mountinfo::{self, Entry};
use super::mounting::FSTYPE;
use super::owner::{Fate, Label};
use super::{preflight, server, unmount};

/// At most so many are looked at in one go; the next process does the rest.
const MOST: usize = 64;
/// The directories that chaosfs makes for mountpoints begin like this.
pub(crate) const OWN_PREFIX: &str = "chaosfs-";

/// Sweeps, the first time it is called in this process.
pub(crate) fn once() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        for path in sweep() {
            log::info!("took away `{}`, which a dead process had left mounted", path.display());
        }
    });
}

/// Takes dead mounts away; returns where they were.
pub(crate) fn sweep() -> Vec<PathBuf> {
    server::call(|| {
        let mut swept = Vec::new();
        for entry in mountinfo::read().unwrap_or_default().into_iter().filter(is_candidate).take(MOST) {
            if is_dying(&entry) {
                // Where that file system is mounted, whoever mounted may say so: those who wait need not any longer.
                let minor = rustix::fs::minor(entry.st_dev);
                let _ = std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
            }
            if is_dead(&entry) && unmount::discard_path(&entry.mountpoint) {
                let name = entry.mountpoint.file_name();
                if name.is_some_and(|name| name.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes())) {
                    let _ = std::fs::remove_dir(&entry.mountpoint);
                }
                swept.push(entry.mountpoint);
            }
        }
        swept
    })
}

fn is_candidate(entry: &Entry) -> bool {
    entry.fstype == FSTYPE && Label::parse(&entry.source).is_some_and(|label| label.fate() != Fate::Alive)
}

fn is_dying(entry: &Entry) -> bool {
    Label::parse(&entry.source).is_some_and(|label| label.fate() == Fate::Dying)
}

fn is_dead(entry: &Entry) -> bool {
    if !is_topmost(entry) {
        return false;
    }
    let fate = Label::parse(&entry.source).map(Label::fate);
    let me = rustix::process::geteuid();
    let owner =
        entry.options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse::<u32>().ok());
    if owner == Some(me.as_raw()) {
        return fate == Some(Fate::Dying) || preflight::is_dead(&entry.mountpoint);
    }
    // Even root gets no true answer from a user's mount. Its server is gone for good unless it is only a zombie, of which
    // some threads may be left.
    me.is_root() && matches!(fate, Some(Fate::Gone | Fate::Dying))
}

/// Whether the path leads to this mount now, and not to one that was mounted over it.
fn is_topmost(entry: &Entry) -> bool {
    let now = mountinfo::read().unwrap_or_default();
    now.iter().rev().find(|other| other.mountpoint == entry.mountpoint).is_some_and(|top| {
        (top.mount_id, top.st_dev, &top.source) == (entry.mount_id, entry.st_dev, &entry.source)
    })
}
