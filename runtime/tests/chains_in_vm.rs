//! Chained plugins against the real kernel: whose packets arrive where, and what is left behind.
//!
//! In: a machine with `ip`, `cni` and the plugins, root: the VM. Out: verdicts. Must never: run on a developer's machine
//! by accident, so all are ignored; in the VM they run with `chains_in_vm --ignored --test-threads=1`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[allow(dead_code)] // other tests use other parts of it
#[path = "network/mod.rs"]
mod network;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use runtime::netlink::message;
use runtime::netlink::message::Message;
use runtime::netlink::namespace;
use runtime::netlink::nft::Batch;
use runtime::netlink::nft::Family;
use runtime::netlink::nft::NftSocket;
use runtime::netlink::socket::Socket;
use serde_json::Value;
use serde_json::json;

use network::Bench;
use network::addresses;
use network::lets_localhost_out;
use network::rules;
use network::run;
use network::traces;

/// What hangs, ends; nothing is measured by it.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a packet that must not arrive is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Runs `action` in the namespace `name`; a socket that it opens stays there.
fn within<T: Send>(name: &str, action: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    namespace::inside(file.as_fd(), || Ok(action())).unwrap()
}

/// A server in a namespace that tells each caller from where it seems to come.
fn serve(name: &str, address: &str) {
    let listener = within(name, || TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for caller in listener.incoming() {
            let mut caller = caller.unwrap();
            let from = caller.peer_addr().unwrap().ip().to_canonical();
            let _ = caller.write_all(from.to_string().as_bytes());
        }
    });
}

/// What a server told a caller in the namespace `from`, or on the host; `None` when there was no answer.
fn call(from: Option<&str>, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&to, SILENCE).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    };
    match from {
        Some(name) => within(name, connect),
        None => connect(),
    }
}

fn portmap(fields: Value) -> Value {
    let mut plugin = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    plugin.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    plugin
}

#[test]
#[ignore = "runs in the VM"]
fn rule_34_twenty_four_parallel_chains_leave_nothing() {
    let mut bench = Bench::new("chains");
    let chained = [
        portmap(json!({})),
        json!({"type": "firewall"}),
        json!({"type": "tuning", "mtu": 1400, "promisc": true}),
    ];
    bench.network("chains", &["10.94.0.0/16", "fd94::/64"], &chained);
    let names: Vec<String> = (0..24).map(|number| format!("chain{number}")).collect();
    for name in &names {
        bench.namespace(name);
    }
    let bench = &bench;
    for round in 0..3 {
        let given: Vec<IpAddr> = std::thread::scope(|scope| {
            let threads: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(number, name)| {
                    let port = format!("{}:80", 30000 + number);
                    scope.spawn(move || addresses(&bench.try_attach("chains", name, &["--publish", &port])))
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 48, "round {round}: {given:?}");
        for name in &names {
            run(&mut bench.cni(&["check", "--id", name]));
        }
        assert!(rules() > 24 * 6);
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| bench.detach(name));
            }
        });
        assert_eq!((rules(), traces(&["chains"])), (0, vec![]), "round {round}");
        assert!(!lets_localhost_out("chains"), "round {round}");
    }
}

#[test]
#[ignore = "runs in the VM"]
fn rule_13_del_after_the_namespace_is_gone_leaves_nothing() {
    let mut bench = Bench::new("gone");
    let limits = json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 8_000_000, "egressBurst": 800_000});
    let chained = [
        portmap(json!({})),
        json!({"type": "firewall", "ingressPolicy": "same-bridge"}),
        json!({"type": "tuning", "mac": "02:00:00:00:94:01"}),
        limits,
        json!({"type": "sbr"}),
    ];
    bench.network("gone", &["10.94.0.0/16"], &chained);
    bench.attach("gone", "gone", &["--publish", "30000:80/udp"]);
    assert!(rules() > 0 && traces(&["gone"]).len() >= 4);
    run(Command::new("ip").args(["netns", "del", "gone"]));
    bench.detach("gone");
    assert_eq!((rules(), traces(&["gone"])), (0, vec![]));
    run(&mut bench.cni(&["detach", "gone", "--id", "gone"]));
}

