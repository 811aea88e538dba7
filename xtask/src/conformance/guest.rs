//! The machine that suites run in. In: the image under test, the disk with the suites. Out: lists of files, and what a file
//! of a suite said. Must never: run anything but the program that the image holds as `ours`.
//!
//! The image boots as it ships; `qemu/shares/conformance/enter` then makes the disk the root of the shell's mount
//! namespace, on the image's own cgroups, proc and devices. For suites that want systemd, its kernel and initramfs boot into
//! the disk by `qemu/shares/hand-over`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::suites::Suite;
use crate::artifact::Artifact;
use crate::context::Build;
use crate::vm::{Acceleration, Boot, Disk, DiskBus, Files, Profile, Vm};

/// How long a file may take: software emulation on a busy machine is slow. One that goes on is stopped, and what it has not
/// said yet has not run.
const FILE_S: u32 = 900;
/// Memory of a machine with a Debian root, in MiB.
const MEMORY_MIB: u32 = 3072;
/// What the guest needs besides to say so.
const GRACE: Duration = Duration::from_secs(120);

/// What suites are run with: a runtime, or a set of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Runtime {
    /// The one in the image.
    #[value(skip)]
    Ours,
    /// The reference runc, of the suite's version.
    Runc,
    /// crun, of the root's Debian release.
    Crun,
    /// The reference's CNI plugins, of their suites' version.
    #[value(skip)]
    CniPlugins,
}

impl Runtime {
    /// The one that a suite belongs to.
    pub fn of(suite: Suite) -> Self {
        match suite.source() {
            Suite::Crun => Self::Crun,
            Suite::CniPlugins => Self::CniPlugins,
            _ => Self::Runc,
        }
    }

    /// Its name, as guest scripts and tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::CniPlugins => "cni-plugins",
        }
    }

    /// Where it lies on the disk, once that has been entered; of plugins, one of them.
    pub fn program(self) -> &'static str {
        match self {
            Self::Ours => "/suites/ours/runc",
            Self::Runc => "/suites/runc/runc",
            Self::Crun => "/usr/bin/crun",
            Self::CniPlugins => "/suites/cni-plugins/reference/portmap",
        }
    }
}

/// What is PID 1 while a suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// The image's own init; the disk is entered.
    Image,
    /// The disk's systemd, under the image's kernel.
    Systemd,
}

impl Machine {
    /// The one that a suite wants.
    pub fn of(suite: Suite) -> Self {
        match suite {
            Suite::RuncSystemd | Suite::RuncSystemdRootless => Self::Systemd,
            Suite::Runc | Suite::RuncRootless | Suite::Crun | Suite::CniPlugins => Self::Image,
        }
    }

    /// Its name, as that of a log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Systemd => "systemd",
        }
    }
}

/// Kernel parameters for the image's kernel and initramfs, by which not the image's own /init is started but `hand-over` of the
/// share, which makes the disk the root and its systemd PID 1. `room` is the share's folder that the disk gets as /run/`room`.
pub fn hand_over(room: &str) -> String {
    format!(
        "rdinit=/bin/busybox -- sh -c \"mount -t proc proc /proc; mkdir -p /mnt/share; \
         mount -t 9p -o trans=virtio,version=9p2000.L share /mnt/share; exec sh /mnt/share/hand-over /dev/vda {room}\""
    )
}

/// A file of a suite, with how many cases it holds: what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFile {
    /// The suite.
    pub suite: Suite,
    /// The file's name.
    pub name: String,
    /// Cases in it.
    pub cases: usize,
}

/// What a file said.
#[derive(Debug)]
pub struct Said {
    /// `# case NAME` lines, then TAP.
    pub text: String,
    /// Exit status: 124 and 137 where it was stopped.
    pub status: i32,
}

/// The running machine.
#[derive(Debug)]
pub struct Guest {
    vm: Vm,
}

/// A machine with a Debian root on `disk`, of which it keeps nothing, and the folder `share`.
pub fn profile(disk: &Artifact, share: PathBuf) -> Profile {
    Profile {
        boot: Boot::Direct,
        memory: MEMORY_MIB,
        cpus: 2,
        network: None,
        disks: vec![Disk { file: disk.path.clone(), bus: DiskBus::Virtio, keep: false }],
        share: Some(share),
        append: String::new(),
    }
}

