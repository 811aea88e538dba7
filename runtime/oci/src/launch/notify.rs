//! A service manager's readiness protocol (sd_notify(3)) for a program in a container. In: the caller's NOTIFY_SOCKET, the
//! container's state folder. Out: the program finds a socket of its own in /run/notify; when it says there that it is
//! ready, the caller's service manager hears so, with the pid on the host. Must never: hand on anything else that is said.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::SendFlags;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::process::Pid;

use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::topic::console;
use spec::Mount;
use spec::Spec;

/// Where the container's state folder has the socket, and its name there.
const FOLDER: &str = "notify";
const NAME: &str = "notify.sock";
/// Where the container has that folder: runc's place.
const INSIDE: &str = "/run/notify";
/// How long a service manager may take to have read what it was sent.
const BARRIER_TIMEOUT_S: i64 = 30;

/// The service manager's socket, where the caller has been given one.
pub fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

/// Adds the socket's folder and its name to a configuration. `state` is the container's state folder.
pub fn offer(spec: &mut Spec, state: &Path) {
    spec.mounts.push(Mount {
        destination: INSIDE.to_string(),
        source: state.join(FOLDER).display().to_string(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_string).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
    }
}

/// Makes the folder that the container is to see.
///
/// # Errors
/// mkdir(2)'s.
pub fn make_folder(state: &Path) -> Result<(), Error> {
    let folder = state.join(FOLDER);
    std::fs::DirBuilder::new().mode(0o755).create(&folder).step("make", folder.display())
}

/// The container's socket, and the way to the service manager.
#[derive(Debug)]
pub struct Socket {
    own: UnixDatagram,
    manager: OwnedFd,
}

impl Socket {
    /// Makes the container's socket. `manager` is a path, or with an `@` in front a name that is in no file system.
    ///
    /// # Errors
    /// The container was created without one; nobody listens at `manager`.
    pub fn bind(state: &Path, manager: &OsStr) -> Result<Socket, Error> {
        let folder = state.join(FOLDER);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder_fd = rustix::fs::open(&folder, flags, Mode::empty()).step(
            "NOTIFY_SOCKET is set, and was not when the container was created: open",
            folder.display(),
        )?;
        // A container's name can be longer than an address may be.
        let path = format!("/proc/self/fd/{}/{NAME}", folder_fd.as_raw_fd());
        // That of a start which failed.
        let _ = std::fs::remove_file(&path);
        let own = UnixDatagram::bind(&path).step("make a socket in", folder.display())?;
        // The program's user may be anyone.
        let permissions = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, permissions)
            .step("open to all users", folder.join(NAME).display())?;
        Ok(Socket { own, manager: connect(manager)? })
    }

    /// Reads one message; true if it said that the program is ready, and the service manager was told.
    ///
    /// # Errors
    /// The service manager can't be told.
    pub fn hear(&self, pid: Pid) -> Result<bool, Error> {
        let mut message = [0; 4096];
        let length = match self.own.recv(&mut message) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error).step("read", "the container's notification socket"),
        };
        let Some(ready) = ready_line(&message[..length]) else { return Ok(false) };
        self.tell(&[ready, b"\n"].concat())?;
        self.tell(format!("MAINPID={}\n", pid.as_raw_nonzero()).as_bytes())?;
        report::debug("the container's program is ready");
        Ok(true)
    }

    /// Waits until the program is ready, or has ended, and the service manager has read what it was told: a process that
    /// has ended by then would be nobody to it.
    ///
    /// # Errors
    /// As `hear`.
    pub fn wait(&self, pid: Pid, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        loop {
            let mut fds =
                [PollFd::new(&self.own, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).step("wait for", "the container's program"),
            }
            let (said, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if said && self.hear(pid)? {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn tell(&self, message: &[u8]) -> Result<(), Error> {
        rustix::net::send(&self.manager, message, SendFlags::NOSIGNAL)
            .step("write to", "the service manager's socket (NOTIFY_SOCKET)")
            .map(drop)
    }

    /// BARRIER=1 of sd_notify(3): the service manager closes the pipe when it gets to it.
    fn barrier(&self) -> Result<(), Error> {
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make", "a pipe")?;
        console::send_fd(&self.manager, b"BARRIER=1", writer.as_fd())?;
        drop(writer);
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: BARRIER_TIMEOUT_S, tv_nsec: 0 };
        let closed = rustix::event::poll(&mut fds, Some(&timeout)).step("wait for", "the service manager")?;
        if closed == 0 {
            report::warn("the service manager (NOTIFY_SOCKET) does not answer a barrier; going on without");
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

fn connect(manager: &OsStr) -> Result<OwnedFd, Error> {
    const CONNECT: &str = "connect to the service manager (NOTIFY_SOCKET) at";
    let name = manager.to_string_lossy();
    let address = match manager.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(manager),
    };
    let address = address.step(CONNECT, &name)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .step("make", "a socket")?;
    rustix::net::connect(&socket, &address).step(CONNECT, &name)?;
    Ok(socket)
}

/// The line that says it, of a message of several.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_of_readiness_counts() {
        assert_eq!(ready_line(b"STATUS=begins\nREADY=1\nX=1"), Some(b"READY=1".as_slice()));
        assert_eq!(ready_line(b"STATUS=READY=1\n"), None);
    }

    #[test]
    fn the_manager_hears_what_the_program_says_and_with_which_pid() {
        let state =
            std::env::temp_dir().join(format!("coracle-notify-{}-{}", std::process::id(), "x".repeat(100)));
        let _ = std::fs::remove_dir_all(&state);
        std::fs::create_dir(&state).unwrap();
        let host = std::env::temp_dir().join(format!("coracle-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&host);
        let manager = UnixDatagram::bind(&host).unwrap();
        let error = Socket::bind(&state, host.as_os_str()).unwrap_err().to_string();
        assert!(error.contains("was not when the container was created"), "{error}");
        make_folder(&state).unwrap();
        let socket = Socket::bind(&state, host.as_os_str()).unwrap();
        // The folder's path is too long for an address: as the container has it, by another name.
        let short = std::env::temp_dir().join(format!("coracle-notify-{}-in", std::process::id()));
        let _ = std::fs::remove_file(&short);
        std::os::unix::fs::symlink(state.join(FOLDER), &short).unwrap();
        let program = UnixDatagram::unbound().unwrap();
        program.send_to(b"STATUS=still at it", short.join(NAME)).unwrap();
        program.send_to(b"STATUS=done\nREADY=1", short.join(NAME)).unwrap();
        let pid = Pid::from_raw(4711).unwrap();
        assert_eq!(socket.hear(pid), Ok(false));
        assert_eq!(socket.hear(pid), Ok(true));
        let mut heard = [0; 64];
        let mut next = || {
            let length = manager.recv(&mut heard).unwrap();
            String::from_utf8_lossy(&heard[..length]).into_owned()
        };
        assert_eq!((next(), next()), ("READY=1\n".to_string(), "MAINPID=4711\n".to_string()));
        std::fs::remove_file(&host).unwrap();
        assert!(Socket::bind(&state, host.as_os_str()).unwrap_err().to_string().contains("NOTIFY_SOCKET"));
        std::fs::remove_file(short).unwrap();
        std::fs::remove_dir_all(state).unwrap();
    }
}
