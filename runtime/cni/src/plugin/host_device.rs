//! host-device: an interface of the host moves into the container, and back.
//!
//! In: the device by name, MAC, kernel path or PCI address. Out: the container's interface. Must never: lose the device:
//! its name on the host goes with it as its alias, and DEL gives it back under that name.

use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::io::Errno;
use serde_json::Value;

use super::container;
use super::interface;
use super::interface::ContainerSide;
use super::interface::Driver;
use super::interface::Ends;
use crate::error;
use crate::error::Error;
use crate::plan::NetPlan;
use crate::plan::parse_mac;
use netlink::link::Link;
use netlink::link::LinkChange;
use netlink::link::UP;
use netlink::route::RouteSocket;

/// With one of these a program drives the device, and the kernel has no interface for it.
const USERSPACE_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

enum Device {
    Name(String),
    Mac([u8; 6]),
    /// Its folder below /sys, and the PCI address if it was named by that.
    Folder(PathBuf, Option<String>),
}

struct HostDevice {
    device: Device,
    is_userspace: bool,
}

/// Runs a verb.
///
/// # Errors
/// As `interface::run`.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    interface::run(plan, read)
}

/// Reads the plugin's own fields.
///
/// # Errors
/// Codes 6 and 7.
pub fn read(plan: &NetPlan) -> Result<Box<dyn Driver>, Error> {
    let device = Device::read(plan)?;
    let driver = match &device {
        Device::Folder(folder, Some(_)) => std::fs::read_link(folder.join("driver")).ok(),
        _ => None,
    };
    let name = driver.as_ref().and_then(|path| path.file_name()?.to_str());
    let is_userspace = name.is_some_and(|name| USERSPACE_DRIVERS.contains(&name));
    Ok(Box::new(HostDevice { device, is_userspace }))
}

impl Device {
    fn read(plan: &NetPlan) -> Result<Device, Error> {
        let fields = plan.fields()?;
        let text = |key| Ok(fields.text(key)?.filter(|text| !text.is_empty()));
        let wrong = |message: String| Error::new(error::INVALID_CONFIG, message);
        let asked = fields.object("runtimeConfig")?;
        let asked = asked.as_ref().map(|asked| asked.text("deviceID")).transpose()?.flatten();
        let pci = asked.filter(|id| !id.is_empty()).map_or_else(|| text("pciBusID"), |id| Ok(Some(id)))?;
        if let Some(name) = text("device")? {
            return Ok(Device::Name(name.to_string()));
        }
        if let Some(mac) = text("hwaddr")? {
            return parse_mac(mac).map(Device::Mac);
        }
        if let Some(path) = text("kernelpath")? {
            let path = Path::new(path);
            let is_plain = path.components().all(|part| part != std::path::Component::ParentDir);
            if !path.starts_with("/sys/devices") || !is_plain {
                return Err(wrong(format!("field kernelpath: {} is not below /sys/devices", path.display())));
            }
            return Ok(Device::Folder(path.to_path_buf(), None));
        }
        let Some(id) = pci else {
            return Err(wrong(
                "one of the fields device, hwaddr, kernelpath, pciBusID is needed".to_string(),
            ));
        };
        if id.contains('/') || id == ".." {
            return Err(wrong(format!("field pciBusID: {id:?} is no device's address")));
        }
        // A part of a device, such as mlx5_core.sf.4, lies on the auxiliary bus.
        let bus = if id.contains(':') { "pci" } else { "auxiliary" };
        Ok(Device::Folder(Path::new("/sys/bus").join(bus).join("devices").join(id), Some(id.to_string())))
    }

    fn find(&self, socket: &mut RouteSocket) -> Result<Link, Error> {
        let failed = |errno: Errno| Error::failed("the host's interfaces", errno);
        let missing =
            |what: String| Error::new(error::INVALID_CONFIG, format!("the host has no interface {what}"));
        match self {
            Device::Name(name) => socket.link(name).map_err(failed)?.ok_or_else(|| missing(name.clone())),
            Device::Mac(mac) => {
                let mut links = socket.links().map_err(failed)?.into_iter();
                let text = || format!("with the MAC {}", crate::plan::format_mac(mac));
                links.find(|link| link.mac == mac).ok_or_else(|| missing(text()))
            }
            Device::Folder(folder, _) => {
                for name in interfaces_in(folder) {
                    if let Some(link) = socket.link(&name).map_err(failed)? {
                        return Ok(link);
                    }
                }
                Err(missing(format!("of {}", folder.display())))
            }
        }
    }
}

/// The names in a device's folder `net`, or in that of a virtio device below it.
fn interfaces_in(folder: &Path) -> Vec<String> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let own = names(&folder.join("net"));
    if !own.is_empty() {
        return own;
    }
    let virtio = names(folder).into_iter().filter(|name| name.starts_with("virtio"));
    virtio.flat_map(|name| names(&folder.join(name).join("net"))).collect()
}

impl Driver for HostDevice {
    fn kind(&self) -> Option<&'static str> {
        None
    }

    fn pci_id(&self) -> Option<&str> {
        match &self.device {
            Device::Folder(_, id) => id.as_deref(),
            _ => None,
        }
    }

    fn container_side(&self) -> ContainerSide {
        if self.is_userspace { ContainerSide::Absent } else { ContainerSide::Up }
    }

    fn detects_duplicates(&self) -> bool {
        true
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        if self.is_userspace {
            return Ok(vec![]);
        }
        let ifname = plan.attachment.ifname.as_str();
        interface::refuse_existing(plan, ends)?;
        let link = self.device.find(&mut ends.outer)?;
        let failed = |errno: Errno| Error::failed(format!("{} can't be moved", link.name), errno);
        // The alias first: should the machine fail in between, the name is known.
        let alias = LinkChange { alias: Some(&link.name), ..LinkChange::default() };
        ends.outer.change_link(link.index, &alias).map_err(failed)?;
        let into =
            LinkChange { namespace: Some(ends.netns.as_fd()), name: Some(ifname), ..LinkChange::default() };
        ends.outer.change_link(link.index, &into).map_err(failed)?;
        Ok(vec![])
    }

    fn remove(&self, plan: &NetPlan) -> Result<(), Error> {
        if self.is_userspace {
            return Ok(());
        }
        let ifname = plan.attachment.ifname.as_str();
        let failed = |errno: Errno| Error::failed(format!("{ifname} can't be given back"), errno);
        let Some((_, mut inner)) = container::try_open(plan)? else { return Ok(()) };
        let Some(link) = inner.link(ifname).map_err(failed)? else { return Ok(()) };
        if link.alias.is_empty() {
            let message = format!("{ifname} has no alias that tells its name on the host; it is left");
            return Err(Error::new(error::OTHER, message));
        }
        let host = rustix::fs::open(
            "/proc/thread-self/ns/net",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let host = host.map_err(failed)?;
        // Down first, since a driver may not let itself be renamed while it is up.
        inner.change_link(link.index, &LinkChange { clear: UP, ..LinkChange::default() }).map_err(failed)?;
        let back = LinkChange {
            namespace: Some(host.as_fd()),
            name: Some(&link.alias),
            alias: Some(""),
            ..LinkChange::default()
        };
        inner.change_link(link.index, &back).map_err(failed)
    }
}
