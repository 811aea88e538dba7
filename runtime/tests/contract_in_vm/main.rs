//! Rules of CNI that only a kernel can judge: CHECK, GC, waiting, what a bridge and its pairs are like.
//!
//! In: the VM with `ip`, `cni` and the plugins, root. Out: verdicts. Must never: run on a developer's machine by accident,
//! so all are ignored; in the VM they run with `contract_in_vm --ignored --test-threads=1`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[allow(dead_code)] // other tests use other parts of it
#[path = "../network/mod.rs"]
mod network;
#[allow(dead_code)] // other tests use other parts of it
#[path = "../faults_in_vm/tracer.rs"]
mod tracer;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use runtime::netlink::nft::NftSocket;
use serde_json::Value;
use serde_json::json;

use network::Bench;
use network::TABLES;
use network::call;
use network::config;
use network::plugin_words;
use network::rules;
use network::run;
use network::traces;

fn ip(words: &str) -> String {
    run(Command::new("ip").args(words.split(' ')))
}

fn chain() -> [Value; 3] {
    [
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "firewall", "ingressPolicy": "same-bridge"}),
        json!({"type": "tuning", "mtu": 1400}),
    ]
}

#[test]
#[ignore = "runs in the VM"]
fn rule_16_check_passes_on_a_dual_stack_chain_and_sees_each_change() {
    let mut bench = Bench::new("check");
    bench.network("check", &["10.94.0.0/16", "fd94::/64"], &chain());
    bench.attach("check", "box", &["--publish", "8080:80"]);
    let check = |what: &str, is_fine: bool| {
        let output = bench.cni(&["check", "--id", "box"]).output().unwrap();
        assert_eq!(output.status.success(), is_fine, "{what}: {}", String::from_utf8_lossy(&output.stderr));
    };
    check("as it was made", true);
    for (change, back) in [
        ("-n box addr del fd94::2/64 dev eth0", "-n box addr add fd94::2/64 dev eth0 nodad"),
        ("-n box route del default", "-n box route add default via 10.94.0.1"),
        ("-n box -6 route del default", "-n box -6 route add default via fd94::1"),
        ("-n box link set eth0 mtu 1300", "-n box link set eth0 mtu 1400"),
        ("addr del 10.94.0.1/16 dev check", "addr add 10.94.0.1/16 dev check"),
    ] {
        ip(change);
        check(change, false);
        ip(back);
        check(back, true);
    }
    let reservation = Path::new("/var/lib/cni/networks/check/fd94::2");
    let kept = std::fs::read(reservation).unwrap();
    std::fs::remove_file(reservation).unwrap();
    check("without its reservation", false);
    std::fs::write(reservation, kept).unwrap();
    check("as before", true);
}

/// The plugins that keep something on the host, with what they are asked for.
fn keepers() -> [Value; 5] {
    let ranges = json!([[{"subnet": "10.94.0.0/24"}], [{"subnet": "fd94::/64"}]]);
    [
        config(
            "bridge",
            &json!({"bridge": "alone", "isGateway": true, "ipMasq": true, "macspoofchk": true,
            "ipam": {"type": "host-local", "ranges": ranges}}),
        ),
        config("portmap", &json!({})),
        config("firewall", &json!({"ingressPolicy": "isolated"})),
        config("bandwidth", &json!({"egressRate": 8_000_000, "egressBurst": 800_000})),
        config("tuning", &json!({"mtu": 1400})),
    ]
}

/// Everything that is kept on the host, rules by their comments.
fn kept() -> BTreeSet<String> {
    let mut socket = NftSocket::open().unwrap();
    let mut kept = BTreeSet::new();
    for (family, table) in TABLES {
        let rules = socket.rules(family, table).unwrap();
        kept.extend(
            rules
                .iter()
                .filter(|rule| !rule.comment.is_empty())
                .map(|rule| format!("{family:?} {table} {}", rule.comment)),
        );
    }
    kept.extend(traces(&["alone", "other"]).into_iter().filter(|trace| !trace.contains("veth")));
    kept
}

