//! The container's first process, from its birth to its program. In: the plan, by copy-on-write; fds that the parent
//! opened. Out: the program runs. Must never: return to the caller's code, or let an fd of the host through to the program.
//!
//! Steps, in order: join namespaces; wait for id maps; loopback; root, mounts, devices; hooks of the runtime and of
//! createContainer; terminal; pivot; masks, parameters; user and capabilities; filter; wait for `start`; startContainer
//! hooks; exec.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::channel::Channel;
use super::channel::Message;
use super::finish;
use super::usher;
use crate::plan::Plan;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::store::Container;
use crate::store::Status;
use crate::topic::console;
use crate::topic::devices;
use crate::topic::hooks;
use crate::topic::hooks::Environment;
use crate::topic::masks;
use crate::topic::mounts;
use crate::topic::mounts::CgroupView;
use crate::topic::namespaces;
use crate::topic::process::ProcessPlan;
use crate::topic::rootfs;
use crate::topic::sources::Asker;
use crate::topic::sysctl;
use spec::linux::NamespaceKind;

/// Signals that end a container which waits for `start`. As the first process of a pid namespace it would not get them.
const ENDING_WHILE_IT_WAITS: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// What the parent opened for the child.
#[derive(Debug)]
pub struct Inherited {
    /// Existing namespaces to join.
    pub namespaces: Vec<(NamespaceKind, OwnedFd)>,
    /// Asks the runtime for sources of mounts, where it has to open some.
    pub sources: Option<Asker>,
    /// The host's procfs, O_PATH: writes to labels and parameters go through it and no other.
    pub proc: OwnedFd,
    /// The fifo, O_RDWR, on which `start` is awaited; None for a container that starts at once.
    pub fifo: Option<OwnedFd>,
    /// Who gets the terminal's master; None: the parent does.
    pub console_socket: Option<UnixStream>,
    /// Streams and further fds that the program keeps: 3 plus this many.
    pub preserved_fds: u32,
    /// Whether the root is moved instead of pivoted to.
    pub no_pivot: bool,
    /// Whether the session keyring is kept.
    pub no_new_keyring: bool,
}

/// Runs as the child: to the program's start, or to `Failed` and exit. `makes_time`: the time namespace is still to be made.
pub fn run(
    plan: &mut Plan,
    container: &Container,
    inherited: Inherited,
    makes_time: bool,
    mut channel: Channel,
) -> ! {
    let error = match steps(plan, container, inherited, makes_time, &mut channel) {
        Err(error) => error,
        Ok(never) => match never {},
    };
    fail(&mut channel, &error)
}

/// Tells the parent, or, when that is no longer there, whoever reads the container's standard error; and ends.
pub fn fail(channel: &mut Channel, error: &Error) -> ! {
    if channel.say(&Message::Failed(error.to_string())).is_err() {
        drop(writeln!(std::io::stderr(), "{error}"));
    }
    sys::process::exit_now(1)
}

