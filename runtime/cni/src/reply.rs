//! What a plugin answers to ADD: one internal form, written and read in every version's own.
//!
//! In: what a plugin did, or a prevResult. Out: JSON of the version asked for. Must never: lose an address in silence.

use std::net::IpAddr;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::error;
use super::error::Error;
use super::fields::Fields;
use super::version::Version;
use netlink::route::Network;

/// A result of ADD.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Interfaces made; empty in an IPAM plugin's.
    pub interfaces: Vec<Interface>,
    /// Addresses given.
    pub ips: Vec<IpConfig>,
    /// Routes made.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Dns,
}

/// An interface in a result.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link-layer address as text.
    pub mac: String,
    /// In bytes.
    pub mtu: Option<u32>,
    /// The namespace's path, empty on the host.
    pub sandbox: String,
    /// A vhost-user socket.
    pub socket_path: Option<String>,
    /// The PCI device behind it.
    pub pci_id: Option<String>,
}

/// An address in a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// Index into `interfaces`.
    pub interface: Option<u32>,
    /// Address and prefix.
    pub address: Network,
    /// The way out.
    pub gateway: Option<IpAddr>,
}

/// A route in a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub dst: Network,
    /// By way of; `None` means the gateway of an address of the same family.
    pub gw: Option<IpAddr>,
    /// Bytes of a packet.
    pub mtu: Option<u32>,
    /// Bytes of a TCP segment.
    pub advmss: Option<u32>,
    /// The metric.
    pub priority: Option<u32>,
    /// The routing table.
    pub table: Option<u32>,
    /// RT_SCOPE_*
    pub scope: Option<u32>,
}

impl Route {
    /// A route with nothing but where to and by way of.
    pub fn plain(dst: Network, gw: Option<IpAddr>) -> Route {
        Route { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// Reads one.
    ///
    /// # Errors
    /// Codes 6 and 7.
    pub fn parse(fields: &Fields<'_>) -> Result<Route, Error> {
        Ok(Route {
            dst: fields.required("dst", fields.network("dst")?)?,
            gw: fields.parsed("gw", "an address")?,
            mtu: fields.number("mtu")?,
            advmss: fields.number("advmss")?,
            priority: fields.number("priority")?,
            table: fields.number("table")?,
            scope: fields.number("scope")?,
        })
    }
}

/// Name servers in a result.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: Option<String>,
    /// Domains to search.
    pub search: Vec<String>,
    /// resolv.conf's options.
    pub options: Vec<String>,
}

impl Dns {
    /// Reads one.
    ///
    /// # Errors
    /// Code 6.
    pub fn parse(fields: &Fields<'_>) -> Result<Dns, Error> {
        Ok(Dns {
            nameservers: fields.texts("nameservers")?,
            domain: fields.text("domain")?.filter(|domain| !domain.is_empty()).map(str::to_string),
            search: fields.texts("search")?,
            options: fields.texts("options")?,
        })
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        let lists =
            [("nameservers", &self.nameservers), ("search", &self.search), ("options", &self.options)];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            object.insert(key.to_string(), json!(list));
        }
        if let Some(domain) = &self.domain {
            object.insert("domain".to_string(), json!(domain));
        }
        Value::Object(object)
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

impl Reply {
    /// Reads a result; `default` is the version of one that does not say.
    ///
    /// # Errors
    /// Codes 1, 6 and 7.
    pub fn parse(value: &Value, default: Version) -> Result<Reply, Error> {
        let fields = Fields::new(value, "prevResult")?;
        let version = match fields.text("cniVersion")?.filter(|text| !text.is_empty()) {
            Some(text) => Version::parse(text)?,
            None => default,
        };
        let dns = fields.object("dns")?.map(|dns| Dns::parse(&dns)).transpose()?.unwrap_or_default();
        if version <= Version::V0_2_0 {
            return Reply::parse_old(&fields, dns);
        }
        let mut reply = Reply { dns, ..Reply::default() };
        for interface in fields.objects("interfaces")? {
            reply.interfaces.push(Interface {
                name: interface.text("name")?.unwrap_or_default().to_string(),
                mac: interface.text("mac")?.unwrap_or_default().to_string(),
                mtu: interface.number("mtu")?,
                sandbox: interface.text("sandbox")?.unwrap_or_default().to_string(),
                socket_path: interface.text("socketPath")?.map(str::to_string),
                pci_id: interface.text("pciID")?.map(str::to_string),
            });
        }
        for ip in fields.objects("ips")? {
            reply.ips.push(IpConfig {
                interface: ip.number("interface")?,
                address: ip.required("address", ip.network("address")?)?,
                gateway: ip.parsed("gateway", "an address")?,
            });
        }
        for route in fields.objects("routes")? {
            reply.routes.push(Route::parse(&route)?);
        }
        Ok(reply)
    }

    fn parse_old(fields: &Fields<'_>, dns: Dns) -> Result<Reply, Error> {
        let mut reply = Reply { dns, ..Reply::default() };
        for key in ["ip4", "ip6"] {
            let Some(family) = fields.object(key)? else { continue };
            reply.ips.push(IpConfig {
                interface: None,
                address: family.required("ip", family.network("ip")?)?,
                gateway: family.parsed("gateway", "an address")?,
            });
            for route in family.objects("routes")? {
                reply.routes.push(Route::parse(&route)?);
            }
        }
        Ok(reply)
    }

