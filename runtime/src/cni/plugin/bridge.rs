//! bridge: a veth pair between the container and a bridge of the host.
//!
//! In: the plan. Out: interfaces bridge, host veth, container, in that order (contract rule 25).
//! Must never: leave a veth, an address or a rule behind a failed ADD.

use std::net::IpAddr;

use rustix::io::Errno;
use serde_json::Value;

use super::gateway;
use super::interface;
use super::interface::ContainerSide;
use super::interface::Driver;
use super::interface::Ends;
use super::interface::differs;
use super::masquerade;
use super::veth;
use super::veth::Veth;
use crate::cni::error;
use crate::cni::error::Error;
use crate::cni::ipam;
use crate::cni::plan::NetPlan;
use crate::cni::reply::Reply;
use crate::cni::reply::Route;
use crate::cni::rules;
use crate::netlink::link::Kind;
use crate::netlink::link::Link;
use crate::netlink::link::LinkChange;
use crate::netlink::link::NewLink;
use crate::netlink::link::PROMISC;
use crate::netlink::link::PortFlag;
use crate::netlink::link::UP;
use crate::netlink::route::Network;
use crate::netlink::route::RouteSocket;

const DEFAULT_BRIDGE: &str = "cni0";
const SCOPE_LINK: u8 = 253;

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
    leaves_container: bool,
    mac: Option<[u8; 6]>,
}

impl Bridge {
    fn new(plan: &NetPlan) -> Result<Bridge, Error> {
        let fields = plan.fields()?;
        let name = fields.text("bridge")?.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_BRIDGE);
        if !crate::cni::plan::is_interface_name(name) {
            let message = format!("field bridge: {name:?} is no interface name");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let (hairpin, promisc) = (fields.flag("hairpinMode")?, fields.flag("promiscMode")?);
        if hairpin && promisc {
            let message =
                "fields hairpinMode and promiscMode exclude each other: frames would come twice; drop one";
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        for (key, off) in [
            ("vlan", Value::from(0)),
            ("vlanTrunk", Value::Array(vec![])),
            ("macspoofchk", Value::from(false)),
            ("enabledad", Value::from(false)),
            ("portIsolation", Value::from(false)),
        ] {
            if fields.get(key).is_some_and(|value| *value != off) {
                let message = format!("field {key} is not supported by this bridge plugin; drop it");
                return Err(Error::new(error::INVALID_CONFIG, message));
            }
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
            leaves_container,
            mac: plan.wanted_mac()?,
        })
    }
}

