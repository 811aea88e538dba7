//! Each network's resolv.conf, /run/cni/resolv/NETWORK.conf, which `runc spec --network` bind-mounts into a container.
//!
//! It has to be there before the container's first ADD, since mounts come before hooks; so it is made from the
//! configuration alone.
//!
//! In: configuration lists. Out: files. Must never: write one in place: a container may be looking at it.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;
use crate::fields::Fields;
use crate::ipam::host_local;
use crate::list::NetworkList;
use crate::list::Networks;
use crate::reply::Dns;

/// Where the files lie.
pub const FOLDER: &str = "/run/cni/resolv";
const OF_THE_HOST: &str = "/etc/resolv.conf";

/// Writes the files of all networks. One whose list is gone or broken keeps its file, so that whoever names it hears what
/// is wrong with the list, and not that a file is missing.
///
/// # Errors
/// The first, after all were tried.
pub fn write_all(networks: &Networks, folder: &Path) -> Result<(), Error> {
    let failed = |cause: std::io::Error| Error::failed(folder.display(), cause);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut result = Ok(());
    for list in &networks.lists {
        let path = folder.join(format!("{}.conf", list.name));
        let unfinished = folder.join(format!(".{}.{}", list.name, std::process::id()));
        let written = match text_of(list) {
            Some(text) => std::fs::write(&unfinished, text),
            None => std::os::unix::fs::symlink(OF_THE_HOST, &unfinished),
        };
        let written = written.and_then(|()| std::fs::rename(&unfinished, &path));
        result = result.and(written.map_err(failed));
    }
    result
}

/// A network's resolv.conf; `None` when it has neither a gateway on this host nor name servers of its own, and the host's
/// is all that can be said.
fn text_of(list: &NetworkList) -> Option<String> {
    let plugin = list.plugins.first()?;
    let dns = dns_of(plugin);
    let mut servers: Vec<String> = gateways_of(plugin).iter().map(IpAddr::to_string).collect();
    if servers.is_empty() {
        servers.clone_from(&dns.nameservers);
    }
    if servers.is_empty() {
        return None;
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search = if dns.search.is_empty() { dns.domain.iter().cloned().collect() } else { dns.search };
    for (key, words) in [("search", search), ("options", dns.options)] {
        if !words.is_empty() {
            text += &format!("{key} {}\n", words.join(" "));
        }
    }
    Some(text)
}

fn dns_of(plugin: &Value) -> Dns {
    let read = || Dns::parse(&Fields::new(plugin, "").ok()?.object("dns").ok()??).ok();
    read().unwrap_or_default()
}

/// The gateways that will be addresses of this host: those of a bridge that is one, and of ptp, given by host-local.
fn gateways_of(plugin: &Value) -> Vec<IpAddr> {
    let Ok(fields) = Fields::new(plugin, "") else { return Vec::new() };
    let flag = |key| fields.flag(key).unwrap_or(false);
    let is_host = match fields.text("type") {
        Ok(Some("bridge")) => flag("isGateway") || flag("isDefaultGateway"),
        Ok(Some("ptp")) => true,
        _ => false,
    };
    if is_host { host_local::gateways(&fields) } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(plugin: &str) -> Option<String> {
        let list = format!(r#"{{"cniVersion":"1.1.0","name":"n","plugins":[{plugin}]}}"#);
        text_of(&NetworkList::parse(list.as_bytes(), Path::new("")).unwrap())
    }

    #[test]
    fn the_gateways_on_the_host_are_the_name_servers() {
        let ipam = r#""ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}],[{"subnet":"fd88::/64","gateway":"fd88::9"}]]}"#;
        let bridge = format!(
            r#"{{"type":"bridge","isDefaultGateway":true,"dns":{{"domain":"lan","options":["ndots:2"]}},{ipam}}}"#
        );
        let expected = "nameserver 10.88.0.1\nnameserver fd88::9\nsearch lan\noptions ndots:2\n";
        assert_eq!(text(&bridge).as_deref(), Some(expected));
        assert_eq!(text(&format!(r#"{{"type":"bridge",{ipam}}}"#)), None, "it is no gateway");
        let own = format!(r#"{{"type":"macvlan","dns":{{"nameservers":["192.0.2.1"]}},{ipam}}}"#);
        assert_eq!(text(&own).as_deref(), Some("nameserver 192.0.2.1\n"));
        assert_eq!(text(r#"{"type":"bridge","isGateway":true,"ipam":{"type":"dhcp"}}"#), None);
    }

    #[test]
    fn a_file_for_each_network_and_the_hosts_where_nothing_is_known() {
        let folder = std::env::temp_dir().join(format!("cni-resolv-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let list = |name: &str, plugin: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"{name}","plugins":[{plugin}]}}"#);
            NetworkList::parse(text.as_bytes(), Path::new("")).unwrap()
        };
        let bridge =
            r#"{"type":"bridge","isGateway":true,"ipam":{"type":"host-local","subnet":"10.1.0.0/24"}}"#;
        let networks =
            Networks { lists: vec![list("a", bridge), list("b", r#"{"type":"macvlan"}"#)], broken: vec![] };
        write_all(&networks, &folder).unwrap();
        write_all(&networks, &folder).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("a.conf")).unwrap(), "nameserver 10.1.0.1\n");
        assert_eq!(std::fs::read_link(folder.join("b.conf")).unwrap(), Path::new(OF_THE_HOST));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
