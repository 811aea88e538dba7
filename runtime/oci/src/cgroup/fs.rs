//! A cgroup that is there: its processes, limits, freezer, end.
//!
//! In: its path. Out: a `Cgroup`. Must never: fail because the cgroup is gone where that is what was wanted.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::Signal;

use super::devices;
use super::dir::all_procs_at;
use super::dir::open_dir;
use super::dir::procs_at;
use super::dir::read_at;
use super::dir::remove_tree;
use super::dir::write_at;
use super::events;
use super::events::KeyedFile;
use super::events::Watch;
use super::facts;
use super::facts::Facts;
use super::limits;
use super::limits::Absent;
use super::limits::InForce;
use super::limits::Setting;
use super::programs;
use super::stats::Stats;
use super::systemd;
use super::systemd::Known;
use super::systemd::Unit;
use crate::report::Error;
use crate::report::Fails;
use crate::report::errno_text;
use spec::resources::Resources;

/// How long processes may take to freeze: those in uninterruptible sleep hold it up.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long killed processes may take to leave a cgroup that is to be removed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How deep below the container's cgroup others may lie.
const DEPTH_MAX: u32 = 64;

/// A cgroup that is there.
#[derive(Debug)]
pub struct Cgroup {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
}

impl Cgroup {
    /// The cgroup at an absolute path; none: it is gone.
    ///
    /// # Errors
    /// Whatever else keeps it from being opened.
    pub fn open(path: &Path) -> Result<Option<Cgroup>, Error> {
        match open_dir(rustix::fs::CWD, path) {
            Ok(dir) => Ok(Some(Cgroup { path: path.to_path_buf(), dir })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("open", path, errno)),
        }
    }

    /// A cgroup below it that is there, for `exec --cgroup`; `.` and an empty path are itself.
    ///
    /// # Errors
    /// A path that leads out of it, or to nothing.
    pub fn below(&self, path: &str) -> Result<Cgroup, Error> {
        let components: Vec<&str> =
            path.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
        if components.contains(&"..") {
            return Err(Error::new(format!("--cgroup: {path} is not a sub cgroup path")));
        }
        let mut below = self.path.clone();
        below.extend(components);
        match open_dir(rustix::fs::CWD, &below) {
            Ok(dir) => Ok(Cgroup { path: below, dir }),
            Err(errno) => Err(not_added(&below, errno)),
        }
    }

    /// The cgroup that `pid` is in.
    ///
    /// # Errors
    /// The process is gone; its cgroup can't be opened.
    pub fn of_process(pid: Pid) -> Result<Cgroup, Error> {
        let file = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let text = sys::kernel_file::read(&file).step("read", &file)?;
        let own = facts::own_path(&text).unwrap_or("/").trim_start_matches('/');
        let path = Facts::probe()?.mount.join(own);
        Cgroup::open(&path)?.ok_or_else(|| Error::new(format!("cgroup {} is gone", path.display())))
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, for CLONE_INTO_CGROUP.
    pub fn dir_fd(&self) -> &OwnedFd {
        &self.dir
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// cgroups(7)'s for `cgroup.procs`.
    pub fn add(&self, pid: Pid) -> Result<(), Error> {
        self.write("cgroup.procs", &pid.as_raw_nonzero().to_string())
            .map_err(|errno| failed(&format!("add process {}", pid.as_raw_nonzero()), &self.path, errno))
    }

    /// Hands it to `owner`: a container in a user namespace may then make cgroups below (cgroup-v2.rst, "Delegation").
    ///
    /// # Errors
    /// chown(2)'s.
    pub fn delegate(&self, owner: rustix::fs::Uid) -> Result<(), Error> {
        let fail = |errno| failed("hand to a user", &self.path, errno);
        rustix::fs::fchown(&self.dir, Some(owner), None).map_err(fail)?;
        let files = sys::kernel_file::read("/sys/kernel/cgroup/delegate");
        let files = files.unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_string());
        for file in files.lines() {
            match rustix::fs::chownat(&self.dir, file, Some(owner), None, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(())
    }

    /// The processes in it, not in those below.
    ///
    /// # Errors
    /// `cgroup.procs` can't be read. A cgroup that is gone has none.
    pub fn procs(&self) -> Result<Vec<Pid>, Error> {
        procs_at(self.dir.as_fd()).map_err(|errno| failed("read the processes of", &self.path, errno))
    }

    /// The processes in it and in those below.
    ///
    /// # Errors
    /// As `procs`.
    pub fn all_procs(&self) -> Result<Vec<Pid>, Error> {
        let mut pids = Vec::new();
        all_procs_at(self.dir.as_fd(), DEPTH_MAX, &mut pids)
            .map_err(|errno| failed("read the processes of", &self.path, errno))?;
        Ok(pids)
    }

    /// Kills all processes in it and below with SIGKILL, in one step where the kernel can (`cgroup.kill`, Linux 5.14),
    /// and does not wait for them.
    ///
    /// # Errors
    /// What keeps them from being killed. A cgroup that is gone is no error.
    pub fn kill_all(&self) -> Result<(), Error> {
        match self.write("cgroup.kill", "1") {
            Ok(()) | Err(Errno::NODEV) => Ok(()),
            Err(Errno::NOENT | Errno::OPNOTSUPP) => self.kill_each(),
            Err(errno) => Err(failed("kill the processes of", &self.path, errno)),
        }
    }

    /// Without `cgroup.kill`: frozen processes can't fork away from the signal, and SIGKILL reaches them.
    fn kill_each(&self) -> Result<(), Error> {
        let _ = self.write("cgroup.freeze", "1");
        let result = self.all_procs();
        for pid in result.iter().flatten() {
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
        let _ = self.write("cgroup.freeze", "0");
        result.map(drop)
    }

    /// Stops all processes in it and below, and waits until they have.
    ///
    /// # Errors
    /// A process that won't stop within ten seconds; then all go on.
    pub fn freeze(&self) -> Result<(), Error> {
        let fail = |errno| failed("freeze", &self.path, errno);
        self.write("cgroup.freeze", "1").map_err(fail)?;
        let frozen = events::wait_for(self.dir.as_fd(), "frozen", true, FREEZE_TIMEOUT);
        if matches!(frozen, Ok(true)) {
            return Ok(());
        }
        let _ = self.write("cgroup.freeze", "0");
        frozen.map_err(fail)?;
        Err(Error::new(format!(
            "cgroup {}: a process does not stop within {} s; all go on",
            self.path.display(),
            FREEZE_TIMEOUT.as_secs()
        )))
    }

    /// Lets all processes go on.
    ///
    /// # Errors
    /// `cgroup.freeze` can't be written. A cgroup that is gone is no error.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.write("cgroup.freeze", "0") {
            Ok(()) | Err(Errno::NODEV | Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("thaw", &self.path, errno)),
        }
    }

    /// Whether it was frozen itself (not only one above it).
    ///
    /// # Errors
    /// `cgroup.freeze` can't be read. A cgroup that is gone is not frozen.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        match self.read("cgroup.freeze") {
            Ok(text) => Ok(text.trim() == "1"),
            Err(Errno::NODEV | Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed("read the freezer of", &self.path, errno)),
        }
    }

