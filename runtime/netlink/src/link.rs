//! Links: looking one up, making, changing and removing it; a bridge's ports and their VLANs.
//!
//! In: names, indexes, what is wanted. Out: links as values. Must never: list what it can ask for by name.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::message::Message;
use super::message::attributes;
use super::message::find;
use super::message::text_of;
use super::message::u16_at;
use super::message::u32_at;
use super::route::ACK;
use super::route::CREATE;
use super::route::DUMP;
use super::route::EXCLUSIVE;
use super::route::REQUEST;
use super::route::RouteSocket;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_BRVLAN_COMPRESSED: u32 = 1 << 2;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// Whether a bridge's ports' VLANs count, among a bridge's own attributes.
pub const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;
const BRIDGE_VLAN_INFO_RANGE_BEGIN: u16 = 1 << 3;
const BRIDGE_VLAN_INFO_RANGE_END: u16 = 1 << 4;
const AF_BRIDGE: u8 = 7;
const HEADER_LEN: usize = 16;

/// IFF_UP
pub const UP: u32 = 0x1;
/// IFF_PROMISC
pub const PROMISC: u32 = 0x100;
/// IFF_LOWER_UP: it is up and has a carrier.
pub const LOWER_UP: u32 = 0x1_0000;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address.
    pub mac: Vec<u8>,
    /// In bytes.
    pub mtu: u32,
    /// `IFF_*`.
    pub flags: u32,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub kind: String,
    /// The index of the bridge it is a port of, or 0.
    pub master: u32,
    /// The index of what it is made on (the peer, for a veth; perhaps in another namespace), or 0.
    pub parent: u32,
    /// A text that goes with it from namespace to namespace.
    pub alias: String,
    /// Packets that may wait to be sent.
    pub tx_queue_len: u32,
    /// The kind's own attributes (IFLA_INFO_DATA).
    pub data: Vec<u8>,
}

impl Link {
    /// A number of the kind's own, such as the mode of a macvlan; of whatever width the kernel gives it.
    pub fn number(&self, attribute: u16) -> Option<u32> {
        let mut bytes = [0; 4];
        let value = find(&self.data, attribute)?;
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(u32::from_le_bytes(bytes)) // x86-64 alone is supported
    }
}

/// What a new interface is.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// A bridge; with its address given, that does not follow its ports' (br_stp_if.c).
    Bridge {
        /// Whether its ports' VLANs count.
        vlan_filtering: bool,
    },
    /// One side of a veth pair, with the other one. This side may be made up; the other can't be (ENOTCONN), since it is
    /// registered before it has a peer.
    Veth(&'a NewLink<'a>),
    /// Another link-layer address on the parent: MACVLAN_MODE_*, and the length of its broadcast queue.
    Macvlan(u32, Option<u32>),
    /// Another IP address on the parent: IPVLAN_MODE_*.
    Ipvlan(u16),
    /// A VLAN of the parent.
    Vlan(u16),
    /// Nothing behind it.
    Dummy,
    /// What comes in is sent on, so that it can be shaped.
    Ifb,
    /// A routing table's device.
    Vrf(u32),
}

/// MACVLAN_MODE_*, IPVLAN_MODE_* and a VLAN's id are the first attribute of their kinds.
pub const MODE: u16 = 1;

