//! portmap: ports of the host that lead into the container (contract rules 31 to 33).
//!
//! In: runtimeConfig.portMappings and prevResult. Out: rules in `ip cni_hostport` and `ip6 cni_hostport`, prevResult.
//! Must never: redirect what is not for this host; forget connections that are not to a published port.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::conditions;
use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::reply::IpConfig;
use crate::rules;
use crate::rules::Chain;
use crate::rules::Table;
use netlink::conntrack;
use netlink::nft::Base;
use netlink::nft::Expression;
use netlink::nft::Family;
use netlink::nft::Hook;
use netlink::nft::Rule;
use netlink::nft::Side;
use netlink::nft::Verdict;
use netlink::nft::address_is;
use netlink::nft::destination_is_local;
use netlink::nft::from_interface;
use netlink::nft::is_no_known_connection;
use netlink::nft::port_is;
use netlink::nft::to_interface;
use netlink::nft::was_redirected;
use netlink::route::Network;
use netlink::route::RouteSocket;

const NAME: &str = "cni_hostport";
const BY_ADDRESS: &str = "hostip_hostports";
const BY_PORT: &str = "hostports";
const MASQUERADING: &str = "masquerading";
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;
const LOOPBACK: Network = Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 };

const fn plain(name: &'static str) -> Chain {
    Chain { name, base: None, fixed: None, is_admins: false }
}

const fn based(name: &'static str, base: Base, fixed: fn() -> Vec<Vec<Expression>>) -> Chain {
    Chain { name, base: Some(base), fixed: Some(fixed), is_admins: false }
}

const PREROUTING: Base = Base { kind: "nat", hook: Hook::Prerouting, priority: PRIORITY_DSTNAT };
const OUTPUT: Base = Base { kind: "nat", hook: Hook::Output, priority: PRIORITY_DSTNAT };
const POSTROUTING: Base = Base { kind: "nat", hook: Hook::Postrouting, priority: PRIORITY_SRCNAT };
const GUARD: Base = Base { kind: "filter", hook: Hook::Input, priority: PRIORITY_RAW };

const IP: Table = Table {
    family: Family::Ip,
    name: NAME,
    chains: &[
        plain(BY_ADDRESS),
        plain(BY_PORT),
        plain(MASQUERADING),
        based("prerouting", PREROUTING, guarded_redirect),
        based("output", OUTPUT, redirect),
        based("postrouting", POSTROUTING, masquerade),
        based("guard", GUARD, guard),
    ],
};

const IP6: Table = Table {
    family: Family::Ip6,
    name: NAME,
    chains: &[
        plain(BY_ADDRESS),
        plain(BY_PORT),
        plain(MASQUERADING),
        based("prerouting", PREROUTING, redirect),
        based("output", OUTPUT, redirect),
        based("postrouting", POSTROUTING, masquerade),
    ],
};

/// Both tables.
#[cfg(test)]
pub const TABLES: [&Table; 2] = [&IP, &IP6];

/// What is for an address of this host goes through the published ports, those of one address first.
fn redirect() -> Vec<Vec<Expression>> {
    let jump = |chain| {
        let mut rule = destination_is_local();
        rule.push(Expression::Verdict(Verdict::Jump(chain)));
        rule
    };
    vec![jump(BY_ADDRESS), jump(BY_PORT)]
}

fn masquerade() -> Vec<Vec<Expression>> {
    let mut rule = was_redirected();
    rule.push(Expression::Verdict(Verdict::Jump(MASQUERADING)));
    vec![rule]
}

/// route_localnet lets a bridge carry 127.0.0.0/8; what comes in with such an address from anywhere but lo is an
/// attempt on services that listen on localhost alone (CVE-2020-8558). It stands where packets reach the host, which those
/// of containers don't. Answers of published ports to the host have such an address by then; they are known.
fn guard() -> Vec<Vec<Expression>> {
    vec![[to_localhost(), is_no_known_connection(), vec![Expression::Verdict(Verdict::Drop)]].concat()]
}

/// Ports that are published on localhost would be led away before they come to the guard. Only the first packets of
/// connections pass here.
fn guarded_redirect() -> Vec<Vec<Expression>> {
    let mut rules = vec![[to_localhost(), vec![Expression::Verdict(Verdict::Drop)]].concat()];
    rules.extend(redirect());
    rules
}

