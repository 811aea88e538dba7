//! tuning: sysctls of the container's namespace, and its interface's MAC, MTU, flags and queue.
//!
//! In: the plugin's own fields, `args.cni`, prevResult. Out: a changed namespace, prevResult with what was changed; a
//! backup in /run/cni/tuning by which DEL changes the interface back. Must never: write outside /proc/sys/net, or a
//! sysctl that the machine's allow list does not name (contract rules 28 and 35).

use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use super::container;
use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use crate::pattern::Pattern;
use crate::plan::Attachment;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::plan::format_mac;
use crate::plan::parse_mac;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::link::PROMISC;
use netlink::namespace;
use netlink::route::RouteSocket;

const DATA_DIR: &str = "/run/cni/tuning";
/// IFF_ALLMULTI
const ALLMULTI: u32 = 0x200;
const ALLOW_LIST: &str = "/etc/cni/tuning/allowlist.conf";

/// The plugin's own fields, every default filled in.
#[derive(Debug)]
struct Tuning {
    /// Keys as they were written, and values.
    sysctls: Vec<(String, String)>,
    mac: Option<[u8; 6]>,
    promisc: bool,
    mtu: Option<u32>,
    all_multicast: Option<bool>,
    queue_len: Option<u32>,
}

fn data_dir(plan: &NetPlan) -> Result<PathBuf, Error> {
    let fields = plan.fields()?;
    let own = fields.text("dataDir")?.filter(|path| !path.is_empty());
    Ok(PathBuf::from(own.unwrap_or(DATA_DIR)))
}

fn backup_path(data_dir: &Path, attachment: &Attachment) -> PathBuf {
    data_dir.join(format!("{}_{}.json", attachment.id, attachment.ifname))
}

impl Tuning {
    fn new(plan: &NetPlan) -> Result<Tuning, Error> {
        let fields = plan.fields()?;
        let own = |key: &str| fields.text(key).map(|text| text.filter(|text| !text.is_empty()));
        let mac = match plan.wanted_mac()? {
            Some(mac) => Some(mac),
            None => own("mac")?.map(parse_mac).transpose()?,
        };
        let mut tuning = Tuning {
            sysctls: Vec::new(),
            mac,
            promisc: false,
            mtu: None,
            all_multicast: None,
            queue_len: None,
        };
        tuning.read(&fields)?;
        if let Some(args) = fields.object("args")?.map(|args| args.object("cni")).transpose()?.flatten() {
            tuning.read(&args)?;
        }
        Ok(tuning)
    }

    /// What is said here goes before what was said already.
    fn read(&mut self, fields: &Fields<'_>) -> Result<(), Error> {
        for (key, value) in fields.text_pairs("sysctl")? {
            let path = sysctl_path(&key, "IFNAME")?;
            self.sysctls.retain(|(other, _)| sysctl_path(other, "IFNAME").ok().as_ref() != Some(&path));
            self.sysctls.push((key, value));
        }
        if fields.get("promisc").is_some() {
            self.promisc = fields.flag("promisc")?;
        }
        if fields.get("allmulti").is_some() {
            self.all_multicast = Some(fields.flag("allmulti")?);
        }
        self.mtu = fields.number("mtu")?.filter(|mtu| *mtu != 0).or(self.mtu);
        self.queue_len = fields.number("txQLen")?.or(self.queue_len);
        Ok(())
    }

    fn changes_the_interface(&self) -> bool {
        self.mac.is_some()
            || self.promisc
            || self.mtu.is_some()
            || self.all_multicast.is_some()
            || self.queue_len.is_some()
    }

    fn change(&self) -> LinkChange<'static> {
        let mut change = LinkChange {
            mtu: self.mtu,
            mac: self.mac,
            tx_queue_len: self.queue_len,
            ..LinkChange::default()
        };
        set(&mut change, PROMISC, self.promisc.then_some(true));
        set(&mut change, ALLMULTI, self.all_multicast);
        change
    }
}

fn set(change: &mut LinkChange<'_>, flag: u32, on: Option<bool>) {
    match on {
        Some(true) => change.flags |= flag,
        Some(false) => change.clear |= flag,
        None => {}
    }
}

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<Vec<(String, String)>, Error> {
    data_dir(plan)?;
    let tuning = Tuning::new(plan)?;
    tuning.change();
    allowed_paths(plan, &tuning, Path::new("/nonexistent"))
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 to 8, 101 from CHECK, 999.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    // DEL and GC need to know where backups lie, and no more: a field that ADD refused must not stop them.
    match plan.command {
        Command::Add => return add(plan, &Tuning::new(plan)?).map(Some),
        Command::Del => delete(plan, &data_dir(plan)?)?,
        Command::Check => check(plan, &Tuning::new(plan)?)?,
        Command::Gc => collect_garbage(plan, &data_dir(plan)?)?,
        Command::Status => {
            Tuning::new(plan)?;
        }
    }
    Ok(None)
}

