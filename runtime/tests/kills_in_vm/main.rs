//! `cni` and each plugin killed at each message that they send to the kernel, then DEL; and many attachments one after the
//! other: nothing may be left.
//!
//! In: the VM with `ip`, `cni` and the plugins, root; `CORACLE_FAULTS=STRIDE,OFFSET` tries only every STRIDE-th message,
//! `CORACLE_CYCLES=N` makes N attachments. Out: verdicts. Must never: run on a developer's machine by accident, so all are
//! ignored; in the VM they run with `kills_in_vm --ignored --test-threads=1`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[allow(dead_code)] // other tests use other parts of it
#[path = "../network/mod.rs"]
mod network;
#[allow(dead_code)] // faults_in_vm and kills_in_vm each use a part of it
#[path = "../faults_in_vm/tracer.rs"]
mod tracer;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use runtime::netlink::nft::NftSocket;
use serde_json::Value;
use serde_json::json;

use network::Bench;
use network::TABLES;
use network::call;
use network::config;
use network::lets_localhost_out;
use network::plugin_words;
use network::rules;
use network::run;
use network::traces;
use tracer::Fault;
use tracer::Injection;
use tracer::Whose;

/// What hangs, ends; nothing is measured by it.
const DEADLINE: Duration = Duration::from_secs(10);
const BOX: &str = "box";
const NETNS: &str = "/run/netns/box";
/// Interfaces of the host that plugins build on or take.
const MASTER: &str = "master0";
const DEVICE: &str = "device0";

/// Which messages of so many are tried.
fn tried(messages: usize) -> impl Iterator<Item = usize> {
    let given = std::env::var("CORACLE_FAULTS").unwrap_or("1,0".to_string());
    let (stride, offset) = given.split_once(',').unwrap();
    let (stride, offset): (usize, usize) = (stride.parse().unwrap(), offset.parse().unwrap());
    (1 + offset % stride..=messages).step_by(stride)
}

