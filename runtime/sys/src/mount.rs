//! mount_setattr(2). In: a mount's fd. Out: nothing. Must never: know why a mount gets an attribute.
#![allow(unsafe_code)] // rustix has no mount_setattr(2)

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttributes {
    /// MOUNT_ATTR_* bits to set.
    pub set: u64,
    /// MOUNT_ATTR_* bits to clear.
    pub clear: u64,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE; 0 leaves it.
    pub propagation: u64,
    /// fd of the user namespace of an idmapped mount; 0 without MOUNT_ATTR_IDMAP.
    pub user_namespace: u64,
}

/// Changes the mount that `mount` refers to, and with `recursive` all below it
/// ([mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html)).
///
/// # Errors
/// EINVAL for a wrong combination; EPERM for an attribute that is locked.
#[doc(alias = "mount_setattr")]
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &MountAttributes,
    recursive: bool,
) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static empty string, and the kernel only reads `attributes`, whose layout is its own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            std::mem::size_of::<MountAttributes>(),
        )
    };
    if result < 0 { Err(super::process::last_errno()) } else { Ok(()) }
}
