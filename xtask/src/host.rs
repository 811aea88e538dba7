//! The machine: tools, their versions, cores. In: PATH. Out: `Host`, and a list of all that is missing at once with the
//! command that installs it. Must never: install anything unless asked with `--install-deps`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What a verb needs the machine for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Compile the kernel.
    Kernel,
    /// Compile BusyBox, Tini and iproute2.
    Userland,
    /// Compile our static program.
    Runtime,
    /// Make the ISO.
    Iso,
    /// Boot a virtual machine.
    Vm,
    /// Sign hashes, gather sources.
    Papers,
    /// Run the tests.
    Test,
    /// Show a configuration's menu.
    Menu,
    /// Make the root that upstream suites run in.
    Suites,
    /// Build a second time under other circumstances.
    Verify,
}

/// All needs, for `doctor`.
pub const ALL_NEEDS: [Need; 10] = [
    Need::Kernel,
    Need::Userland,
    Need::Runtime,
    Need::Iso,
    Need::Vm,
    Need::Papers,
    Need::Test,
    Need::Menu,
    Need::Suites,
    Need::Verify,
];

/// How to see whether a tool is there.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// A program in PATH.
    Program(&'static str),
    /// One of these files.
    File(&'static [&'static str]),
}

/// A thing that the machine must have, or is better with, and the package that brings it, by package manager.
#[derive(Debug)]
struct Tool {
    name: &'static str,
    probe: Probe,
    needs: &'static [Need],
    /// What is lost without it, of a thing that commands can do without.
    without: Option<&'static str>,
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
    apk: &'static str,
}

