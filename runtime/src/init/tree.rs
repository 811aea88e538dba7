//! A folder's content -> another file system's. In: two open folders. Out: the same files, folders, links and devices with
//! their modes, owners and times of modification in the second, names of one file still names of one file, and nothing but one
//! folder in the first. Must never: hold more than one file twice in memory, or follow a link.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use oci::topic::copy_up::copy_entry;
use rustix::fs::{AtFlags, FileType, RawDir, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

/// What one look into a folder takes of the stack; one name has 255 bytes at most.
const NAMES_LEN: usize = 2048;

/// What could not be moved, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    path: Vec<u8>,
    errno: Errno,
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {}", String::from_utf8_lossy(&self.path), self.errno)
    }
}

/// Moves what is in `from` into `to`, which is empty; all but the folder `left` at the top.
///
/// # Errors
/// The first that failed; what was moved before stays moved.
pub fn move_all(from: impl AsFd, to: impl AsFd, left: &CStr) -> Result<(), Failure> {
    let mut moving = Moving { root: to.as_fd(), left, names: BTreeMap::new(), path: Vec::new() };
    moving.folder(from.as_fd(), to.as_fd()).map_err(|errno| Failure { path: moving.path, errno })
}

struct Moving<'a> {
    root: BorrowedFd<'a>,
    left: &'a CStr,
    /// Inode of a file with several names -> the first that was moved, from the root.
    names: BTreeMap<u64, CString>,
    /// Where it is, with slashes in front; after a failure, where that was.
    path: Vec<u8>,
}

impl Moving<'_> {
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
        let top = self.path.is_empty();
        let mut names = [MaybeUninit::uninit(); NAMES_LEN];
        let mut entries = RawDir::new(from, &mut names);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || top && name == self.left {
                continue;
            }
            let parent = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            self.entry(from, to, name, entry.ino())?;
            self.path.truncate(parent);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        inode: u64,
    ) -> Result<(), Errno> {
        // Asked before anything else about it: most names of the image are BusyBox's.
        if let Some(first) = self.names.get(&inode) {
            rustix::fs::linkat(self.root, first.as_c_str(), to, name, AtFlags::empty())?;
            return rustix::fs::unlinkat(from, name, AtFlags::empty());
        }
        let facts = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy_entry(from, to, name, &facts, |from, to| self.folder(from.as_fd(), to.as_fd()))?;
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: facts.st_mtime,
                tv_nsec: facts.st_mtime_nsec.try_into().unwrap_or_default(),
            },
        };
        rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_folder = FileType::from_raw_mode(facts.st_mode) == FileType::Directory;
        if facts.st_nlink > 1 && !is_folder {
            let path = self.path.strip_prefix(b"/").unwrap_or_default();
            self.names.insert(inode, CString::new(path).map_err(|_| Errno::INVAL)?);
        }
        rustix::fs::unlinkat(from, name, if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn all_is_moved_as_it_was() {
        let room = std::env::temp_dir().join(format!("coracle-tree-{}", std::process::id()));
        let (from, to) = (room.join("from"), room.join("to"));
        std::fs::create_dir_all(from.join("a/deep")).unwrap();
        std::fs::create_dir_all(from.join("left/inside")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/program"), [7; 100_000]).unwrap();
        std::fs::hard_link(from.join("a/program"), from.join("a/deep/other")).unwrap();
        std::fs::hard_link(from.join("a/program"), from.join("top")).unwrap();
        std::fs::write(from.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("a/link")).unwrap();
        for (path, mode) in [("a/program", 0o4755), ("a/deep", 0o1777), ("empty", 0o600)] {
            std::fs::set_permissions(from.join(path), PermissionsExt::from_mode(mode)).unwrap();
        }
        let fifo = Mode::from_raw_mode(0o620);
        rustix::fs::mknodat(rustix::fs::CWD, from.join("a/fifo"), FileType::Fifo, fifo, 0).unwrap();
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for path in ["a/program", "a"] {
            std::fs::File::open(from.join(path)).unwrap().set_modified(past).unwrap();
        }

        let folder = |path| OwnedFd::from(std::fs::File::open(path).unwrap());
        move_all(folder(&from), folder(&to), c"left").unwrap();

        let names = |path: &std::path::Path| {
            let mut names: Vec<_> =
                std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&from), ["left"]);
        assert_eq!(names(&from.join("left")), ["inside"]);
        assert_eq!(names(&to), ["a", "empty", "top"]);
        assert_eq!(names(&to.join("a")), ["deep", "fifo", "link", "program"]);
        assert_eq!(std::fs::read(to.join("a/program")).unwrap(), [7; 100_000]);
        assert_eq!(std::fs::read_link(to.join("a/link")).unwrap().to_str(), Some("/nowhere"));
        let facts = |path| to.join(path).symlink_metadata().unwrap();
        for path in ["top", "a/deep/other"] {
            assert_eq!((facts(path).ino(), facts(path).nlink()), (facts("a/program").ino(), 3), "{path}");
        }
        for (path, mode) in [("a/program", 0o4755), ("a/deep", 0o1777), ("empty", 0o600)] {
            assert_eq!(facts(path).mode() & 0o7777, mode, "{path}");
        }
        for path in ["a/program", "a"] {
            assert_eq!(facts(path).modified().unwrap(), past, "{path}");
        }
        std::fs::remove_dir_all(&room).unwrap();
    }
}
