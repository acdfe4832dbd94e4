//! Error numbers under their POSIX names: what an operation on a mount answers.

use std::fmt;
use std::io;
use std::str::FromStr;

/// A POSIX error number, written and read by its name (`EIO`, `ENOSPC`, ...).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`")] pub const $name: Errno = Errno(libc::$name);)*
            const NAMES: &'static [(&'static str, Errno)] = &[$((stringify!($name), Errno::$name)),*];
        }
    };
}

errnos! {
    EPERM, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, EBADF, ECHILD, EAGAIN, ENOMEM, EACCES, EFAULT, EBUSY, EEXIST, EXDEV,
    ENODEV, ENOTDIR, EISDIR, EINVAL, ENFILE, EMFILE, ENOTTY, ETXTBSY, EFBIG, ENOSPC, ESPIPE, EROFS, EMLINK, EPIPE, ERANGE,
    EDEADLK, ENAMETOOLONG, ENOLCK, ENOSYS, ENOTEMPTY, ELOOP, ENODATA, EOVERFLOW, EOPNOTSUPP, ENOTCONN, ETIMEDOUT, EALREADY,
    ESTALE, EREMOTEIO, EDQUOT, ECANCELED,
}

impl Errno {
    /// The number itself, as in `errno.h`.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The error number `raw`; anything that is not a positive number becomes `EIO`.
    pub const fn from_raw(raw: i32) -> Self {
        if raw > 0 { Errno(raw) } else { Errno::EIO }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, e)| e == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not the POSIX name of an error number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an error number\n  help: write the POSIX name, such as EIO or ENOSPC")]
pub struct UnknownErrno(String);

impl FromStr for Errno {
    type Err = UnknownErrno;

    fn from_str(text: &str) -> Result<Self, UnknownErrno> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, e)| *e).ok_or_else(|| UnknownErrno(text.to_owned()))
    }
}

impl From<Errno> for io::Error {
    fn from(e: Errno) -> Self {
        io::Error::from_raw_os_error(e.0)
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Self {
        Errno::from_raw(e.raw_os_error())
    }
}

impl From<io::Error> for Errno {
    fn from(e: io::Error) -> Self {
        e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_the_number_it_prints() {
        for (name, errno) in Errno::NAMES {
            assert_eq!(name.parse::<Errno>().as_ref(), Ok(errno));
        }
        assert!("EWHATEVER".parse::<Errno>().unwrap_err().to_string().contains("`EWHATEVER`"));
        assert_eq!(Errno::from_raw(0), Errno::EIO);
    }
}
