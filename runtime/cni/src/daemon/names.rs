//! Who is called what on which network, from what is noted down of attachments.
//!
//! In: the cache's records, a question and who asks. Out: addresses and names. Must never: tell a container of one on a
//! network that it is not on itself.

use std::net::IpAddr;

use super::dns::Kind;
use super::dns::Query;
use super::dns::Record;
use super::dns::reverse_name;
use crate::cache;
use crate::reply::Reply;
use netlink::route::Network;

/// The capability by which a container gets names besides its id.
pub const ALIASES: &str = "aliases";

/// A network's names.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Zone {
    /// Its name.
    network: String,
    /// Its gateways' addresses; those that are the host's have a resolver.
    gateways: Vec<IpAddr>,
    /// The subnets of its containers.
    subnets: Vec<Network>,
    /// Names in small letters, with their addresses.
    hosts: Vec<(String, IpAddr)>,
    /// Its configuration's own name servers, to ask instead of the host's.
    upstream: Vec<IpAddr>,
    /// A domain in which its names are known too.
    domain: Option<String>,
}

/// All networks' names.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Names {
    zones: Vec<Zone>,
}

impl Names {
    /// Takes the names from the attachments that are there.
    pub fn of(records: &[cache::Record]) -> Names {
        let mut names = Names::default();
        for record in records {
            names.add(record);
        }
        names
    }

    fn add(&mut self, record: &cache::Record) {
        let parsed = record.result.as_ref().map(|result| Reply::parse(result, record.list.version));
        let Some(Ok(reply)) = parsed else { return };
        let network = &record.attachment.network;
        let at = self.zones.iter().position(|zone| zone.network == *network);
        let at = at.unwrap_or_else(|| {
            self.zones.push(Zone { network: network.clone(), ..Zone::default() });
            self.zones.len() - 1
        });
        let zone = &mut self.zones[at];
        zone.domain = reply.dns.domain.as_ref().map(|domain| domain.to_ascii_lowercase());
        let aliases = record.capabilities.get(ALIASES).and_then(|aliases| aliases.as_array());
        let aliases = aliases.into_iter().flatten().filter_map(|alias| alias.as_str());
        let names: Vec<String> =
            [record.attachment.id.as_str()].into_iter().chain(aliases).map(str::to_ascii_lowercase).collect();
        for ip in &reply.ips {
            let interface = ip.interface.and_then(|index| reply.interfaces.get(usize::try_from(index).ok()?));
            if interface.is_some_and(|interface| interface.name != record.attachment.ifname) {
                continue;
            }
            insert(&mut zone.gateways, ip.gateway);
            insert(&mut zone.subnets, Some(ip.address.base()));
            zone.hosts.extend(names.iter().map(|name| (name.clone(), ip.address.address)));
        }
        for server in &reply.dns.nameservers {
            let server = server.parse().ok().filter(|server| !zone.gateways.contains(server));
            insert(&mut zone.upstream, server);
        }
    }

    /// The addresses at which questions come in.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let mut all = Vec::new();
        for gateway in self.zones.iter().flat_map(|zone| &zone.gateways) {
            insert(&mut all, Some(*gateway));
        }
        all
    }

    /// The networks that someone at `from` who asks at `gateway` is on; the host itself is on all that have it.
    fn zones_of(&self, gateway: IpAddr, from: IpAddr) -> impl Iterator<Item = &Zone> {
        self.zones.iter().filter(move |zone| {
            let is_on_it = from == gateway || zone.subnets.iter().any(|subnet| subnet.contains(from));
            zone.gateways.contains(&gateway) && is_on_it
        })
    }

    /// Whether someone at `from` may ask at `gateway` at all.
    pub fn is_known(&self, gateway: IpAddr, from: IpAddr) -> bool {
        self.zones_of(gateway, from).next().is_some()
    }

    /// Name servers of the asker's network's own configuration.
    pub fn upstream(&self, gateway: IpAddr, from: IpAddr) -> Vec<IpAddr> {
        self.zones_of(gateway, from).flat_map(|zone| zone.upstream.iter().copied()).collect()
    }

    /// The records that answer a question; `None` when the name is nobody's here. A name that is known, but not by this
    /// type of record, has none.
    pub fn find(&self, query: &Query, gateway: IpAddr, from: IpAddr) -> Option<Vec<Record>> {
        let mut found = None;
        for zone in self.zones_of(gateway, from) {
            let in_domain = zone
                .domain
                .as_ref()
                .and_then(|domain| query.name.strip_suffix(domain.as_str())?.strip_suffix('.'));
            for (name, address) in &zone.hosts {
                if query.kind == Kind::Pointer && reverse_name(*address) == query.name {
                    // The id comes first, and is the one name that is told.
                    return Some(vec![Record::Name(name.clone())]);
                }
                if query.name != *name && in_domain != Some(name.as_str()) {
                    continue;
                }
                let records = found.get_or_insert_with(Vec::new);
                let wanted = if address.is_ipv4() { Kind::A } else { Kind::Aaaa };
                if query.kind == wanted {
                    records.push(Record::Address(*address));
                }
            }
        }
        found
    }
}

