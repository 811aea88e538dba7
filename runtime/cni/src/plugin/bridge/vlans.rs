//! The VLANs of a bridge's port, and the host's interface in one.
//!
//! In: fields vlan, vlanTrunk, preserveDefaultVlan. Out: a port in these VLANs, and CHECK of it. Must never: leave a VLAN uncounted: a
//! bridge whose ports have VLANs filters by them.

use std::collections::BTreeSet;

use rustix::io::Errno;

use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use crate::plugin::interface;
use crate::plugin::interface::existing;
use netlink::link::Kind;
use netlink::link::Link;
use netlink::link::NewLink;
use netlink::link::VlanRange;
use netlink::route::RouteSocket;

const VLAN_LAST: u16 = 4094;

/// The three fields.
#[derive(Debug)]
pub struct Vlans {
    /// In access mode the one VLAN, without tags.
    pub access: Option<u16>,
    trunk: Vec<VlanRange>,
    keeps_default: bool,
}

impl Vlans {
    /// Reads them; VLAN 0 is none.
    ///
    /// # Errors
    /// Codes 6 and 7.
    pub fn read(fields: &Fields<'_>) -> Result<Vlans, Error> {
        let wrong = |message: &str| Error::new(error::INVALID_CONFIG, message);
        let access = fields.vlan("vlan", 0)?.filter(|vlan| *vlan != 0);
        let mut trunk = Vec::new();
        for item in fields.objects("vlanTrunk")? {
            match (item.vlan("minID", 1)?, item.vlan("maxID", 1)?) {
                (Some(first), Some(last)) if first <= last => trunk.push(VlanRange::tagged(first, last)),
                (None, None) => {}
                (Some(_), Some(_)) => return Err(wrong("field vlanTrunk: minID is greater than maxID")),
                _ => return Err(wrong("field vlanTrunk: minID and maxID need each other")),
            }
            trunk.extend(item.vlan("id", 1)?.map(|id| VlanRange::tagged(id, id)));
        }
        if access.is_some() && !trunk.is_empty() {
            return Err(wrong("fields vlan and vlanTrunk exclude each other: a port has tags or has none"));
        }
        // A bridge's ports are in VLAN 1 unless they are taken out.
        let keeps_default =
            fields.get("preserveDefaultVlan").is_none() || fields.flag("preserveDefaultVlan")?;
        Ok(Vlans { access, trunk, keeps_default })
    }

    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        self.access.is_some() || !self.trunk.is_empty()
    }

    /// Puts a port into them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn apply(&self, socket: &mut RouteSocket, port: u32) -> Result<(), Errno> {
        if !self.is_any() {
            return Ok(());
        }
        if !self.keeps_default {
            socket.delete_port_vlans(port, &[VlanRange::tagged(1, VLAN_LAST)])?;
        }
        socket.add_port_vlans(port, &self.wanted())
    }

    fn wanted(&self) -> Vec<VlanRange> {
        let access = self.access.map(|vlan| VlanRange { untagged: true, ..VlanRange::tagged(vlan, vlan) });
        access.into_iter().chain(self.trunk.iter().copied()).collect()
    }

    /// CHECK: what is wrong with a port that is in the VLANs `found`; nothing where none were asked for. More than those
    /// asked for may be there only where the default VLAN stays.
    pub fn differ(&self, found: &[VlanRange]) -> Option<String> {
        if !self.is_any() {
            return None;
        }
        let (wanted, found) = (each(&self.wanted()), each(found));
        if let Some((vlan, untagged)) = wanted.difference(&found).next() {
            let tags = if *untagged { "without tags" } else { "with tags" };
            return Some(format!("is not in VLAN {vlan} {tags} any more"));
        }
        let other = found.difference(&wanted).next().filter(|_| !self.keeps_default);
        other.map(|(vlan, _)| format!("is in VLAN {vlan}, which was not asked for"))
    }

    /// The host's interface in the access VLAN, `BRIDGE.VLAN`, made if it isn't there: a veth pair whose other side is a
    /// port of the bridge.
    ///
    /// # Errors
    /// Code 7 when the name is too long; 999.
    pub fn host_interface(&self, socket: &mut RouteSocket, bridge: &Link, vlan: u16) -> Result<Link, Error> {
        let name = host_name(bridge, vlan);
        if !crate::plan::is_interface_name(&name) {
            let message =
                format!("field bridge: the gateway's interface would be {name}, a name that is too long");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let failed = |errno: Errno| Error::failed(format!("the gateway's interface {name}"), errno);
        if let Some(link) = socket.link(&name).map_err(failed)? {
            return Ok(link);
        }
        let peer = NewLink::new(Kind::Dummy, &name); // its kind is that of the other side
        let made = interface::with_random_name(|random| {
            let kind = Kind::Veth(&peer);
            let new = NewLink { master: bridge.index, up: true, ..NewLink::new(kind, random) };
            match socket.create_link(&new) {
                Err(Errno::EXIST) if socket.link(&name)?.is_some() => Err(Errno::ALREADY),
                other => other,
            }
        });
        let port = match made {
            Ok(port) => existing(socket, &port)?,
            Err(Errno::ALREADY) => return existing(socket, &name), // another ADD was faster (contract rule 30)
            Err(errno) => return Err(failed(errno)),
        };
        let link = existing(socket, &name)?;
        if let Err(errno) = self.apply(socket, port.index).and_then(|()| socket.set_up(link.index)) {
            let _ = socket.delete_link(port.index); // the first error is the one to tell
            return Err(failed(errno));
        }
        Ok(link)
    }
}