fn add(plan: &NetPlan, tuning: &Tuning) -> Result<Value, Error> {
    plan.required_previous()?;
    let paths = allowed_paths(plan, tuning, Path::new(ALLOW_LIST))?;
    let (netns, mut socket) = container::open(plan)?;
    // In the namespace /proc/sys/net is the container's.
    let written = namespace::inside(netns.as_fd(), || {
        let write = |(path, value): &(String, String)| {
            std::fs::write(path, value)
                .map_err(|cause| Error::failed(format!("sysctl {path} can't be set to {value:?}"), cause))
        };
        Ok(paths.iter().try_for_each(write))
    });
    written.map_err(|errno| Error::failed("the container's namespace", errno))??;
    if tuning.changes_the_interface() {
        let link = interface(plan, &mut socket)?;
        back_up(plan, tuning, &link)?;
        let changed = socket.change_link(link.index, &tuning.change());
        if let Err(errno) = changed {
            let _ = delete(plan, &data_dir(plan)?); // the first error is the one to tell
            let message = format!("{} can't be changed as asked for", plan.attachment.ifname);
            return Err(Error::failed(message, errno));
        }
    }
    answer(plan, tuning)
}

/// prevResult, with the interface as it is now.
fn answer(plan: &NetPlan, tuning: &Tuning) -> Result<Value, Error> {
    if tuning.mac.is_none() && tuning.mtu.is_none() {
        return plan.pass_through();
    }
    let mut reply = plan.required_previous()?.clone();
    for interface in &mut reply.interfaces {
        if interface.name == plan.attachment.ifname && !interface.sandbox.is_empty() {
            if let Some(mac) = &tuning.mac {
                interface.mac = format_mac(mac);
            }
            interface.mtu = tuning.mtu.or(interface.mtu);
        }
    }
    reply.to_json(plan.version)
}

fn interface(plan: &NetPlan, socket: &mut RouteSocket) -> Result<Link, Error> {
    let ifname = &plan.attachment.ifname;
    let link = socket.link(ifname).map_err(|errno| Error::failed(ifname, errno))?;
    link.ok_or_else(|| {
        let message =
            format!("interface {ifname} is not in the container; name another plugin before this one");
        Error::new(error::UNKNOWN_CONTAINER, message)
    })
}

/// The interface as it was, in the reference's form, and whose it is, for GC.
fn back_up(plan: &NetPlan, tuning: &Tuning, link: &Link) -> Result<(), Error> {
    let folder = data_dir(plan)?;
    let path = backup_path(&folder, &plan.attachment);
    let failed = |cause: std::io::Error| Error::failed(path.display(), cause);
    let mut backup = json!({"network": plan.attachment.network, "id": plan.attachment.id,
        "ifname": plan.attachment.ifname});
    if tuning.mac.is_some() {
        backup["mac"] = json!(format_mac(&link.mac));
    }
    if tuning.promisc {
        backup["promisc"] = json!(link.flags & PROMISC != 0);
    }
    if tuning.mtu.is_some() {
        backup["mtu"] = json!(link.mtu);
    }
    if tuning.all_multicast.is_some() {
        backup["allmulti"] = json!(link.flags & ALLMULTI != 0);
    }
    if tuning.queue_len.is_some() {
        backup["txQLen"] = json!(link.tx_queue_len);
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&unfinished, backup.to_string()).map_err(failed)?;
    std::fs::rename(&unfinished, &path).map_err(failed)
}

/// Changes the interface back, where both are still there; the backup goes in any case.
fn delete(plan: &NetPlan, data_dir: &Path) -> Result<(), Error> {
    let path = backup_path(data_dir, &plan.attachment);
    let Ok(text) = std::fs::read(&path) else { return Ok(()) };
    let restored = restore(plan, &text);
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::failed(path.display(), cause))
        }
        _ => restored,
    }
}

fn restore(plan: &NetPlan, backup: &[u8]) -> Result<(), Error> {
    let Some((_netns, mut socket)) = container::try_open(plan)? else { return Ok(()) };
    let Ok(Some(link)) = socket.link(&plan.attachment.ifname) else { return Ok(()) };
    // One that can't be read, a crash has cut off: there is nothing to restore from.
    let Ok(value) = serde_json::from_slice::<Value>(backup) else { return Ok(()) };
    let fields = Fields::new(&value, "backup")?;
    let mut change = LinkChange {
        mtu: fields.number("mtu")?,
        tx_queue_len: fields.number("txQLen")?,
        mac: fields.text("mac")?.map(parse_mac).transpose()?,
        ..LinkChange::default()
    };
    for (key, flag) in [("promisc", PROMISC), ("allmulti", ALLMULTI)] {
        if fields.get(key).is_some() {
            set(&mut change, flag, Some(fields.flag(key)?));
        }
    }
    let what = || format!("{} can't be changed back", plan.attachment.ifname);
    socket.change_link(link.index, &change).map_err(|errno| Error::failed(what(), errno))
}

