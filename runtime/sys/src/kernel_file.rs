//! Files that the kernel makes up as they are read (proc(5), sysfs(5), cgroup.events). In: a path, below a folder or not.
//! Out: the whole text. Must never: ask for the size first, which such files don't have.

use std::os::fd::AsFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::path::Arg;

/// Nearly all of them fit into one.
const PAGE: usize = 4096;

/// Reads a file of the kernel's: one read(2) for each page of it, and the one that finds the end.
///
/// # Errors
/// openat(2)'s and read(2)'s; EINVAL where it is no UTF-8.
pub fn read(path: impl Arg) -> Result<String, Errno> {
    read_at(rustix::fs::CWD, path, OFlags::empty())
}

/// The same, below a folder, with more flags for the way to it.
///
/// # Errors
/// As `read`.
pub fn read_at(folder: impl AsFd, path: impl Arg, flags: OFlags) -> Result<String, Errno> {
    let fd = rustix::fs::openat(folder, path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(PAGE);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        let read = || rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes));
        if rustix::io::retry_on_intr(read)? == 0 {
            return String::from_utf8(bytes).map_err(|_| Errno::INVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_to_its_end_whatever_its_length() {
        let maps = read("/proc/self/maps").unwrap();
        assert!(maps.ends_with('\n') && maps.lines().count() > 5, "{maps}");
        let path = std::env::temp_dir().join(format!("coracle-kernel-file-{}", std::process::id()));
        for length in [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            std::fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(read(&path).unwrap().len(), length);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path), Err(Errno::NOENT));
    }
}
