//! The program that runs in a container. In: `process`. Out: what exec needs, as C strings; the change of user; the
//! search for the program. Must never: run with a working directory that lies outside the root (CVE-2024-21626).

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Access;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;
use rustix::thread::Gid;
use rustix::thread::Uid;

use super::capabilities;
use super::inside;
use super::inside::Make;
use super::labels;
use super::labels::Labels;
use super::rlimits;
use super::schedule;
use super::schedule::Schedule;
use crate::report;
use crate::report::Error;
use crate::report::Fails;
use spec::Process;
use spec::process::ConsoleSize;

/// A checked program.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// The terminal's size.
    pub console_size: Option<ConsoleSize>,
    /// User, group, supplementary groups inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    groups: Vec<u32>,
    umask: u32,
    /// Program and arguments.
    pub args: Vec<CString>,
    /// Environment.
    pub env: Vec<CString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// None: all are kept.
    pub capabilities: Option<capabilities::Sets>,
    /// Names in the lists that no kernel knows, each once.
    unknown_capabilities: Vec<String>,
    /// Limits.
    pub rlimits: Vec<rlimits::Limit>,
    /// Labels of security modules.
    pub labels: Labels,
    /// When and where it runs.
    pub schedule: Schedule,
    /// PR_SET_NO_NEW_PRIVS
    pub no_new_privileges: bool,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// Where programs are looked for when the environment has no PATH (execvp(3)).
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Checks the section.
///
/// # Errors
/// What is missing, contains a NUL byte, or is out of range; and what is not supported.
pub fn plan(process: &Process) -> Result<ProcessPlan, Error> {
    if process.args.is_empty() {
        return Err(Error::spec("process.args", "args must not be empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(Error::spec("process.cwd", format!("{:?}: Cwd must be an absolute path", process.cwd)));
    }
    for (index, variable) in process.env.iter().enumerate() {
        if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            return Err(Error::spec(
                format!("process.env[{index}]"),
                format!("{variable:?}: expected NAME=VALUE"),
            ));
        }
    }
    if let Some(value) = process.oom_score_adj.filter(|value| !(-1000..=1000).contains(value)) {
        return Err(Error::spec("process.oomScoreAdj", format!("{value}: expected -1000 to 1000")));
    }
    let (capabilities, unknown_capabilities) = process.capabilities.as_ref().map(capabilities::plan).unzip();
    let mut plan = ProcessPlan {
        terminal: process.terminal,
        console_size: process.console_size,
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        umask: process.user.umask.unwrap_or(0o022),
        args: strings("process.args", &process.args)?,
        env: strings("process.env", &process.env)?,
        cwd: PathBuf::from(&process.cwd),
        capabilities,
        unknown_capabilities: unknown_capabilities.unwrap_or_default(),
        rlimits: rlimits::plan("process.rlimits", &process.rlimits)?,
        labels: labels::plan(process)?,
        schedule: schedule::plan(process)?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
    };
    // The last of two assignments counts, as in a shell; most programs would take the first.
    let mut seen = std::collections::BTreeSet::new();
    plan.env.reverse();
    plan.env.retain(|variable| seen.insert(name_of(variable).to_vec()));
    plan.env.reverse();
    Ok(plan)
}

fn name_of(variable: &CString) -> &[u8] {
    variable.as_bytes().split(|&byte| byte == b'=').next().unwrap_or_default()
}

fn strings(field: &str, texts: &[String]) -> Result<Vec<CString>, Error> {
    let convert = |(index, text): (usize, &String)| {
        CString::new(text.as_str())
            .map_err(|_| Error::spec(format!("{field}[{index}]"), "contains a NUL byte"))
    };
    texts.iter().enumerate().map(convert).collect()
}

impl ProcessPlan {
    /// As the first process of a container, to which `execCPUAffinity` does not apply.
    pub fn of_a_container(self) -> ProcessPlan {
        ProcessPlan { schedule: self.schedule.without_affinity(), ..self }
    }

    /// Adds HOME from the container's /etc/passwd where the environment has none, or an empty one, as runc does.
    pub fn add_home(&mut self) {
        self.env.retain(|variable| variable.as_bytes() != b"HOME=");
        if self.env.iter().any(|variable| name_of(variable) == b"HOME") {
            return;
        }
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        let home = passwd.split(|&byte| byte == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
            let uid: u32 = std::str::from_utf8(fields.get(2)?).ok()?.parse().ok()?;
            (uid == self.uid).then(|| fields.get(5).map(|home| home.to_vec())).flatten()
        });
        let home = home.filter(|home| !home.is_empty()).unwrap_or_else(|| b"/".to_vec());
        self.env.extend(CString::new([b"HOME=", home.as_slice()].concat()).ok());
    }

    /// Says which capabilities are left out, since no kernel knows them: an error they are not, by the specification.
    pub fn warn_of_unknown(&self) {
        if !self.unknown_capabilities.is_empty() {
            let names = self.unknown_capabilities.join(" ");
            report::warn(&format!("ignoring unknown or unavailable capabilities: [{names}]"));
        }
    }

    /// Tells the program of sockets that it begins with, behind its standard streams (sd_listen_fds(3)). As in runc its
    /// pid is said to be 1, as it is in a pid namespace of its own.
    pub fn hand_on_sockets(&mut self, count: u32) {
        if count > 0 {
            self.env.retain(|variable| !matches!(name_of(variable), b"LISTEN_FDS" | b"LISTEN_PID"));
            self.env.extend(CString::new(format!("LISTEN_FDS={count}")).ok());
            self.env.push(c"LISTEN_PID=1".into());
        }
    }

    /// Becomes the container's user with its capabilities, in the container's root.
    ///
    /// # Errors
    /// Each names the step.
    pub fn change_user(&self, may_set_groups: bool) -> Result<(), Error> {
        if let Some(sets) = &self.capabilities {
            sets.before_user_change()?;
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(self.umask));
        if may_set_groups {
            sys::process::set_groups(&self.groups).step("set", "supplementary groups")?;
        } else if !self.groups.is_empty() {
            return Err(Error::new("cannot set any additional groups in a rootless container"));
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid).step("become group", self.gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step("become user", self.uid)?;
        if let Some(sets) = &self.capabilities {
            sets.after_user_change()?;
        }
        Ok(())
    }

    /// Changes to the working directory and verifies that it lies inside the root. A link of procfs, which leads
    /// wherever a descriptor does, is no way to it (CVE-2024-21626).
    ///
    /// # Errors
    /// openat2(2)'s and fchdir(2)'s; a directory that the root does not reach.
    pub fn enter_cwd(&self) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(rustix::fs::CWD, &self.cwd, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .and_then(rustix::process::fchdir)
            .step("chdir to cwd", format!("({:?}) set in config.json failed", self.cwd))?;
        let real =
            rustix::process::getcwd(Vec::new()).step("look up the working directory", self.cwd.display())?;
        if real.as_bytes().first() != Some(&b'/') {
            return Err(Error::new(
                "current working directory is outside of container mount namespace root -- possible container breakout detected",
            ));
        }
        Ok(())
    }

    /// Makes the working directory where it is missing; before the change of user, and inside `root` whatever links the
    /// root holds.
    ///
    /// # Errors
    /// mkdirat(2)'s, openat2(2)'s.
    pub fn make_cwd(&self, root: BorrowedFd<'_>) -> Result<(), Error> {
        if self.cwd == Path::new("/") {
            return Ok(());
        }
        let made = inside::make(root, &self.cwd, Make::Folder, Mode::from_raw_mode(0o755));
        made.map(drop).step("mkdir", self.cwd.display())
    }

    /// The program's path: looked for in PATH of the container's environment unless it has a slash.
    ///
    /// # Errors
    /// runc's sentences: not found, or not executable.
    pub fn program(&self) -> Result<CString, Error> {
        let name = &self.args[0];
        let shown = name.to_string_lossy();
        let failed = |errno: Errno| {
            let cause = match errno {
                Errno::NOENT | Errno::NOTDIR => "no such file or directory",
                Errno::ISDIR => "is a directory",
                _ => "permission denied",
            };
            Error::new(format!("exec: {shown:?}: stat {shown}: {cause}"))
        };
        if name.as_bytes().contains(&b'/') {
            return usable(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())))
                .map(|()| name.clone())
                .map_err(failed);
        }
        let path = self
            .env
            .iter()
            .find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="))
            .unwrap_or(DEFAULT_PATH);
        for folder in path.split(|&byte| byte == b':') {
            let folder = if folder.is_empty() { b".".as_slice() } else { folder };
            let candidate = Path::new(std::ffi::OsStr::from_bytes(folder))
                .join(std::ffi::OsStr::from_bytes(name.as_bytes()));
            if usable(&candidate).is_ok() {
                return CString::new(candidate.as_os_str().as_bytes()).map_err(|_| failed(Errno::NOENT));
            }
        }
        Err(Error::new(format!("exec: {shown:?}: executable file not found in $PATH")))
    }
}

