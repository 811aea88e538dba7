//! The network: CNI's runtime side (`cni attach`, ...) and the plugins.
//!
//! stdin and environment -> `Request` -> `NetPlan` -> a plugin -> `Reply`.

use std::ffi::OsString;
use std::process::ExitCode;

pub mod error;
pub mod fields;
pub mod invoke;
pub mod ipam;
pub mod plan;
pub mod plugin;
pub mod reply;
pub mod request;
pub mod rules;
pub mod version;

/// Runs `cni ARGS...` and returns its exit code.
pub fn main(_argv: Vec<OsString>) -> ExitCode {
    eprintln!("cni: not built yet");
    ExitCode::from(1)
}
