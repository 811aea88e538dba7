//! The container's side of an interface plugin: its namespace, its interface's addresses and routes, and CHECK of them.
//!
//! In: a plan and a reply. Out: a configured interface. Must never: change anything outside the namespace.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::interface::differs;
use crate::error;
use crate::error::Error;
use crate::plan::NetPlan;
use crate::plan::format_mac;
use crate::reply::Interface;
use crate::reply::Reply;
use netlink::link::LOWER_UP;
use netlink::link::Link;
use netlink::link::UP;
use netlink::namespace;
use netlink::route;
use netlink::route::AddressNews;
use netlink::route::IFA_F_DADFAILED;
use netlink::route::IFA_F_TENTATIVE;
use netlink::route::Network;
use netlink::route::RouteSocket;

/// The kernel asks once and waits a second by default; a busy machine may take longer.
const DUPLICATE_DETECTION_MAX: Duration = Duration::from_secs(10);

/// The container's namespace and a route socket in it.
///
/// # Errors
/// Code 8 when there is no such namespace.
pub fn open(plan: &NetPlan) -> Result<(OwnedFd, RouteSocket), Error> {
    try_open(plan)?.ok_or_else(|| {
        let message = format!("CNI_NETNS {:?}: there is no such network namespace", sandbox(plan));
        Error::new(error::INVALID_NETNS, message)
    })
}

