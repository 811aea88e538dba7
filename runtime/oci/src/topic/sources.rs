//! Sources of bind mounts, where the container has a user namespace: its root may have no way to them, the runtime has.
//!
//! In: the container's process, which has its mount namespace and waits. Out: each bind mount in no tree, in the plan's
//! order, handed to that process. Must never: take them from the runtime's own mount namespace: there the host's flags
//! (nodev, nosuid, ...) are not locked, and the container's root could clear them.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::process::Pid;

use super::console;
use super::mounts::MountPlan;
use super::namespaces::Namespaces;
use crate::launch::channel::Channel;
use crate::launch::channel::Message;
use crate::launch::parent;
use crate::report::Error;
use crate::report::Fails;
use crate::spec::linux::NamespaceKind;
use sys::mount::MountAttributes;
use sys::mount::set_attributes;
use sys::process::Side;

/// The mounts that are made for the container's process, by their place in the plan: idmapped ones are already.
fn handed_over<'a>(
    mounts: &'a [MountPlan],
    namespaces: &Namespaces,
) -> impl Iterator<Item = (usize, &'a MountPlan)> {
    let apart = namespaces.is_own(NamespaceKind::User) && namespaces.is_new(NamespaceKind::Mount);
    mounts.iter().enumerate().filter(move |(_, mount)| apart && mount.is_bind() && mount.idmap.is_none())
}

/// The runtime's side: hands the mounts to the process `pid` at the other end of `channel`.
///
/// # Errors
/// Each names the mount.
pub fn hand_over(
    mounts: &[MountPlan],
    namespaces: &Namespaces,
    pid: Pid,
    channel: &Channel,
) -> Result<(), Error> {
    if handed_over(mounts, namespaces).next().is_none() {
        return Ok(());
    }
    let (mut told, mut tell) = Channel::pair()?;
    // A process of its own: whoever has been in another mount namespace has lost its root and its working directory.
    match sys::process::clone3(0, None).step("start", "a process that opens mounts")? {
        Side::Child => {
            if let Err(error) = open(mounts, namespaces, pid, channel) {
                // Without a reader the runtime is gone, and with it the container.
                let _ = tell.say(&Message::Failed(error.to_string()));
            }
            sys::process::exit_now(0)
        }
        Side::Parent(helper, _) => {
            drop(tell);
            let heard = told.hear();
            parent::kill_and_reap(helper);
            match heard? {
                Some(Message::Failed(text)) => Err(Error::new(text)),
                _ => Ok(()),
            }
        }
    }
}

fn open(mounts: &[MountPlan], namespaces: &Namespaces, pid: Pid, channel: &Channel) -> Result<(), Error> {
    sys::process::set_parent_death_signal(libc::SIGKILL).step("tie a process to", "the runtime")?;
    let path = format!("/proc/{}/ns/mnt", pid.as_raw_nonzero());
    let namespace =
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", &path)?;
    sys::process::setns(namespace.as_fd(), libc::CLONE_NEWNS).step("join", &path)?;
    for (_, mount) in handed_over(mounts, namespaces) {
        console::send_fd(&channel.0, b"m", mount.detached_source()?.as_fd())?;
    }
    Ok(())
}

/// The container's side: takes them, before anything else that comes, and gives them the namespace's `propagation`.
///
/// # Errors
/// Each names the mount.
pub fn receive(
    mounts: &[MountPlan],
    namespaces: &Namespaces,
    channel: &Channel,
    propagation: Option<(u64, bool)>,
) -> Result<Vec<(usize, OwnedFd)>, Error> {
    let take = |(index, mount): (usize, &MountPlan)| {
        let source = console::receive_fd(&channel.0)?;
        if let Some((propagation, recursive)) = propagation {
            let change = MountAttributes { propagation, ..MountAttributes::default() };
            set_attributes(source.as_fd(), &change, recursive)
                .step("set the propagation of", mount.name())?;
        }
        Ok((index, source))
    };
    handed_over(mounts, namespaces).map(take).collect()
}
