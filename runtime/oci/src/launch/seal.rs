//! The program's own image, sealed (CVE-2019-5736). In: nothing. Out: this process runs from where nobody can write: an
//! overlay without an upper layer that the host has mounted, or one of the program's folder that is in no mount
//! namespace, or else a sealed copy in memory. So a container that gets hold of /proc/PID/exe holds nothing of the
//! host's. Must never: re-execute twice, or take a file for sealed that a later change of the host's mounts makes
//! writable.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SealFlags;
use rustix::io::Errno;

use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::topic::mounts;

const OWN: &str = "/proc/self/exe";
/// An overlay without an upper layer has at least two below. Nobody looks into this one: only the program is opened.
const SECOND_LAYER: &str = "/dev";
/// OVERLAYFS_SUPER_MAGIC (linux/magic.h)
const OVERLAY_MAGIC: u64 = 0x794c_7630;
/// What a copy in memory is sealed against.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Where this process runs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// From anywhere: it will enter no container.
    NotNeeded,
    /// From an overlay without an upper layer that the host has mounted.
    Host,
    /// From an overlay that it has made itself.
    Overlay,
    /// From a copy in memory.
    Copy,
}

impl Seal {
    /// Says what was done, now that there is a log, in runc's words.
    pub fn log(self) {
        if self == Seal::Overlay {
            report::debug("runc exeseal: using overlayfs for sealed /proc/self/exe");
        }
        if matches!(self, Seal::Overlay | Seal::Copy) {
            report::debug("runc exeseal: using /proc/self/exe clone");
        }
    }
}

/// Runs this program again, with these arguments, from where it is sealed, unless it does already. Returns only where that is so.
///
/// # Errors
/// Neither an overlay nor a copy can be made; going on without would be unsafe.
pub fn ensure(argv: &[std::ffi::OsString]) -> Result<Seal, Error> {
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", OWN)?;
    if let Some(seal) = present(own.as_fd()) {
        return Ok(seal);
    }
    // A kernel without overlays, a folder with a colon in its name, a program that was replaced: the copy always works.
    let sealed = in_overlay(own.as_fd()).map_or_else(|| sealed_copy(own.as_fd()), Ok)?;
    let strings = |words: Vec<std::ffi::OsString>| -> Vec<CString> {
        // Words of the kernel's own lists hold no NUL.
        words.into_iter().filter_map(|word| CString::new(word.into_vec()).ok()).collect()
    };
    let arguments = strings(argv.to_vec());
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let errno = sys::process::exec_fd(sealed.as_fd(), &arguments, &strings(environment.collect()));
    Err(errno).step("run", "this program from where it is sealed")
}

/// How this process is sealed already, if it is.
fn present(own: BorrowedFd<'_>) -> Option<Seal> {
    let file_system = rustix::fs::fstatfs(own).ok()?;
    if file_system.f_type as u64 != OVERLAY_MAGIC {
        return is_sealed_copy(own).then_some(Seal::Copy);
    }
    if is_own_overlay(file_system.f_flags as u64) {
        return Some(Seal::Overlay);
    }
    // Nothing makes an overlay writable that has no upper layer; one that has may only be read-only for now.
    let options = sys::mount::options(own).ok()?;
    let mut options = options.split(|byte| *byte == b',');
    (!options.any(|option| option.starts_with(b"upperdir="))).then_some(Seal::Host)
}

/// Files that can't have seals say so; only a memory file can.
fn is_sealed_copy(own: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SEALS))
}

/// Started by its descriptor, as `ensure` does it, and read-only. It is mounted nowhere, so its options can't be asked for.
fn is_own_overlay(flags: u64) -> bool {
    flags & libc::ST_RDONLY != 0 && rustix::param::linux_execfn().to_bytes().starts_with(b"/dev/fd/")
}

/// The program in a new overlay of its folder, which is mounted nowhere and goes when the last process that runs it ends.
fn in_overlay(own: BorrowedFd<'_>) -> Option<OwnedFd> {
    let path = std::fs::read_link(OWN).ok()?;
    let (folder, name) = (path.parent()?.to_str()?, path.file_name()?);
    // Both have a meaning in lists of layers.
    if folder.contains([':', '\\']) {
        return None;
    }
    let options = [format!("lowerdir={folder}:{SECOND_LAYER}")];
    let mount = mounts::new_file_system("overlay", "overlay", &options, 0).ok()?;
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
