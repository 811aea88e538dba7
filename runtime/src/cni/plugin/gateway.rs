//! What a host does for containers whose gateway it is.
//!
//! In: addresses. Out: a host that forwards. Must never: take an address away unless it was told to.

use std::net::IpAddr;

use crate::cni::error::Error;
use crate::netlink::route::Network;

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
