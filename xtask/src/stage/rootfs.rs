//! Being written.
use crate::artifact::{BusyBox, Ip, RuntimeProgram, Tini};
use crate::context::Build;
use anyhow::{Result, bail};
/// The parts that go into the image besides the overlay.
#[derive(Debug)]
pub struct Parts {
    /// BusyBox.
    pub busybox: BusyBox,
    /// Tini.
    pub tini: Tini,
    /// `ip`.
    pub ip: Ip,
    /// Our program.
    pub runtime: RuntimeProgram,
}
/// The image's file tree in memory.
#[derive(Debug)]
pub struct Rootfs;
/// Overlay + parts + bundles -> the tree.
pub fn run(_build: &Build, _parts: &Parts, _bundles: &[String]) -> Result<Rootfs> {
    bail!("stage rootfs is being written")
}
