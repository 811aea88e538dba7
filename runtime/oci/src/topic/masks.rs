//! Paths that can't be read or written inside. In: `maskedPaths`, `readonlyPaths`. Out: mounts over them.
//! Must never: be applied before the root is the container's own, or mask by anything but the real null device.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::devices;
use super::inside;
use super::mounts;
use crate::report::Error;
use crate::report::Fails;
use sys::mount::MountAttributes;
use sys::mount::set_attributes;

const RDONLY: u64 = 1;

/// Hides each path: a file behind /dev/null, a folder behind an empty, read-only one. What is not there needs no mask.
///
/// # Errors
/// Each names the path.
pub fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Error> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(target) = open(root, path)? else { continue };
        let mount = if inside::is_folder(&target).step("look at", path)? {
            if let Some(first) = &empty {
                clone_fd(first)
            } else {
                // One for all folders: hundreds of containers with a dozen masks each would be thousands of them.
                let options = ["nr_blocks=1".into(), "nr_inodes=1".into()];
                let mount = mounts::new_file_system("tmpfs", "tmpfs", &options, RDONLY).step("mask", path)?;
                mounts::attach(&mount, &target).step("mask", path)?;
                empty = Some(mount);
                continue;
            }
        } else {
            if null.is_none() {
                null = Some(devices::verified_null(root)?);
            }
            null.as_ref().map_or(Err(Errno::NOENT), clone_fd)
        };
        mount.and_then(|mount| mounts::attach(&mount, &target)).step("mask", path)?;
    }
    Ok(())
}

/// Makes each path, and all mounts below it, read-only.
///
/// # Errors
/// Each names the path.
pub fn protect(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Error> {
    for path in paths {
        let Some(target) = open(root, path)? else { continue };
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | rustix::mount::OpenTreeFlags::AT_RECURSIVE
            | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(target.as_fd(), c"", flags);
        mount
            .and_then(read_only)
            .and_then(|mount| mounts::attach(&mount, &target))
            .step("make read-only", path)?;
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, Error> {
    match inside::open(root, Path::new(path), OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).step("open", path),
    }
}

fn read_only(mount: OwnedFd) -> Result<OwnedFd, Errno> {
    set_attributes(mount.as_fd(), &MountAttributes { set: RDONLY, ..MountAttributes::default() }, true)?;
    Ok(mount)
}

fn clone_fd(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
        | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
        | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd.as_fd(), c"", flags)
}
