//! Being written.
use crate::artifact::{Initramfs, Iso, Kernel};
use crate::context::Build;
use anyhow::{Result, bail};
/// Kernel + initramfs -> image.
pub fn run(_build: &Build, _kernel: &Kernel, _initramfs: &Initramfs) -> Result<Iso> {
    bail!("stage iso is being written")
}
