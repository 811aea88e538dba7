//! tap: an interface whose other end is a program, such as a virtual machine's monitor in the container.
//!
//! In: the plan. Out: the container's interface. Must never: run `ip`, as the reference does.

use std::os::fd::AsFd;

use rustix::io::Errno;
use serde_json::Value;

use super::interface;
use super::interface::Driver;
use super::interface::Ends;
use super::interface::differs;
use super::interface::existing;
use crate::error;
use crate::error::Error;
use crate::plan::NetPlan;
use crate::reply::Reply;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::namespace;
use netlink::route::RouteSocket;
use sys::tap::Tap as Device;

struct Tap {
    mtu: Option<u32>,
    mac: Option<[u8; 6]>,
    owner: Option<u32>,
    group: Option<u32>,
    multi_queue: bool,
    /// A bridge in the container that it becomes a port of.
    bridge: Option<String>,
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
    let bridge = fields.text("bridge")?.filter(|name| !name.is_empty()).map(str::to_string);
    if let Some(name) = bridge.as_ref().filter(|name| !crate::plan::is_interface_name(name)) {
        let message = format!("field bridge: {name:?} is no interface name");
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    Ok(Box::new(Tap {
        mtu: fields.number("mtu")?.filter(|mtu| *mtu != 0),
        mac: plan.wanted_mac()?,
        owner: fields.number("owner")?,
        group: fields.number("group")?,
        multi_queue: fields.flag("multiQueue")?,
        bridge,
    }))
}

impl Driver for Tap {
    fn kind(&self) -> Option<&'static str> {
        Some("tun")
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        let ifname = plan.attachment.ifname.as_str();
        let failed = |errno: Errno| Error::failed(format!("tap {ifname} can't be made"), errno);
        interface::refuse_existing(plan, ends)?;
        let master = self.bridge.as_ref().map(|name| bridge_of(&mut ends.inner, name)).transpose()?;
        let device =
            Device { name: ifname, owner: self.owner, group: self.group, multi_queue: self.multi_queue };
        namespace::inside(ends.netns.as_fd(), || device.create()).map_err(failed)?;
        let index = existing(&mut ends.inner, ifname)?.index;
        let change = LinkChange { mtu: self.mtu, mac: self.mac, master, ..LinkChange::default() };
        if let Err(errno) = ends.inner.change_link(index, &change) {
            let _ = ends.inner.delete_link(index); // the first error is the one to tell
            return Err(failed(errno));
        }
        Ok(vec![])
    }

    fn check(&self, _plan: &NetPlan, ends: &mut Ends, link: &Link, _reply: &Reply) -> Result<(), Error> {
        let Some(name) = &self.bridge else { return Ok(()) };
        let master = bridge_of(&mut ends.inner, name).map_err(|error| differs(error.message))?;
        if link.master != master {
            return Err(differs(format!("{} is no port of bridge {name} any more", link.name)));
        }
        Ok(())
    }
}

/// The index of a bridge in the container.
fn bridge_of(socket: &mut RouteSocket, name: &str) -> Result<u32, Error> {
    let found = socket.link(name).map_err(|errno| Error::failed(name, errno))?;
    found.filter(|link| link.kind == "bridge").map(|link| link.index).ok_or_else(|| {
        Error::new(error::INVALID_CONFIG, format!("field bridge: the container has no bridge {name}"))
    })
}