/// The same for DEL: `None` when the namespace is gone or was never named (contract rule 13).
///
/// # Errors
/// Code 8 when the file is no network namespace.
pub fn try_open(plan: &NetPlan) -> Result<Option<(OwnedFd, RouteSocket)>, Error> {
    let Some(path) = &plan.netns else { return Ok(None) };
    let failed = |errno: Errno| {
        let message =
            format!("CNI_NETNS {} is no network namespace that can be entered: {errno}", path.display());
        Error::new(error::INVALID_NETNS, message)
    };
    let netns = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(netns) => netns,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    match RouteSocket::open_in(netns.as_fd()) {
        Ok(socket) => Ok(Some((netns, socket))),
        // `ip netns del` on a busy name leaves an empty file: the namespace is gone.
        Err(Errno::INVAL) if plan.command == crate::plan::Command::Del => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

/// The namespace's path as results show it.
pub fn sandbox(plan: &NetPlan) -> String {
    plan.request.netns.clone().unwrap_or_default()
}

/// Lets the interface have IPv6 addresses that outlive its going down (contract rule 28), and tells the neighbours of a reused
/// address of either family at once, without a packet of ours. A kernel without IPv6 has no such files, and then an IPv6
/// address fails with its own error.
pub fn prepare(netns: BorrowedFd<'_>, ifname: &str, v4: bool, v6: bool) {
    if !v4 && !v6 {
        return;
    }
    let (v4_keys, v6_keys) = (
        [(ifname, "arp_notify", "1")],
        [
            ("lo", "disable_ipv6", "0"),
            (ifname, "disable_ipv6", "0"),
            (ifname, "keep_addr_on_down", "1"),
            (ifname, "ndisc_notify", "1"),
        ],
    );
    let _ = namespace::inside(netns, || {
        let set = |family: &str, keys: &[(&str, &str, &str)]| {
            for (name, key, value) in keys {
                let _ = std::fs::write(format!("/proc/sys/net/{family}/conf/{name}/{key}"), value);
            }
        };
        set("ipv4", if v4 { &v4_keys } else { &[] });
        set("ipv6", if v6 { &v6_keys } else { &[] });
        Ok(())
    });
}

/// Gives the interface its addresses, brings it up, adds the routes.
///
/// # Errors
/// Code 999, naming what failed.
pub fn configure(
    netns: BorrowedFd<'_>,
    socket: &mut RouteSocket,
    ifname: &str,
    reply: &Reply,
    detect_duplicates: bool,
) -> Result<(), Error> {
    let link = socket.link(ifname).map_err(|errno| Error::failed(ifname, errno))?;
    let link = link.ok_or_else(|| Error::failed(ifname, "it is gone from the namespace"))?;
    let has = |v4: bool| reply.ips.iter().any(|ip| ip.address.address.is_ipv4() == v4);
    prepare(netns, ifname, has(true), has(false));
    for ip in &reply.ips {
        let added = socket.add_address(link.index, ip.address, !detect_duplicates);
        added.map_err(|errno| Error::failed(format!("address {} on {ifname}", ip.address), errno))?;
    }
    socket
        .set_up(link.index)
        .map_err(|errno| Error::failed(format!("{ifname} can't be brought up"), errno))?;
    if detect_duplicates {
        let ours: Vec<Network> = reply.ips.iter().map(|ip| ip.address).collect();
        await_addresses(netns, socket, link.index, ifname, &ours)?;
    }
    for wanted in &reply.routes {
        let route = resolve(wanted, reply, link.index);
        let added = socket.add_route(&route);
        added.map_err(|errno| Error::failed(format!("route to {} by {ifname}", wanted.dst), errno))?;
    }
    Ok(())
}

/// Waits until the kernel knows that nobody else has the interface's new addresses (contract rule 26: it tells).
fn await_addresses(
    netns: BorrowedFd<'_>,
    socket: &mut RouteSocket,
    index: u32,
    ifname: &str,
    ours: &[Network],
) -> Result<(), Error> {
    let failed = |errno: Errno| Error::failed(format!("addresses of {ifname}"), errno);
    // Listening comes before looking, so that nothing is missed in between.
    let mut news = namespace::inside(netns, AddressNews::open).map_err(failed)?;
    let deadline = Instant::now() + DUPLICATE_DETECTION_MAX;
    loop {
        let link = socket.link_by_index(index).map_err(failed)?;
        if link.is_none_or(|link| link.flags & LOWER_UP == 0) {
            return Ok(()); // nobody can be asked until it has a carrier
        }
        let mut addresses = socket.addresses(index).map_err(failed)?;
        addresses.retain(|address| ours.contains(&address.network));
        if let Some(taken) = addresses.iter().find(|address| address.flags & IFA_F_DADFAILED != 0) {
            let message = format!("address {} of {ifname} is in use by a neighbour", taken.network);
            return Err(Error::new(error::OTHER, message));
        }
        if addresses.iter().all(|address| address.flags & IFA_F_TENTATIVE == 0) {
            return Ok(());
        }
        if !news.wait(deadline).map_err(failed)? {
            return Err(Error::failed(
                format!("addresses of {ifname}"),
                "the kernel does not come to an end with duplicate address detection",
            ));
        }
    }
}

/// A result's route with the gateway that it means.
fn resolve(wanted: &crate::reply::Route, reply: &Reply, index: u32) -> route::Route {
    route::Route {
        destination: wanted.dst,
        // 0.0.0.0 says that there is none, which absent does not.
        gateway: wanted
            .gw
            .or_else(|| gateway_of(reply, wanted.dst.address.is_ipv4()))
            .filter(|gateway| !gateway.is_unspecified()),
        index,
        mtu: wanted.mtu,
        advmss: wanted.advmss,
        priority: wanted.priority,
        table: wanted.table,
        scope: wanted.scope.and_then(|scope| u8::try_from(scope).ok()),
        source: None,
    }
}

fn gateway_of(reply: &Reply, v4: bool) -> Option<IpAddr> {
    reply.ips.iter().filter(|ip| ip.address.address.is_ipv4() == v4).find_map(|ip| ip.gateway)
}

/// CHECK: the interface is as the result says (contract rule 16); it is handed back. A later plugin may have changed the
/// MAC, and the result that CHECK gets then says so; the MTU is nobody's promise.
///
/// # Errors
/// Code 101, naming what differs.
pub fn check(socket: &mut RouteSocket, ifname: &str, reply: &Reply, is_up: bool) -> Result<Link, Error> {
    let link = socket.link(ifname).map_err(|errno| Error::failed(ifname, errno))?;
    let link = link.ok_or_else(|| differs(format!("interface {ifname} is gone")))?;
    if is_up && link.flags & UP == 0 {
        return Err(differs(format!("interface {ifname} is down")));
    }
    let Some(told) = told_interface(reply, ifname) else {
        return Err(differs(format!("prevResult names no interface {ifname} of the container")));
    };
    let mac = format_mac(&link.mac);
    if !told.mac.is_empty() && !told.mac.eq_ignore_ascii_case(&mac) {
        return Err(differs(format!("interface {ifname} has the MAC {mac}, not {}", told.mac)));
    }
    let addresses = socket.addresses(link.index).map_err(|errno| Error::failed("addresses", errno))?;
    for ip in reply.ips.iter().filter(|ip| belongs(ip, reply, ifname)) {
        if !addresses.iter().any(|address| address.network == ip.address) {
            return Err(differs(format!("interface {ifname} has lost its address {}", ip.address)));
        }
    }
    let routes = socket.routes().map_err(|errno| Error::failed("routes", errno))?;
    for wanted in &reply.routes {
        let expected = resolve(wanted, reply, link.index);
        let is_there = routes.iter().any(|route| {
            route.destination == expected.destination.base() && route.gateway == expected.gateway
        });
        if !is_there {
            return Err(differs(format!("the route to {} is gone", wanted.dst)));
        }
    }
    Ok(link)
}

fn told_interface<'a>(reply: &'a Reply, ifname: &str) -> Option<&'a Interface> {
    reply.interfaces.iter().find(|interface| interface.name == ifname && !interface.sandbox.is_empty())
}

fn belongs(ip: &crate::reply::IpConfig, reply: &Reply, ifname: &str) -> bool {
    let interface = ip.interface.and_then(|index| reply.interfaces.get(usize::try_from(index).ok()?));
    interface.is_none_or(|interface| interface.name == ifname)
}