fn check(plan: &NetPlan, tuning: &Tuning) -> Result<(), Error> {
    let differs = |message: String| Err(Error::new(error::CHECK_FAILED, message));
    let (netns, mut socket) = container::open(plan)?;
    let read = namespace::inside(netns.as_fd(), || {
        let read = |(key, value): &(String, String)| {
            let path = sysctl_path(key, &plan.attachment.ifname)?;
            let found = std::fs::read_to_string(&path).map_err(|cause| Error::failed(&path, cause))?;
            // The kernel separates several values by tabs.
            let same = found.split_whitespace().eq(value.split_whitespace());
            if same { Ok(()) } else { differs(format!("sysctl {path} is {:?}, not {value:?}", found.trim())) }
        };
        Ok(tuning.sysctls.iter().try_for_each(read))
    });
    read.map_err(|errno| Error::failed("the container's namespace", errno))??;
    if !tuning.changes_the_interface() {
        return Ok(());
    }
    let name = &plan.attachment.ifname;
    let link = interface(plan, &mut socket)?;
    let wanted = tuning.change();
    if link.flags & (wanted.flags | wanted.clear) != wanted.flags {
        let asked = |bit: u32| if wanted.flags & bit != 0 { "on" } else { "off" };
        return differs(format!(
            "interface {name}: promisc and allmulti are not as set (promisc {}, allmulti {})",
            asked(PROMISC),
            asked(ALLMULTI)
        ));
    }
    if let Some(mac) = wanted.mac.filter(|mac| mac[..] != link.mac[..]) {
        let found = format_mac(&link.mac);
        return differs(format!("interface {name} has the MAC {found}, not {}", format_mac(&mac)));
    }
    let numbers = [("MTU", wanted.mtu, link.mtu), ("queue length", wanted.tx_queue_len, link.tx_queue_len)];
    for (what, wanted, found) in numbers {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            return differs(format!("interface {name} has the {what} {found}, not {wanted}"));
        }
    }
    Ok(())
}

/// Backups of a network's attachments that are not valid any more; those without a network are the reference's.
fn collect_garbage(plan: &NetPlan, data_dir: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(data_dir) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        let text = std::fs::read(&path).unwrap_or_default();
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
        let owner = Attachment { network: text("network"), id: text("id"), ifname: text("ifname") };
        if owner.network == plan.attachment.network && !plan.valid.contains(&owner) {
            std::fs::remove_file(&path).map_err(|cause| Error::failed(path.display(), cause))?;
        }
    }
    Ok(())
}

/// Where each sysctl lies, with its value, when the machine's allow list lets all of them pass.
fn allowed_paths(plan: &NetPlan, tuning: &Tuning, allow_list: &Path) -> Result<Vec<(String, String)>, Error> {
    let patterns = match std::fs::read_to_string(allow_list) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
        Err(cause) => return Err(Error::failed(allow_list.display(), cause)),
        Ok(text) => Some(text),
    };
    let wrong = |message: String| Error::new(error::INVALID_CONFIG, message);
    let parse = |line: &str| {
        Pattern::parse(line).map_err(|problem| wrong(format!("{}: {line}: {problem}", allow_list.display())))
    };
    let patterns = patterns.as_deref().map(|text| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect::<Result<Vec<_>, _>>()
    });
    let patterns = patterns.transpose()?;
    let mut paths = Vec::new();
    for (key, value) in &tuning.sysctls {
        if patterns.as_ref().is_some_and(|patterns| !patterns.iter().any(|pattern| pattern.fits(key))) {
            return Err(wrong(format!("field sysctl: {} does not allow {key:?}", allow_list.display())));
        }
        paths.push((sysctl_path(key, &plan.attachment.ifname)?, value.clone()));
    }
    Ok(paths)
}

