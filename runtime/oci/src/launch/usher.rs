//! Joining an existing user namespace takes two processes: the container's other namespaces have to belong to it, so they
//! can't be made before it is joined, and a new pid namespace is for children only. So is a time namespace, which a user may
//! make in his new user namespace only. In: a process that the runtime made without namespaces, or with the user's alone: the
//! usher. Out: the container's first process, a child of the runtime too, and the usher's end. Must never: outlive the making
//! of the container's process.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::channel::Channel;
use super::channel::Message;
use super::init;
use super::init::Inherited;
use super::parent;
use crate::plan::Plan;
use crate::report::Error;
use crate::report::Fails;
use crate::topic::console;
use crate::topic::namespaces;
use spec::linux::NamespaceKind;
use sys::process::Side;

/// The usher's side: joins, makes the container's process with its new namespaces, a time namespace among them if
/// `makes_time`, tells the runtime, and ends. Returns only in the new process.
///
/// # Errors
/// Each names the namespace.
pub fn pass_on(
    plan: &Plan,
    inherited: &Inherited,
    channel: &mut Channel,
    makes_time: bool,
) -> Result<(), Error> {
    // Some may belong to the runtime's user namespace and can be joined only before, some only after.
    let mut left = Vec::new();
    for (kind, fd) in &inherited.namespaces {
        if *kind == NamespaceKind::User {
            continue;
        }
        match sys::process::setns(fd.as_fd(), namespaces::flag(*kind)) {
            Err(Errno::PERM) => left.push((*kind, fd)),
            done => done.step("join the namespace", init::path_of(plan, *kind))?,
        }
    }
    let user = inherited.namespaces.iter().find(|(kind, _)| *kind == NamespaceKind::User);
    for (kind, fd) in user.map(|(kind, fd)| (*kind, fd)).into_iter().chain(left) {
        sys::process::setns(fd.as_fd(), namespaces::flag(kind))
            .step("join the namespace", init::path_of(plan, kind))?;
    }
    check_maps(plan, inherited)?;
    init::become_root()?;
    if makes_time {
        new_time(plan)?;
    }
    hand_over(channel, parent::new_namespaces(plan))
}

/// For a caller without privileges, who may make a time namespace in the container's new user namespace only; this process is in
/// that one. Returns only in the new process.
///
/// # Errors
/// Each names the namespace.
pub fn make_time(plan: &Plan, channel: &mut Channel) -> Result<(), Error> {
    new_time(plan)?;
    hand_over(channel, parent::new_namespaces(plan) & !u64::from(libc::CLONE_NEWUSER.unsigned_abs()))
}

fn new_time(plan: &Plan) -> Result<(), Error> {
    sys::process::unshare(namespaces::flag(NamespaceKind::Time)).step("make", "a time namespace")?;
    plan.namespaces.write_time_offsets()
}

/// For an exec whose caller has no privileges: he may join the container's pid namespace as root of its user namespace
/// only. Returns in a new process, which is in both.
///
/// # Errors
/// Each names the namespace.
pub fn follow(init: BorrowedFd<'_>, channel: &mut Channel) -> Result<(), Error> {
    sys::process::setns(init, libc::CLONE_NEWUSER).step("join", "the container's user namespace")?;
    init::become_root()?;
    sys::process::setns(init, libc::CLONE_NEWPID).step("join", "the container's pid namespace")?;
    hand_over(channel, 0)
}

/// Makes the process with the namespaces `flags`, tells the runtime, and ends. Returns only in the new process.
fn hand_over(channel: &mut Channel, flags: u64) -> Result<(), Error> {
    let flags = flags | libc::CLONE_PARENT.unsigned_abs() as u64;
    match sys::process::clone3(flags, None).step("start", "the container's process")? {
        Side::Child => {
            sys::process::set_parent_death_signal(libc::SIGKILL).step("tie the process to", "the runtime")?;
            // The runtime says that it knows this process now.
            channel.wait()
        }
        Side::Parent(_, pidfd) => {
            channel.say(&Message::Ushered)?;
            console::send_fd(&channel.0, b"p", pidfd.as_fd())?;
            sys::process::exit_now(0)
        }
    }
}

/// Maps that config.json has beside the path have to be those of the namespace: callers give both.
fn check_maps(plan: &Plan, inherited: &Inherited) -> Result<(), Error> {
    for (file, field, wanted) in [
        ("self/uid_map", "linux.uidMappings", &plan.namespaces.uid_map),
        ("self/gid_map", "linux.gidMappings", &plan.namespaces.gid_map),
    ] {
        if wanted.is_empty() {
            continue;
        }
        let text =
            sys::kernel_file::read_at(&inherited.proc, file, OFlags::empty()).step("read /proc", file)?;
        if ranges(&text) != ranges(wanted) {
            return Err(Error::spec(
                field,
                format!(
                    "they are not those of the user namespace {}; leave them out, or make them equal",
                    init::path_of(plan, NamespaceKind::User)
                ),
            ));
        }
    }
    Ok(())
}

/// The lines of an id map, in order, without the kernel's padding.
fn ranges(map: &str) -> Vec<Vec<&str>> {
    let mut ranges: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    ranges.sort_unstable();
    ranges
}

/// The runtime's side: the container's process, when the usher has made it and is gone.
///
/// # Errors
/// What the usher says; it is gone then too.
pub fn receive(usher: Pid, channel: &mut Channel) -> Result<(Pid, OwnedFd), Error> {
    let received = match channel.hear() {
        Ok(Some(Message::Ushered)) => {
            console::receive_fd(&channel.0).and_then(|pidfd| Ok((pid_of(&pidfd)?, pidfd)))
        }
        Ok(Some(Message::Failed(text))) => {
            Err(Error::new(format!("unable to start container process: {text}")))
        }
        Ok(_) => Err(Error::new("unable to start container process: it was killed")),
        Err(error) => Err(error),
    };
    parent::kill_and_reap(usher);
    received
}

/// The pid that a pidfd stands for (proc_pid_fdinfo(5)).
fn pid_of(pidfd: &OwnedFd) -> Result<Pid, Error> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = sys::kernel_file::read(&path).step("read", &path)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.and_then(Pid::from_raw).ok_or_else(|| Error::new(format!("{path}: the container's process is gone")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_equal_whatever_their_padding_and_order() {
        assert_eq!(ranges("         0     100000      65536\n"), ranges("0 100000 65536\n"));
        assert_eq!(ranges("1 5 1\n0 4 1\n"), ranges("0 4 1\n1 5 1\n"));
        assert_ne!(ranges("0 4 1\n"), ranges("0 4 2\n"));
    }

    #[test]
    fn a_pidfd_tells_its_pid() {
        let own = rustix::process::getpid();
        let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
        assert_eq!(pid_of(&pidfd).unwrap(), own);
    }
}
