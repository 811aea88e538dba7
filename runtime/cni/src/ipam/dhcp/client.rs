//! One interface's DHCP client: asks for a lease, asks for it to go on, gives it back.
//!
//! In: an interface in its namespace. Out: `Lease`. Must never: change addresses; that is the interface plugin's part.
//!
//! Its sockets are plain UDP sockets of the interface: the kernel takes a broadcast in before there is an address, as
//! long as rp_filter is off.

use std::net::Ipv4Addr;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrV4;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;

use super::message;
use super::message::Answer;
use super::message::Lease;
use super::message::Query;
use crate::plugin::interface::random;
use netlink::namespace;
use netlink::route::RouteSocket;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const MESSAGE_LEN_MAX: usize = 4096;
/// How long an answer is waited for, try by try; then it is given up.
const WAITS_S: [u64; 7] = [1, 2, 2, 4, 8, 16, 32];

/// Why there is no lease.
#[derive(Debug)]
pub enum Failure {
    /// A server said no.
    Refused,
    /// Nobody answered, or nothing could be asked.
    Other(String),
}

/// An interface that has, or wants, a lease.
#[derive(Debug)]
pub struct Client {
    /// Its namespace, which lives as long as this.
    pub netns: OwnedFd,
    /// Its name.
    pub ifname: String,
    /// Client identifier, the options asked for, and those that the configuration provides.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Client {
    /// Gets a lease.
    ///
    /// # Errors
    /// Nobody answered, the answer lacks something, or the interface is gone.
    pub fn acquire(&self) -> Result<Lease, Failure> {
        let mac = self.bring_up()?;
        let socket = self.socket(Ipv4Addr::UNSPECIFIED)?;
        let everybody = Ipv4Addr::BROADCAST;
        for wait_s in WAITS_S {
            let transaction = new_transaction();
            let ask = |kind, options: &[(u8, Vec<u8>)]| {
                let address = Ipv4Addr::UNSPECIFIED;
                let query = Query { kind, transaction, mac, address, options };
                exchange(&socket, everybody, &query, Duration::from_secs(wait_s))
            };
            let Some(offer) = ask(message::DISCOVER, &self.options)? else { continue };
            let Some(server) = offer.address_option(message::SERVER).filter(|_| offer.kind == message::OFFER)
            else {
                continue;
            };
            let mut options = self.options.clone();
            options.push((message::REQUESTED_ADDRESS, offer.address.octets().to_vec()));
            options.push((message::SERVER, server.octets().to_vec()));
            match ask(message::REQUEST, &options)? {
                Some(answer) if answer.kind == message::ACK => return answer.lease().map_err(Failure::Other),
                _ => {} // refused what it offered, or lost: from the start
            }
        }
        let hint = if self.is_filtered() { "; rp_filter is on there, and drops answers" } else { "" };
        Err(Failure::Other(format!("no DHCP server answers on {}{hint}", self.ifname)))
    }

    fn is_filtered(&self) -> bool {
        let read = || {
            let is_on = |name: &str| {
                let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
                std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
            };
            Ok(is_on("all") || is_on(&self.ifname))
        };
        namespace::inside(self.netns.as_fd(), read).unwrap_or(false)
    }

    /// Asks that a lease go on: its server, or with `anybody` every server. One try.
    ///
    /// # Errors
    /// Refused, or no answer within `wait`.
    pub fn renew(&self, lease: &Lease, anybody: bool, wait: Duration) -> Result<Lease, Failure> {
        let mac = self.bring_up()?;
        let socket = self.socket(lease.v4())?;
        let query = Query {
            kind: message::REQUEST,
            transaction: new_transaction(),
            mac,
            address: lease.v4(),
            options: &self.options,
        };
        let server = if anybody { Ipv4Addr::BROADCAST } else { lease.server };
        match exchange(&socket, server, &query, wait)? {
            Some(answer) if answer.kind == message::ACK && answer.address == lease.v4() => {
                answer.lease().map_err(Failure::Other)
            }
            Some(_) => Err(Failure::Refused),
            None => Err(Failure::Other(format!("the DHCP server {server} does not answer"))),
        }
    }

    /// Gives a lease back. There is no answer to that.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn release(&self, lease: &Lease) -> Result<(), Failure> {
        let mac = self.bring_up()?;
        let socket = self.socket(lease.v4())?;
        let mut options: Vec<_> =
            self.options.iter().filter(|(kind, _)| *kind == message::CLIENT_ID).cloned().collect();
        options.push((message::SERVER, lease.server.octets().to_vec()));
        let transaction = new_transaction();
        let query =
            Query { kind: message::RELEASE, transaction, mac, address: lease.v4(), options: &options };
        socket.send_to(&query.bytes(), (lease.server, SERVER_PORT)).map(drop).map_err(failed)
    }

    /// Takes the interface down: its lease has ended, and the address may be somebody else's.
    pub fn take_down(&self) {
        let down = |mut socket: RouteSocket| -> Result<(), Errno> {
            let Some(link) = socket.link(&self.ifname)? else { return Ok(()) };
            let change = netlink::link::LinkChange {
                clear: netlink::link::UP,
                ..netlink::link::LinkChange::default()
            };
            socket.change_link(link.index, &change)
        };
        let _ = RouteSocket::open_in(self.netns.as_fd()).and_then(down); // it may be gone, which is as good
    }

    /// The interface's MAC; it is up then.
    fn bring_up(&self) -> Result<[u8; 6], Failure> {
        let find = || -> Result<Option<[u8; 6]>, Errno> {
            let mut socket = RouteSocket::open_in(self.netns.as_fd())?;
            let Some(link) = socket.link(&self.ifname)? else { return Ok(None) };
            socket.set_up(link.index)?;
            Ok(link.mac.try_into().ok())
        };
        let found = find().map_err(failed)?;
        found.ok_or_else(|| Failure::Other(format!("there is no interface {} with a MAC", self.ifname)))
    }

    fn socket(&self, address: Ipv4Addr) -> Result<UdpSocket, Failure> {
        let open = || -> Result<OwnedFd, Errno> {
            let socket =
                rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            sockopt::set_socket_broadcast(&socket, true)?;
            sys::udp::bind_to_device(socket.as_fd(), &self.ifname)?;
            rustix::net::bind(&socket, &SocketAddrV4::new(address, CLIENT_PORT))?;
            Ok(socket)
        };
        namespace::inside(self.netns.as_fd(), open).map(UdpSocket::from).map_err(failed)
    }
}

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::Other(cause.to_string())
}

#[allow(clippy::cast_possible_truncation)] // 32 of 64 random bits
fn new_transaction() -> u32 {
    random() as u32
}

/// Sends a query and waits for its answer; `None` when there is none in time.
fn exchange(
    socket: &UdpSocket,
    to: Ipv4Addr,
    query: &Query<'_>,
    wait: Duration,
) -> Result<Option<Answer>, Failure> {
    socket.send_to(&query.bytes(), (to, SERVER_PORT)).map_err(failed)?;
    let deadline = Instant::now() + wait;
    let mut buffer = [0; MESSAGE_LEN_MAX];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        // An ICMP error of an earlier message shows here; the answer may come all the same.
        let Ok((len, _)) = socket.recv_from(&mut buffer) else { continue };
        let answer = buffer.get(..len).and_then(Answer::parse);
        if let Some(answer) = answer.filter(|answer| answer.transaction == query.transaction) {
            return Ok(Some(answer));
        }
    }
}
