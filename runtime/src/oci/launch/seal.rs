//! The program's own image, sealed (CVE-2019-5736). In: nothing. Out: this process runs from a memory file that nobody
//! can write, so that a container that gets hold of /proc/PID/exe holds a copy. Must never: re-execute twice.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SealFlags;

use crate::oci::report::Error;
use crate::oci::report::Fails;
use crate::sys;

/// Runs this program again from a sealed copy, unless it does already. Returns only where that is so.
///
/// # Errors
/// The copy can't be made; going on without it would be unsafe.
pub fn ensure() -> Result<(), Error> {
    let name = "/proc/self/exe";
    let own = rustix::fs::open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", name)?;
    let wanted = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // Files that can't have seals say so; only a memory file can.
    if rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(wanted)) {
        return Ok(());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("coracle", flags).step("make", "a sealed copy of this program")?;
    let length = rustix::fs::fstat(&own).step("look at", name)?.st_size;
    let mut left = usize::try_from(length).unwrap_or(0);
    while left > 0 {
        match rustix::fs::sendfile(&copy, &own, None, left).step("copy", name)? {
            0 => return Err(Error::new("copy /proc/self/exe: it became shorter meanwhile")),
            count => left -= count,
        }
    }
    rustix::fs::fcntl_add_seals(&copy, wanted).step("seal", "the copy of this program")?;
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
    use std::os::fd::AsFd;
    let errno = sys::process::exec_fd(copy.as_fd(), &arguments, &strings(environment.collect()));
    Err(errno).step("run", "the sealed copy of this program")
}
