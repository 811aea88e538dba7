//! bandwidth: limits what goes into a container and comes out of it, by token buckets on the host's side.
//!
//! In: runtimeConfig.bandwidth or the plugin's own fields, prevResult. Out: a bucket on the host's veth for what goes in;
//! for what comes out an ifb with a bucket, through which it is led; prevResult with that ifb. With shapedSubnets only what
//! comes from these networks or goes to them is limited, with unshapedSubnets all but that.
//! Must never: shape an interface that is not this container's.

use rustix::io::Errno;
use serde_json::Value;

use super::container;
use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use crate::plan::Attachment;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::plan::format_mac;
use crate::reply::Interface;
use crate::rules;
use netlink::link::Kind;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::link::NewLink;
use netlink::route::Network;
use netlink::route::RouteSocket;
use netlink::route::traffic::Bucket;
use netlink::route::traffic::End;
use netlink::route::traffic::Limited;

const IFB_PREFIX: &str = "bwp";
/// A packet waits at most this long; as the reference has it.
const LATENCY_MS: u64 = 25;

/// Whose packets are limited.
#[derive(Debug, PartialEq)]
enum Peers {
    Everybody,
    Only(Vec<Network>),
    AllBut(Vec<Network>),
}

/// What is asked for; `None` sets no limit.
#[derive(Debug, PartialEq)]
struct Bandwidth {
    ingress: Option<Bucket>,
    egress: Option<Bucket>,
    peers: Peers,
}

const NO_LIMIT: Bandwidth = Bandwidth { ingress: None, egress: None, peers: Peers::Everybody };

impl Bandwidth {
    fn new(plan: &NetPlan) -> Result<Bandwidth, Error> {
        let own = plan.fields()?;
        let keys =
            ["ingressRate", "ingressBurst", "egressRate", "egressBurst", "shapedSubnets", "unshapedSubnets"];
        let mut fields = own.clone();
        if !keys.iter().any(|key| own.get(key).is_some()) {
            let runtime = own.object("runtimeConfig")?;
            match runtime.map(|runtime| runtime.object("bandwidth")).transpose()?.flatten() {
                Some(bandwidth) => fields = bandwidth,
                None => return Ok(NO_LIMIT),
            }
        }
        let (ingress, egress) =
            (bucket(&fields, "ingressRate", "ingressBurst")?, bucket(&fields, "egressRate", "egressBurst")?);
        Ok(Bandwidth { ingress, egress, peers: Peers::read(&fields)? })
    }

