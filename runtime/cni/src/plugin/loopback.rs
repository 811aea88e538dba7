//! loopback: brings a namespace's `lo` up.
//!
//! In: the namespace. Out: lo and its addresses, or prevResult as it came. Must never: fail DEL because all is gone.

use std::os::fd::AsFd;

use serde_json::Value;

use super::container;
use crate::error;
use crate::error::Error;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::reply::Interface;
use crate::reply::IpConfig;
use crate::reply::Reply;
use netlink::link::UP;
use netlink::route::RouteSocket;

const NAME: &str = "lo";

/// Runs a verb.
///
/// # Errors
/// Code 8 for a namespace that can't be entered, 101 from CHECK.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    match plan.command {
        Command::Add => add(plan).map(Some),
        Command::Check => {
            let mut socket = container::open(plan)?.1;
            let lo = link(&mut socket)?;
            if lo.flags & UP == 0 {
                return Err(Error::new(error::CHECK_FAILED, "lo is down"));
            }
            Ok(None)
        }
        // lo goes with its namespace, and other networks of the container still need it until then.
        Command::Del | Command::Status | Command::Gc => Ok(None),
    }
}

fn add(plan: &NetPlan) -> Result<Value, Error> {
    let (netns, mut socket) = container::open(plan)?;
    container::prepare(netns.as_fd(), NAME, false, true);
    let lo = link(&mut socket)?;
    socket.set_up(lo.index).map_err(|errno| Error::failed("lo can't be brought up", errno))?;
    if plan.previous.is_some() {
        return plan.pass_through();
    }
    let addresses = socket.addresses(lo.index).map_err(|errno| Error::failed("lo's addresses", errno))?;
    let ips = addresses.iter().map(|address| IpConfig {
        interface: Some(0),
        address: address.network,
        gateway: None,
    });
    let interface = Interface {
        name: NAME.to_string(),
        mac: crate::plan::format_mac(&lo.mac),
        sandbox: container::sandbox(plan),
        ..Interface::default()
    };
    Reply { interfaces: vec![interface], ips: ips.collect(), ..Reply::default() }.to_json(plan.version)
}

fn link(socket: &mut RouteSocket) -> Result<netlink::link::Link, Error> {
    let found = socket.link(NAME).map_err(|errno| Error::failed("lo can't be looked up", errno))?;
    found.ok_or_else(|| Error::new(error::OTHER, "the namespace has no lo"))
}
