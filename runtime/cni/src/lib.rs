//! The network: CNI's runtime side (`cni attach`, ...) and the plugins.
//!
//! A plugin: stdin and environment -> `Request` -> `NetPlan` -> a plugin's file -> `Reply`.
//! The runtime side: words -> `NetworkList` and `Wish` -> each plugin in turn -> the cache's `Record`.
#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody takes what they print

use std::ffi::OsString;
use std::io::Write;

use sys::start::ExitCode;

pub mod attach;
pub mod cache;
pub mod cli;
pub mod daemon;
pub mod error;
pub mod fields;
pub mod invoke;
pub mod ipam;
pub mod list;
pub mod pattern;
pub mod plan;
pub mod plugin;
pub mod ports;
pub mod reply;
pub mod request;
pub mod rules;
pub mod tool;
pub mod unsupported;
pub mod version;

/// Writes each network's resolv.conf, which containers mount: they are there before the first container can be made.
///
/// # Errors
/// Code 5 or 999; a list that can't be read has no file and is no error here.
pub fn write_resolv_confs() -> Result<(), error::Error> {
    daemon::resolver::write_files(&cli::site())
}

/// Runs `cni ARGS...` and returns its exit code.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let verb = match cli::parse(argv) {
        Ok(verb) => verb,
        Err(error) => {
            // Help goes to standard output and is no failure.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    // The reference's tool prints the bare error.
    let prefix = if verb.as_tool().is_some() { "" } else { "cni: " };
    let done = cli::run(verb);
    netlink::nft::close_kept();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            for error in errors {
                drop(writeln!(std::io::stderr(), "{prefix}{error}"));
            }
            ExitCode::FAILURE
        }
    }
}
