//! Kernel parameters of the container's namespaces. In: `linux.sysctl`. Out: files below /proc/sys, written through an
//! fd of the host's procfs. Must never: set one that belongs to the whole machine.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;

use super::namespaces::Namespaces;
use crate::report::Error;
use crate::report::Fails;
use spec::linux::NamespaceKind;

/// Parameters of the IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 10] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.auto_msgmni",
    "kernel.msg_next_id",
];

/// A parameter: its path below /proc/sys, and its value.
pub type Setting = (String, String);

/// Checks that each parameter belongs to a namespace that the container has for itself.
///
/// # Errors
/// One that does not, or is no name.
pub fn plan(sysctl: &BTreeMap<String, String>, namespaces: &Namespaces) -> Result<Vec<Setting>, Error> {
    let mut settings = Vec::new();
    for (name, value) in sysctl {
        let field = format!("linux.sysctl.{name}");
        // A name with slashes may hold dots in a component (an interface `eth0.1`).
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        let dotted = path.replace('/', ".");
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(Error::spec(field, "not a parameter's name"));
        }
        let owner = if IPC.contains(&dotted.as_str()) || path.starts_with("fs/mqueue/") {
            NamespaceKind::Ipc
        } else if path.starts_with("net/") {
            NamespaceKind::Network
        } else if path == "kernel/hostname" {
            return Err(Error::spec(field, "is not allowed as it conflicts with the OCI hostname field"));
        } else if path == "kernel/domainname" {
            NamespaceKind::Uts
        } else {
            return Err(Error::spec(field, "is not in a separate kernel namespace"));
        };
        if !namespaces.is_own(owner) {
            return Err(Error::spec(
                field,
                format!("not allowed in the host's {owner:?} namespace; give the container its own"),
            ));
        }
        settings.push((path, value.clone()));
    }
    Ok(settings)
}

/// Writes the settings through `proc`, the host's procfs.
///
/// # Errors
/// Each names the parameter.
pub fn apply(settings: &[Setting], proc: BorrowedFd<'_>) -> Result<(), Error> {
    for (path, value) in settings {
        let name = format!("sys/{path}");
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = rustix::fs::openat2(proc, &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
        let file = file.step("open the kernel parameter", path)?;
        rustix::io::write(&file, value.as_bytes()).step("set the kernel parameter", path)?;
    }
    Ok(())
}
