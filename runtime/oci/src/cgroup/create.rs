//! A plan made true: the directories, the controllers, the limits, the device filter.
//!
//! In: a `CgroupPlan`. Out: a `Cgroup`. Must never: leave a directory behind that a failed `create` made.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Access;
use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::Pid;

use super::dir::open_dir;
use super::dir::read_at;
use super::dir::write_at;
use super::fs::Cgroup;
use super::fs::failed;
use super::limits::Setting;
use super::plan::CgroupPlan;
use super::systemd;
use super::systemd::Known;
use super::systemd::Scope;
use super::systemd::Unit;
use crate::report;
use crate::report::Error;

impl CgroupPlan {
    /// Makes the directory and those above it, enables controllers on the way, writes all limits and attaches the
    /// device filter. What was made is removed again when a step fails. Without privileges (`rootless`) there may be no filter:
    /// who can't load one makes no device nodes either; runc has it so.
    ///
    /// # Errors
    /// The first step that failed, with the field that asked for it; a cgroup that is there already and has
    /// processes or is frozen.
    pub fn create(&self, rootless: bool) -> Result<Cgroup, Error> {
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
        self.filter_devices(&cgroup, is_new, rootless)?;
        self.hand_over(&cgroup)?;
        made.0.clear();
        Ok(cgroup)
    }

    /// For a cgroup that is systemd's to make: that it is not there, or has no process and is not frozen. systemd would put the
    /// process into it all the same.
    ///
    /// # Errors
    /// What it is.
    pub fn check_unused(&self) -> Result<(), Error> {
        Cgroup::open(&self.path())?.map_or(Ok(()), |cgroup| cgroup.check_unused())
    }

    /// Has systemd make `scope` with `pid` in it, and does in its directory what is systemd's not to do: limits that it does
    /// not know, and the device filter. The process has to be the container's, and to wait.
    ///
    /// # Errors
    /// systemd does not make it; a limit that can't be written. Nothing is left then but the process.
    pub fn enter(&self, scope: &Scope, pid: Pid) -> Result<(), Error> {
        Unit::start(scope, pid, &systemd::of_settings(&self.settings, Known::default()))?;
        self.adopt(scope).inspect_err(|_| drop(super::destroy(&self.path(), Some(&scope.unit))))
    }

    fn adopt(&self, scope: &Scope) -> Result<(), Error> {
        let mut made = Made(Vec::new());
        // All are there; but systemd does not hand down each controller.
        let cgroup = self.make_directories(&mut made)?;
        if !made.0.is_empty() {
            return Err(Error::new(format!(
                "cgroup {}: the unit ended while it was made",
                cgroup.path.display()
            )));
        }
        for setting in &self.settings {
            cgroup.apply(setting)?;
        }
        self.filter_devices(&cgroup, true, scope.unit.is_user)?;
        self.hand_over(&cgroup)
    }

    fn filter_devices(&self, cgroup: &Cgroup, is_new: bool, rootless: bool) -> Result<(), Error> {
        match cgroup.attach_devices(&self.devices, is_new) {
            Err(error) if rootless => report::debug(&error.to_string()),
            done => done?,
        }
        Ok(())
    }

    /// To whom the plan says. Who has no privileges can't, but for what is his already; runc has it so too.
    fn hand_over(&self, cgroup: &Cgroup) -> Result<(), Error> {
        let Some(owner) = self.owner else { return Ok(()) };
        match cgroup.delegate(rustix::fs::Uid::from_raw(owner)) {
            Err(error) if !rustix::process::geteuid().is_root() => report::debug(&error.to_string()),
            done => done?,
        }
        Ok(())
    }

    /// Whether this process may make the directory, as far as the nearest one above it that is there tells.
    pub fn can_be_made(&self) -> bool {
        let path = self.path();
        let above = path.ancestors().find(|above| above.is_dir()).unwrap_or(&self.mount);
        rustix::fs::accessat(rustix::fs::CWD, above, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    fn make_directories(&self, made: &mut Made) -> Result<Cgroup, Error> {
        let mut path = self.mount.clone();
        let mut dir = open_dir(rustix::fs::CWD, &path).map_err(|errno| failed("open", &path, errno))?;
        for component in &self.components {
            enable_controllers(dir.as_fd(), &self.controllers);
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
    /// Only the root may have both.
    fn check_type(&self, cgroup: &Cgroup) -> Result<(), Error> {
        if self.components.len() == 1 {
            return Ok(());
        }
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

/// Hands all controllers of a cgroup down to its children, one by one where some can't be. Nothing is written where
/// all are handed down already: a write would wait until cgroups removed below are wholly gone.
fn enable_controllers(dir: BorrowedFd<'_>, controllers: &[String]) {
    let enabled = read_at(dir, "cgroup.subtree_control").unwrap_or_default();
    let is_enabled = |name: &str| enabled.split_whitespace().any(|enabled| enabled == name);
    if controllers.iter().all(|name| is_enabled(name)) {
        return;
    }
    let available = read_at(dir, "cgroup.controllers").unwrap_or_default();
    let missing = available.split_whitespace().filter(|name| !is_enabled(name));
    let names: Vec<String> = missing.map(|name| format!("+{name}")).collect();
    if names.is_empty() || write_at(dir, "cgroup.subtree_control", &names.join(" ")).is_ok() {
        return;
    }
    for name in names {
        // What can't be enabled is missed when a limit needs it, with the field's name.
        let _ = write_at(dir, "cgroup.subtree_control", &name);
    }
}