#[test]
#[ignore = "runs in the VM"]
fn rule_24_twenty_parallel_adds_give_twenty_addresses() {
    let mut bench = Bench::new("twenty");
    bench.network("twenty", &["10.94.0.0/27"], &[]);
    let names: Vec<String> = (0..20).map(|number| format!("twenty{number}")).collect();
    for name in &names {
        bench.namespace(name);
    }
    let bench = &bench;
    let given: HashSet<IpAddr> = std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(move || addresses(&bench.try_attach("twenty", name, &[]))[0]))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(given.len(), 20);
}

#[test]
#[ignore = "runs in the VM"]
fn rule_33_a_published_port_answers_where_it_is_published_and_nowhere_else() {
    let mut bench = Bench::new("ports");
    bench.network("web", &["10.94.0.0/16", "fd94::/64"], &[portmap(json!({}))]);
    bench.network("else", &["10.93.0.0/16"], &[]);
    let publish =
        ["--publish", "8080:80", "--publish", "10.93.0.1:8081:80", "--publish", "[fd94::1]:8082:80"];
    let web = bench.attach("web", "web", &publish);
    let other = bench.attach("else", "other", &[]).to_string();
    serve("web", "[::]:80");
    // On the host: through 127.0.0.1, whose sender the container could not answer, and an address of the host.
    assert_eq!(call(None, "127.0.0.1:8080").as_deref(), Some("10.94.0.1"));
    assert!(call(None, "10.94.0.1:8080").is_some() && call(None, "[fd94::1]:8080").is_some());
    assert!(call(None, &format!("{web}:80")).is_some());
    // From another network the sender stays; from the container itself answers have to come back through the host.
    assert_eq!(call(Some("other"), "10.93.0.1:8080"), Some(other));
    assert_eq!(call(Some("web"), "10.94.0.1:8080").as_deref(), Some("10.94.0.1"));
    // Published on one address.
    assert!(call(None, "10.93.0.1:8081").is_some());
    assert_eq!(call(None, "10.94.0.1:8081"), None);
    assert!(call(None, "[fd94::1]:8082").is_some());
    assert_eq!(call(None, "10.94.0.1:8082"), None);
    bench.detach("web");
    assert_eq!((rules(), call(None, "10.94.0.1:8080")), (0, None));
}

#[test]
#[ignore = "runs in the VM"]
fn rule_33_snat_masq_all_and_conditions_decide_who_comes_in_as_whom() {
    let mut bench = Bench::new("snat");
    bench.network("plain", &["10.94.0.0/16"], &[portmap(json!({"snat": false}))]);
    bench.network("every", &["10.92.0.0/16"], &[portmap(json!({"masqAll": true}))]);
    bench.network(
        "some",
        &["10.91.0.0/16"],
        &[portmap(json!({"conditionsV4": ["ip saddr != 10.93.0.0/16"]}))],
    );
    bench.network("else", &["10.93.0.0/16"], &[]);
    for (network, port) in [("plain", "8081:80"), ("every", "8082:80"), ("some", "8083:80")] {
        bench.attach(network, network, &["--publish", port]);
        serve(network, "0.0.0.0:80");
    }
    let other = bench.attach("else", "other", &[]).to_string();
    assert_eq!(call(Some("other"), "10.93.0.1:8081"), Some(other));
    assert_eq!(call(None, "127.0.0.1:8081"), None, "without snat nobody can answer localhost");
    assert_eq!(call(Some("other"), "10.93.0.1:8082").as_deref(), Some("10.92.0.1"));
    assert_eq!(call(Some("other"), "10.93.0.1:8083"), None, "the condition keeps it out");
    assert!(call(Some("every"), "10.92.0.1:8083").is_some());
}

/// How many flows to `port` the kernel knows.
fn flows_to(port: u16) -> usize {
    const GET_OF_CONNTRACK: u16 = 1 << 8 | 1;
    const REQUEST_AND_DUMP: u16 = 0x301;
    let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER)).unwrap();
    let flows = socket.dump(|| Message::new(GET_OF_CONNTRACK, REQUEST_AND_DUMP, &[2, 0, 0, 0])).unwrap();
    let is_to = |payload: &[u8]| {
        // CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT
        let tuple = message::find(&payload[4..], 1).and_then(|tuple| message::find(tuple, 2)).unwrap();
        message::find(tuple, 3) == Some(&port.to_be_bytes())
    };
    flows.iter().filter(|flow| is_to(&flow.payload)).count()
}

