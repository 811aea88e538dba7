//! The runtime's side of making a container. In: a plan, a claimed state folder. Out: a container that is created, its
//! process waiting; or nothing at all: what was done is undone in reverse when a later step fails.
//! Must never: run a program of the container.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::Signal;

use super::channel::Channel;
use super::channel::Message;
use super::init;
use super::init::Inherited;
use super::listener;
use super::notify;
use super::usher;
use crate::cgroup;
use crate::cgroup::Cgroup;
use crate::plan::Plan;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::store;
use crate::store::Container;
use crate::store::Record;
use crate::store::Status;
use crate::store::Store;
use crate::topic::console;
use crate::topic::hooks;
use crate::topic::hooks::Environment;
use crate::topic::intel_rdt;
use crate::topic::labels;
use crate::topic::namespaces;
use crate::topic::net_devices;
use crate::topic::rlimits;
use crate::topic::sources;
use crate::topic::sources::Opener;
use crate::undo::Undo;
use spec::Spec;
use spec::linux::NamespaceKind;
use sys::process::Side;

/// What the command line adds to config.json.
#[derive(Debug, Default)]
pub struct Options {
    /// Socket that gets the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// Socket that gets the process's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets the pid.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting to it.
    pub no_pivot: bool,
    /// Keep the session keyring.
    pub no_new_keyring: bool,
    /// How many fds behind the standard streams the program keeps.
    pub preserve_fds: u32,
    /// Whether the program starts at once instead of waiting for `start`.
    pub starts_at_once: bool,
    /// The socket of the caller's service manager.
    pub service_manager: Option<OsString>,
}

/// A container that is created.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// Its process, a child of this one.
    pub pid: Pid,
    /// The same, as an fd.
    pub pidfd: OwnedFd,
    /// Its terminal's master, when it has one and no socket took it.
    pub master: Option<OwnedFd>,
    /// Where its program says that it is ready, if it starts at once.
    pub notify: Option<notify::Socket>,
    /// Takes everything back, should a step after this one fail.
    pub undo: Undo,
}

