//! Whether a program wants to stop waiting. FUSE says so with an interrupt request that fuser does not hand on, so the
//! waiting thread's own state is read instead.
//!
//! Owns nothing. Promises to say yes only of a signal that is pending, not blocked and not ignored, and to ask only `/proc`.

/// Whether the thread `tid` has a signal waiting that would interrupt it. A thread that is gone has.
pub(crate) fn pending(tid: u32) -> bool {
    if tid == 0 {
        return false; // the kernel itself
    }
    let Some([own, shared, blocked, ignored]) = masks(tid) else { return true };
    (own | shared) & !blocked & !ignored != 0
}

/// Whether the thread `tid` has been killed and has not noticed yet.
pub(crate) fn killed(tid: u32) -> bool {
    const SIGKILL: u64 = 1 << (9 - 1);
    masks(tid).is_some_and(|[own, ..]| own & SIGKILL != 0)
}

/// The signals that are pending for a thread, pending for its process, blocked, and ignored.
fn masks(tid: u32) -> Option<[u64; 4]> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    Some(["SigPnd", "ShdPnd", "SigBlk", "SigIgn"].map(mask))
}

#[cfg(test)]
mod tests {
    use super::pending;

    #[test]
    fn a_quiet_thread_has_nothing_pending_and_a_thread_that_is_gone_does_not_wait() {
        assert!(!pending(rustix::thread::gettid().as_raw_nonzero().get() as u32));
        assert!(pending(i32::MAX as u32));
        assert!(!pending(0));
    }
}
