//! `runc checkpoint` and `runc restore`. In: runc's arguments. Out: what criu is to be asked, checked. Must never: ask it
//! itself.

use std::fs::File;
use std::path::PathBuf;

use crate::criu::CgroupMode;
use crate::criu::Options;
use crate::criu::dump;
use crate::criu::dump::DumpOptions;
use crate::criu::restore;
use crate::criu::restore::RestoreOptions;
use crate::launch::parent::Created;
use crate::launch::relay;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::store::Status;
use crate::store::Store;

use super::create;
use super::delete;

/// Where images are unless it is said.
const IMAGES: &str = "checkpoint";

/// What both commands have in common.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Folder of the images [default: checkpoint]
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// Folder of criu's log and of what it needs meanwhile [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Keep open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow Unix sockets of which one end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow a session and a terminal that belong to a shell outside
    #[arg(long)]
    shell_job: bool,
    /// Keep file locks
    #[arg(long)]
    file_locks: bool,
    /// What criu itself does with cgroups
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<CgroupMode>,
    /// Leave a namespace empty; `network` always is
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Free what newer images replace in older ones
    #[arg(long)]
    auto_dedup: bool,
    /// Bring pages when they are touched (userfaultfd)
    #[arg(long)]
    lazy_pages: bool,
}

impl Common {
    fn options(&self) -> Result<Options, Error> {
        if let Some(other) = self.empty_ns.iter().find(|name| *name != "network") {
            return Err(Error::new(format!(
                "--empty-ns {other}: namespace {other:?} is not supported, only network is"
            )));
        }
        let images = self.image_path.clone().unwrap_or_else(|| IMAGES.into());
        let absolute = |path: PathBuf| std::path::absolute(path).step("find", "the working directory");
        Ok(Options {
            images: absolute(images)?,
            work: self.work_path.clone().map(absolute).transpose()?,
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            cgroups: self.manage_cgroups_mode.unwrap_or_default(),
        })
    }
}

/// Saves a running container.
#[derive(Debug, clap::Args)]
pub struct Checkpoint {
    /// Name of the container
    id: String,
    #[command(flatten)]
    common: Common,
    /// Folder of an earlier dump's images, from --image-path on: only what was written since is saved
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    leave_running: bool,
    /// Save only memory, and let the container run on: a later dump names this one by --parent-path
    #[arg(long)]
    pre_dump: bool,
    /// Leave out TCP connections that are not yet accepted
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give files that were removed while open a name for as long as it takes
    #[arg(long)]
    link_remap: bool,
    /// Send pages there
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// File descriptor that gets a NUL byte when lazy pages can be asked for
    #[arg(long, value_name = "FD", allow_negative_numbers = true)]
    status_fd: Option<i32>,
}

impl Checkpoint {
    /// Saves the container, and deletes it unless it is to run on.
    ///
    /// # Errors
    /// It does not run; whatever criu could not do: it runs on then.
    pub fn run(&self, store: &Store) -> Result<(), Error> {
        let container = store.open(&self.id)?;
        let status = container.status();
        if !matches!(status, Status::Running | Status::Paused) {
            return Err(Error::new(format!("Container cannot be checkpointed in {status} state")));
        }
        warn_of_rootless("checkpoint", store);
        let options = self.common.options()?;
        let mut own = DumpOptions {
            parent: self.parent_path.clone(),
            leave_running: self.leave_running,
            pre_dump: self.pre_dump,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            page_server: self.page_server.as_deref().map(page_server).transpose()?,
            status: self.status_fd.filter(|fd| *fd >= 0).map(status_file).transpose()?,
        };
        dump::dump(&container, &options, &mut own).map_err(|error| create::failed("checkpoint", &error))?;
        if self.leave_running || self.pre_dump { Ok(()) } else { delete::destroy(&container) }
    }
}

fn page_server(words: &str) -> Result<(String, u16), Error> {
    let wrong = || Error::new(format!("--page-server {words}: expected ADDRESS:PORT, as in 127.0.0.1:27027"));
    let (address, port) = words.rsplit_once(':').ok_or_else(wrong)?;
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    if address.is_empty() { Err(wrong()) } else { Ok((address.to_string(), port)) }
}

/// Opened anew: so it is told at once whether it can be written.
fn status_file(fd: i32) -> Result<File, Error> {
    let opened = File::options().write(true).open(format!("/proc/self/fd/{fd}"));
    opened.step(&format!("--status-fd {fd}:"), "it can't be written")
}

/// Brings a saved container back.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// Name of the container
    id: String,
    #[command(flatten)]
    common: Common,
    /// Folder of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// File that gets the pid of the container's process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// Let orphans of the container go to the host's init
    #[arg(long)]
    no_subreaper: bool,
    /// Taken, as runc does: criu changes the root as it can
    #[arg(long)]
    no_pivot: bool,
    /// Profile of a security module in the place of the saved one
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// Mount label in the place of the saved one
    #[arg(long, value_name = "LABEL")]
    lsm_mount_context: Option<String>,
}

impl Restore {
    /// Restores the container, and in the foreground gives its exit status.
    ///
    /// # Errors
    /// Whatever failed; nothing is left then.
    pub fn run(&self, store: &Store) -> Result<i32, Error> {
        store.folder(&self.id)?;
        warn_of_rootless("restore", store);
        let options = self.common.options()?;
        let (plan, spec) = create::plan(store, &self.id, &self.bundle)?;
        create::check_terminal(plan.process.terminal, self.detach, self.console_socket.as_deref())?;
        let own = RestoreOptions {
            console_socket: create::absolute(&self.console_socket)?,
            pid_file: create::absolute(&self.pid_file)?,
            lsm_profile: self.lsm_profile.clone(),
            lsm_mount_context: self.lsm_mount_context.clone(),
        };
        let signals = create::stay(self.detach, self.no_subreaper)?;
        let restored = restore::restore(store, &plan, spec, &options, &own);
        let Created { container, pid, pidfd, master, undo, .. } =
            restored.map_err(|error| create::failed("restore", &error))?;
        undo.keep();
        let Some(signals) = signals else { return Ok(0) };
        let status = relay::run(pid, &pidfd, &signals, master.as_ref(), None);
        delete::destroy(&container)?;
        status
    }
}

fn warn_of_rootless(verb: &str, store: &Store) {
    if store.rootless {
        report::warn(&format!(
            "runc {verb}: criu wants root; what becomes of a rootless container is untested"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        assert_eq!(page_server("0.0.0.0:27277"), Ok(("0.0.0.0".into(), 27277)));
        assert_eq!(page_server("[::1]:1"), Ok(("::1".into(), 1)));
        for wrong in ["localhost", ":1", "x:", "x:0", "x:65536"] {
            assert!(page_server(wrong).unwrap_err().to_string().contains("expected ADDRESS:PORT"), "{wrong}");
        }
    }
}