impl Kind<'_> {
    /// The name that the kernel has for it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Bridge { .. } => "bridge",
            Kind::Veth(_) => "veth",
            Kind::Macvlan(..) => "macvlan",
            Kind::Ipvlan(_) => "ipvlan",
            Kind::Vlan(_) => "vlan",
            Kind::Dummy => "dummy",
            Kind::Ifb => "ifb",
            Kind::Vrf(_) => "vrf",
        }
    }

    fn write(&self, data: &mut Message) {
        match self {
            Kind::Bridge { vlan_filtering } => {
                // A kernel without VLAN filtering refuses the attribute, even to switch it off.
                if *vlan_filtering {
                    data.attribute(IFLA_BR_VLAN_FILTERING, &[1]);
                }
            }
            Kind::Veth(peer) => data.nest(VETH_INFO_PEER, |nested| {
                nested.raw(&header(0, 0, 0));
                peer.write(nested);
            }),
            Kind::Macvlan(mode, queue_len) => {
                data.native_u32(MODE, *mode);
                if let Some(queue_len) = queue_len {
                    data.native_u32(7, *queue_len); // IFLA_MACVLAN_BC_QUEUE_LEN
                }
            }
            Kind::Ipvlan(number) | Kind::Vlan(number) => data.attribute(MODE, &number.to_ne_bytes()),
            Kind::Vrf(table) => data.native_u32(MODE, *table),
            Kind::Dummy | Kind::Ifb => {}
        }
    }
}

/// An interface to be made. 0 and `None` leave the kernel's choice.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// What it is.
    pub kind: Kind<'a>,
    /// Its name in its namespace.
    pub name: &'a str,
    /// Its link-layer address.
    pub mac: Option<[u8; 6]>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// The index of the interface that it is made on.
    pub parent: u32,
    /// The index of the bridge or VRF that it becomes a port of.
    pub master: u32,
    /// Whether it is up at once.
    pub up: bool,
    /// Where it appears, other than the socket's namespace.
    pub namespace: Option<BorrowedFd<'a>>,
}

impl<'a> NewLink<'a> {
    /// One with nothing but kind and name.
    pub fn new(kind: Kind<'a>, name: &'a str) -> NewLink<'a> {
        NewLink { kind, name, mac: None, mtu: None, parent: 0, master: 0, up: false, namespace: None }
    }

    fn write(&self, message: &mut Message) {
        let change = LinkChange {
            name: Some(self.name),
            mac: self.mac,
            mtu: self.mtu,
            master: Some(self.master).filter(|master| *master != 0),
            namespace: self.namespace,
            ..LinkChange::default()
        };
        change.write(message);
        if self.parent != 0 {
            message.native_u32(IFLA_LINK, self.parent);
        }
    }
}

/// What to change of a link; `None` leaves it.
#[derive(Debug, Default, Clone, Copy)]
pub struct LinkChange<'a> {
    /// `IFF_*` bits to set.
    pub flags: u32,
    /// `IFF_*` bits to clear.
    pub clear: u32,
    /// Its name, in the namespace where it ends up.
    pub name: Option<&'a str>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// The link-layer address.
    pub mac: Option<[u8; 6]>,
    /// The bridge or VRF that it is a port of; 0 for none.
    pub master: Option<u32>,
    /// The text that goes with it.
    pub alias: Option<&'a str>,
    /// Packets that may wait to be sent.
    pub tx_queue_len: Option<u32>,
    /// Where it goes. The kernel takes it down for that, and renames it there.
    pub namespace: Option<BorrowedFd<'a>>,
}

impl LinkChange<'_> {
    fn write(&self, message: &mut Message) {
        for (kind, text) in [(IFLA_IFNAME, self.name), (IFLA_IFALIAS, self.alias)] {
            if let Some(text) = text {
                message.text(kind, text);
            }
        }
        for (kind, number) in
            [(IFLA_MTU, self.mtu), (IFLA_MASTER, self.master), (IFLA_TXQLEN, self.tx_queue_len)]
        {
            if let Some(number) = number {
                message.native_u32(kind, number);
            }
        }
        if let Some(mac) = self.mac {
            message.attribute(IFLA_ADDRESS, &mac);
        }
        if let Some(namespace) = self.namespace {
            message.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        }
    }
}

/// What may be set of a bridge's port.
#[derive(Debug, Clone, Copy)]
pub enum PortFlag {
    /// A frame may go back through the port that it came from.
    Hairpin = IFLA_BRPORT_MODE as isize,
    /// No frame goes to another port that is isolated.
    Isolated = IFLA_BRPORT_ISOLATED as isize,
}

