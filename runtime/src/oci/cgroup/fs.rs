//! The directory of a cgroup: made, filled, read, removed.
//!
//! In: a `CgroupPlan`, or the path of a cgroup that is there. Out: a `Cgroup`.
//! Must never: leave a directory behind that a failed `create` made; wait without an end.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::Signal;

use super::devices;
use super::events;
use super::events::KeyedFile;
use super::events::Watch;
use super::limits;
use super::limits::Absent;
use super::limits::InForce;
use super::limits::Setting;
use super::plan::CgroupPlan;
use super::stats::Stats;
use crate::oci::report::Error;
use crate::oci::spec::resources::Resources;
use crate::sys;

/// How long processes may take to freeze: those in uninterruptible sleep hold it up.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long killed processes may take to leave a cgroup that is to be removed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How deep below the container's cgroup others may lie.
const DEPTH_MAX: u32 = 64;

/// A cgroup that is there.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: OwnedFd,
}

impl CgroupPlan {
    /// Makes the directory and those above it, enables controllers on the way, writes all limits and attaches the
    /// device filter. What was made is removed again when a step fails.
    ///
    /// # Errors
    /// The first step that failed, with the field that asked for it; a cgroup that is there already and has
    /// processes or is frozen.
    pub fn create(&self) -> Result<Cgroup, Error> {
        let mut made = Made(Vec::new());
        let cgroup = self.make_directories(&mut made)?;
        let is_new = made.0.last().is_some_and(|path| *path == cgroup.path);
        if !is_new {
            cgroup.check_unused()?;
        }
        self.check_type(&cgroup)?;
        for setting in &self.settings {
            cgroup.apply(setting)?;
        }
        cgroup.attach_devices(&self.devices, is_new)?;
        made.0.clear();
        Ok(cgroup)
    }

    fn make_directories(&self, made: &mut Made) -> Result<Cgroup, Error> {
        let mut path = self.mount.clone();
        let mut dir = open_dir(rustix::fs::CWD, &path).map_err(|errno| failed("open", &path, errno))?;
        for component in &self.components {
            enable_controllers(dir.as_fd());
            path.push(component);
            match rustix::fs::mkdirat(&dir, component.as_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => made.0.push(path.clone()),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("make", &path, errno)),
            }
            dir =
                open_dir(dir.as_fd(), Path::new(component)).map_err(|errno| failed("open", &path, errno))?;
        }
        Ok(Cgroup { path, dir })
    }

    /// A cgroup below one that has processes of its own can't have most controllers; without those it may be threaded.
    fn check_type(&self, cgroup: &Cgroup) -> Result<(), Error> {
        let kind = cgroup.read("cgroup.type").unwrap_or_default();
        let kind = kind.trim();
        if !matches!(kind, "domain invalid" | "domain threaded" | "threaded") {
            return Ok(());
        }
        let needs_domain = |setting: &&Setting| {
            !matches!(setting.controller(), None | Some("cpu" | "cpuset" | "pids" | "perf_event"))
        };
        if let Some(setting) = self.settings.iter().find(needs_domain) {
            return Err(Error::spec(
                format!("linux.resources.{}", setting.field),
                format!(
                    "can't be set in {}, which is in {kind} mode: a cgroup above it has processes of its own",
                    cgroup.path.display()
                ),
            ));
        }
        if kind == "domain invalid" {
            cgroup
                .write("cgroup.type", "threaded")
                .map_err(|errno| failed("make threaded", &cgroup.path, errno))?;
        }
        Ok(())
    }
}

/// Directories that a `create` made, the innermost last; they go when it fails.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Another container may have moved in beside; then the directory is not ours to remove.
            let _ = rustix::fs::rmdir(path);
        }
    }
}

