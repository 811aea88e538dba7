//! The way of every plugin that gives a container an interface. What is its own, a `Driver` does.
//!
//! ```text
//! ADD     make -> addresses from IPAM -> complete -> the container's side -> finish -> the result
//! CHECK   IPAM -> kind, MAC, addresses, routes -> the driver's own check
//! DEL     IPAM -> remove                                          GC, STATUS   IPAM -> the driver's own
//! ```
//!
//! In: a plan and how to read its driver. Out: the answer. Must never: leave anything behind a failed ADD, or keep from
//! releasing addresses because something else failed (contract rules 13 and 15).

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use serde_json::Value;

use super::container;
use crate::error;
use crate::error::Error;
use crate::ipam;
use crate::plan::Attachment;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::plan::format_mac;
use crate::reply::Dns;
use crate::reply::Interface;
use crate::reply::Reply;
use crate::rules;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::link::NewLink;
use netlink::route::RouteSocket;

/// Random names of 32 bits: more than a few clashes in a row mean something else is wrong.
const NAME_TRIES_MAX: u32 = 16;

/// The two namespaces that a plugin works in.
#[derive(Debug)]
pub struct Ends {
    /// The container's.
    pub netns: OwnedFd,
    /// A socket in the container's.
    pub inner: RouteSocket,
    /// A socket in the host's, where the plugin was called.
    pub outer: RouteSocket,
}

impl Ends {
    /// Opens both.
    ///
    /// # Errors
    /// Code 8 when the container has no such namespace.
    pub fn open(plan: &NetPlan) -> Result<Ends, Error> {
        let (netns, inner) = container::open(plan)?;
        Ok(Ends { netns, inner, outer: host_socket()? })
    }
}

/// What becomes of the interface in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerSide {
    /// It gets the addresses and comes up.
    Up,
    /// Somebody else will bring it up.
    Down,
    /// There is none: a program in the container drives the device itself.
    Absent,
}

/// What an interface plugin does in its own way, its configuration read.
pub trait Driver {
    /// The kernel's name for the interface's kind; `None` is any.
    fn kind(&self) -> Option<&'static str>;

    /// Makes the interface in the container, under its name, down. The names of the interfaces on the host that belong
    /// to it come first in the result. Must leave nothing when it fails.
    ///
    /// # Errors
    /// Code 102 when the container has such an interface; what failed.
    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error>;

    /// The address of the device behind it.
    fn pci_id(&self) -> Option<&str> {
        None
    }

    /// What becomes of it then.
    fn container_side(&self) -> ContainerSide {
        ContainerSide::Up
    }

    /// Whether the plugin is of no use without addresses.
    fn needs_addresses(&self) -> bool {
        false
    }

    /// Whether neighbours that are none of ours may have its IPv6 addresses, so that ADD waits until that is known.
    fn detects_duplicates(&self) -> bool {
        false
    }

    /// Its addresses and routes.
    ///
    /// # Errors
    /// IPAM's.
    fn addresses(&self, plan: &NetPlan) -> Result<Reply, Error> {
        ipam::add(plan)
    }

    /// Fills in what IPAM left open.
    ///
    /// # Errors
    /// Code 7 when that can't be.
    fn complete(&self, _reply: &mut Reply) -> Result<(), Error> {
        Ok(())
    }

    /// What there is to do when the container's side has its addresses.
    ///
    /// # Errors
    /// What failed.
    fn finish(&self, _plan: &NetPlan, _ends: &mut Ends, _reply: &mut Reply) -> Result<(), Error> {
        Ok(())
    }

    /// CHECK of what is its own; `link` is the container's interface.
    ///
    /// # Errors
    /// Code 101.
    fn check(&self, _plan: &NetPlan, _ends: &mut Ends, _link: &Link, _reply: &Reply) -> Result<(), Error> {
        Ok(())
    }

    /// Takes everything back but the addresses; what is gone already is fine.
    ///
    /// # Errors
    /// What failed.
    fn remove(&self, plan: &NetPlan) -> Result<(), Error> {
        remove(plan)
    }

    /// GC of what is its own.
    ///
    /// # Errors
    /// What failed.
    fn collect_garbage(&self, _plan: &NetPlan) -> Result<(), Error> {
        Ok(())
    }

