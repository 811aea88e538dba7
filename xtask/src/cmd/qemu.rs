//! Being written.
use crate::cli::QemuArgs;
use crate::context::Build;
use anyhow::{Result, bail};
/// Being written.
pub fn run(_build: &Build, _args: &QemuArgs) -> Result<std::process::ExitCode> {
    bail!("qemu is being written")
}