#[test]
#[ignore = "runs in the VM"]
fn rule_17_gc_of_each_plugin_takes_exactly_what_is_not_valid() {
    let mut bench = Bench::new("garbage");
    bench.bridges.push("alone".to_string());
    std::fs::create_dir_all("/var/lib/cni/networks/alone").unwrap();
    let mut add = |network: &str, name: &str, port: u16| {
        let before = kept();
        bench.namespace(name);
        let mut result = Value::Null;
        for mut plugin in keepers() {
            plugin["name"] = json!(network);
            plugin["prevResult"] = result;
            plugin["runtimeConfig"] =
                json!({"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]});
            result = serde_json::from_str(&call(&bench, "ADD", name, &plugin)).unwrap();
        }
        kept().difference(&before).cloned().collect::<BTreeSet<String>>()
    };
    let first = add("alone", "first", 8081);
    let second = add("alone", "second", 8082);
    let third = add("other", "third", 8083);
    assert!(first.len() >= 9 && second.len() == first.len(), "{first:?}\n{second:?}");
    for plugin in keepers() {
        let mut plugin = plugin;
        plugin["cni.dev/valid-attachments"] = json!([{"containerID": "first", "ifname": "eth0"}]);
        call(&bench, "GC", "first", &plugin);
    }
    let expected: BTreeSet<String> = first.union(&third).cloned().collect();
    assert_eq!(kept(), expected, "of {second:?} nothing is to be left, and of the others everything");
    for network in ["alone", "other"] {
        for mut plugin in keepers() {
            plugin["name"] = json!(network);
            plugin["cni.dev/valid-attachments"] = json!([]);
            call(&bench, "GC", "first", &plugin);
        }
    }
    assert_eq!(kept(), BTreeSet::new());
    let _ = std::fs::remove_dir_all("/var/lib/cni/networks/other");
}

/// Runs a plugin's ADD under the tracer, which tells whether it sleeps.
fn traced_add(bench: &Bench, name: &str, config: &Value) -> tracer::Outcome {
    let file = bench.folder.join("traced");
    std::fs::write(&file, config.to_string()).unwrap();
    let words = plugin_words("ADD", name, config["type"].as_str().unwrap(), &file);
    let outcome = tracer::run(&words.each_ref().map(String::as_str), None);
    assert_eq!(outcome.status, Some(0), "{config}: {}", outcome.stderr);
    outcome
}

#[test]
#[ignore = "runs in the VM"]
fn rule_26_addresses_can_be_used_at_once_and_are_waited_for_by_events() {
    let mut bench = Bench::new("detection");
    bench.bridges.push("alone".to_string());
    for (name, detect) in [("quick", false), ("careful", true)] {
        bench.namespace(name);
        let bridge = config(
            "bridge",
            &json!({"bridge": "alone", "enabledad": detect, "isGateway": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.94.0.0/24"}], [{"subnet": "fd94::/64"}]]}}),
        );
        let outcome = traced_add(&bench, name, &bridge);
        assert_eq!(outcome.sleeps, 0, "{name}");
        let addresses = ip(&format!("-n {name} -6 -o addr show eth0 scope global"));
        assert!(addresses.contains("fd94::") && !addresses.contains("tentative"), "{addresses}");
        assert_eq!(addresses.contains("nodad"), !detect, "{addresses}");
        call(&bench, "DEL", name, &bridge);
    }
}

#[test]
#[ignore = "runs in the VM"]
fn rule_27_nothing_sleeps_and_no_program_is_run() {
    let mut bench = Bench::new("awake");
    bench.network("awake", &["10.94.0.0/16", "fd94::/64"], &chain());
    bench.namespace("box");
    let lists = format!("NETCONFPATH={}", bench.folder.display());
    let attach = ["attach", "awake", "--id", "box", "--netns", "/run/netns/box", "--publish", "8080:80"];
    for words in [&attach[..], &["check", "--id", "box"], &["detach", "--id", "box"]] {
        let words = [&["env", lists.as_str(), "cni"], words].concat();
        let outcome = tracer::run(&words, None);
        assert_eq!(outcome.status, Some(0), "{words:?}: {}", outcome.stderr);
        assert!(outcome.messages > 0, "{words:?} did nothing");
        assert_eq!((outcome.sleeps, outcome.programs), (0, 0), "{words:?}");
    }
}

#[test]
#[ignore = "runs in the VM"]
fn rule_29_both_ends_have_the_mtu_and_each_pair_a_name_of_its_own() {
    let mut bench = Bench::new("pairs");
    bench.bridges.push("alone".to_string());
    let bridge = config("bridge", &json!({"bridge": "alone", "mtu": 1400}));
    for name in ["first", "second"] {
        bench.namespace(name);
        call(&bench, "ADD", name, &bridge);
        let inside = ip(&format!("-n {name} -o link show eth0"));
        assert!(inside.contains("mtu 1400") && inside.contains("LOWER_UP"), "{inside}");
    }
    let ports = ip("-o link show master alone");
    let names: BTreeSet<&str> = ports.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!((names.len(), ports.matches("mtu 1400").count()), (2, 2), "{ports}");
    assert!(names.iter().all(|name| name.starts_with("veth")), "{names:?}");
    ["first", "second"].iter().for_each(|name| drop(call(&bench, "DEL", name, &bridge)));
    assert_eq!(ip("-o link show master alone"), "");
}

#[test]
#[ignore = "runs in the VM"]
fn rule_30_parallel_adds_make_one_bridge_with_one_address() {
    let mut bench = Bench::new("parallel");
    bench.network("parallel", &["10.94.0.0/24", "fd94::/64"], &chain());
    let names: Vec<String> = (0..8).map(|number| format!("box{number}")).collect();
    names.iter().for_each(|name| bench.namespace(name));
    let bench = &bench;
    for round in 0..5 {
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| bench.try_attach("parallel", name, &[]));
            }
        });
        let addresses = ip("-o addr show parallel");
        assert_eq!(addresses.matches("10.94.0.1/24").count(), 1, "round {round}: {addresses}");
        assert_eq!(addresses.matches("fd94::1/64").count(), 1, "round {round}: {addresses}");
        assert_eq!(ip("-o link show master parallel").lines().count(), names.len(), "round {round}");
        names.iter().for_each(|name| bench.detach(name));
        ip("link del parallel");
        assert_eq!((rules(), traces(&["parallel"])), (0, vec![]), "round {round}");
    }
}

/// Root of a user namespace may enter network namespaces that belong to it, and not come back to the host's.
#[test]
#[ignore = "runs in the VM"]
fn a_namespace_from_which_there_is_no_way_back_is_entered_all_the_same() {
    let script = "unshare -n sleep 60 & pid=$!
        while [ \"$(readlink /proc/$pid/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do :; done
        echo '{ \"cniVersion\": \"1.1.0\", \"name\": \"n\", \"type\": \"loopback\" }' |
        CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_NETNS=/proc/$pid/ns/net CNI_IFNAME=lo CNI_PATH=/opt/cni/bin \
        /opt/cni/bin/loopback; status=$?; kill $pid; exit $status";
    let answer = run(Command::new("unshare").args(["-U", "-r", "sh", "-c", script]));
    assert!(answer.contains("127.0.0.1/8"), "{answer}");
}
