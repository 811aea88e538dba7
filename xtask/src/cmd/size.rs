//! Being written.
use crate::cli::ImageArgs;
use crate::context::Build;
use anyhow::{Result, bail};
/// Being written.
pub fn run(_build: &Build, _args: &ImageArgs) -> Result<()> {
    bail!("size is being written")
}
