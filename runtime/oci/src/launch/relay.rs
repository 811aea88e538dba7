//! Stands between a foreground process and whoever started it. In: the process's pidfd, its terminal's master. Out: bytes
//! both ways, signals handed on, the process's exit status. Must never: leave the caller's terminal in raw mode.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::WaitOptions;
use rustix::termios::OptionalActions;
use rustix::termios::OutputModes;
use rustix::termios::Termios;

use super::notify;
use crate::report;
use crate::report::Error;
use crate::report::Fails;

/// Added to a signal's number to make the exit status of a process that it ended, as in a shell.
const SIGNALLED: i32 = 128;

/// The caller's terminal, raw until this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn new() -> Option<Raw> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // The container's terminal leaves it to this one to make a line's end of a newline: `Terminal::keep_newlines`.
        raw.output_modes.insert(OutputModes::OPOST);
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The caller's signals, blocked and readable: to be taken before the process is made, so that none is lost.
///
/// # Errors
/// signalfd(2)'s.
pub fn signals() -> Result<OwnedFd, Error> {
    sys::signal::take_all().step("take over", "signals")
}

/// Stays until `pid`, a child, has ended, and gives its exit status.
///
/// # Errors
/// poll(2)'s and waitid(2)'s.
pub fn run(
    pid: Pid,
    pidfd: &OwnedFd,
    signals: &OwnedFd,
    master: Option<&OwnedFd>,
    mut notify: Option<notify::Socket>,
) -> Result<i32, Error> {
    let _raw = master.and_then(|_| Raw::new());
    if let Some(master) = master {
        copy_size(master);
        // A full terminal must not stop the relay; what does not fit is kept.
        let flags = rustix::fs::fcntl_getfl(master).step("look at", "the terminal")?;
        rustix::fs::fcntl_setfl(master, flags | rustix::fs::OFlags::NONBLOCK)
            .step("set up", "the terminal")?;
    }
    let mut to_guest = Pending::default();
    let mut input_open = master.is_some();
    let mut output_open = master.is_some();
    let stdin = rustix::stdio::stdin();
    loop {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(master) = master.filter(|_| output_open) {
            let wanted = if to_guest.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            fds.push(PollFd::new(master, wanted));
            if input_open && to_guest.is_empty() {
                fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            }
        }
        let said_at = fds.len();
        fds.extend(notify.as_ref().map(|socket| PollFd::new(socket, PollFlags::IN)));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).step("wait for", "the container's process"),
        }
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        while let Some(signal) = sys::signal::next(signals) {
            hand_on(signal, pid, master);
        }
        if let Some(master) = master.filter(|_| output_open) {
            let event = events[..said_at].get(2).copied().unwrap_or(PollFlags::empty());
            if event.intersects(PollFlags::OUT) {
                to_guest.flush(master);
            }
            if event.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                output_open = show(master)?;
            }
            if events[..said_at].get(3).is_some_and(|event| !event.is_empty()) {
                input_open = to_guest.read(stdin);
                to_guest.flush(master);
            }
        }
        let said = events.get(said_at).is_some_and(|event| !event.is_empty());
        if let Some(socket) = notify.take_if(|_| said) {
            match socket.hear(pid) {
                Ok(true) => {}
                Ok(false) => notify = Some(socket),
                // The program runs all the same.
                Err(error) => report::warn(&error.to_string()),
            }
        }
        if !events[0].is_empty() {
            if let Some(master) = master.filter(|_| output_open) {
                while show(master)? && readable(master) {}
            }
            return reap(pid);
        }
    }
}

/// Bytes on their way into the container.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// False at the end of input.
    fn read(&mut self, from: impl AsFd) -> bool {
        let mut buffer = [0; 4096];
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.bytes.extend_from_slice(&buffer[..length]);
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    fn flush(&mut self, to: &OwnedFd) {
        if let Ok(length) = rustix::io::write(to, &self.bytes) {
            self.bytes.drain(..length);
        }
    }
}

/// Copies what the terminal says to standard output; false when its other end is closed.
fn show(master: &OwnedFd) -> Result<bool, Error> {
    let mut buffer = [0; 4096];
    let length = match rustix::io::read(master, &mut buffer) {
        // EIO: the last process that had it open is gone.
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Ok(length) => length,
        Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
        Err(errno) => return Err(errno).step("read", "the terminal"),
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), rest) {
            Ok(length) => rest = &rest[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT)];
                let _ = rustix::event::poll(&mut fds, None);
            }
            Err(errno) => return Err(errno).step("write", "standard output"),
        }
    }
    Ok(true)
}

fn readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
}

fn hand_on(signal: i32, pid: Pid, master: Option<&OwnedFd>) {
    match signal {
        libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
        libc::SIGWINCH if master.is_some() => {
            if let Some(master) = master {
                copy_size(master);
            }
        }
        // A process that has just ended needs no signal.
        signal => drop(sys::signal::send(pid, signal)),
    }
}

fn copy_size(master: &OwnedFd) {
    // Without a terminal of the caller's there is no size to copy.
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// Takes the exit status of a child that has ended, and of any orphans that came to this process.
fn reap(pid: Pid) -> Result<i32, Error> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Err(Errno::INTR) | Ok(None) => {}
            Err(errno) => return Err(errno).step("wait for", "the container's process"),
            Ok(Some((_, status))) => {
                let signalled = status.terminating_signal().map(|signal| SIGNALLED + signal);
                return Ok(status.exit_status().or(signalled).unwrap_or(1));
            }
        }
    }
}