fn steps(
    plan: &mut Plan,
    container: &Container,
    mut inherited: Inherited,
    makes_time: bool,
    channel: &mut Channel,
) -> Result<std::convert::Infallible, Error> {
    // Until the container is created it must not outlive the runtime.
    sys::process::set_parent_death_signal(libc::SIGKILL).step("tie the process to", "the runtime")?;
    sys::signal::reset();
    report::debug("child process in init()");
    if plan.namespaces.joined(NamespaceKind::User).is_some() {
        usher::pass_on(plan, &inherited, channel, makes_time)?;
    } else {
        if makes_time {
            usher::make_time(plan, channel)?;
        }
        join(plan, &inherited)?;
    }
    rustix::process::setsid().step("start", "a session")?;
    channel.say(&Message::Born)?;
    channel.wait()?;
    if plan.namespaces.is_own(NamespaceKind::User) {
        become_root()?;
    }
    own_namespaces(plan)?;
    let (root, late) = build_root(plan, inherited.sources.take())?;
    channel.say(&Message::NamespacesReady)?;
    channel.wait()?;
    let state = container.hook_state(Status::Creating);
    // In the root that is to be, as runc has it: such a hook changes what will be there.
    rustix::process::fchdir(&root).step("change to", "the new root")?;
    let hooks = &plan.hooks.create_container;
    hooks::run("createContainer", hooks, &state, Path::new("."), Environment::Empty)?;
    if inherited.no_pivot {
        rootfs::move_root(&root, &plan.rootfs, inherited.proc.as_fd())?
    } else {
        rootfs::pivot(&root)?
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step("open", "/")?;
    let terminal = if plan.process.terminal {
        let terminal = console::open(plan.process.console_size)?;
        terminal.bind_console(root.as_fd())?;
        Some(terminal)
    } else {
        None
    };
    plan.process.make_cwd(root.as_fd())?;
    sysctl::apply(&plan.sysctl, inherited.proc.as_fd())?;
    masks::protect(root.as_fd(), &plan.readonly_paths)?;
    masks::mask(root.as_fd(), &plan.masked_paths)?;
    mounts::make_read_only(&late)?;
    drop(late);
    rootfs::finish(&root, plan.readonly_root, plan.propagation)?;
    if let Some(terminal) = terminal {
        hand_over(&terminal, &inherited, channel, &mut plan.process)?;
    } else {
        console::own_streams(plan.process.uid, plan.devices.is_some().then_some(root.as_fd()));
    }
    if !inherited.no_new_keyring {
        plan.process.labels.label_keyring(inherited.proc.as_fd())?;
        new_keyring(&plan.id)?;
    }
    plan.process.labels.apply(inherited.proc.as_fd())?;
    let may_set_groups = may_set_groups(inherited.proc.as_fd());
    let Inherited { fifo, preserved_fds, .. } = inherited;
    drop(root);
    plan.process.add_home();
    if let Some(fifo) = &fifo {
        // It may wait for long. What the caller has leaked, the end of a pipe perhaps, must not stay open all that time.
        let kept = [channel.0.as_fd(), fifo.as_fd()].into_iter().chain(report::log_fd());
        sys::process::close_from(3 + preserved_fds, kept).step("close", "file descriptors")?;
        sys::signal::let_end(&ENDING_WHILE_IT_WAITS).step("prepare for", "signals")?;
    }
    finish::finish(&plan.conditions, &plan.process, may_set_groups, preserved_fds, channel, |channel| {
        channel.say(&Message::Ready)?;
        if let Some(fifo) = &fifo {
            channel.close();
            wait_for_start(fifo)?;
        }
        let state = container.hook_state(Status::Created);
        let (hooks, process) = (&plan.hooks.start_container, &plan.process);
        hooks::run("startContainer", hooks, &state, &process.cwd, Environment::Program(&process.env))
    })
}

/// A user namespace whose parent denied it says so (user_namespaces(7), /proc/PID/setgroups).
pub fn may_set_groups(proc: BorrowedFd<'_>) -> bool {
    let file = rustix::fs::openat(proc, "self/setgroups", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut text = [0; 8];
    file.and_then(|file| rustix::io::read(&file, &mut text))
        .is_ok_and(|length| text[..length].starts_with(b"allow"))
}

fn join(plan: &Plan, inherited: &Inherited) -> Result<(), Error> {
    for (kind, fd) in &inherited.namespaces {
        // The parent has joined these for its children.
        if matches!(kind, NamespaceKind::Pid | NamespaceKind::Time) {
            continue;
        }
        sys::process::setns(fd.as_fd(), namespaces::flag(*kind))
            .step("join the namespace", path_of(plan, *kind))?;
    }
    Ok(())
}

/// Where the namespace of `kind` is that is joined, for messages.
pub fn path_of(plan: &Plan, kind: NamespaceKind) -> String {
    plan.namespaces.joined(kind).map(|path| path.display().to_string()).unwrap_or_default()
}

/// In its user namespace this process is nobody until it takes an id that is mapped.
///
/// # Errors
/// setresgid(2)'s and setresuid(2)'s: EINVAL where 0 is not mapped.
pub fn become_root() -> Result<(), Error> {
    use rustix::thread::Gid;
    use rustix::thread::Uid;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .step("become root of", "the user namespace")?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .step("become root of", "the user namespace")?;
    // The change of user has cleared it.
    sys::process::set_parent_death_signal(libc::SIGKILL).step("tie the process to", "the runtime")
}

fn own_namespaces(plan: &Plan) -> Result<(), Error> {
    if plan.namespaces.is_new(NamespaceKind::Cgroup) {
        // Not by clone3: that would root it at the parent's cgroup.
        sys::process::unshare(libc::CLONE_NEWCGROUP).step("make", "a cgroup namespace")?;
    }
    if plan.namespaces.is_new(NamespaceKind::Network) {
        sys::process::bring_up_loopback().step("bring up", "lo")?;
    }
    if !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes()).step("set", "the host name")?;
    }
    if !plan.domainname.is_empty() {
        rustix::system::setdomainname(plan.domainname.as_bytes()).step("set", "the domain name")?;
    }
    Ok(())
}

