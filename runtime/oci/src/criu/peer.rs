//! A criu that serves one request. In: requests. Out: its answers, and what it tells meanwhile. Must never: leave it
//! running, or let it inherit more than it is given.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;

use rustix::net::AddressFamily;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::Shutdown;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::process::Pid;
use rustix::process::WaitOptions;

use super::wire;
use super::wire::Message;
use super::wire::Value;
use crate::launch::channel;
use crate::launch::channel::Channel;
use crate::launch::init;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use sys::process::Side;

/// `criu_req_type`: what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Dump => "dump",
            Kind::Restore => "restore",
            Kind::PreDump => "pre-dump",
        }
    }
}

/// `criu_req_type` of what is told and wants an answer.
const NOTIFY: i64 = 6;
/// More than any answer.
const ANSWER_BYTES_MAX: usize = 1 << 16;

/// Fields of `criu_req`.
mod request {
    pub const TYPE: u32 = 1;
    pub const OPTS: u32 = 2;
    pub const NOTIFY_SUCCESS: u32 = 3;
}

/// Fields of `criu_resp`.
mod response {
    pub const TYPE: u32 = 1;
    pub const SUCCESS: u32 = 2;
    pub const RESTORE: u32 = 4;
    pub const NOTIFY: u32 = 5;
    pub const ERRNO: u32 = 7;
    pub const MESSAGE: u32 = 9;
}

/// How far it is: `criu_notify`.
#[derive(Debug, Default)]
pub struct Notice {
    /// The name of the moment.
    pub script: String,
    /// The container's first process, where there is one yet.
    pub pid: Option<Pid>,
    /// The master of its terminal, at `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

/// A child of this process.
#[derive(Debug)]
pub struct Peer {
    socket: OwnedFd,
    pub pid: Pid,
    channel: Channel,
    has_ended: bool,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !self.has_ended {
            // With nobody there any more it takes back what it has done: it thaws a container, or kills what it has restored. Killed
            // itself, it could not.
            self.channel.close();
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
            let _ = self.wait();
        }
    }
}

impl Peer {
    /// Makes the process that is to be criu, with the descriptors that it is to keep, which waits. With `flags`, of clone3(2),
    /// it has namespaces of its own, in which `prepare` is called.
    ///
    /// # Errors
    /// criu is not there; clone3(2)'s.
    pub fn start(
        flags: u64,
        cgroup: Option<BorrowedFd<'_>>,
        kept: &[OwnedFd],
        prepare: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Peer, Error> {
        let program = find()?;
        let (socket, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step("make", "a socket pair")?;
        let (channel, mut child_channel) = Channel::pair()?;
        match sys::process::clone3(flags, cgroup).step("start", program.to_string_lossy())? {
            Side::Parent(pid, _) => Ok(Peer { socket, pid, channel, has_ended: false }),
            Side::Child => {
                let error = match become_criu(&program, &other, kept, &mut child_channel, prepare) {
                    Err(error) => error,
                    Ok(never) => match never {},
                };
                init::fail(&mut child_channel, &error)
            }
        }
    }

    /// Asks it, and calls `on_notice` for what it tells meanwhile; gives the pid of what was restored.
    ///
    /// # Errors
    /// What criu says went wrong, or `on_notice`, which ends it.
    pub fn ask(
        mut self,
        kind: Kind,
        options: &Message,
        mut on_notice: impl FnMut(Notice) -> Result<(), Error>,
    ) -> Result<Option<Pid>, Error> {
        self.channel.go_on()?;
        // exec closes the other end.
        if let Some(channel::Message::Failed(text)) = self.channel.hear()? {
            return Err(Error::new(text));
        }
        let mut asked = Message::default();
        asked.number(request::TYPE, kind as i32).message(request::OPTS, options);
        self.send(&asked)?;
        loop {
            let answer = self.receive(kind)?;
            let Some(notice) = answer.notice else {
                self.end(kind)?;
                return Ok(answer.pid);
            };
            report::debug(&format!("criu: {}", notice.script));
            on_notice(notice)?;
            let mut done = Message::default();
            done.number(request::TYPE, NOTIFY).number(request::NOTIFY_SUCCESS, true);
            self.send(&done)?;
        }
    }

    fn send(&self, message: &Message) -> Result<(), Error> {
        rustix::net::send(&self.socket, message.bytes(), SendFlags::NOSIGNAL)
            .step("talk to", "criu")
            .map(drop)
    }

    fn receive(&self, kind: Kind) -> Result<Answer, Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = vec![0; ANSWER_BYTES_MAX];
        let mut parts = [IoSliceMut::new(&mut data)];
        let length = loop {
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                done => break done.step("listen to", "criu")?.bytes,
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if length == 0 {
            return Err(Error::new(format!("criu ended while it was to {}", kind.name())));
        }
        let mut answer = Answer::read(&data[..length], kind)?;
        if let Some(notice) = &mut answer.notice {
            notice.fd = fd;
        }
        Ok(answer)
    }

    /// Its exit status; None: a signal has ended it.
    fn wait(&mut self) -> Result<Option<i32>, Error> {
        self.has_ended = true;
        loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) | Ok(None) => {}
                Err(errno) => return Err(errno).step("wait for", "criu"),
                Ok(Some((_, status))) => return Ok(status.exit_status()),
            }
        }
    }

    /// A dump that leaves nothing to do ends by itself once the other end is closed.
    fn end(&mut self, kind: Kind) -> Result<(), Error> {
        rustix::net::shutdown(&self.socket, Shutdown::Write).step("talk to", "criu")?;
        let status = self.wait()?;
        // After a pre-dump it ends with 1 all the same.
        if status == Some(0) || kind == Kind::PreDump {
            return Ok(());
        }
        Err(Error::new(format!("criu could not {}: it ended badly", kind.name())))
    }
}

