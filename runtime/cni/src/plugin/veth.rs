//! A veth pair: one side in the container, the other one on the host; what bridge and ptp have in common.
//!
//! In: the plan. Out: the pair, CHECK of its host side, and its end. Must never: take another container's pair.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::interface;
use super::interface::Ends;
use super::interface::differs;
use super::interface::existing;
use crate::error::Error;
use crate::plan::NetPlan;
use crate::plan::format_mac;
use crate::reply::Reply;
use netlink::link::Kind;
use netlink::link::Link;
use netlink::link::NewLink;

/// What is wanted of a pair.
#[derive(Debug, Clone, Copy)]
pub struct Veth {
    /// Of both sides (contract rule 29).
    pub mtu: Option<u32>,
    /// The container's side's.
    pub mac: Option<[u8; 6]>,
    /// The bridge that the host's side becomes a port of, or 0.
    pub master: u32,
}

/// Makes a pair, whose host side is up, and gives the host side.
///
/// # Errors
/// Code 102 when the container has such an interface; 999.
pub fn make(plan: &NetPlan, ends: &mut Ends, wanted: &Veth) -> Result<Link, Error> {
    let ifname = plan.attachment.ifname.as_str();
    let netns = ends.netns.as_fd();
    let Veth { mtu, mac, master } = *wanted;
    // Its kind is that of the other side.
    let peer = NewLink { mac, mtu, namespace: Some(netns), ..NewLink::new(Kind::Dummy, ifname) };
    let name = interface::with_random_name(|name| {
        ends.outer.create_link(&NewLink { mtu, master, up: true, ..NewLink::new(Kind::Veth(&peer), name) })
    });
    match name {
        Ok(name) => existing(&mut ends.outer, &name),
        Err(errno) => {
            // One of the two names is taken; the random one hardly ever is.
            interface::refuse_existing(plan, ends)?;
            Err(Error::failed(format!("a veth pair for {ifname}"), errno))
        }
    }
}

/// CHECK: the host's side is there and is the container's peer.
///
/// # Errors
/// Code 101.
pub fn check_host_side(ends: &mut Ends, link: &Link, reply: &Reply) -> Result<Link, Error> {
    for told in reply.interfaces.iter().filter(|told| told.sandbox.is_empty()) {
        let found = ends.outer.link(&told.name).map_err(|errno| Error::failed(&told.name, errno))?;
        if let Some(found) = found.filter(|found| found.kind == "veth" && found.parent == link.index) {
            return Ok(found);
        }
    }
    Err(differs(format!("the host's side of {} is gone", link.name)))
}

/// Removes the pair, by the container's side, or without its namespace by the host's side that prevResult names.
///
/// # Errors
/// Code 999.
pub fn remove(plan: &NetPlan) -> Result<(), Error> {
    interface::remove(plan)?;
    // Without its namespace the pair goes when the kernel comes to it.
    let Some(previous) = &plan.previous else { return Ok(()) };
    let failed = |errno: Errno| Error::failed("the host's side of a veth pair can't be removed", errno);
    let mut outer = interface::host_socket()?;
    for told in previous.interfaces.iter().filter(|told| told.sandbox.is_empty() && is_random(&told.name)) {
        let Some(link) = outer.link(&told.name).map_err(failed)? else { continue };
        if link.kind == "veth" && format_mac(&link.mac) == told.mac {
            outer.delete_link(link.index).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether a name is one of those that pairs get: a bridge's gateway in a VLAN is a pair too, and is not one container's.
fn is_random(name: &str) -> bool {
    name.strip_prefix("veth").is_some_and(|digits| digits.len() == 8)
}
