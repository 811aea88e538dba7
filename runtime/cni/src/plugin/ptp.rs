//! ptp: a veth pair that the host routes to, without a bridge.
//!
//! In: the plan. Out: interfaces host veth, container, in that order. Must never: leave a route or a rule behind.
//!
//! A veth pair is no point-to-point link, so the container's network must not seem to be on it: its neighbours are
//! behind the host. The route to the network goes by way of the gateway, which alone is on the link.

use std::net::IpAddr;

use rustix::io::Errno;
use serde_json::Value;

use super::gateway;
use super::interface;
use super::interface::Driver;
use super::interface::Ends;
use super::interface::differs;
use super::interface::existing;
use super::masquerade;
use super::veth;
use super::veth::Veth;
use crate::error;
use crate::error::Error;
use crate::plan::NetPlan;
use crate::reply::Reply;
use crate::rules;
use netlink::link::Link;
use netlink::route::Network;
use netlink::route::Route;
use netlink::route::RouteSocket;

const SCOPE_LINK: u8 = 253;

struct Ptp {
    mtu: Option<u32>,
    ip_masq: bool,
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
    let fields = plan.fields()?;
    let mtu = fields.number("mtu")?.filter(|mtu| *mtu != 0);
    Ok(Box::new(Ptp { mtu, ip_masq: fields.flag("ipMasq")? }))
}

impl Driver for Ptp {
    fn kind(&self) -> Option<&'static str> {
        Some("veth")
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        let port = veth::make(plan, ends, &Veth { mtu: self.mtu, mac: None, master: 0 })?;
        Ok(vec![port.name])
    }

    fn needs_addresses(&self) -> bool {
        true
    }

    fn complete(&self, reply: &mut Reply) -> Result<(), Error> {
        let Some(ip) = reply.ips.iter().find(|ip| ip.gateway.is_none()) else { return Ok(()) };
        let message = format!("address {} has no gateway, and ptp can't route without", ip.address);
        Err(Error::new(error::INVALID_CONFIG, message))
    }

    fn finish(&self, plan: &NetPlan, ends: &mut Ends, reply: &mut Reply) -> Result<(), Error> {
        let link = existing(&mut ends.inner, &plan.attachment.ifname)?;
        let host = ends.outer.link_by_index(link.parent).map_err(|errno| Error::failed("veth", errno))?;
        let host = host.ok_or_else(|| Error::failed("veth", "the host's side is gone"))?;
        for ip in &reply.ips {
            let Some(gateway) = ip.gateway else { continue };
            route_by_gateway(&mut ends.inner, link.index, ip.address, gateway)
                .map_err(|errno| Error::failed(format!("routes of {}", ip.address), errno))?;
            ends.outer
                .add_address(host.index, alone(gateway), true)
                .and_then(|()| {
                    ends.outer.add_route(&Route::plain(alone(ip.address.address), None, host.index))
                })
                .map_err(|errno| Error::failed(format!("the host's way to {}", ip.address), errno))?;
            gateway::let_forward(gateway)?;
        }
        if self.ip_masq {
            masquerade::add(&plan.attachment, &reply.ips)?;
        }
        Ok(())
    }

    fn check(&self, plan: &NetPlan, ends: &mut Ends, link: &Link, reply: &Reply) -> Result<(), Error> {
        masquerade::check(self.ip_masq, &plan.attachment, reply)?;
        let host = veth::check_host_side(ends, link, reply)?;
        let routes = ends.outer.routes().map_err(|errno| Error::failed("routes", errno))?;
        for ip in &reply.ips {
            let to = alone(ip.address.address);
            if !routes.iter().any(|route| route.destination == to && route.index == host.index) {
                return Err(differs(format!("the host's route to {} is gone", ip.address.address)));
            }
        }
        Ok(())
    }

    fn remove(&self, plan: &NetPlan) -> Result<(), Error> {
        veth::remove(plan).and(rules::remove(&masquerade::TABLE, &plan.attachment))
    }

    fn collect_garbage(&self, plan: &NetPlan) -> Result<(), Error> {
        rules::keep_only(&masquerade::TABLE, &plan.attachment.network, &plan.valid)
    }
}

/// Puts the container's network behind the gateway, and the gateway alone on the link.
fn route_by_gateway(
    inner: &mut RouteSocket,
    index: u32,
    address: Network,
    gateway: IpAddr,
) -> Result<(), Errno> {
    let source = Some(address.address);
    let scope = Some(SCOPE_LINK);
    inner.add_route(&Route { source, scope, ..Route::plain(alone(gateway), None, index) })?;
    // The one that came with the address.
    inner.delete_route(&Route::plain(address.base(), None, index))?;
    inner.add_route(&Route { source, ..Route::plain(address.base(), Some(gateway), index) })
}

/// The network of one address.
fn alone(address: IpAddr) -> Network {
    Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
}