/// What criu said.
#[derive(Debug, Default)]
struct Answer {
    notice: Option<Notice>,
    pid: Option<Pid>,
}

impl Answer {
    fn read(bytes: &[u8], kind: Kind) -> Result<Answer, Error> {
        let nonsense = || Error::new("criu said nonsense");
        let (mut told, mut success, mut errno, mut message) = (0, false, 0, String::new());
        let mut answer = Answer::default();
        let mut notice = Notice::default();
        for (field, value) in wire::fields(bytes).ok_or_else(nonsense)? {
            match (field, value) {
                (response::TYPE, Value::Number(number)) => told = number,
                (response::SUCCESS, Value::Number(number)) => success = number != 0,
                (response::ERRNO, Value::Number(number)) => errno = number,
                (response::MESSAGE, Value::Bytes(text)) => {
                    message = String::from_utf8_lossy(text).trim().to_string()
                }
                (response::RESTORE, Value::Bytes(inner)) => {
                    for (field, value) in wire::fields(inner).ok_or_else(nonsense)? {
                        if let (1, Value::Number(number)) = (field, value) {
                            answer.pid = pid(number);
                        }
                    }
                }
                (response::NOTIFY, Value::Bytes(inner)) => {
                    for (field, value) in wire::fields(inner).ok_or_else(nonsense)? {
                        match (field, value) {
                            (1, Value::Bytes(text)) => {
                                notice.script = String::from_utf8_lossy(text).into_owned()
                            }
                            (2, Value::Number(number)) => notice.pid = pid(number),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if !success {
            let errno = i32::try_from(errno).ok().filter(|errno| *errno != 0);
            let cause = errno.map(|errno| report::errno_text(rustix::io::Errno::from_raw_os_error(errno)));
            let causes: Vec<String> =
                cause.into_iter().chain((!message.is_empty()).then_some(message)).collect();
            let causes = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(": ")) };
            return Err(Error::new(format!("criu could not {}{causes}", kind.name())));
        }
        if told == NOTIFY {
            answer.notice = Some(notice);
        } else if told != i64::from(kind as i32) {
            return Err(nonsense());
        }
        Ok(answer)
    }
}

fn pid(number: i64) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// Where criu is.
fn find() -> Result<CString, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("criu"))
        .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok());
    found
        .and_then(|program| CString::new(program.into_os_string().into_vec()).ok())
        .ok_or_else(|| Error::new("criu was not found in $PATH; it does the work, so install it"))
}

/// The child: waits until it may, and becomes criu, which serves what comes by the descriptor that it is told.
fn become_criu(
    program: &CString,
    socket: &OwnedFd,
    kept: &[OwnedFd],
    channel: &mut Channel,
    prepare: impl FnOnce() -> Result<(), Error>,
) -> Result<std::convert::Infallible, Error> {
    sys::signal::reset();
    channel.wait()?;
    prepare()?;
    for fd in [socket.as_fd()].into_iter().chain(kept.iter().map(AsFd::as_fd)) {
        sys::process::keep_across_exec(fd.as_raw_fd()).step("keep", "a file descriptor")?;
    }
    let number = CString::new(socket.as_raw_fd().to_string()).unwrap_or_default();
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect();
    let errno = sys::process::exec(program, &[c"criu".into(), c"swrk".into(), number], &environment);
    Err(errno).step("exec", program.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(told: i64, success: bool) -> Message {
        let mut message = Message::default();
        message.number(response::TYPE, told).number(response::SUCCESS, success);
        message
    }

    #[test]
    fn an_answer_brings_a_pid_or_a_notice() {
        let mut restored = answer(2, true);
        restored.message(response::RESTORE, Message::default().number(1, 4711));
        let read = Answer::read(restored.bytes(), Kind::Restore).unwrap();
        assert_eq!((read.pid, read.notice.is_none()), (Pid::from_raw(4711), true));
        let mut told = answer(NOTIFY, true);
        told.message(response::NOTIFY, Message::default().text(1, "post-restore").number(2, 7));
        let notice = Answer::read(told.bytes(), Kind::Restore).unwrap().notice.unwrap();
        assert_eq!((notice.script.as_str(), notice.pid), ("post-restore", Pid::from_raw(7)));
    }

    #[test]
    fn a_failure_is_told_with_its_cause() {
        let mut failed = answer(1, false);
        failed.number(response::ERRNO, libc::ESRCH).text(response::MESSAGE, "no such task");
        let error = Answer::read(failed.bytes(), Kind::Dump).unwrap_err().to_string();
        assert_eq!(error, "criu could not dump: no such process: no such task");
        assert!(Answer::read(answer(2, true).bytes(), Kind::Dump).is_err());
        assert!(Answer::read(b"\xff", Kind::Dump).is_err());
    }
}
