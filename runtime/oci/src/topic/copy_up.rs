//! `tmpcopyup`: a new tmpfs begins with what the root has at that place. In: the folder that will be covered, the mount
//! that is in no tree yet. Out: its folders, files, links and nodes with owners and modes. Must never: follow a link.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::fs::Uid;
use rustix::io::Errno;

/// Deeper trees than this are no root's; a limit so that a hostile one does not use up the stack.
const DEPTH_MAX: usize = 256;

/// Copies what is in the folder `from` into the folder `to`.
///
/// # Errors
/// ELOOP for a tree that is too deep; those of the calls that read and write.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    copy_folder(&open_folder(from, c".")?, &open_folder(to, c".")?, 0)
}

fn open_folder(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn copy_folder(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), Errno> {
    if depth > DEPTH_MAX {
        return Err(Errno::LOOP);
    }
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // A socket is nobody's without its process.
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            copy_entry(from.as_fd(), to.as_fd(), name, &stat, |from, to| copy_folder(from, to, depth + 1))?;
        }
    }
    Ok(())
}

/// Makes in the folder `to` what is `name` in `from`, as `stat` describes it, with its owner and mode. What is in a folder,
/// `fill` copies.
///
/// # Errors
/// `fill`'s, and those of the calls that read and write.
pub fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    fill: impl FnOnce(&OwnedFd, &OwnedFd) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            fill(&open_folder(from, name)?, &open_folder(to, name)?)?;
        }
        FileType::RegularFile => copy_file(from, to, name)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
        }
        kind => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    // After the owner: a change of owner clears the set-id bits.
    if kind == FileType::Symlink { Ok(()) } else { rustix::fs::chmodat(to, name, mode, AtFlags::empty()) }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, OFlags::RDONLY | flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
    let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    while rustix::fs::sendfile(&copy, &source, None, 1 << 30)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_files_and_links_come_along_with_their_modes() {
        let base = std::env::temp_dir().join(format!("coracle-copy-up-{}", std::process::id()));
        let (from, to) = (base.join("from"), base.join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/b/file"), "text").unwrap();
        std::fs::set_permissions(from.join("a/b/file"), std::fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let open = |path| rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
        copy(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("a/b/file")).unwrap(), "text");
        let mode = |path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(to.join("a/b/file")), 0o4750);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), std::path::Path::new("/etc/passwd"));
        std::fs::remove_dir_all(base).unwrap();
    }
}