/// A network with whatever can leave something: rules of four plugins, a backup, an ifb, addresses of both families.
fn everything(bench: &mut Bench, name: &str) {
    let rates = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000,
        "egressBurst": 800_000, "unshapedSubnets": ["10.0.0.0/8"]});
    let mut bandwidth = json!({"type": "bandwidth"});
    bandwidth.as_object_mut().unwrap().extend(rates.as_object().unwrap().clone());
    let plugins = json!([
        {"type": "bridge", "bridge": name, "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true,
            "hairpinMode": true, "ipam": {"type": "host-local",
                "ranges": [[{"subnet": "10.94.0.0/24"}], [{"subnet": "fd94::/64"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall", "ingressPolicy": "isolated"},
        bandwidth,
        {"type": "tuning", "mtu": 1400, "promisc": true},
        {"type": "sbr"}
    ]);
    bench.list(name, &plugins);
}

/// `cni` with the bench's lists.
fn cni(bench: &Bench, words: &[&str]) -> Vec<String> {
    let lists = format!("NETCONFPATH={}", bench.folder.display());
    let begin = ["env", lists.as_str(), "cni"];
    begin.iter().chain(words).map(|word| word.to_string()).collect()
}

/// The words that attach the box with two published ports.
fn attach_words(bench: &Bench, network: &str) -> Vec<String> {
    let ports = ["--publish", "8080:80", "--publish", "5353:53/udp"];
    cni(bench, &[&["attach", network, "--id", BOX, "--netns", NETNS][..], &ports].concat())
}

fn do_it(words: &[String]) {
    run(Command::new(&words[0]).args(&words[1..]));
}

/// What is in the box but `lo`, and on the host.
fn left(networks: &[&str]) -> Vec<String> {
    let mut left = traces(networks);
    left.extend((0..rules()).map(|_| "a rule".to_string()));
    let open = networks.iter().filter(|name| lets_localhost_out(name));
    left.extend(open.map(|name| format!("{name} lets localhost out")));
    if Path::new(NETNS).exists() {
        let links = run(Command::new("ip").args(["-n", BOX, "-o", "link"]));
        left.extend(links.lines().filter(|line| !line.starts_with("1: lo:")).map(str::to_string));
    }
    left
}

/// The same once the kernel has taken down a namespace that is gone, and with it the pairs that ended there: it does so in
/// its own time, and without a result nobody knows such a pair's name.
fn left_in_the_end(networks: &[&str]) -> Vec<String> {
    let end = Instant::now() + DEADLINE;
    loop {
        let left = left(networks);
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn traced(words: &[String], injection: Option<Injection>) -> tracer::Outcome {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    tracer::run(&words, injection)
}

/// Runs `words`, killed at the `nth` message; says whether it came to that.
fn kill(words: &[String], nth: usize) -> bool {
    kill_at(words, Whose::Messages, nth)
}

fn kill_at(words: &[String], whose: Whose, nth: usize) -> bool {
    let outcome = traced(words, Some(Injection { whose, nth, fault: Fault::Kill }));
    assert!(outcome.hit.is_none() || outcome.status.is_none(), "it ended by itself: {outcome:?}");
    outcome.hit.is_some()
}

/// How many messages `words` send when nothing goes wrong.
fn messages_of(words: &[String]) -> usize {
    let outcome = traced(words, None);
    assert_eq!(outcome.status, Some(0), "{words:?}: {}", outcome.stderr);
    assert!(outcome.messages > 0, "{words:?} sent no message");
    outcome.messages
}

fn report(what: &str, messages: usize, hits: usize, wrong: &[String]) {
    println!("{what}: {messages} messages, {hits} tried");
    assert!(hits > 0, "{what}: none tried");
    assert!(wrong.is_empty(), "{what}\n{}", wrong.join("\n"));
}

#[test]
#[ignore = "runs in the VM"]
fn rule_13_killed_in_attach_then_del() {
    let mut bench = Bench::new("killed");
    everything(&mut bench, "killed");
    bench.namespace(BOX);
    let words = attach_words(&bench, "killed");
    let messages = messages_of(&words);
    bench.detach(BOX);
    assert_eq!(left(&["killed"]), Vec::<String>::new());
    let (mut hits, mut wrong) = (0, Vec::new());
    for nth in tried(messages) {
        hits += usize::from(kill(&words, nth));
        // Now and then the namespace is gone before anybody cleans up.
        let gone = nth % 3 == 0;
        if gone {
            run(Command::new("ip").args(["netns", "del", BOX]));
        }
        bench.detach(BOX);
        let left = if gone { left_in_the_end(&["killed"]) } else { left(&["killed"]) };
        if !left.is_empty() {
            wrong.push(format!("killed at message {nth}, namespace gone: {gone}: {left:?}"));
            break; // what is left once is left at all that follows
        }
        if gone {
            run(Command::new("ip").args(["netns", "add", BOX]));
        }
    }
    report("attach", messages, hits, &wrong);
}

#[test]
#[ignore = "runs in the VM"]
fn rule_13_killed_in_detach_then_del() {
    let mut bench = Bench::new("killed");
    everything(&mut bench, "killed");
    bench.namespace(BOX);
    let words = attach_words(&bench, "killed");
    do_it(&words);
    let detach = cni(&bench, &["detach", "--id", BOX]);
    let messages = messages_of(&detach);
    let (mut hits, mut wrong) = (0, Vec::new());
    for nth in tried(messages) {
        do_it(&words);
        hits += usize::from(kill(&detach, nth));
        bench.detach(BOX);
        let left = left(&["killed"]);
        if !left.is_empty() {
            wrong.push(format!("killed at message {nth}: {left:?}"));
            break;
        }
    }
    report("detach", messages, hits, &wrong);
}

/// Kills `plugin` at each message of its ADD; `first` is an interface plugin that comes before it. DEL gets no result, as
/// from a runtime whose ADD failed.
fn kill_plugin(bench: &Bench, plugin: &Value, first: Option<&Value>) {
    let begin = || {
        let mut whole = plugin.clone();
        if let Some(first) = first {
            whole["prevResult"] = serde_json::from_str(&call(bench, "ADD", BOX, first)).unwrap();
        }
        let file = bench.folder.join("killed");
        std::fs::write(&file, whole.to_string()).unwrap();
        plugin_words("ADD", BOX, plugin["type"].as_str().unwrap(), &file)
    };
    let end = || {
        call(bench, "DEL", BOX, plugin);
        first.iter().for_each(|first| drop(call(bench, "DEL", BOX, first)));
        left(&["alone"])
    };
    let words = begin();
    let messages = messages_of(&words);
    assert_eq!(end(), Vec::<String>::new(), "{plugin}");
    let (mut hits, mut wrong) = (0, Vec::new());
    for nth in tried(messages) {
        let words = begin();
        hits += usize::from(kill(&words, nth));
        let left = end();
        let lost = [MASTER, DEVICE].iter().find(|name| !Path::new("/sys/class/net").join(name).exists());
        if !left.is_empty() || lost.is_some() {
            wrong.push(format!("killed at message {nth}: left {left:?}, lost {lost:?}"));
            break;
        }
    }
    report(plugin["type"].as_str().unwrap(), messages, hits, &wrong);
}

/// A bench for plugins called one by one: a namespace, and the two devices that they take or build upon.
fn alone() -> Bench {
    let mut bench = Bench::new("alone");
    bench.bridges.extend(["alone", MASTER, DEVICE].map(str::to_string));
    bench.namespace(BOX);
    for name in [MASTER, DEVICE] {
        run(Command::new("ip").args(["link", "add", name, "up", "type", "dummy"]));
    }
    bench
}

/// host-local's addresses, which are the plugin's to give back.
fn ipam() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.94.0.0/24"}], [{"subnet": "fd94::/64"}]]})
}

#[test]
#[ignore = "runs in the VM"]
fn rule_13_killed_interface_plugins_then_del() {
    let bench = alone();
    let ipam = ipam();
    for (plugin, fields) in [
        (
            "bridge",
            json!({"bridge": "alone", "ipMasq": true, "macspoofchk": true, "vlan": 7,
            "portIsolation": true, "ipam": ipam}),
        ),
        ("ptp", json!({"ipMasq": true, "ipam": ipam})),
        ("macvlan", json!({"master": MASTER, "ipam": ipam})),
        ("ipvlan", json!({"master": MASTER, "ipam": ipam})),
        ("vlan", json!({"master": MASTER, "vlanId": 7, "ipam": ipam})),
        ("host-device", json!({"device": DEVICE, "ipam": ipam})),
        ("dummy", json!({"ipam": ipam})),
        ("tap", json!({"mtu": 1400, "ipam": ipam})),
    ] {
        kill_plugin(&bench, &config(plugin, &fields), None);
    }
}

#[test]
#[ignore = "runs in the VM"]
fn rule_13_killed_chained_plugins_then_del() {
    let bench = alone();
    let first = config("bridge", &json!({"bridge": "alone", "isDefaultGateway": true, "ipam": ipam()}));
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp"}]);
    for (plugin, fields) in [
        ("portmap", json!({"runtimeConfig": {"portMappings": ports}})),
        ("firewall", json!({"ingressPolicy": "isolated"})),
        (
            "bandwidth",
            json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000,
            "egressBurst": 800_000, "shapedSubnets": ["10.0.0.0/8"]}),
        ),
        ("tuning", json!({"mac": "02:00:00:00:00:05", "mtu": 1400, "allmulti": true})),
        ("sbr", json!({})),
        ("vrf", json!({"vrfname": "red"})),
    ] {
        kill_plugin(&bench, &config(plugin, &fields), Some(&first));
    }
}

/// host-local keeps its addresses in files: any of its calls may be its last.
#[test]
#[ignore = "runs in the VM"]
fn rule_24_killed_host_local_then_del_at_each_call() {
    let mut bench = Bench::new("alone");
    bench.namespace(BOX);
    let plugin = config("host-local", &json!({"ipam": ipam()}));
    let file = bench.folder.join("killed");
    std::fs::write(&file, plugin.to_string()).unwrap();
    let words = plugin_words("ADD", BOX, "host-local", &file);
    let calls = traced(&words, None).runtime_calls;
    call(&bench, "DEL", BOX, &plugin);
    let (mut hits, mut wrong) = (0, Vec::new());
    for nth in tried(calls) {
        hits += usize::from(kill_at(&words, Whose::Runtime, nth));
        call(&bench, "DEL", BOX, &plugin);
        let left = left(&["alone"]);
        if !left.is_empty() {
            wrong.push(format!("killed at call {nth}: {left:?}"));
            break;
        }
    }
    report("host-local", calls, hits, &wrong);
}

/// Rules by table, chain and comment, interfaces, and the files of CNI with what they say. Where the next address comes
/// from moves on with each; it is looked at by its name alone.
fn world() -> BTreeSet<String> {
    let mut world = BTreeSet::new();
    let mut socket = NftSocket::open().unwrap();
    for (family, table) in TABLES {
        for (number, rule) in socket.rules(family, table).unwrap().iter().enumerate() {
            world.insert(format!("{family:?} {table} {} {number} {}", rule.chain, rule.comment));
        }
    }
    world.extend(run(Command::new("ip").args(["-o", "link"])).lines().map(str::to_string));
    world.extend(run(Command::new("ip").args(["-n", BOX, "-o", "link"])).lines().map(str::to_string));
    for folder in ["/var/lib/cni", "/run/cni"] {
        files(Path::new(folder), &mut world);
    }
    world
}

fn files(folder: &Path, world: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, world);
        } else {
            let moves_on = entry.file_name().to_string_lossy().starts_with("last_reserved_ip");
            let text = if moves_on { vec![] } else { std::fs::read(&path).unwrap_or_default() };
            world.insert(format!("{} {}", path.display(), String::from_utf8_lossy(&text)));
        }
    }
}

#[test]
#[ignore = "runs in the VM"]
fn cycles_leave_the_ruleset_and_the_data_folder_as_they_were() {
    let cycles: u32 = std::env::var("CORACLE_CYCLES").map_or(50, |cycles| cycles.parse().unwrap());
    let mut bench = Bench::new("cycles");
    everything(&mut bench, "cycles");
    bench.namespace(BOX);
    // One that stays has its rules among those that come and go.
    bench.attach("cycles", "stays", &["--publish", "8081:80"]);
    let words = attach_words(&bench, "cycles");
    let cycle = || {
        do_it(&words);
        bench.detach(BOX);
    };
    cycle();
    let before = world();
    (0..cycles).for_each(|_| cycle());
    let after = world();
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "after {cycles} cycles: {changed:#?}");
    run(&mut bench.cni(&["check", "--id", "stays"]));
    println!("{cycles} cycles, {} rules", rules());
}
