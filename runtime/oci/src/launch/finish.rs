//! What `create`, `run` and `exec` have in common at the end: schedule, user, working directory, filter, program.
//! In: the conditions of the container, a process. Out: the program runs. Must never: let an fd of the host through to
//! the program, or load a filter before what it may forbid is done.

use super::channel::Channel;
use super::channel::Message;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::topic::conditions::Conditions;
use crate::topic::process::ProcessPlan;
use crate::topic::rlimits;

/// The first fd behind the standard streams.
const FIRST_FD: u32 = 3;

/// Becomes the program. `ready` is called when only exec can still fail.
///
/// # Errors
/// Each names the step; the last one is exec's.
pub fn finish(
    conditions: &Conditions,
    process: &ProcessPlan,
    may_set_groups: bool,
    preserved_fds: u32,
    channel: &mut Channel,
    ready: impl FnOnce(&mut Channel) -> Result<(), Error>,
) -> Result<std::convert::Infallible, Error> {
    process.schedule.apply(conditions.has_cpuset)?;
    conditions.enter()?;
    // Everything of the runtime, and whatever its caller had leaked, ends with exec (CVE-2024-21626). Before the filter, as
    // is the way to the working directory: filters of old know nothing of the calls that these take.
    sys::process::close_on_exec_from(FIRST_FD).step("close", "file descriptors")?;
    for fd in FIRST_FD..FIRST_FD + preserved_fds {
        let Ok(fd) = i32::try_from(fd) else { break };
        sys::process::keep_across_exec(fd).step("keep file descriptor", fd)?;
    }
    // The runtime may have a way to it where the user has none, or else the user where the runtime has none; as in runc.
    let entered = process.enter_cwd();
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).step("set", "no_new_privs")?;
    } else {
        // Without it only a privileged process may load a filter. It may forbid to set limits.
        rlimits::settle(&process.rlimits)?;
        confine(conditions, channel)?;
    }
    process.change_user(may_set_groups)?;
    entered.or_else(|_| process.enter_cwd())?;
    let program = process.program()?;
    sys::process::set_parent_death_signal(0).step("untie the process from", "the runtime")?;
    if process.no_new_privileges {
        rlimits::settle(&process.rlimits)?;
        confine(conditions, channel)?;
    }
    report::debug("init: closing the pipe to signal completion");
    ready(channel)?;
    let errno = sys::process::exec(&program, &process.args, &process.env);
    Err(errno).step("exec", program.to_string_lossy())
}

/// Loads the filter, and waits until its listener, if it has one, has its fd.
fn confine(conditions: &Conditions, channel: &mut Channel) -> Result<(), Error> {
    use std::os::fd::AsRawFd;
    let Some(fd) = conditions.confine()? else { return Ok(()) };
    channel.say(&Message::Listener(fd.as_raw_fd()))?;
    channel.wait()
}
