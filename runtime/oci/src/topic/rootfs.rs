//! The root file system. In: its path, the propagation. Out: it is `/`, and the host's root is gone from the namespace.
//! Must never: leave a way back: after pivot_root(2) the old root is unmounted, not hidden.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::mount::UnmountFlags;

use super::mounts;
use super::mounts::Mounted;
use crate::report::Error;
use crate::report::Fails;
use sys::mount::MountAttributes;
use sys::mount::set_attributes;

/// Cuts the new mount namespace off from the host's, and mounts the root onto itself, so that it can be pivoted to.
/// Gives the new mount's fd.
///
/// # Errors
/// Each names the root.
pub fn prepare(rootfs: &Path, propagation: Option<(u64, bool)>) -> Result<OwnedFd, Error> {
    let (bit, recursive) = propagation.unwrap_or((libc::MS_SLAVE, true));
    let mut flags = match bit {
        libc::MS_SHARED => MountPropagationFlags::SHARED,
        libc::MS_PRIVATE => MountPropagationFlags::PRIVATE,
        libc::MS_UNBINDABLE => MountPropagationFlags::UNBINDABLE,
        _ => MountPropagationFlags::DOWNSTREAM,
    };
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    rustix::mount::mount_change("/", flags).step("set the propagation of", "/")?;
    let name = &rootfs.display().to_string();
    let mount = mounts::clone_tree(rootfs, true).step("mount the root", name)?;
    // pivot_root(2) wants neither the new root's nor its parent's mount shared, so that nothing spreads to the host.
    let private = MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
    set_attributes(mount.as_fd(), &private, true).step("mount the root", name)?;
    let target = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let target = target.step("open the root", name)?;
    // What the change of all mounts to slave or private has left to do.
    if !recursive || bit == libc::MS_SHARED {
        make_parent_private(rootfs)?;
    }
    mounts::attach(&mount, &target).step("mount the root", name)?;
    Ok(mount)
}

/// The mount that holds `rootfs` must not be shared either; a slave is fine. Only the nearest mount point can be
/// changed, and which that is only the kernel knows: the paths upwards are tried.
fn make_parent_private(rootfs: &Path) -> Result<(), Error> {
    for path in rootfs.ancestors() {
        match rustix::mount::mount_change(path, MountPropagationFlags::PRIVATE) {
            // Not a mount point.
            Err(rustix::io::Errno::INVAL) => {}
            done => return done.step("make private the mount of", path.display()),
        }
    }
    Ok(())
}

/// Makes `root` the root and unmounts the old one (pivot_root(2), "new_root and put_old may be the same directory").
///
/// # Errors
/// pivot_root(2)'s: EINVAL from the kernel's initial root.
pub fn pivot(root: &OwnedFd) -> Result<(), Error> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step("open", "/")?;
    rustix::process::fchdir(root).step("change to", "the new root")?;
    rustix::process::pivot_root(".", ".").step("pivot_root to", "the new root")?;
    rustix::process::fchdir(&old).step("change to", "the old root")?;
    // What is unmounted here must not be unmounted on the host.
    rustix::mount::mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .step("cut off", "the old root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("unmount", "the old root")?;
    rustix::process::chdir("/").step("change to", "/")
}

/// Without pivot_root, for roots that can't be pivoted from (`--no-pivot`): the root is moved over `/`. `proc` is the host's
/// procfs.
///
/// # Errors
/// mount(2)'s and chroot(2)'s.
pub fn move_root(root: &OwnedFd, rootfs: &Path, proc: BorrowedFd<'_>) -> Result<(), Error> {
    take_away_full_views(rootfs, proc)?;
    rustix::process::fchdir(root).step("change to", "the new root")?;
    rustix::mount::mount_move(".", "/").step("move the new root to", "/")?;
    rustix::process::chroot(".").step("chroot to", "the new root")?;
    rustix::process::chdir("/").step("change to", "/")
}

/// What the host has mounted stays in the namespace where a root is only moved, and with a whole procfs or sysfs among it
/// the kernel lets a user namespace inside mount another whole one, without our masks (mount_too_revealing in
/// fs/namespace.c). So none is left.
fn take_away_full_views(rootfs: &Path, proc: BorrowedFd<'_>) -> Result<(), Error> {
    let text = sys::kernel_file::read_at(proc, "self/mountinfo", OFlags::empty())
        .step("read", "/proc/self/mountinfo")?;
    for Mounted { place, .. } in mounts::mounted(&text).filter(is_full_view) {
        if place.starts_with(rootfs) {
            continue;
        }
        let name = place.display();
        match rustix::mount::mount_change(
            &place,
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        ) {
            // It went with the one that it lay on.
            Err(Errno::NOENT | Errno::INVAL) => continue,
            done => done.step("cut off", name)?,
        }
        match rustix::mount::unmount(&place, UnmountFlags::DETACH) {
            // Locked in a user namespace: covered, it is not whole.
            Err(Errno::INVAL | Errno::PERM) => {
                rustix::mount::mount("tmpfs", &place, "tmpfs", rustix::mount::MountFlags::empty(), None)
                    .step("cover", place.display())?;
            }
            done => done.step("unmount", place.display())?,
        }
    }
    Ok(())
}

/// Whether it is a whole procfs or sysfs.
fn is_full_view(mounted: &Mounted<'_>) -> bool {
    mounted.root == "/" && (mounted.kind == "proc" || mounted.kind == "sysfs")
}

/// Makes the root's mount read-only, and sets its final propagation.
///
/// # Errors
/// mount_setattr(2)'s.
pub fn finish(root: &OwnedFd, readonly: bool, propagation: Option<(u64, bool)>) -> Result<(), Error> {
    if let Some((bit @ (libc::MS_SHARED | libc::MS_UNBINDABLE), recursive)) = propagation {
        let change = MountAttributes { propagation: bit, ..MountAttributes::default() };
        set_attributes(root.as_fd(), &change, recursive).step("set the propagation of", "the root")?;
    }
    if readonly {
        let change = MountAttributes { set: 1, ..MountAttributes::default() };
        set_attributes(root.as_fd(), &change, false).step("make read-only", "the root")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_views_of_procfs_and_sysfs_count() {
        let line = |root: &str, place: &str, kind: &str| {
            let line = format!("22 1 0:21 {root} {place} rw,nosuid shared:5 - {kind} none rw");
            mounts::mounted(&line).find(is_full_view).map(|mounted| mounted.place)
        };
        assert_eq!(line("/", "/proc", "proc"), Some("/proc".into()));
        assert_eq!(line("/", "/a\\040b/sys", "sysfs"), Some("/a b/sys".into()));
        assert_eq!(line("/sys", "/proc/sys", "proc"), None);
        assert_eq!(line("/", "/run", "tmpfs"), None);
    }
}
