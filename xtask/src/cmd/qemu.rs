//! `qemu`: builds what is missing and boots it. In: `Plan`. Out: the console on this terminal, or one command's
//! output and exit status. Must never: mix its own words into a command's output: those go to stderr.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cli::QemuArgs;
use crate::context::Build;
use crate::layout::Layout;
use crate::pipeline::Image;
use crate::stage::rootfs::Contents;
use crate::vm::{Boot, Disk, DiskBus, Files, Network, Profile, Vm, probe, tether};

/// A command may work for long; a machine that says nothing for this long is given up.
const COMMAND_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// What to boot and what to do there, checked.
#[derive(Debug)]
pub struct Plan {
    contents: Contents,
    profile: Profile,
    command: Vec<String>,
}

/// Boots the image.
pub fn run(build: &Build, plan: &Plan) -> Result<ExitCode> {
    let profile = &plan.profile;
    let image = super::iso::make(build, &plan.contents)?;
    let files = files(&image);
    let acceleration = probe(build)?;
    let log = build.layout.notes().join("log/serial.log");
    if !plan.command.is_empty() {
        let mut vm = Vm::boot(build, profile, &files, acceleration, &log)?;
        vm.wait_ready()?;
        let mut stdout = std::io::stdout();
        let output = vm.command_streaming(&command_line(&plan.command), COMMAND_DEADLINE, &mut |bytes| {
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("stdout: cannot write")
        })?;
        return Ok(ExitCode::from(u8::try_from(output.status).unwrap_or(1)));
    }
    if std::io::stdin().is_terminal() {
        return interactive(build, profile, &files, acceleration);
    }
    let mut vm = Vm::boot(build, profile, &files, acceleration, &log)?;
    let status = vm.run_script(std::io::stdin())?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One word is a command line for the guest's shell; several are a program and its arguments, each kept as it is.
fn command_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => {
            let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''")));
            quoted.collect::<Vec<_>>().join(" ")
        }
    }
}

/// QEMU itself takes over the terminal.
fn interactive(
    build: &Build,
    profile: &Profile,
    files: &Files,
    acceleration: crate::vm::Acceleration,
) -> Result<ExitCode> {
    let room = build.layout.notes().join("qemu");
    std::fs::create_dir_all(&room).with_context(|| format!("{}: cannot create", room.display()))?;
    build.ui.say(
        "qemu",
        "the serial console follows; `poweroff` in it or Ctrl-A X leaves, Ctrl-A C is QEMU's monitor",
    );
    let status = tether::command(&build.host.require("qemu-system-x86_64")?)
        .args(profile.arguments(files, acceleration, &room)?)
        .args(["-display", "none", "-serial", "mon:stdio"])
        .status()
        .context("qemu-system-x86_64: cannot run")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The image's files, as the machine takes them.
pub fn files(image: &Image) -> Files {
    Files {
        iso: image.iso.0.path.clone(),
        kernel: image.kernel.image.path.clone(),
        initramfs: image.initramfs.archive.path.clone(),
    }
}

impl Plan {
    /// Checks what the user said; what is wrong with it is found before anything is built.
    pub fn resolve(layout: &Layout, args: QemuArgs) -> Result<Self> {
        let contents = Contents::resolve(layout, &args.image)?;
        let direct = args.direct || args.append.is_some();
        let boot = match (direct, args.uefi) {
            (true, _) => Boot::Direct,
            (false, true) => Boot::UefiCd,
            (false, false) => Boot::BiosCd,
        };
        let mut taken = std::collections::BTreeSet::new();
        if let Some((host, guest)) = args.publish.iter().find(|(host, _)| !taken.insert(*host)) {
            bail!("--publish {host}:{guest}: port {host} of this machine is published already");
        }
        for disk in &args.disk {
            // A folder can be opened too, but not be a disk.
            std::fs::File::open(disk)
                .with_context(|| format!("--disk {}: cannot open the disk image", disk.display()))?;
            if disk.is_dir() {
                bail!("--disk {}: is a folder, not a disk image; share it with --share", disk.display());
            }
        }
        if let Some(share) = args.share.as_ref().filter(|share| !share.is_dir()) {
            bail!("--share {}: is not a folder that exists", share.display());
        }
        let disks =
            args.disk.into_iter().map(|file| Disk { file, bus: DiskBus::Virtio, keep: true }).collect();
        let profile = Profile {
            boot,
            memory: args.memory,
            cpus: args.cpus,
            network: Some(Network { model: "virtio-net-pci".to_owned(), publish: args.publish }),
            disks,
            share: args.share,
            append: args.append.unwrap_or_default(),
        };
        Ok(Self { contents, profile, command: args.command })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_words_are_kept_apart_and_one_is_a_command_line() {
        let line =
            |words: &[&str]| command_line(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["ls | wc -l"]), "ls | wc -l");
        assert_eq!(line(&["sh", "-c", "echo a b; it's"]), "'sh' '-c' 'echo a b; it'\\''s'");
    }
}
