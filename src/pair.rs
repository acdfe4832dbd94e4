//! Two clients over one backing directory: the smallest cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backing::Backing;
use crate::error::{Error, Result};
use crate::mount::Mount;
use crate::options::Options;

/// A writer and a reader over `base/backing`, mounted at `base/writer` and `base/reader`.
///
/// Both are equal; the names say how their knobs differ by default: the writer's changes travel soon (`meta_ttl` 500 ms,
/// `write_delay` and `rename_delay` 100 ms), the reader believes its caches for long (`meta_ttl` 2 s, `write_delay`
/// 800 ms, `rename_delay` 500 ms).
#[derive(Debug)]
pub struct DualMount {
    // The order is that of dropping: the mounts go before the backing.
    writer: Mount,
    reader: Mount,
    backing: Backing,
}

impl DualMount {
    pub(crate) fn classic(base: &Path) -> Result<Self> {
        let ms = Duration::from_millis;
        let writer = Options::new().meta_ttl(ms(500)).write_delay(ms(100)).rename_delay(ms(100));
        let reader = Options::new().meta_ttl(ms(2000)).write_delay(ms(800)).rename_delay(ms(500));
        DualMount::new(base, writer, reader)
    }

    pub(crate) fn new(base: &Path, writer: Options, reader: Options) -> Result<Self> {
        let dir = |name: &str| -> Result<PathBuf> {
            let path = base.join(name);
            let io = |source| Error::Io { doing: "make the directory", path: path.clone(), source };
            std::fs::create_dir_all(&path).map_err(io)?;
            Ok(path)
        };
        let backing = Backing::open(dir("backing")?)?;
        let writer = backing.mount(writer.client_id("writer").at(dir("writer")?))?;
        let reader = backing.mount(reader.client_id("reader").at(dir("reader")?))?;
        Ok(DualMount { writer, reader, backing })
    }

    /// The client whose changes travel soon.
    pub fn writer(&self) -> &Mount {
        &self.writer
    }

    /// The client that believes its caches for long.
    pub fn reader(&self) -> &Mount {
        &self.reader
    }

    /// What both are views of.
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// See [`Backing::settle`].
    ///
    /// # Errors
    /// See [`Backing::settle`].
    pub fn settle(&self) -> Result<()> {
        self.backing.settle()
    }

    /// Takes both mounts away; see [`Mount::unmount`].
    ///
    /// # Errors
    /// The first that went wrong; both are gone in any case.
    pub fn unmount(self) -> Result<()> {
        let DualMount { writer, reader, .. } = self;
        writer.unmount().and(reader.unmount())
    }
}
