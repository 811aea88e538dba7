//! bridge: a veth pair between the container and a bridge of the host.
//!
//! In: the plan. Out: interfaces bridge, host veth, container, in that order (contract rule 25).
//! Must never: leave a veth, an address or a rule behind a failed ADD.

mod vlans;

use std::net::IpAddr;

use rustix::io::Errno;
use serde_json::Value;
use vlans::Vlans;

use super::gateway;
use super::interface;
use super::interface::ContainerSide;
use super::interface::Driver;
use super::interface::Ends;
use super::interface::differs;
use super::interface::existing;
use super::masquerade;
use super::spoof;
use super::veth;
use super::veth::Veth;
use crate::error;
use crate::error::Error;
use crate::ipam;
use crate::plan::NetPlan;
use crate::reply::Reply;
use crate::reply::Route;
use crate::rules;
use netlink::link::IFLA_BR_VLAN_FILTERING;
use netlink::link::Kind;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::link::NewLink;
use netlink::link::PROMISC;
use netlink::link::PortFlag;
use netlink::link::UP;
use netlink::route::Network;
use netlink::route::RouteSocket;

const DEFAULT_BRIDGE: &str = "cni0";

/// The plugin's own fields, every default filled in.
#[derive(Debug)]
struct Bridge {
    name: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    mtu: Option<u32>,
    hairpin: bool,
    promisc: bool,
    isolated: bool,
    leaves_container: bool,
    detects_duplicates: bool,
    checks_spoofing: bool,
    vlans: Vlans,
    mac: Option<[u8; 6]>,
}

impl Bridge {
    fn new(plan: &NetPlan) -> Result<Bridge, Error> {
        let fields = plan.fields()?;
        let name = fields.text("bridge")?.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_BRIDGE);
        if !crate::plan::is_interface_name(name) {
            let message = format!("field bridge: {name:?} is no interface name");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let (hairpin, promisc) = (fields.flag("hairpinMode")?, fields.flag("promiscMode")?);
        if hairpin && promisc {
            let message =
                "fields hairpinMode and promiscMode exclude each other: frames would come twice; drop one";
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let leaves_container = fields.flag("disableContainerInterface")?;
        if leaves_container && ipam::kind(plan)?.is_some() {
            let message = "fields disableContainerInterface and ipam exclude each other: an interface that is left down has no use for addresses; drop one";
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let is_default_gateway = fields.flag("isDefaultGateway")?;
        Ok(Bridge {
            name: name.to_string(),
            is_gateway: fields.flag("isGateway")? || is_default_gateway,
            is_default_gateway,
            force_address: fields.flag("forceAddress")?,
            ip_masq: fields.flag("ipMasq")?,
            mtu: fields.number("mtu")?.filter(|mtu| *mtu != 0),
            hairpin,
            promisc,
            isolated: fields.flag("portIsolation")?,
            leaves_container,
            detects_duplicates: fields.flag("enabledad")?,
            checks_spoofing: fields.flag("macspoofchk")?,
            vlans: Vlans::read(&fields)?,
            mac: plan.wanted_mac()?,
        })
    }
}

/// Runs a verb.
///
/// # Errors
/// As `interface::run`.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    interface::run(plan, read)
}

/// Reads the plugin's own fields.
///
/// # Errors
/// Codes 6 and 7.
pub fn read(plan: &NetPlan) -> Result<Box<dyn Driver>, Error> {
    Ok(Box::new(Bridge::new(plan)?))
}

impl Driver for Bridge {
    fn kind(&self) -> Option<&'static str> {
        Some("veth")
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        interface::refuse_existing(plan, ends)?;
        let bridge = ensure_bridge(&mut ends.outer, self)?;
        let wanted = Veth { mtu: self.mtu, mac: self.mac, master: bridge.index };
        let port = veth::make(plan, ends, &wanted)?;
        if let Err(error) = self.set_up_port(plan, ends, &port) {
            // The first error is the one to tell.
            let _ = ends.outer.delete_link(port.index);
            let _ = rules::remove(&spoof::TABLE, &plan.attachment);
            return Err(error);
        }
        Ok(vec![self.name.clone(), port.name])
    }

    fn detects_duplicates(&self) -> bool {
        self.detects_duplicates
    }

    fn container_side(&self) -> ContainerSide {
        if self.leaves_container { ContainerSide::Down } else { ContainerSide::Up }
    }

    fn complete(&self, reply: &mut Reply) -> Result<(), Error> {
        complete(self, reply);
        Ok(())
    }

    fn finish(&self, plan: &NetPlan, ends: &mut Ends, reply: &mut Reply) -> Result<(), Error> {
        if self.is_gateway {
            self.be_gateway(&mut ends.outer, reply)?;
        }
        if self.ip_masq {
            masquerade::add(&plan.attachment, &reply.ips)?;
        }
        Ok(())
    }

