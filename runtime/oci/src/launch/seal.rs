//! The program's own image, sealed (CVE-2019-5736). In: a folder of the runtime's. Out: this process runs from where nobody can
//! write: a read-only overlay of the program's folder that is in no mount namespace, or else a sealed copy in memory. So
//! a container that gets hold of /proc/PID/exe holds nothing of the host's. Must never: re-execute twice, or take a file
//! for sealed that a later change of the host's mounts makes writable.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SealFlags;
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::topic::mounts;

const OWN: &str = "/proc/self/exe";
/// OVERLAYFS_SUPER_MAGIC (linux/magic.h)
const OVERLAY_MAGIC: u64 = 0x794c_7630;
/// What a copy in memory is sealed against.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Runs this program again from where it is sealed, unless it does already. Returns only where that is so. An overlay
/// without an upper layer has at least two below: `folder`, which is there, is the second, and nobody looks into it.
///
/// # Errors
/// Neither can be made; going on without would be unsafe.
pub fn ensure(folder: &Path) -> Result<(), Error> {
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", OWN)?;
    if is_sealed_copy(own.as_fd()) || is_in_overlay(own.as_fd()) {
        return Ok(());
    }
    // A kernel without overlays, a folder with a colon in its name, a program that was replaced: the copy always works.
    let sealed = match in_overlay(own.as_fd(), folder) {
        Some(sealed) => {
            report::debug("runc exeseal: using overlayfs for sealed /proc/self/exe");
            sealed
        }
        None => sealed_copy(own.as_fd())?,
    };
    report::debug("runc exeseal: using /proc/self/exe clone");
    let strings = |words: Vec<std::ffi::OsString>| -> Vec<CString> {
        // Words of the kernel's own lists hold no NUL.
        words.into_iter().filter_map(|word| CString::new(word.into_vec()).ok()).collect()
    };
    let arguments = strings(std::env::args_os().collect());
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let errno = sys::process::exec_fd(sealed.as_fd(), &arguments, &strings(environment.collect()));
    Err(errno).step("run", "this program from where it is sealed")
}

/// Files that can't have seals say so; only a memory file can.
fn is_sealed_copy(own: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SEALS))
}

/// By its descriptor, as `ensure` does it, and read-only: so it is not an overlay of the host's, which the host may make
/// writable again.
fn is_in_overlay(own: BorrowedFd<'_>) -> bool {
    rustix::param::linux_execfn().to_bytes().starts_with(b"/dev/fd/")
        && rustix::fs::fstatvfs(own).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
        && rustix::fs::fstatfs(own).is_ok_and(|stat| stat.f_type as u64 == OVERLAY_MAGIC)
}

/// The program in a new overlay of its folder, which is mounted nowhere and goes when the last process that runs it ends.
fn in_overlay(own: BorrowedFd<'_>, second: &Path) -> Option<OwnedFd> {
    let path = std::fs::read_link(OWN).ok()?;
    let (folder, name) = (path.parent()?.to_str()?, path.file_name()?);
    let second = second.to_str()?;
    // Both have a meaning in lists of layers.
    if folder.contains([':', '\\']) || second.contains([':', '\\']) {
        return None;
    }
    let options = [format!("lowerdir={folder}:{second}")];
    let mount = mounts::new_file_system("overlay", "overlay", &options).ok()?;
    let file =
        rustix::fs::openat(&mount, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let file = file.ok()?;
    // It may have been replaced since it was started.
    let facts = |fd: BorrowedFd<'_>| -> Result<_, Errno> {
        let stat = rustix::fs::fstat(fd)?;
        Ok((stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_mode, stat.st_uid))
    };
    (facts(file.as_fd()).ok()? == facts(own).ok()?).then_some(file)
}

fn sealed_copy(own: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("coracle", flags).step("make", "a sealed copy of this program")?;
    let length = rustix::fs::fstat(own).step("look at", OWN)?.st_size;
    let mut left = usize::try_from(length).unwrap_or(0);
    while left > 0 {
        match rustix::fs::sendfile(&copy, own, None, left).step("copy", OWN)? {
            0 => return Err(Error::new("copy /proc/self/exe: it became shorter meanwhile")),
            count => left -= count,
        }
    }
    rustix::fs::fcntl_add_seals(&copy, SEALS).step("seal", "the copy of this program")?;
    Ok(copy)
}
