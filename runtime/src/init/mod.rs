//! The machine's first program, `/init`: the kernel's initial root -> a tmpfs with everything in it, what /etc/fstab lists
//! mounted there, and Tini as PID 1. In: the initial root as the kernel unpacked it. Out: an empty initial root below; Tini with
//! the environment that the kernel gave, and with a standard input that ends when all is mounted. Must never: return when all
//! went well, or stop for a line of /etc/fstab that can't be mounted.
//!
//! pivot_root(2) refuses the initial root as the old root, so containers could not leave it. And it stays below everything,
//! in each mount namespace: what is left in it, a container that may unmount its own root can see
//! (docs/decisions/0001-initial-root.md).

mod fstab;
mod tree;

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::fmt::Display;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

use oci::topic::devices::LINKS;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::pipe::PipeFlags;
use sys::process::Side;
use sys::start::ExitCode;

/// Where the tmpfs is before it is the root; a folder of the initial root alone.
const SYSROOT: &CStr = c"sysroot";
const NEXT: &CStr = c"/sbin/tini";
const NEXT_WORDS: [&CStr; 3] = [NEXT, c"--", c"/etc/rc"];

/// What lies in file systems that begin empty.
const FOLDERS: [(&str, u32); 2] = [("/run/lock", 0o755), ("/sys/fs/bpf/coracle", 0o700)];

/// Becomes Tini in the moved root. Where the root can't be moved it tells why and ends, upon which the kernel panics.
pub fn main() -> ExitCode {
    let Err(reason) = start();
    say(&reason);
    ExitCode::FAILURE
}

/// A line on the console.
fn say(text: &dyn Display) {
    // There may be nobody to hear it.
    let _ = writeln!(std::io::stderr(), "coracle: init: {text}");
}

fn start() -> Result<Infallible, String> {
    if !rustix::process::getpid().is_init() {
        return Err("only the kernel starts it, as the first process".to_string());
    }
    move_root()?;
    let (end, mounting) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("a pipe"))?;
    // Beside Tini and the shell, which take as long to start. Tini takes its end.
    match sys::process::clone3(0, None).map_err(failed("a second process"))? {
        Side::Child => {
            mount_all();
            sys::process::exit_now(0)
        }
        Side::Parent(..) => {
            drop(mounting);
            rustix::stdio::dup2_stdin(&end).map_err(failed("standard input"))?;
            Err(become_next())
        }
    }
}

fn failed(what: &str) -> impl FnOnce(Errno) -> String {
    let what = what.to_string();
    move |errno| format!("{what}: {errno}")
}

fn move_root() -> Result<(), String> {
    let open = |path: &CStr| {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(failed(&path.to_string_lossy()))
    };
    let old = open(c"/")?;
    rustix::process::fchdir(&old).map_err(failed("/"))?;
    rustix::mount::mount(c"root", SYSROOT, c"tmpfs", MountFlags::empty(), c"mode=755,size=90%")
        .map_err(failed("a tmpfs at /sysroot"))?;
    let new = open(SYSROOT)?;
    tree::move_all(&old, &new, SYSROOT).map_err(|error| format!("moving the root into a tmpfs: {error}"))?;
    rustix::process::fchdir(&new).map_err(failed("/sysroot"))?;
    rustix::mount::mount_move(c".", c"/").map_err(failed("moving /sysroot to /"))?;
    rustix::process::chroot(c".").map_err(failed("chroot into the new root"))?;
    rustix::fs::unlinkat(&old, SYSROOT, AtFlags::REMOVEDIR).map_err(failed("removing /sysroot"))
}

/// Mounts what /etc/fstab lists, and puts in it what is there before anything else runs. What fails is told, and the rest is
/// done: a machine with a console is better than none.
fn mount_all() {
    for reason in fstab::mount_all() {
        say(&reason);
    }
    let tell = |path: &str, done: Result<(), Errno>| {
        if let Err(errno) = done {
            say(&format!("{path}: {errno}"));
        }
    };
    for (name, target) in LINKS {
        let link = format!("/dev/{name}");
        // The multiplexer of devtmpfs is another one than that of /dev/pts.
        let _ = rustix::fs::unlink(&link);
        tell(&link, rustix::fs::symlink(target, &link));
    }
    for (path, mode) in FOLDERS {
        tell(path, rustix::fs::mkdir(path, Mode::from_raw_mode(mode)));
    }
    // As other systems have it: what is mounted here shows up in containers that ask for it (rslave, rshared).
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    tell("/: shared mounts", rustix::mount::mount_change("/", shared));
    if let Err(error) = cni::write_resolv_confs() {
        say(&error);
    }
}

fn become_next() -> String {
    let strings = |words: &mut dyn Iterator<Item = OsString>| -> Vec<CString> {
        words.filter_map(|word| CString::new(word.into_vec()).ok()).collect()
    };
    let environment = strings(&mut std::env::vars_os().map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        entry
    }));
    sys::signal::reset();
    let errno = sys::process::exec(NEXT, &NEXT_WORDS.map(CStr::to_owned), &environment);
    format!("{}: {errno}", NEXT.to_string_lossy())
}