    fn check(&self, plan: &NetPlan, ends: &mut Ends, link: &Link, reply: &Reply) -> Result<(), Error> {
        masquerade::check(self.ip_masq, &plan.attachment, reply)?;
        if self.checks_spoofing && rules::count(&spoof::TABLE, &plan.attachment)? == 0 {
            return Err(differs(format!("the rule is gone from table {}", spoof::TABLE.name)));
        }
        let failed = |errno: Errno| Error::failed(&self.name, errno);
        let bridge = ends.outer.link(&self.name).map_err(failed)?;
        let bridge = bridge
            .filter(|link| link.kind == "bridge")
            .ok_or_else(|| differs(format!("bridge {} is gone", self.name)))?;
        let port = veth::check_host_side(ends, link, reply)?;
        if port.master != bridge.index {
            return Err(differs(format!("{} is no port of bridge {} any more", port.name, self.name)));
        }
        self.check_bridge(&mut ends.outer, &bridge, reply)?;
        self.check_port(&mut ends.outer, &port)
    }

    fn remove(&self, plan: &NetPlan) -> Result<(), Error> {
        // Whether there were rules at ADD is not known for sure, and looking costs little.
        let removed = veth::remove(plan);
        let unmasqueraded = rules::remove(&masquerade::TABLE, &plan.attachment);
        let unchecked = rules::remove(&spoof::TABLE, &plan.attachment);
        removed.and(unmasqueraded).and(unchecked)
    }

    fn collect_garbage(&self, plan: &NetPlan) -> Result<(), Error> {
        let network = &plan.attachment.network;
        let unmasqueraded = rules::keep_only(&masquerade::TABLE, network, &plan.valid);
        unmasqueraded.and(rules::keep_only(&spoof::TABLE, network, &plan.valid))
    }
}

impl Bridge {
    /// What there is to do at a new port, before the container can use it.
    fn set_up_port(&self, plan: &NetPlan, ends: &mut Ends, port: &Link) -> Result<(), Error> {
        let failed = |errno: Errno| Error::failed(format!("bridge port {}", port.name), errno);
        for (flag, is_wanted) in [(PortFlag::Hairpin, self.hairpin), (PortFlag::Isolated, self.isolated)] {
            if is_wanted {
                ends.outer.set_port_flag(port.index, flag).map_err(failed)?;
            }
        }
        self.vlans.apply(&mut ends.outer, port.index).map_err(failed)?;
        if self.checks_spoofing {
            let mac = existing(&mut ends.inner, &plan.attachment.ifname)?.mac;
            spoof::add(&plan.attachment, &port.name, &mac)?;
        }
        Ok(())
    }

    /// CHECK of what ADD set at the bridge itself.
    fn check_bridge(&self, socket: &mut RouteSocket, bridge: &Link, reply: &Reply) -> Result<(), Error> {
        for (flag, is_wanted, what) in [(UP, true, "up"), (PROMISC, self.promisc, "promiscuous")] {
            if is_wanted && bridge.flags & flag == 0 {
                return Err(differs(format!("bridge {} is not {what} any more", bridge.name)));
            }
        }
        if self.vlans.is_any() && bridge.number(IFLA_BR_VLAN_FILTERING) != Some(1) {
            return Err(differs(format!("bridge {} does not filter VLANs any more", bridge.name)));
        }
        if !self.is_gateway {
            return Ok(());
        }
        let name = self.vlans.access.map_or(bridge.name.clone(), |vlan| vlans::host_name(bridge, vlan));
        let failed = |errno: Errno| Error::failed(&name, errno);
        let link = socket.link(&name).map_err(failed)?;
        let link = link.ok_or_else(|| differs(format!("the gateway's interface {name} is gone")))?;
        let addresses = socket.addresses(link.index).map_err(failed)?;
        for gateway in reply.ips.iter().filter_map(|ip| ip.gateway) {
            if !addresses.iter().any(|address| address.network.address == gateway) {
                return Err(differs(format!("interface {name} has lost the gateway's address {gateway}")));
            }
        }
        Ok(())
    }

    /// CHECK of what `set_up_port` did.
    fn check_port(&self, socket: &mut RouteSocket, port: &Link) -> Result<(), Error> {
        if !(self.hairpin || self.isolated || self.vlans.is_any()) {
            return Ok(()); // the kernel would tell of the ports of all bridges
        }
        let found = socket.port(port.index).map_err(|errno| Error::failed(&port.name, errno))?;
        let found = found.ok_or_else(|| differs(format!("{} is no port any more", port.name)))?;
        let flags = [(self.hairpin, found.hairpin, "hairpin"), (self.isolated, found.isolated, "isolated")];
        if let Some((_, _, what)) = flags.iter().find(|(wanted, found, _)| *wanted && !found) {
            return Err(differs(format!("bridge port {} is not {what} any more", port.name)));
        }
        self.vlans
            .differ(&found.vlans)
            .map_or(Ok(()), |how| Err(differs(format!("bridge port {} {how}", port.name))))
    }

