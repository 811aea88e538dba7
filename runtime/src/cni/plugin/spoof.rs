//! bridge's macspoofchk: what comes from a container has the container's MAC, or is dropped.
//!
//! In: an attachment, its port and MAC. Out: a rule in `bridge cni_macspoof`. Must never: look at other ports' frames.

use crate::cni::error::Error;
use crate::cni::plan::Attachment;
use crate::cni::rules;
use crate::cni::rules::Chain;
use crate::cni::rules::Table;
use crate::netlink::nft::Base;
use crate::netlink::nft::Expression;
use crate::netlink::nft::Family;
use crate::netlink::nft::Hook;
use crate::netlink::nft::Rule;
use crate::netlink::nft::Verdict;
use crate::netlink::nft::from_interface;
use crate::netlink::nft::sender_is;

const CHAIN: &str = "prerouting";
/// Before everything else that looks at a bridge's frames (NF_BR_PRI_NAT_DST_BRIDGED).
const PRIORITY: i32 = -300;

/// The table.
pub const TABLE: Table = Table {
    family: Family::Bridge,
    name: "cni_macspoof",
    chains: &[Chain {
        name: CHAIN,
        base: Some(Base { kind: "filter", hook: Hook::Prerouting, priority: PRIORITY }),
        fixed: None,
        is_admins: false,
    }],
};

/// Drops what the port `name` sends under another MAC.
///
/// # Errors
/// Code 999.
pub fn add(attachment: &Attachment, name: &str, mac: &[u8]) -> Result<(), Error> {
    let mut expressions = from_interface(name, true);
    expressions.extend(sender_is(mac, false));
    expressions.push(Expression::Verdict(Verdict::Drop));
    rules::add(&TABLE, &[Rule { chain: CHAIN, expressions, comment: rules::comment(attachment) }])
}
