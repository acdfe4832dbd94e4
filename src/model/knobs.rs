//! How late a client's writes travel and how long it believes its caches: the knobs, and the presets that set them all.

use std::time::Duration;

use crate::error::{Error, Result};

/// The consistency of one client, from exact to sloppy. Setters consume and return, so presets can be refined:
/// `Knobs::strict().meta_ttl(Duration::from_secs(3))`.
///
/// The *writer* owns the delays (`write_delay`, `rename_delay`); the *reader* owns its caches (the TTLs). All are
/// [`Duration`]s, and zero turns the effect off.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Knobs {
    pub(crate) file_ttl: Duration,
    pub(crate) dir_ttl: Duration,
    pub(crate) negative_ttl: Duration,
    pub(crate) write_delay: Duration,
    pub(crate) rename_delay: Duration,
    pub(crate) revalidate_on_open: bool,
    pub(crate) publish_on_close: bool,
    pub(crate) exclusive_fresh: bool,
    pub(crate) reorder: bool,
    pub(crate) drop_prob: f64,
}

impl Default for Knobs {
    /// [`Knobs::eventual`].
    fn default() -> Self {
        Knobs::eventual()
    }
}

impl Knobs {
    /// No chaos: every operation is answered by the truth at once, as on the backing directory itself.
    ///
    /// Both halves of close-to-open are on, so with a TTL added a name that is opened is still looked up afresh, as on NFS;
    /// `.close_to_open(false)` makes opening believe the cache as well.
    pub const fn strict() -> Self {
        Knobs {
            file_ttl: Duration::ZERO,
            dir_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            write_delay: Duration::ZERO,
            rename_delay: Duration::ZERO,
            revalidate_on_open: true,
            publish_on_close: true,
            exclusive_fresh: true,
            reorder: false,
            drop_prob: 0.0,
        }
    }

    /// The default: an eventually consistent share with the classic numbers. Caches are believed for 1500 ms, writes
    /// become visible to others 800 ms after the `write`, names 1200 ms after the call, and closing a file hurries nothing.
    pub const fn eventual() -> Self {
        Knobs {
            file_ttl: Duration::from_millis(1500),
            dir_ttl: Duration::from_millis(1500),
            negative_ttl: Duration::from_millis(1500),
            write_delay: Duration::from_millis(800),
            rename_delay: Duration::from_millis(1200),
            revalidate_on_open: false,
            publish_on_close: false,
            ..Knobs::strict()
        }
    }

    /// An NFS client with the default mount options (`acregmin=3,acdirmin=30`): attributes and data are believed for 3 s,
    /// names and directories for 30 s, written bytes wait up to 30 s for a `close` or `fsync`, which publish them; opening
    /// asks the server. Timeouts that grow while nothing changes, and silly renames, are not modelled yet.
    pub const fn nfs() -> Self {
        Knobs {
            file_ttl: Duration::from_secs(3),
            dir_ttl: Duration::from_secs(30),
            negative_ttl: Duration::from_secs(30),
            write_delay: Duration::from_secs(30),
            ..Knobs::strict()
        }
    }

    /// An NFS client with `actimeo=d`: all caches are believed for `d`, and bytes still wait for a `close`, also with zero.
    pub const fn actimeo(d: Duration) -> Self {
        Knobs::nfs().meta_ttl(d)
    }

    /// An NFS client with `noac`: nothing is believed and every write goes out at once.
    pub const fn noac() -> Self {
        Knobs::strict()
    }

    /// An NFS client with `nocto`: opening believes the cache; closing still publishes.
    pub const fn nocto() -> Self {
        Knobs::nfs().revalidate_on_open(false)
    }

    /// How long this client believes attributes, data and names it has fetched. Sets [`file_ttl`](Self::file_ttl),
    /// [`dir_ttl`](Self::dir_ttl) and [`negative_ttl`](Self::negative_ttl) at once, as NFS's `actimeo` does.
    /// Default 1500 ms; 3 s to 60 s on NFS clients, 1 s on SMB, up to 60 s on S3 mounts.
    #[must_use]
    pub const fn meta_ttl(self, d: Duration) -> Self {
        self.file_ttl(d).dir_ttl(d).negative_ttl(d)
    }