    /// How often the kernel killed a process in it for want of memory; 0 without the memory controller.
    ///
    /// # Errors
    /// `memory.events` can't be read.
    pub fn oom_kill_count(&self) -> Result<u64, Error> {
        match KeyedFile::open(self.dir.as_fd(), "memory.events").and_then(|file| file.get("oom_kill")) {
            Ok(count) => Ok(count.unwrap_or(0)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(0),
            Err(errno) => Err(failed("read memory.events of", &self.path, errno)),
        }
    }

    /// Watches it for OOM kills and for its last process's end.
    ///
    /// # Errors
    /// Its event files can't be read.
    pub fn watch(&self) -> Result<Watch, Error> {
        Watch::new(self.dir.as_fd()).map_err(|errno| failed("watch", &self.path, errno))
    }

    /// What its processes have used.
    ///
    /// # Errors
    /// A statistics file is there and can't be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        Stats::read(self.dir.as_fd())
            .map_err(|(file, errno)| failed(&format!("read {file} of"), &self.path, errno))
    }

    /// Sets limits anew; fields that are absent stay as they are, and so do devices, as in runc. `unit` hears of them first.
    ///
    /// # Errors
    /// A value that is wrong, a limit below what is in use with `checkBeforeUpdate`, a write that fails: then what was
    /// written before it stays.
    pub fn update(&self, resources: &Resources, unit: Option<&Unit>) -> Result<(), Error> {
        let mut settings = limits::settings(resources, &self.in_force()?)?;
        self.check_usage(resources)?;
        if let Some(unit) = unit {
            let text = |file: &str| self.read(file).unwrap_or_default();
            let known = Known::of(&text("cpu.max"), &text("cpu.idle"));
            systemd::as_kept(&mut settings, known);
            unit.set(&systemd::of_settings(&settings, known))?;
        }
        for setting in &settings {
            self.apply(setting)?;
        }
        Ok(())
    }

    /// Removes it and those below it. Processes that were killed get a moment to leave.
    ///
    /// # Errors
    /// Processes are left in it. That it is gone already is no error.
    pub fn remove(&self) -> Result<(), Error> {
        remove_tree(&self.path, Instant::now() + REMOVE_TIMEOUT, DEPTH_MAX)
            .map_err(|(path, errno)| failed("remove", &path, errno))
    }

    pub(super) fn read(&self, file: &str) -> Result<String, Errno> {
        read_at(self.dir.as_fd(), file)
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        write_at(self.dir.as_fd(), file, value)
    }

