//! Addresses and routes ([rtnetlink(7)](https://man7.org/linux/man-pages/man7/rtnetlink.7.html)); the socket's methods
//! for links are in `link.rs`.
//!
//! In: indexes, addresses. Out: addresses and routes as values. Must never: know of a container.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::link::Link;
use super::message::Message;
use super::message::find;
use super::message::u16_at;
use super::message::u32_at;
use super::socket::Socket;

pub mod policy;
pub mod traffic;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
/// Somebody else has the address.
pub const IFA_F_DADFAILED: u32 = 0x08;
/// It does not run out.
pub const IFA_F_PERMANENT: u32 = 0x80;
/// It is not known yet whether somebody else has the address.
pub const IFA_F_TENTATIVE: u32 = 0x40;
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const ADDRESS_HEADER_LEN: usize = 8;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const ROUTE_HEADER_LEN: usize = 12;
const RT_TABLE_UNSPEC: u8 = 0;
const RT_TABLE_MAIN: u32 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;

/// An address and the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    /// The address, host bits kept.
    pub address: IpAddr,
    /// Bits of prefix.
    pub prefix: u8,
}

impl Network {
    /// Bits of an address of this family.
    pub fn bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The same network without host bits.
    pub fn base(&self) -> Network {
        let host = u32::from(self.bits() - self.prefix.min(self.bits()));
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        };
        Network { address, prefix: self.prefix }
    }

    /// Whether `address` lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Network { address, prefix: self.prefix }.base().address == self.base().address
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("{text:?} is no address with a prefix length, such as 10.88.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        let network = Network { address, prefix };
        if prefix > network.bits() { Err(wrong()) } else { Ok(network) }
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Address and prefix.
    pub network: Network,
    /// The interface.
    pub index: u32,
    /// RT_SCOPE_*: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// IFA_F_*
    pub flags: u32,
}

/// A route to be made, or one that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Network,
    /// By way of.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub index: u32,
    /// Bytes of a packet.
    pub mtu: Option<u32>,
    /// Bytes of a TCP segment.
    pub advmss: Option<u32>,
    /// The metric.
    pub priority: Option<u32>,
    /// The routing table; `None` is main.
    pub table: Option<u32>,
    /// RT_SCOPE_*.
    pub scope: Option<u8>,
    /// The address that packets by this route are sent from.
    pub source: Option<IpAddr>,
}

impl Route {
    /// A route with nothing but where to, by way of what, and by which interface.
    pub fn plain(destination: Network, gateway: Option<IpAddr>, index: u32) -> Route {
        Route {
            destination,
            gateway,
            index,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
            source: None,
        }
    }
}

/// Tells when links or IPv6 addresses of a network namespace change.
#[derive(Debug)]
pub struct AddressNews(Socket);

impl AddressNews {
    /// Listens in the calling thread's namespace.
    ///
    /// # Errors
    /// As `Socket::open`.
    pub fn open() -> Result<AddressNews, Errno> {
        Ok(AddressNews(Socket::open_groups(None, RTMGRP_LINK | RTMGRP_IPV6_IFADDR)?))
    }

    /// Waits for a change; false when there was none until `deadline`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&mut self, deadline: std::time::Instant) -> Result<bool, Errno> {
        self.0.wait(deadline)
    }
}

/// A NETLINK_ROUTE socket in one network namespace.
#[derive(Debug)]
pub struct RouteSocket(pub(super) Socket);

impl RouteSocket {
    /// Opens it in the calling thread's namespace.
    ///
    /// # Errors
    /// As `Socket::open`.
    pub fn open() -> Result<RouteSocket, Errno> {
        Ok(RouteSocket(Socket::open(None)?))
    }

    /// Opens it in another namespace.
    ///
    /// # Errors
    /// As `namespace::inside` and `Socket::open`.
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<RouteSocket, Errno> {
        super::namespace::inside(namespace, RouteSocket::open)
    }

