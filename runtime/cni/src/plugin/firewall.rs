//! firewall: lets a container's packets through; with `ingressPolicy: same-bridge` of bridges only its own one's in, with
//! `isolated` not even that one's.
//!
//! In: prevResult. Out: rules in `inet cni_firewall`, for isolated ones in `bridge cni_firewall` too, prevResult. Must never: fail DEL because prevResult is missing.
//!
//! The chain `admin` comes first and belongs to whoever runs the machine.

use serde_json::Value;

use crate::error;
use crate::error::Error;
use crate::plan::Command;
use crate::plan::NetPlan;
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
use netlink::nft::from_interface;
use netlink::nft::is_known_connection;
use netlink::nft::to_interface;
use netlink::route::Network;

const ADMIN: &str = "admin";
const ISOLATION_FROM: &str = "isolation_from";
const ISOLATION_TO: &str = "isolation_to";
const CONTAINERS: &str = "containers";
const BRIDGE_FORWARD: &str = "forward";
const PRIORITY_FILTER: i32 = 0;
/// NF_BR_PRI_FILTER_BRIDGED
const PRIORITY_BRIDGE_FILTER: i32 = -200;

/// Whose packets may come in from bridges of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Everybody's.
    Open,
    /// Those of the container's own bridge.
    SameBridge,
    /// Nobody's.
    Isolated,
}

