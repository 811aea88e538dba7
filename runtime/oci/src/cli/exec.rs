//! `runc exec`. In: an id, a program with its flags, or a process.json. Out: it runs in the container.
//! Must never: run in one that is stopped or, unless asked, paused.

use std::path::PathBuf;

use super::activation;
use super::create::check_terminal;
use crate::launch::exec;
use crate::launch::exec::Place;
use crate::launch::exec::Started;
use crate::launch::parent;
use crate::launch::relay;
use crate::report::Error;
use crate::store::Container;
use crate::store::Status;
use crate::store::Store;
use crate::topic::process;
use spec::Process;
use spec::process::Capabilities;
use spec::process::User;

/// Runs another program in a running container.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Socket that gets the pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Environment variable NAME=VALUE; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, as UID or UID:GID
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// More groups; repeatable
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// File with a process object, instead of a program
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// File that gets the pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Never let it gain privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability; repeatable
    #[arg(short, long, value_name = "NAME")]
    cap: Vec<String>,
    /// Leave this many file descriptors behind the standard streams open
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Run it in this cgroup below the container's
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Run it in a paused container too
    #[arg(long)]
    ignore_paused: bool,
    /// Name of the container
    id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    /// Runs the program; gives its exit status in the foreground.
    ///
    /// # Errors
    /// Whatever kept it from running.
    pub fn run(&self, store: &Store) -> Result<i32, Error> {
        let container = store.open(&self.id)?;
        match container.status() {
            Status::Stopped => return Err(Error::new("cannot exec in a stopped container")),
            Status::Paused if !self.ignore_paused => {
                return Err(Error::new(
                    "cannot exec in a paused container (use --ignore-paused to override)",
                ));
            }
            _ => {}
        }
        let wanted = self.wanted(&container)?;
        let mut plan = process::plan(&wanted)?;
        plan.warn_of_unknown();
        plan.hand_on_sockets(activation::sockets());
        check_terminal(plan.terminal, self.detach, self.console_socket.as_deref())?;
        let place = self.place(&container)?;
        let signals = if self.detach { None } else { Some(relay::signals()?) };
        let preserve_fds = activation::sockets() + self.preserve_fds;
        let kept = container.record.spec.seccomp().and_then(|text| store.filters().find(text));
        let socket = self.console_socket.as_deref();
        let started = exec::start(&container, &mut plan, &place, socket, preserve_fds, kept)?;
        let Started { pid, pidfd, master, undo } = started;
        if let Some(path) = &self.pidfd_socket {
            use std::os::fd::AsFd;
            let socket = crate::topic::console::connect(path)?;
            crate::topic::console::send_fd(&socket, b"pidfd", pidfd.as_fd())?;
        }
        if let Some(path) = &self.pid_file {
            parent::write_pid_file(path, pid)?;
        }
        undo.keep();
        match signals {
            None => Ok(0),
            Some(signals) => relay::run(pid, &pidfd, &signals, master.as_ref(), None),
        }
    }

    /// The process object that the flags, and the container's own, make.
    fn wanted(&self, container: &Container) -> Result<Process, Error> {
        if let Some(path) = &self.process {
            return Ok(completed(spec::load(path)?, container.record.spec.process.as_ref()));
        }
        if self.command.is_empty() {
            return Err(Error::new("exec: name a program behind the container, or a file with --process"));
        }
        let mut process = container.record.spec.process.clone().unwrap_or_default();
        process.args = self.command.clone();
        process.terminal = self.tty;
        process.env.extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.cwd = cwd.clone();
        }
        if let Some(user) = &self.user {
            process.user = User { additional_gids: process.user.additional_gids, ..parse_user(user)? };
        }
        process.user.additional_gids.extend(&self.additional_gids);
        for (flag, label) in [
            (&self.process_label, &mut process.selinux_label),
            (&self.apparmor, &mut process.apparmor_profile),
        ] {
            if let Some(flag) = flag {
                label.clone_from(flag);
            }
        }
        process.no_new_privileges |= self.no_new_privs;
        if !self.cap.is_empty() {
            let sets = process.capabilities.get_or_insert_with(Capabilities::default);
            for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                set.extend(self.cap.iter().cloned());
            }
            // What is not inheritable can't be ambient; to make it so, nobody has asked.
            if !sets.inheritable.is_empty() {
                sets.ambient.extend(self.cap.iter().cloned());
            }
        }
        Ok(process)
    }

    fn place(&self, container: &Container) -> Result<Place, Error> {
        match self.cgroup.last() {
            None if container.record.cgroup.as_os_str().is_empty() => Ok(Place::Caller),
            None => super::cgroup_of(container).map(Place::Container),
            // `controllers:path` is for cgroup v1.
            Some(path) => super::cgroup_of(container)?.below(path.trim_start_matches('/')).map(Place::Named),
        }
    }
}

/// What a process.json leaves out is as the container's own process has it, in these parts; so runc has it.
pub fn completed(process: Process, own: Option<&Process>) -> Process {
    let own = own.cloned().unwrap_or_default();
    let or = |text: String, own: String| if text.is_empty() { own } else { text };
    Process {
        capabilities: process.capabilities.or(own.capabilities),
        rlimits: if process.rlimits.is_empty() { own.rlimits } else { process.rlimits },
        apparmor_profile: or(process.apparmor_profile, own.apparmor_profile),
        selinux_label: or(process.selinux_label, own.selinux_label),
        scheduler: process.scheduler.or(own.scheduler),
        io_priority: process.io_priority.or(own.io_priority),
        exec_cpu_affinity: process.exec_cpu_affinity.or(own.exec_cpu_affinity),
        ..process
    }
}

/// `UID` or `UID:GID`, decimal (CVE-2026-30892: nothing else, and nothing that overflows).
pub fn parse_user(text: &str) -> Result<User, Error> {
    let number = |word: &str| {
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let id = digits.then(|| word.parse::<u32>().ok()).flatten();
        // (uid_t) -1 means "leave it".
        id.filter(|id| *id != u32::MAX)
            .ok_or_else(|| Error::new(format!("--user {text:?}: expected UID or UID:GID, as numbers")))
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (number(uid)?, number(gid)?),
        None => (number(text)?, 0),
    };
    Ok(User { uid, gid, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_json_is_completed_from_the_containers_process() {
        let parse = |json: &str| -> Process { spec::parse("process.json", json.as_bytes()).unwrap() };
        let own = parse(
            r#"{"capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_CORE","hard":0,"soft":0}],
            "noNewPrivileges":true,"env":["A=1"],"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4}}"#,
        );
        let process =
            completed(parse(r#"{"args":["sh"],"ioPriority":{"class":"IOPRIO_CLASS_IDLE"}}"#), Some(&own));
        assert_eq!((process.capabilities, process.rlimits), (own.capabilities, own.rlimits));
        assert_eq!(process.io_priority.unwrap().class, "IOPRIO_CLASS_IDLE");
        assert!(!process.no_new_privileges && process.env.is_empty());
    }

    #[test]
    fn cve_2026_30892_users_are_numbers_and_nothing_else() {
        assert_eq!(parse_user("1000:50").unwrap(), User { uid: 1000, gid: 50, ..User::default() });
        assert_eq!(parse_user("0").unwrap().uid, 0);
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "1:2:3",
            "root",
            " 1",
            "0x0",
        ] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