fn to_localhost() -> Vec<Expression> {
    [address_is(Family::Ip, Side::Destination, LOOPBACK, true), from_interface("lo", false)].concat()
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    host_port: u16,
    container_port: u16,
    protocol: u8,
    host_ip: Option<IpAddr>,
}

/// The plugin's own fields, every default filled in.
#[derive(Debug)]
struct PortMap {
    mappings: Vec<Mapping>,
    snat: bool,
    masq_all: bool,
    /// What else must hold of a packet that is led into the container.
    conditions_v4: Vec<Expression>,
    conditions_v6: Vec<Expression>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<Vec<(Family, Rule)>, Error> {
    let map = PortMap::new(plan)?;
    let mut rules = Vec::new();
    for (table, v4) in [(&IP, true), (&IP6, false)] {
        let Some(ip) = container_ip(plan, v4)? else { continue };
        let own = map.rules(table.family, ip, Some("cni0"), &rules::comment(&plan.attachment));
        rules.extend(own.into_iter().map(|rule| (table.family, rule)));
    }
    Ok(rules)
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 and 7, 101 from CHECK, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    // DEL goes by the comment, so a field that ADD refused does not stop it.
    let map = PortMap::new(plan);
    match plan.command {
        Command::Add => {
            let (map, answer) = (map?, plan.pass_through()?);
            if let Err(error) = add(plan, &map) {
                let _ = delete(plan, Some(&map)); // the first error is the one to tell
                return Err(error);
            }
            return Ok(Some(answer));
        }
        Command::Del => delete(plan, map.ok().as_ref())?,
        Command::Check => check(plan, &map?)?,
        Command::Gc => {
            remove(&|text| rules::is_stale(text, &plan.attachment.network, &plan.valid))?;
        }
        Command::Status => map.and_then(|_| rules::available())?,
    }
    Ok(None)
}

fn add(plan: &NetPlan, map: &PortMap) -> Result<(), Error> {
    if map.mappings.is_empty() {
        return Ok(());
    }
    for (table, v4) in [(&IP, true), (&IP6, false)] {
        let Some(ip) = container_ip(plan, v4)? else { continue };
        // Before it is known by which interface the container is reached, nothing has been done.
        let towards = if v4 && map.snat { interface_towards(ip.address.address)? } else { None };
        let rules = map.rules(table.family, ip, towards.as_deref(), &rules::comment(&plan.attachment));
        rules::add(table, &rules)?;
        // After the rules, which guard it.
        if let Some(name) = towards.filter(|_| !rules.is_empty()) {
            let_localhost_out(&name, true)?;
        }
    }
    map.forget_udp()
}

fn delete(plan: &NetPlan, map: Option<&PortMap>) -> Result<(), Error> {
    let comment = rules::comment(&plan.attachment);
    remove(&|text| text == comment).and(map.map_or(Ok(()), PortMap::forget_udp))
}

/// Removes rules, and closes localhost towards the interfaces that only these named. That comes before the rules go, since
/// they are what tells of it, to a second DEL too. An ADD has its rules before it lets localhost out: one that comes meanwhile
/// is seen by the next try, or finds an interface that nobody will close.
fn remove(is_mine: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let mut closed: Vec<String> = Vec::new();
    let v4 = rules::remove_where(&IP, is_mine, &mut |mine, others| {
        let is_needed = |name: &str| others.iter().any(|rule| rule.leaves_by == name);
        for name in closed.drain(..).filter(|name| is_needed(name)) {
            let_localhost_out(&name, true)?;
        }
        let names = mine.iter().map(|rule| rule.leaves_by.as_str());
        for name in names.filter(|name| !name.is_empty() && !is_needed(name)) {
            let_localhost_out(name, false)?;
            closed.push(name.to_string());
        }
        Ok(())
    });
    v4.and(rules::remove_where(&IP6, is_mine, &mut |_, _| Ok(())))
}

fn check(plan: &NetPlan, map: &PortMap) -> Result<(), Error> {
    for (table, v4) in [(&IP, true), (&IP6, false)] {
        let Some(ip) = container_ip(plan, v4)? else { continue };
        let wanted = map.rules(table.family, ip, None, "").len();
        if rules::count(table, &plan.attachment)? < wanted {
            let message = format!("rules of published ports are gone from table {NAME}");
            return Err(Error::new(error::CHECK_FAILED, message));
        }
    }
    Ok(())
}

/// The container's first address of a family.
fn container_ip(plan: &NetPlan, v4: bool) -> Result<Option<&IpConfig>, Error> {
    let reply = plan.required_previous()?;
    let in_container = |ip: &&IpConfig| {
        let index = ip.interface.and_then(|index| usize::try_from(index).ok());
        let interface = index.and_then(|index| reply.interfaces.get(index));
        interface.is_none_or(|interface| !interface.sandbox.is_empty())
    };
    Ok(reply.ips.iter().filter(in_container).find(|ip| ip.address.address.is_ipv4() == v4))
}

/// The host's interface by which a container is reached.
fn interface_towards(container: IpAddr) -> Result<Option<String>, Error> {
    let failed = |errno| Error::failed(format!("the interface towards {container}"), errno);
    let mut socket = RouteSocket::open().map_err(failed)?;
    let Some(index) = socket.interface_towards(container).map_err(failed)? else { return Ok(None) };
    Ok(socket.link_by_index(index).map_err(failed)?.map(|link| link.name))
}

/// 127.0.0.1 as a sender is only let out by interfaces with route_localnet. One that is gone lets nothing out.
fn let_localhost_out(interface: &str, is_let: bool) -> Result<(), Error> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet");
    match std::fs::write(&path, if is_let { "1" } else { "0" }) {
        Err(cause) if is_let || cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::failed(&path, cause))
        }
        _ => Ok(()),
    }
}

