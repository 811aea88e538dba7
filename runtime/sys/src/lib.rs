//! The only `unsafe` of the program: the system calls that rustix lacks, each behind a safe function.
//!
//! In: borrowed fds, numbers, slices. Out: owned fds, `rustix::io::Errno`.
//! Must never: hold policy; a caller's mistake must not become undefined behaviour.
#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody takes what they print
pub mod bpf;
#[cfg(any(test, all(panic = "abort", target_feature = "crt-static")))]
mod error_text;
pub mod heap;
pub mod kernel_file;
pub mod landlock;
pub mod mount;
pub mod process;
pub mod schedule;
pub mod seccomp;
pub mod signal;
#[cfg(all(panic = "abort", target_feature = "crt-static"))]
mod standalone;
pub mod start;
pub mod tap;
pub mod udp;
