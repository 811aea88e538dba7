//! seccomp(2): loads a filter into the calling thread.
//!
//! In: a finished program. Out: the notification fd, where one was asked for.
//! Must never: allocate, since it runs between clone and exec.
#![allow(unsafe_code)] // rustix has no seccomp(2)

use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use rustix::io::Errno;

/// One instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a condition holds.
    pub jt: u8,
    /// Instructions to skip when it doesn't.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const Instruction,
}

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER
pub const NEW_LISTENER: u32 = 1 << 3;

/// Loads `program` with the `SECCOMP_FILTER_FLAG_*` bits `flags`
/// ([seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html), SECCOMP_SET_MODE_FILTER).
/// The fd of `NEW_LISTENER` is close-on-exec.
///
/// # Errors
/// EACCES without no_new_privs and CAP_SYS_ADMIN; EINVAL for a program or flags that the kernel refuses; EBUSY when
/// another filter has a listener already.
#[doc(alias = "seccomp")]
pub fn set_mode_filter(flags: u32, program: &[Instruction]) -> Result<Option<OwnedFd>, Errno> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: `program` and the slice that it points to live through the call, and the kernel only reads them;
    // `Instruction` and `Program` have the layout of the kernel's structs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            &raw const program,
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = RawFd::try_from(result).map_err(|_| Errno::INVAL)?;
    // SAFETY: with NEW_LISTENER the result is a new fd that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn last_errno() -> Errno {
    // SAFETY: the C library's location of errno is valid in every thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