#[test]
#[ignore = "runs in the VM"]
fn rule_33_a_udp_flow_follows_the_port_to_its_new_container() {
    let mut bench = Bench::new("udp");
    bench.network("udp", &["10.94.0.0/16"], &[portmap(json!({}))]);
    bench.network("else", &["10.93.0.0/16"], &[]);
    bench.attach("else", "client", &[]);
    let client = within("client", || UdpSocket::bind("0.0.0.0:4444").unwrap());
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    // A flow to a port of the host's own, which is nobody's to forget.
    let hosts_own = UdpSocket::bind("0.0.0.0:5354").unwrap();
    hosts_own.set_read_timeout(Some(DEADLINE)).unwrap();
    let ask = |word: &str| {
        client.send_to(word.as_bytes(), "10.93.0.1:5353").unwrap();
        let mut buffer = [0; 64];
        let (len, _) = client.recv_from(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    for name in ["first", "second"] {
        bench.attach("udp", name, &["--publish", "5353:53/udp"]);
        let socket = within(name, || UdpSocket::bind("0.0.0.0:53").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(name.as_bytes(), from).unwrap();
            }
        });
        // The client's flow never pauses long enough to be forgotten by itself.
        assert_eq!(ask("who"), name);
        client.send_to(b"stay", "10.93.0.1:5354").unwrap();
        hosts_own.recv_from(&mut [0; 64]).unwrap();
        assert_eq!((flows_to(5353), flows_to(5354)), (1, 1));
        bench.detach(name);
        assert_eq!((flows_to(5353), flows_to(5354)), (0, 1));
    }
}

/// A question for an address of `name`, as a C library sends it.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x43, 0x21, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

