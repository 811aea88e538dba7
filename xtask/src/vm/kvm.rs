//! KVM or software emulation. In: /dev/kvm and a tiny guest. Out: which of the two runs guests here.
//! Must never: believe that /dev/kvm works because it opens: on nested machines QEMU aborts or the guest hangs.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::context::Build;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// The processor itself.
    Kvm,
    /// QEMU's software emulation.
    Tcg,
}

/// The guest: a boot sector that writes 0x2a to the port of QEMU's debug-exit device, and halts.
const BOOT_SECTOR: [u8; 5] = [0xb0, 0x2a, 0xe6, 0xf4, 0xf4];
/// What QEMU exits with then: (value << 1) | 1.
const EXIT_STATUS: i32 = (0x2a << 1) | 1;
const DEADLINE: Duration = Duration::from_millis(2500);

/// Runs the tiny guest under KVM; says in one line why not, where it can't.
pub fn probe(build: &Build) -> Result<Acceleration> {
    let reason = if !Path::new("/dev/kvm").exists() {
        "there is no /dev/kvm"
    } else if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        "/dev/kvm can't be opened by this user"
    } else if guest_runs(build)? {
        return Ok(Acceleration::Kvm);
    } else {
        "/dev/kvm is there, but a test guest did not run on it"
    };
    build.ui.say("qemu", &format!("software emulation, which is slower: {reason}"));
    Ok(Acceleration::Tcg)
}

fn guest_runs(build: &Build) -> Result<bool> {
    let image = build.layout.notes().join("kvm-probe.img");
    let mut sector = [0_u8; 512];
    sector[..BOOT_SECTOR.len()].copy_from_slice(&BOOT_SECTOR);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    crate::stamp::write_whole(&image, &sector)?;
    let drive = format!("file={},format=raw,readonly=on", image.display().to_string().replace(',', ",,"));
    let mut child = super::tether::command(&build.host.require("qemu-system-x86_64")?)
        .args([
            "-accel", "kvm", "-m", "16", "-display", "none", "-nic", "none", "-monitor", "none", "-serial",
            "none",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-drive", &drive])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("qemu-system-x86_64: cannot run")?;
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().context("cannot wait for QEMU")? {
            return Ok(status.code() == Some(EXIT_STATUS));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // It may have ended in this instant; that is no success either.
    let _ = child.kill();
    let _ = child.wait();
    Ok(false)
}
