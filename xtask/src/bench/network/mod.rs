//! Network: chains of plugins in our machine, or on this machine's own kernel, by ours, by the reference's and by one C program
//! with the same effects; and streams of bytes through networks of ours and such as were made by hand. In: the image, the
//! callers' disk, Debian's package of the reference plugins, the C programs of xtask/bench. Out: samples, taken in turn within
//! one boot. Must never: measure one after the other.

mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Run, compile, debian, machine, sample};
use crate::artifact::Artifact;
use crate::conformance;
use crate::context::Build;
use crate::pipeline::Image;
use crate::stage::rootfs::Contents;
use crate::stamp::{copy_whole, remove_tree};
use crate::vm::Vm;

pub use report::{TARGETS, summary};

const PACKAGE: &str = "containernetworking-plugins";
/// Where the package has them.
const FOLDER: &str = "usr/lib/cni";
const PLUGINS: [&str; 5] = ["bridge", "host-local", "portmap", "firewall", "tuning"];
/// What qemu/shares/bench/network says at its end.
const DONE: &str = "done";
/// The last line of `measure`: its own memory.
const ITSELF: &str = "itself";
/// Deadlines end what hangs: a round takes seconds.
const ROUND: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(600);

/// Measures in `rounds` rounds; on this machine's own kernel when `here`.
pub fn run(build: &Build, rounds: u32, here: bool) -> Result<Run> {
    let image = crate::cmd::iso::make(build, &Contents::default())?;
    let disk = conformance::callers_disk(build)?;
    let room = build.layout.target().join("bench/room/network");
    let reference = share(build, &room)?;
    build.ui.say("bench", &format!("network, {rounds} rounds"));
    let script = format!("network {rounds}");
    let (text, place) = if here {
        (on_this_machine(build, &room, &disk, &image, &script)?, "this machine".to_owned())
    } else {
        in_the_machine(build, room, &disk, &image, &script, rounds)?
    };
    let facts = [("place", place), ("image", image.iso.0.sha256.clone()), ("reference", reference)];
    let machine = machine(build, &facts);
    Ok(Run { kind: "network".to_owned(), machine, samples: samples(&text)?, counts: BTreeMap::new() })
}

/// What the script says in our machine, and how that is emulated.
fn in_the_machine(
    build: &Build,
    room: PathBuf,
    disk: &Artifact,
    image: &Image,
    script: &str,
    rounds: u32,
) -> Result<(String, String)> {
    let acceleration = crate::vm::probe(build)?;
    let log = build.layout.notes().join("log/bench-network.log");
    let files = crate::cmd::qemu::files(image);
    let mut vm = Vm::boot(build, &conformance::profile(disk, room), &files, acceleration, &log)?;
    vm.wait_ready()?;
    let command = format!("unshare -m sh /mnt/share/enter /dev/vda \"{script}\"");
    let output = vm.command(&command, STEP + ROUND * rounds)?;
    let text = String::from_utf8_lossy(&output.bytes).replace('\r', "");
    if output.status != 0 {
        bail!("in the machine, status {}: {}\nserial log: {}", output.status, text.trim(), log.display());
    }
    Ok((text, format!("{acceleration:?}")))
}

/// What the script says in namespaces of this machine.
fn on_this_machine(
    build: &Build,
    room: &Path,
    disk: &Artifact,
    image: &Image,
    script: &str,
) -> Result<String> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "--here makes namespaces and mounts a disk, which takes root; without it the emulator needs none"
        );
    }
    let mut command = Command::new(build.host.require("unshare")?);
    // With a namespace of processes nothing outlives the script: its servers have no end of their own.
    command.args(["-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh"]);
    command.arg(room.join("here")).arg(&disk.path).arg(script);
    command.arg(&image.parts.runtime.program.path);
    // As little as in our machine: what is measured gets all of it.
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    debian::run(&mut command)
        .context("on this machine, whose kernel must have loop devices, overlay and nf_tables")
}

/// Fills the folder that the machine shares; gives the reference's version.
fn share(build: &Build, room: &Path) -> Result<String> {
    remove_tree(room)?;
    std::fs::create_dir_all(room.join("reference"))
        .with_context(|| format!("{}: cannot create", room.display()))?;
    copy_whole(&build.layout.shares().join("callers/enter"), &room.join("enter"))?;
    for name in ["network", "here"] {
        copy_whole(&build.layout.shares().join("bench").join(name), &room.join(name))?;
    }
    for name in ["measure", "netfloor", "stream"] {
        compile(build, name, room.join(name))?;
    }
    let kept = build.layout.tools().join("reference-plugins");
    if !kept.join(FOLDER).is_dir() {
        remove_tree(&kept)?;
        let download = build.layout.tools().join("reference-plugins-download");
        remove_tree(&download)?;
        debian::unpack(build, PACKAGE, &download)?;
        std::fs::rename(&download, &kept)
            .with_context(|| format!("{}: cannot rename", download.display()))?;
    }
    for name in PLUGINS {
        copy_whole(&kept.join(FOLDER).join(name), &room.join("reference").join(name))?;
    }
    Ok(version(&kept))
}

/// The package's version, which its file's name has: `NAME_VERSION_ARCHITECTURE.deb`.
fn version(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    let archive = names.filter(|name| name.ends_with(".deb")).last().unwrap_or_default();
    archive.split('_').nth(1).unwrap_or("unknown").replace("%3a", ":")
}

fn samples(text: &str) -> Result<BTreeMap<String, Vec<f64>>> {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.pop() != Some(DONE) {
        bail!("the machine did not come to an end: {}", text.trim());
    }
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in lines {
        let (name, seconds, _) = sample(line).with_context(|| format!("{line:?}: not a sample"))?;
        if name != ITSELF {
            samples.entry(name.to_owned()).or_default().push(seconds);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_only_of_a_script_that_came_to_its_end() {
        let text = "bridge ADD: ours\t2000000\t900\nitself\t0\t500\nbridge ADD: ours\t4000000\t900\ndone\n";
        assert_eq!(samples(text).unwrap()["bridge ADD: ours"], [0.002, 0.004]);
        assert!(samples("bridge ADD: ours\t2000000\t900\n").is_err());
        assert!(samples("jq: error\ndone\n").is_err());
    }
}
