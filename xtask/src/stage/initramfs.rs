//! Being written.
use crate::artifact::Initramfs;
use crate::context::Build;
use crate::stage::rootfs::Rootfs;
use anyhow::{Result, bail};
/// Tree -> archive.
pub fn run(_build: &Build, _rootfs: &Rootfs) -> Result<Initramfs> {
    bail!("stage initramfs is being written")
}
