//! Making, placing and replacing processes: clone3, setns, unshare, exec, prctl, keyctl, limits by number.
//!
//! In: fds, flags, byte strings. Out: fds, `Errno`. Must never: be called with more than one thread running: the
//! child of `clone3` is a copy of the calling thread alone.
#![allow(unsafe_code)] // rustix has none of these, or marks them unsafe

use std::ffi::CStr;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use rustix::io::Errno;
use rustix::process::Pid;

/// The calling thread's errno.
pub(super) fn last_errno() -> Errno {
    // SAFETY: the C library's location of errno is valid in every thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// Which side of a `clone3` this is.
#[derive(Debug)]
pub enum Side {
    /// The caller, with the child's pid and pidfd.
    Parent(Pid, OwnedFd),
    /// The new process.
    Child,
}

/// Makes a child like fork(2) but with no signal handled, or with CLONE_PARENT a sibling, in the new namespaces of `flags` (CLONE_NEW*) and, if given, in `cgroup`
/// ([clone3(2)](https://man7.org/linux/man-pages/man2/clone.2.html) with CLONE_PIDFD, CLONE_CLEAR_SIGHAND and CLONE_INTO_CGROUP).
///
/// # Errors
/// clone3(2)'s; EBUSY or EACCES can come from the cgroup.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: libc::c_int = -1;
    let mut arguments = Arguments {
        flags: flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        // A sibling's is the caller's own; the kernel refuses another word on it.
        exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..Arguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with no stack given the child is a copy of this process, as after fork(2); the
    // kernel reads `arguments` and writes `pidfd`, and both live through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut arguments), std::mem::size_of::<Arguments>())
    };
    match check(result)? {
        0 => Ok(Side::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::OVERFLOW)?;
            // SAFETY: the kernel stored a new fd that nobody else owns.
            Ok(Side::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// Moves the calling thread into the namespace that `fd` refers to, or with a pidfd into those of `kinds` (CLONE_NEW*)
/// of that process ([setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html)).
///
/// # Errors
/// EINVAL when `fd` is another kind of namespace; EPERM.
pub fn setns(fd: BorrowedFd<'_>, kinds: i32) -> Result<(), Errno> {
    // SAFETY: two numbers.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), kinds) }).map(drop)
}

/// Leaves the namespaces of `kinds` (CLONE_NEW*) for new ones
/// ([unshare(2)](https://man7.org/linux/man-pages/man2/unshare.2.html)).
///
/// # Errors
/// unshare(2)'s.
pub fn unshare(kinds: i32) -> Result<(), Errno> {
    // SAFETY: one number; none of the flags used here shares or unshares memory or fds.
    check(unsafe { libc::syscall(libc::SYS_unshare, kinds) }).map(drop)
}

/// Marks every fd from `first` on as close-on-exec
/// ([close_range(2)](https://man7.org/linux/man-pages/man2/close_range.2.html)).
///
/// # Errors
/// ENOSYS before Linux 5.11.
#[doc(alias = "close_range")]
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: no fd is closed now, so no owner is left with a dead one.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every fd from `first` on but `kept`
/// ([close_range(2)](https://man7.org/linux/man-pages/man2/close_range.2.html)). Only for a process that never returns
/// to where one of them is owned.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_from<'a>(first: u32, kept: impl IntoIterator<Item = BorrowedFd<'a>>) -> Result<(), Errno> {
    let mut kept: Vec<u32> = kept.into_iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    let mut from = first;
    for until in kept.into_iter().map(Some).chain([None]) {
        let last = until.map_or(u32::MAX, |fd| fd.saturating_sub(1));
        if from <= last {
            // SAFETY: see above: no owner of these will ever use or close them.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) })?;
        }
        from = from.max(until.map_or(u32::MAX, |fd| fd + 1));
    }
    Ok(())
}

/// Runs `program` in place of this one; returns only to say why it could not.
#[doc(alias = "execve")]
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: all strings end in NUL and both lists in a null pointer, and they live until the call ends.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_errno()
}

/// Runs the program that `fd` refers to in place of this one; returns only to say why it could not.
#[doc(alias = "execveat")]
pub fn exec_fd(fd: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: as in `exec`; the empty path with AT_EMPTY_PATH means the fd itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// The signal that this process gets when its parent ends; 0 for none (PR_SET_PDEATHSIG).
///
/// # Errors
/// EINVAL for no signal's number.
pub fn set_parent_death_signal(signal: i32) -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong)
}

/// Whether other processes of the same user may look into this one (PR_SET_DUMPABLE). exec resets it.
///
/// # Errors
/// None that a bool can cause.
pub fn set_dumpable(dumpable: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable))
}

/// Orphans of its descendants become this process's children (PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// None that a bool can cause.
pub fn set_child_subreaper(reaper: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(reaper))
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the options used here take one number.
    check(libc::c_long::from(unsafe { libc::prctl(option, value, 0, 0, 0) })).map(drop)
}

/// Gives this process a session keyring of its own, called `name` (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING).
///
/// # Errors
/// ENOSYS in a kernel without keys; EDQUOT.
#[doc(alias = "keyctl")]
pub fn join_session_keyring(name: &CStr) -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the kernel reads the string.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

/// Sets a resource limit of `pid` by the resource's number in linux/resource.h
/// ([prlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html)).
///
/// # Errors
/// EPERM for a hard limit above the present one without CAP_SYS_RESOURCE; EINVAL for a soft one above the hard one.
#[doc(alias = "prlimit")]
pub fn set_limit(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads `limit`, and the old value is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw_nonzero().get(),
            resource,
            std::ptr::from_ref(&limit),
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    check(result).map(drop)
}

/// This process's soft and hard limit of a resource, by its number (prlimit(2)).
///
/// # Errors
/// EINVAL for a number that is no resource.
pub fn limit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes `limit`, and no new value is set.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            std::ptr::from_mut(&mut limit),
        )
    };
    check(result).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// Sets the supplementary groups of this thread (setgroups(2)).
///
/// # Errors
/// EPERM, also where the user namespace denies it.
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `groups.len()` numbers.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Brings the interface `lo` of this network namespace up (netdevice(7), SIOCSIFFLAGS).
///
/// # Errors
/// EPERM without CAP_NET_ADMIN.
pub fn bring_up_loopback() -> Result<(), Errno> {
    // SAFETY: `ifreq` is plain data for which all zeros are valid; both calls get a pointer to it that lives on.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(last_errno());
        }
        let fd = OwnedFd::from_raw_fd(fd);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        check(libc::c_long::from(libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request))).map(drop)
    }
}

/// Takes over an fd that the caller of this program left open (`--preserve-fds`, LISTEN_FDS); None when it is not open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only looks.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Lets the fd `fd` stay open across exec.
///
/// # Errors
/// EBADF when it is not open.
pub fn keep_across_exec(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: F_SETFD changes one flag.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })).map(drop)
}

/// Sets the execution domain (personality(2)).
///
/// # Errors
/// EINVAL.
pub fn personality(persona: u64) -> Result<(), Errno> {
    // SAFETY: one number.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// Ends this process at once, without running anything that was registered for its end (_exit(2)).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(status) }
}
