//! The plugins by name, one file each, and what every one of them does the same way: VERSION, errors, exit codes.
//!
//! In: CNI_* and stdin. Out: JSON on stdout, log on stderr. Must never: write anything else to stdout.

mod bandwidth;
mod bridge;
mod conditions;
mod container;
mod dummy;
mod firewall;
mod gateway;
mod host_device;
pub(crate) mod interface;
mod ipvlan;
mod loopback;
mod macvlan;
mod masquerade;
mod master;
mod portmap;
mod ptp;
mod sbr;
mod spoof;
mod tap;
mod tuning;
mod veth;
mod vlan;
mod vrf;

use std::io::Read;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use sys::start::ExitCode;

use super::error;
use super::error::Error;
use super::ipam::dhcp;
use super::ipam::host_local;
use super::ipam::static_addresses;
use super::plan::Command;
use super::plan::NetPlan;
use super::request::Request;
use super::unsupported;
use super::version::Version;
use netlink::namespace;

type Run = fn(&NetPlan) -> Result<Option<Value>, Error>;

/// Every plugin, by the name that it answers to; a test keeps `face::PLUGINS` equal.
const PLUGINS: &[(&str, Run)] = &[
    ("bandwidth", bandwidth::run),
    ("bridge", bridge::run),
    ("dhcp", dhcp::run),
    ("dummy", dummy::run),
    ("firewall", firewall::run),
    ("host-device", host_device::run),
    ("host-local", host_local::run),
    ("ipvlan", ipvlan::run),
    ("loopback", loopback::run),
    ("macvlan", macvlan::run),
    ("portmap", portmap::run),
    ("ptp", ptp::run),
    ("sbr", sbr::run),
    ("static", static_addresses::run),
    ("tap", tap::run),
    ("tuning", tuning::run),
    ("vlan", vlan::run),
    ("vrf", vrf::run),
];

/// VERSION waits no longer than this for a configuration that may never come (contract rule 4).
const VERSION_WAIT: Duration = Duration::from_millis(100);

/// The names of our plugins, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|(name, _)| *name)
}

/// Whether `name` is one of our plugins.
pub fn is_plugin(name: &str) -> bool {
    names().any(|plugin| plugin == name)
}

/// Runs the plugin called `name` and returns its exit code.
pub fn main(name: &str) -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some_and(|command| command == "VERSION") {
        return say(name, &version_answer(&read_briefly()), ExitCode::SUCCESS);
    }
    let request = match Request::from_process() {
        Ok(Some(request)) => request,
        Ok(None) => {
            drop(writeln!(
                std::io::stderr(),
                "{name}: Coracle's CNI plugin of that name, CNI protocol versions 0.1.0 to 1.1.0; set CNI_COMMAND"
            ));
            return ExitCode::SUCCESS;
        }
        Err(cause) => {
            let error = Error::new(error::IO_FAILURE, format!("stdin can't be read: {cause}"));
            return say(name, &error.to_json(Version::V1_1_0), ExitCode::FAILURE);
        }
    };
    let stdin = request.stdin.clone();
    let done = execute(name, request);
    netlink::nft::close_kept();
    match done {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => say(name, &answer, ExitCode::SUCCESS),
        Err(error) => say(name, &error.to_json(version_of(&stdin)), ExitCode::FAILURE),
    }
}