const fn program(name: &'static str, needs: &'static [Need], packages: [&'static str; 4]) -> Tool {
    let [apt, dnf, pacman, apk] = packages;
    Tool { name, probe: Probe::Program(name), needs, without: None, apt, dnf, pacman, apk }
}

/// A program that a command can do without.
const fn helpful(
    name: &'static str,
    without: &'static str,
    needs: &'static [Need],
    packages: [&'static str; 4],
) -> Tool {
    Tool { without: Some(without), ..program(name, needs, packages) }
}

const fn file(
    name: &'static str,
    files: &'static [&'static str],
    needs: &'static [Need],
    packages: [&'static str; 4],
) -> Tool {
    let [apt, dnf, pacman, apk] = packages;
    Tool { name, probe: Probe::File(files), needs, without: None, apt, dnf, pacman, apk }
}

use Need::{Iso, Kernel, Menu, Papers, Runtime, Suites, Test, Userland, Verify, Vm};

/// Packages in the order apt, dnf, pacman, apk.
const TOOLS: &[Tool] = &[
    program("gcc", &[Kernel, Userland, Runtime], ["gcc", "gcc", "gcc", "gcc"]),
    program("ld", &[Kernel, Userland, Runtime], ["binutils", "binutils", "binutils", "binutils"]),
    program("make", &[Kernel, Userland], ["make", "make", "make", "make"]),
    program("flex", &[Kernel], ["flex", "flex", "flex", "flex"]),
    program("bison", &[Kernel, Userland], ["bison", "bison", "bison", "bison"]),
    program("bc", &[Kernel], ["bc", "bc", "bc", "bc"]),
    program("perl", &[Kernel], ["perl", "perl", "perl", "perl"]),
    program("zstd", &[Kernel], ["zstd", "zstd", "zstd", "zstd"]),
    file(
        "libelf's headers",
        &["/usr/include/libelf.h", "/usr/include/elfutils/libelf.h", "/usr/include/libelf/libelf.h"],
        &[Kernel],
        ["libelf-dev", "elfutils-libelf-devel", "libelf", "elfutils-dev"],
    ),
    program("musl-gcc", &[Userland, Runtime], ["musl-tools", "musl-gcc", "musl", "musl-dev"]),
    program("pkg-config", &[Userland], ["pkg-config", "pkgconf-pkg-config", "pkgconf", "pkgconf"]),
    file(
        "the kernel's user-space headers",
        &["/usr/include/linux/version.h"],
        &[Userland],
        ["linux-libc-dev", "kernel-headers", "linux-api-headers", "linux-headers"],
    ),
    file(
        "the static C library",
        &["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a", "/usr/lib/libc.a"],
        &[Test],
        ["libc6-dev", "glibc-static", "glibc", "musl-dev"],
    ),
    program("grub-mkimage", &[Iso], ["grub-common", "grub2-tools-extra", "grub", "grub"]),
    file(
        "GRUB's modules for BIOS",
        &["/usr/lib/grub/i386-pc/moddep.lst"],
        &[Iso],
        ["grub-pc-bin", "grub2-pc-modules", "grub", "grub-bios"],
    ),
    file(
        "GRUB's modules for UEFI",
        &["/usr/lib/grub/x86_64-efi/moddep.lst"],
        &[Iso],
        ["grub-efi-amd64-bin", "grub2-efi-x64-modules", "grub", "grub-efi"],
    ),
    program("xorriso", &[Iso], ["xorriso", "xorriso", "libisoburn", "xorriso"]),
    program("mformat", &[Iso], ["mtools", "mtools", "mtools", "mtools"]),
    program(
        "qemu-system-x86_64",
        &[Vm],
        ["qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86", "qemu-system-x86_64"],
    ),
    file("UEFI firmware for QEMU (OVMF)", OVMF_CODE, &[Vm], ["ovmf", "edk2-ovmf", "edk2-ovmf", "ovmf"]),
    program("mkfs.ext4", &[Test], ["e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs"]),
    program("git", &[Papers, Test], ["git", "git", "git", "git"]),
    program("ssh-keygen", &[Papers], ["openssh-client", "openssh", "openssh", "openssh-keygen"]),
    program("mmdebstrap", &[Suites], ["mmdebstrap", "mmdebstrap", "mmdebstrap", "mmdebstrap"]),
    file(
        "ncurses' headers",
        &["/usr/include/ncurses.h", "/usr/include/ncursesw/ncurses.h"],
        &[Menu],
        ["libncurses-dev", "ncurses-devel", "ncurses", "ncurses-dev"],
    ),
    helpful(
        "faketime",
        "`verify` builds the second time at the same date",
        &[Verify],
        ["faketime", "libfaketime", "libfaketime", "libfaketime"],
    ),
    helpful(
        "disorderfs",
        "`verify` builds the second time in folders of the same order",
        &[Verify],
        ["disorderfs", "disorderfs", "disorderfs", "disorderfs"],
    ),
];

/// Where distributions put OVMF's code image.
pub const OVMF_CODE: &[&str] = &[
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
];

/// Package managers that `doctor` speaks, in the order in which they are looked for.
const MANAGERS: &[(&str, &[&str])] = &[
    ("apt-get", &["apt-get", "install", "-y", "--no-install-recommends"]),
    ("dnf", &["dnf", "install", "-y"]),
    ("pacman", &["pacman", "-S", "--needed", "--noconfirm"]),
    ("apk", &["apk", "add"]),
];

/// The machine.
#[derive(Debug, Clone)]
pub struct Host {
    path: Vec<PathBuf>,
    /// Cores that this process may use.
    pub cores: NonZeroUsize,
}

/// A tool that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Its name, as doctor prints it.
    pub name: &'static str,
    tool: usize,
}

impl Host {
    /// Looks at the machine: PATH and cores.
    pub fn probe() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self::with_path(std::env::split_paths(&path).collect(), cores)
    }

    /// A machine with this PATH. Folders of the system administrator's programs are looked into too: a user's PATH
    /// often lacks them.
    pub fn with_path(mut path: Vec<PathBuf>, cores: NonZeroUsize) -> Self {
        for more in ["/usr/sbin", "/sbin"] {
            if !path.iter().any(|dir| dir == Path::new(more)) {
                path.push(PathBuf::from(more));
            }
        }
        Self { path, cores }
    }

    /// The program's absolute path.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        self.path.iter().map(|dir| dir.join(program)).find(|path| is_executable(path))
    }

    /// The program's absolute path, or an error that says how to get it.
    pub fn require(&self, program: &str) -> Result<PathBuf> {
        self.find(program)
            .with_context(|| format!("{program}: not found; `cargo xtask doctor` tells how to install it"))
    }

    /// The first line that the program says of its version: part of the keys of the stages that use it.
    pub fn version(&self, program: &str, argument: &str) -> Result<String> {
        let path = self.require(program)?;
        let output = Command::new(&path)
            .arg(argument)
            .stdin(Stdio::null())
            .env("LC_ALL", "C")
            .output()
            .with_context(|| format!("{}: cannot run", path.display()))?;
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned())
    }

    /// Runs git in `dir`, whoever that belongs to, and gives what it says.
    pub fn git<W: AsRef<OsStr>>(&self, dir: &Path, words: &[W]) -> Result<Vec<u8>> {
        let mut command = Command::new(self.require("git")?);
        command.args(["-c", "safe.directory=*"]).args(words).current_dir(dir).stdin(Stdio::null());
        let output = command.output().context("git: cannot run")?;
        if !output.status.success() {
            let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
            bail!("git {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }

    /// The first of `files` that exists.
    pub fn first_file(files: &[&str]) -> Option<PathBuf> {
        files.iter().map(PathBuf::from).find(|path| path.exists())
    }

    /// Everything that `needs` lack on this machine, each once.
    pub fn missing(&self, needs: &[Need]) -> Vec<Missing> {
        self.absent(needs, |tool| tool.without.is_none())
    }

    /// Everything that `needs` could do without, and lack.
    pub fn lacking(&self, needs: &[Need]) -> Vec<Missing> {
        self.absent(needs, |tool| tool.without.is_some())
    }

    fn absent(&self, needs: &[Need], of: impl Fn(&Tool) -> bool) -> Vec<Missing> {
        let wanted = |tool: &Tool| tool.needs.iter().any(|need| needs.contains(need)) && of(tool);
        TOOLS
            .iter()
            .enumerate()
            .filter(|(_, tool)| wanted(tool) && !self.has(tool))
            .map(|(index, tool)| Missing { name: tool.name, tool: index })
            .collect()
    }

    fn has(&self, tool: &Tool) -> bool {
        match tool.probe {
            Probe::Program(name) => self.find(name).is_some(),
            Probe::File(files) => Self::first_file(files).is_some(),
        }
    }

    /// Every tool that `needs` ask for, by name, with whether it is there and what is lost without one that commands can
    /// do without.
    pub fn checklist(&self, needs: &[Need]) -> Vec<(&'static str, bool, Option<&'static str>)> {
        TOOLS
            .iter()
            .filter(|tool| tool.needs.iter().any(|need| needs.contains(need)))
            .map(|tool| (tool.name, self.has(tool), tool.without))
            .collect()
    }

    /// The command that installs what is missing, for this machine's package manager.
    pub fn install_command(&self, missing: &[Missing]) -> Option<Vec<String>> {
        let (manager, words) = MANAGERS.iter().find(|(manager, _)| self.find(manager).is_some())?;
        let packages: BTreeSet<&str> = missing
            .iter()
            .map(|absent| &TOOLS[absent.tool])
            .map(|tool| match *manager {
                "apt-get" => tool.apt,
                "dnf" => tool.dnf,
                "pacman" => tool.pacman,
                _ => tool.apk,
            })
            .collect();
        Some(words.iter().copied().chain(packages).map(str::to_owned).collect())
    }

    /// Stops with all that is missing at once, or installs it when `install` is set; then also what the commands could do
    /// without.
    pub fn preflight(&self, needs: &[Need], install: bool) -> Result<()> {
        self.require_all(needs, install)?;
        let lacking = self.lacking(needs);
        let command = self.install_command(&lacking).filter(|_| install && !lacking.is_empty());
        if let Some(Err(error)) = command.map(|command| self.install(&command)) {
            let lost = lacking.iter().filter_map(|absent| TOOLS[absent.tool].without);
            eprintln!("{:>12}  {error:#}; so {}", "install", lost.collect::<Vec<_>>().join(", "));
        }
        Ok(())
    }

    fn require_all(&self, needs: &[Need], install: bool) -> Result<()> {
        let missing = self.missing(needs);
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = missing.iter().map(|absent| absent.name).collect();
        let Some(command) = self.install_command(&missing) else {
            bail!(
                "this machine lacks: {}\nno package manager that xtask knows (apt, dnf, pacman, apk) is here: install them by hand",
                names.join(", ")
            );
        };
        if !install {
            bail!(
                "this machine lacks: {}\ninstall them with:\n    {}\nor let xtask do it: cargo xtask --install-deps ...",
                names.join(", "),
                command.join(" ")
            );
        }
        self.install(&command)?;
        let still: Vec<&str> = self.missing(needs).iter().map(|absent| absent.name).collect();
        if still.is_empty() {
            return Ok(());
        }
        bail!("after `{}` this machine still lacks: {}", command.join(" "), still.join(", "));
    }

    fn install(&self, command: &[String]) -> Result<()> {
        eprintln!("{:>12}  {}", "install", command.join(" "));
        if command[0] == "apt-get" {
            // A fresh machine has no package lists at all; without them every install fails.
            run_loud(Command::new("apt-get").arg("update").env("DEBIAN_FRONTEND", "noninteractive"))?;
        }
        run_loud(Command::new(&command[0]).args(&command[1..]).env("DEBIAN_FRONTEND", "noninteractive"))
    }
}

/// Runs a command with its stdout sent to stderr: stdout is for results.
fn run_loud(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{program}: cannot run"))?;
    if !status.success() {
        bail!("{program} failed ({status}); it needs root and a reachable package archive");
    }
    Ok(())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn machine_with(programs: &[&str]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for name in programs {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        // Not `with_path`: the real machine's /usr/sbin must not answer here.
        let host = Host { path: vec![dir.path().to_owned()], cores: NonZeroUsize::MIN };
        (dir, host)
    }

    #[test]
    fn every_missing_program_is_named_at_once() {
        let (_dir, host) = machine_with(&["gcc", "ld", "make"]);
        let names: Vec<&str> = host.missing(&[Kernel]).iter().map(|absent| absent.name).collect();
        assert!(["flex", "bison", "bc"].iter().all(|name| names.contains(name)), "{names:?}");
        assert!(!names.contains(&"gcc"));
    }

    #[test]
    fn the_install_command_speaks_this_machines_package_manager() {
        for (manager, first, package) in [
            ("apt-get", "apt-get", "xorriso"),
            ("apk", "apk", "xorriso"),
            ("pacman", "pacman", "libisoburn"),
            ("dnf", "dnf", "xorriso"),
        ] {
            let (_dir, host) = machine_with(&[manager]);
            let command = host.install_command(&host.missing(&[Iso])).unwrap();
            assert_eq!(command[0], first);
            assert!(command.iter().any(|word| word == package), "{command:?}");
        }
    }

    #[test]
    fn what_verify_can_do_without_stops_nothing() {
        let (_dir, host) = machine_with(&["apt-get"]);
        host.preflight(&[Verify], false).unwrap();
        assert_eq!(host.lacking(&[Verify]).len(), 2);
        assert!(host.checklist(&[Verify]).iter().all(|(_, present, without)| !present && without.is_some()));
        let (_dir, host) = machine_with(&["faketime", "disorderfs"]);
        assert!(host.lacking(&[Verify]).is_empty());
    }

    #[test]
    fn preflight_without_install_names_the_command() {
        let (_dir, host) = machine_with(&["apt-get"]);
        let message = host.preflight(&[Kernel], false).unwrap_err().to_string();
        assert!(message.contains("flex") && message.contains("apt-get install"), "{message}");
    }
}
