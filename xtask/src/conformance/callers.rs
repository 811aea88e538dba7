//! Real callers: podman, docker and containerd, from Debian's packages, call the image's runtime, under systemd too, and its
//! CNI plugins.
//! In: the image, a Debian root with them, a script each in qemu/shares/callers. Out: a finding for each script, with every check that failed. Must never:
//! count a script that ended early as passed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::suites::{Root, Suites};
use super::tap::{self, Verdict};
use super::{guest, root};
use crate::artifact::Artifact;
use crate::boot_test::{Finding, Report};
use crate::cli::CallersArgs;
use crate::context::Build;
use crate::stage::rootfs::Contents;
use crate::vm::{Profile, Vm};

/// How long one script may take: its daemons start in software emulation.
const DEADLINE: Duration = Duration::from_secs(900);

/// A program that calls the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Caller {
    /// podman, rootful and rootless.
    Podman,
    /// docker, by its daemon.
    Docker,
    /// containerd, by its shim.
    Containerd,
    /// The runtime itself, podman and docker with systemd's cgroup driver, where systemd is PID 1.
    Systemd,
    /// The runtime itself with criu, beyond what podman asks for.
    Criu,
    /// podman with its CNI backend: an older one, from another release.
    PodmanCni,
    /// containerd's `ctr run --cni`.
    ContainerdCni,
}

impl Caller {
    const ALL: [Self; 7] = [
        Self::Podman,
        Self::Docker,
        Self::Containerd,
        Self::Systemd,
        Self::Criu,
        Self::PodmanCni,
        Self::ContainerdCni,
    ];

    /// Its name, and that of its script.
    fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Systemd => "systemd",
            Self::Criu => "criu",
            Self::PodmanCni => "podman-cni",
            Self::ContainerdCni => "containerd-cni",
        }
    }

    /// The Debian that it comes from.
    fn root(self, suites: &Suites) -> &Root {
        match self {
            Self::PodmanCni => &suites.callers_cni,
            _ => &suites.callers,
        }
    }

    /// The machine that its script runs in, and the command that runs it.
    fn way_in(self, build: &Build, disk: &Artifact) -> (Profile, String) {
        let shares = build.layout.shares();
        match self {
            Self::Systemd => (
                Profile { append: guest::hand_over("callers"), ..guest::profile(disk, shares) },
                "bash /run/callers/systemd".to_owned(),
            ),
            other => (
                guest::profile(disk, shares.join("callers")),
                format!("unshare -m sh /mnt/share/enter /dev/vda {}", other.name()),
            ),
        }
    }
}

/// Runs the scripts of the callers that are named, or all.
pub fn run(build: &Build, args: &CallersArgs) -> Result<ExitCode> {
    let suites = Suites::load(build)?;
    let image = crate::cmd::iso::make(build, &Contents::default())?;
    let acceleration = crate::vm::probe(build)?;
    let files = crate::cmd::qemu::files(&image);
    let chosen = if args.names.is_empty() { Caller::ALL.to_vec() } else { args.names.clone() };
    let mut report = Report::default();
    for caller in chosen {
        let name = caller.name();
        let disk = root::callers(build, caller.root(&suites))?;
        build.ui.say("caller", name);
        let started = Instant::now();
        let log = build.layout.notes().join(format!("conformance/{name}.log"));
        let (profile, command) = caller.way_in(build, &disk);
        let checked =
            Vm::boot(build, &profile, &files, acceleration, &log).and_then(|vm| check(vm, &command));
        let duration = started.elapsed();
        match &checked {
            Ok(count) => {
                build.ui.say("ok", &format!("{name}: {count} checks ({:.0} s)", duration.as_secs_f64()))
            }
            Err(error) => {
                build.ui.say("FAILED", &format!("{name}: {error:#}\nserial log: {}", log.display()))
            }
        }
        let failure = checked.err().map(|error| format!("{error:#}"));
        report.add(Finding { kind: "call", name: name.to_owned(), duration, failure });
    }
    println!("{}", report.table());
    Ok(if report.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one script by `command`, in a machine of its own; gives how many checks have passed.
fn check(mut vm: Vm, command: &str) -> Result<usize> {
    vm.wait_ready()?;
    let output = vm.command(command, DEADLINE)?;
    judge(&String::from_utf8_lossy(&output.bytes).replace('\r', ""), output.status)
}

fn judge(text: &str, status: i32) -> Result<usize> {
    // The plan is the last line: without it nobody knows what is missing.
    if status != 0 || !text.lines().any(|line| line.starts_with("1..")) {
        bail!("the script ended early, with status {status}:\n{}", text.trim());
    }
    let cases = tap::parse(text, status);
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|(name, verdict)| match verdict {
            Verdict::Pass => None,
            Verdict::Fail(why) => Some(format!("{name}\n{why}")),
            Verdict::Skip(why) | Verdict::NotRun(why) => Some(format!("{name}: {why}")),
        })
        .collect();
    if failed.is_empty() {
        Ok(cases.len())
    } else {
        bail!("{} of {} checks:\n{}", failed.len(), cases.len(), failed.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_script_whose_checks_all_passed_has_passed() {
        assert_eq!(judge("ok 1 run\nok 2 exec\n1..2\n", 0).unwrap(), 2);
        let failed = judge("ok 1 run\nnot ok 2 exec\n# expected: a\n1..2\n", 0).unwrap_err().to_string();
        assert!(failed.starts_with("1 of 2 checks:\nexec\n# expected: a"), "{failed}");
        assert!(judge("ok 1 run\n", 0).is_err());
        assert!(judge("ok 1 run\n1..1\n", 137).is_err());
        assert!(judge("ok 1 run\n1..2\n", 0).is_err());
    }
}
