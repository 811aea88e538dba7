//! Paths inside a root that somebody else controls. In: the root's fd, a path of the container. Out: fds of places that
//! are inside, whatever links the root holds. Must never: touch anything outside the root, races notwithstanding.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;

/// As many links in one path as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What a target shall be when it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// A folder.
    Folder,
    /// An empty file.
    File,
}

/// Opens `path` inside `root` (openat2(2), RESOLVE_IN_ROOT): links resolve as if the root were `/`.
///
/// # Errors
/// openat2(2)'s.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_as(root, path, flags, ResolveFlags::empty())
}

/// Opens `path` inside `root` and refuses any link on the way.
///
/// # Errors
/// ELOOP for a link.
pub fn open_without_links(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_as(root, path, flags, ResolveFlags::NO_SYMLINKS)
}

fn open_as(root: BorrowedFd<'_>, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    loop {
        // EAGAIN: something was renamed or mounted meanwhile, and the kernel can't be sure; it asks to try again.
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Opens `path` inside `root` as O_PATH, making it and the folders above it where they are missing.
///
/// # Errors
/// Those of openat2(2), mkdirat(2) and openat(2).
pub fn make(root: BorrowedFd<'_>, path: &Path, what: Make, mode: Mode) -> Result<OwnedFd, Errno> {
    make_counting(root, path, what, mode, 0)
}

fn make_counting(
    root: BorrowedFd<'_>,
    path: &Path,
    what: Make,
    mode: Mode,
    links: usize,
) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    if links > LINKS_MAX {
        return Err(Errno::LOOP);
    }
    let path = plain(path);
    let Some(name) = path.file_name().map(std::ffi::OsStr::to_os_string) else {
        return open(root, Path::new("/"), OFlags::PATH);
    };
    let parent_path = path.parent().unwrap_or(Path::new("/"));
    let parent = make_counting(root, parent_path, Make::Folder, Mode::from_raw_mode(0o755), links)?;
    let made = match what {
        Make::Folder => rustix::fs::mkdirat(&parent, &name, mode),
        Make::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(&parent, &name, flags, mode).map(drop)
        }
    };
    match made {
        Ok(()) => open(root, &path, OFlags::PATH),
        // A link whose target is missing: make the target instead.
        Err(Errno::EXIST) => match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
            Ok(target) => {
                let target = PathBuf::from(std::ffi::OsString::from(target.to_string_lossy().into_owned()));
                make_counting(root, &parent_path.join(target), what, mode, links + 1)
            }
            // Somebody else made it.
            Err(_) => open(root, &path, OFlags::PATH),
        },
        Err(errno) => Err(errno),
    }
}

/// The path from the root on, without `.` and `..`: what a container means by it, whose `/..` is `/`.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

/// Whether `fd` is a folder.
///
/// # Errors
/// fstat(2)'s.
pub fn is_folder(fd: impl AsFd) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf, OwnedFd);

    impl Root {
        fn new(name: &str) -> Root {
            let path = std::env::temp_dir().join(format!("coracle-inside-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            let fd = rustix::fs::open(&path, OFlags::PATH, Mode::empty()).unwrap();
            Root(path, fd)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_that_lead_out_stay_inside() {
        let root = Root::new("out");
        std::os::unix::fs::symlink("/../../tmp-of-the-container", root.0.join("etc")).unwrap();
        make(root.1.as_fd(), Path::new("/etc/a/b"), Make::Folder, Mode::from_raw_mode(0o755)).unwrap();
        assert!(root.0.join("tmp-of-the-container/a/b").is_dir());
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let root = Root::new("circle");
        std::os::unix::fs::symlink("b", root.0.join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.0.join("b")).unwrap();
        let result = make(root.1.as_fd(), Path::new("/a/x"), Make::File, Mode::from_raw_mode(0o644));
        assert_eq!(result.unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn files_and_folders_are_made() {
        let root = Root::new("make");
        let file =
            make(root.1.as_fd(), Path::new("/run/../x/f"), Make::File, Mode::from_raw_mode(0o644)).unwrap();
        assert!(!is_folder(&file).unwrap());
        assert!(root.0.join("x/f").is_file());
        assert!(open_without_links(root.1.as_fd(), Path::new("x/f"), OFlags::PATH).is_ok());
    }
}
