//! What macvlan, ipvlan and vlan are made on: an interface of the host, or of the container (`linkInContainer`).
//!
//! In: fields `master`, `linkInContainer`, `mtu`. Out: that interface; another one on top of it. Must never: change it.

use super::interface;
use super::interface::Ends;
use super::interface::differs;
use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use crate::plan::NetPlan;
use netlink::link::Kind;
use netlink::link::Link;
use netlink::link::NewLink;
use netlink::route::RouteSocket;

/// The three fields.
#[derive(Debug)]
pub struct Master {
    /// `None` is the interface of the default route.
    pub name: Option<String>,
    in_container: bool,
    mtu: Option<u32>,
}

impl Master {
    /// Reads them.
    ///
    /// # Errors
    /// Codes 6 and 7.
    pub fn read(fields: &Fields<'_>) -> Result<Master, Error> {
        let name = fields.text("master")?.filter(|name| !name.is_empty()).map(str::to_string);
        if let Some(name) = name.as_ref().filter(|name| !crate::plan::is_interface_name(name)) {
            let message = format!("field master: {name:?} is no interface name");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let mtu = fields.number("mtu")?.filter(|mtu| *mtu != 0);
        Ok(Master { name, in_container: fields.flag("linkInContainer")?, mtu })
    }

    /// Makes an interface on it.
    ///
    /// # Errors
    /// Code 7 when there is no master or its MTU is too small, 102 when the interface exists, 999.
    pub fn make(
        &self,
        plan: &NetPlan,
        ends: &mut Ends,
        kind: Kind<'_>,
        mac: Option<[u8; 6]>,
    ) -> Result<(), Error> {
        let master = self.find(self.socket(ends))?;
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu > master.mtu) {
            let message = format!("field mtu: {mtu} is more than {} has: {}", master.name, master.mtu);
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let new = NewLink { mac, mtu: self.mtu, parent: master.index, ..NewLink::new(kind, "") };
        interface::create(plan, ends, self.in_container, &new)
    }

    /// CHECK: the interface is still made on it, and its number `attribute` is `wanted`, a `what`.
    ///
    /// # Errors
    /// Code 101.
    pub fn check(&self, ends: &mut Ends, link: &Link, what: &str, wanted: u32) -> Result<(), Error> {
        if self.name.is_some() {
            let master = self.find(self.socket(ends)).map_err(|error| differs(error.message))?;
            if link.parent != master.index {
                return Err(differs(format!("interface {} is not made on {}", link.name, master.name)));
            }
        }
        let found = link.number(netlink::link::MODE);
        if found != Some(wanted) {
            let found = found.unwrap_or_default();
            return Err(differs(format!("interface {} has the {what} {found}, not {wanted}", link.name)));
        }
        Ok(())
    }

    /// STATUS: whether it is there; a container's can't be known yet.
    ///
    /// # Errors
    /// Code 50.
    pub fn status(&self) -> Result<(), Error> {
        if self.in_container {
            return Ok(());
        }
        let found = self.find(&mut interface::host_socket()?).map(drop);
        found.map_err(|error| Error { code: error::NOT_AVAILABLE, ..error })
    }

    fn socket<'a>(&self, ends: &'a mut Ends) -> &'a mut RouteSocket {
        if self.in_container { &mut ends.inner } else { &mut ends.outer }
    }

    fn find(&self, socket: &mut RouteSocket) -> Result<Link, Error> {
        let place = if self.in_container { "the container" } else { "the host" };
        let found = match &self.name {
            Some(name) => socket.link(name),
            None => socket.default_route_interface(),
        };
        let found = found.map_err(|errno| Error::failed("master", errno))?;
        found.ok_or_else(|| {
            let message = match &self.name {
                Some(name) => format!("field master: {place} has no interface {name}"),
                None => format!("field master is missing, and {place} has no default route to take it from"),
            };
            Error::new(error::INVALID_CONFIG, message)
        })
    }
}
