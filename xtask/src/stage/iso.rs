//! Kernel + initramfs -> one hybrid image. In: two artefacts, grub/, GRUB's modules, mtools, xorriso. Out: an ISO that
//! boots by BIOS and by UEFI, as a CD and as a disk (USB stick). Must never: hold a time, a random identifier or a path
//! of this machine: identifiers come from the hash of the inputs, times from the epoch.

use std::path::Path;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::artifact::{Initramfs, Iso, Kernel};
use crate::context::Build;
use crate::stage::kernel::shell_in;
use crate::stamp::{Inputs, produce};

/// What GRUB needs on both firmwares: the medium's file systems, the menu, the Linux loader, a serial port.
const MODULES: [&str; 13] = [
    "configfile",
    "echo",
    "fat",
    "iso9660",
    "linux",
    "normal",
    "part_gpt",
    "part_msdos",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
    "test",
];
const MODULES_BIOS: [&str; 2] = ["biosdisk", "vga_text"];
const MODULES_EFI: [&str; 2] = ["efi_gop", "efi_uga"];

const SECTOR_BYTES: u64 = 512;
/// Boot sector, two FATs and the root folder of a FAT12 file system of this size, with room to spare.
const FAT_OVERHEAD_SECTORS: u64 = 64;

/// Makes the image.
pub fn run(build: &Build, kernel: &Kernel, initramfs: &Initramfs) -> Result<Iso> {
    let mut inputs = Inputs::new("iso", 3)
        .artifact("kernel", &kernel.image)
        .artifact("initramfs", &initramfs.archive)
        .tree("grub", &build.layout.grub())?
        .text("epoch", &build.sources.epoch.to_string())
        .text("modules", &[&MODULES[..], &MODULES_BIOS, &MODULES_EFI].concat().join(" "))
        .text("grub-mkimage", &build.host.version("grub-mkimage", "--version")?)
        .text("xorriso", &build.host.version("xorriso", "-version")?)
        .text("mformat", &build.host.version("mformat", "--version")?);
    // GRUB's version string does not tell one distribution's build from another's.
    for core in ["/usr/lib/grub/i386-pc/kernel.img", "/usr/lib/grub/x86_64-efi/kernel.img"] {
        inputs = inputs.file(core, Path::new(core))?;
    }
    let identity = inputs.key();
    let [iso] = produce(build, inputs, ["coracle.iso"], |shop| {
        let tree = shop.scratch.join("tree");
        let grub = tree.join("boot/grub");
        std::fs::create_dir_all(&grub).with_context(|| format!("{}: cannot create", grub.display()))?;
        for (from, to) in [
            (kernel.image.path.clone(), tree.join("boot/vmlinuz")),
            (initramfs.archive.path.clone(), tree.join("boot/initramfs.cpio.gz")),
            (build.layout.grub().join("grub.cfg"), grub.join("grub.cfg")),
        ] {
            std::fs::copy(&from, &to).with_context(|| format!("{}: cannot copy", from.display()))?;
        }
        let shell = shell_in(build, &shop.scratch)?;
        // Built into GRUB's core: finds the medium, be it a CD, a disk or a stick. GRUB's parser of that stage knows no
        // comments: a line that begins with # swallows the one behind it.
        let early = build.layout.grub().join("early.cfg");
        let (bios, efi) = ([&MODULES[..], &MODULES_BIOS].concat(), [&MODULES[..], &MODULES_EFI].concat());
        let common = ["-p", "/boot/grub", "-C", "xz"];
        shop.log.run(cmd!(
            shell,
            "grub-mkimage -O i386-pc-eltorito -o tree/boot/grub/eltorito.img -c {early} {common...} {bios...}"
        ))?;
        shop.log
            .run(cmd!(shell, "grub-mkimage -O x86_64-efi -o BOOTX64.EFI -c {early} {common...} {efi...}"))?;
        efi_image(&shell, &mut shop.log, &shop.scratch, &identity)?;
        let (date, guid) = (volume_date(build.sources.epoch), &identity[..32]);
        let all_dates = format!("={}", build.sources.epoch);
        let out = shop.out.join("coracle.iso");
        // Without 300 kB of padding: for drives that read ahead over the end of a disc burnt track at once.
        shop.log.run(cmd!(
            shell,
            "xorriso -as mkisofs -quiet -o {out} -V CORACLE -R -no-pad
             --modification-date={date} --set_all_file_dates {all_dates} --gpt_disk_guid {guid}
             --grub2-mbr /usr/lib/grub/i386-pc/boot_hybrid.img
             -b boot/grub/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info
             -eltorito-alt-boot -e boot/grub/efi.img -no-emul-boot
             -efi-boot-part --efi-boot-image --protective-msdos-label
             -uid 0 -gid 0 -dir-mode 0555 -file-mode 0444 tree"
        ))
    })?;
    Ok(Iso(iso))
}

/// A FAT image of just the size that GRUB's EFI program needs, at tree/boot/grub/efi.img.
fn efi_image(shell: &Shell, log: &mut crate::ui::Log, scratch: &Path, identity: &str) -> Result<()> {
    let program = scratch.join("BOOTX64.EFI");
    let bytes = program.metadata().with_context(|| format!("{}: cannot look at", program.display()))?.len();
    let sectors = (bytes.div_ceil(SECTOR_BYTES) + FAT_OVERHEAD_SECTORS).to_string();
    let image = "tree/boot/grub/efi.img";
    let serial = &identity[..8];
    log.run(cmd!(shell, "mformat -C -i {image} -T {sectors} -h 1 -s 1 -c 1 -N {serial} -v CORACLE ::"))?;
    log.run(cmd!(shell, "mmd -i {image} ::/EFI ::/EFI/BOOT"))?;
    log.run(cmd!(shell, "mcopy -i {image} BOOTX64.EFI ::/EFI/BOOT/BOOTX64.EFI"))
}

/// Seconds since 1970 as YYYYMMDDhhmmsscc in UTC, as xorriso wants it.
pub fn volume_date(epoch: u64) -> String {
    // Days to date by the algorithm for the proleptic Gregorian calendar, with years that begin in March.
    let (days, seconds) = (epoch / 86_400 + 719_468, epoch % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}00", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(volume_date(0), "1970010100000000");
        assert_eq!(volume_date(951_782_399), "2000022823595900");
        assert_eq!(volume_date(1_709_164_800), "2024022900000000");
        assert_eq!(volume_date(1_793_491_200), "2026110100000000");
    }
}
