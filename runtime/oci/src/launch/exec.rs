//! Another process in a running container. In: the container, a checked program. Out: it runs inside, in the container's
//! namespaces and cgroup. Must never: let the container's processes look into it before its program runs (it is not
//! dumpable), or keep an fd of the host.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;

use super::channel::Channel;
use super::channel::Message;
use super::finish;
use super::init;
use super::listener;
use super::parent;
use super::usher;
use crate::cgroup::Cgroup;
use crate::cgroup::not_added;
use crate::cgroup::systemd::Unit;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::seccomp::Filter;
use crate::store::Container;
use crate::store::Status;
use crate::topic::conditions;
use crate::topic::conditions::Conditions;
use crate::topic::console;
use crate::topic::labels;
use crate::topic::namespaces;
use crate::topic::process::ProcessPlan;
use crate::topic::rlimits;
use crate::undo::Undo;
use spec::linux::NamespaceKind;
use sys::process::Side;

/// A process that is about to run its program.
#[derive(Debug)]
pub struct Started {
    /// A child of this process.
    pub pid: Pid,
    /// The same, as an fd.
    pub pidfd: OwnedFd,
    /// Its terminal's master, when it has one and no socket took it.
    pub master: Option<OwnedFd>,
    /// Ends it, should a step after this one fail.
    pub undo: Undo,
}