/// The table.
pub const TABLE: Table = Table {
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

/// What goes from port to port of a bridge, which `inet` sees nothing of unless br_netfilter is switched on.
const BRIDGE_TABLE: Table = Table {
    family: Family::Bridge,
    name: "cni_firewall",
    chains: &[Chain {
        name: BRIDGE_FORWARD,
        base: Some(Base { kind: "filter", hook: Hook::Forward, priority: PRIORITY_BRIDGE_FILTER }),
        fixed: None,
        is_admins: false,
    }],
};

/// The last jump is for the first packets of connections: those that follow would pass the rules of every container of the
/// host, packet by packet, to be accepted in the end.
fn fixed() -> Vec<Vec<Expression>> {
    let jump = |chain| vec![Expression::Verdict(Verdict::Jump(chain))];
    let mut known = is_known_connection();
    known.push(Expression::Verdict(Verdict::Accept));
    vec![jump(ADMIN), jump(ISOLATION_FROM), known, jump(CONTAINERS)]
}

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<Vec<(Family, Rule)>, Error> {
    let rules = rules_of(plan, policy(plan)?)?;
    Ok(rules.into_iter().map(|(table, rule)| (table.family, rule)).collect())
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 and 7, 101 from CHECK, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    // DEL goes by the comment, so a field that ADD refused does not stop it.
    let policy = policy(plan);
    match plan.command {
        Command::Add => {
            let (policy, answer) = (policy?, plan.pass_through()?);
            if let Err(error) = add(&rules_of(plan, policy)?) {
                let _ = delete(plan); // the first error is the one to tell
                return Err(error);
            }
            return Ok(Some(answer));
        }
        Command::Del => delete(plan)?,
        Command::Check => check(plan, &rules_of(plan, policy?)?)?,
        Command::Gc => {
            let keep = |table| rules::keep_only(table, &plan.attachment.network, &plan.valid);
            keep(&TABLE).and(keep(&BRIDGE_TABLE))?;
        }
        Command::Status => policy.and_then(|_| rules::available())?,
    }
    Ok(None)
}

fn of_table(rules: &[(&'static Table, Rule)], table: &Table) -> Vec<Rule> {
    let here = rules.iter().filter(|(other, _)| other.family == table.family);
    here.map(|(_, rule)| rule.clone()).collect()
}

fn add(all: &[(&'static Table, Rule)]) -> Result<(), Error> {
    rules::add(&TABLE, &of_table(all, &TABLE))?;
    rules::add(&BRIDGE_TABLE, &of_table(all, &BRIDGE_TABLE))
}

fn delete(plan: &NetPlan) -> Result<(), Error> {
    let removed = rules::remove(&TABLE, &plan.attachment);
    removed.and(rules::remove(&BRIDGE_TABLE, &plan.attachment))
}

fn check(plan: &NetPlan, all: &[(&'static Table, Rule)]) -> Result<(), Error> {
    for table in [&TABLE, &BRIDGE_TABLE] {
        let wanted = of_table(all, table).len();
        if wanted > 0 && rules::count(table, &plan.attachment)? < wanted {
            let message = format!("rules are gone from table {}", table.name);
            return Err(Error::new(error::CHECK_FAILED, message));
        }
    }
    Ok(())
}

fn policy(plan: &NetPlan) -> Result<Policy, Error> {
    let fields = plan.fields()?;
    match fields.text("ingressPolicy")? {
        None | Some("" | "open") => Ok(Policy::Open),
        Some("same-bridge") => Ok(Policy::SameBridge),
        Some("isolated") => Ok(Policy::Isolated),
        Some(other) => {
            let message = format!("field ingressPolicy: {other:?} is none of open, same-bridge, isolated");
            Err(Error::new(error::INVALID_CONFIG, message))
        }
    }
}

/// The names of the container's bridge and of its port.
fn bridge_of(reply: &Reply) -> (Option<&str>, Option<&str>) {
    let mut hosts = reply.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
    let mut next = || hosts.next().map(|interface| interface.name.as_str());
    (next(), next())
}

fn rules_of(plan: &NetPlan, policy: Policy) -> Result<Vec<(&'static Table, Rule)>, Error> {
    let reply = plan.required_previous()?;
    let rule = |chain, parts: Vec<Vec<Expression>>, verdict| {
        let mut expressions: Vec<Expression> = parts.into_iter().flatten().collect();
        expressions.push(Expression::Verdict(verdict));
        Rule { chain, expressions, comment: rules::comment(&plan.attachment) }
    };
    let mut rules = Vec::new();
    if policy != Policy::Open {
        let (bridge, port) = bridge_of(reply);
        let missing = |what: &str| {
            let message =
                format!("field ingressPolicy: prevResult names no {what} on the host, which it is about");
            Error::new(error::INVALID_CONFIG, message)
        };
        let bridge = bridge.ok_or_else(|| missing("bridge"))?;
        let leaves = vec![from_interface(bridge, true), to_interface(bridge, false)];
        rules.push((&TABLE, rule(ISOLATION_FROM, leaves, Verdict::Jump(ISOLATION_TO))));
        rules.push((&TABLE, rule(ISOLATION_TO, vec![to_interface(bridge, true)], Verdict::Drop)));
        if policy == Policy::Isolated {
            let port = port.ok_or_else(|| missing("bridge's port"))?;
            // By way of the host, as to a published port.
            let stays = vec![from_interface(bridge, true), to_interface(bridge, true)];
            rules.push((&TABLE, rule(ISOLATION_FROM, stays, Verdict::Drop)));
            for end in [from_interface(port, true), to_interface(port, true)] {
                rules.push((&BRIDGE_TABLE, rule(BRIDGE_FORWARD, vec![end], Verdict::Drop)));
            }
        }
    }
    for ip in &reply.ips {
        let host = Network { address: ip.address.address, prefix: ip.address.bits() };
        let from = vec![address_is(Family::Inet, Side::Source, host, true)];
        let to = vec![address_is(Family::Inet, Side::Destination, host, true), is_known_connection()];
        rules.push((&TABLE, rule(CONTAINERS, to, Verdict::Accept)));
        rules.push((&TABLE, rule(CONTAINERS, from, Verdict::Accept)));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use serde_json::json;

    fn rules(fields: &Value, interfaces: &Value) -> Result<Vec<(&'static Table, Rule)>, Error> {
        let mut config = json!({"cniVersion": "1.1.0", "name": "n", "type": "firewall", "prevResult": {
            "cniVersion": "1.1.0", "interfaces": interfaces, "ips": [{"address": "10.0.0.2/24"}]}});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let plan = NetPlan::new(Request::to_add(&config))?;
        rules_of(&plan, policy(&plan)?)
    }

    #[test]
    fn rule_34_each_policy_has_its_rules_and_needs_what_they_name() {
        let all = json!([{"name": "br0"}, {"name": "veth0"}, {"name": "eth0", "sandbox": "/x"}]);
        let count = |policy: &str, interfaces: &Value| {
            let rules = rules(&json!({"ingressPolicy": policy}), interfaces);
            rules.map(|rules| (of_table(&rules, &TABLE).len(), of_table(&rules, &BRIDGE_TABLE).len()))
        };
        assert_eq!(count("open", &json!([])).unwrap(), (2, 0));
        assert_eq!(count("same-bridge", &all).unwrap(), (4, 0));
        assert_eq!(count("isolated", &all).unwrap(), (5, 2));
        for (policy, interfaces) in
            [("same-bridge", json!([])), ("isolated", json!([{"name": "veth0"}])), ("closed", all)]
        {
            assert_eq!(count(policy, &interfaces).unwrap_err().code, 7, "{policy}");
        }
    }
}
