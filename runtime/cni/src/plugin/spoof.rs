//! bridge's macspoofchk: what comes from a container has the container's MAC, or is dropped.
//!
//! In: an attachment, its port and MAC. Out: a rule in `bridge cni_macspoof`. Must never: look at other ports' frames.

use crate::error::Error;
use crate::plan::Attachment;
use crate::rules;
use crate::rules::Chain;
use crate::rules::Table;
use netlink::nft::Base;
use netlink::nft::Expression;
use netlink::nft::Family;
use netlink::nft::Hook;
use netlink::nft::Rule;
use netlink::nft::Verdict;
use netlink::nft::from_interface;
use netlink::nft::sender_is;

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
