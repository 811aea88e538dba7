//! sbr: what an address of the interface sends is routed by that interface's own routes (source based routing).
//!
//! In: fields table, gateways, addSourceHints; prevResult. Out: for each address a routing table and a rule that names it,
//! prevResult. Must never: leave a route of the interface in the main table, where it would compete with those of other
//! interfaces, but those to its own networks where addSourceHints asks for them.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use serde_json::Value;

use super::container;
use crate::error;
use crate::error::Error;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::reply::IpConfig;
use netlink::route::Network;
use netlink::route::Route;
use netlink::route::RouteSocket;
use netlink::route::policy::HeldRoute;
use netlink::route::policy::SourceRule;

/// The first table that is looked at; as the reference has it.
const FIRST_TABLE: u32 = 100;

/// The plugin's own fields.
#[derive(Debug)]
struct Sbr {
    table: Option<u32>,
    /// One a family at most; they go before those of prevResult.
    gateways: Vec<IpAddr>,
    keeps_networks: bool,
}

impl Sbr {
    fn new(plan: &NetPlan) -> Result<Sbr, Error> {
        let fields = plan.fields()?;
        let wrong = |message: String| Error::new(error::INVALID_CONFIG, message);
        let mut gateways: Vec<IpAddr> = Vec::new();
        for text in fields.texts("gateways")? {
            let gateway: IpAddr =
                text.parse().map_err(|_| wrong(format!("field gateways: {text:?} is no address")))?;
            if gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
                return Err(wrong(format!("field gateways: {gateway} is the second one of its family")));
            }
            gateways.push(gateway);
        }
        Ok(Sbr { table: fields.number("table")?, gateways, keeps_networks: fields.flag("addSourceHints")? })
    }

    fn gateway_of(&self, ip: &IpConfig) -> Option<IpAddr> {
        let own = self.gateways.iter().find(|gateway| gateway.is_ipv4() == ip.address.address.is_ipv4());
        own.copied().or(ip.gateway)
    }
}

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<(), Error> {
    Sbr::new(plan)?;
    own_ips(plan).map(drop)
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 to 8, 101 from CHECK, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    match plan.command {
        Command::Add => return add(plan, &Sbr::new(plan)?).map(Some),
        Command::Del => delete(plan)?,
        Command::Check => check(plan, &Sbr::new(plan)?)?,
        // Rules and tables go with the namespace.
        Command::Gc | Command::Status => {}
    }
    Ok(None)
}

/// The addresses of this interface; one that names none is taken for its.
fn own_ips(plan: &NetPlan) -> Result<Vec<IpConfig>, Error> {
    let reply = plan.required_previous()?;
    let is_own = |ip: &&IpConfig| {
        let interface = ip.interface.and_then(|index| reply.interfaces.get(usize::try_from(index).ok()?));
        interface.is_none_or(|interface| interface.name == plan.attachment.ifname)
    };
    Ok(reply.ips.iter().filter(is_own).cloned().collect())
}

/// The namespace is locked, since two at once would choose the same table.
fn open_locked(plan: &NetPlan) -> Result<(OwnedFd, RouteSocket), Error> {
    let (netns, socket) = container::open(plan)?;
    let locked =
        rustix::io::retry_on_intr(|| rustix::fs::flock(&netns, rustix::fs::FlockOperation::LockExclusive));
    locked.map_err(|errno| Error::failed("a lock on the container's namespace", errno))?;
    Ok((netns, socket))
}

