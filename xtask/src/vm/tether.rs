//! A program that ends when this one does, however it does: killed too. In: the program's words. Out: a command that runs
//! it. Must never: stay beside it: once its end is settled, this very process becomes the program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// What this program is called by when it is to become another one.
const NAME: &str = "coracle-tether";

/// A command that runs `program`, which is killed when this process is gone. To be called in the main thread: the kernel
/// looks at the thread that made a process.
pub fn command(program: &Path) -> Command {
    // Only a process itself can ask for such an end, and std offers no safe place between fork and exec.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(getpid().as_raw_nonzero().to_string()).arg(program);
    command
}

/// The words behind the name, if this process was called by `command`.
pub fn asked() -> Option<impl Iterator<Item = OsString>> {
    let mut words = std::env::args_os();
    (words.next()? == NAME).then_some(words)
}

/// Becomes the program. Returns only when that can't be done.
pub fn hold<T>(mut words: impl Iterator<Item = OsString>) -> Result<T> {
    let parent = words.next().and_then(|word| Pid::from_raw(word.to_str()?.parse().ok()?));
    let program = words.next().context("tether: no program to run")?;
    set_parent_process_death_signal(Some(Signal::KILL)).context("tether: the parent's end can't be told")?;
    if parent.is_none() || getppid() != parent {
        bail!("tether: the parent has ended already");
    }
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("{}: cannot run", program.display()))
}
