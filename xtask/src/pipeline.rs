//! The only file that knows the order. In: `Build` and what goes into the image. Out: artefacts.
//! Must never: do a stage's work.
//!
//! ```text
//! kernel --------------------------------+
//! busybox, tini, iproute2, runtime ------+-> rootfs -> initramfs -> iso
//! runtime (its list of crates), tarballs -> licences
//! ```

use anyhow::Result;

use crate::artifact::{BusyBox, Initramfs, Ip, Iso, Kernel, Licences, RuntimeProgram, Tini};
use crate::context::Build;
use crate::stage;
use crate::stage::rootfs::{Contents, Parts};

/// A whole image with the parts it was made of.
#[derive(Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: Kernel,
    /// Everything that runs on it.
    pub parts: Parts,
    /// The root file system's archive.
    pub initramfs: Initramfs,
    /// The texts of its licences.
    pub licences: Licences,
    /// The bootable image.
    pub iso: Iso,
    /// The user's bundles in it, by name.
    pub bundles: Vec<String>,
}

/// The kernel alone.
pub fn kernel(build: &Build) -> Result<Kernel> {
    stage::kernel::run(build)
}

/// BusyBox alone.
pub fn busybox(build: &Build) -> Result<BusyBox> {
    stage::busybox::run(build)
}

/// Tini alone.
pub fn tini(build: &Build) -> Result<Tini> {
    stage::tini::run(build)
}

/// `ip` alone.
pub fn iproute2(build: &Build) -> Result<Ip> {
    stage::iproute2::run(build)
}

/// Our program alone.
pub fn runtime(build: &Build) -> Result<RuntimeProgram> {
    stage::runtime::run(build)
}

/// The initramfs with all its parts.
pub fn initramfs(build: &Build, contents: &Contents) -> Result<Initramfs> {
    let parts = parts(build)?;
    initramfs_of(build, &parts, contents)
}

/// Everything.
pub fn image(build: &Build, contents: &Contents) -> Result<Image> {
    let kernel = kernel(build)?;
    let parts = parts(build)?;
    let initramfs = initramfs_of(build, &parts, contents)?;
    let licences = stage::licences::run(build, &parts.runtime)?;
    let iso = stage::iso::run(build, &kernel, &initramfs)?;
    Ok(Image { kernel, parts, initramfs, licences, iso, bundles: contents.names().to_vec() })
}

fn parts(build: &Build) -> Result<Parts> {
    Ok(Parts { busybox: busybox(build)?, tini: tini(build)?, ip: iproute2(build)?, runtime: runtime(build)? })
}

fn initramfs_of(build: &Build, parts: &Parts, contents: &Contents) -> Result<Initramfs> {
    let rootfs = stage::rootfs::run(build, parts, contents)?;
    stage::initramfs::run(build, &rootfs)
}
