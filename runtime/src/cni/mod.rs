//! The network: CNI's runtime side (`cni attach`, ...) and the plugins.

use std::ffi::OsString;
use std::process::ExitCode;

pub mod plugin;

/// Runs `cni ARGS...` and returns its exit code.
pub fn main(_argv: Vec<OsString>) -> ExitCode {
    eprintln!("cni: not built yet");
    ExitCode::from(1)
}