    /// How long attributes and data of a file are believed (NFS `acregmin`). Default 1500 ms.
    #[must_use]
    pub const fn file_ttl(mut self, d: Duration) -> Self {
        self.file_ttl = d;
        self
    }

    /// How long a name that was found, a listing, and a directory's attributes are believed (NFS `acdirmin`).
    /// Default 1500 ms.
    #[must_use]
    pub const fn dir_ttl(mut self, d: Duration) -> Self {
        self.dir_ttl = d;
        self
    }

    /// How long "no such file" is believed (the negative dentry cache; NFS `lookupcache=positive` sets it to zero).
    /// Default 1500 ms.
    #[must_use]
    pub const fn negative_ttl(mut self, d: Duration) -> Self {
        self.negative_ttl = d;
        self
    }

    /// How long this client's written bytes take to become visible to others: the write-back cache of an NFS client
    /// (30 s), the replication lag of a store. The writer itself sees them at once. Default 800 ms.
    #[must_use]
    pub const fn write_delay(mut self, d: Duration) -> Self {
        self.write_delay = d;
        self
    }

    /// How long this client's changes of names (create, rename, unlink, mkdir, link) take to become visible to others.
    /// They are decided at once: of two clients that create one name exclusively, one fails. Default 1200 ms.
    #[must_use]
    pub const fn rename_delay(mut self, d: Duration) -> Self {
        self.rename_delay = d;
        self
    }

    /// Whether opening a file or directory asks the truth instead of the cache: the reader's half of close-to-open
    /// (NFS without `nocto`). Default off.
    #[must_use]
    pub const fn revalidate_on_open(mut self, on: bool) -> Self {
        self.revalidate_on_open = on;
        self
    }

    /// Whether `close`, `fsync` and unlocking make writes visible to others at once: the writer's half of close-to-open.
    /// Default off: `write_delay` binds even after `close`.
    #[must_use]
    pub const fn publish_on_close(mut self, on: bool) -> Self {
        self.publish_on_close = on;
        self
    }

    /// Both halves of close-to-open consistency, which NFS promises: what was closed before is seen by who opens after.
    #[must_use]
    pub const fn close_to_open(self, on: bool) -> Self {
        self.revalidate_on_open(on).publish_on_close(on)
    }

    /// Whether a name made by `O_EXCL` or `link` is looked up afresh every time, so that a lock file that its holder
    /// removed does not seem to be there. Default on; real clients differ, and off shows locks that free themselves late.
    #[must_use]
    pub const fn exclusive_fresh(mut self, on: bool) -> Self {
        self.exclusive_fresh = on;
        self
    }

    /// Whether a name may become visible before the bytes that were written before it: "renamed, but empty". Default off.
    #[must_use]
    pub const fn reorder(mut self, on: bool) -> Self {
        self.reorder = on;
        self
    }

    /// The probability that an operation of this client fails with `EIO` and is not executed. 0 is never, 1 is always.
    /// Looking up names, `stat`, `access`, `close`, `statfs` and locks are never dropped: how many of these the kernel adds
    /// of its own differs from kernel to kernel.
    /// Drawn from the seed, the operation and its path, so other threads do not change it. Default 0.
    #[must_use]
    pub const fn drop_prob(mut self, p: f64) -> Self {
        self.drop_prob = p;
        self
    }

    /// Whether this client sees the truth, and everything it does becomes the truth, at once and every time.
    pub(crate) fn is_exact(&self) -> bool {
        let none = |d: Duration| d.is_zero();
        !self.caches() && none(self.write_delay) && none(self.rename_delay) && self.drop_prob <= 0.0
    }

    /// Whether this client may be shown something older than the truth although nobody delays anything.
    pub(crate) fn caches(&self) -> bool {
        !(self.file_ttl.is_zero() && self.dir_ttl.is_zero() && self.negative_ttl.is_zero())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.drop_prob) {
            return Ok(());
        }
        Err(Error::InvalidValue {
            name: "drop_prob".into(),
            value: self.drop_prob.to_string(),
            expected: "give a probability from 0 (never) to 1 (always)",
        })
    }
}