/// Runs a verb.
///
/// # Errors
/// As `interface::run`.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    interface::run(plan, |plan| Ok(Box::new(Bridge::new(plan)?)))
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
        if self.hairpin
            && let Err(errno) = ends.outer.set_port_flag(port.index, PortFlag::Hairpin)
        {
            let _ = ends.outer.delete_link(port.index); // the first error is the one to tell
            return Err(Error::failed(format!("hairpin mode on {}", port.name), errno));
        }
        Ok(vec![self.name.clone(), port.name])
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
            be_gateway(self, &mut ends.outer, reply)?;
        }
        if self.ip_masq {
            masquerade::add(&plan.attachment, &reply.ips)?;
        }
        Ok(())
    }

    fn check(&self, plan: &NetPlan, ends: &mut Ends, link: &Link, reply: &Reply) -> Result<(), Error> {
        masquerade::check(self.ip_masq, &plan.attachment, reply)?;
        let failed = |errno: Errno| Error::failed(&self.name, errno);
        let bridge = ends.outer.link(&self.name).map_err(failed)?;
        let bridge = bridge
            .filter(|link| link.kind == "bridge")
            .ok_or_else(|| differs(format!("bridge {} is gone", self.name)))?;
        let port = veth::check_host_side(ends, link, reply)?;
        if port.master != bridge.index {
            return Err(differs(format!("{} is no port of bridge {} any more", port.name, self.name)));
        }
        Ok(())
    }

    fn remove(&self, plan: &NetPlan) -> Result<(), Error> {
        // Whether ipMasq was set at ADD is not known for sure, and looking costs little.
        let removed = veth::remove(plan);
        removed.and(rules::remove(&masquerade::TABLE, &plan.attachment))
    }

    fn collect_garbage(&self, plan: &NetPlan) -> Result<(), Error> {
        rules::keep_only(&masquerade::TABLE, &plan.attachment.network, &plan.valid)
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
    if socket.link(&bridge.name).map_err(failed)?.is_none() {
        let kind = Kind::Bridge { vlan_filtering: false };
        let new = NewLink {
            mac: Some(random_mac()),
            mtu: bridge.mtu,
            up: true,
            ..NewLink::new(kind, &bridge.name)
        };
        match socket.create_link(&new) {
            Ok(()) | Err(Errno::EXIST) => {} // another ADD was faster (contract rule 30)
            Err(errno) => return Err(failed(errno)),
        }
    }
    let link = socket.link(&bridge.name).map_err(failed)?.ok_or_else(|| failed(Errno::NODEV))?;
    if link.kind != "bridge" {
        let message = format!("field bridge: the interface {} exists and is no bridge", bridge.name);
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    let flags = if bridge.promisc { UP | PROMISC } else { UP };
    if link.flags & flags != flags {
        socket.change_link(link.index, &LinkChange { flags, ..LinkChange::default() }).map_err(failed)?;
    }
    Ok(link)
}

/// Gives the bridge the gateways' addresses, and lets the host forward.
fn be_gateway(bridge: &Bridge, socket: &mut RouteSocket, reply: &Reply) -> Result<(), Error> {
    let failed = |errno: Errno| Error::failed(format!("bridge {}", bridge.name), errno);
    let link = socket.link(&bridge.name).map_err(failed)?.ok_or_else(|| failed(Errno::NODEV))?;
    for ip in &reply.ips {
        let Some(gateway) = ip.gateway else { continue };
        let wanted = Network { address: gateway, prefix: ip.address.prefix };
        ensure_address(bridge, socket, link.index, wanted)?;
        gateway::let_forward(gateway)?;
    }
    Ok(())
}

fn ensure_address(
    bridge: &Bridge,
    socket: &mut RouteSocket,
    index: u32,
    wanted: Network,
) -> Result<(), Error> {
    let failed = |errno: Errno| Error::failed(format!("address {wanted} on bridge {}", bridge.name), errno);
    let v4 = wanted.address.is_ipv4();
    for there in socket.addresses(index).map_err(failed)? {
        let network = there.network;
        if network == wanted {
            return Ok(());
        }
        let overlap = network.contains(wanted.address) || wanted.contains(network.address);
        if network.address.is_ipv4() != v4 || there.scope == SCOPE_LINK || !(v4 || overlap) {
            continue;
        }
        if !bridge.force_address {
            let message = format!(
                "bridge {} has the address {network}, the network's gateway is {wanted}: take it away, name another bridge, or set forceAddress",
                bridge.name
            );
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        socket.delete_address(index, network).map_err(failed)?;
    }
    if !v4 {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", bridge.name), "0");
    }
    socket.add_address(index, wanted, true).map_err(failed)
}

fn random_mac() -> [u8; 6] {
    let bits = interface::random().to_ne_bytes();
    [bits[0] & 0xfe | 0x02, bits[1], bits[2], bits[3], bits[4], bits[5]] // locally administered, unicast
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::request::Request;
    use serde_json::json;

    fn bridge(config: &Value) -> Result<Bridge, Error> {
        let mut all = json!({"cniVersion": "1.1.0", "name": "n", "type": "bridge"});
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let text = |text: &str| Some(text.to_string());
        let plan = NetPlan::new(Request {
            command: "ADD".into(),
            container_id: text("c"),
            netns: text("/x"),
            ifname: text("eth0"),
            path: text("/x"),
            stdin: all.to_string().into_bytes(),
            ..Request::default()
        })?;
        Bridge::new(&plan)
    }

    #[test]
    fn rule_25_what_implies_and_what_excludes() {
        let default_gateway = bridge(&json!({"isDefaultGateway": true})).unwrap();
        assert!(default_gateway.is_gateway && default_gateway.is_default_gateway);
        assert!(!bridge(&json!({"isGateway": true})).unwrap().is_default_gateway);
        assert_eq!(bridge(&json!({"hairpinMode": true, "promiscMode": true})).unwrap_err().code, 7);
        assert_eq!(bridge(&json!({"vlan": 7})).unwrap_err().code, 7, "not supported is said, not ignored");
        let left_down = json!({"disableContainerInterface": true, "ipam": {"type": "host-local"}});
        assert_eq!(bridge(&left_down).unwrap_err().code, 7);
        assert_eq!(bridge(&json!({})).unwrap().name, "cni0");
    }

    #[test]
    fn a_default_route_is_added_once() {
        let default_gateway = bridge(&json!({"isDefaultGateway": true})).unwrap();
        let default: Network = "0.0.0.0/0".parse().unwrap();
        let ip = crate::cni::reply::IpConfig {
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
