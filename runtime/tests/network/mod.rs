//! What tests of networks in the VM share: a bench of networks and namespaces, and what attachments leave behind.
//!
//! In: names, lists. Out: networks, attachments, traces. Must never: judge.

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use runtime::netlink::nft::Family;
use runtime::netlink::nft::NftSocket;
use serde_json::Value;
use serde_json::json;

/// The tables that plugins make.
pub const TABLES: [(Family, &str); 6] = [
    (Family::Ip, "cni_hostport"),
    (Family::Ip6, "cni_hostport"),
    (Family::Inet, "cni_firewall"),
    (Family::Bridge, "cni_firewall"),
    (Family::Bridge, "cni_macspoof"),
    (Family::Inet, "cni_plugins_masquerade"),
];

/// A folder of configuration lists, and namespaces; all of it goes at the end.
pub struct Bench {
    pub folder: PathBuf,
    pub bridges: Vec<String>,
    namespaces: Vec<String>,
}

impl Bench {
    pub fn new(name: &str) -> Bench {
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(rules(), 0, "the machine was not clean");
        Bench { folder, bridges: vec![], namespaces: vec![] }
    }

    /// A list of bridge on `subnets` and then `chained`.
    pub fn network(&mut self, name: &str, subnets: &[&str], chained: &[Value]) {
        let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
        let mut plugins =
            vec![json!({"type": "bridge", "bridge": name, "isDefaultGateway": true, "hairpinMode": true,
            "ipMasq": false, "ipam": {"type": "host-local", "ranges": ranges}})];
        plugins.extend_from_slice(chained);
        self.list(name, &json!(plugins));
    }

    /// A list of `plugins`, whose bridge has its name.
    pub fn list(&mut self, name: &str, plugins: &Value) {
        let list = json!({"cniVersion": "1.1.0", "name": name, "plugins": plugins});
        std::fs::write(self.folder.join(format!("{name}.conflist")), list.to_string()).unwrap();
        self.bridges.push(name.to_string());
    }

    pub fn namespace(&mut self, name: &str) {
        run(Command::new("ip").args(["netns", "add", name]));
        self.namespaces.push(name.to_string());
    }

    pub fn cni(&self, args: &[&str]) -> Command {
        let mut command = Command::new("cni");
        command.env("NETCONFPATH", &self.folder).args(args);
        command
    }

    /// Attaches the namespace `name`, made anew, and gives its first address.
    pub fn attach(&mut self, network: &str, name: &str, rest: &[&str]) -> IpAddr {
        self.namespace(name);
        let text = self.try_attach(network, name, rest);
        addresses(&text)[0]
    }

    pub fn try_attach(&self, network: &str, name: &str, rest: &[&str]) -> String {
        let netns = format!("/run/netns/{name}");
        let args = ["attach", network, "--id", name, "--netns", &netns];
        run(self.cni(&args).args(rest))
    }

    pub fn detach(&self, name: &str) {
        run(&mut self.cni(&["detach", "--id", name]));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let _ = self.cni(&["detach", "--id", name]).status();
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
        for name in &self.bridges {
            let _ = Command::new("ip").args(["link", "del", name]).output();
            let _ = std::fs::remove_dir_all(format!("/var/lib/cni/networks/{name}"));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn addresses(result: &str) -> Vec<IpAddr> {
    let result: Value = serde_json::from_str(result).unwrap();
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()).collect()
}

/// Rules in tables of ours; a table that is there has some.
pub fn rules() -> usize {
    let mut socket = NftSocket::open().unwrap();
    TABLES.iter().map(|(family, table)| socket.rules(*family, table).unwrap().len()).sum()
}

/// What attachments leave on the host, apart from the bridges.
pub fn traces(networks: &[&str]) -> Vec<String> {
    let mut traces: Vec<String> = run(Command::new("ip").args(["-o", "link", "show", "type", "veth"]))
        .lines()
        .map(str::to_string)
        .collect();
    traces.extend(
        run(Command::new("ip").args(["-o", "link", "show", "type", "ifb"])).lines().map(str::to_string),
    );
    let mut folders = vec![PathBuf::from("/run/cni/tuning"), PathBuf::from("/var/lib/cni/results")];
    folders.extend(networks.iter().map(|name| PathBuf::from("/var/lib/cni/networks").join(name)));
    for folder in folders {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        traces.extend(names.filter(|name| name != "lock" && !name.starts_with("last_reserved_ip")));
    }
    traces
}

/// Whether published ports have let localhost out by the bridge `name`.
pub fn lets_localhost_out(name: &str) -> bool {
    let switch = std::fs::read(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"));
    switch.is_ok_and(|value| value == b"1\n")
}

/// The words that run a plugin for the namespace `name` with the configuration in `file`.
pub fn plugin_words(verb: &str, name: &str, plugin: &str, file: &Path) -> [String; 3] {
    let script = format!(
        "exec env CNI_COMMAND={verb} CNI_CONTAINERID={name} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0 \
         CNI_PATH=/opt/cni/bin /opt/cni/bin/{plugin} < {}",
        file.display()
    );
    ["sh".to_string(), "-c".to_string(), script]
}

/// Runs a plugin that has to succeed, and gives what it said.
pub fn call(bench: &Bench, verb: &str, name: &str, config: &Value) -> String {
    let file = bench.folder.join("config");
    std::fs::write(&file, config.to_string()).unwrap();
    let [shell, option, script] = plugin_words(verb, name, config["type"].as_str().unwrap(), &file);
    run(Command::new(shell).args([option, script]))
}

/// A plugin's configuration, of the network `alone`.
pub fn config(plugin: &str, fields: &Value) -> Value {
    let mut config = json!({"cniVersion": "1.1.0", "name": "alone", "type": plugin});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}
