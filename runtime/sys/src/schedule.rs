//! Where and when a process runs: sched_setattr, sched_setaffinity, ioprio_set, set_mempolicy.
//!
//! In: numbers, bit masks. Out: nothing. Must never: know why a process gets them.
#![allow(unsafe_code)] // rustix has none of these, or only for 1024 processors

use rustix::io::Errno;
use rustix::process::Pid;

fn check(result: libc::c_long) -> Result<(), Errno> {
    if result < 0 { Err(super::process::last_errno()) } else { Ok(()) }
}

/// `struct sched_attr` of linux/sched/types.h, in its first form (SCHED_ATTR_SIZE_VER0).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// Filled in by `set_scheduler`.
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

/// Sets the calling thread's scheduling ([sched_setattr(2)](https://man7.org/linux/man-pages/man2/sched_setattr.2.html)).
///
/// # Errors
/// EPERM without CAP_SYS_NICE, and for SCHED_DEADLINE on fewer than all processors; EBUSY; EINVAL.
#[doc(alias = "sched_setattr")]
pub fn set_scheduler(attributes: &SchedulerAttributes) -> Result<(), Errno> {
    let size = std::mem::size_of::<SchedulerAttributes>() as u32;
    let attributes = SchedulerAttributes { size, ..*attributes };
    // SAFETY: the kernel only reads the struct, whose layout and size are its own.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) })
}

/// Sets the processors that `pid`, or with None the calling thread, may run on: bit N of the mask is processor N
/// ([sched_setaffinity(2)](https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html)). What its cgroup does not
/// allow is left out.
///
/// # Errors
/// EINVAL when none is left.
#[doc(alias = "sched_setaffinity")]
pub fn set_affinity(pid: Option<Pid>, mask: &[u64]) -> Result<(), Errno> {
    let pid = Pid::as_raw(pid);
    // SAFETY: the kernel only reads as many bytes as the slice has.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid, std::mem::size_of_val(mask), mask.as_ptr())
    })
}

/// Sets the I/O priority of the caller's process group
/// ([ioprio_set(2)](https://man7.org/linux/man-pages/man2/ioprio_set.2.html), IOPRIO_WHO_PGRP).
///
/// # Errors
/// EPERM for real-time without CAP_SYS_NICE; ENOSYS in a kernel without block devices.
#[doc(alias = "ioprio_set")]
pub fn set_io_priority(class: u16, priority: u16) -> Result<(), Errno> {
    const IOPRIO_WHO_PGRP: libc::c_int = 2;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = libc::c_int::from(class) << IOPRIO_CLASS_SHIFT | libc::c_int::from(priority);
    // SAFETY: three numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, 0, value) })
}

/// Sets the memory policy of the calling thread: mode with flags, bit N of the mask is node N
/// ([set_mempolicy(2)](https://man7.org/linux/man-pages/man2/set_mempolicy.2.html)).
///
/// # Errors
/// EINVAL for a mode without the nodes that it needs, or with nodes that are not there; ENOSYS without NUMA.
#[doc(alias = "set_mempolicy")]
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        // The kernel takes one bit less than it is told (mm/mempolicy.c, get_nodes).
        nodes => (nodes.as_ptr(), nodes.len() * 64 + 1),
    };
    // SAFETY: the kernel reads as many bits as the slice has, or none.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}