/// Starts the program in the container. `filter` is one that was made of the container's seccomp section before.
///
/// # Errors
/// Whatever failed; the process is gone then.
pub fn start(
    container: &Container,
    process: &mut ProcessPlan,
    cgroup: &Place,
    console_socket: Option<&Path>,
    preserve_fds: u32,
    filter: Option<Filter>,
) -> Result<Started, Error> {
    let record = &container.record;
    let stopped = || Error::new("cannot exec in a stopped container");
    let init = Pid::from_raw(record.pid).ok_or_else(stopped)?;
    let init_fd = match rustix::process::pidfd_open(init, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Err(stopped()),
        opened => opened.step("open the container's process", record.pid)?,
    };
    // The pid could have been reused before it was opened.
    container.process().ok_or_else(stopped)?;
    labels::check_host(&process.labels, "")?;
    let conditions = conditions::plan(&record.spec, filter)?;
    let socket = console_socket.map(console::connect).transpose()?;
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step("open", "/proc")?;
    let (mut channel, child_channel) = Channel::pair()?;
    let shared = shared_namespaces(record.pid)?;
    let mut inside = shared & !libc::CLONE_NEWPID;
    let mut needs_usher = false;
    if shared & libc::CLONE_NEWPID != 0 {
        // For the child; joining a pid namespace never moves the caller itself.
        match sys::process::setns(init_fd.as_fd(), libc::CLONE_NEWPID) {
            // A caller without privileges has to be root of the user namespace first.
            Err(Errno::PERM) if shared & libc::CLONE_NEWUSER != 0 => needs_usher = true,
            done => done.step("join", "the container's pid namespace")?,
        }
    }
    if needs_usher {
        inside &= !libc::CLONE_NEWUSER;
    }
    process.schedule.enter_initial()?;
    process.schedule.report();
    report::debug("nsexec container setup");
    let (side, way_in) = clone_into(cgroup, init, container.unit())?;
    let (mut pid, mut pidfd) = match side {
        Side::Child => {
            drop(channel);
            let mut child_channel = child_channel;
            if needs_usher && let Err(error) = usher::follow(init_fd.as_fd(), &mut child_channel) {
                init::fail(&mut child_channel, &error);
            }
            let inherited = Inherited { init_fd, inside, proc, socket, preserve_fds };
            let error = match child(process, &conditions, &inherited, &mut child_channel, &record.id) {
                Err(error) => error,
                Ok(never) => match never {},
            };
            init::fail(&mut child_channel, &error)
        }
        Side::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop((child_channel, socket));
    if needs_usher {
        (pid, pidfd) = usher::receive(pid, &mut channel)?;
        channel.go_on()?;
    }
    let mut undo = Undo::default();
    undo.push(move || parent::kill_and_reap(pid));
    let mut master = None;
    loop {
        match channel.hear()? {
            Some(Message::Born) => {
                if let Some((unit, below)) = &way_in {
                    unit.take_in(pid, below)?;
                }
                rlimits::raise(&process.rlimits, pid)?;
                process.schedule.settle_affinity(pid)?;
                channel.go_on()?;
            }
            Some(Message::Terminal) => master = Some(console::receive_fd(&channel.0)?),
            Some(Message::Ready) => {
                channel.hear_exec().map_err(|error| Error::new(format!("exec failed: {error}")))?;
                return Ok(Started { pid, pidfd, master, undo });
            }
            Some(Message::Failed(text)) => {
                return Err(Error::new(format!("exec failed: unable to start container process: {text}")));
            }
            Some(Message::Listener(fd)) => {
                listener::hand_on(&conditions, container, Status::Running, (pid, pidfd.as_fd()), fd)?;
                channel.go_on()?;
            }
            _ => {
                return Err(Error::new("exec failed: unable to start container process: it was killed"));
            }
        }
    }
}

/// Where the process is counted and limited.
#[derive(Debug)]
pub enum Place {
    /// With whoever calls: the container has no cgroup of its own.
    Caller,
    /// In the container's cgroup, or else where the container's first process is.
    Container(Cgroup),
    /// In the one that was named.
    Named(Cgroup),
}

/// A process in its place, or one that systemd has to move into a unit, to a path below that one's cgroup: from a session of his
/// a user may not do so himself.
fn clone_into(place: &Place, init: Pid, unit: Option<Unit>) -> Result<(Side, Option<(Unit, String)>), Error> {
    let clone = |cgroup: &Cgroup| sys::process::clone3(0, Some(cgroup.dir_fd().as_fd()));
    let refused = |cgroup: &Cgroup, errno| match errno {
        Errno::BUSY => not_added(cgroup.path(), errno),
        errno => Error::new(format!("start the process: {}", report::errno_text(errno))),
    };
    let elsewhere = || sys::process::clone3(0, None).step("start", "the process");
    let side = match place {
        Place::Caller => elsewhere(),
        Place::Named(cgroup) => clone(cgroup).map_err(|errno| refused(cgroup, errno)),
        Place::Container(cgroup) => match clone(cgroup) {
            // The container has made cgroups below its own and moved into one: then processes may be only there.
            Err(Errno::BUSY) => {
                let own = Cgroup::of_process(init)?;
                clone(&own).map_err(|errno| refused(&own, errno))
            }
            Err(Errno::ACCESS | Errno::PERM) if unit.is_some() => {
                let own = Cgroup::of_process(init)?;
                let below = own.path().strip_prefix(cgroup.path()).unwrap_or(Path::new(""));
                let below = format!("/{}", below.display());
                return Ok((elsewhere()?, unit.map(|unit| (unit, below))));
            }
            done => done.map_err(|errno| refused(cgroup, errno)),
        },
    };
    Ok((side?, None))
}

struct Inherited {
    init_fd: OwnedFd,
    inside: i32,
    proc: OwnedFd,
    socket: Option<UnixStream>,
    preserve_fds: u32,
}

/// The namespaces that the container does not share with this process, as CLONE_NEW* bits: those to join.
fn shared_namespaces(pid: i32) -> Result<i32, Error> {
    let kinds = [
        NamespaceKind::User,
        NamespaceKind::Pid,
        NamespaceKind::Mount,
        NamespaceKind::Network,
        NamespaceKind::Uts,
        NamespaceKind::Ipc,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
    ];
    let mut flags = 0;
    for kind in kinds {
        let read = |who: &str| {
            let path = format!("/proc/{who}/ns/{}", namespaces::file_name(kind));
            std::fs::read_link(&path).step("read", path)
        };
        if read("self")? != read(&pid.to_string())? {
            flags |= namespaces::flag(kind);
        }
    }
    Ok(flags)
}

fn child(
    process: &mut ProcessPlan,
    conditions: &Conditions,
    inherited: &Inherited,
    channel: &mut Channel,
    id: &str,
) -> Result<std::convert::Infallible, Error> {
    sys::process::set_parent_death_signal(libc::SIGKILL).step("tie the process to", "the runtime")?;
    sys::signal::reset();
    report::debug("child process in init()");
    // Before it is in the container's pid namespace's sight: nobody there may trace it or use its fds.
    sys::process::set_dumpable(false).step("protect", "the process")?;
    rustix::process::setsid().step("start", "a session")?;
    channel.say(&Message::Born)?;
    channel.wait()?;
    if inherited.inside != 0 {
        sys::process::setns(inherited.init_fd.as_fd(), inherited.inside)
            .step("join", "the container's namespaces")?;
    }
    if inherited.inside & libc::CLONE_NEWUSER != 0 {
        init::become_root()?;
    }
    if process.terminal {
        let terminal = console::open(process.console_size)?;
        init::send_master(&terminal, inherited.socket.as_ref(), channel)?;
        terminal.take_over(process.uid)?;
    } else {
        console::own_streams(process.uid, None);
    }
    process.labels.label_keyring(inherited.proc.as_fd())?;
    init::new_keyring(id)?;
    process.labels.apply(inherited.proc.as_fd())?;
    process.add_home();
    let may_set_groups = init::may_set_groups(inherited.proc.as_fd());
    let ready = |channel: &mut Channel| {
        report::debug("setns_init: about to exec");
        channel.say(&Message::Ready)
    };
    finish::finish(conditions, process, may_set_groups, inherited.preserve_fds, channel, ready)
}
