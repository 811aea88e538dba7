//! `qemu`: builds what is missing and boots it. In: `QemuArgs`. Out: the console on this terminal, or one command's
//! output and exit status. Must never: mix its own words into a command's output: those go to stderr.

use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cli::QemuArgs;
use crate::context::Build;
use crate::pipeline::Image;
use crate::vm::{Boot, Disk, DiskBus, Files, Network, Profile, Vm, probe};

/// A command may work for long; a machine that says nothing for this long is given up.
const COMMAND_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Boots the image.
pub fn run(build: &Build, args: &QemuArgs) -> Result<ExitCode> {
    let profile = resolve(args)?;
    let image = super::iso::make(build, &args.image)?;
    let files = files(&image);
    let acceleration = probe(build)?;
    let log = build.layout.notes().join("log/serial.log");
    if !args.command.is_empty() {
        let mut vm = Vm::boot(build, &profile, &files, acceleration, &log)?;
        vm.wait_ready()?;
        let mut stdout = std::io::stdout();
        let output = vm.command_streaming(&args.command.join(" "), COMMAND_DEADLINE, &mut |bytes| {
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("stdout: cannot write")
        })?;
        return Ok(ExitCode::from(u8::try_from(output.status).unwrap_or(1)));
    }
    if std::io::stdin().is_terminal() {
        return interactive(build, &profile, &files, acceleration);
    }
    let mut vm = Vm::boot(build, &profile, &files, acceleration, &log)?;
    let status = vm.run_script(std::io::stdin())?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    let status = Command::new(build.host.require("qemu-system-x86_64")?)
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

fn resolve(args: &QemuArgs) -> Result<Profile> {
    let direct = args.direct || args.append.is_some();
    let boot = match (direct, args.uefi) {
        (true, _) => Boot::Direct,
        (false, true) => Boot::UefiCd,
        (false, false) => Boot::BiosCd,
    };
    let publish = args.publish.iter().map(|text| ports(text)).collect::<Result<_>>()?;
    for disk in &args.disk {
        if !disk.exists() {
            bail!("--disk {}: no such file", disk.display());
        }
    }
    if let Some(share) = args.share.as_ref().filter(|share| !share.is_dir()) {
        bail!("--share {}: not a folder", share.display());
    }
    let disks = args.disk.iter().map(|file| Disk { file: file.clone(), bus: DiskBus::Virtio }).collect();
    Ok(Profile {
        boot,
        memory: args.memory,
        cpus: args.cpus,
        network: Some(Network { model: "virtio-net-pci".to_owned(), publish }),
        disks,
        share: args.share.clone(),
        append: args.append.clone().unwrap_or_default(),
    })
}

fn ports(text: &str) -> Result<(u16, u16)> {
    let parsed =
        text.split_once(':').and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
    match parsed {
        Some((host @ 1.., guest @ 1..)) => Ok((host, guest)),
        _ => bail!("--publish {text}: expected HOST:GUEST, two TCP ports from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_two_numbers() {
        assert_eq!(ports("8080:80").unwrap(), (8080, 80));
        for wrong in ["80", "80:", "0:80", "80:70000", "a:b", "1:2:3"] {
            assert!(ports(wrong).unwrap_err().to_string().contains("--publish"), "{wrong}");
        }
    }
}