fn usable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process { args: vec!["sh".into()], cwd: "/".into(), ..Process::default() }
    }

    fn error(process: &Process) -> String {
        plan(process).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert!(error(&Process { args: vec![], ..process() }).starts_with("process.args:"));
        assert!(error(&Process { cwd: "tmp".into(), ..process() }).contains("absolute"));
        assert!(
            error(&Process { env: vec!["A=1".into(), "B".into()], ..process() })
                .starts_with("process.env[1]:")
        );
        assert!(error(&Process { args: vec!["a\0b".into()], ..process() }).contains("NUL"));
        assert!(error(&Process { oom_score_adj: Some(1001), ..process() }).contains("-1000 to 1000"));
    }

    #[test]
    fn the_last_assignment_counts() {
        let plan =
            plan(&Process { env: vec!["A=1".into(), "B=2".into(), "A=3".into()], ..process() }).unwrap();
        assert_eq!(plan.env, [c"B=2".to_owned(), c"A=3".to_owned()]);
    }

    #[test]
    fn a_program_is_looked_for_in_the_containers_path() {
        let mut plan = plan(&Process { env: vec!["PATH=/nowhere:/bin".into()], ..process() }).unwrap();
        assert_eq!(plan.program().unwrap(), c"/bin/sh".to_owned());
        plan.args[0] = c"/bin".to_owned();
        assert!(plan.program().unwrap_err().to_string().contains("is a directory"));
        plan.args[0] = c"no-such-program".to_owned();
        assert!(plan.program().unwrap_err().to_string().contains("executable file not found in $PATH"));
    }
}