    fn is_none(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

impl Peers {
    fn read(fields: &Fields<'_>) -> Result<Peers, Error> {
        let networks = |key: &str| -> Result<Vec<Network>, Error> {
            let wrong =
                |problem| Error::new(error::INVALID_CONFIG, format!("field {}: {problem}", fields.path(key)));
            fields.texts(key)?.iter().map(|text| text.parse().map_err(wrong)).collect()
        };
        let (only, but) = (networks("shapedSubnets")?, networks("unshapedSubnets")?);
        match (only.is_empty(), but.is_empty()) {
            (true, true) => Ok(Peers::Everybody),
            (false, true) => Ok(Peers::Only(only)),
            (true, false) => Ok(Peers::AllBut(but)),
            (false, false) => {
                let message = "fields shapedSubnets and unshapedSubnets exclude each other: drop one";
                Err(Error::new(error::INVALID_CONFIG, message))
            }
        }
    }

    /// Those of a packet's `end`.
    fn at(&self, end: End) -> Limited<'_> {
        match self {
            Peers::Everybody => Limited::All,
            Peers::Only(networks) => Limited::Only(end, networks),
            Peers::AllBut(networks) => Limited::AllBut(end, networks),
        }
    }
}

/// Rate and burst are in bits; both or none (contract rule 35).
fn bucket(fields: &Fields<'_>, rate_key: &str, burst_key: &str) -> Result<Option<Bucket>, Error> {
    let wrong = |key: &str, message: &str| {
        Err(Error::new(error::INVALID_CONFIG, format!("field {}: {message}", fields.path(key))))
    };
    let rate = fields.large_number(rate_key)?.unwrap_or(0) / 8;
    let burst = fields.large_number(burst_key)?.unwrap_or(0) / 8;
    match (rate, burst) {
        (0, 0) => return Ok(None),
        (0, _) => return wrong(rate_key, "it must be set where the burst is, to 8 bits a second or more"),
        (_, 0) => return wrong(burst_key, "it must be set where the rate is, to 8 bits or more"),
        _ => {}
    }
    let Ok(burst) = u32::try_from(burst) else {
        return wrong(burst_key, "it must be less than 4 GiB, which is 34359738368 bits");
    };
    let waiting = u128::from(rate) * u128::from(LATENCY_MS) / 1000 + u128::from(burst);
    Ok(Some(Bucket { rate, burst, limit: u32::try_from(waiting).unwrap_or(u32::MAX) }))
}

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<(), Error> {
    Bandwidth::new(plan).map(drop)
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 to 8, 101 from CHECK, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    // DEL and GC need none of the limits: limits that ADD refused must not stop them.
    match plan.command {
        Command::Add => return add(plan, &Bandwidth::new(plan)?).map(Some),
        Command::Del => delete(plan)?,
        Command::Check => check(plan, &Bandwidth::new(plan)?)?,
        Command::Gc => collect_garbage(plan)?,
        Command::Status => {
            Bandwidth::new(plan)?;
        }
    }
    Ok(None)
}

fn add(plan: &NetPlan, bandwidth: &Bandwidth) -> Result<Value, Error> {
    if bandwidth.is_none() {
        return plan.pass_through();
    }
    plan.required_previous()?;
    let mut socket = host_socket()?;
    let veth = host_side(plan, &mut socket)?;
    let result = shape(plan, bandwidth, &mut socket, &veth);
    if result.is_err() {
        let _ = delete(plan); // the first error is the one to tell
    }
    result
}

fn shape(
    plan: &NetPlan,
    bandwidth: &Bandwidth,
    socket: &mut RouteSocket,
    veth: &Link,
) -> Result<Value, Error> {
    let failed = |name: &str| {
        let name = name.to_string();
        move |errno: Errno| Error::failed(format!("a limit on {name}"), errno)
    };
    // What goes into the container is what the host's side sends.
    if let Some(bucket) = &bandwidth.ingress {
        let limited = bandwidth.peers.at(End::Source);
        socket.limit(veth.index, bucket, &limited).map_err(failed(&veth.name))?;
    }
    let Some(bucket) = &bandwidth.egress else { return plan.pass_through() };
    let name = ifb_name(&plan.attachment);
    let new = NewLink { mtu: Some(veth.mtu), up: true, ..NewLink::new(Kind::Ifb, &name) };
    socket.create_link(&new).map_err(failed(&name))?;
    let ifb = socket.link(&name).map_err(failed(&name))?.ok_or_else(|| failed(&name)(Errno::NODEV))?;
    // GC finds by the alias whose it is. At the creation the kernel passes one over.
    let change = LinkChange {
        alias: Some(&rules::comment(&plan.attachment)),
        tx_queue_len: Some(veth.tx_queue_len),
        ..LinkChange::default()
    };
    socket.change_link(ifb.index, &change).map_err(failed(&name))?;
    let limited = bandwidth.peers.at(End::Destination);
    socket.limit(ifb.index, bucket, &limited).map_err(failed(&name))?;
    socket.redirect_incoming(veth.index, ifb.index).map_err(failed(&veth.name))?;
    let mut reply = plan.required_previous()?.clone();
    reply.interfaces.push(Interface {
        name: ifb.name,
        mac: format_mac(&ifb.mac),
        mtu: Some(ifb.mtu),
        ..Interface::default()
    });
    reply.to_json(plan.version)
}

/// The other side of the container's veth, which must be on the host and in prevResult.
fn host_side(plan: &NetPlan, socket: &mut RouteSocket) -> Result<Link, Error> {
    let ifname = &plan.attachment.ifname;
    let (_netns, mut inner) = container::open(plan)?;
    let inside = inner.link(ifname).map_err(|errno| Error::failed(ifname, errno))?;
    let veth = inside.filter(|inside| inside.kind == "veth" && inside.parent != 0);
    if let Some(veth) = veth {
        let links = socket.links().map_err(|errno| Error::failed("links", errno))?;
        let reply = plan.required_previous()?;
        let is_told = |link: &Link| {
            let mut told = reply.interfaces.iter().filter(|told| told.sandbox.is_empty());
            link.index == veth.parent && told.any(|told| told.name == link.name)
        };
        if let Some(link) = links.into_iter().find(is_told) {
            return Ok(link);
        }
    }
    let message = format!(
        "{ifname} is no veth whose other side is an interface of the host in prevResult: bandwidth works after bridge or ptp"
    );
    Err(Error::new(error::INVALID_CONFIG, message))
}

fn delete(plan: &NetPlan) -> Result<(), Error> {
    let mut socket = host_socket()?;
    let name = ifb_name(&plan.attachment);
    let failed = |errno: Errno| Error::failed(&name, errno);
    if let Some(link) = socket.link(&name).map_err(failed)? {
        socket.delete_link(link.index).map_err(failed)?;
    }
    // Without namespace or veth there is nothing left to take a limit from.
    match host_side(plan, &mut socket) {
        Ok(veth) => socket.unshape(veth.index).map_err(failed),
        Err(_) => Ok(()),
    }
}

fn check(plan: &NetPlan, bandwidth: &Bandwidth) -> Result<(), Error> {
    let differs = |message: String| Err(Error::new(error::CHECK_FAILED, message));
    if bandwidth.is_none() {
        return Ok(());
    }
    let mut socket = host_socket()?;
    let veth = host_side(plan, &mut socket)?;
    let name = ifb_name(&plan.attachment);
    let failed = |errno: Errno| Error::failed(format!("limits of {}", plan.attachment.ifname), errno);
    if let Some(bucket) = &bandwidth.ingress
        && !socket.is_limited(veth.index, bucket, &bandwidth.peers.at(End::Source)).map_err(failed)?
    {
        return differs(format!("the limit of what goes into the container is not on {} as set", veth.name));
    }
    let Some(bucket) = &bandwidth.egress else { return Ok(()) };
    let ifb = socket.link(&name).map_err(failed)?;
    let Some(ifb) = ifb else { return differs(format!("interface {name} is gone")) };
    if !socket.is_limited(ifb.index, bucket, &bandwidth.peers.at(End::Destination)).map_err(failed)? {
        return differs(format!("the limit of what comes out of the container is not on {name} as set"));
    }
    if socket.redirected_to(veth.index).map_err(failed)? != Some(ifb.index) {
        return differs(format!("what comes in by {} is not led through {name} any more", veth.name));
    }
    Ok(())
}

/// An ifb says whose it is by its alias.
fn collect_garbage(plan: &NetPlan) -> Result<(), Error> {
    let mut socket = host_socket()?;
    let failed = |errno: Errno| Error::failed("interfaces of limits", errno);
    for link in socket.links().map_err(failed)? {
        let is_ours = link.kind == "ifb" && link.name.starts_with(IFB_PREFIX);
        if is_ours && rules::is_stale(&link.alias, &plan.attachment.network, &plan.valid) {
            socket.delete_link(link.index).map_err(failed)?;
        }
    }
    Ok(())
}

fn ifb_name(attachment: &Attachment) -> String {
    let Attachment { network, id, ifname } = attachment;
    let parts = [network.as_bytes(), b"\0", id.as_bytes(), b"\0", ifname.as_bytes()];
    format!("{IFB_PREFIX}{:012x}", rules::hash(&parts) >> 16)
}

fn host_socket() -> Result<RouteSocket, Error> {
    RouteSocket::open().map_err(|errno| Error::failed("a netlink socket", errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use serde_json::json;

    fn bandwidth(config: &Value) -> Result<Bandwidth, Error> {
        let mut whole = json!({"cniVersion": "1.1.0", "name": "n", "type": "bandwidth"});
        whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        Bandwidth::new(&NetPlan::new(Request::to_add(&whole))?)
    }

    #[test]
    fn rule_35_rate_and_burst_come_both_or_not_at_all_and_a_burst_has_32_bits() {
        let code = |config: Value| bandwidth(&config).map_err(|error| error.code);
        assert_eq!(code(json!({})), Ok(NO_LIMIT));
        assert_eq!(code(json!({"ingressRate": 0, "ingressBurst": 0})).unwrap().ingress, None);
        let bucket = Bucket { rate: 1_000_000, burst: 500, limit: 25_500 };
        let both = json!({"ingressRate": 8_000_000, "ingressBurst": 4000});
        assert_eq!(code(both).unwrap().ingress, Some(bucket));
        for wrong in [
            json!({"ingressRate": 8000}),
            json!({"egressBurst": 8000}),
            json!({"egressRate": 8000, "egressBurst": 34_359_738_368_u64}),
            json!({"egressRate": 8000, "egressBurst": 8000, "unshapedSubnets": ["10.0.0.0"]}),
            json!({"egressRate": 8000, "egressBurst": 8000, "shapedSubnets": ["10.0.0.0/33"]}),
            json!({"egressRate": 8000, "egressBurst": 8000, "shapedSubnets": ["10.0.0.0/8"], "unshapedSubnets": ["::/0"]}),
        ] {
            assert_eq!(code(wrong.clone()), Err(7), "{wrong}");
        }
        assert!(code(json!({"egressRate": 8000, "egressBurst": 34_359_738_367_u64})).is_ok());
        assert_eq!(code(json!({"egressRate": -1})), Err(6));
    }

    #[test]
    fn the_plugins_own_fields_go_before_the_runtimes() {
        let runtime = json!({"bandwidth": {"egressRate": 80, "egressBurst": 80}});
        assert!(bandwidth(&json!({"runtimeConfig": runtime})).unwrap().egress.is_some());
        let own = json!({"runtimeConfig": runtime, "ingressRate": 80, "ingressBurst": 80});
        let both = bandwidth(&own).unwrap();
        assert!(both.egress.is_none() && both.ingress.is_some());
    }

    #[test]
    fn subnets_are_of_the_other_side() {
        let rates =
            json!({"egressRate": 8000, "egressBurst": 8000, "shapedSubnets": ["10.0.0.0/8", "fd00::/8"]});
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        let peers = bandwidth(&rates).unwrap().peers;
        assert_eq!(peers.at(End::Source), Limited::Only(End::Source, &networks));
        let but = json!({"egressRate": 8000, "egressBurst": 8000, "shapedSubnets": [], "unshapedSubnets": ["10.0.0.0/8"]});
        assert_eq!(bandwidth(&but).unwrap().peers, Peers::AllBut(networks[..1].to_vec()));
    }

    #[test]
    fn each_interface_has_an_ifb_of_its_own() {
        let name = |id: &str, ifname: &str| {
            ifb_name(&Attachment { network: "n".into(), id: id.into(), ifname: ifname.into() })
        };
        assert_eq!(name("c", "eth0").len(), 15);
        assert_ne!(name("c", "eth0"), name("c", "eth1"));
        assert_ne!(name("c", "eth0"), name("d", "eth0"));
    }
}
