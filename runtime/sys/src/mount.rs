//! mount_setattr(2) and statmount(2). In: a mount's fd. Out: nothing, or its options. Must never: know why a mount gets an
//! attribute.
#![allow(unsafe_code)] // rustix has neither

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

/// The options of the file system that `file` lies on, as its own type writes them (`lowerdir=...,xino=off`), where it is
/// mounted in this mount namespace ([statmount(2)](https://man7.org/linux/man-pages/man2/statmount.2.html)).
///
/// # Errors
/// ENOENT: it is not mounted here. ENOSYS, EOPNOTSUPP: the kernel is older than 6.11. EOVERFLOW: they are longer than 3 KiB.
#[doc(alias = "statmount")]
pub fn options(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    const SYS_STATMOUNT: libc::c_long = 457;
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    const STATMOUNT_MNT_OPTS: u64 = 0x80;
    /// `struct mnt_id_req` of linux/mount.h.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mount: u64,
        wanted: u64,
    }
    /// `struct statmount`: its size, the place of the options in `text`, what it holds, much else, and the text.
    #[repr(C)]
    struct Answer {
        size: u32,
        options: u32,
        held: u64,
        rest: [u64; 62],
        text: [u8; 3072],
    }
    let wanted = rustix::fs::StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    let facts = rustix::fs::statx(file, c"", rustix::fs::AtFlags::EMPTY_PATH, wanted)?;
    if facts.stx_mask & STATX_MNT_ID_UNIQUE == 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let size = u32::try_from(std::mem::size_of::<Request>()).unwrap_or(0);
    let request = Request { size, spare: 0, mount: facts.stx_mnt_id, wanted: STATMOUNT_MNT_OPTS };
    let mut answer = Answer { size: 0, options: 0, held: 0, rest: [0; 62], text: [0; 3072] };
    // SAFETY: the kernel reads `request`, whose size it is told, and writes no more than the size of `answer`.
    let result = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            std::ptr::from_ref(&request),
            std::ptr::from_mut(&mut answer),
            std::mem::size_of::<Answer>(),
            0,
        )
    };
    if result < 0 {
        return Err(super::process::last_errno());
    }
    if answer.held & STATMOUNT_MNT_OPTS == 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let text =
        usize::try_from(answer.options).ok().and_then(|start| answer.text.get(start..)).unwrap_or_default();
    Ok(text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
}