/// Makes the container.
///
/// # Errors
/// Whatever failed; nothing is left then.
pub fn create(store: &Store, plan: &mut Plan, spec: Spec, options: &Options) -> Result<Created, Error> {
    if !plan.rootfs.is_dir() {
        let reason = if plan.rootfs.exists() { "is not a folder" } else { "does not exist" };
        return Err(Error::new(format!(
            "invalid rootfs: {} {reason}; config.json's root.path names it",
            plan.rootfs.display()
        )));
    }
    labels::check_host(&plan.process.labels, &plan.mount_label)?;
    let resctrl = plan.intel_rdt.is_some().then(intel_rdt::root).transpose()?;
    for fd in 3..3 + options.preserve_fds {
        if !i32::try_from(fd).is_ok_and(sys::process::is_open) {
            return Err(Error::new(format!(
                "--preserve-fds {}: file descriptor {fd} is not open",
                options.preserve_fds
            )));
        }
    }
    // What the caller has leaked is nothing for hooks either.
    sys::process::close_on_exec_from(3 + options.preserve_fds).step("close", "file descriptors")?;
    let console_socket = options.console_socket.as_deref().map(console::connect).transpose()?;
    let pidfd_socket = options.pidfd_socket.as_deref().map(console::connect).transpose()?;
    let mut undo = Undo::default();
    let (folder, state_at_hooks) = claim(store, plan, &mut undo)?;
    let fifo = if options.starts_at_once { None } else { Some(make_fifo(&folder.join(store::FIFO))?) };
    let notify = offer_notification(&folder, options)?;
    let cgroup = make_cgroup(plan, &folder, store.rootless, &mut undo)?;
    let namespaces = open_namespaces(plan)?;
    let user = namespaces.iter().find(|(kind, _)| *kind == NamespaceKind::User).map(|(_, fd)| fd.as_fd());
    let joins_user = user.is_some();
    let (opener, sources) = sources::prepare(plan, user)?.unzip();
    let inherited = Inherited {
        sources,
        namespaces,
        proc: rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step("open", "/proc")?,
        fifo,
        console_socket,
        preserved_fds: options.preserve_fds,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
    };
    let mut container = Container { record: record(plan, spec, cgroup.as_ref()), folder };
    let (mut channel, child_channel) = Channel::pair()?;
    let ForChildren { own, leaves_time } = enter_for_children(plan, &inherited)?;
    let needs_usher = joins_user || leaves_time;
    let flags = if joins_user {
        0
    } else if leaves_time {
        namespaces::flag(NamespaceKind::User).unsigned_abs().into()
    } else {
        new_namespaces(plan)
    };
    report::debug("nsexec container setup");
    let side = sys::process::clone3(flags, cgroup.as_ref().map(|cgroup| cgroup.dir_fd().as_fd()));
    let (mut pid, mut pidfd) = match side.step("start", "the container's process")? {
        Side::Child => {
            undo.disown();
            drop((channel, opener));
            init::run(plan, &container, inherited, leaves_time, child_channel)
        }
        Side::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop((child_channel, inherited));
    if needs_usher {
        (pid, pidfd) = usher::receive(pid, &mut channel)?;
        channel.go_on()?;
    }
    undo.push(move || kill_and_reap(pid));
    leave_for_children(own)?;
    enter_scope(plan, pid, &container, &mut undo)?;
    if let (Some(group), Some(root)) = (&plan.intel_rdt, resctrl) {
        group.enter(&root, pid, &mut undo)?;
    }
    let child = Child { pid, pidfd: &pidfd, opener };
    let master = serve(plan, &mut container, child, &mut channel, &state_at_hooks)?;
    if options.starts_at_once {
        channel.hear_exec()?;
    }
    if let Some(socket) = pidfd_socket {
        send_pidfd(&socket, &pidfd)?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    Ok(Created { container, pid, pidfd, master, notify, undo })
}

/// What poststop hooks are to be told, once other hooks may have run.
pub type StateAtHooks = Rc<OnceCell<Vec<u8>>>;

/// The state folder of a new container, and what its hooks have made: both are taken back where a later step fails.
///
/// # Errors
/// An id that is none, or in use.
pub fn claim(store: &Store, plan: &Plan, undo: &mut Undo) -> Result<(PathBuf, StateAtHooks), Error> {
    // The last thing to be undone, as `delete` has it: what createRuntime hooks have made, poststop hooks take back.
    let state_at_hooks = StateAtHooks::default();
    undo.push({
        let (hooks, bundle) = (plan.hooks.poststop.clone(), plan.bundle.clone());
        let state_at_hooks = state_at_hooks.clone();
        move || {
            if let Some(state) = state_at_hooks.get() {
                hooks::poststop(&hooks, state, &bundle);
            }
        }
    });
    let folder = store.claim(&plan.id)?;
    undo.push({
        let folder = folder.clone();
        // Nothing can be done about what can't be removed; `delete --force` tries again.
        move || drop(std::fs::remove_dir_all(folder))
    });
    Ok((folder, state_at_hooks))
}

/// Runs the hooks for which the namespaces have to be there, and the program not yet.
///
/// # Errors
/// The first hook that fails.
pub fn run_early_hooks(
    plan: &Plan,
    container: &Container,
    state_at_hooks: &StateAtHooks,
) -> Result<(), Error> {
    let _ = state_at_hooks.set(container.hook_state(Status::Stopped));
    let state = container.hook_state(Status::Creating);
    hooks::run("prestart", &plan.hooks.prestart, &state, &plan.bundle, Environment::Caller)?;
    let hooks = &plan.hooks.create_runtime;
    hooks::run("createRuntime", hooks, &state, &plan.bundle, Environment::Caller)
}

/// The container's process, as `serve` needs it.
struct Child<'a> {
    pid: Pid,
    pidfd: &'a OwnedFd,
    opener: Option<Opener>,
}

/// Answers the child until it is ready, and gives its terminal's master if it sent one.
fn serve(
    plan: &Plan,
    container: &mut Container,
    child: Child<'_>,
    channel: &mut Channel,
    state_at_hooks: &StateAtHooks,
) -> Result<Option<OwnedFd>, Error> {
    let Child { pid, pidfd, mut opener } = child;
    let (mut master, mut helper) = (None, None);
    loop {
        match channel.hear()? {
            Some(Message::Born) => {
                write_id_maps(plan, pid)?;
                rlimits::raise(&plan.process.rlimits, pid)?;
                plan.process.schedule.settle_affinity(pid)?;
                if let Some(value) = plan.process.oom_score_adj {
                    write_proc(pid, "oom_score_adj", &value.to_string())?;
                }
                container.note_process(pid)?;
                helper = opener.take().map(|opener| opener.start(plan, pid)).transpose()?;
            }
            Some(Message::NamespacesReady) => {
                drop(helper.take());
                net_devices::apply(&plan.net_devices, pid)?;
                container.save()?;
                run_early_hooks(plan, container, state_at_hooks)?;
            }
            Some(Message::Terminal) => {
                master = Some(console::receive_fd(&channel.0)?);
                continue;
            }
            Some(Message::Listener(fd)) => {
                let process = (pid, pidfd.as_fd());
                listener::hand_on(&plan.conditions, container, Status::Creating, process, fd)?;
            }
            Some(Message::Ready) => return Ok(master),
            Some(Message::Failed(text)) => {
                return Err(Error::new(format!("unable to start container process: {text}")));
            }
            None | Some(Message::Ushered | Message::Source) => return Err(died(container)),
        }
        channel.go_on()?;
    }
}

/// A process that says nothing more was killed; most often for want of memory.
fn died(container: &Container) -> Error {
    let killed = Cgroup::open(&container.record.cgroup).ok().flatten();
    let oom = killed.and_then(|cgroup| cgroup.oom_kill_count().ok()).unwrap_or(0) > 0;
    let cause = if oom {
        "the kernel killed it for want of memory; raise linux.resources.memory.limit"
    } else {
        "it was killed"
    };
    Error::new(format!("unable to start container process: {cause}"))
}

fn offer_notification(folder: &Path, options: &Options) -> Result<Option<notify::Socket>, Error> {
    let Some(manager) = &options.service_manager else { return Ok(None) };
    notify::make_folder(folder)?;
    options.starts_at_once.then(|| notify::Socket::bind(folder, manager)).transpose()
}

fn make_fifo(path: &Path) -> Result<OwnedFd, Error> {
    store::make_fifo(path).step("make", path.display())?;
    // Open for both directions, so that neither side's open waits.
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open", path.display())
}

/// The container's cgroup; None where the caller may not make one, and nobody has asked for one. Nor does systemd make one
/// without a process: `enter_scope`.
///
/// # Errors
/// Each names the cgroup.
pub fn make_cgroup(
    plan: &Plan,
    folder: &Path,
    rootless: bool,
    undo: &mut Undo,
) -> Result<Option<Cgroup>, Error> {
    if plan.cgroup.scope.is_some() {
        plan.cgroup.check_unused()?;
        return Ok(None);
    }
    let path = plan.cgroup.path();
    if rootless && !plan.cgroup.can_be_made() {
        return if plan.cgroup.is_optional() {
            Ok(None)
        } else {
            Err(Error::new(format!(
                "unable to apply cgroup configuration: make cgroup {}: permission denied: rootless needs no limits + no \
                 cgrouppath when no permission is granted for cgroups",
                path.display()
            )))
        };
    }
    // Noted down before it is made, so that a runtime killed meanwhile leaves none behind unnoted; one that was there
    // before is noted when it has turned out to be unused: `delete` kills what is in it.
    let was_there = path.exists();
    if !was_there {
        store::note_cgroup(folder, &path)?;
    }
    let cgroup = plan.cgroup.create(rootless)?;
    undo.push({
        let path = path.clone();
        move || drop(cgroup::destroy(&path, None))
    });
    if was_there {
        store::note_cgroup(folder, &path)?;
    }
    Ok(Some(cgroup))
}

/// The container's process, which waits, goes where systemd makes a place for it.
///
/// # Errors
/// systemd's.
pub fn enter_scope(plan: &Plan, pid: Pid, container: &Container, undo: &mut Undo) -> Result<(), Error> {
    let Some(scope) = &plan.cgroup.scope else { return Ok(()) };
    let path = plan.cgroup.path();
    // A runtime that is killed meanwhile takes the process with it. So what another container may be in is not noted down as the
    // container's cgroup before it has turned out to be this one's; but for `delete`: systemd never learns that a unit is
    // empty whose process was dead before it began to watch.
    store::note_unit(&container.folder, &scope.unit, &path)?;
    plan.cgroup.enter(scope, pid)?;
    undo.push({
        let (path, unit) = (path.clone(), scope.unit.clone());
        move || drop(cgroup::destroy(&path, Some(&unit)))
    });
    store::note_cgroup(&container.folder, &path)?;
    store::forget_unit(&container.folder, &scope.unit);
    Ok(())
}

fn open_namespaces(plan: &Plan) -> Result<Vec<(NamespaceKind, OwnedFd)>, Error> {
    let open = |(kind, path): &(NamespaceKind, PathBuf)| {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok((*kind, fd.step("open the namespace", path.display())?))
    };
    plan.namespaces.join.iter().map(open).collect()
}

/// The new namespaces that clone3 makes. The cgroup one is the child's own business, the time one this process's.
pub fn new_namespaces(plan: &Plan) -> u64 {
    let kinds = plan
        .namespaces
        .new
        .iter()
        .filter(|kind| !matches!(kind, NamespaceKind::Cgroup | NamespaceKind::Time));
    kinds.fold(0, |flags, kind| flags | u64::from(namespaces::flag(*kind).unsigned_abs()))
}

/// What this process has entered for its children.
struct ForChildren {
    /// The ways back.
    own: Vec<(NamespaceKind, OwnedFd)>,
    /// Whether the usher has to make the time namespace.
    leaves_time: bool,
}

/// Pid and time namespaces of the next child: this process enters them, and gives the way back. That is held open before:
/// to join a time namespace changes this process's own too (timens_install in kernel/time/namespace.c). One that a caller
/// without privileges may join or make as root of the container's user namespace only is left to the usher.
fn enter_for_children(plan: &Plan, inherited: &Inherited) -> Result<ForChildren, Error> {
    let mut own = Vec::new();
    let open_own = |kind: NamespaceKind| {
        let path = format!("/proc/self/ns/{}", namespaces::file_name(kind));
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", path)
    };
    for (kind, fd) in &inherited.namespaces {
        if matches!(kind, NamespaceKind::Pid | NamespaceKind::Time) {
            let way_back = open_own(*kind)?;
            match sys::process::setns(fd.as_fd(), namespaces::flag(*kind)) {
                Err(Errno::PERM) if plan.namespaces.joined(NamespaceKind::User).is_some() => {}
                done => {
                    done.step("join", format!("the {kind:?} namespace"))?;
                    own.push((*kind, way_back));
                }
            }
        }
    }
    let mut leaves_time = false;
    if plan.namespaces.is_new(NamespaceKind::Time) {
        let way_back = open_own(NamespaceKind::Time)?;
        match sys::process::unshare(namespaces::flag(NamespaceKind::Time)) {
            Err(Errno::PERM) if plan.namespaces.is_own(NamespaceKind::User) => leaves_time = true,
            done => {
                done.step("make", "a time namespace")?;
                own.push((NamespaceKind::Time, way_back));
                plan.namespaces.write_time_offsets()?;
            }
        }
    }
    Ok(ForChildren { own, leaves_time })
}

/// Hooks that this process runs belong to its own namespaces again, and times that it reads are its own.
fn leave_for_children(own: Vec<(NamespaceKind, OwnedFd)>) -> Result<(), Error> {
    for (kind, fd) in own {
        sys::process::setns(fd.as_fd(), namespaces::flag(kind))
            .step("return to", format!("the {kind:?} namespace of the runtime"))?;
    }
    Ok(())
}

fn write_id_maps(plan: &Plan, pid: Pid) -> Result<(), Error> {
    if !plan.namespaces.is_new(NamespaceKind::User) {
        return Ok(());
    }
    namespaces::write_maps(pid, &plan.namespaces.uid_map, &plan.namespaces.gid_map)
}

fn write_proc(pid: Pid, file: &str, text: &str) -> Result<(), Error> {
    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
    std::fs::write(&path, text).step("write", path)
}

/// What is noted down of a container that is being made, but for its process.
pub fn record(plan: &Plan, spec: Spec, cgroup: Option<&Cgroup>) -> Record {
    let unit = plan.cgroup.scope.as_ref().map(|scope| &scope.unit);
    Record {
        id: plan.id.clone(),
        pid: 0,
        start_time: 0,
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.clone(),
        created: store::now(),
        // In a scope the process will be, in another cgroup it is already.
        cgroup: match (unit, cgroup) {
            (Some(_), _) => plan.cgroup.path(),
            (None, Some(cgroup)) => cgroup.path().to_path_buf(),
            (None, None) => PathBuf::new(),
        },
        unit: unit.map(|unit| unit.name.clone()).unwrap_or_default(),
        is_user_unit: unit.is_some_and(|unit| unit.is_user),
        spec,
    }
}

fn send_pidfd(socket: &UnixStream, pidfd: &OwnedFd) -> Result<(), Error> {
    console::send_fd(socket, b"pidfd", pidfd.as_fd())
}

/// Writes a pid to a file, whole or not at all.
///
/// # Errors
/// The file can't be written.
pub fn write_pid_file(path: &Path, pid: Pid) -> Result<(), Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::new(format!("--pid-file {}: not a file name", path.display())))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    std::fs::write(&temporary, pid.as_raw_nonzero().to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .step("write", path.display())
}

/// Ends a child for good.
pub fn kill_and_reap(pid: Pid) {
    // It may have ended already.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
}