    pub(super) fn apply(&self, setting: &Setting) -> Result<(), Error> {
        let errno = match (self.write(&setting.file, &setting.value), &setting.absent) {
            (Ok(()), _) | (Err(Errno::NOENT), Absent::Ignore) => return Ok(()),
            (Err(Errno::NOENT), Absent::Instead(instead)) => return self.apply(instead),
            (Err(errno), _) => errno,
        };
        let cause = match (errno, setting.controller()) {
            (Errno::NOENT, Some(controller)) => format!(
                "no such file or directory: the kernel lacks it, or the controller {controller} is not enabled there (it is \
                 for those in cgroup.controllers)"
            ),
            _ => errno_text(errno),
        };
        let path = self.path.join(&setting.file);
        Err(Error::spec(
            format!("linux.resources.{}", setting.field),
            format!("write {:?} to {}: {cause}", setting.value, path.display()),
        ))
    }

    fn in_force(&self) -> Result<InForce, Error> {
        let value = |file: &str| match self.read(file) {
            Ok(text) => Ok(text.split_whitespace().next().map(str::to_string)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(&format!("read {file} of"), &self.path, errno)),
        };
        let bytes = |file: &str| value(file).map(|text| text.and_then(|text| text.parse().ok()));
        Ok(InForce {
            cpu_quota: value("cpu.max")?,
            memory: bytes("memory.max")?,
            swap: bytes("memory.swap.max")?,
        })
    }

    /// `memory.checkBeforeUpdate`: a limit below the usage would have the kernel kill at once.
    fn check_usage(&self, resources: &Resources) -> Result<(), Error> {
        let Some(memory) =
            resources.memory.as_ref().filter(|memory| memory.check_before_update == Some(true))
        else {
            return Ok(());
        };
        let Some(usage) = self.read("memory.current").ok().and_then(|text| text.trim().parse::<i64>().ok())
        else {
            return Ok(());
        };
        for (name, field, limit) in
            [("memory+swap", "memory.swap", memory.swap), ("memory", "memory.limit", memory.limit)]
        {
            if let Some(limit) = limit.filter(|limit| (1..=usage).contains(limit)) {
                return Err(Error::spec(
                    format!("linux.resources.{field}"),
                    format!("rejecting {name} limit {limit} <= usage {usage}"),
                ));
            }
        }
        Ok(())
    }

    /// A cgroup that was there before: containers must not share one by accident.
    pub(super) fn check_unused(&self) -> Result<(), Error> {
        if self.is_frozen()? {
            return Err(Error::new(format!(
                "container's cgroup unexpectedly frozen: {}: thaw it, or remove it",
                self.path.display()
            )));
        }
        let count = self.all_procs()?.len();
        if count > 0 {
            return Err(Error::new(format!(
                "container's cgroup is not empty: {count} process(es) found in {}",
                self.path.display()
            )));
        }
        Ok(())
    }

    /// Attaches the filter for `rules`; those that were there before go.
    pub(super) fn attach_devices(&self, rules: &[devices::Rule], is_new: bool) -> Result<(), Error> {
        let fail = |errno| failed("attach the device filter to", &self.path, errno);
        let program = devices::compile(rules);
        if is_new {
            return program
                .map_or(Ok(()), |program| programs::attach(self.dir.as_fd(), &program).map_err(fail));
        }
        let old = sys::bpf::attached_cgroup_device(self.dir.as_fd()).map_err(fail)?;
        if let Some(program) = program {
            let program = sys::bpf::load_cgroup_device("devices", &program).map_err(fail)?;
            sys::bpf::attach_cgroup_device(self.dir.as_fd(), program.as_fd()).map_err(fail)?;
        }
        for program in old {
            sys::bpf::detach_cgroup_device(self.dir.as_fd(), program.as_fd()).map_err(fail)?;
        }
        Ok(())
    }
}

/// Kills what is in the cgroup at `path` and removes it; where systemd has made it, its unit goes too.
///
/// # Errors
/// Processes are left in it. That it is gone already is no error.
pub fn destroy(path: &Path, unit: Option<&Unit>) -> Result<(), Error> {
    // Most often nothing is in it any more.
    if unit.is_none() && matches!(rustix::fs::rmdir(path), Ok(()) | Err(Errno::NOENT)) {
        return Ok(());
    }
    let cgroup = Cgroup::open(path)?;
    cgroup.as_ref().map_or(Ok(()), Cgroup::kill_all)?;
    if let Some(unit) = unit {
        unit.stop();
    }
    cgroup.map_or(Ok(()), |cgroup| cgroup.remove())
}

/// A process that could not be made in a cgroup: runc's sentence, though nothing is written to that file here.
pub fn not_added(path: &Path, errno: Errno) -> Error {
    Error::new(format!(
        "error adding pid of the process to cgroups: {}/cgroup.procs: {}",
        path.display(),
        errno_text(errno)
    ))
}

/// A step that failed on a cgroup.
pub(super) fn failed(step: &str, path: &Path, errno: Errno) -> Error {
    Error::new(format!("{step} cgroup {}: {}", path.display(), errno_text(errno)))
}
