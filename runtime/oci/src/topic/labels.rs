//! Labels of security modules: an AppArmor profile, SELinux labels of a process and of its mounts. In: `apparmorProfile`,
//! `selinuxLabel`, `mountLabel`. Out: what the kernel takes them by. Must never: write one to anything but the host's own
//! procfs (CVE-2019-16884), or pass one over because the module is not there.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;

use crate::report::Error;
use crate::report::Fails;
use spec::Process;

/// AppArmor's word for "no profile", which holds where there is no AppArmor too.
const UNCONFINED: &str = "unconfined";
/// SELINUX_MAGIC and PROC_SUPER_MAGIC of linux/magic.h.
const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Labels of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    apparmor: String,
    selinux: String,
}

/// Takes them from the section.
///
/// # Errors
/// Text that would be more than one label.
pub fn plan(process: &Process) -> Result<Labels, Error> {
    let labels =
        Labels { apparmor: process.apparmor_profile.clone(), selinux: process.selinux_label.clone() };
    for (field, label) in [("apparmorProfile", &labels.apparmor), ("selinuxLabel", &labels.selinux)] {
        if label.contains(['\0', '\n']) {
            return Err(Error::spec(format!("process.{field}"), format!("{label:?}: not a label")));
        }
    }
    Ok(labels)
}

/// Looks whether the host has the modules that the labels need.
///
/// # Errors
/// It has not: runc's sentence for SELinux.
pub fn check_host(labels: &Labels, mount_label: &str) -> Result<(), Error> {
    if !matches!(labels.apparmor.as_str(), "" | UNCONFINED) && !has_apparmor() {
        return Err(Error::spec(
            "process.apparmorProfile",
            format!(
                "unable to apply apparmor profile {:?}: AppArmor is disabled or not in this kernel; remove the profile",
                labels.apparmor
            ),
        ));
    }
    for (field, label) in
        [("process.selinuxLabel", labels.selinux.as_str()), ("linux.mountLabel", mount_label)]
    {
        if !label.is_empty() && !has_selinux() {
            return Err(Error::spec(
                field,
                "selinux label is specified in config, but selinux is disabled or not supported",
            ));
        }
    }
    Ok(())
}

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn has_selinux() -> bool {
    rustix::fs::statfs(Path::new("/sys/fs/selinux")).is_ok_and(|stat| stat.f_type as u64 == SELINUX_MAGIC)
}

impl Labels {
    /// Gives the session keyring that is made next the process's label.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn label_keyring(&self, proc: BorrowedFd<'_>) -> Result<(), Error> {
        if self.selinux.is_empty() {
            return Ok(());
        }
        write(proc, "keycreate", &self.selinux).step("label the session keyring", &self.selinux)
    }

    /// Has the program get its labels when it is executed.
    ///
    /// # Errors
    /// write(2)'s: ENOENT for an AppArmor profile that is not loaded, EINVAL for a label that the policy lacks.
    pub fn apply(&self, proc: BorrowedFd<'_>) -> Result<(), Error> {
        if !self.selinux.is_empty() {
            write(proc, "exec", &self.selinux).step("set the SELinux label", &self.selinux)?;
        }
        if self.apparmor.is_empty() || self.apparmor == UNCONFINED && !has_attribute(proc, "apparmor/exec") {
            return Ok(());
        }
        let text = format!("exec {}", self.apparmor);
        // Kernels before 5.8 have one folder for all modules.
        let written = match write(proc, "apparmor/exec", &text) {
            Err(Errno::NOENT) if !has_attribute(proc, "apparmor/exec") => write(proc, "exec", &text),
            done => done,
        };
        written.step("unable to apply apparmor profile: apparmor failed to apply profile", &self.apparmor)
    }
}

fn has_attribute(proc: BorrowedFd<'_>, name: &str) -> bool {
    open(proc, name).is_ok()
}

fn open(proc: BorrowedFd<'_>, name: &str) -> Result<std::os::fd::OwnedFd, Errno> {
    if rustix::fs::fstatfs(proc)?.f_type as u64 != PROC_SUPER_MAGIC {
        return Err(Errno::XDEV);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let path = format!("thread-self/attr/{name}");
    rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn write(proc: BorrowedFd<'_>, name: &str, text: &str) -> Result<(), Errno> {
    rustix::io::write(&open(proc, name)?, text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn of(json: &str) -> Labels {
        plan(&spec::parse("process.json", json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_module_that_is_not_there_is_an_error_at_its_field() {
        // Whichever this machine has: a label needs its module, and no label needs none.
        assert_eq!(check_host(&of("{}"), ""), Ok(()));
        assert_eq!(check_host(&of(r#"{"apparmorProfile":"unconfined"}"#), ""), Ok(()));
        for (json, mount, field, there) in [
            (r#"{"apparmorProfile":"x"}"#, "", "process.apparmorProfile: unable to apply", has_apparmor()),
            (
                r#"{"selinuxLabel":"x"}"#,
                "",
                "process.selinuxLabel: selinux label is specified",
                has_selinux(),
            ),
            ("{}", "x", "linux.mountLabel: selinux label is specified", has_selinux()),
        ] {
            match check_host(&of(json), mount) {
                Ok(()) => assert!(there, "{json}"),
                Err(error) => assert!(!there && error.to_string().starts_with(field), "{error}"),
            }
        }
    }

    #[test]
    fn labels_go_through_procfs_and_nothing_else() {
        let other = rustix::fs::open("/dev", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(write(other.as_fd(), "exec", "x"), Err(Errno::XDEV));
        let proc = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        assert!(has_attribute(proc.as_fd(), "exec"));
    }
}
