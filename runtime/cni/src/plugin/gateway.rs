//! What a host does for containers whose gateway it is.
//!
//! In: addresses. Out: a host that forwards. Must never: take an address away unless it was told to.

use std::net::IpAddr;

use rustix::io::Errno;

use crate::error;
use crate::error::Error;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::route::Network;
use netlink::route::RouteSocket;

const SCOPE_LINK: u8 = 253;

/// The first address of a subnet after its base: the gateway where none is named.
pub fn first_of(network: Network) -> IpAddr {
    match network.base().address {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).saturating_add(1).into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).saturating_add(1).into()),
    }
}

/// Lets the host forward packets of the address's family.
///
/// # Errors
/// Code 999.
pub fn let_forward(address: IpAddr) -> Result<(), Error> {
    let key = if address.is_ipv4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
    let path = format!("/proc/sys/net/{key}");
    if !std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
        std::fs::write(&path, "1").map_err(|cause| Error::failed(&path, cause))?;
    }
    Ok(())
}

/// Gives a bridge's interface the gateway's address. Another one of IPv4, or one of IPv6 whose network overlaps, is a
/// conflict; `force` takes it away.
///
/// # Errors
/// Code 7 for a conflict; 999.
pub fn ensure_address(
    socket: &mut RouteSocket,
    link: &Link,
    wanted: Network,
    force: bool,
) -> Result<(), Error> {
    let failed = |errno: Errno| Error::failed(format!("address {wanted} on {}", link.name), errno);
    let v4 = wanted.address.is_ipv4();
    for there in socket.addresses(link.index).map_err(failed)? {
        let network = there.network;
        if network == wanted {
            return Ok(());
        }
        let overlap = network.contains(wanted.address) || wanted.contains(network.address);
        if network.address.is_ipv4() != v4 || there.scope == SCOPE_LINK || !(v4 || overlap) {
            continue;
        }
        if !force {
            let message = format!(
                "bridge {} has the address {network}, the network's gateway is {wanted}: take it away, name another bridge, or set forceAddress",
                link.name
            );
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        socket.delete_address(link.index, network).map_err(failed)?;
    }
    if !v4 {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.name), "0");
    }
    socket.add_address(link.index, wanted, true).map_err(failed)?;
    // A MAC that was set stays; one that a bridge took from a port goes with the port.
    let mac = <[u8; 6]>::try_from(link.mac.as_slice()).ok();
    socket.change_link(link.index, &LinkChange { mac, ..LinkChange::default() }).map_err(failed)
}
