//! Doing something inside another network namespace.
//!
//! In: a namespace's fd and what to do. Out: what that gave. Must never: move the calling thread, or the process.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

/// Runs `action` in a thread of its own that has joined `namespace`
/// ([setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html)). A netlink socket that it opens stays there.
///
/// # Errors
/// EINVAL when the fd is no network namespace; EPERM; EAGAIN when no thread could be started.
pub fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    action: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let work = move || {
            rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
            action()
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, work).map_err(|_| Errno::AGAIN)?;
        thread.join().unwrap_or(Err(Errno::IO))
    })
}

/// Which namespace a file stands for: device and inode of the nsfs file.
///
/// # Errors
/// As [stat(2)](https://man7.org/linux/man-pages/man2/stat.2.html).
pub fn identity(file: impl AsFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The identity of the calling thread's own network namespace.
///
/// # Errors
/// As stat(2); ENOENT without /proc.
pub fn own_identity() -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::stat(Path::new("/proc/thread-self/ns/net"))?;
    Ok((stat.st_dev, stat.st_ino))
}
