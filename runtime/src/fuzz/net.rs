//! The network's targets: plugins up to their plan, the result cache, netlink's answers, DNS and DHCP messages.
//!
//! In: bytes. Out: nothing, or a panic. Must never: touch the machine.

use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use serde_json::json;

use crate::face::PLUGINS;
use cni::cache::Record;
use cni::daemon::dns;
use cni::daemon::dns::Code;
use cni::daemon::dns::Query;
use cni::daemon::names::Names;
use cni::ipam::dhcp::message::Answer;
use cni::list;
use cni::list::NetworkList;
use cni::plan::Command;
use cni::plan::NetPlan;
use cni::plan::is_interface_name;
use cni::plan::is_name;
use cni::plugin;
use cni::reply::Reply;
use cni::request::Request;
use cni::rules;
use cni::version::Version;
use netlink::link;
use netlink::message;
use netlink::message::Message;
use netlink::message::Received;
use netlink::nft;
use netlink::route;
use netlink::socket;

const COMMANDS: [&str; 5] = ["ADD", "DEL", "CHECK", "STATUS", "GC"];

/// A line each: plugin, CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS, CNI_PATH (one that is empty is
/// not set); all that follows is stdin.
pub fn plugins(input: &[u8]) {
    let mut lines = input.splitn(8, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (name, command) = (line(), line());
    let name = one_of(&name, PLUGINS);
    let mut variable = || Some(line()).filter(|text| !text.is_empty());
    let request = Request {
        command: one_of(&command, &COMMANDS).to_string(),
        container_id: variable(),
        netns: variable(),
        ifname: variable(),
        args: variable(),
        path: variable(),
        netns_override: None,
        stdin: lines.next().unwrap_or_default().to_vec(),
    };
    lists(&request.stdin);
    let plan = match NetPlan::new(request) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(error.code != 0 && !error.message.is_empty(), "{error:?}");
            return;
        }
    };
    check_plan(&plan);
    if let Err(error) = plugin::read(name, &plan) {
        assert!(error.code != 0 && !error.message.is_empty(), "{error:?}");
    }
}

/// The one of that name, or else one by its first byte.
fn one_of<'a>(text: &str, all: &[&'a str]) -> &'a str {
    let named = all.iter().find(|name| **name == text);
    named.unwrap_or(&all[usize::from(text.bytes().next().unwrap_or_default()) % all.len()])
}

fn check_plan(plan: &NetPlan) {
    let of_nobody = matches!(plan.command, Command::Gc | Command::Status);
    let who = &plan.attachment;
    assert!(is_name(&who.network) && (of_nobody || is_name(&who.id) && is_interface_name(&who.ifname)));
    let comment = rules::comment(who);
    assert!(comment.len() <= nft::COMMENT_LEN_MAX);
    assert!(rules::is_stale(&comment, &who.network, &[]));
    assert!(!rules::is_stale(&comment, &who.network, std::slice::from_ref(who)));
    if let Ok(mac) = plan.wanted_mac()
        && let Some(mac) = mac
    {
        assert!(mac[0] & 1 == 0, "a group's address is no interface's: {mac:x?}");
    }
    if let Some(reply) = &plan.previous {
        for version in Version::ALL {
            check_reply(reply, version);
        }
        if let Ok(answer) = plan.pass_through() {
            let passed =
                Reply::parse(&answer, plan.version).unwrap_or_else(|error| panic!("{error}: {answer}"));
            check_reply(&passed, plan.version);
        }
    }
}

/// A result that was written is read as the same, in the version in which it was written.
fn check_reply(reply: &Reply, version: Version) {
    let Ok(told) = reply.to_json(version) else { return };
    let read = Reply::parse(&told, version).unwrap_or_else(|error| panic!("{error}: {told}"));
    let again = read.to_json(version).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!(told, again);
    if version == Version::V1_1_0 {
        assert_eq!(*reply, read);
    }
    if version > Version::V0_2_0 {
        let addresses = |reply: &Reply| reply.ips.iter().map(|ip| ip.address).collect::<Vec<_>>();
        assert_eq!(addresses(reply), addresses(&read), "an address is lost in {version}");
    }
}

