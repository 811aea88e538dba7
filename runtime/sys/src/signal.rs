//! Signals as a file: signalfd(2), and the calling thread's mask. In: nothing. Out: signal numbers.
//! Must never: install a handler that does more than end the process.
#![allow(unsafe_code)] // rustix has neither

use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::process::last_errno;

/// Blocks every signal that can be blocked and gives an fd from which they are read
/// ([signalfd(2)](https://man7.org/linux/man-pages/man2/signalfd.2.html)); close-on-exec, non-blocking.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
#[doc(alias = "signalfd")]
pub fn take_all() -> Result<OwnedFd, Errno> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set; the two calls after it only read it, or write nothing (null old set).
    let fd = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) < 0 {
            return Err(last_errno());
        }
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the fd is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Blocks nothing and ignores nothing: what a program expects when it starts (signal(7)). For a child of
/// `process::clone3`, which has no handlers.
pub fn reset() {
    let ignored = ignored();
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that sigprocmask reads; SIG_DFL is valid for every signal, and a number
    // for which it may not be set (KILL, STOP) is refused without harm.
    unsafe {
        for signal in (1..=libc::SIGRTMAX()).filter(|signal| ignored & 1 << (signal - 1) != 0) {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// The signals that this process ignores, a bit each (proc_pid_status(5), SigIgn); all where that can't be read.
fn ignored() -> u64 {
    let status = super::kernel_file::read("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    field.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// Lets `signals` end this process, with the exit status that a shell gives for them, also where it is the first of a
/// pid namespace, which no signal ends that it does not handle (pid_namespaces(7)). exec takes it back.
///
/// # Errors
/// EINVAL for a number that is no signal's, or KILL's, or STOP's.
pub fn let_end(signals: &[i32]) -> Result<(), Errno> {
    extern "C" fn end(signal: libc::c_int) {
        super::process::exit_now(128 + signal)
    }
    let handler: extern "C" fn(libc::c_int) = end;
    for signal in signals {
        // SAFETY: the handler has the type that signal(2) asks for and calls _exit(2) only, which any handler may.
        if unsafe { libc::signal(*signal, handler as libc::sighandler_t) } == libc::SIG_ERR {
            return Err(last_errno());
        }
    }
    Ok(())
}

/// The next signal's number from the fd of `take_all`, if there is one.
pub fn next(fd: &OwnedFd) -> Option<i32> {
    let mut record = [0_u8; std::mem::size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut record) {
        // ssi_signo is the struct's first field.
        Ok(length) if length == record.len() => {
            Some(i32::from_ne_bytes([record[0], record[1], record[2], record[3]]))
        }
        _ => None,
    }
}

/// Sends `signal` (any number, real-time ones too) to `pid`.
///
/// # Errors
/// kill(2)'s.
pub fn send(pid: rustix::process::Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill takes two numbers; `Pid` is positive, so no group is meant.
    let result = unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