    /// Writes it in a version's form (contract rule 10).
    ///
    /// # Errors
    /// Code 999 when 0.1.0 or 0.2.0 is asked for and there is no address to tell.
    pub fn to_json(&self, version: Version) -> Result<Value, Error> {
        if version <= Version::V0_2_0 {
            return self.to_old_json(version);
        }
        let mut object = Map::new();
        object.insert("cniVersion".to_string(), json!(version.to_string()));
        let lists = [
            (
                "interfaces",
                self.interfaces.iter().map(|interface| interface.to_json(version)).collect::<Vec<_>>(),
            ),
            ("ips", self.ips.iter().map(|ip| ip.to_json(version)).collect()),
            ("routes", self.routes.iter().map(|route| route.to_json(version)).collect()),
        ];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            object.insert(key.to_string(), Value::Array(list));
        }
        object.insert("dns".to_string(), self.dns.to_json());
        Ok(Value::Object(object))
    }

    fn to_old_json(&self, version: Version) -> Result<Value, Error> {
        let mut object = json!({"cniVersion": version.to_string(), "dns": self.dns.to_json()});
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.address.is_ipv4() == v4) else { continue };
            let mut family = json!({"ip": ip.address.to_string()});
            if let Some(gateway) = ip.gateway {
                family["gateway"] = json!(gateway);
            }
            let routes = self.routes.iter().filter(|route| route.dst.address.is_ipv4() == v4);
            let routes: Vec<Value> = routes.map(|route| route.to_json(version)).collect();
            if !routes.is_empty() {
                family["routes"] = Value::Array(routes);
            }
            object[key] = family;
        }
        if object.get("ip4").is_none() && object.get("ip6").is_none() {
            let message = format!("a result of cniVersion {version} must hold an address, and there is none");
            return Err(Error::new(error::OTHER, message));
        }
        Ok(object)
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({"name": self.name});
        for (key, text) in [("mac", &self.mac), ("sandbox", &self.sandbox)] {
            if !text.is_empty() {
                object[key] = json!(text);
            }
        }
        if version >= Version::V1_1_0 {
            put(&mut object, "mtu", self.mtu.map(|mtu| json!(mtu)));
            put(&mut object, "socketPath", self.socket_path.as_ref().map(|path| json!(path)));
            put(&mut object, "pciID", self.pci_id.as_ref().map(|id| json!(id)));
        }
        object
    }
}

impl IpConfig {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({"address": self.address.to_string()});
        if version < Version::V1_0_0 {
            object["version"] = json!(if self.address.address.is_ipv4() { "4" } else { "6" });
        }
        put(&mut object, "interface", self.interface.map(|index| json!(index)));
        put(&mut object, "gateway", self.gateway.map(|gateway| json!(gateway)));
        object
    }
}

impl Route {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({"dst": self.dst.to_string()});
        put(&mut object, "gw", self.gw.map(|gw| json!(gw)));
        if version >= Version::V1_1_0 {
            let numbers = [
                ("mtu", self.mtu),
                ("advmss", self.advmss),
                ("priority", self.priority),
                ("table", self.table),
                ("scope", self.scope),
            ];
            for (key, number) in numbers {
                put(&mut object, key, number.map(|number| json!(number)));
            }
        }
        object
    }
}

fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[key] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Reply {
        let default: Network = "0.0.0.0/0".parse().unwrap();
        let ip = |index, address: &str, gateway: &str| IpConfig {
            interface: Some(index),
            address: address.parse().unwrap(),
            gateway: gateway.parse().ok(),
        };
        Reply {
            interfaces: vec![Interface { name: "cni0".into(), mtu: Some(1500), ..Interface::default() }],
            ips: vec![
                ip(0, "10.0.0.2/24", "10.0.0.1"),
                ip(0, "10.0.0.3/24", "10.0.0.1"),
                ip(0, "fd00::2/64", "fd00::1"),
            ],
            routes: vec![Route { table: Some(0), ..Route::plain(default, None) }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn rule_10_every_version_has_its_form() {
        let new = reply().to_json(Version::V1_1_0).unwrap();
        assert_eq!(new["dns"], json!({}), "dns is always printed");
        assert_eq!(new["ips"][0]["interface"], 0, "interface 0 is kept");
        assert_eq!(new["ips"][0].get("version"), None);
        assert_eq!(new["interfaces"][0]["mtu"], 1500);
        assert_eq!(new["routes"][0]["table"], 0, "0 differs from absent");
        assert_eq!(new["routes"][0].get("scope"), None);
        let middle = reply().to_json(Version::parse("0.4.0").unwrap()).unwrap();
        assert_eq!((&middle["ips"][0]["version"], &middle["ips"][2]["version"]), (&json!("4"), &json!("6")));
        assert_eq!(middle["interfaces"][0].get("mtu"), None);
        let old = reply().to_json(Version::V0_2_0).unwrap();
        assert_eq!(old["ip4"]["ip"], "10.0.0.2/24", "the first of its family");
        assert_eq!(old["ip4"]["routes"], json!([{"dst": "0.0.0.0/0"}]));
        assert_eq!(old["ip6"]["ip"], "fd00::2/64");
        assert_eq!(Reply::default().to_json(Version::V0_1_0).unwrap_err().code, error::OTHER);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for version in Version::ALL.into_iter().filter(|version| *version > Version::V0_2_0) {
            let mut expected = reply();
            if version < Version::V1_1_0 {
                expected.interfaces[0].mtu = None;
                expected.routes[0].table = None;
            }
            let json = reply().to_json(version).unwrap();
            assert_eq!(Reply::parse(&json, Version::V0_1_0).unwrap(), expected, "{version}");
        }
    }
}