    /// Gives the bridge, or the host's interface in the VLAN, the gateways' addresses, and lets the host forward.
    fn be_gateway(&self, socket: &mut RouteSocket, reply: &mut Reply) -> Result<(), Error> {
        let bridge = existing(socket, &self.name)?;
        let link = match self.vlans.access {
            Some(vlan) => self.vlans.host_interface(socket, &bridge, vlan)?,
            None => bridge,
        };
        for ip in &reply.ips {
            let Some(gateway) = ip.gateway else { continue };
            let wanted = Network { address: gateway, prefix: ip.address.prefix };
            gateway::ensure_address(socket, &link, wanted, self.force_address)?;
            gateway::let_forward(gateway)?;
        }
        if self.vlans.access.is_some() {
            reply.interfaces.push(interface::shown(&link, String::new()));
        }
        Ok(())
    }
}

/// Fills in gateways, the default route and which interface has the addresses.
fn complete(bridge: &Bridge, reply: &mut Reply) {
    for ip in &mut reply.ips {
        if bridge.is_gateway && ip.gateway.is_none() {
            ip.gateway = Some(gateway::first_of(ip.address));
        }
    }
    if !bridge.is_default_gateway {
        return;
    }
    for v4 in [true, false] {
        let any = if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let default = Network { address: any, prefix: 0 };
        let gateway =
            reply.ips.iter().filter(|ip| ip.address.address.is_ipv4() == v4).find_map(|ip| ip.gateway);
        match reply.routes.iter_mut().find(|route| route.dst == default) {
            Some(route) => route.gw = route.gw.or(gateway),
            None if gateway.is_some() => reply.routes.push(Route::plain(default, gateway)),
            None => {}
        }
    }
}

fn ensure_bridge(socket: &mut RouteSocket, bridge: &Bridge) -> Result<Link, Error> {
    let failed = |errno: Errno| Error::failed(format!("bridge {}", bridge.name), errno);
    let mut found = socket.link(&bridge.name).map_err(failed)?;
    if found.is_none() {
        let kind = Kind::Bridge { vlan_filtering: bridge.vlans.is_any() };
        let new = NewLink {
            mac: Some(random_mac()),
            mtu: bridge.mtu,
            up: true,
            ..NewLink::new(kind, &bridge.name)
        };
        match socket.create_link(&new) {
            Ok(()) => {
                // Its routes are ours. A kernel without IPv6 has no such file.
                let path = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", bridge.name);
                let _ = std::fs::write(path, "0");
            }
            Err(Errno::EXIST) => {} // another ADD was faster (contract rule 30)
            Err(errno) => return Err(failed(errno)),
        }
        found = socket.link(&bridge.name).map_err(failed)?;
    }
    let link = found.ok_or_else(|| failed(Errno::NODEV))?;
    if link.kind != "bridge" {
        let message = format!("field bridge: the interface {} exists and is no bridge", bridge.name);
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    if bridge.vlans.is_any() && link.number(IFLA_BR_VLAN_FILTERING) != Some(1) {
        socket.filter_vlans(link.index).map_err(failed)?;
    }
    let flags = if bridge.promisc { UP | PROMISC } else { UP };
    if link.flags & flags != flags {
        socket.change_link(link.index, &LinkChange { flags, ..LinkChange::default() }).map_err(failed)?;
    }
    Ok(link)
}

fn random_mac() -> [u8; 6] {
    let bits = interface::random().to_ne_bytes();
    [bits[0] & 0xfe | 0x02, bits[1], bits[2], bits[3], bits[4], bits[5]] // locally administered, unicast
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use serde_json::json;

    fn bridge(config: &Value) -> Result<Bridge, Error> {
        let mut all = json!({"cniVersion": "1.1.0", "name": "n", "type": "bridge"});
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let plan = NetPlan::new(Request::to_add(&all))?;
        Bridge::new(&plan)
    }

    #[test]
    fn rule_25_what_implies_and_what_excludes() {
        let default_gateway = bridge(&json!({"isDefaultGateway": true})).unwrap();
        assert!(default_gateway.is_gateway && default_gateway.is_default_gateway);
        assert!(!bridge(&json!({"isGateway": true})).unwrap().is_default_gateway);
        assert_eq!(bridge(&json!({"hairpinMode": true, "promiscMode": true})).unwrap_err().code, 7);
        let left_down = json!({"disableContainerInterface": true, "ipam": {"type": "host-local"}});
        assert_eq!(bridge(&left_down).unwrap_err().code, 7);
        assert_eq!(bridge(&json!({})).unwrap().name, "cni0");
    }

    #[test]
    fn a_default_route_is_added_once() {
        let default_gateway = bridge(&json!({"isDefaultGateway": true})).unwrap();
        let default: Network = "0.0.0.0/0".parse().unwrap();
        let ip = crate::reply::IpConfig {
            interface: None,
            address: "10.88.0.2/16".parse().unwrap(),
            gateway: None,
        };
        for routes in [vec![], vec![Route::plain(default, None)]] {
            let mut reply = Reply { ips: vec![ip.clone()], routes, ..Reply::default() };
            complete(&default_gateway, &mut reply);
            assert_eq!(reply.routes, [Route::plain(default, "10.88.0.1".parse().ok())]);
        }
    }
}
