//! IPAM: an interface plugin's way to addresses, and the IPAM plugins of ours.
//!
//! In: the plan whose configuration has an `ipam` field. Out: addresses, routes, name servers.
//! Must never: make an interface.

pub mod dhcp;
pub mod host_local;
pub mod static_addresses;
mod store;

use std::net::IpAddr;

use super::error;
use super::error::Error;
use super::invoke;
use super::plan::NetPlan;
use super::reply::Reply;
use super::version::Version;

/// The `ipam.type` of a configuration, or `None` when it asks for no addresses.
///
/// # Errors
/// Code 6.
pub fn kind(plan: &NetPlan) -> Result<Option<String>, Error> {
    let Some(ipam) = plan.fields()?.object("ipam")? else { return Ok(None) };
    Ok(ipam.text("type")?.filter(|kind| !kind.is_empty()).map(str::to_string))
}

/// Asks the IPAM plugin for addresses; an empty reply when the configuration has none.
///
/// # Errors
/// The IPAM plugin's; code 999 when it gave no address.
pub fn add(plan: &NetPlan) -> Result<Reply, Error> {
    let Some(kind) = kind(plan)? else { return Ok(Reply::default()) };
    let answer = invoke::call_ipam(&kind, plan)?;
    let reply = answer.map(|value| Reply::parse(&value, plan.version)).transpose()?.unwrap_or_default();
    if reply.ips.is_empty() {
        return Err(Error::new(error::OTHER, format!("IPAM plugin {kind} gave no address")));
    }
    Ok(reply)
}

/// Hands any other verb on to the IPAM plugin.
///
/// # Errors
/// The IPAM plugin's.
pub fn pass_on(plan: &NetPlan) -> Result<(), Error> {
    match kind(plan)? {
        Some(kind) => invoke::call_ipam(&kind, plan).map(drop),
        None => Ok(()),
    }
}

/// Results up to cniVersion 0.2.0 have room for one address of a family: more is refused, in the reference's words, as
/// its callers look for them.
fn check_room(version: Version, addresses: &[IpAddr]) -> Result<(), Error> {
    let of_family = |v4| addresses.iter().filter(|address| address.is_ipv4() == v4).count();
    if version > Version::V0_2_0 || (of_family(true) <= 1 && of_family(false) <= 1) {
        return Ok(());
    }
    let message = format!("CNI version {version} does not support more than 1 address per family");
    Err(Error::new(error::INVALID_CONFIG, message))
}
