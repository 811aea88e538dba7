//! The floor: the least that a boot can do. In: the C compiler of the image's C programs. Out: an initramfs whose init prints
//! one line and sleeps; Debian's cloud kernel, where it can be had. Must never: be a part of the image.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cpio::newc::{Builder, trailer};
use flate2::{Compression, GzBuilder};

use super::debian;
use crate::context::Build;

/// What its init prints.
pub const WORD: &str = "coracle: floor";

const INIT: &str =
    "#include <unistd.h>\nint main(void) { write(1, \"coracle: floor\\n\", 15); for (;;) pause(); }\n";

/// Makes the initramfs below `room`.
pub fn initramfs(build: &Build, room: &Path) -> Result<PathBuf> {
    let (source, program, archive) = (room.join("init.c"), room.join("init"), room.join("floor.cpio.gz"));
    write(&source, INIT.as_bytes())?;
    let mut command = Command::new(build.host.require("musl-gcc")?);
    command.args(["-Os", "-static", "-s", "-o"]).args([&program, &source]).stdin(Stdio::null());
    let done = command.output().context("musl-gcc: cannot run")?;
    if !done.status.success() {
        bail!("musl-gcc: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    let init = std::fs::read(&program).with_context(|| format!("{}: cannot read", program.display()))?;
    let mut packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut inode = 0;
    let mut add = |name: &str, mode: u32, device: (u32, u32), bytes: &[u8]| -> Result<()> {
        inode += 1;
        let header =
            Builder::new(name).ino(inode).mode(mode).nlink(1).rdev_major(device.0).rdev_minor(device.1);
        let size = u32::try_from(bytes.len()).context("too big for cpio")?;
        let mut writer = header.write(&mut packer, size);
        writer.write_all(bytes).and_then(|()| writer.finish().map(drop)).context("cannot pack")
    };
    add("dev", 0o040_755, (0, 0), &[])?;
    add("dev/console", 0o020_600, (5, 1), &[])?;
    add("init", 0o100_755, (0, 0), &init)?;
    trailer(&mut packer).context("cannot pack")?;
    write(&archive, &packer.finish().context("cannot pack")?)?;
    Ok(archive)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("{}: cannot write", path.display()))
}

/// The kernel of Debian's package linux-image-cloud-amd64, kept in the cache.
pub fn debian_kernel(build: &Build) -> Result<PathBuf> {
    let home = build.layout.tools().join("debian-cloud-kernel");
    let kernel = home.join("vmlinuz");
    if kernel.is_file() {
        return Ok(kernel);
    }
    let apt_cache = build.host.find("apt-cache").context("this machine has no apt")?;
    let said =
        debian::run(Command::new(apt_cache).args(["depends", "--important", "linux-image-cloud-amd64"]))?;
    let package = said.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.context("apt knows no linux-image-cloud-amd64; `apt-get update` may mend that")?;
    let room = home.join("download");
    debian::unpack(build, package, &room)?;
    let version = package.trim_start_matches("linux-image-");
    crate::stamp::copy_whole(&room.join("boot").join(format!("vmlinuz-{version}")), &kernel)?;
    crate::stamp::remove_tree(&room)?;
    Ok(kernel)
}
