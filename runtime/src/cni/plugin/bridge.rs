//! bridge: a veth pair between the container and a bridge of the host.
//!
//! In: the plan. Out: interfaces bridge, host veth, container, in that order (contract rule 25).
//! Must never: leave a veth, an address or a rule behind a failed ADD.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde_json::Value;

use super::container;
use super::masquerade;
use crate::cni::error;
use crate::cni::error::Error;
use crate::cni::ipam;
use crate::cni::plan::Command;
use crate::cni::plan::NetPlan;
use crate::cni::plan::format_mac;
use crate::cni::reply::Interface;
use crate::cni::reply::Reply;
use crate::cni::reply::Route;
use crate::cni::rules;
use crate::netlink::route::Link;
use crate::netlink::route::LinkChange;
use crate::netlink::route::Network;
use crate::netlink::route::PROMISC;
use crate::netlink::route::RouteSocket;
use crate::netlink::route::UP;
use crate::netlink::route::VethPair;

const DEFAULT_BRIDGE: &str = "cni0";
/// Random names of 32 bits: more than a few clashes in a row mean something else is wrong.
const NAME_TRIES_MAX: u32 = 16;
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
            ("disableContainerInterface", Value::from(false)),
            ("portIsolation", Value::from(false)),
        ] {
            if fields.get(key).is_some_and(|value| *value != off) {
                let message = format!("field {key} is not supported by this bridge plugin; drop it");
                return Err(Error::new(error::INVALID_CONFIG, message));
            }
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
            mac: plan.wanted_mac()?,
        })
    }
}

/// Runs a verb.
///
/// # Errors
/// Codes 5 to 8, 101 from CHECK, 102 when the interface exists, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    let bridge = Bridge::new(plan)?;
    match plan.command {
        Command::Add => add(plan, &bridge)?.to_json(plan.version).map(Some),
        Command::Del => delete(plan, &bridge).map(|()| None),
        Command::Check => check(plan, &bridge).map(|()| None),
        Command::Status => ipam::pass_on(plan).map(|()| None),
        Command::Gc => collect_garbage(plan).map(|()| None),
    }
}

fn add(plan: &NetPlan, bridge: &Bridge) -> Result<Reply, Error> {
    let (netns, mut inner) = container::open(plan)?;
    let mut outer = host_socket()?;
    let bridge_link = ensure_bridge(&mut outer, bridge)?;
    let veth = make_veth(plan, bridge, &mut outer, bridge_link.index, netns.as_fd())?;
    let mut held_addresses = false;
    let result = finish_add(plan, bridge, &mut outer, &mut inner, netns.as_fd(), &veth, &mut held_addresses);
    if result.is_err() {
        // The error that is told is the first one; these take back what was done, as far as it goes.
        let _ = outer.delete_link(veth.index);
        if bridge.ip_masq {
            let _ = rules::remove(&masquerade::TABLE, &plan.attachment);
        }
        if held_addresses {
            let _ = release(plan);
        }
    }
    result
}

