//! firewall: lets a container's packets through, and with `ingressPolicy: same-bridge` only its own bridge's in.
//!
//! In: prevResult. Out: rules in `inet cni_firewall`, prevResult. Must never: fail DEL because prevResult is missing.
//!
//! The chain `admin` comes first and belongs to whoever runs the machine.

use serde_json::Value;

use crate::error;
use crate::error::Error;
use crate::plan::Command;
use crate::plan::NetPlan;
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
use netlink::nft::from_interface;
use netlink::nft::is_known_connection;
use netlink::nft::to_interface;
use netlink::route::Network;

const ADMIN: &str = "admin";
const ISOLATION_FROM: &str = "isolation_from";
const ISOLATION_TO: &str = "isolation_to";
const CONTAINERS: &str = "containers";
const PRIORITY_FILTER: i32 = 0;

const TABLE: Table = Table {
    family: Family::Inet,
    name: "cni_firewall",
    chains: &[
        Chain { name: ADMIN, base: None, fixed: None, is_admins: true },
        Chain { name: ISOLATION_TO, base: None, fixed: None, is_admins: false },
        Chain { name: ISOLATION_FROM, base: None, fixed: None, is_admins: false },
        Chain { name: CONTAINERS, base: None, fixed: None, is_admins: false },
        Chain {
            name: "forward",
            base: Some(Base { kind: "filter", hook: Hook::Forward, priority: PRIORITY_FILTER }),
            fixed: Some(fixed),
            is_admins: false,
        },
    ],
};

fn fixed() -> Vec<Vec<Expression>> {
    [ADMIN, ISOLATION_FROM, CONTAINERS].map(|chain| vec![Expression::Verdict(Verdict::Jump(chain))]).to_vec()
}

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<Vec<(Family, Rule)>, Error> {
    let rules = rules_of(plan, is_same_bridge(plan)?)?;
    Ok(rules.into_iter().map(|rule| (TABLE.family, rule)).collect())
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 and 7, 101 from CHECK, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    // DEL goes by the comment, so a field that ADD refused does not stop it.
    let same_bridge = is_same_bridge(plan);
    match plan.command {
        Command::Add => {
            let (same_bridge, answer) = (same_bridge?, plan.pass_through()?);
            rules::add(&TABLE, &rules_of(plan, same_bridge)?)?;
            return Ok(Some(answer));
        }
        Command::Del => rules::remove(&TABLE, &plan.attachment)?,
        Command::Check => {
            if rules::count(&TABLE, &plan.attachment)? < rules_of(plan, same_bridge?)?.len() {
                let message = format!("rules are gone from table {}", TABLE.name);
                return Err(Error::new(error::CHECK_FAILED, message));
            }
        }
        Command::Gc => rules::keep_only(&TABLE, &plan.attachment.network, &plan.valid)?,
        Command::Status => same_bridge.and_then(|_| rules::available())?,
    }
    Ok(None)
}

fn is_same_bridge(plan: &NetPlan) -> Result<bool, Error> {
    let fields = plan.fields()?;
    let wrong = |message: String| Err(Error::new(error::INVALID_CONFIG, message));
    if let Some(backend) = fields.text("backend")?.filter(|backend| !matches!(*backend, "" | "nftables")) {
        return wrong(format!(
            "field backend: {backend:?} is not supported, only \"nftables\"; drop the field"
        ));
    }
    for key in ["iptablesAdminChainName", "firewalldZone"] {
        if fields.text(key)?.is_some_and(|text| !text.is_empty()) {
            return wrong(format!(
                "field {key} works by iptables or firewalld, which this plugin never uses; drop it, and put own rules into chain {ADMIN} of table inet {}",
                TABLE.name
            ));
        }
    }
    match fields.text("ingressPolicy")? {
        None | Some("" | "open") => Ok(false),
        Some("same-bridge") => Ok(true),
        Some("isolated") => {
            wrong("field ingressPolicy: \"isolated\" is not supported, only open and same-bridge".into())
        }
        Some(other) => wrong(format!("field ingressPolicy: {other:?} is neither open nor same-bridge")),
    }
}

fn rules_of(plan: &NetPlan, same_bridge: bool) -> Result<Vec<Rule>, Error> {
    let reply = plan.required_previous()?;
    let rule = |chain, parts: Vec<Vec<Expression>>, verdict| {
        let mut expressions: Vec<Expression> = parts.into_iter().flatten().collect();
        expressions.push(Expression::Verdict(verdict));
        Rule { chain, expressions, comment: rules::comment(&plan.attachment) }
    };
    let mut rules = Vec::new();
    if same_bridge {
        let bridge = reply.interfaces.iter().find(|interface| interface.sandbox.is_empty());
        let Some(bridge) = bridge else {
            let message = "field ingressPolicy: same-bridge needs a bridge, and prevResult names no interface of the host";
            return Err(Error::new(error::INVALID_CONFIG, message));
        };
        let name = bridge.name.as_str();
        let leaves = vec![from_interface(name, true), to_interface(name, false)];
        rules.push(rule(ISOLATION_FROM, leaves, Verdict::Jump(ISOLATION_TO)));
        rules.push(rule(ISOLATION_TO, vec![to_interface(name, true)], Verdict::Drop));
    }
    for ip in &reply.ips {
        let host = Network { address: ip.address.address, prefix: ip.address.bits() };
        let from = vec![address_is(Family::Inet, Side::Source, host, true)];
        let to = vec![address_is(Family::Inet, Side::Destination, host, true), is_known_connection()];
        rules.push(rule(CONTAINERS, to, Verdict::Accept));
        rules.push(rule(CONTAINERS, from, Verdict::Accept));
    }
    Ok(rules)
}