fn insert<T: PartialEq>(list: &mut Vec<T>, item: Option<T>) {
    list.extend(item.filter(|item| !list.contains(item)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::NetworkList;
    use crate::plan::Attachment;
    use serde_json::json;
    use std::path::Path;

    fn record(network: &str, id: &str, address: &str, gateway: &str, aliases: &[&str]) -> cache::Record {
        let list =
            json!({"cniVersion": "1.1.0", "name": network, "plugins": [{"type": "bridge"}]}).to_string();
        cache::Record {
            attachment: Attachment { network: network.into(), id: id.into(), ifname: "eth0".into() },
            netns: None,
            netns_identity: None,
            list: NetworkList::parse(list.as_bytes(), Path::new("")).unwrap(),
            args: None,
            capabilities: json!({"aliases": aliases}).as_object().unwrap().clone(),
            result: Some(json!({"cniVersion": "1.1.0", "dns": {"domain": "Lan"},
                "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/x"}],
                "ips": [{"address": address, "gateway": gateway, "interface": 1}]})),
        }
    }

    fn ask(names: &Names, name: &str, kind: u16, gateway: &str, from: &str) -> Option<Vec<Record>> {
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.push(0);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        let query = Query::parse(&packet).unwrap();
        names.find(&query, gateway.parse().unwrap(), from.parse().unwrap())
    }

    #[test]
    fn ids_and_aliases_are_found_on_ones_own_network_alone() {
        let names = Names::of(&[
            record("red", "Web", "10.1.0.2/16", "10.1.0.1", &["www", "shop"]),
            record("red", "db", "10.1.0.3/16", "10.1.0.1", &["shop"]),
            record("blue", "mail", "10.2.0.2/16", "10.2.0.1", &[]),
        ]);
        let red = |name, kind| ask(&names, name, kind, "10.1.0.1", "10.1.0.3");
        let address = |text: &str| Record::Address(text.parse().unwrap());
        assert_eq!(red("web", 1), Some(vec![address("10.1.0.2")]));
        assert_eq!(red("WWW", 1), Some(vec![address("10.1.0.2")]));
        assert_eq!(red("web.lan", 1), Some(vec![address("10.1.0.2")]));
        assert_eq!(red("shop", 1), Some(vec![address("10.1.0.2"), address("10.1.0.3")]));
        assert_eq!(red("web", 28), Some(vec![]), "known, without an address of IPv6");
        assert_eq!(red("mail", 1), None, "on another network");
        assert_eq!(red("example.com", 1), None);
        assert_eq!(red("2.0.1.10.in-addr.arpa", 12), Some(vec![Record::Name("web".into())]));
        assert_eq!(ask(&names, "web", 1, "10.1.0.1", "10.2.0.2"), None, "who is not on it is told nothing");
        let known =
            |gateway: &str, from: &str| names.is_known(gateway.parse().unwrap(), from.parse().unwrap());
        assert!(known("10.1.0.1", "10.1.0.1") && known("10.1.0.1", "10.1.9.9"));
        assert!(!known("10.1.0.1", "192.0.2.1"));
        assert_eq!(names.gateways().len(), 2);
    }
}