fn finish_add(
    plan: &NetPlan,
    bridge: &Bridge,
    outer: &mut RouteSocket,
    inner: &mut RouteSocket,
    netns: BorrowedFd<'_>,
    veth: &Link,
    held_addresses: &mut bool,
) -> Result<Reply, Error> {
    if bridge.hairpin {
        let set = outer.set_hairpin(veth.index);
        set.map_err(|errno| Error::failed(format!("hairpin mode on {}", veth.name), errno))?;
    }
    let mut reply = ipam::add(plan)?;
    *held_addresses = true;
    complete(bridge, &mut reply);
    container::configure(netns, inner, &plan.attachment.ifname, &reply)?;
    if bridge.is_gateway {
        be_gateway(bridge, outer, &reply)?;
    }
    if bridge.ip_masq {
        masquerade::add(&plan.attachment, &reply.ips)?;
    }
    let find = |socket: &mut RouteSocket, name: &str| -> Result<Link, Error> {
        let link = socket.link(name).map_err(|errno| Error::failed(name, errno))?;
        link.ok_or_else(|| Error::failed(name, "the interface is gone"))
    };
    let shown = |link: &Link, sandbox: String| Interface {
        name: link.name.clone(),
        mac: format_mac(&link.mac),
        mtu: Some(link.mtu),
        sandbox,
        ..Interface::default()
    };
    reply.interfaces = vec![
        shown(&find(outer, &bridge.name)?, String::new()),
        shown(&find(outer, &veth.name)?, String::new()),
        shown(&find(inner, &plan.attachment.ifname)?, container::sandbox(plan)),
    ];
    let dns = plan.fields()?.object("dns")?;
    if let (true, Some(dns)) = (reply.dns.is_empty(), dns) {
        reply.dns = crate::cni::reply::Dns::parse(&dns)?;
    }
    Ok(reply)
}

/// Fills in gateways, the default route and which interface has the addresses.
fn complete(bridge: &Bridge, reply: &mut Reply) {
    for ip in &mut reply.ips {
        ip.interface = Some(2);
        if bridge.is_gateway && ip.gateway.is_none() {
            ip.gateway = Some(first_of(ip.address));
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

/// The first address of a subnet after its base.
fn first_of(network: Network) -> IpAddr {
    match network.base().address {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).saturating_add(1).into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).saturating_add(1).into()),
    }
}

fn host_socket() -> Result<RouteSocket, Error> {
    RouteSocket::open().map_err(|errno| Error::failed("a netlink socket", errno))
}

