//! `runc create`, `run` and `start`. In: a bundle and an id. Out: a container that waits, or runs, or has run.
//! Must never: start anything before the whole configuration is checked.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::process::Pid;
use rustix::process::PidfdFlags;

use crate::cgroup::Facts;
use crate::cgroup::systemd::Manager;
use crate::launch::notify;
use crate::launch::parent;
use crate::launch::parent::Created;
use crate::launch::parent::Options;
use crate::launch::relay;
use crate::plan::Plan;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::store::Container;
use crate::store::Status;
use crate::store::Store;
use crate::topic::hooks;
use crate::topic::hooks::Environment;
use spec::Spec;

use super::activation;
use super::delete;

/// What `create` and `run` have in common.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Name of the container
    pub id: String,
    /// Folder of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets the pidfd of the container's process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets the pid of the container's process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Move the root over / instead of pivoting to it
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the session keyring of the caller
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Leave this many file descriptors behind the standard streams open in the container
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

/// Creates a container.
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    common: Common,
}

/// Creates a container and runs its program.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    common: Common,
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container when its program has ended
    #[arg(long)]
    keep: bool,
    /// Let orphans of the container go to the host's init
    #[arg(long)]
    no_subreaper: bool,
}

/// A container that may keep more fds than this is a mistake.
const PRESERVE_FDS_MAX: u32 = 1 << 16;

impl Common {
    fn plan(&self, store: &Store) -> Result<(Plan, Spec), Error> {
        if self.preserve_fds > PRESERVE_FDS_MAX {
            return Err(Error::new(format!(
                "--preserve-fds {}: expected at most {PRESERVE_FDS_MAX}",
                self.preserve_fds
            )));
        }
        plan(store, &self.id, &self.bundle)
    }

    fn options(&self, starts_at_once: bool) -> Result<Options, Error> {
        Ok(Options {
            console_socket: absolute(&self.console_socket)?,
            pidfd_socket: absolute(&self.pidfd_socket)?,
            pid_file: absolute(&self.pid_file)?,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: activation::sockets() + self.preserve_fds,
            starts_at_once,
            service_manager: notify::manager(),
        })
    }
}

/// Reads and checks the configuration of a bundle, with the filter that was compiled before.
///
/// # Errors
/// Whatever is wrong with it, by its field.
pub fn plan(store: &Store, id: &str, bundle: &Path) -> Result<(Plan, Spec), Error> {
    let bundle = std::fs::canonicalize(bundle).step("open the bundle", bundle.display())?;
    let mut spec = Spec::load(&bundle.join("config.json"))?;
    if notify::manager().is_some() {
        notify::offer(&mut spec, &store.folder(id)?);
    }
    let mut facts = Facts::probe()?;
    if store.systemd {
        facts.manager = Some(Manager::find(store.rootless)?);
    }
    let filters = store.filters();
    let kept = spec.seccomp().and_then(|text| filters.find(text));
    let is_new = kept.is_none();
    let mut plan = Plan::resolve(&spec, id, &bundle, &facts, kept)
        .map_err(|error| Error::new(format!("config.json: {error}")))?;
    if let (true, Some(text), Some(filter)) = (is_new, spec.seccomp(), &plan.conditions.seccomp) {
        filters.keep(text, filter);
    }
    plan.process.warn_of_unknown();
    plan.process.hand_on_sockets(activation::sockets());
    Ok((plan, spec))
}

/// A path of the command line, from the root on.
///
/// # Errors
/// getcwd(3)'s.
pub fn absolute(path: &Option<PathBuf>) -> Result<Option<PathBuf>, Error> {
    path.as_deref().map(std::path::absolute).transpose().step("find", "the working directory")
}

