//! The plugins by name, one file each.

use std::process::ExitCode;

/// Whether `name` is one of our plugins.
pub fn is_plugin(_name: &str) -> bool {
    false
}

/// Runs the plugin called `name` and returns its exit code.
pub fn main(name: &str) -> ExitCode {
    eprintln!("{name}: not built yet");
    ExitCode::from(1)
}