fn add(plan: &NetPlan, sbr: &Sbr) -> Result<Value, Error> {
    let ips = own_ips(plan)?;
    if ips.is_empty() {
        let message = format!(
            "prevResult has no address for {}: there is no source to route by",
            plan.attachment.ifname
        );
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    let (_locked, mut socket) = open_locked(plan)?;
    if let Err(error) = move_routes(plan, &ips, sbr, &mut socket) {
        let _ = remove_rules(&ips, &mut socket); // the first error is the one to tell
        return Err(error);
    }
    plan.pass_through()
}

fn move_routes(plan: &NetPlan, ips: &[IpConfig], sbr: &Sbr, socket: &mut RouteSocket) -> Result<(), Error> {
    let ifname = &plan.attachment.ifname;
    let failed = |what: String| move |errno: Errno| Error::failed(what, errno);
    let link = socket.link(ifname).map_err(failed(ifname.clone()))?;
    let index = link.ok_or_else(|| failed(ifname.clone())(Errno::NODEV))?.index;
    let routes = socket.held_routes(index).map_err(failed(format!("routes by {ifname}")))?;
    let mut taken = taken_tables(socket).map_err(failed("rules and routes".into()))?;
    for ip in ips {
        let chosen = sbr.table.unwrap_or_else(|| next_table(&taken));
        taken.push(chosen);
        let rule = SourceRule { source: host(ip.address.address), table: chosen };
        socket.add_rule(&rule).map_err(failed(format!("a rule for {}", rule.source)))?;
        // A gateway must be reachable when a route by it is made, so networks come first, then what goes by gateways.
        let mut copied: Vec<&HeldRoute> = routes.iter().filter(|route| belongs(route, ip)).collect();
        copied.sort_by_key(|route| route.gateway.is_some());
        for route in copied {
            socket
                .copy_route(route, chosen)
                .map_err(failed(format!("a route of {ifname} in table {chosen}")))?;
        }
        if let Some(gateway) = sbr.gateway_of(ip) {
            let route = Route { table: Some(chosen), ..default_by(gateway, index) };
            socket.add_route(&route).map_err(failed(format!("a route by {gateway} in table {chosen}")))?;
        }
    }
    // A route that came with an address has it as its source already, which is all of a hint.
    let stays = |route: &HeldRoute| {
        sbr.keeps_networks && route.gateway.is_none() && (route.source.is_some() || !route.is_v4)
    };
    for route in routes.iter().filter(|route| !stays(route)) {
        socket.delete_held_route(route).map_err(failed(format!("a route by {ifname} in the main table")))?;
    }
    Ok(())
}

/// Whether a route of the interface is one for what `ip` sends.
fn belongs(route: &HeldRoute, ip: &IpConfig) -> bool {
    let in_network = |address: Option<IpAddr>| address.is_some_and(|address| ip.address.contains(address));
    let is_general = route.gateway.is_none() && route.source.is_none();
    route.is_v4 == ip.address.address.is_ipv4()
        && (is_general || in_network(route.source) || in_network(route.gateway))
}

fn taken_tables(socket: &mut RouteSocket) -> Result<Vec<u32>, Errno> {
    let rules = socket.source_rules()?;
    let routes = socket.routes()?;
    let by_rules = rules.iter().map(|rule| rule.table);
    Ok(by_rules.chain(routes.iter().filter_map(|route| route.table)).collect())
}

fn next_table(taken: &[u32]) -> u32 {
    (FIRST_TABLE..).find(|table| !taken.contains(table)).unwrap_or(FIRST_TABLE)
}

fn host(address: IpAddr) -> Network {
    Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
}

fn default_by(gateway: IpAddr, index: u32) -> Route {
    let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    Route::plain(Network { address: any, prefix: 0 }, Some(gateway), index)
}

fn delete(plan: &NetPlan) -> Result<(), Error> {
    let Some((_netns, mut socket)) = container::try_open(plan)? else { return Ok(()) };
    let failed = |errno: Errno| Error::failed(&plan.attachment.ifname, errno);
    let mut ips = if plan.previous.is_some() { own_ips(plan)? } else { vec![] };
    if let Some(link) = socket.link(&plan.attachment.ifname).map_err(failed)? {
        let addresses = socket.addresses(link.index).map_err(failed)?;
        let here = addresses.iter().map(|address| address.network);
        ips.extend(here.map(|address| IpConfig { interface: None, address, gateway: None }));
    }
    remove_rules(&ips, &mut socket)
}

fn remove_rules(ips: &[IpConfig], socket: &mut RouteSocket) -> Result<(), Error> {
    let failed = |errno: Errno| Error::failed("rules by source", errno);
    for rule in socket.source_rules().map_err(failed)? {
        let is_ours = |ip: &IpConfig| host(ip.address.address) == rule.source;
        if rule.table >= FIRST_TABLE && ips.iter().any(is_ours) {
            socket.delete_rule(&rule).map_err(failed)?;
        }
    }
    Ok(())
}

fn check(plan: &NetPlan, sbr: &Sbr) -> Result<(), Error> {
    let (_netns, mut socket) = container::open(plan)?;
    let failed = |errno: Errno| Error::failed("rules by source", errno);
    let rules = socket.source_rules().map_err(failed)?;
    let routes = socket.routes().map_err(failed)?;
    for ip in own_ips(plan)? {
        let differs = |message: String| Err(Error::new(error::CHECK_FAILED, message));
        let source = host(ip.address.address);
        let Some(rule) = rules.iter().find(|rule| rule.source == source) else {
            return differs(format!("the rule for what {} sends is gone", ip.address.address));
        };
        let wanted = sbr.gateway_of(&ip);
        // A default route of the result's own goes before one by a gateway of the configuration.
        let leads_on = |route: &Route| {
            let is_by_one = route.gateway == wanted || route.gateway == ip.gateway;
            route.table == Some(rule.table) && route.destination.prefix == 0 && is_by_one
        };
        if let Some(gateway) = wanted
            && !routes.iter().any(leads_on)
        {
            return differs(format!("the route by {gateway} is gone from table {}", rule.table));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_table_that_nothing_uses_is_taken() {
        assert_eq!(next_table(&[254, 255]), 100);
        assert_eq!(next_table(&[101, 100, 254]), 102);
    }
}