impl Guest {
    /// Boots the image and enters the disk. `share` is at /run/conformance in the guest, and holds `enter`; `log` gets what
    /// the serial port says.
    pub fn boot(
        build: &Build,
        files: &Files,
        disk: &Artifact,
        acceleration: Acceleration,
        share: PathBuf,
        log: &Path,
    ) -> Result<Self> {
        let mut vm = Vm::boot(build, &profile(disk, share), files, acceleration, log)?;
        vm.wait_ready()?;
        vm.send("exec unshare -m sh /mnt/share/enter /dev/vda\n")?;
        vm.expect("entered the suites", GRACE).context("the disk with the suites could not be entered")?;
        Self::checked(vm)
    }

    /// Boots the image's kernel into the disk's systemd. `shares` holds `hand-over`, and the folder `conformance`, which is at
    /// /run/conformance in the guest.
    pub fn boot_systemd(
        build: &Build,
        files: &Files,
        disk: &Artifact,
        acceleration: Acceleration,
        shares: PathBuf,
        log: &Path,
    ) -> Result<Self> {
        let profile = Profile { append: hand_over("conformance"), ..profile(disk, shares) };
        let mut vm = Vm::boot(build, &profile, files, acceleration, log)?;
        vm.wait_ready()?;
        Self::checked(vm)
    }

    /// A machine in which the disk is the root.
    fn checked(vm: Vm) -> Result<Self> {
        let mut guest = Self { vm };
        let said =
            guest.command("test -x /suites/ours/runc && cat /sys/fs/cgroup/cgroup.controllers", GRACE)?;
        if said.status != 0 || !said.text.contains("pids") {
            bail!("the disk with the suites could not be entered: {}", said.text.trim());
        }
        Ok(guest)
    }

    /// Runs a shell command on the disk.
    pub fn command(&mut self, command: &str, deadline: Duration) -> Result<Said> {
        let output = self.vm.command(command, deadline)?;
        let text = String::from_utf8_lossy(&output.bytes).replace('\r', "");
        Ok(Said { text, status: output.status })
    }

    /// All files of `suite`, in the order of their names.
    pub fn files(&mut self, suite: Suite) -> Result<Vec<TestFile>> {
        let listing = match suite {
            Suite::Runc => "cd /suites/runc/tests/integration && grep -c '^@test ' *.bats",
            // The files that tell users apart.
            Suite::RuncRootless => {
                "cd /suites/runc/tests/integration && \
                 grep -c '^@test ' $(grep -l -i -e rootless -e euid *.bats)"
            }
            // The files that cgroups have a part in.
            Suite::RuncSystemd | Suite::RuncSystemdRootless => {
                "cd /suites/runc/tests/integration && \
                 grep -c '^@test ' $(grep -l -e systemd -e set_cgroups_path -e cgroupsPath *.bats)"
            }
            Suite::Crun => "cd /suites/crun/tests && grep -c '^def test_' test_*.py",
            // How many cases a compiled suite has is not asked: it is not shared out.
            Suite::CniPlugins => {
                "cd /suites/cni-plugins && for file in */test; do echo ${file%/test}:1; done"
            }
        };
        let said = self.command(listing, GRACE)?;
        let parse = |line: &str| {
            let (name, cases) = line.split_once(':')?;
            Some(TestFile { suite, name: name.to_owned(), cases: cases.trim().parse().ok()? })
        };
        let files: Vec<TestFile> = said.text.lines().filter_map(parse).collect();
        if files.is_empty() {
            bail!("suite {}: the disk has no file of it: {}", suite.name(), said.text.trim());
        }
        Ok(files)
    }

    /// What `runtime` says of its version.
    pub fn version(&mut self, runtime: Runtime) -> Result<String> {
        let option = match runtime {
            // Without CNI_COMMAND a plugin says what it is.
            Runtime::CniPlugins => "< /dev/null",
            _ => "--version",
        };
        let said = self.command(&format!("{} {option}", runtime.program()), GRACE)?;
        Ok(said.text.trim().lines().next().unwrap_or_default().to_owned())
    }

    /// Runs a file with a runtime.
    pub fn run(&mut self, file: &TestFile, runtime: Runtime) -> Result<Said> {
        let command = format!(
            "sh /run/conformance/run-file {} {} {} {FILE_S}",
            file.suite.name(),
            runtime.name(),
            file.name
        );
        self.command(&command, Duration::from_secs(FILE_S.into()) + GRACE)
    }
}