/// The name of the host's interface in a VLAN.
pub fn host_name(bridge: &Link, vlan: u16) -> String {
    format!("{}.{vlan}", bridge.name)
}

/// Each VLAN, and whether it is the one without tags.
fn each(ranges: &[VlanRange]) -> BTreeSet<(u16, bool)> {
    ranges.iter().flat_map(|range| (range.first..=range.last).map(|vlan| (vlan, range.untagged))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use serde_json::json;

    fn read(config: &Value) -> Result<Vlans, Error> {
        Vlans::read(&Fields::new(config, "").unwrap())
    }

    #[test]
    fn rule_25_vlans_and_trunks_have_their_bounds() {
        assert_eq!(read(&json!({"vlan": 4094})).unwrap().access, Some(4094));
        assert!(!read(&json!({"vlan": 0, "vlanTrunk": []})).unwrap().is_any());
        let trunk =
            json!({"vlanTrunk": [{"id": 7}, {"minID": 10, "maxID": 12}], "preserveDefaultVlan": false});
        let trunk = read(&trunk).unwrap();
        assert_eq!(trunk.trunk, [VlanRange::tagged(7, 7), VlanRange::tagged(10, 12)]);
        assert!(!trunk.keeps_default && read(&json!({})).unwrap().keeps_default);
        for wrong in [
            json!({"vlan": 4095}),
            json!({"vlanTrunk": [{"id": 0}]}),
            json!({"vlanTrunk": [{"minID": 5}]}),
            json!({"vlanTrunk": [{"maxID": 5}]}),
            json!({"vlanTrunk": [{"minID": 6, "maxID": 5}]}),
            json!({"vlanTrunk": [{"minID": 0, "maxID": 5}]}),
            json!({"vlan": 5, "vlanTrunk": [{"id": 7}]}),
        ] {
            assert_eq!(read(&wrong).unwrap_err().code, 7, "{wrong}");
        }
    }

    #[test]
    fn rule_16_check_sees_a_vlan_that_is_gone_and_one_too_many() {
        let untagged = |vlan| VlanRange { untagged: true, ..VlanRange::tagged(vlan, vlan) };
        let differ = |config: Value, found: &[VlanRange]| read(&config).unwrap().differ(found);
        let access = json!({"vlan": 5, "preserveDefaultVlan": false});
        assert_eq!(differ(access.clone(), &[untagged(5)]), None);
        assert!(differ(access.clone(), &[VlanRange::tagged(5, 5)]).unwrap().contains("VLAN 5 without tags"));
        assert!(
            differ(access, &[untagged(5), VlanRange::tagged(1, 1)]).unwrap().contains("in VLAN 1, which")
        );
        assert_eq!(differ(json!({"vlan": 5}), &[untagged(5), VlanRange::tagged(1, 1)]), None);
        let trunk = json!({"vlanTrunk": [{"id": 7}, {"minID": 10, "maxID": 12}]});
        assert_eq!(
            differ(trunk.clone(), &[untagged(1), VlanRange::tagged(7, 7), VlanRange::tagged(10, 12)]),
            None
        );
        assert!(
            differ(trunk, &[untagged(1), VlanRange::tagged(7, 11)]).unwrap().contains("VLAN 12 with tags")
        );
        assert_eq!(differ(json!({}), &[]), None);
    }
}