    /// STATUS of what is its own.
    ///
    /// # Errors
    /// Code 50.
    fn status(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Runs a verb.
///
/// # Errors
/// Codes 5 to 8, 50 from STATUS, 101 from CHECK, 102 when the interface exists, 999; IPAM's.
pub fn run(
    plan: &NetPlan,
    read: fn(&NetPlan) -> Result<Box<dyn Driver>, Error>,
) -> Result<Option<Value>, Error> {
    let driver = match (read(plan), plan.command) {
        (Ok(driver), _) => driver,
        // ADD refuses this configuration, so an interface of that name is another network's.
        (Err(_), Command::Del | Command::Gc) => return ipam::pass_on(plan).map(|()| None),
        (Err(error), _) => return Err(error),
    };
    match plan.command {
        Command::Add => return add(plan, &*driver)?.to_json(plan.version).map(Some),
        Command::Check => check(plan, &*driver)?,
        // Both are tried, and the first error told.
        Command::Del => {
            let released = ipam::pass_on(plan);
            released.and(driver.remove(plan))?;
        }
        Command::Gc => {
            let released = ipam::pass_on(plan);
            released.and(driver.collect_garbage(plan))?;
        }
        Command::Status => ipam::pass_on(plan).and(driver.status())?,
    }
    Ok(None)
}

fn add(plan: &NetPlan, driver: &dyn Driver) -> Result<Reply, Error> {
    if driver.needs_addresses() && ipam::kind(plan)?.is_none() {
        let message = "field ipam.type is missing: this plugin's interface is of no use without addresses";
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    let mut ends = Ends::open(plan)?;
    let hosts = driver.make(plan, &mut ends)?;
    let mut holds_addresses = false;
    let result = settle(plan, driver, &mut ends, &hosts, &mut holds_addresses);
    if result.is_err() {
        // The error that is told is the first one; these take back what was done, as far as it goes.
        if holds_addresses {
            let _ = release(plan);
        }
        let _ = driver.remove(plan);
    }
    result
}

fn settle(
    plan: &NetPlan,
    driver: &dyn Driver,
    ends: &mut Ends,
    hosts: &[String],
    holds_addresses: &mut bool,
) -> Result<Reply, Error> {
    let ifname = &plan.attachment.ifname;
    let mut reply = driver.addresses(plan)?;
    *holds_addresses = true;
    let has_interface = driver.container_side() != ContainerSide::Absent;
    for ip in &mut reply.ips {
        ip.interface = u32::try_from(hosts.len()).ok().filter(|_| has_interface);
    }
    driver.complete(&mut reply)?;
    if driver.container_side() == ContainerSide::Up {
        let detect = driver.detects_duplicates();
        container::configure(ends.netns.as_fd(), &mut ends.inner, ifname, &reply, detect)?;
    }
    driver.finish(plan, ends, &mut reply)?;
    let mut interfaces = Vec::new();
    for name in hosts {
        interfaces.push(shown(&existing(&mut ends.outer, name)?, String::new()));
    }
    if has_interface {
        let interface = shown(&existing(&mut ends.inner, ifname)?, container::sandbox(plan));
        interfaces.push(Interface { pci_id: driver.pci_id().map(str::to_string), ..interface });
    }
    interfaces.append(&mut reply.interfaces); // what finish made comes last
    reply.interfaces = interfaces;
    // The configuration's name servers come before IPAM's.
    let configured = plan.fields()?.object("dns")?.map(|dns| Dns::parse(&dns)).transpose()?;
    if let Some(dns) = configured.filter(|dns| !dns.is_empty()) {
        reply.dns = dns;
    }
    Ok(reply)
}

fn check(plan: &NetPlan, driver: &dyn Driver) -> Result<(), Error> {
    ipam::pass_on(plan)?;
    if driver.container_side() == ContainerSide::Absent {
        return Ok(());
    }
    let reply = plan.required_previous()?;
    let mut ends = Ends::open(plan)?;
    let is_up = driver.container_side() == ContainerSide::Up;
    let link = container::check(&mut ends.inner, &plan.attachment.ifname, reply, is_up)?;
    if let Some(kind) = driver.kind().filter(|kind| *kind != link.kind) {
        return Err(differs(format!("interface {} is no {kind} but {:?}", link.name, link.kind)));
    }
    driver.check(plan, &mut ends, &link, reply)
}

/// Removes the container's interface; what is gone already is fine.
///
/// # Errors
/// Code 999.
pub fn remove(plan: &NetPlan) -> Result<(), Error> {
    let ifname = &plan.attachment.ifname;
    let failed = |errno: Errno| Error::failed(format!("interface {ifname} can't be removed"), errno);
    let Some((_, mut inner)) = container::try_open(plan)? else { return Ok(()) };
    for name in [ifname, &unfinished_name(&plan.attachment)] {
        if let Some(link) = inner.link(name).map_err(failed)? {
            return inner.delete_link(link.index).map_err(failed);
        }
    }
    Ok(())
}

/// Makes the container's interface: in the container where what it is made on lies there (or it is made on nothing),
/// else on the host.
///
/// # Errors
/// Code 102 when the container has such an interface; 999.
pub fn create(plan: &NetPlan, ends: &mut Ends, in_container: bool, new: &NewLink<'_>) -> Result<(), Error> {
    let ifname = plan.attachment.ifname.as_str();
    let failed = |errno: Errno| Error::failed(format!("{} {ifname} can't be made", new.kind.name()), errno);
    refuse_existing(plan, ends)?;
    if in_container {
        return ends.inner.create_link(&NewLink { name: ifname, ..*new }).map_err(failed);
    }
    // The kernel looks for the name in the host's namespace too, so it is another one until the interface is inside.
    let netns = ends.netns.as_fd();
    let mut make = |name: &str| ends.outer.create_link(&NewLink { name, namespace: Some(netns), ..*new });
    let unfinished = unfinished_name(&plan.attachment);
    let name = match make(&unfinished) {
        Ok(()) => Ok(unfinished),
        Err(Errno::EXIST) => with_random_name(make),
        Err(errno) => Err(errno),
    };
    let name = name.map_err(failed)?;
    let index = existing(&mut ends.inner, &name)?.index;
    let renamed = ends.inner.change_link(index, &LinkChange { name: Some(ifname), ..LinkChange::default() });
    renamed.map_err(|errno| {
        let _ = ends.inner.delete_link(index); // the first error is the one to tell
        failed(errno)
    })
}

/// The name that an interface has until it is in the container: DEL knows it too, should ADD be killed before that.
fn unfinished_name(attachment: &Attachment) -> String {
    let Attachment { network, id, ifname } = attachment;
    let parts = [network.as_bytes(), b"\0", id.as_bytes(), b"\0", ifname.as_bytes()];
    format!("cni{:012x}", rules::hash(&parts) >> 16)
}

/// Calls `make` with random names until one is free, and gives that.
///
/// # Errors
/// `make`'s.
pub fn with_random_name(mut make: impl FnMut(&str) -> Result<(), Errno>) -> Result<String, Errno> {
    for _ in 0..NAME_TRIES_MAX {
        let name = format!("veth{:08x}", random() & 0xffff_ffff);
        match make(&name) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// A second ADD must not touch what the first one made.
///
/// # Errors
/// Code 102 when the container has an interface of that name.
pub fn refuse_existing(plan: &NetPlan, ends: &mut Ends) -> Result<(), Error> {
    let ifname = &plan.attachment.ifname;
    let found = ends.inner.link(ifname).map_err(|errno| Error::failed(ifname, errno))?;
    found.map_or(Ok(()), |_| {
        let message = format!("the container has an interface {ifname} already");
        Err(Error::new(error::ALREADY_ATTACHED, message))
    })
}

/// An interface that must be there.
///
/// # Errors
/// Code 999 when it isn't.
pub fn existing(socket: &mut RouteSocket, name: &str) -> Result<Link, Error> {
    let link = socket.link(name).map_err(|errno| Error::failed(name, errno))?;
    link.ok_or_else(|| Error::failed(name, "there is no such interface"))
}

/// An interface as results show it.
pub fn shown(link: &Link, sandbox: String) -> Interface {
    let mac = format_mac(&link.mac);
    Interface { name: link.name.clone(), mac, mtu: Some(link.mtu), sandbox, ..Interface::default() }
}

/// CHECK found a difference.
pub fn differs(message: String) -> Error {
    Error::new(error::CHECK_FAILED, message)
}

/// A socket in the host's namespace.
///
/// # Errors
/// Code 999.
pub fn host_socket() -> Result<RouteSocket, Error> {
    RouteSocket::open().map_err(|errno| Error::failed("a netlink socket", errno))
}

/// Gives the addresses back.
fn release(plan: &NetPlan) -> Result<(), Error> {
    let mut plan = plan.clone();
    plan.command = Command::Del;
    plan.request.command = "DEL".to_string();
    ipam::pass_on(&plan)
}

/// The standard library seeds its hash maps from the kernel's random numbers; this is such a seed.
pub fn random() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_29_a_random_name_that_is_taken_is_tried_again_and_not_for_ever() {
        let mut tried = Vec::new();
        let name = with_random_name(|name| {
            tried.push(name.to_string());
            if tried.len() < 3 { Err(Errno::EXIST) } else { Ok(()) }
        });
        assert_eq!(name.as_ref(), Ok(&tried[2]));
        assert!(tried[0] != tried[1] && tried[1] != tried[2], "{tried:?}");
        assert!(crate::plan::is_interface_name(&tried[0]));
        assert_eq!(with_random_name(|_| Err(Errno::EXIST)), Err(Errno::EXIST));
        assert_eq!(with_random_name(|_| Err(Errno::PERM)), Err(Errno::PERM));
    }
}