/// VLANs of a bridge's port, the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VlanRange {
    /// The first.
    pub first: u16,
    /// The last, perhaps the same.
    pub last: u16,
    /// Frames without a tag belong to it, and its frames leave without one.
    pub untagged: bool,
}

impl VlanRange {
    /// Frames with this tag alone.
    pub fn tagged(first: u16, last: u16) -> VlanRange {
        VlanRange { first, last, untagged: false }
    }
}

/// How a bridge's port is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// Whether a frame may go back through it.
    pub hairpin: bool,
    /// Whether no frame goes to other isolated ports.
    pub isolated: bool,
    /// Its VLANs.
    pub vlans: Vec<VlanRange>,
}

impl RouteSocket {
    /// The link called `name`, or `None`.
    ///
    /// # Errors
    /// The kernel's, ENODEV excepted.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Errno> {
        let mut message = Message::new(RTM_GETLINK, REQUEST, &header(0, 0, 0));
        message.text(IFLA_IFNAME, name);
        self.one_link(message)
    }

    /// The link with that index, or `None`.
    ///
    /// # Errors
    /// The kernel's, ENODEV excepted.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Errno> {
        self.one_link(Message::new(RTM_GETLINK, REQUEST, &header(index, 0, 0)))
    }

    fn one_link(&mut self, mut message: Message) -> Result<Option<Link>, Errno> {
        // Counting on every processor what has passed is most of the kernel's work for an answer.
        message.native_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        match self.0.query(message) {
            Ok(answer) => Ok(answer.and_then(|answer| parse(&answer.payload))),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// All links, for who knows neither name nor index.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&mut self) -> Result<Vec<Link>, Errno> {
        let answers = self.0.dump(|| Message::new(RTM_GETLINK, REQUEST | DUMP, &header(0, 0, 0)))?;
        Ok(answers.iter().filter_map(|answer| parse(&answer.payload)).collect())
    }

    /// Makes a link.
    ///
    /// # Errors
    /// EEXIST when the name is taken (in this socket's namespace too, even if the link appears in another; on either side
    /// for a veth), or the parent has such a VLAN; the kernel's.
    pub fn create_link(&mut self, new: &NewLink<'_>) -> Result<(), Errno> {
        let flags = if new.up { UP } else { 0 };
        let mut message =
            Message::new(RTM_NEWLINK, REQUEST | ACK | CREATE | EXCLUSIVE, &header(0, flags, flags));
        new.write(&mut message);
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, new.kind.name());
            info.nest(IFLA_INFO_DATA, |data| new.kind.write(data));
        });
        self.0.request(message).map(drop)
    }

    /// Changes a link.
    ///
    /// # Errors
    /// ENODEV; EEXIST when the new name is taken; the kernel's.
    pub fn change_link(&mut self, index: u32, change: &LinkChange<'_>) -> Result<(), Errno> {
        let header = header(index, change.flags, change.flags | change.clear);
        let mut message = Message::new(RTM_SETLINK, REQUEST | ACK, &header);
        change.write(&mut message);
        self.0.request(message).map(drop)
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// As `change_link`.
    pub fn set_up(&mut self, index: u32) -> Result<(), Errno> {
        self.change_link(index, &LinkChange { flags: UP, ..LinkChange::default() })
    }

    /// Removes a link; one that is gone already is fine.
    ///
    /// # Errors
    /// The kernel's, ENODEV excepted.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Errno> {
        match self.0.request(Message::new(RTM_DELLINK, REQUEST | ACK, &header(index, 0, 0))) {
            Ok(_) | Err(Errno::NODEV) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Sets a flag of a bridge's port.
    ///
    /// # Errors
    /// EINVAL when the link is no bridge's port.
    pub fn set_port_flag(&mut self, port: u32, flag: PortFlag) -> Result<(), Errno> {
        let mut message = Message::new(RTM_SETLINK, REQUEST | ACK, &bridge_header(port));
        message.nest(IFLA_PROTINFO, |info| info.attribute(flag as u16, &[1]));
        self.0.request(message).map(drop)
    }

    /// How a bridge's port is set; `None` when the link is none. The kernel tells of all ports or of none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn port(&mut self, index: u32) -> Result<Option<Port>, Errno> {
        let answers = self.0.dump(|| {
            let mut message = Message::new(RTM_GETLINK, REQUEST | DUMP, &bridge_header(0));
            message.native_u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN_COMPRESSED);
            message
        })?;
        let here = answers.iter().filter(|answer| u32_at(&answer.payload, 4) == Some(index));
        Ok(here.filter_map(|answer| parse_port(&answer.payload)).next())
    }

    /// Lets the VLANs of a bridge's ports count.
    ///
    /// # Errors
    /// The kernel's.
    pub fn filter_vlans(&mut self, bridge: u32) -> Result<(), Errno> {
        let mut message = Message::new(RTM_NEWLINK, REQUEST | ACK, &header(bridge, 0, 0));
        let kind = Kind::Bridge { vlan_filtering: true };
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, kind.name());
            info.nest(IFLA_INFO_DATA, |data| kind.write(data));
        });
        self.0.request(message).map(drop)
    }

    /// Adds a bridge's port to VLANs.
    ///
    /// # Errors
    /// EINVAL when the link is no bridge's port.
    pub fn add_port_vlans(&mut self, port: u32, vlans: &[VlanRange]) -> Result<(), Errno> {
        self.change_port_vlans(RTM_SETLINK, port, vlans)
    }

    /// Takes a bridge's port out of VLANs; one that it is not in is fine.
    ///
    /// # Errors
    /// EINVAL when the link is no bridge's port.
    pub fn delete_port_vlans(&mut self, port: u32, vlans: &[VlanRange]) -> Result<(), Errno> {
        self.change_port_vlans(RTM_DELLINK, port, vlans)
    }

    fn change_port_vlans(&mut self, kind: u16, port: u32, vlans: &[VlanRange]) -> Result<(), Errno> {
        let mut message = Message::new(kind, REQUEST | ACK, &bridge_header(port));
        message.nest(IFLA_AF_SPEC, |spec| {
            for range in vlans {
                let pvid = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED;
                let flags = if range.untagged { pvid } else { 0 };
                let ends = if range.first == range.last {
                    vec![(range.first, 0)]
                } else {
                    vec![
                        (range.first, BRIDGE_VLAN_INFO_RANGE_BEGIN),
                        (range.last, BRIDGE_VLAN_INFO_RANGE_END),
                    ]
                };
                for (vlan, end) in ends {
                    let [low, high] = vlan.to_ne_bytes();
                    let [flags_low, flags_high] = (flags | end).to_ne_bytes();
                    spec.attribute(IFLA_BRIDGE_VLAN_INFO, &[flags_low, flags_high, low, high]);
                }
            }
        });
        self.0.request(message).map(drop)
    }
}

