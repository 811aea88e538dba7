//! How the program begins and ends. In: argc and argv of the C library. Out: the face's exit code, to whoever started it.
//! Must never: do what only some faces need.
//!
//! The standard library's own start asks for the extent of the stack, which the C library finds out page by page, and
//! makes a second stack for a handler that says that the first has overflowed. This one does what the program
//! needs: standard input, output and error are open, and a closed pipe is an error, no signal.
#![allow(unsafe_code)] // what the C library hands over are pointers

use std::ffi::CStr;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;

/// What a face tells whoever started it: as `std::process::ExitCode`, which only the standard library's start can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// All went well.
    pub const SUCCESS: Self = Self(0);
    /// Something failed, and was said.
    pub const FAILURE: Self = Self(1);
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code)
    }
}

/// Makes `$run`, a `fn(Vec<OsString>) -> ExitCode`, what the program does.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(
            argc: ::std::ffi::c_int,
            argv: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: the C library calls this once, with the arguments' number and a place for each.
            unsafe { $crate::start::begin(argc, argv, $run) }
        }
    };
}

/// Runs the program, and ends it with what it answers.
///
/// # Safety
/// `argv` points to `argc` strings that stay as they are.
#[doc(hidden)] // for `entry!`
pub unsafe fn begin(argc: c_int, argv: *const *const c_char, run: fn(Vec<OsString>) -> ExitCode) -> c_int {
    open_standard_files();
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let words = (0..usize::try_from(argc).unwrap_or_default()).map(|index| {
        // SAFETY: there are `argc` of them, as the caller says.
        let word = unsafe { CStr::from_ptr(*argv.add(index)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    });
    // Writes what is left of standard output, which returning from here would not.
    std::process::exit(c_int::from(run(words.collect()).0))
}

/// Opens /dev/null where one of the three is closed, lest a file that is opened later gets its number and with it what is
/// meant for somebody to read. Where that can't be had the program ends: nothing could be said.
fn open_standard_files() {
    let mut files = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three files, as told; a wait of none.
    let answered = unsafe { libc::poll(files.as_mut_ptr(), 3, 0) };
    for file in files {
        // Where fewer than three files are allowed or memory is short, the kernel did not look.
        let closed = if answered < 0 {
            // SAFETY: any number may be asked about.
            (unsafe { libc::fcntl(file.fd, libc::F_GETFD) }) < 0
        } else {
            file.revents & libc::POLLNVAL != 0
        };
        // SAFETY: the name ends in a null byte. The lowest number that is free is the closed one's.
        if closed && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } < 0 {
            std::process::abort();
        }
    }
}
