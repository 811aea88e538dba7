//! A socket of one interface: SO_BINDTODEVICE. In: a socket, a name. Out: nothing. Must never: open a socket itself.
#![allow(unsafe_code)] // rustix has no such option

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::process::last_errno;

/// Lets a socket send and hear by the interface `name` alone
/// ([socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html)).
///
/// # Errors
/// ENODEV when there is none of that name; EPERM.
#[doc(alias = "SO_BINDTODEVICE")]
pub fn bind_to_device(socket: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(name.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads `len` bytes, which the text has, and no more.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            len,
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
