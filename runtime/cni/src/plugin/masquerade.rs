//! ipMasq of bridge and ptp: what leaves the container's network gets the host's address.
//!
//! In: an attachment and its addresses. Out: rules in `inet cni_plugins_masquerade`. Must never: masquerade multicast.

use std::net::IpAddr;

use super::interface::differs;
use crate::error::Error;
use crate::plan::Attachment;
use crate::reply::IpConfig;
use crate::reply::Reply;
use crate::rules;
use crate::rules::Chain;
use crate::rules::Table;
use netlink::nft::Base;
use netlink::nft::Expression;
use netlink::nft::Family;
use netlink::nft::Hook;
use netlink::nft::Rule;
use netlink::nft::Side;
use netlink::nft::Verdict;
use netlink::nft::address_is;
use netlink::route::Network;

const CHAIN: &str = "masq_checks";
const PRIORITY_SRCNAT: i32 = 100;

/// The table.
pub const TABLE: Table = Table {
    family: Family::Inet,
    name: "cni_plugins_masquerade",
    chains: &[
        Chain { name: CHAIN, base: None, fixed: None, is_admins: false },
        Chain {
            name: "postrouting",
            base: Some(Base { kind: "nat", hook: Hook::Postrouting, priority: PRIORITY_SRCNAT }),
            fixed: Some(fixed),
            is_admins: false,
        },
    ],
};

fn fixed() -> Vec<Vec<Expression>> {
    let v4 = Network { address: IpAddr::from([224, 0, 0, 0]), prefix: 4 };
    let v6 = Network { address: IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), prefix: 8 };
    let multicast = [v4, v6].map(|network| {
        let mut rule = address_is(Family::Inet, Side::Destination, network, true);
        rule.push(Expression::Verdict(Verdict::Return));
        rule
    });
    multicast.into_iter().chain([vec![Expression::Verdict(Verdict::Jump(CHAIN))]]).collect()
}

/// Masquerades what the addresses send out of their networks.
///
/// # Errors
/// Code 999.
pub fn add(attachment: &Attachment, ips: &[IpConfig]) -> Result<(), Error> {
    let rule = |ip: &IpConfig| {
        let host = Network { address: ip.address.address, prefix: ip.address.bits() };
        let mut expressions = address_is(Family::Inet, Side::Source, host, true);
        expressions.extend(address_is(Family::Inet, Side::Destination, ip.address, false));
        expressions.push(Expression::Masquerade);
        Rule { chain: CHAIN, expressions, comment: rules::comment(attachment) }
    };
    rules::add(&TABLE, &ips.iter().map(rule).collect::<Vec<_>>())
}

/// CHECK: an attachment that is masqueraded still is.
///
/// # Errors
/// Code 101.
pub fn check(is_wanted: bool, attachment: &Attachment, reply: &Reply) -> Result<(), Error> {
    if is_wanted && rules::count(&TABLE, attachment)? < reply.ips.len() {
        return Err(differs(format!("rules are gone from table {}", TABLE.name)));
    }
    Ok(())
}
