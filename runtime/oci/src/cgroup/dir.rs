//! What the kernel lets one do with a cgroup's directory.
//!
//! In: fds and names. Out: text, pids, errnos. Must never: wait without an end, follow a link.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::events;

/// Opens a directory, by itself and not through a link.
pub(super) fn open_dir<Fd: AsFd>(at: Fd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// Writes in one write(2), which is one request to the kernel.
pub(super) fn write_at(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map(drop)
}

/// Reads a whole file.
pub(super) fn read_at(dir: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    sys::kernel_file::read_at(dir, file, OFlags::NOFOLLOW)
}

/// The processes of one cgroup; one that is gone has none.
pub(super) fn procs_at(dir: BorrowedFd<'_>) -> Result<Vec<Pid>, Errno> {
    let text = match read_at(dir, "cgroup.procs") {
        // A threaded cgroup has threads only.
        Err(Errno::OPNOTSUPP) => read_at(dir, "cgroup.threads"),
        other => other,
    };
    match text {
        // 0 stands for a process outside the reader's pid namespace.
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()),
        Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// The processes of a cgroup and those below, `depth` levels at most.
pub(super) fn all_procs_at(dir: BorrowedFd<'_>, depth: u32, pids: &mut Vec<Pid>) -> Result<(), Errno> {
    pids.extend(procs_at(dir)?);
    let Some(depth) = depth.checked_sub(1) else { return Err(Errno::TOOBIG) };
    for name in subdirectories(dir)? {
        match open_dir(dir, &name) {
            Ok(child) => all_procs_at(child.as_fd(), depth, pids)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn subdirectories(dir: BorrowedFd<'_>) -> Result<Vec<PathBuf>, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name().to_bytes();
        if entry.file_type() == rustix::fs::FileType::Directory && name != b"." && name != b".." {
            names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
    }
    Ok(names)
}

/// Removes a cgroup and those below; processes may take until `deadline` to leave.
pub(super) fn remove_tree(path: &Path, deadline: Instant, depth: u32) -> Result<(), (PathBuf, Errno)> {
    let gone = |errno| errno == Errno::NOENT;
    match rustix::fs::rmdir(path) {
        Ok(()) => return Ok(()),
        Err(errno) if gone(errno) => return Ok(()),
        Err(Errno::BUSY) => {}
        Err(errno) => return Err((path.to_path_buf(), errno)),
    }
    let here = |errno| (path.to_path_buf(), errno);
    let dir = match open_dir(rustix::fs::CWD, path) {
        Ok(dir) => dir,
        Err(errno) if gone(errno) => return Ok(()),
        Err(errno) => return Err(here(errno)),
    };
    let below = depth.checked_sub(1).ok_or(here(Errno::TOOBIG))?;
    for name in subdirectories(dir.as_fd()).map_err(here)? {
        remove_tree(&path.join(name), deadline, below)?;
    }
    let mut pause = Duration::from_millis(1);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        events::wait_for(dir.as_fd(), "populated", false, left).map_err(here)?;
        match rustix::fs::rmdir(path) {
            Ok(()) => return Ok(()),
            Err(errno) if gone(errno) => return Ok(()),
            // Not populated and still busy: the last process is between its exit and its release.
            Err(Errno::BUSY) if !left.is_zero() => std::thread::sleep(pause),
            Err(errno) => return Err(here(errno)),
        }
        pause = (pause * 2).min(left);
    }
}