/// A terminal whose master nobody takes would hang its program.
///
/// # Errors
/// runc's sentences, with the ways out.
pub fn check_terminal(terminal: bool, detached: bool, socket: Option<&Path>) -> Result<(), Error> {
    match (terminal, detached, socket) {
        (true, true, None) => Err(Error::new(
            "cannot allocate tty if runc will detach without setting console socket: \
             give --console-socket SOCKET, or set process.terminal to false in config.json (`runc run` in the foreground needs neither)",
        )),
        (_, false, Some(_)) | (false, _, Some(_)) => {
            Err(Error::new("cannot use console socket if runc will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

/// In the foreground: takes the caller's signals, and the container's orphans. None: this process does not stay.
///
/// # Errors
/// signalfd(2)'s.
pub fn stay(detach: bool, no_subreaper: bool) -> Result<Option<OwnedFd>, Error> {
    if detach {
        return Ok(None);
    }
    let signals = relay::signals()?;
    if !no_subreaper {
        sys::process::set_child_subreaper(true).step("become", "a subreaper")?;
    }
    Ok(Some(signals))
}

impl Create {
    /// Creates the container.
    ///
    /// # Errors
    /// Whatever failed; nothing is left then.
    pub fn run(&self, store: &Store) -> Result<(), Error> {
        store.folder(&self.common.id)?;
        let (mut plan, spec) = self.common.plan(store)?;
        check_terminal(plan.process.terminal, true, self.common.console_socket.as_deref())?;
        let created = parent::create(store, &mut plan, spec, &self.common.options(false)?);
        created.map_err(|error| failed("create", &error))?.undo.keep();
        Ok(())
    }
}

impl Run {
    /// Creates the container, runs its program, and in the foreground gives its exit status.
    ///
    /// # Errors
    /// Whatever failed; nothing is left then.
    pub fn run(&self, store: &Store) -> Result<i32, Error> {
        store.folder(&self.common.id)?;
        let (mut plan, spec) = self.common.plan(store)?;
        check_terminal(plan.process.terminal, self.detach, self.common.console_socket.as_deref())?;
        let signals = stay(self.detach, self.no_subreaper)?;
        let created = parent::create(store, &mut plan, spec, &self.common.options(true)?);
        let Created { container, pid, pidfd, master, notify, undo } =
            created.map_err(|error| failed("run", &error))?;
        poststart(&container)?;
        undo.keep();
        let Some(signals) = signals else {
            await_readiness(notify, pid, pidfd.as_fd());
            return Ok(0);
        };
        let status = relay::run(pid, &pidfd, &signals, master.as_ref(), notify);
        if !self.keep {
            delete::destroy(&container)?;
        }
        status
    }
}

/// The program runs, whatever comes of it.
fn await_readiness(notify: Option<notify::Socket>, pid: Pid, pidfd: BorrowedFd<'_>) {
    if let Some(Err(error)) = notify.map(|socket| socket.wait(pid, pidfd)) {
        report::warn(&error.to_string());
    }
}

/// In runc's words: its callers look for them.
pub fn failed(verb: &str, error: &Error) -> Error {
    Error::new(format!("runc {verb} failed: {error}"))
}

/// Lets the program of a created container run.
///
/// # Errors
/// runc's sentences for what is no longer, or not yet, created.
pub fn start(container: &Container) -> Result<(), Error> {
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Error::new("cannot start a container that has stopped")),
        Status::Paused => return Err(Error::new("cannot start a container in the paused state")),
        Status::Running | Status::Creating => {
            return Err(Error::new("cannot start an already running container"));
        }
    }
    let notify =
        notify::manager().map(|manager| notify::Socket::bind(&container.folder, &manager)).transpose()?;
    let process = notify.as_ref().and_then(|_| {
        let pid = container.process()?;
        Some((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?))
    });
    let path = container.fifo();
    use rustix::fs::OFlags;
    // The process holds it open: without a reader it is dead, and this must not wait for one.
    let fifo = rustix::fs::open(
        &path,
        OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let fifo = fifo.map_err(|_| Error::new("cannot start a container that has stopped"))?;
    // Removed first: of two `start`s at once only one writes.
    std::fs::remove_file(&path).map_err(|_| Error::new("cannot start an already running container"))?;
    rustix::io::write(&fifo, b"0").step("write", path.display())?;
    poststart(container)?;
    if let Some((pid, pidfd)) = &process {
        await_readiness(notify, *pid, pidfd.as_fd());
    }
    Ok(())
}

/// runc ends the container when such a hook fails.
fn poststart(container: &Container) -> Result<(), Error> {
    let Some(list) =
        container.record.spec.hooks.as_ref().map(|hooks| &hooks.poststart).filter(|list| !list.is_empty())
    else {
        return Ok(());
    };
    let state = container.hook_state(Status::Running);
    hooks::run("poststart", list, &state, &container.record.bundle, Environment::Caller).inspect_err(|_| {
        if let Some(pid) = container.process() {
            let _ = sys::signal::send(pid, libc::SIGKILL);
        }
        report::debug("the container was killed: a poststart hook failed");
    })
}
