//! Terminals. In: a container's devpts, who gets the other end. Out: a pseudo-terminal as the program's standard streams,
//! its master as an fd. Must never: open the terminal by its path (CVE-2025-52565): TIOCGPTPEER gives it by fd.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;
use rustix::termios::OutputModes;
use rustix::termios::Winsize;

use super::devices;
use super::inside;
use super::inside::Make;
use super::mounts;
use crate::report::Error;
use crate::report::Fails;
use spec::process::ConsoleSize;

/// A pseudo-terminal of the container.
#[derive(Debug)]
pub struct Terminal {
    /// The end that whoever watches gets.
    pub master: OwnedFd,
    peer: OwnedFd,
}

/// Opens a new terminal of the devpts at /dev/pts of this root.
///
/// # Errors
/// It is not there, or full.
pub fn open(size: Option<ConsoleSize>) -> Result<Terminal, Error> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty());
    // A /dev that was bound from elsewhere may have only the multiplexer.
    let master = master
        .or_else(|_| rustix::fs::open("/dev/ptmx", flags, Mode::empty()))
        .step("open", "/dev/pts/ptmx")?;
    rustix::pty::unlockpt(&master).step("unlock", "the terminal")?;
    let peer = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    );
    let peer = peer.step("open", "the terminal's other end")?;
    if let Some(size) = size {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).step("set the size of", "the terminal")?;
    }
    Ok(Terminal { master, peer })
}

impl Terminal {
    /// Binds it to /dev/console inside `root`.
    ///
    /// # Errors
    /// Each names /dev/console.
    pub fn bind_console(&self, root: BorrowedFd<'_>) -> Result<(), Error> {
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(self.peer.as_fd(), c"", flags).step("bind", "/dev/console")?;
        let target = inside::make(root, Path::new("/dev/console"), Make::File, Mode::from_raw_mode(0o666));
        target.and_then(|target| mounts::attach(&mount, &target)).step("bind", "/dev/console")
    }

    /// Leaves newlines as they are, for a runtime that stands between it and its caller: whoever reads the output from a
    /// pipe wants lines to end as the program ends them; so runc has it. Before the program looks at its terminal.
    ///
    /// # Errors
    /// tcgetattr(3)'s, tcsetattr(3)'s.
    pub fn keep_newlines(&self) -> Result<(), Error> {
        let mut modes = rustix::termios::tcgetattr(&self.peer).step("look at", "the terminal")?;
        modes.output_modes.remove(OutputModes::ONLCR);
        rustix::termios::tcsetattr(&self.peer, OptionalActions::Now, &modes).step("set up", "the terminal")
    }

    /// Makes it the controlling terminal and the three standard streams of this process, owned by `uid`.
    ///
    /// # Errors
    /// Each names the terminal.
    pub fn take_over(&self, uid: u32) -> Result<(), Error> {
        let name = "the terminal";
        rustix::process::ioctl_tiocsctty(&self.peer).step("make controlling", name)?;
        // Its group (tty) and mode are devpts' own.
        rustix::fs::fchown(&self.peer, Some(rustix::fs::Uid::from_raw(uid)), None).step("own", name)?;
        rustix::stdio::dup2_stdin(&self.peer).step("read from", name)?;
        rustix::stdio::dup2_stdout(&self.peer).step("write to", name)?;
        rustix::stdio::dup2_stderr(&self.peer).step("write to", name)
    }
}

/// Gives the standard streams that are not terminals to the container's user, as runc does: so that a program can open
/// /dev/stdout again after the change of user. One that is the host's null device becomes that of `root`, if it is told:
/// nothing of the host's /dev stays open inside, and criu could not save it.
pub fn own_streams(uid: u32, root: Option<BorrowedFd<'_>>) {
    let mut own_null = None;
    for (fd, number) in
        [(rustix::stdio::stdin(), 0), (rustix::stdio::stdout(), 1), (rustix::stdio::stderr(), 2)]
    {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        if devices::is_null(&stat) {
            // A container without one keeps the host's.
            own_null = own_null.or_else(|| devices::open_null(root?).ok());
            let _ = match (&own_null, number) {
                (Some(null), 0) => rustix::stdio::dup2_stdin(null),
                (Some(null), 1) => rustix::stdio::dup2_stdout(null),
                (Some(null), _) => rustix::stdio::dup2_stderr(null),
                (None, _) => Ok(()),
            };
        } else if stat.st_uid != uid {
            // What is not ours to give stays as it is.
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// Sends the master to whoever listens on `socket`, with a name as data (runc's console socket).
///
/// # Errors
/// sendmsg(2)'s.
pub fn send_fd(socket: impl AsFd, name: &[u8], fd: BorrowedFd<'_>) -> Result<(), Error> {
    send_with_fd(socket, name, fd).map(drop)
}

/// Sends `bytes` and the fd with them, and gives how many bytes went.
///
/// # Errors
/// sendmsg(2)'s.
pub fn send_with_fd(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> Result<usize, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::new("no room for a file descriptor in a message"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
        .step("send", "a file descriptor")
}

/// The fd that the next message on `socket` brings.
///
/// # Errors
/// recvmsg(2)'s; a message without an fd.
pub fn receive_fd(socket: impl AsFd) -> Result<OwnedFd, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [0; 64];
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut data)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .step("receive", "the terminal")?;
    let found = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    found.ok_or_else(|| Error::new("a message without the terminal's file descriptor"))
}

/// Connects to the socket that `--console-socket` names.
///
/// # Errors
/// connect(2)'s.
pub fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).step("connect to the console socket", path.display())
}
