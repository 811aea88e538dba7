//! The resolver: answers containers' questions for each other's names on their networks' gateways, and asks the host's
//! name servers everything else.
//!
//! One thread waits on all sockets; a question that has to be asked elsewhere gets a thread of its own, of which there is
//! a limited number.
//!
//! In: the cache, told of changes by `notify`; packets. Out: answers; each network's resolv.conf. Must never: answer who
//! is on none of the networks, or listen where no container is.

use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::inotify;

use super::dns::Code;
use super::dns::Query;
use super::names::Names;
use super::resolv_conf;
use crate::attach::Site;
use crate::error::Error;
use crate::list::Networks;

const SOCKET: &str = "/run/cni/resolver.sock";
const HOSTS_RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// What EDNS lets a packet have in practice; the rest comes by TCP.
const PACKET_LEN_MAX: usize = 4096;
/// Questions that wait for others' answers; more are not taken on.
const WAITING_MAX: usize = 128;
const STACK_LEN: usize = 128 * 1024;
const UPSTREAM_WAIT: Duration = Duration::from_secs(2);
/// Each name server is asked this often.
const ROUNDS: usize = 2;
const CALLER_WAIT: Duration = Duration::from_secs(5);
/// How long a change waits to be known; a resolver that hangs must not stop a container.
const NOTIFY_WAIT: Duration = Duration::from_secs(2);

/// Tells the resolver, if there is one, that attachments have changed, and waits until it knows.
pub fn notify() {
    if let Ok(mut stream) = UnixStream::connect(SOCKET) {
        let _ = stream.set_read_timeout(Some(NOTIFY_WAIT));
        let _ = stream.read(&mut [0]);
    }
}

/// Writes each network's resolv.conf.
///
/// # Errors
/// Code 5 or 999; a list that can't be read has no file and is no error here.
pub fn write_files(site: &Site) -> Result<(), Error> {
    resolv_conf::write_all(&Networks::load(&site.conf_dir)?, Path::new(resolv_conf::FOLDER))
}

/// A gateway's sockets.
struct Door {
    gateway: IpAddr,
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

/// What a thread needs to answer a question.
#[derive(Clone)]
struct Desk {
    names: Arc<Names>,
    waiting: Arc<AtomicUsize>,
}

struct Resolver<'a> {
    site: &'a Site,
    desk: Desk,
    doors: Vec<Door>,
}

/// Serves until the process is ended.
///
/// # Errors
/// Only when it can't begin.
pub fn run(site: &Site) -> Result<(), Error> {
    let failed = |what: &str| {
        let what = what.to_string();
        move |cause: std::io::Error| Error::failed(what, cause)
    };
    write_files(site)?;
    // One that is there is of a resolver that has ended; two at once, the supervisor does not start.
    let _ = std::fs::remove_file(SOCKET);
    let control = UnixListener::bind(SOCKET).map_err(failed(SOCKET))?;
    control.set_nonblocking(true).map_err(failed(SOCKET))?;
    let changes = watch(&site.conf_dir);
    let desk = Desk { names: Arc::default(), waiting: Arc::default() };
    let mut resolver = Resolver { site, desk, doors: Vec::new() };
    resolver.read_names();
    loop {
        let mut fds = vec![PollFd::new(&control, PollFlags::IN)];
        for door in &resolver.doors {
            fds.push(PollFd::new(&*door.udp, PollFlags::IN));
            fds.push(PollFd::new(&door.tcp, PollFlags::IN));
        }
        if let Some(changes) = &changes {
            fds.push(PollFd::new(changes, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::failed("waiting for questions", errno)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (at, door) in resolver.doors.iter().enumerate() {
            if ready[1 + 2 * at] {
                serve_packet(&resolver.desk, door);
            }
            if ready[2 + 2 * at] {
                serve_stream(&resolver.desk, door);
            }
        }
        if changes.is_some() && ready[ready.len() - 1] {
            if let Some(changes) = &changes {
                drain(changes);
            }
            complain(write_files(site).err());
        }
        // Last, since it changes the doors. Who has called waits until all is known.
        if ready[0]
            && let Ok((_caller, _)) = control.accept()
        {
            resolver.read_names();
        }
    }
}

/// A change of the folder of configurations becomes readable here. A folder that is not there can't be watched; its
/// networks' files are made when the resolver starts.
fn watch(folder: &Path) -> Option<OwnedFd> {
    use inotify::CreateFlags;
    use inotify::WatchFlags;
    let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    inotify::add_watch(&changes, folder, flags).ok()?;
    Some(changes)
}

fn drain(changes: &OwnedFd) {
    let mut buffer = [0; PACKET_LEN_MAX];
    while rustix::io::read(changes, &mut buffer).is_ok_and(|len| len > 0) {}
}

/// There is nobody to return an error to; the supervisor's log has it.
fn complain(error: Option<Error>) {
    if let Some(error) = error {
        drop(writeln!(std::io::stderr(), "cni resolver: {error}"));
    }
}

impl Resolver<'_> {
    fn read_names(&mut self) {
        let records = match self.site.cache.all() {
            Ok(cached) => cached.records,
            Err(error) => return complain(Some(error)),
        };
        let names = Names::of(&records);
        let gateways = names.gateways();
        self.desk.names = Arc::new(names);
        self.doors.retain(|door| gateways.contains(&door.gateway));
        for gateway in gateways {
            if self.doors.iter().any(|door| door.gateway == gateway) {
                continue;
            }
            match Door::open(gateway) {
                Ok(door) => self.doors.push(door),
                // The gateway of some networks is another machine.
                Err(cause) if cause.kind() == std::io::ErrorKind::AddrNotAvailable => {}
                Err(cause) => complain(Some(Error::failed(format!("port {PORT} of {gateway}"), cause))),
            }
        }
    }
}

impl Door {
    fn open(gateway: IpAddr) -> std::io::Result<Door> {
        let udp = UdpSocket::bind((gateway, PORT))?;
        let tcp = TcpListener::bind((gateway, PORT))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Door { gateway, udp: Arc::new(udp), tcp })
    }
}

fn serve_packet(desk: &Desk, door: &Door) {
    let mut buffer = [0; PACKET_LEN_MAX];
    let Ok((len, caller)) = door.udp.recv_from(&mut buffer) else { return };
    let Some(query) = Query::parse(&buffer[..len]) else { return };
    let from = caller.ip();
    if !desk.names.is_known(door.gateway, from) {
        return;
    }
    if let Some(records) = desk.names.find(&query, door.gateway, from) {
        let _ = door.udp.send_to(&query.answer(Code::Fine, &records), caller);
        return;
    }
    let (udp, servers) = (Arc::clone(&door.udp), servers(desk, door.gateway, from));
    let packet = buffer[..len].to_vec();
    let ask = move || {
        let answer = servers
            .iter()
            .cycle()
            .take(servers.len() * ROUNDS)
            .find_map(|server| ask_by_packet(*server, &query, &packet));
        let answer = answer.unwrap_or_else(|| query.answer(Code::Failure, &[]));
        let _ = udp.send_to(&answer, caller);
    };
    in_thread(desk, ask);
}

fn serve_stream(desk: &Desk, door: &Door) {
    let Ok((stream, caller)) = door.tcp.accept() else { return };
    if !desk.names.is_known(door.gateway, caller.ip()) {
        return;
    }
    let (own, gateway) = (desk.clone(), door.gateway);
    in_thread(desk, move || {
        // A caller that leaves has its reasons.
        let _ = answer_stream(&own, gateway, caller, stream);
    });
}

fn answer_stream(
    desk: &Desk,
    gateway: IpAddr,
    caller: SocketAddr,
    mut stream: TcpStream,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CALLER_WAIT))?;
    stream.set_write_timeout(Some(CALLER_WAIT))?;
    loop {
        let packet = read_framed(&mut stream)?;
        let Some(query) = Query::parse(&packet) else { return Ok(()) };
        let answer = match desk.names.find(&query, gateway, caller.ip()) {
            Some(records) => query.answer(Code::Fine, &records),
            None => servers(desk, gateway, caller.ip())
                .iter()
                .find_map(|server| ask_by_stream(*server, &query, &packet).ok())
                .unwrap_or_else(|| query.answer(Code::Failure, &[])),
        };
        write_framed(&mut stream, &answer)?;
    }
}