/// Tells the caller, and gives `code`. Whoever can't be told a result takes the attachment for failed, and calls DEL.
fn say(name: &str, answer: &Value, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout(), "{answer}") {
        Ok(()) => code,
        Err(cause) => {
            // There may be nobody on standard error either.
            let _ = writeln!(std::io::stderr(), "{name}: the answer can't be written: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a plugin's verb in this process.
///
/// # Errors
/// The plugin's.
pub fn execute(name: &str, request: Request) -> Result<Option<Value>, Error> {
    if request.command == "VERSION" {
        return Ok(Some(version_answer(&request.stdin)));
    }
    let plan = NetPlan::new(request)?;
    refuse_own_namespace(&plan)?;
    carry_out(name, &plan)
}

/// The same, of what was checked already.
///
/// # Errors
/// The plugin's.
pub fn carry_out(name: &str, plan: &NetPlan) -> Result<Option<Value>, Error> {
    let Some((_, run)) = PLUGINS.iter().find(|(plugin, _)| *plugin == name) else {
        return Err(Error::new(error::INVALID_CONFIG, format!("{name:?} is no plugin of this program")));
    };
    if matches!(plan.command, Command::Add | Command::Status) {
        unsupported::refuse(name, &plan.fields()?)?;
    }
    run(plan)
}

/// Reads what ADD is to do as the plugin `name` does, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// The plugin's.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(name: &str, plan: &NetPlan) -> Result<(), Error> {
    use netlink::nft::Batch;
    unsupported::refuse(name, &plan.fields()?)?;
    let driver: fn(&NetPlan) -> Result<Box<dyn interface::Driver>, Error> = match name {
        "bandwidth" => return bandwidth::read(plan),
        "dhcp" => {
            return dhcp::read(plan)
                .map(|options| assert!(options.iter().all(|(_, value)| value.len() < 256)));
        }
        "firewall" | "portmap" => {
            let read = if name == "firewall" { firewall::read } else { portmap::read };
            for (family, rule) in read(plan)? {
                Batch::new(family, "x", None).add_rule(&rule);
            }
            return Ok(());
        }
        "host-local" => return host_local::read(plan),
        "loopback" => return Ok(()),
        "sbr" => return sbr::read(plan),
        "static" => return static_addresses::read_reply(plan)?.to_json(plan.version).map(drop),
        "tuning" => {
            for (path, _) in tuning::read(plan)? {
                let below = path.strip_prefix("/proc/sys/net/").is_some_and(|rest| !rest.is_empty());
                assert!(below && !path.split('/').any(|part| part == ".."), "{path}");
            }
            return Ok(());
        }
        "vrf" => return vrf::read(plan),
        "bridge" => bridge::read,
        "dummy" => dummy::read,
        "host-device" => host_device::read,
        "ipvlan" => ipvlan::read,
        "macvlan" => macvlan::read,
        "ptp" => ptp::read,
        "tap" => tap::read,
        "vlan" => vlan::read,
        other => panic!("{other}: no plugin that can be read"),
    };
    let driver = driver(plan)?;
    super::ipam::kind(plan)?;
    let mut reply = plan.previous.clone().unwrap_or_default();
    driver.complete(&mut reply)?;
    reply.to_json(plan.version).map(drop)
}

/// Contract rule 8: whoever hands over the plugin's own namespace has made a mistake that would cost the host its network.
fn refuse_own_namespace(plan: &NetPlan) -> Result<(), Error> {
    let Some(path) = plan.netns.as_ref().filter(|_| !plan.netns_override) else { return Ok(()) };
    if matches!(plan.command, Command::Gc | Command::Status) {
        return Ok(());
    }
    let same = match (rustix::fs::stat(path), namespace::own_identity()) {
        (Ok(theirs), Ok(ours)) => (theirs.st_dev, theirs.st_ino) == ours,
        _ => false, // who needs the namespace will say what is wrong with it
    };
    if same {
        let message = format!("CNI_NETNS {} is the plugin's own network namespace", path.display());
        return Err(Error::new(error::INVALID_NETNS, message));
    }
    Ok(())
}

/// The configuration's version for an error's JSON, as far as it can be read.
fn version_of(stdin: &[u8]) -> Version {
    let value = serde_json::from_slice::<Value>(stdin).unwrap_or_default();
    Version::parse(value["cniVersion"].as_str().unwrap_or_default()).unwrap_or(Version::V1_1_0)
}

fn version_answer(stdin: &[u8]) -> Value {
    let value = serde_json::from_slice::<Value>(stdin).unwrap_or_default();
    let asked = value["cniVersion"].as_str().unwrap_or("1.1.0");
    let all: Vec<String> = Version::ALL.iter().map(Version::to_string).collect();
    json!({"cniVersion": asked, "supportedVersions": all})
}

fn read_briefly() -> Vec<u8> {
    let stdin = std::io::stdin();
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(VERSION_WAIT.subsec_nanos()) };
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut fds = [rustix::event::PollFd::new(&stdin, rustix::event::PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..)) {
            return bytes;
        }
        match stdin.lock().read(&mut buffer) {
            Ok(0) | Err(_) => return bytes,
            Ok(len) => bytes.extend_from_slice(&buffer[..len]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::NetworkList;
    use netlink::nft::Family;

    fn request(command: &str, config: &Value) -> Request {
        let text = |text: &str| Some(text.to_string());
        Request {
            command: command.to_string(),
            container_id: text("c1"),
            netns: text("/proc/self/ns/net"),
            ifname: text("eth0"),
            path: text("/opt/cni/bin"),
            stdin: config.to_string().into_bytes(),
            ..Request::default()
        }
    }

    #[test]
    fn rule_2_errors_have_the_specifications_codes_or_own_ones_from_100() {
        let config = |version: &str| json!({"cniVersion": version, "name": "n", "type": "bridge"});
        let code = |request: Request| execute("bridge", request).unwrap_err().code;
        assert_eq!(code(request("ADD", &config("9.9.9"))), 1);
        assert_eq!(code(Request { container_id: None, ..request("ADD", &config("1.1.0")) }), 4);
        assert_eq!(code(Request { stdin: b"{".to_vec(), ..request("ADD", &config("1.1.0")) }), 6);
        let elsewhere = Some("/nonexistent".to_string());
        let wrong = json!({"cniVersion": "1.1.0", "name": "n", "type": "bridge", "hairpinMode": true, "promiscMode": true});
        assert_eq!(code(Request { netns: elsewhere.clone(), ..request("ADD", &wrong) }), 7);
        assert_eq!(code(Request { netns: elsewhere, ..request("ADD", &config("1.1.0")) }), 8);
        let named = [
            (error::INCOMPATIBLE_VERSION, 1),
            (error::UNSUPPORTED_FIELD, 2),
            (error::UNKNOWN_CONTAINER, 3),
            (error::INVALID_ENVIRONMENT, 4),
            (error::IO_FAILURE, 5),
            (error::DECODING_FAILURE, 6),
            (error::INVALID_CONFIG, 7),
            (error::INVALID_NETNS, 8),
            (error::TRY_AGAIN, 11),
            (error::NOT_AVAILABLE, 50),
            (error::OTHER, 999),
        ];
        assert!(named.iter().all(|(ours, theirs)| ours == theirs));
        let own = [error::NO_ADDRESS_LEFT, error::CHECK_FAILED, error::ALREADY_ATTACHED];
        assert!(own.iter().all(|code| (100..999).contains(code)));
    }

    #[test]
    fn rule_31_the_tables_have_their_names_and_rules_are_found_by_comment() {
        let table = |table: &crate::rules::Table| (table.family, table.name);
        assert_eq!(portmap::TABLES.map(table), [(Family::Ip, "cni_hostport"), (Family::Ip6, "cni_hostport")]);
        assert_eq!(table(&masquerade::TABLE), (Family::Inet, "cni_plugins_masquerade"));
        assert_eq!(table(&firewall::TABLE), (Family::Inet, "cni_firewall"));
        let attachment = |network: &str, id: &str, ifname: &str| {
            let text = str::to_string;
            crate::plan::Attachment { network: text(network), id: text(id), ifname: text(ifname) }
        };
        // Whatever is equal when it is written one behind the other, and names that are longer than a comment.
        let long = "n".repeat(300);
        let comments: std::collections::HashSet<String> = [
            ("n", "c", "eth0"),
            ("n", "ceth", "0"),
            ("nc", "", "eth0"),
            (&long, "c", "eth0"),
            (&long, "d", "eth0"),
        ]
        .map(|(network, id, ifname)| crate::rules::comment(&attachment(network, id, ifname)))
        .into();
        assert_eq!(comments.len(), 5);
        assert!(comments.iter().all(|comment| comment.len() <= netlink::nft::COMMENT_LEN_MAX));
    }

    #[test]
    fn rule_6_version_answers_the_inputs_and_all() {
        let answer = version_answer(br#"{"cniVersion": "0.4.0"}"#);
        assert_eq!(answer["cniVersion"], "0.4.0");
        let all = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        assert_eq!(answer["supportedVersions"], json!(all));
        assert_eq!(version_answer(b"")["cniVersion"], "1.1.0");
    }

    #[test]
    fn rule_8_the_own_namespace_is_refused_before_anything_is_done() {
        let config = json!({"cniVersion": "1.1.0", "name": "n", "type": "x", "vrfname": "v",
            "prevResult": {"cniVersion": "1.1.0"}});
        for (plugin, _) in PLUGINS {
            for command in ["ADD", "DEL", "CHECK"] {
                let error = execute(plugin, request(command, &config)).unwrap_err();
                assert_eq!(error.code, error::INVALID_NETNS, "{plugin} {command}: {error}");
            }
        }
    }

    /// What a plugin of a chain gets from those before it.
    fn previous() -> Value {
        json!({"cniVersion": "1.1.0", "interfaces": [{"name": "br0"}, {"name": "veth0"},
            {"name": "eth0", "sandbox": "/run/netns/x"}], "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1",
            "interface": 2}]})
    }

    #[test]
    fn the_examples_of_the_documentation_are_understood() {
        let text = include_str!("../../../../docs/networking.md");
        let mut shown = std::collections::BTreeSet::new();
        for example in text.split("```json\n").skip(1) {
            let example = example.split("```").next().unwrap();
            let path = std::path::Path::new("docs/networking.md");
            let list = NetworkList::parse(example.as_bytes(), path)
                .unwrap_or_else(|error| panic!("{error}\n{example}"));
            for (number, plugin) in list.plugins.iter().enumerate() {
                let before = Some(previous()).filter(|_| number > 0);
                let input =
                    crate::list::plugin_input(&list, plugin, before.as_ref(), &serde_json::Map::new());
                let args = Some("IgnoreUnknown=1;K8S_POD_NAME=web".to_string());
                let plan = NetPlan::new(Request { args, ..request("ADD", &Value::Object(input)) });
                let plan = plan.unwrap_or_else(|error| panic!("{error}\n{example}"));
                let kind = plugin["type"].as_str().unwrap();
                read(kind, &plan).unwrap_or_else(|error| panic!("{kind}: {error}\n{example}"));
                shown.insert(kind.to_string());
                let Some(ipam) = plugin["ipam"]["type"].as_str() else { continue };
                read(ipam, &plan).unwrap_or_else(|error| panic!("{ipam}: {error}\n{example}"));
                shown.insert(ipam.to_string());
            }
        }
        assert!(names().eq(shown.iter().map(String::as_str)), "only {shown:?} have an example");
    }

    #[test]
    fn no_stdin_makes_any_plugin_panic() {
        let base = json!({"cniVersion": "1.1.0", "name": "n", "type": "bridge", "bridge": "nope0", "mtu": 1500,
            "isGateway": true, "ipMasq": true, "vrfname": "red", "sysctl": {"net.core.somaxconn": "1"}, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}]],
            "dataDir": "/nonexistent/x"}, "runtimeConfig": {"bandwidth": {"ingressRate": 8, "ingressBurst": 8}, "portMappings": [{"hostPort": 1, "containerPort": 2,
            "protocol": "tcp"}]}, "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}],
            "ips": [{"address": "10.0.0.2/24", "interface": 0}], "routes": [{"dst": "0.0.0.0/0"}]}})
        .to_string()
        .into_bytes();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % 65_521).unwrap() % limit
        };
        for _ in 0..4000 {
            let mut stdin = base.clone();
            for _ in 0..=random(6) {
                let at = random(stdin.len().max(1));
                match random(4) {
                    0 if at < stdin.len() => stdin[at] = b"{}[]\",:0919.e-ntf\0\xff"[random(19)],
                    1 if stdin.len() > 1 => drop(stdin.remove(at)),
                    2 => stdin.insert(at, b"{}[]\",:0919.e-ntf\0\xff"[random(19)]),
                    _ => stdin.truncate(at.max(1)),
                }
            }
            let (plugin, _) = PLUGINS[random(PLUGINS.len())];
            let command = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", ""][random(7)];
            // The own namespace is refused, so nothing of this machine is touched, whatever the bytes say; the
            // verbs without a namespace have a folder that can't be made.
            let mut request = request(command, &Value::Null);
            request.stdin = stdin;
            if matches!(command, "GC" | "STATUS") {
                let _ = NetPlan::new(request);
            } else {
                let _ = execute(plugin, request);
            }
        }
    }
}
