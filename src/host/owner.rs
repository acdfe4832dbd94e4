//! Whose mount is it: the name under which this process mounts, readable by the processes after it.
//!
//! The source of every mount is `chaosfs@<pid>.<starttime>.<pid namespace>`. A pid alone is used again; with the time the
//! process started it is not, and in another pid namespace it is another process, of which nothing can be said.
//!
//! Owns the label. Promises that [`Label::fate`] says `Gone` only of a process that cannot come back. Never asks the
//! process or its mount anything.

use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::Pid;

use super::signals;

/// The process that serves a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) pid: u32,
    starttime: u64,
    namespace: u64,
}

/// What became of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs, or nothing certain can be said.
    Alive,
    /// Its first thread has ended; others may live.
    Zombie,
    /// All of it has ended or is about to. It may wait for something that never comes, such as its own mount.
    Dying,
    /// There is no such process any more.
    Gone,
}

/// The source string of the mounts of this process.
pub(crate) fn source() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let pid = std::process::id();
        let starttime = stat_of(&pid.to_string()).map_or(0, |stat| stat.starttime);
        format!("chaosfs@{pid}.{starttime}.{}", namespace().unwrap_or(0))
    })
}

impl Label {
    /// Reads a source string; `None` if it is not one of ours.
    pub(crate) fn parse(source: &str) -> Option<Self> {
        let mut parts = source.strip_prefix("chaosfs@")?.split('.');
        let label = Label {
            pid: parts.next()?.parse().ok()?,
            starttime: parts.next()?.parse().ok()?,
            namespace: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(label)
    }

    /// What became of the process that this names.
    pub(crate) fn fate(self) -> Fate {
        if self.starttime == 0 || namespace() != Some(self.namespace) {
            return Fate::Alive;
        }
        match stat_of(&self.pid.to_string()) {
            Some(stat) if stat.starttime != self.starttime => Fate::Gone,
            Some(_) if is_dying(self.pid) => Fate::Dying,
            Some(stat) if matches!(stat.state, b'Z' | b'X') => Fate::Zombie,
            Some(_) => Fate::Alive,
            // A `/proc` that hides other users' processes shows nothing either, so ask in another way as well.
            None => match Pid::from_raw(self.pid as i32).map(rustix::process::test_kill_process) {
                Some(Err(Errno::SRCH)) => Fate::Gone,
                _ => Fate::Alive,
            },
        }
    }
}

/// Whether every thread of a process is dead, on its way out, or killed.
fn is_dying(pid: u32) -> bool {
    /// The kernel's mark of a thread that has begun to exit.
    const EXITING: u64 = 4;
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let tids: Vec<u32> = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect();
    !tids.is_empty()
        && tids.iter().all(|&tid| {
            let stat = stat_of(&format!("{pid}/task/{tid}"));
            stat.is_none_or(|s| matches!(s.state, b'Z' | b'X') || s.flags & EXITING != 0)
                || signals::killed(tid)
        })
}

/// The pid namespace of this process, which `/proc` numbers.
fn namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// What the kernel says about a process or a thread.
struct Stat {
    state: u8,
    flags: u64,
    starttime: u64,
}

/// Its name stands before the rest, in brackets, and may contain anything.
fn stat_of(what: &str) -> Option<Stat> {
    let stat = std::fs::read(format!("/proc/{what}/stat")).ok()?;
    let after_name = &stat[stat.iter().rposition(|&b| b == b')')? + 1..];
    let fields: Vec<&str> = std::str::from_utf8(after_name).ok()?.split_ascii_whitespace().collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        flags: fields.get(6)?.parse().ok()?,
        starttime: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_with_its_pid_and_another_start_is_gone() {
        let me = Label::parse(source()).unwrap();
        assert_eq!(me.pid, std::process::id());
        assert_eq!(me.fate(), Fate::Alive);
        assert_eq!(Label { starttime: me.starttime + 1, ..me }.fate(), Fate::Gone);
        assert_eq!(Label { pid: i32::MAX as u32, ..me }.fate(), Fate::Gone);
        assert_eq!(Label { namespace: 1, pid: i32::MAX as u32, ..me }.fate(), Fate::Alive);
        for foreign in ["chaosfs", "chaosfs@1.2", "chaosfs@1.2.3.4", "chaosfs@x.2.3", "sshfs@1.2.3"] {
            assert_eq!(Label::parse(foreign), None, "{foreign}");
        }
    }
}
