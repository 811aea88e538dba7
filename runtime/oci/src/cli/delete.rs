//! `runc delete`. In: an id. Out: nothing is left of the container. Must never: stop half way without saying so; what is
//! gone already is fine.

use std::path::Path;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::process::PidfdFlags;

use crate::cgroup;
use crate::cgroup::Cgroup;
use crate::report::Error;
use crate::report::Fails;
use crate::store;
use crate::store::Container;
use crate::store::Status;
use crate::store::Store;
use crate::topic::hooks;
use crate::topic::intel_rdt;

/// How long a killed process may take to be gone: on a busy machine that is emulated, longer than one thinks.
const END_TIMEOUT_S: i64 = 30;

/// Deletes a container that has stopped.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Name of the container
    id: String,
    /// Kill it first if it runs; no error if it is not there
    #[arg(short, long)]
    force: bool,
}

impl Delete {
    /// Deletes the container.
    ///
    /// # Errors
    /// It is not there, or runs, and not forced; something of it can't be removed.
    pub fn run(&self, store: &Store) -> Result<(), Error> {
        let container = match store.find(&self.id) {
            Ok(Some(container)) => container,
            Ok(None) if self.force => return clear(&store.folder(&self.id)?),
            Ok(None) => return Err(Error::new(format!("container does not exist: {}", self.id))),
            Err(_) if self.force => return clear(&store.folder(&self.id)?),
            Err(error) => return Err(error),
        };
        match container.status() {
            Status::Stopped => {}
            // It has run nothing of its own yet.
            Status::Created => end(&container)?,
            _ if self.force => end(&container)?,
            status => {
                return Err(Error::new(format!(
                    "cannot delete container {} that is not stopped: {status}",
                    self.id
                )));
            }
        }
        destroy(&container)
    }
}

/// Kills the container's process and waits until it is gone.
fn end(container: &Container) -> Result<(), Error> {
    let Some(pid) = rustix::process::Pid::from_raw(container.record.pid) else { return Ok(()) };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // The pid may be another's by now; from here on it can't become one.
    if container.process().is_none() {
        return Ok(());
    }
    // A frozen process takes the signal only when it is thawed; cgroup v2 lets KILL through, older kernels may not.
    if let Some(cgroup) = Cgroup::open(&container.record.cgroup)? {
        cgroup.thaw()?;
    }
    // It may end in this instant by itself.
    let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: END_TIMEOUT_S, tv_nsec: 0 };
    let ended = rustix::event::poll(&mut fds, Some(&timeout)).step("wait for", "the container's process")?;
    if ended == 0 {
        return Err(Error::new(format!(
            "container init still running after {END_TIMEOUT_S} s: process {}",
            pid.as_raw_nonzero()
        )));
    }
    Ok(())
}

/// Removes everything of a container whose process has ended, and runs its poststop hooks.
///
/// # Errors
/// Its cgroup or its folder can't be removed.
pub fn destroy(container: &Container) -> Result<(), Error> {
    // Without a pid namespace of its own it may have left processes behind.
    let removed = cgroup::destroy(&container.record.cgroup, container.unit().as_ref());
    let group = intel_rdt::plan(&container.record.spec, &container.record.id).ok().flatten();
    // Without the file system there is no group.
    let ungrouped = match group.and_then(|group| Some((group, intel_rdt::root().ok()?))) {
        Some((group, root)) => group.remove(&root),
        None => Ok(()),
    };
    let state = container.hook_state(Status::Stopped);
    // The record stays as long as something is left that only it names: `delete` can be tried again.
    let gone = removed.and(ungrouped).and_then(|()| remove_folder(&container.folder));
    if let Some(hooks) = &container.record.spec.hooks {
        hooks::poststop(&hooks.poststop, &state, &container.record.bundle);
    }
    gone
}

/// Removes what is left of a container of which there is no record: its runtime was killed while it made or deleted it.
fn clear(folder: &Path) -> Result<(), Error> {
    // A unit goes with its last process, if it had any.
    store::noted_cgroup(folder).map_or(Ok(()), |path| cgroup::destroy(&path, None))?;
    if let Some((unit, path)) = store::noted_unit(folder)
        && let Some(cgroup) = Cgroup::open(&path)?
        && cgroup.all_procs()?.is_empty()
    {
        unit.stop();
    }
    remove_folder(folder)
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    // What is in it by rights, so that it need not be listed; what can't be removed is met again below.
    for name in store::FILES {
        let _ = rustix::fs::unlink(folder.join(name));
    }
    if rustix::fs::rmdir(folder).is_ok() {
        return Ok(());
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).step("remove", folder.display())
        }
        _ => Ok(()),
    }
}
