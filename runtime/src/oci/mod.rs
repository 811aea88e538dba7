//! The OCI runtime: `runc`'s command line over Spec -> Plan -> one clone3 -> a step list on each side.

pub mod cgroup;
pub mod cli;
pub mod report;
pub mod seccomp;
pub mod spec;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `runc ARGS...` and returns its exit code.
pub fn main(_argv: Vec<OsString>) -> ExitCode {
    eprintln!("runc: not built yet");
    ExitCode::from(1)
}