/// Hands all controllers of a cgroup down to its children, one by one where some can't be.
fn enable_controllers(dir: BorrowedFd<'_>) {
    let Ok(controllers) = read_at(dir, "cgroup.controllers") else { return };
    let names: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    if names.is_empty() || write_at(dir, "cgroup.subtree_control", &names.join(" ")).is_ok() {
        return;
    }
    for name in names {
        // What can't be enabled is missed when a limit needs it, with the field's name.
        let _ = write_at(dir, "cgroup.subtree_control", &name);
    }
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
        let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
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

    /// Sets limits anew; fields that are absent stay as they are, and so do devices, as in runc.
    ///
    /// # Errors
    /// A value that is wrong, a limit below what is in use with `checkBeforeUpdate`, a write that fails: then what was
    /// written before it stays.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        let settings = limits::settings(resources, &self.in_force()?)?;
        self.check_usage(resources)?;
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

    fn read(&self, file: &str) -> Result<String, Errno> {
        read_at(self.dir.as_fd(), file)
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        write_at(self.dir.as_fd(), file, value)
    }

    fn apply(&self, setting: &Setting) -> Result<(), Error> {
        let errno = match (self.write(&setting.file, &setting.value), &setting.absent) {
            (Ok(()), _) | (Err(Errno::NOENT), Absent::Ignore) => return Ok(()),
            (Err(Errno::NOENT), Absent::Instead(instead)) => return self.apply(instead),
            (Err(errno), _) => errno,
        };
        let cause = match (errno, setting.controller()) {
            (Errno::NOENT, Some(controller)) => format!(
                "the file is missing: the kernel lacks it, or the controller {controller} is not enabled there (it is for \
                 those in cgroup.controllers)"
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
    fn check_unused(&self) -> Result<(), Error> {
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
    fn attach_devices(&self, rules: &[devices::Rule], is_new: bool) -> Result<(), Error> {
        let fail = |errno| failed("attach the device filter to", &self.path, errno);
        let old = if is_new {
            Vec::new()
        } else {
            sys::bpf::attached_cgroup_device(self.dir.as_fd()).map_err(fail)?
        };
        if let Some(program) = devices::compile(rules) {
            let program = sys::bpf::load_cgroup_device("devices", &program).map_err(fail)?;
            sys::bpf::attach_cgroup_device(self.dir.as_fd(), program.as_fd()).map_err(fail)?;
        }
        for program in old {
            sys::bpf::detach_cgroup_device(self.dir.as_fd(), program.as_fd()).map_err(fail)?;
        }
        Ok(())
    }
}

fn failed(step: &str, path: &Path, errno: Errno) -> Error {
    Error::new(format!("{step} cgroup {}: {}", path.display(), errno_text(errno)))
}

/// The system's text for an errno, without Rust's "(os error N)".
fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn open_dir<Fd: AsFd>(at: Fd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// Writes in one write(2), which is one request to the kernel.
fn write_at(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map(drop)
}

pub(super) fn read_at(dir: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        bytes.reserve(4096);
        if rustix::io::retry_on_intr(|| rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)))?
            == 0
        {
            return String::from_utf8(bytes).map_err(|_| Errno::INVAL);
        }
    }
}

fn procs_at(dir: BorrowedFd<'_>) -> Result<Vec<Pid>, Errno> {
    let text = match read_at(dir, "cgroup.procs") {
        // A threaded cgroup has threads only.
        Err(Errno::OPNOTSUPP) => read_at(dir, "cgroup.threads"),
        other => other,
    };
    match text {
        // 0 stands for a process outside the reader's pid namespace.
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()),
        Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

fn all_procs_at(dir: BorrowedFd<'_>, depth: u32, pids: &mut Vec<Pid>) -> Result<(), Errno> {
    pids.extend(procs_at(dir)?);
    let Some(depth) = depth.checked_sub(1) else { return Err(Errno::TOOBIG) };
    for name in subdirectories(dir)? {
        match open_dir(dir, &name) {
            Ok(child) => all_procs_at(child.as_fd(), depth, pids)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn subdirectories(dir: BorrowedFd<'_>) -> Result<Vec<PathBuf>, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name().to_bytes();
        if entry.file_type() == rustix::fs::FileType::Directory && name != b"." && name != b".." {
            names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
    }
    Ok(names)
}

fn remove_tree(path: &Path, deadline: Instant, depth: u32) -> Result<(), (PathBuf, Errno)> {
    let gone = |errno| errno == Errno::NOENT;
    match rustix::fs::rmdir(path) {
        Ok(()) => return Ok(()),
        Err(errno) if gone(errno) => return Ok(()),
        Err(Errno::BUSY) => {}
        Err(errno) => return Err((path.to_path_buf(), errno)),
    }
    let here = |errno| (path.to_path_buf(), errno);
    let dir = match open_dir(rustix::fs::CWD, path) {
        Ok(dir) => dir,
        Err(errno) if gone(errno) => return Ok(()),
        Err(errno) => return Err(here(errno)),
    };
    let below = depth.checked_sub(1).ok_or(here(Errno::TOOBIG))?;
    for name in subdirectories(dir.as_fd()).map_err(here)? {
        remove_tree(&path.join(name), deadline, below)?;
    }
    let mut pause = Duration::from_millis(1);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        events::wait_for(dir.as_fd(), "populated", false, left).map_err(here)?;
        match rustix::fs::rmdir(path) {
            Ok(()) => return Ok(()),
            Err(errno) if gone(errno) => return Ok(()),
            // Not populated and still busy: the last process is between its exit and its release.
            Err(Errno::BUSY) if !left.is_zero() => std::thread::sleep(pause),
            Err(errno) => return Err(here(errno)),
        }
        pause = (pause * 2).min(left);
    }
}
