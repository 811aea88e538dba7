//! bpf(2), as far as device filters of cgroups need it.
//!
//! In: a program, a cgroup's fd. Out: program fds and ids.
//! Must never: know what a program is for.
#![allow(unsafe_code)] // rustix has no bpf(2)

use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use rustix::io::Errno;

/// One instruction of eBPF: `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination and source register, a half byte each.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Constant operand.
    pub immediate: i32,
}

impl Instruction {
    /// An instruction from its parts.
    pub const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
        let registers = if cfg!(target_endian = "little") {
            source << 4 | destination
        } else {
            destination << 4 | source
        };
        Instruction { code, registers, offset, immediate }
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
/// More than any cgroup has; the kernel itself stops at 64 (BPF_CGROUP_MAX_PROGS).
const ATTACHED_MAX: usize = 64;

/// A command's part of `union bpf_attr`: plain numbers without padding, all bit patterns valid.
trait Attributes {}

#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct AttachAttributes {
    target_fd: i32,
    attach_bpf_fd: i32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
struct QueryAttributes {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
struct IdAttributes {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: i32,
    file_flags: u32,
}

impl Attributes for LoadAttributes {}
impl Attributes for AttachAttributes {}
impl Attributes for QueryAttributes {}
impl Attributes for IdAttributes {}
impl Attributes for ObjectAttributes {}

/// Loads a program that decides on access to devices (BPF_PROG_LOAD,
/// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html)).
///
/// # Errors
/// bpf(2)'s; EPERM without CAP_BPF or CAP_SYS_ADMIN, EINVAL for a program that the kernel refuses.
pub fn load_cgroup_device(name: &str, program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let mut prog_name = [0u8; 16];
    for (to, from) in prog_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let mut attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: BPF_CGROUP_DEVICE,
    };
    // SAFETY: `insns` points to `insn_cnt` instructions and `license` to a C string; both live through the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }?;
    own(fd)
}

/// What lies at `path` in a bpf file system, a program perhaps (BPF_OBJ_GET).
///
/// # Errors
/// bpf(2)'s; ENOENT where there is nothing, EINVAL in another file system.
pub fn pinned(path: &CStr) -> Result<OwnedFd, Errno> {
    let mut attributes = ObjectAttributes { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: `pathname` points to a C string that lives through the call.
    own(unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?)
}

/// Gives a program the name `path` in a bpf file system, so that it stays when its last fd is closed (BPF_OBJ_PIN).
///
/// # Errors
/// bpf(2)'s; EEXIST where something has that name.
pub fn pin(path: &CStr, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attributes =
        ObjectAttributes { pathname: path.as_ptr() as u64, bpf_fd: program.as_raw_fd(), file_flags: 0 };
    // SAFETY: `pathname` points to a C string that lives through the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// Attaches a program to the cgroup, beside those that are there (BPF_PROG_ATTACH, BPF_F_ALLOW_MULTI).
///
/// # Errors
/// bpf(2)'s.
pub fn attach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attributes = AttachAttributes {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the command takes no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Takes a program off the cgroup (BPF_PROG_DETACH).
///
/// # Errors
/// bpf(2)'s.
pub fn detach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attributes = AttachAttributes {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
    };
    // SAFETY: the command takes no pointers.
    unsafe { bpf(BPF_PROG_DETACH, &mut attributes) }.map(drop)
}

/// The device programs that are attached to this very cgroup (BPF_PROG_QUERY, BPF_PROG_GET_FD_BY_ID).
///
/// # Errors
/// bpf(2)'s.
pub fn attached_cgroup_device(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0u32; ATTACHED_MAX];
    let mut attributes = QueryAttributes {
        target_fd: cgroup.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ATTACHED_MAX as u32,
        padding: 0,
    };
    // SAFETY: `prog_ids` points to `prog_cnt` numbers that the kernel fills in; they live through the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    let count = (attributes.prog_cnt as usize).min(ATTACHED_MAX);
    ids[..count]
        .iter()
        .map(|&prog_id| {
            let mut attributes = IdAttributes { prog_id, next_id: 0, open_flags: 0 };
            // SAFETY: the command takes no pointers.
            own(unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) }?)
        })
        .collect()
}

/// # Safety
/// Pointers in `attributes` have to be valid for what `command` does with them.
unsafe fn bpf<T: Attributes>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long, Errno> {
    loop {
        // SAFETY: `attributes` is a struct of its size without padding, and the caller answers for its pointers.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, std::mem::size_of::<T>()) };
        if result >= 0 {
            return Ok(result);
        }
        // SAFETY: the C library's location of errno is valid in every thread.
        match Errno::from_raw_os_error(unsafe { *libc::__errno_location() }) {
            // The verifier gives up when a signal is pending, and wants to be asked again.
            Errno::AGAIN if command == BPF_PROG_LOAD => {}
            errno => return Err(errno),
        }
    }
}

fn own(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the command returned a new fd (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