    /// Gives an interface an address; one that it has already is fine. Without duplicate address detection for IPv6
    /// when `skip_dad`.
    ///
    /// # Errors
    /// The kernel's, EEXIST excepted; EACCES when IPv6 is disabled on the interface.
    pub fn add_address(&mut self, index: u32, network: Network, skip_dad: bool) -> Result<(), Errno> {
        let flags = REQUEST | ACK | CREATE | EXCLUSIVE;
        let mut message = Message::new(RTM_NEWADDR, flags, &address_header(index, network));
        put_address(&mut message, IFA_LOCAL, network.address);
        put_address(&mut message, IFA_ADDRESS, network.address);
        if let (IpAddr::V4(_), true) = (network.address, network.prefix < 31) {
            put_address(&mut message, IFA_BROADCAST, last_of(network));
        }
        if skip_dad && network.address.is_ipv6() {
            message.native_u32(IFA_FLAGS, IFA_F_NODAD);
        }
        match self.0.request(message) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Takes an address away; one that is gone already is fine.
    ///
    /// # Errors
    /// The kernel's, EADDRNOTAVAIL excepted.
    pub fn delete_address(&mut self, index: u32, network: Network) -> Result<(), Errno> {
        let mut message = Message::new(RTM_DELADDR, REQUEST | ACK, &address_header(index, network));
        put_address(&mut message, IFA_LOCAL, network.address);
        match self.0.request(message) {
            Ok(_) | Err(Errno::ADDRNOTAVAIL) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The addresses of one interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, Errno> {
        let answers = self.0.dump(|| Message::new(RTM_GETADDR, REQUEST | DUMP, &[0; ADDRESS_HEADER_LEN]))?;
        let addresses = answers.iter().filter_map(|answer| parse_address(&answer.payload));
        Ok(addresses.filter(|address| address.index == index).collect())
    }

    /// Adds a route; one that is there already is fine.
    ///
    /// # Errors
    /// ENETUNREACH when the gateway is on no network of ours; the kernel's, EEXIST excepted.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Errno> {
        let default_scope = if route.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
        let scope = route.scope.unwrap_or(default_scope);
        match self.0.request(route_message(RTM_NEWROUTE, CREATE | EXCLUSIVE, RTPROT_BOOT, scope, route)) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Removes a route, whoever made it; one that is gone already is fine.
    ///
    /// # Errors
    /// The kernel's, ESRCH excepted.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Errno> {
        let scope = route.scope.unwrap_or(RT_SCOPE_NOWHERE); // which matches any
        match self.0.request(route_message(RTM_DELROUTE, 0, 0, scope, route)) {
            Ok(_) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The unicast routes of all tables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> Result<Vec<Route>, Errno> {
        let answers = self.0.dump(|| Message::new(RTM_GETROUTE, REQUEST | DUMP, &[0; ROUTE_HEADER_LEN]))?;
        Ok(answers.iter().filter_map(|answer| parse_route(&answer.payload)).collect())
    }

    /// The interface of the first default route, or `None`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn default_route_interface(&mut self) -> Result<Option<Link>, Errno> {
        let routes = self.routes()?;
        let default = routes.iter().find(|route| route.destination.prefix == 0);
        default.map_or(Ok(None), |route| self.link_by_index(route.index))
    }

    /// The index of the interface by which packets to `destination` leave, or `None` when there is no way.
    ///
    /// # Errors
    /// The kernel's, unreachable excepted.
    pub fn interface_towards(&mut self, destination: IpAddr) -> Result<Option<u32>, Errno> {
        let mut header = [0; ROUTE_HEADER_LEN];
        header[0] = family_of(destination);
        header[1] = if destination.is_ipv4() { 32 } else { 128 };
        let mut message = Message::new(RTM_GETROUTE, REQUEST | ACK, &header);
        put_address(&mut message, RTA_DST, destination);
        match self.0.request(message) {
            Ok(answers) => Ok(answers
                .iter()
                .find_map(|answer| u32_at(find(answer.payload.get(ROUTE_HEADER_LEN..)?, RTA_OIF)?, 0))),
            Err(Errno::NETUNREACH | Errno::HOSTUNREACH) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

fn address_header(index: u32, network: Network) -> [u8; ADDRESS_HEADER_LEN] {
    let mut header = [0; ADDRESS_HEADER_LEN];
    header[0] = family_of(network.address);
    header[1] = network.prefix;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

fn route_message(kind: u16, flags: u16, protocol: u8, scope: u8, route: &Route) -> Message {
    let mut header = [0; ROUTE_HEADER_LEN];
    header[0] = family_of(route.destination.address);
    header[1] = route.destination.prefix;
    header[4] = RT_TABLE_UNSPEC; // RTA_TABLE says which
    header[5] = protocol;
    header[6] = scope;
    header[7] = RTN_UNICAST;
    let mut message = Message::new(kind, REQUEST | ACK | flags, &header);
    put_address(&mut message, RTA_DST, route.destination.base().address);
    message.native_u32(RTA_OIF, route.index);
    message.native_u32(RTA_TABLE, route.table.unwrap_or(RT_TABLE_MAIN));
    for (kind, address) in [(RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)] {
        if let Some(address) = address {
            put_address(&mut message, kind, address);
        }
    }
    if let Some(priority) = route.priority {
        message.native_u32(RTA_PRIORITY, priority);
    }
    if route.mtu.is_some() || route.advmss.is_some() {
        message.nest(RTA_METRICS, |metrics| {
            for (kind, value) in [(RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)] {
                if let Some(value) = value {
                    metrics.native_u32(kind, value);
                }
            }
        });
    }
    message
}

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 } // AF_INET, AF_INET6
}

fn put_address(message: &mut Message, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => message.attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => message.attribute(kind, &v6.octets()),
    }
}

fn last_of(network: Network) -> IpAddr {
    let host = u32::from(network.bits() - network.prefix);
    match network.base().address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | !u32::MAX.checked_shl(host).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | !u128::MAX.checked_shl(host).unwrap_or(0)).into()),
    }
}

/// An address from its 4 or 16 bytes.
pub fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Reads the payload of RTM_NEWADDR (rtnetlink(7)); None: it is cut off, or of another family.
pub fn parse_address(payload: &[u8]) -> Option<Address> {
    let attributes = payload.get(ADDRESS_HEADER_LEN..)?;
    let address = find(attributes, IFA_LOCAL).or_else(|| find(attributes, IFA_ADDRESS))?;
    Some(Address {
        network: Network { address: address_of(address)?, prefix: *payload.get(1)? },
        index: u32_at(payload, 4)?,
        scope: *payload.get(3)?,
        flags: find(attributes, IFA_FLAGS).and_then(|value| u32_at(value, 0)).unwrap_or(0),
    })
}

/// Reads the payload of RTM_NEWROUTE (rtnetlink(7)); None: it is cut off, or of another family.
pub fn parse_route(payload: &[u8]) -> Option<Route> {
    let attributes = payload.get(ROUTE_HEADER_LEN..)?;
    if *payload.get(7)? != RTN_UNICAST {
        return None;
    }
    let any = match u16_at(payload, 0)?.to_ne_bytes()[0] {
        2 => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let number = |kind| find(attributes, kind).and_then(|value| u32_at(value, 0));
    let metrics = find(attributes, RTA_METRICS).unwrap_or_default();
    let metric = |kind| find(metrics, kind).and_then(|value| u32_at(value, 0));
    Some(Route {
        destination: Network {
            address: find(attributes, RTA_DST).and_then(address_of).unwrap_or(any),
            prefix: *payload.get(1)?,
        },
        gateway: find(attributes, RTA_GATEWAY).and_then(address_of),
        index: number(RTA_OIF)?,
        mtu: metric(RTAX_MTU),
        advmss: metric(RTAX_ADVMSS),
        priority: number(RTA_PRIORITY),
        table: number(RTA_TABLE),
        scope: payload.get(6).copied(),
        source: find(attributes, RTA_PREFSRC).and_then(address_of),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_know_their_base_and_their_members() {
        assert_eq!(network("10.88.3.4/16").base(), network("10.88.0.0/16"));
        assert_eq!(network("10.88.3.4/0").base(), network("0.0.0.0/0"));
        assert_eq!(network("fd00::12/64").base(), network("fd00::/64"));
        assert!(network("10.88.0.0/16").contains("10.88.255.1".parse().unwrap()));
        assert!(!network("10.88.0.0/16").contains("10.89.0.1".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert_eq!(last_of(network("10.88.0.0/16")), "10.88.255.255".parse::<IpAddr>().unwrap());
        for wrong in ["10.0.0.0", "10.0.0.0/33", "a/8", "::/129", "10.0.0.0/-1", "/"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