/// A message on a stream has its length in front.
fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut packet)?;
    Ok(packet)
}

fn write_framed(stream: &mut TcpStream, packet: &[u8]) -> std::io::Result<()> {
    let mut framed = u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    stream.write_all(&framed)
}

/// From a port of its own for each question, so that an answer can't be guessed.
fn ask_by_packet(server: IpAddr, query: &Query, packet: &[u8]) -> Option<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((server, PORT)).ok()?;
    socket.set_read_timeout(Some(UPSTREAM_WAIT)).ok()?;
    socket.send(packet).ok()?;
    let mut buffer = [0; PACKET_LEN_MAX];
    loop {
        let len = socket.recv(&mut buffer).ok()?;
        if query.is_answered_by(&buffer[..len]) {
            return Some(buffer[..len].to_vec());
        }
    }
}

fn ask_by_stream(server: IpAddr, query: &Query, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, PORT), UPSTREAM_WAIT)?;
    stream.set_read_timeout(Some(UPSTREAM_WAIT))?;
    stream.set_write_timeout(Some(UPSTREAM_WAIT))?;
    write_framed(&mut stream, packet)?;
    let answer = read_framed(&mut stream)?;
    if query.is_answered_by(&answer) { Ok(answer) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// Whom to ask: the network's own name servers, else the host's as they are now, but never this resolver itself.
fn servers(desk: &Desk, gateway: IpAddr, from: IpAddr) -> Vec<IpAddr> {
    let mut servers = desk.names.upstream(gateway, from);
    if servers.is_empty() {
        servers = hosts_servers(&std::fs::read_to_string(HOSTS_RESOLV_CONF).unwrap_or_default());
    }
    let own = desk.names.gateways();
    servers.retain(|server| !own.contains(server));
    servers
}

fn hosts_servers(text: &str) -> Vec<IpAddr> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .filter_map(
            |words| if words.first() == Some(&"nameserver") { words.get(1)?.parse().ok() } else { None },
        )
        .collect()
}

fn in_thread(desk: &Desk, work: impl FnOnce() + Send + 'static) {
    let waiting = Arc::clone(&desk.waiting);
    if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
        waiting.fetch_sub(1, Ordering::Relaxed);
        return; // who has asked will ask again
    }
    let counted = Arc::clone(&waiting);
    let spawned = std::thread::Builder::new().stack_size(STACK_LEN).spawn(move || {
        work();
        counted.fetch_sub(1, Ordering::Relaxed);
    });
    if spawned.is_err() {
        waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_name_servers_are_read() {
        let text = "search lan\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver  2001:db8::1 \n#nameserver 9.9.9.9\n";
        let expected: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(hosts_servers(text), expected);
    }
}
