//! `runc kill`. In: an id, a signal by number or name. Out: the signal is sent to the container's first process, or with
//! `--all` to all of them. Must never: send a signal to a process that only has the pid of one that has ended.

use crate::report::Error;
use crate::report::Fails;
use crate::store::Store;

/// Sends a signal to a container.
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// Send it to all processes of the container
    #[arg(short, long)]
    all: bool,
    /// Name of the container
    id: String,
    /// Number or name of the signal
    #[arg(default_value = "TERM")]
    signal: String,
}

/// Names of signal(7), without SIG, and their numbers on this machine.
const NAMES: [(&str, i32); 34] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGIOT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGPOLL),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// The highest signal number of Linux.
const SIGNAL_MAX: i32 = 64;

/// A signal by number, or by name with or without SIG in any case.
///
/// # Errors
/// It is none.
pub fn signal(text: &str) -> Result<i32, Error> {
    let unknown = || {
        Error::new(format!(
            "unknown signal {text:?}: expected 1 to {SIGNAL_MAX}, or a name like TERM or SIGTERM"
        ))
    };
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=SIGNAL_MAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let real_time = |prefix: &str, base: i32| name.strip_prefix(prefix).map(|offset| (base, offset));
    let (base, offset) = real_time("RTMIN", libc::SIGRTMIN())
        .or_else(|| real_time("RTMAX", libc::SIGRTMAX()))
        .ok_or_else(unknown)?;
    let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().map_err(|_| unknown())? };
    let number = base.checked_add(offset).filter(|number| (libc::SIGRTMIN()..=SIGNAL_MAX).contains(number));
    number.ok_or_else(unknown)
}

impl Kill {
    /// Sends the signal.
    ///
    /// # Errors
    /// No such signal or container; the container is not running.
    pub fn run(&self, store: &Store) -> Result<(), Error> {
        let signal = signal(&self.signal)?;
        let container = store.open(&self.id)?;
        let cgroup = crate::cgroup::Cgroup::open(&container.record.cgroup)?;
        if self.all {
            // Deprecated in runc, where it succeeds on a stopped container as well.
            let Some(cgroup) = cgroup else { return Ok(()) };
            for pid in cgroup.all_procs()? {
                let _ = sys::signal::send(pid, signal);
            }
            return Ok(());
        }
        // Without a pid namespace of its own, its other processes would go on, or do so already.
        let own_pids = container.record.spec.linux.as_ref().is_some_and(|linux| {
            linux.namespaces.iter().any(|namespace| namespace.kind == spec::linux::NamespaceKind::Pid)
        });
        let others = cgroup.filter(|_| signal == libc::SIGKILL && !own_pids);
        match container.process() {
            Some(pid) => sys::signal::send(pid, signal)
                .step("send the signal to process", pid.as_raw_nonzero())
                .and_then(|()| others.map_or(Ok(()), |cgroup| cgroup.kill_all())),
            None => match others {
                Some(cgroup) if !cgroup.all_procs()?.is_empty() => cgroup.kill_all(),
                _ => Err(Error::new("container not running")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("usr1", 10),
            ("0", 0),
            ("RTMIN+1", libc::SIGRTMIN() + 1),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in ["", "65", "-1", "NOPE", "SIG", "RTMIN+99", "999999999999", "RTMAX+1"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