impl PortMap {
    fn new(plan: &NetPlan) -> Result<PortMap, Error> {
        let fields = plan.fields()?;
        let runtime = fields.object("runtimeConfig")?;
        let mappings =
            runtime.map(|runtime| runtime.objects("portMappings")).transpose()?.unwrap_or_default();
        let mappings = mappings.iter().map(Mapping::new).collect::<Result<Vec<_>, _>>()?;
        Ok(PortMap {
            mappings,
            snat: fields.get("snat").is_none() || fields.flag("snat")?,
            masq_all: fields.flag("masqAll")?,
            conditions_v4: conditions::parse(&fields, "conditionsV4", Family::Ip)?,
            conditions_v6: conditions::parse(&fields, "conditionsV6", Family::Ip6)?,
        })
    }

    /// `towards` is the interface by which the container is reached, where localhost may call it.
    fn rules(&self, family: Family, ip: &IpConfig, towards: Option<&str>, comment: &str) -> Vec<Rule> {
        let rule = |chain, expressions| Rule { chain, expressions, comment: comment.to_string() };
        let container = ip.address.address;
        let mut rules = Vec::new();
        for mapping in &self.mappings {
            let mut expressions =
                if container.is_ipv4() { self.conditions_v4.clone() } else { self.conditions_v6.clone() };
            let chain = match mapping.host_ip.filter(|host| !host.is_unspecified()) {
                Some(host) if host.is_ipv4() != container.is_ipv4() => continue,
                Some(host) => {
                    let host = Network { address: host, prefix: ip.address.bits() };
                    expressions.extend(address_is(family, Side::Destination, host, true));
                    BY_ADDRESS
                }
                // An unspecified address means all of its own family.
                None if mapping.host_ip.is_some_and(|host| host.is_ipv4() != container.is_ipv4()) => continue,
                None => BY_PORT,
            };
            expressions.extend(port_is(mapping.protocol, mapping.host_port));
            expressions.push(Expression::Dnat(container, mapping.container_port));
            rules.push(rule(chain, expressions));
        }
        if rules.is_empty() || !(self.snat || self.masq_all) {
            return rules;
        }
        // Answers have to come back through the host: from the container's own network, where they would go straight,
        // and from localhost, which the container can't reach.
        let host = Network { address: container, prefix: ip.address.bits() };
        let mut sources = vec![if self.masq_all { None } else { Some(ip.address) }];
        if container.is_ipv4() && self.snat {
            sources.push(Some(LOOPBACK));
        }
        for source in sources {
            let mut expressions =
                source.map(|source| address_is(family, Side::Source, source, true)).unwrap_or_default();
            expressions.extend(address_is(family, Side::Destination, host, true));
            // By its name DEL and GC find the interface again.
            if let Some(name) = towards.filter(|_| source == Some(LOOPBACK)) {
                expressions.extend(to_interface(name, true));
            }
            expressions.push(Expression::Masquerade);
            rules.push(rule(MASQUERADING, expressions));
        }
        rules
    }

