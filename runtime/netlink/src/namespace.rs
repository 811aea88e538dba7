//! Doing something inside another network namespace.
//!
//! In: a namespace's fd and what to do. Out: what that gave. Must never: leave the calling thread where it was not before.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

const OWN: &str = "/proc/thread-self/ns/net";

/// Runs `action` in `namespace` ([setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html)). A netlink socket that it
/// opens stays there. The calling thread goes there and back; where it could not come back, in a user namespace whose own
/// network namespace is another's, a thread that ends there is sent.
///
/// # Errors
/// EINVAL when the fd is no network namespace; EPERM; EAGAIN when no thread could be started.
pub fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    action: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    match own {
        Ok(own) if join(own.as_fd()).is_ok() => {
            join(namespace)?;
            let _back = Back(own.as_fd());
            action()
        }
        _ => in_a_thread(namespace, action),
    }
}

fn join(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

/// Brings the thread back, whatever happens meanwhile.
struct Back<'a>(BorrowedFd<'a>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if join(self.0).is_err() {
            // It went well a moment ago. Whatever came next would be done to the container's namespace for the host's.
            std::process::abort();
        }
    }
}

fn in_a_thread<T: Send>(
    namespace: BorrowedFd<'_>,
    action: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let work = move || {
            join(namespace)?;
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
    let stat = rustix::fs::stat(Path::new(OWN))?;
    Ok((stat.st_dev, stat.st_ino))
}
