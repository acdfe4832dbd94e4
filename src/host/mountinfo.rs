//! The list of mounts as the kernel tells it: `/proc/thread-self/mountinfo`.
//!
//! Owns only the parser. Promises to give paths as they are (the file writes blanks and backslashes as octal escapes)
//! and to skip what it cannot read. Never touches the mounts it lists.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) mount_id: u64,
    pub(crate) st_dev: u64,
    pub(crate) mountpoint: PathBuf,
    pub(crate) fstype: String,
    pub(crate) source: String,
    /// The options of the file system, such as `rw,user_id=0`.
    pub(crate) options: String,
}

/// All mounts that this thread's namespace has, the ones mounted over others later.
pub(crate) fn read() -> io::Result<Vec<Entry>> {
    let text = std::fs::read("/proc/thread-self/mountinfo")?;
    Ok(text.split(|&b| b == b'\n').filter_map(parse).collect())
}

/// Parses `id parent major:minor root mountpoint options [optional ...] - fstype source super-options`.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&b| b == b' ');
    let mount_id = number(fields.next()?)?;
    let device = fields.nth(1)?;
    let colon = device.iter().position(|&b| b == b':')?;
    let (major, minor) = (number(&device[..colon])?, number(&device[colon + 1..])?);
    let mountpoint = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let mut text = || Some(String::from_utf8_lossy(&unescape(fields.next()?)).into_owned());
    let (fstype, source, options) = (text()?, text()?, text()?);
    let st_dev = rustix::fs::makedev(major as u32, minor as u32);
    Some(Entry { mount_id, st_dev, mountpoint, fstype, source, options })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|d| (b'0'..=b'7').contains(d)));
        if let Some(digits) = octal {
            plain.push(digits.iter().fold(0_u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
            rest = &tail[3..];
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_escapes_and_optional_fields() {
        let line = br"36 35 98:5 /mnt1 /tmp/a\040b\134c rw,noatime master:1 x:2 - fuse.chaosfs chaosfs@7.9 rw,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.mount_id, 36);
        assert_eq!(entry.st_dev, rustix::fs::makedev(98, 5));
        assert_eq!(entry.mountpoint, PathBuf::from(r"/tmp/a b\c"));
        assert_eq!((entry.fstype.as_str(), entry.source.as_str()), ("fuse.chaosfs", "chaosfs@7.9"));
        assert_eq!(entry.options, "rw,user_id=0");
        assert_eq!(parse(b"36 35 98:5 / /mnt rw"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(read().unwrap().iter().any(|entry| entry.mountpoint.parent().is_none()));
    }
}
