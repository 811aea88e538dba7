//! One netlink socket: request and answer, dumps, batches.
//!
//! In: messages. Out: what the kernel answered, or its errno. Must never: wait for what the kernel has not promised.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::Protocol;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::SocketFlags;
use rustix::net::SocketType;

use super::message::Message;
use super::message::Received;
use super::message::split;

/// The kernel fills a dump's buffers up to 32 KiB when the reader offers that much.
const RECEIVE_LEN: usize = 32 * 1024;
/// A dump that the kernel marks as inconsistent is asked for again, this often at most.
const DUMP_TRIES_MAX: usize = 64;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A netlink socket. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    /// What recv fills. Nobody else writes to it: to clear it first would touch memory that most answers have no use for.
    buffer: Vec<u8>,
    /// Whether the kernel has more to say of a dump that was asked for.
    is_dumping: bool,
}

impl Socket {
    /// Opens a socket for `protocol`; `None` is NETLINK_ROUTE.
    ///
    /// # Errors
    /// EPROTONOSUPPORT when the kernel lacks the protocol; EMFILE, ENOMEM.
    #[doc(alias = "socket")]
    pub fn open(protocol: Option<Protocol>) -> Result<Socket, Errno> {
        Socket::open_groups(protocol, 0)
    }

    /// The same, which also hears what the kernel tells the multicast `groups`.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_groups(protocol: Option<Protocol>, groups: u32) -> Result<Socket, Errno> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &rustix::net::netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(Socket { fd, sequence: 0, buffer: Vec::with_capacity(RECEIVE_LEN), is_dumping: false })
    }

    /// Sends one request, whose flags must hold NLM_F_ACK, and gives what came before the acknowledgement.
    ///
    /// # Errors
    /// The errno that the kernel answered.
    pub fn request(&mut self, message: Message) -> Result<Vec<Received>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&message.finish(self.sequence))?;
        let mut answers = Vec::new();
        loop {
            for received in self.receive(RecvFlags::empty())? {
                if received.sequence != self.sequence {
                    continue;
                }
                match received.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => return error_of(&received).map(|()| answers),
                    _ => answers.push(received),
                }
            }
        }
    }

    /// Sends one request without NLM_F_ACK, to which the kernel answers with one message or an error.
    ///
    /// # Errors
    /// The errno that the kernel answered.
    pub fn query(&mut self, message: Message) -> Result<Option<Received>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&message.finish(self.sequence))?;
        loop {
            for received in self.receive(RecvFlags::empty())? {
                match received.kind {
                    _ if received.sequence != self.sequence => {}
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => return error_of(&received).map(|()| None),
                    _ => return Ok(Some(received)),
                }
            }
        }
    }

    /// Sends a request with NLM_F_DUMP and gives the whole answer; `build` makes it again when the kernel says that
    /// the list changed under the dump.
    ///
    /// # Errors
    /// The errno that the kernel answered; EINTR when the list never held still.
    pub fn dump(&mut self, build: impl Fn() -> Message) -> Result<Vec<Received>, Errno> {
        for _ in 0..DUMP_TRIES_MAX {
            self.sequence = self.sequence.wrapping_add(1);
            self.is_dumping = true;
            self.send(&build().finish(self.sequence))?;
            if let Some(answers) = self.dump_answers()? {
                return Ok(answers);
            }
        }
        Err(Errno::INTR)
    }

    /// `None` when the dump was inconsistent.
    fn dump_answers(&mut self) -> Result<Option<Vec<Received>>, Errno> {
        let mut dump = Dump { sequence: self.sequence, answers: Vec::new(), is_whole: true };
        loop {
            let received = self.receive(RecvFlags::empty())?;
            let ended = dump.take(received);
            // An error is its end, too.
            self.is_dumping = ended == Ok(false);
            if ended? {
                break;
            }
        }
        Ok(dump.is_whole.then_some(dump.answers))
    }

    /// Sends several messages as one buffer, as nf_tables transactions are, and gives the first error.
    /// The kernel works through a batch before sendmsg returns, so what it has to say is there already: an answer to the last
    /// message that asks for one at least.
    ///
    /// # Errors
    /// The errno of the first message that failed; EPROTO when there was no answer.
    pub fn batch(&mut self, messages: Vec<Message>) -> Result<(), Errno> {
        let before = self.sequence;
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(message.finish(self.sequence));
        }
        self.send(&bytes)?;
        let mut result = None;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(received) => {
                    let is_answer =
                        |message: &&Received| message.kind == NLMSG_ERROR && message.sequence > before;
                    for message in received.iter().filter(is_answer) {
                        result = Some(result.unwrap_or(Ok(())).and(error_of(message)));
                    }
                }
                Err(Errno::AGAIN) => return result.unwrap_or(Err(Errno::PROTO)),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Waits until something comes that nobody asked for, and drops it; false when nothing did until `deadline`.
    ///
    /// # Errors
    /// The kernel's; what it had to drop counts as something.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool, Errno> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))?;
        if ready > 0 {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(ready > 0)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let kernel = rustix::net::netlink::SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel))?;
        Ok(())
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<Vec<Received>, Errno> {
        let Socket { fd, buffer, .. } = self;
        buffer.clear();
        let (read, len) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&*fd, spare_capacity(buffer), flags | RecvFlags::TRUNC)
        })?;
        if len > read {
            return Err(Errno::MSGSIZE);
        }
        Ok(split(buffer))
    }

    /// Whether the next request is answered as on a new socket.
    pub fn is_free(&self) -> bool {
        !self.is_dumping
    }

    /// Lets the kernel close the socket when it comes to it, where close(2) would wait. A socket that is on its way in a
    /// pair of sockets which nobody holds any more is closed by the kernel's collector of such (unix(7), SCM_RIGHTS); where
    /// it can't be sent, or an older kernel collects at once, it is closed as any.
    pub fn close_later(self) {
        let Socket { fd, .. } = self;
        let flags = SocketFlags::CLOEXEC;
        let Ok((one, other)) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
        else {
            return;
        };
        let fds = [fd.as_fd(), other.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&fds));
        // Whatever comes of it, all are closed now; the one that is held by nobody last, since that starts the collector.
        let _ = rustix::net::sendmsg(&one, &[IoSlice::new(b"0")], &mut rights, SendFlags::DONTWAIT);
        drop((fd, other));
        drop(one);
    }
}