/// The configuration as a list, and as one of a single plugin: what goes to each plugin's stdin is a plan's.
fn lists(stdin: &[u8]) {
    for list in [NetworkList::parse(stdin, Path::new("")), NetworkList::parse_single(stdin, Path::new(""))] {
        let Ok(list) = list else { continue };
        assert!(is_name(&list.name) && !list.plugins.is_empty());
        let text = list.to_value().to_string();
        let again =
            NetworkList::parse(text.as_bytes(), Path::new("")).unwrap_or_else(|error| panic!("{error}"));
        assert!(list == again || list.plugins.iter().any(has_fraction), "{list:?} became {again:?}");
        assert_eq!(list.kinds().len(), list.plugins.len());
        for plugin in &list.plugins {
            list::plugin_input(&list, plugin, Some(&json!({})), &serde_json::Map::new());
        }
    }
}

/// Whether it holds a number that is no whole one of 64 bits. The last bit of such a number may change when it is read
/// (serde_json without `float_roundtrip`, which costs 21 kB); no field of ours has one.
fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(has_fraction),
        Value::Object(object) => object.values().any(has_fraction),
        _ => false,
    }
}

/// A file of the result cache -> what the resolver, `cni list` and DEL make of it.
pub fn cache(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
    let Ok(record) = Record::from_value(&value) else { return };
    let once = Record::from_value(&record.to_value()).unwrap_or_else(|error| panic!("{error}: {record:?}"));
    // An argument of a broken file may hold what separates arguments; from then on it stays as it is.
    let twice = Record::from_value(&once.to_value()).unwrap_or_else(|error| panic!("{error}: {once:?}"));
    let same = once == twice && record == Record { args: record.args.clone(), ..once.clone() };
    assert!(
        same || has_fraction(&record.to_value()) || record.list.plugins.iter().any(has_fraction),
        "{record:?} became {once:?}"
    );
    ask_names(&record);
}

fn ask_names(record: &Record) {
    let names = Names::of(std::slice::from_ref(record));
    let query = query(&record.attachment.id);
    for gateway in names.gateways() {
        assert!(names.is_known(gateway, gateway), "the host may ask at {gateway}");
        names.upstream(gateway, gateway);
        let Some(query) = &query else { continue };
        if let Some(records) = names.find(query, gateway, gateway) {
            assert!(query.is_answered_by(&query.answer(Code::Fine, &records)));
        }
    }
}

fn query(name: &str) -> Option<Query> {
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).ok()?);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    Query::parse(&packet)
}

/// A query with its length in front, as by TCP, and behind it what an upstream server sent for an answer.
pub fn dns(input: &[u8]) {
    let Some(([high, low], rest)) = input.split_first_chunk() else { return };
    let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (packet, upstream) = rest.split_at(len);
    let Some(query) = Query::parse(packet) else { return };
    assert!(query.name.len() <= 3 * 255, "{}", query.name.len());
    query.is_answered_by(upstream);
    let (gateway, from) = (IpAddr::from([10, 88, 0, 1]), IpAddr::from([10, 88, 0, 2]));
    let records = names().find(&query, gateway, from).unwrap_or_default();
    for answer in [query.answer(Code::Fine, &records), query.answer(Code::Failure, &[])] {
        assert!(query.is_answered_by(&answer), "{answer:x?} is no answer to {query:?}");
        assert!(Query::parse(&answer).is_none(), "an answer is taken for a query");
        assert_eq!(answer[..2], packet[..2], "the number by which the asker knows it");
        check_answer(&answer);
    }
}

