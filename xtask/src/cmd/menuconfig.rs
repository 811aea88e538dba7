//! Being written.
use crate::cli::Configured;
use crate::context::Build;
use anyhow::{Result, bail};
/// Being written.
pub fn run(_build: &Build, _which: Configured) -> Result<()> {
    bail!("menuconfig is being written")
}
