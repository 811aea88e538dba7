//! Interfaces that move from the runtime's network namespace into the container's. In: `linux.netDevices`. Out: each
//! there, under its new name, with the addresses that were given to it, up. Must never: move one without a network
//! namespace of the container's own.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::namespaces::Namespaces;
use crate::report::Error;
use crate::report::Fails;
use netlink::link::LinkChange;
use netlink::route::IFA_F_PERMANENT;
use netlink::route::RouteSocket;
use spec::linux::NamespaceKind;
use spec::linux::NetDevice;

/// Bytes of an interface's name, less the NUL (IFNAMSIZ).
const NAME_BYTES_MAX: usize = 15;

/// RT_SCOPE_UNIVERSE
const SCOPE_GLOBAL: u8 = 0;

/// An interface: its name outside, and inside.
pub type Move = (String, String);

/// Checks the section.
///
/// # Errors
/// Names that no interface can have, or two the same; no namespace to move to.
pub fn plan(devices: &BTreeMap<String, NetDevice>, namespaces: &Namespaces) -> Result<Vec<Move>, Error> {
    let mut moves: Vec<Move> = Vec::new();
    for (outside, device) in devices {
        let field = format!("linux.netDevices.{outside}");
        if !namespaces.is_own(NamespaceKind::Network) {
            return Err(Error::spec(field, "unable to move network devices without a NET namespace"));
        }
        let inside = if device.name.is_empty() { outside } else { &device.name };
        for name in [outside, inside] {
            let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
            if name.is_empty()
                || name.len() > NAME_BYTES_MAX
                || matches!(name.as_str(), "." | "..")
                || !name.bytes().all(plain)
            {
                return Err(Error::spec(
                    field,
                    format!(
                        "invalid network device name: {name:?}: expected 1 to {NAME_BYTES_MAX} plain characters"
                    ),
                ));
            }
        }
        if let Some((other, _)) = moves.iter().find(|(_, taken)| taken == inside) {
            return Err(Error::spec(field, format!("{inside} is what {other} is called inside already")));
        }
        moves.push((outside.clone(), inside.clone()));
    }
    Ok(moves)
}

/// Moves them into the network namespace of `pid`.
///
/// # Errors
/// Each names the interface.
pub fn apply(moves: &[Move], pid: Pid) -> Result<(), Error> {
    if moves.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let namespace = namespace.step("open", &path)?;
    let mut outside = RouteSocket::open().step("open", "a route socket")?;
    let mut inside =
        RouteSocket::open_in(namespace.as_fd()).step("open in the container", "a route socket")?;
    for (name, new_name) in moves {
        move_one(&mut outside, &mut inside, namespace.as_fd(), name, new_name)
            .step("move into the container the network device", name)?;
    }
    Ok(())
}

fn move_one(
    outside: &mut RouteSocket,
    inside: &mut RouteSocket,
    namespace: BorrowedFd<'_>,
    name: &str,
    new_name: &str,
) -> Result<(), Errno> {
    let link = outside.link(name)?.ok_or(Errno::NODEV)?;
    // The kernel takes them away when the interface leaves. Those that it made by itself, or that run out, are not given.
    let mut addresses = outside.addresses(link.index)?;
    addresses.retain(|address| address.scope == SCOPE_GLOBAL && address.flags & IFA_F_PERMANENT != 0);
    // One message: nobody sees it inside under its old name, which may be taken there.
    let change = LinkChange { namespace: Some(namespace), name: Some(new_name), ..LinkChange::default() };
    outside.change_link(link.index, &change)?;
    let link = inside.link(new_name)?.ok_or(Errno::NODEV)?;
    for address in addresses {
        inside.add_address(link.index, address.network, false)?;
    }
    inside.set_up(link.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, own: bool) -> Result<Vec<Move>, String> {
        let new = if own { vec![NamespaceKind::Network] } else { vec![] };
        let namespaces = Namespaces { new, ..Namespaces::default() };
        let devices = spec::parse("devices", json.as_bytes()).unwrap();
        plan(&devices, &namespaces).map_err(|error| error.to_string())
    }

    #[test]
    fn devices_keep_their_name_or_get_one() {
        let moves = of(r#"{"eth0":{"name":"wan"},"eth1":{}}"#, true).unwrap();
        assert_eq!(moves, [("eth0".into(), "wan".into()), ("eth1".into(), "eth1".into())]);
        assert_eq!(of("{}", false), Ok(vec![]));
    }

    #[test]
    fn names_that_are_none_or_taken_are_refused() {
        let error = |json: &str| of(json, true).unwrap_err();
        for name in ["a/b", "a b", "eth%d", "..", "sixteen-letters!"] {
            let message = error(&format!(r#"{{"eth0":{{"name":"{name}"}}}}"#));
            assert!(message.starts_with("linux.netDevices.eth0: invalid network device name"), "{message}");
        }
        assert!(error(r#"{"a":{"name":"c"},"b":{"name":"c"}}"#).contains("already"));
        assert!(of(r#"{"a":{}}"#, false).unwrap_err().contains("without a NET namespace"));
    }
}
