//! The only file that knows the order. In: `Build` and what goes into the image. Out: artefacts.
//! Must never: do a stage's work, or leave a failure of one stage unsaid because another failed too.
//!
//! ```text
//! kernel --------------------------------+
//! busybox, tini, iproute2, runtime ------+-> rootfs -> initramfs -> iso
//! runtime (its list of crates), tarballs -> licences
//! ```
//!
//! The kernel, the C programs and the runtime are built side by side.

use anyhow::{Result, anyhow};

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
    let (kernel, parts) = side_by_side(|| kernel(build), || parts(build))?;
    let initramfs = initramfs_of(build, &parts, contents)?;
    let licences = stage::licences::run(build, &parts.runtime)?;
    let iso = stage::iso::run(build, &kernel, &initramfs)?;
    Ok(Image { kernel, parts, initramfs, licences, iso, bundles: contents.names().to_vec() })
}

fn parts(build: &Build) -> Result<Parts> {
    let programs = || Ok((busybox(build)?, tini(build)?, iproute2(build)?));
    let (runtime, (busybox, tini, ip)) = side_by_side(|| runtime(build), programs)?;
    Ok(Parts { busybox, tini, ip, runtime })
}

/// Does both at once, and waits for both; when both fail, both are told.
fn side_by_side<A: Send, B: Send>(
    one: impl FnOnce() -> Result<A>,
    other: impl FnOnce() -> Result<B> + Send,
) -> Result<(A, B)> {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        match (one, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
            (Err(one), Err(other)) => Err(anyhow!("{one:#}\nerror: {other:#}")),
        }
    })
}

fn initramfs_of(build: &Build, parts: &Parts, contents: &Contents) -> Result<Initramfs> {
    let rootfs = stage::rootfs::run(build, parts, contents)?;
    stage::initramfs::run(build, &rootfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_at_once_and_both_failures_are_told() {
        // Each waits for the other: one after the other, the first would wait for ever.
        let meeting = std::sync::Barrier::new(2);
        let meet = |value: u8| {
            meeting.wait();
            Ok(value)
        };
        assert_eq!(side_by_side(|| meet(1), || meet(2)).unwrap(), (1, 2));
        let fail = |word: &'static str| Err::<u8, _>(anyhow!(word));
        assert_eq!(side_by_side(|| fail("a"), || fail("b")).unwrap_err().to_string(), "a\nerror: b");
        assert_eq!(side_by_side(|| Ok(1), || fail("b")).unwrap_err().to_string(), "b");
    }
}
