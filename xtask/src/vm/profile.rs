//! A machine, described -> QEMU's command line. In: `Profile`, as case files and flags give it. Out: arguments.
//! Must never: start anything.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Acceleration;
use crate::host::{Host, OVMF_CODE};

/// How a machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// QEMU loads kernel and initramfs itself.
    Direct,
    /// The same with nothing else said: QEMU's own machine, as the README's plainest line has it. All other fields of
    /// the profile are ignored.
    Plain,
    /// The ISO as a CD, by BIOS.
    BiosCd,
    /// The ISO as a USB stick, by BIOS.
    BiosUsb,
    /// The ISO as a CD, by UEFI.
    UefiCd,
    /// The ISO as a USB stick, by UEFI.
    UefiUsb,
}

/// What a machine boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// Kernel and initramfs.
    Direct,
    /// CD drive.
    Cd,
    /// USB storage.
    Usb,
}

/// Firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

impl Boot {
    /// Medium and firmware.
    pub fn parts(self) -> (Medium, Firmware) {
        match self {
            Self::Direct | Self::Plain => (Medium::Direct, Firmware::Bios),
            Self::BiosCd => (Medium::Cd, Firmware::Bios),
            Self::BiosUsb => (Medium::Usb, Firmware::Bios),
            Self::UefiCd => (Medium::Cd, Firmware::Uefi),
            Self::UefiUsb => (Medium::Usb, Firmware::Uefi),
        }
    }
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// AHCI (SATA).
    Ahci,
    /// NVMe.
    Nvme,
    /// USB storage.
    Usb,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// The image file, raw or qcow2.
    pub file: PathBuf,
    /// How it is attached.
    pub bus: DiskBus,
    /// Whether what the guest writes is kept.
    pub keep: bool,
}

/// A network card on QEMU's user network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// QEMU's device name: virtio-net-pci, e1000, e1000e.
    pub model: String,
    /// Host port on 127.0.0.1 and guest port, TCP.
    pub publish: Vec<(u16, u16)>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Profile {
    /// How it boots.
    pub boot: Boot,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// Its network card.
    pub network: Option<Network>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// A folder of the host, under the 9p tag `share`.
    pub share: Option<PathBuf>,
    /// More words for the kernel's command line; only with `Boot::Direct`.
    pub append: String,
}

/// The image's files.
#[derive(Debug, Clone)]
pub struct Files {
    /// coracle.iso
    pub iso: PathBuf,
    /// vmlinuz
    pub kernel: PathBuf,
    /// initramfs.cpio.gz
    pub initramfs: PathBuf,
}