/// Where a sysctl lies. The first of `.` and `/` separates; with `.` the two change places, so that an interface's name
/// may hold a dot either way: `net.ipv4.conf.eth0/100.forwarding`, `net/ipv4/conf/eth0.100/forwarding`.
fn sysctl_path(key: &str, ifname: &str) -> Result<String, Error> {
    let by_dots = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'.');
    let swap = |char| match char {
        '.' if by_dots => '/',
        '/' if by_dots => '.',
        other => other,
    };
    let path: String = key.chars().map(swap).collect();
    let path = path.replacen("IFNAME", ifname, 1);
    let path = path.strip_prefix('/').unwrap_or(&path);
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    let mut parts = path.split('/');
    if parts.next() != Some("net") || parts.clone().count() == 0 || !parts.all(is_plain) {
        let message = format!("field sysctl: {key:?} is no sysctl of the network; it must begin with net.");
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    Ok(format!("/proc/sys/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn plan(config: &Value) -> NetPlan {
        let mut whole = json!({"cniVersion": "1.1.0", "name": "n", "type": "tuning",
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x", "mac": "a",
            "mtu": 1500}, {"name": "eth0"}]}});
        whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        NetPlan::new(Request::to_add(&whole)).unwrap()
    }

    #[test]
    fn rule_28_sysctl_paths_may_have_slashes_and_names_may_have_dots() {
        let path = |key: &str| sysctl_path(key, "eth0").unwrap();
        assert_eq!(path("net.core.somaxconn"), "/proc/sys/net/core/somaxconn");
        assert_eq!(path("net/ipv4/conf/eth0.100/arp_filter"), "/proc/sys/net/ipv4/conf/eth0.100/arp_filter");
        assert_eq!(path("net.ipv4.conf.eth0/100.arp_filter"), "/proc/sys/net/ipv4/conf/eth0.100/arp_filter");
        assert_eq!(path("net.ipv4.conf.IFNAME.arp_filter"), "/proc/sys/net/ipv4/conf/eth0/arp_filter");
        for bad in
            ["kernel.hostname", "net", "net/../kernel/x", "net.ipv4..x", "net//x", "../net/x", "netx.y", ""]
        {
            assert_eq!(sysctl_path(bad, "eth0").unwrap_err().code, error::INVALID_CONFIG, "{bad}");
        }
    }

    #[test]
    fn rule_35_the_allow_list_names_what_may_be_set() {
        let plan = plan(&json!({"sysctl": {"net.core.somaxconn": "500"}}));
        let tuning = Tuning::new(&plan).unwrap();
        let list = std::env::temp_dir().join(format!("cni-allow-{}", std::process::id()));
        assert_eq!(allowed_paths(&plan, &tuning, &list).unwrap().len(), 1, "without a list all may be set");
        let with = |text: &str| {
            std::fs::write(&list, text).unwrap();
            allowed_paths(&plan, &tuning, &list).map(|paths| paths.len()).map_err(|error| error.code)
        };
        assert_eq!(with("\n ^net\\.core\\.soma[a-z]+$ \n"), Ok(1));
        assert_eq!(with("^net\\.ipv4\\."), Err(error::INVALID_CONFIG));
        assert_eq!(with(""), Err(error::INVALID_CONFIG), "an empty list allows nothing");
        assert_eq!(with("(net"), Err(error::INVALID_CONFIG));
        std::fs::remove_file(list).unwrap();
    }

    #[test]
    fn args_go_before_the_plugins_own_fields_and_the_result_tells_of_the_change() {
        let plan = plan(&json!({"mac": "02:00:00:00:00:01", "mtu": 1400, "promisc": true, "txQLen": 7,
            "sysctl": {"net.core.a": "1", "net.core.b": "1"},
            "args": {"cni": {"mac": "02:00:00:00:00:02", "promisc": false, "allmulti": true,
                "sysctl": {"net/core/a": "2"}}}}));
        let tuning = Tuning::new(&plan).unwrap();
        let change = tuning.change();
        assert_eq!((change.flags, change.clear, change.tx_queue_len), (ALLMULTI, 0, Some(7)));
        let pairs = [("net.core.b", "1"), ("net/core/a", "2")];
        assert_eq!(tuning.sysctls, pairs.map(|(key, value)| (key.to_string(), value.to_string())));
        let answer = answer(&plan, &tuning).unwrap();
        assert_eq!(answer["interfaces"][0]["mac"], "02:00:00:00:00:02");
        assert_eq!(answer["interfaces"][0]["mtu"], 1400);
        assert_eq!(answer["interfaces"][1].get("mtu"), None, "the host's of that name is another one");
    }

    #[test]
    fn what_has_the_wrong_type_is_told_by_its_field() {
        for (config, word) in [
            (json!({"sysctl": {"net.core.x": 1}}), "sysctl.net.core.x"),
            (json!({"mtu": -1}), "field mtu"),
            (json!({"allmulti": "yes"}), "field allmulti"),
            (json!({"mac": "nope"}), "nope"),
        ] {
            let error = Tuning::new(&plan(&config)).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }
}