    fn forget_udp(&self) -> Result<(), Error> {
        for mapping in self.mappings.iter().filter(|mapping| mapping.protocol == UDP) {
            for v6 in [false, true] {
                let what = || format!("UDP connections to port {}", mapping.host_port);
                conntrack::forget_udp_to_port(mapping.host_port, v6)
                    .map_err(|errno| Error::failed(what(), errno))?;
            }
        }
        Ok(())
    }
}

impl Mapping {
    fn new(fields: &Fields<'_>) -> Result<Mapping, Error> {
        let port = |key: &str| -> Result<u16, Error> {
            let number = fields.required(key, fields.number(key)?)?;
            u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| {
                let message =
                    format!("field {}: {number} is no port; ports go from 1 to 65535", fields.path(key));
                Error::new(error::INVALID_CONFIG, message)
            })
        };
        let protocol = match fields.text("protocol")?.unwrap_or("tcp").to_ascii_lowercase().as_str() {
            "tcp" | "" => TCP,
            "udp" => UDP,
            "sctp" => SCTP,
            other => {
                let message =
                    format!("field {}: {other:?} is none of tcp, udp, sctp", fields.path("protocol"));
                return Err(Error::new(error::INVALID_CONFIG, message));
            }
        };
        Ok(Mapping {
            host_port: port("hostPort")?,
            container_port: port("containerPort")?,
            protocol,
            host_ip: fields.parsed("hostIP", "an address")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use serde_json::json;

    fn plan(extra: &Value, mappings: &Value) -> NetPlan {
        let mut config = json!({"cniVersion": "1.1.0", "name": "n", "type": "portmap",
            "runtimeConfig": {"portMappings": mappings}, "prevResult": {"cniVersion": "1.1.0"}});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        NetPlan::new(Request::to_add(&config)).unwrap()
    }

    fn chains(mapping: Value, address: &str) -> Vec<&'static str> {
        let mut one = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
        one.as_object_mut().unwrap().extend(mapping.as_object().unwrap().clone());
        let map = PortMap::new(&plan(&json!({}), &json!([one]))).unwrap();
        let ip = IpConfig { interface: None, address: address.parse().unwrap(), gateway: None };
        let family = if ip.address.address.is_ipv4() { Family::Ip } else { Family::Ip6 };
        map.rules(family, &ip, Some("cni0"), "c").into_iter().map(|rule| rule.chain).collect()
    }

    #[test]
    fn rule_32_iptables_options_are_code_7_with_a_sentence() {
        let refuse = |extra: &Value| {
            let plan = plan(extra, &json!([]));
            crate::unsupported::refuse("portmap", &plan.fields()?)?;
            PortMap::new(&plan).map(drop)
        };
        for extra in [
            json!({"backend": "iptables"}),
            json!({"conditionsV4": ["-s", "1.2.3.4"]}),
            json!({"markMasqBit": 13}),
            json!({"externalSetMarkChain": "KUBE-MARK-MASQ"}),
        ] {
            let error = refuse(&extra).unwrap_err();
            assert!(error.code == 7 && error.message.contains("drop"), "{error}");
        }
        assert!(refuse(&json!({"backend": "nftables", "conditionsV4": []})).is_ok());
    }

    #[test]
    fn rule_33_host_addresses_of_the_other_family_are_skipped_and_unspecified_means_all() {
        let (v4, v6) = ("10.0.0.2/24", "fd00::2/64");
        assert_eq!(chains(json!({}), v4), [BY_PORT, MASQUERADING, MASQUERADING]);
        assert_eq!(chains(json!({"hostIP": "192.0.2.1"}), v4)[0], BY_ADDRESS);
        assert!(chains(json!({"hostIP": "192.0.2.1"}), v6).is_empty());
        assert_eq!(chains(json!({"hostIP": "0.0.0.0"}), v4)[0], BY_PORT);
        assert!(chains(json!({"hostIP": "0.0.0.0"}), v6).is_empty());
        assert_eq!(chains(json!({"hostIP": "::"}), v6), [BY_PORT, MASQUERADING]);
    }

    #[test]
    fn wrong_ports_and_protocols_are_told() {
        for wrong in [
            json!({"hostPort": 0, "containerPort": 1}),
            json!({"hostPort": 65536, "containerPort": 1}),
            json!({"hostPort": 1}),
            json!({"hostPort": 1, "containerPort": 1, "protocol": "icmp"}),
        ] {
            let error = PortMap::new(&plan(&json!({}), &json!([wrong]))).unwrap_err();
            assert!(error.message.contains("runtimeConfig.portMappings[0]."), "{error}");
        }
    }
}