fn ensure_bridge(socket: &mut RouteSocket, bridge: &Bridge) -> Result<Link, Error> {
    let failed = |errno: Errno| Error::failed(format!("bridge {}", bridge.name), errno);
    if socket.link(&bridge.name).map_err(failed)?.is_none() {
        match socket.create_bridge(&bridge.name, random_mac(), bridge.mtu) {
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

fn make_veth(
    plan: &NetPlan,
    bridge: &Bridge,
    socket: &mut RouteSocket,
    master: u32,
    netns: BorrowedFd<'_>,
) -> Result<Link, Error> {
    let peer_name = plan.attachment.ifname.as_str();
    let failed = |errno: Errno| Error::failed(format!("a veth pair for {peer_name}"), errno);
    for _ in 0..NAME_TRIES_MAX {
        let name = format!("veth{:08x}", random() & 0xffff_ffff);
        let pair = VethPair {
            name: &name,
            master,
            mtu: bridge.mtu,
            peer_name,
            peer_mac: bridge.mac,
            peer_namespace: netns,
        };
        match socket.create_veth(&pair) {
            Ok(()) => return socket.link(&name).map_err(failed)?.ok_or_else(|| failed(Errno::NODEV)),
            // One of the two names is taken: ours is tried anew, the container's can't be.
            Err(Errno::EXIST) => {
                let mut inner = RouteSocket::open_in(netns).map_err(failed)?;
                if inner.link(peer_name).map_err(failed)?.is_some() {
                    let message = format!("the container has an interface {peer_name} already");
                    return Err(Error::new(error::ALREADY_ATTACHED, message));
                }
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(failed(Errno::EXIST))
}

/// Gives the bridge the gateways' addresses, and lets the host forward.
fn be_gateway(bridge: &Bridge, socket: &mut RouteSocket, reply: &Reply) -> Result<(), Error> {
    let failed = |errno: Errno| Error::failed(format!("bridge {}", bridge.name), errno);
    let link = socket.link(&bridge.name).map_err(failed)?.ok_or_else(|| failed(Errno::NODEV))?;
    for ip in &reply.ips {
        let Some(gateway) = ip.gateway else { continue };
        let wanted = Network { address: gateway, prefix: ip.address.prefix };
        ensure_address(bridge, socket, link.index, wanted)?;
        let key = if gateway.is_ipv4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
        let path = format!("/proc/sys/net/{key}");
        if !std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            std::fs::write(&path, "1").map_err(|cause| Error::failed(&path, cause))?;
        }
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

/// Gives everything back that is not an interface.
fn release(plan: &NetPlan) -> Result<(), Error> {
    let mut plan = plan.clone();
    plan.request.command = "DEL".to_string();
    ipam::pass_on(&plan)
}

fn delete(plan: &NetPlan, bridge: &Bridge) -> Result<(), Error> {
    // All of it is tried, and the first error told (contract rule 13).
    let released = ipam::pass_on(plan);
    let removed = remove_link(plan, bridge);
    // Whether ipMasq was set at ADD is not known for sure, and looking costs little.
    let unmasqueraded = rules::remove(&masquerade::TABLE, &plan.attachment);
    released.and(removed).and(unmasqueraded)
}

fn remove_link(plan: &NetPlan, bridge: &Bridge) -> Result<(), Error> {
    let ifname = &plan.attachment.ifname;
    let failed = |errno: Errno| Error::failed(format!("interface {ifname} can't be removed"), errno);
    if let Some((_, mut inner)) = container::try_open(plan)?
        && let Some(link) = inner.link(ifname).map_err(failed)?
    {
        inner.delete_link(link.index).map_err(failed)?;
    }
    // Without its namespace the pair goes when the kernel comes to it; its host side is named in prevResult.
    let Some(previous) = &plan.previous else { return Ok(()) };
    let mut outer = host_socket()?;
    let Some(master) = outer.link(&bridge.name).map_err(failed)? else { return Ok(()) };
    for told in previous.interfaces.iter().filter(|told| told.sandbox.is_empty() && told.name != bridge.name)
    {
        let Some(link) = outer.link(&told.name).map_err(failed)? else { continue };
        if link.kind == "veth" && link.master == master.index && format_mac(&link.mac) == told.mac {
            outer.delete_link(link.index).map_err(failed)?;
        }
    }
    Ok(())
}

fn check(plan: &NetPlan, bridge: &Bridge) -> Result<(), Error> {
    ipam::pass_on(plan)?;
    let reply = plan.required_previous()?;
    if bridge.ip_masq && rules::count(&masquerade::TABLE, &plan.attachment)? < reply.ips.len() {
        let message = format!("rules are gone from table {}", masquerade::TABLE.name);
        return Err(Error::new(error::CHECK_FAILED, message));
    }
    let differs = |message: String| Error::new(error::CHECK_FAILED, message);
    let mut outer = host_socket()?;
    let failed = |errno: Errno| Error::failed(&bridge.name, errno);
    let master = outer.link(&bridge.name).map_err(failed)?;
    let master = master
        .filter(|link| link.kind == "bridge")
        .ok_or_else(|| differs(format!("bridge {} is gone", bridge.name)))?;
    for told in reply.interfaces.iter().filter(|told| told.sandbox.is_empty() && told.name != bridge.name) {
        let link = outer.link(&told.name).map_err(failed)?;
        if link.is_none_or(|link| link.master != master.index) {
            return Err(differs(format!("{} is no port of bridge {} any more", told.name, bridge.name)));
        }
    }
    let (_, mut inner) = container::open(plan)?;
    container::check(&mut inner, &plan.attachment.ifname, reply)
}

fn collect_garbage(plan: &NetPlan) -> Result<(), Error> {
    let addresses = ipam::pass_on(plan);
    let rules = rules::keep_only(&masquerade::TABLE, &plan.attachment.network, &plan.valid);
    addresses.and(rules)
}

/// The standard library seeds its hash maps from the kernel's random numbers; this is such a seed.
fn random() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(std::process::id())
}

fn random_mac() -> [u8; 6] {
    let bits = random().to_ne_bytes();
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