#[test]
#[ignore = "runs in the VM"]
fn the_resolver_answers_its_networks_alone_and_asks_the_rest_upstream() {
    const RESOLV_CONF: &str = "/run/resolv.conf";
    const UPSTREAM: &str = "127.0.0.9:53";
    let mut bench = Bench::new("names");
    bench.network("names", &["10.94.0.0/16"], &[]);
    bench.network("else", &["10.93.0.0/16"], &[]);
    let web = bench.attach("names", "web", &["--alias", "www"]);
    bench.attach("names", "asker", &[]);
    bench.attach("else", "other", &[]);
    let before = std::fs::read(RESOLV_CONF).unwrap_or_default();
    std::fs::write(RESOLV_CONF, "nameserver 10.94.0.1\nnameserver 127.0.0.9\n").unwrap();
    // An upstream that sends each question back as an answer, with its own mark; by TCP with another.
    let (udp, tcp) = (UdpSocket::bind(UPSTREAM).unwrap(), TcpListener::bind(UPSTREAM).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            buffer[2..4].copy_from_slice(&[0x81, 0x83]);
            udp.send_to(&buffer[..len], from).unwrap();
        }
    });
    std::thread::spawn(move || {
        let (mut stream, _) = tcp.accept().unwrap();
        let mut buffer = [0; 512];
        let len = stream.read(&mut buffer).unwrap();
        buffer[4..6].copy_from_slice(&[0x81, 0x85]);
        stream.write_all(&buffer[..len]).unwrap();
    });
    let ask = |from: &str, to: &str, name: &str| {
        let socket = within(from, || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket.send_to(&question(name), to).unwrap();
        let mut buffer = [0; 512];
        socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    };
    let IpAddr::V4(web) = web else { panic!("{web}") };
    let ends_in_address =
        |answer: Option<Vec<u8>>| answer.is_some_and(|answer| answer.ends_with(&web.octets()));
    assert!(ends_in_address(ask("asker", "10.94.0.1:53", "www")));
    assert!(ends_in_address(ask("web", "10.94.0.1:53", "web")));
    let mut upstreams = question("example.com");
    upstreams[2..4].copy_from_slice(&[0x81, 0x83]);
    assert_eq!(ask("asker", "10.94.0.1:53", "example.com"), Some(upstreams));
    assert_eq!(ask("other", "10.94.0.1:53", "web"), None, "whoever is on another network is told nothing");
    assert!(!ends_in_address(ask("other", "10.93.0.1:53", "web")));
    // By TCP: a name of the network's, then one of elsewhere, on one connection.
    let mut stream = within("asker", || TcpStream::connect("10.94.0.1:53").unwrap());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut ask_stream = |name: &str| {
        let packet = question(name);
        let framed = [&u16::try_from(packet.len()).unwrap().to_be_bytes(), packet.as_slice()].concat();
        stream.write_all(&framed).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    assert!(ask_stream("web").ends_with(&web.octets()));
    assert_eq!(ask_stream("example.com")[2..4], [0x81, 0x85]);
    std::fs::write(RESOLV_CONF, before).unwrap();
}

#[test]
#[ignore = "runs in the VM"]
fn rule_34_same_bridge_keeps_other_bridges_out_and_open_lets_them_in() {
    let mut bench = Bench::new("ingress");
    let same = json!({"type": "firewall", "ingressPolicy": "same-bridge"});
    bench.network("red", &["10.94.0.0/16"], std::slice::from_ref(&same));
    bench.network("blue", &["10.93.0.0/16"], &[same]);
    bench.network("open", &["10.92.0.0/16"], &[json!({"type": "firewall", "ingressPolicy": "open"})]);
    let red = bench.attach("red", "red", &[]);
    bench.attach("red", "red2", &[]);
    bench.attach("blue", "blue", &[]);
    let open = bench.attach("open", "open", &[]);
    for name in ["red", "open"] {
        serve(name, "0.0.0.0:80");
    }
    let (red, open) = (format!("{red}:80"), format!("{open}:80"));
    assert!(call(Some("red2"), &red).is_some(), "the same bridge");
    assert!(call(None, &red).is_some(), "the host");
    assert_eq!(call(Some("blue"), &red), None, "another bridge");
    assert!(call(Some("blue"), &open).is_some(), "an open one");
    for name in ["red", "red2", "blue", "open"] {
        run(&mut bench.cni(&["check", "--id", name]));
        bench.detach(name);
    }
    assert_eq!(rules(), 0);
}

#[test]
#[ignore = "runs in the VM"]
fn rule_34_isolated_keeps_everybody_of_this_host_out_but_not_the_host() {
    let mut bench = Bench::new("isolated");
    let isolated = json!({"type": "firewall", "ingressPolicy": "isolated"});
    bench.network("red", &["10.94.0.0/16", "fd94::/64"], &[portmap(json!({})), isolated]);
    bench.network("open", &["10.92.0.0/16"], &[]);
    let publish = ["--publish", "8080:80"];
    let red = bench.attach("red", "red", &publish);
    bench.attach("red", "red2", &[]);
    bench.attach("open", "open", &[]);
    for name in ["red", "open"] {
        serve(name, "[::]:80");
    }
    assert!(call(None, &format!("{red}:80")).is_some(), "the host");
    assert_eq!(call(Some("red2"), &format!("{red}:80")), None, "the same bridge");
    assert_eq!(call(Some("red2"), "[fd94::2]:80"), None, "the same bridge, IPv6");
    assert_eq!(call(Some("red2"), "10.94.0.1:8080"), None, "the same bridge, by way of the host");
    assert_eq!(call(Some("red"), "10.92.0.2:80").as_deref(), Some("10.94.0.2"), "out of it");
    run(&mut bench.cni(&["check", "--id", "red"]));
    let mut socket = NftSocket::open().unwrap();
    let bridged = |socket: &mut NftSocket| socket.rules(Family::Bridge, "cni_firewall").unwrap().len();
    assert_eq!(bridged(&mut socket), 4);
    bench.detach("red");
    assert_eq!(bridged(&mut socket), 2, "the other one's stay");
    bench.detach("red2");
    bench.detach("open");
    assert_eq!(rules(), 0);
}

/// The namespace `name` takes 127.0.0.1 for an address of its gateway's.
fn send_localhost_away(name: &str) {
    let script = "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
        ip addr flush dev lo
        ip route flush table local 127.0.0.0/8
        ip route add 127.0.0.1 via 10.94.0.1";
    run(Command::new("ip").args(["netns", "exec", name, "sh", "-c", script]));
}

#[test]
#[ignore = "runs in the VM"]
fn rule_33_localhost_is_the_hosts_alone_though_ports_are_published_there() {
    const SWITCH: &str = "/proc/sys/net/ipv4/conf/local/route_localnet";
    let mut bench = Bench::new("local");
    bench.network("local", &["10.94.0.0/16"], &[portmap(json!({}))]);
    bench.attach("local", "web", &["--publish", "127.0.0.1:8081:80"]);
    bench.attach("local", "neighbour", &[]);
    serve("web", "0.0.0.0:80");
    let listener = TcpListener::bind("127.0.0.1:9191").unwrap();
    std::thread::spawn(move || {
        for caller in listener.incoming() {
            let _ = caller.unwrap().write_all(b"secret");
        }
    });
    send_localhost_away("neighbour");
    assert_eq!(std::fs::read_to_string(SWITCH).unwrap().trim(), "1");
    assert!(call(None, "127.0.0.1:8081").is_some() && call(None, "127.0.0.1:9191").is_some());
    assert_eq!(call(Some("neighbour"), "127.0.0.1:9191"), None, "a service of the host's");
    assert_eq!(call(Some("neighbour"), "127.0.0.1:8081"), None, "a port that is published on localhost");
    bench.detach("web");
    assert_eq!(std::fs::read_to_string(SWITCH).unwrap().trim(), "0", "it stays open without a guard");
    // Without both, the neighbour gets there: what kept it out was no accident.
    std::fs::write(SWITCH, "1").unwrap();
    assert_eq!(call(Some("neighbour"), "127.0.0.1:9191").as_deref(), Some("secret"));
    bench.detach("neighbour");
}

#[test]
#[ignore = "runs in the VM"]
fn rule_33_localhost_is_closed_by_whatever_takes_a_bridges_last_port() {
    let mut bench = Bench::new("closing");
    bench.network("first", &["10.94.0.0/16"], &[portmap(json!({}))]);
    bench.network("second", &["10.92.0.0/16"], &[portmap(json!({"masqAll": true}))]);
    for (network, name, port) in
        [("first", "a", "8081:80"), ("first", "b", "8082:80"), ("second", "c", "8083:80")]
    {
        bench.attach(network, name, &["--publish", port]);
    }
    let open = || ["first", "second"].map(lets_localhost_out);
    // As a runtime without a cache calls it: it knows no prevResult.
    let portmap = |verb: &str, network: &str, name: &str| {
        let config = json!({"cniVersion": "1.1.0", "name": network, "type": "portmap",
            "cni.dev/valid-attachments": []});
        network::call(&bench, verb, name, &config)
    };
    assert_eq!(open(), [true, true]);
    portmap("DEL", "first", "a");
    assert_eq!(open(), [true, true], "another one of the bridge has a port");
    portmap("DEL", "first", "b");
    assert_eq!(open(), [false, true], "only the other bridge has ports");
    portmap("GC", "second", "none");
    assert_eq!(open(), [false, false]);
    assert!(NftSocket::open().unwrap().rules(Family::Ip, "cni_hostport").unwrap().is_empty());
}

#[test]
#[ignore = "runs in the VM"]
fn rule_31_a_tables_form_is_made_once_and_one_of_before_is_mended() {
    let mut bench = Bench::new("form");
    bench.network("form", &["10.94.0.0/16"], &[json!({"type": "firewall"})]);
    // As another version of this program could have left it: neither the other chains nor their rules.
    let mut before = Batch::new(Family::Inet, "cni_firewall", None);
    before.make_table("form of before");
    before.make_chain("containers", None);
    NftSocket::open().unwrap().commit(before).unwrap();
    let fixed = || {
        let rules = NftSocket::open().unwrap().rules(Family::Inet, "cni_firewall").unwrap();
        rules.iter().filter(|rule| rule.comment.is_empty()).map(|rule| rule.handle).collect::<Vec<_>>()
    };
    bench.attach("form", "early", &[]);
    assert_eq!(fixed().len(), 4, "mended");
    bench.detach("early");
    assert_eq!(rules(), 0);
    bench.attach("form", "first", &[]);
    let handles = fixed();
    bench.attach("form", "second", &[]);
    assert_eq!(fixed(), handles, "they are the same still");
    bench.detach("first");
    run(&mut bench.cni(&["check", "--id", "second"]));
    bench.detach("second");
    assert_eq!(rules(), 0);
}