/// A container that is known by names of every kind.
fn names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| {
        let list = br#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"bridge"}]}"#;
        let list = NetworkList::parse(list, Path::new("")).unwrap_or_else(|error| panic!("{error}"));
        let aliases = json!({"aliases": ["www", "a.b", "x".repeat(63), "y".repeat(70)]});
        let result = json!({"cniVersion": "1.1.0", "dns": {"domain": "lan"},
            "ips": [{"address": "10.88.0.2/16", "gateway": "10.88.0.1"}, {"address": "fd00::2/64"}]});
        Names::of(&[Record {
            attachment: cni::plan::Attachment {
                network: "net".into(),
                id: "web".into(),
                ifname: "eth0".into(),
            },
            netns: None,
            netns_identity: None,
            list,
            args: None,
            capabilities: aliases.as_object().cloned().unwrap_or_default(),
            result: Some(result),
        }])
    })
}

/// Walks an answer by its own counts: they must lead to its end.
fn check_answer(answer: &[u8]) {
    let number = |at: usize| usize::from(answer[at]) << 8 | usize::from(answer[at + 1]);
    assert_eq!((number(4), number(8), number(10)), (1, 0, 0), "one question, nothing but answers");
    let mut at = 12;
    while answer[at] != 0 {
        at += usize::from(answer[at]) + 1;
    }
    at += 5;
    for _ in 0..number(6) {
        assert_eq!(answer[at..at + 2], [0xc0, 12], "the name of the question");
        at += 12 + number(at + 10);
    }
    assert_eq!(at, answer.len());
    let _ = dns::reverse_name(IpAddr::from([0; 16]));
}

/// A server's message -> a lease, and what it is told as.
pub fn dhcp(input: &[u8]) {
    let Some(answer) = Answer::parse(input) else { return };
    let Ok(lease) = answer.lease() else { return };
    assert!(lease.renew <= lease.rebind && lease.rebind <= lease.length, "{lease:?}");
    assert!(lease.address.prefix <= 32 && lease.address.contains(lease.v4().into()), "{lease:?}");
    let reply = lease.reply();
    for version in Version::ALL {
        check_reply(&reply, version);
    }
    for route in &reply.routes {
        assert!(route.dst.prefix <= 32 && route.dst.base() == route.dst, "{route:?}");
    }
    // The lease file keeps the server's words.
    assert_eq!(Answer::parse(&lease.answer), Some(answer));
}

/// What one recv gave -> all that any answer of the kernel's is read as.
pub fn netlink(input: &[u8]) {
    let received = message::split(input);
    let taken: usize = received.iter().map(|message| 16 + message.payload.len()).sum();
    assert!(taken <= input.len());
    for message in &received {
        read_answer(message);
    }
}

fn read_answer(received: &Received) {
    let payload = &received.payload;
    let _ = socket::error_of(received);
    if let Some(link) = link::parse(payload) {
        for kind in 1..=5 {
            link.number(kind);
        }
    }
    link::parse_port(payload);
    if let Some(address) = route::parse_address(payload) {
        check_network(address.network);
    }
    if let Some(route) = route::parse_route(payload) {
        check_network(route.destination);
    }
    let (rule, copy) = route::policy::read(payload);
    if let Some(rule) = rule {
        check_network(rule.source);
    }
    if let Some(copy) = copy {
        assert_eq!(message::split(&copy).len(), 1, "a message that was written is not read back");
    }
    route::traffic::read(received);
    for table in ["cni_hostport", "cni_masquerade"] {
        nft::parse_rule(payload, table);
    }
    // What is written with the attributes that were read is read as the same.
    let attributes: Vec<(u16, &[u8])> = message::attributes(payload).collect();
    let mut written = Message::new(1, 2, &[]);
    for (kind, value) in &attributes {
        written.attribute(*kind, value);
    }
    let written = written.finish(3);
    let [again] = &message::split(&written)[..] else { panic!("{written:x?}") };
    assert!(message::attributes(&again.payload).eq(attributes));
}

fn check_network(network: route::Network) {
    let base = network.base();
    assert!(network.contains(base.address) && base.base() == base, "{network}");
}
