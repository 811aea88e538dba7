//! vrf: makes the interface a port of a vrf in the container, so that it is routed by a table of its own.
//!
//! In: vrfname, table, prevResult. Out: the vrf, made when the first interface comes and gone with the last; prevResult.
//! Must never: lose addresses and routes that the interface had; the kernel drops them when it becomes a port.

use rustix::io::Errno;
use serde_json::Value;

use super::container;
use crate::error;
use crate::error::Error;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::plan::is_interface_name;
use netlink::link::Kind;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::link::MODE;
use netlink::link::NewLink;
use netlink::route::RouteSocket;

const SCOPE_UNIVERSE: u8 = 0;

/// The plugin's own fields.
#[derive(Debug)]
struct Vrf {
    name: String,
    table: Option<u32>,
}

impl Vrf {
    fn new(plan: &NetPlan) -> Result<Vrf, Error> {
        let fields = plan.fields()?;
        let name = fields.required("vrfname", fields.text("vrfname")?.filter(|name| !name.is_empty()))?;
        if !is_interface_name(name) {
            let message = format!("field vrfname: {name:?} is no interface name");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        Ok(Vrf { name: name.to_string(), table: fields.number("table")?.filter(|table| *table != 0) })
    }

    /// The link of that name with its table, or `None`.
    fn find(&self, socket: &mut RouteSocket) -> Result<Option<(Link, u32)>, Error> {
        let found = socket.link(&self.name).map_err(|errno| Error::failed(&self.name, errno))?;
        let Some(link) = found else { return Ok(None) };
        let Some(table) = table_of(&link) else {
            let message = format!("field vrfname: the interface {} exists and is no vrf", self.name);
            return Err(Error::new(error::INVALID_CONFIG, message));
        };
        Ok(Some((link, table)))
    }
}

/// A vrf's routing table, which is the first attribute of its kind.
fn table_of(link: &Link) -> Option<u32> {
    if link.kind == "vrf" { link.number(MODE) } else { None }
}

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<(), Error> {
    Vrf::new(plan).map(drop)
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 to 8, 101 from CHECK, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    let vrf = match Vrf::new(plan) {
        // What ADD refused has nothing to take back.
        Err(_) if plan.command == Command::Del => return Ok(None),
        other => other?,
    };
    match plan.command {
        Command::Add => return add(plan, &vrf).map(Some),
        Command::Del => delete(plan, &vrf)?,
        Command::Check => check(plan, &vrf)?,
        // The vrf goes with the namespace.
        Command::Gc | Command::Status => {}
    }
    Ok(None)
}

fn add(plan: &NetPlan, vrf: &Vrf) -> Result<Value, Error> {
    let answer = plan.pass_through()?;
    let (_netns, mut socket) = container::open(plan)?;
    let (master, table) = ensure(vrf, &mut socket)?;
    if let Err(error) = enslave(plan, vrf, &mut socket, &master, table) {
        let _ = delete(plan, vrf); // the first error is the one to tell
        return Err(error);
    }
    Ok(answer)
}

fn ensure(vrf: &Vrf, socket: &mut RouteSocket) -> Result<(Link, u32), Error> {
    let failed = |errno: Errno| Error::failed(format!("vrf {}", vrf.name), errno);
    if vrf.find(socket)?.is_none() {
        let tables: Vec<u32> = socket.links().map_err(failed)?.iter().filter_map(table_of).collect();
        let free = (1..u32::MAX).find(|table| !tables.contains(table)).unwrap_or(1);
        let kind = Kind::Vrf(vrf.table.unwrap_or(free));
        match socket.create_link(&NewLink { up: true, ..NewLink::new(kind, &vrf.name) }) {
            Ok(()) | Err(Errno::EXIST) => {} // another ADD was faster
            Err(errno) => return Err(failed(errno)),
        }
    }
    let (master, table) = vrf.find(socket)?.ok_or_else(|| failed(Errno::NODEV))?;
    if let Some(wanted) = vrf.table.filter(|wanted| *wanted != table) {
        let message = format!("field table: the vrf {} is there with table {table}, not {wanted}", vrf.name);
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    Ok((master, table))
}

fn enslave(
    plan: &NetPlan,
    vrf: &Vrf,
    socket: &mut RouteSocket,
    master: &Link,
    table: u32,
) -> Result<(), Error> {
    let ifname = &plan.attachment.ifname;
    let failed = |errno: Errno| Error::failed(format!("{ifname} in vrf {}", vrf.name), errno);
    let link = socket.link(ifname).map_err(failed)?.ok_or_else(|| failed(Errno::NODEV))?;
    if link.master == master.index {
        return Ok(());
    }
    if link.master != 0 {
        let other =
            socket.link_by_index(link.master).map_err(failed)?.map(|link| link.name).unwrap_or_default();
        let message = format!("interface {ifname} is a port of {other} already");
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    let addresses = socket.addresses(link.index).map_err(failed)?;
    let routes = socket.held_routes(link.index).map_err(failed)?;
    set_master(socket, link.index, master.index).map_err(failed)?;
    let kept = socket.addresses(link.index).map_err(failed)?;
    for address in addresses.iter().filter(|address| !kept.contains(address)) {
        socket.add_address(link.index, address.network, true).map_err(failed)?;
    }
    // The kernel makes those to its own networks anew; the others are gone from the main table.
    for route in routes.iter().filter(|route| route.scope == SCOPE_UNIVERSE && route.gateway.is_some()) {
        socket.copy_route(route, table).map_err(failed)?;
    }
    Ok(())
}

fn set_master(socket: &mut RouteSocket, index: u32, master: u32) -> Result<(), Errno> {
    socket.change_link(index, &LinkChange { master: Some(master), ..LinkChange::default() })
}

fn delete(plan: &NetPlan, vrf: &Vrf) -> Result<(), Error> {
    let Some((_netns, mut socket)) = container::try_open(plan)? else { return Ok(()) };
    let failed = |errno: Errno| Error::failed(format!("vrf {}", vrf.name), errno);
    // An interface of that name that is no vrf, ADD refused.
    let found = socket.link(&vrf.name).map_err(failed)?;
    let Some(master) = found.filter(|link| table_of(link).is_some()) else { return Ok(()) };
    let index = master.index;
    if let Some(link) = socket.link(&plan.attachment.ifname).map_err(failed)?
        && link.master == index
    {
        set_master(&mut socket, link.index, 0).map_err(failed)?;
    }
    let in_use = socket.links().map_err(failed)?.iter().any(|link| link.master == index);
    if in_use { Ok(()) } else { socket.delete_link(index).map_err(failed) }
}

fn check(plan: &NetPlan, vrf: &Vrf) -> Result<(), Error> {
    let differs = |message: String| Err(Error::new(error::CHECK_FAILED, message));
    let (_netns, mut socket) = container::open(plan)?;
    let Some((master, table)) = vrf.find(&mut socket)? else {
        return differs(format!("vrf {} is gone", vrf.name));
    };
    if vrf.table.is_some_and(|wanted| wanted != table) {
        return differs(format!("vrf {} has table {table}", vrf.name));
    }
    let ifname = &plan.attachment.ifname;
    let link = socket.link(ifname).map_err(|errno| Error::failed(ifname, errno))?;
    if link.is_none_or(|link| link.master != master.index) {
        return differs(format!("{ifname} is no port of vrf {} any more", vrf.name));
    }
    Ok(())
}
