//! Device filters that the kernel has checked and translated before: loading one takes longer than anything else of a
//! start, and most containers have the same.
//!
//! In: a program. Out: the program attached to a cgroup, and kept for the next time where the host has a folder for that.
//! Must never: make that folder, for then the runtime would leave something behind on hosts that have not asked for it; use
//! one that somebody else may write to; keep programs without bound.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;
use sha2::Digest;
use sha2::Sha256;

use crate::own_folder;
use sys::bpf::Instruction;

/// In a bpf file system. The image makes it at boot.
const FOLDER: &str = "/sys/fs/bpf/coracle";
/// When there are so many, all go.
const KEPT_MAX: usize = 32;

/// Attaches the program to a cgroup that has none.
///
/// # Errors
/// bpf(2)'s.
pub fn attach(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> Result<(), Errno> {
    let path = own_folder::open(Path::new(FOLDER)).and_then(|_| path_of(program));
    if let Some(path) = &path
        && let Ok(kept) = sys::bpf::pinned(path)
        // Anything else in its place is refused here, and loaded.
        && sys::bpf::attach_cgroup_device(cgroup, kept.as_fd()).is_ok()
    {
        return Ok(());
    }
    let loaded = sys::bpf::load_cgroup_device("devices", program)?;
    sys::bpf::attach_cgroup_device(cgroup, loaded.as_fd())?;
    if let Some(path) = path {
        make_room();
        // What has its name is another run's of this moment.
        let _ = sys::bpf::pin(&path, loaded.as_fd());
    }
    Ok(())
}

/// The place of a program, by all of its bytes.
fn path_of(program: &[Instruction]) -> Option<CString> {
    use std::fmt::Write;
    let mut sum = Sha256::new();
    for Instruction { code, registers, offset, immediate } in program {
        sum.update([*code, *registers]);
        sum.update(offset.to_ne_bytes());
        sum.update(immediate.to_ne_bytes());
    }
    let mut path = format!("{FOLDER}/");
    for byte in sum.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(path, "{byte:02x}");
    }
    CString::new(path).ok()
}

fn make_room() {
    let names: Vec<_> = std::fs::read_dir(FOLDER).into_iter().flatten().flatten().collect();
    if names.len() >= KEPT_MAX {
        for entry in names {
            // Attached programs stay what they are.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_a_place_of_its_own() {
        let program =
            |immediate| [Instruction::new(0xb7, 0, 0, 0, immediate), Instruction::new(0x95, 0, 0, 0, 0)];
        let place = |immediate| path_of(&program(immediate)).unwrap();
        assert_eq!(place(0), place(0));
        assert_ne!(place(0), place(1));
        // bpf file systems take no dots in names.
        assert!(!place(0).to_str().unwrap().contains('.'), "{:?}", place(0));
    }
}
