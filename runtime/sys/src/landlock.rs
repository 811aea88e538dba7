//! Landlock's three system calls ([landlock(7)](https://man7.org/linux/man-pages/man7/landlock.7.html)).
//!
//! In: access bits, fds, ports. Out: a ruleset's fd. Must never: know what a bit is for.
#![allow(unsafe_code)] // rustix has none of them

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use rustix::io::Errno;

const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
const LANDLOCK_RULE_PATH_BENEATH: libc::c_int = 1;
const LANDLOCK_RULE_NET_PORT: libc::c_int = 2;

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(super::process::last_errno()) } else { Ok(result) }
}

/// Which version of Landlock the kernel has.
///
/// # Errors
/// ENOSYS when it was built without it, EOPNOTSUPP when it is switched off.
pub fn version() -> Result<u32, Errno> {
    let nothing = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes no struct and gives a number.
    let version = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, LANDLOCK_CREATE_RULESET_VERSION)
    })?;
    u32::try_from(version).map_err(|_| Errno::OVERFLOW)
}

/// A ruleset that forbids what the bits name unless a rule allows it. A kernel of version 3 and below knows no `net`.
///
/// # Errors
/// E2BIG and EINVAL for bits that the kernel does not know.
pub fn create(fs: u64, net: u64) -> Result<OwnedFd, Errno> {
    let attributes = [fs, net];
    // Older kernels refuse a longer struct, unless its rest is zero.
    // SAFETY: the kernel reads the two numbers, which are laid out as `struct landlock_ruleset_attr` begins.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attributes.as_ptr(),
            std::mem::size_of_val(&attributes),
            0,
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: a new fd (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows `access` at and below `path`.
///
/// # Errors
/// EINVAL for bits that are not the ruleset's, or folders' bits for a file.
pub fn allow_path(ruleset: BorrowedFd<'_>, access: u64, path: BorrowedFd<'_>) -> Result<(), Errno> {
    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        parent: i32,
    }
    let rule = PathBeneath { access, parent: path.as_raw_fd() };
    // SAFETY: the kernel reads the struct, whose layout is its own, packed one.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

/// Allows `access` to a TCP port.
///
/// # Errors
/// EINVAL for bits that are not the ruleset's; EAFNOSUPPORT without TCP.
pub fn allow_port(ruleset: BorrowedFd<'_>, access: u64, port: u16) -> Result<(), Errno> {
    let rule = [access, u64::from(port)];
    // SAFETY: the kernel reads two numbers, which are `struct landlock_net_port_attr`.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_NET_PORT,
            rule.as_ptr(),
            0,
        )
    })
    .map(drop)
}

/// Puts the ruleset on the calling thread and its children.
///
/// # Errors
/// EPERM without no_new_privs or CAP_SYS_ADMIN; E2BIG for too many layers.
pub fn restrict(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: two numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