fn header(index: u32, flags: u32, change: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn bridge_header(index: u32) -> [u8; HEADER_LEN] {
    let mut header = header(index, 0, 0);
    header[0] = AF_BRIDGE;
    header
}

/// Reads the payload of RTM_NEWLINK (rtnetlink(7)); None: it is cut off.
pub fn parse(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(HEADER_LEN..)?;
    let info = find(attributes, IFLA_LINKINFO).unwrap_or_default();
    let number = |kind| find(attributes, kind).and_then(|value| u32_at(value, 0)).unwrap_or(0);
    let text = |list, kind| find(list, kind).map(text_of).unwrap_or_default();
    Some(Link {
        index: u32_at(payload, 4)?,
        flags: u32_at(payload, 8)?,
        name: text_of(find(attributes, IFLA_IFNAME)?),
        mac: find(attributes, IFLA_ADDRESS).unwrap_or_default().to_vec(),
        mtu: number(IFLA_MTU),
        kind: text(info, IFLA_INFO_KIND),
        master: number(IFLA_MASTER),
        parent: number(IFLA_LINK),
        alias: text(attributes, IFLA_IFALIAS),
        tx_queue_len: number(IFLA_TXQLEN),
        data: find(info, IFLA_INFO_DATA).unwrap_or_default().to_vec(),
    })
}

/// Reads the payload of AF_BRIDGE's RTM_NEWLINK; None: it is cut off, or no port's.
pub fn parse_port(payload: &[u8]) -> Option<Port> {
    let attributes_of_link = payload.get(HEADER_LEN..)?;
    let info = find(attributes_of_link, IFLA_PROTINFO)?;
    let flag = |kind| find(info, kind).is_some_and(|value| value == [1]);
    let mut port =
        Port { hairpin: flag(IFLA_BRPORT_MODE), isolated: flag(IFLA_BRPORT_ISOLATED), vlans: vec![] };
    let pvid = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED;
    let mut begun = None;
    for (kind, value) in attributes(find(attributes_of_link, IFLA_AF_SPEC).unwrap_or_default()) {
        let (IFLA_BRIDGE_VLAN_INFO, Some(flags), Some(vlan)) = (kind, u16_at(value, 0), u16_at(value, 2))
        else {
            continue;
        };
        if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN != 0 {
            begun = Some(vlan);
            continue;
        }
        let first = begun.take().filter(|_| flags & BRIDGE_VLAN_INFO_RANGE_END != 0).unwrap_or(vlan);
        port.vlans.push(VlanRange { first, last: vlan, untagged: flags & pvid == pvid });
    }
    Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_of_this_machine_is_found_by_name() {
        let mut socket = RouteSocket::open().unwrap();
        let lo = socket.link("lo").unwrap().unwrap();
        assert_eq!((lo.index, lo.name.as_str()), (1, "lo"));
        assert_eq!(socket.link("no-such-link").unwrap(), None);
        assert!(socket.links().unwrap().contains(&socket.link_by_index(1).unwrap().unwrap()));
    }

    #[test]
    fn a_port_is_read_with_its_vlans_ranges_too() {
        let mut message = Message::new(RTM_NEWLINK, 0, &bridge_header(7));
        message.nest(IFLA_PROTINFO, |info| {
            info.attribute(IFLA_BRPORT_MODE, &[0]);
            info.attribute(IFLA_BRPORT_ISOLATED, &[1]);
        });
        message.nest(IFLA_AF_SPEC, |spec| {
            for (flags, vlan) in [(6_u16, 5_u16), (4, 1), (8, 99), (16, 101)] {
                let bytes = [flags.to_ne_bytes(), vlan.to_ne_bytes()].concat();
                spec.attribute(IFLA_BRIDGE_VLAN_INFO, &bytes);
            }
        });
        let access = VlanRange { untagged: true, ..VlanRange::tagged(5, 5) };
        let vlans = vec![access, VlanRange::tagged(1, 1), VlanRange::tagged(99, 101)];
        let port = Port { hairpin: false, isolated: true, vlans };
        assert_eq!(parse_port(&message.finish(0)[16..]), Some(port));
        let plain = Message::new(RTM_NEWLINK, 0, &bridge_header(7)).finish(0);
        assert_eq!(parse_port(&plain[16..]), None);
    }

    #[test]
    fn a_kinds_numbers_are_read_whatever_their_width() {
        let mut message = Message::new(0, 0, &[]);
        message.attribute(1, &7_u16.to_ne_bytes());
        message.native_u32(2, 70_000);
        message.attribute(3, &[1]);
        message.attribute(4, &[0; 8]);
        let lo = RouteSocket::open().unwrap().link("lo").unwrap().unwrap();
        let link = Link { data: message.finish(0)[16..].to_vec(), ..lo };
        assert_eq!(
            [1, 2, 3, 4, 5].map(|kind| link.number(kind)),
            [Some(7), Some(70_000), Some(1), None, None]
        );
    }
}