/// Root, mounts and devices; everything is where it belongs but the process itself. Gives the root, and the mounts that
/// are to become read-only at the end.
fn build_root(plan: &Plan, mut sources: Option<Asker>) -> Result<(OwnedFd, Vec<OwnedFd>), Error> {
    let root = rootfs::prepare(&plan.rootfs, plan.propagation)?;
    let cgroup_path = plan.cgroup.path();
    let view = if plan.namespaces.is_own(NamespaceKind::Cgroup) {
        CgroupView::Namespace
    } else {
        CgroupView::Folder(&cgroup_path)
    };
    let mut late = Vec::new();
    for (index, mount) in plan.mounts.iter().enumerate() {
        let source = match &mut sources {
            Some(sources) => sources.ask(index, mount, &plan.namespaces, plan.propagation)?,
            None => None,
        };
        late.extend(mount.apply(root.as_fd(), &view, source)?);
    }
    if let Some(nodes) = &plan.devices {
        // A user namespace may make no nodes.
        devices::apply(nodes, root.as_fd(), plan.namespaces.is_own(NamespaceKind::User), sources)?;
    }
    Ok((root, late))
}

fn hand_over(
    terminal: &console::Terminal,
    inherited: &Inherited,
    channel: &mut Channel,
    process: &mut ProcessPlan,
) -> Result<(), Error> {
    send_master(terminal, inherited.console_socket.as_ref(), channel)?;
    terminal.take_over(process.uid)
}

/// Sends the master to the console socket, or else to the parent.
///
/// # Errors
/// Nobody takes it.
pub fn send_master(
    terminal: &console::Terminal,
    socket: Option<&UnixStream>,
    channel: &mut Channel,
) -> Result<(), Error> {
    match socket {
        Some(socket) => console::send_fd(socket, b"/dev/pts/ptmx", terminal.master.as_fd()),
        None => {
            terminal.keep_newlines()?;
            channel.say(&Message::Terminal)?;
            console::send_fd(&channel.0, b"m", terminal.master.as_fd())
        }
    }
}

/// A kernel without keys is fine; there is nothing to share then.
///
/// # Errors
/// keyctl(2)'s.
pub fn new_keyring(id: &str) -> Result<(), Error> {
    let Ok(name) = CString::new(format!("_ses.{id}")) else { return Ok(()) };
    match sys::process::join_session_keyring(&name) {
        Ok(()) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno).step("make", "a session keyring"),
    }
}

/// Waits for the byte that `start` writes. The fifo is open for both directions, so it never ends by itself.
fn wait_for_start(fifo: &OwnedFd) -> Result<(), Error> {
    let mut byte = [0];
    loop {
        match rustix::io::read(fifo, &mut byte) {
            Err(Errno::INTR) => {}
            done => return done.step("wait for", "start").map(drop),
        }
    }
}