/// A dump that is being read.
struct Dump {
    sequence: u32,
    answers: Vec<Received>,
    /// Whether the kernel has not said that the list changed meanwhile.
    is_whole: bool,
}

impl Dump {
    /// Takes in what came; true at the end.
    fn take(&mut self, received: Vec<Received>) -> Result<bool, Errno> {
        for message in received.into_iter().filter(|message| message.sequence == self.sequence) {
            self.is_whole &= message.flags & NLM_F_DUMP_INTR == 0;
            match message.kind {
                NLMSG_NOOP => {}
                NLMSG_ERROR => error_of(&message)?,
                NLMSG_DONE => return error_of(&message).map(|()| true),
                _ => self.answers.push(message),
            }
        }
        Ok(false)
    }
}

/// Beyond the last errno that the kernel gives (MAX_ERRNO), as it tells them.
const NO_ERRNO: i32 = -4096;

/// An NLMSG_ERROR or NLMSG_DONE begins with a negative errno, or 0. A number that is none becomes EPROTO.
pub fn error_of(received: &Received) -> Result<(), Errno> {
    let code =
        received.payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match code {
        0.. => Ok(()),
        ..=NO_ERRNO => Err(Errno::PROTO),
        _ => Err(Errno::from_raw_os_error(-code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_30_a_dump_that_the_kernel_calls_inconsistent_is_none() {
        let message = |kind, flags, sequence| Received { kind, flags, sequence, payload: vec![0; 4] };
        let read = |flags| {
            let mut dump = Dump { sequence: 5, answers: vec![], is_whole: true };
            // What belongs to an earlier request is passed over.
            assert_eq!(
                dump.take(vec![message(16, 2, 5), message(16, flags, 5), message(16, 2, 4)]),
                Ok(false)
            );
            assert_eq!(dump.take(vec![message(NLMSG_DONE, 2, 5)]), Ok(true));
            (dump.answers.len(), dump.is_whole)
        };
        assert_eq!(read(2), (2, true));
        assert_eq!(read(2 | NLM_F_DUMP_INTR), (2, false));
    }

    /// Found by fuzzing: a number that is no errno ended in an assertion.
    #[test]
    fn what_is_no_errno_is_a_protocol_error() {
        let read = |code: i32| {
            let payload = code.to_ne_bytes().to_vec();
            error_of(&Received { kind: NLMSG_ERROR, flags: 0, sequence: 1, payload })
        };
        assert_eq!((read(0), read(7)), (Ok(()), Ok(())));
        assert_eq!(read(-libc::EEXIST), Err(Errno::EXIST));
        assert_eq!(read(NO_ERRNO + 1), Err(Errno::from_raw_os_error(4095)));
        for code in [NO_ERRNO, -0x1_0000, i32::MIN] {
            assert_eq!(read(code), Err(Errno::PROTO), "{code}");
        }
    }
}