impl Profile {
    /// QEMU's arguments, but for consoles. `room` takes what a firmware writes.
    pub fn arguments(&self, files: &Files, acceleration: Acceleration, room: &Path) -> Result<Vec<String>> {
        let mut words: Vec<String> = Vec::new();
        if self.boot == Boot::Plain {
            let (kernel, initramfs) = (&files.kernel, &files.initramfs);
            words.extend(["-kernel".to_owned(), kernel.display().to_string()]);
            words.extend(["-initrd".to_owned(), initramfs.display().to_string()]);
            words.extend(["-append".to_owned(), "console=ttyS0".to_owned()]);
            return Ok(words);
        }
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        let (medium, firmware) = self.boot.parts();
        let has = |bus| self.disks.iter().any(|disk| disk.bus == bus);
        // The kernel looks at every port of a controller, and waits for those where nothing is: a fifth of a second for
        // this machine's own SATA.
        let (sata, usb) =
            (medium == Medium::Cd || has(DiskBus::Ahci), medium == Medium::Usb || has(DiskBus::Usb));
        let machine = if sata { "q35" } else { "q35,sata=off" };
        add(&["-machine", machine, "-nodefaults", "-vga", "std"]);
        match acceleration {
            Acceleration::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
            Acceleration::Tcg => add(&["-accel", "tcg,thread=multi", "-cpu", "max"]),
        }
        add(&["-m", &self.memory.to_string(), "-smp", &self.cpus.to_string()]);
        if usb {
            add(&["-device", "qemu-xhci,id=usb"]);
        }
        let iso = escaped(&files.iso);
        match medium {
            Medium::Direct => {
                // The kernel looks whether ten ticks come within 40 ms, and panics if a busy host lets none through. On
                // KVM it knows that there is no need to look.
                let timer = if acceleration == Acceleration::Tcg { "no_timer_check " } else { "" };
                let append = format!("console=tty0 console=ttyS0,115200 quiet {timer}{}", self.append);
                let (kernel, initramfs) =
                    (files.kernel.display().to_string(), files.initramfs.display().to_string());
                add(&["-kernel", &kernel, "-initrd", &initramfs, "-append", append.trim()]);
            }
            Medium::Cd => {
                add(&["-drive", &format!("if=none,id=medium,media=cdrom,readonly=on,format=raw,file={iso}")]);
                add(&["-device", "ide-cd,drive=medium,bootindex=1"]);
            }
            Medium::Usb => {
                add(&["-drive", &format!("if=none,id=medium,readonly=on,format=raw,file={iso}")]);
                add(&["-device", "usb-storage,bus=usb.0,drive=medium,bootindex=1,removable=on"]);
            }
        }
        if firmware == Firmware::Uefi {
            let code = Host::first_file(OVMF_CODE)
                .context("UEFI firmware (OVMF): not found; `cargo xtask doctor` tells more")?;
            add(&["-drive", &format!("if=pflash,format=raw,readonly=on,file={}", escaped(&code))]);
            let variables =
                PathBuf::from(code.display().to_string().replace("CODE", "VARS").replace("code", "vars"));
            if variables != code && variables.exists() {
                let own = room.join("efi-variables");
                std::fs::copy(&variables, &own)
                    .with_context(|| format!("{}: cannot copy", variables.display()))?;
                add(&["-drive", &format!("if=pflash,format=raw,file={}", escaped(&own))]);
            }
        }
        match &self.network {
            None => add(&["-nic", "none"]),
            Some(network) => {
                let forwards: String = network
                    .publish
                    .iter()
                    .map(|(host, guest)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"))
                    .collect();
                add(&["-netdev", &format!("user,id=net{forwards}")]);
                // No option ROM: nothing boots from the network, and UEFI would try for long.
                add(&["-device", &format!("{},netdev=net,romfile=", network.model)]);
            }
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let format = image_format(&disk.file)?;
            let keep = if disk.keep { "" } else { ",snapshot=on,cache=unsafe" };
            let file = escaped(&disk.file);
            add(&["-drive", &format!("if=none,id=disk{index},format={format},file={file}{keep}")]);
            add(&[
                "-device",
                &match disk.bus {
                    DiskBus::Virtio => format!("virtio-blk-pci,drive=disk{index}"),
                    DiskBus::Ahci => format!("ide-hd,drive=disk{index}"),
                    DiskBus::Nvme => format!("nvme,drive=disk{index},serial=coracle{index}"),
                    DiskBus::Usb => format!("usb-storage,bus=usb.0,drive=disk{index}"),
                },
            ]);
        }
        if let Some(share) = &self.share {
            add(&["-virtfs", &format!("local,mount_tag=share,security_model=none,path={}", escaped(share))]);
        }
        add(&["-device", "virtio-rng-pci"]);
        Ok(words)
    }
}

/// A path as a value of QEMU's comma-separated options.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// qcow2 by its magic number, else raw.
fn image_format(path: &Path) -> Result<&'static str> {
    use std::io::Read;
    let mut magic = [0; 4];
    let mut file = std::fs::File::open(path)
        .with_context(|| format!("{}: cannot open the disk image", path.display()))?;
    let count = file.read(&mut magic).with_context(|| format!("{}: cannot read", path.display()))?;
    Ok(if count == 4 && &magic == b"QFI\xfb" { "qcow2" } else { "raw" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(boot: Boot) -> Profile {
        Profile {
            boot,
            memory: 256,
            cpus: 2,
            network: None,
            disks: Vec::new(),
            share: None,
            append: String::new(),
        }
    }

    fn arguments(profile: &Profile) -> String {
        let files =
            Files { iso: "/d/a,b.iso".into(), kernel: "/d/vmlinuz".into(), initramfs: "/d/initramfs".into() };
        profile.arguments(&files, Acceleration::Tcg, Path::new("/nowhere")).unwrap().join(" ")
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        assert!(arguments(&profile(Boot::BiosCd)).contains("file=/d/a,,b.iso"));
    }

    #[test]
    fn a_controller_is_there_where_something_hangs_on_it() {
        let there = |machine: &Profile| {
            let said = arguments(machine);
            (!said.contains("sata=off"), said.contains("qemu-xhci"))
        };
        assert_eq!(there(&profile(Boot::Direct)), (false, false));
        assert_eq!(there(&profile(Boot::BiosCd)), (true, false));
        assert_eq!(there(&profile(Boot::BiosUsb)), (false, true));
        for (bus, expected) in
            [(DiskBus::Ahci, (true, false)), (DiskBus::Usb, (false, true)), (DiskBus::Nvme, (false, false))]
        {
            let mut machine = profile(Boot::Direct);
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into();
            machine.disks.push(Disk { file, bus, keep: false });
            assert_eq!(there(&machine), expected, "{bus:?}");
        }
    }

    #[test]
    fn words_are_appended_only_to_the_direct_kernel() {
        let mut direct = profile(Boot::Direct);
        direct.append = "coracle.rescue".into();
        assert!(arguments(&direct).contains("quiet no_timer_check coracle.rescue"));
        assert!(!arguments(&profile(Boot::BiosUsb)).contains("-append"));
    }

    #[test]
    fn the_plain_machine_is_the_plain_line() {
        assert_eq!(
            arguments(&profile(Boot::Plain)),
            "-kernel /d/vmlinuz -initrd /d/initramfs -append console=ttyS0"
        );
    }

    #[test]
    fn ports_are_published_on_the_loopback_only() {
        let mut machine = profile(Boot::Direct);
        machine.network = Some(Network { model: "e1000".into(), publish: vec![(8080, 80)] });
        assert!(arguments(&machine).contains("hostfwd=tcp:127.0.0.1:8080-:80"));
    }
}
