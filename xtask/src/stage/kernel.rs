//! Being written.
use crate::artifact::Kernel;
use crate::context::Build;
use anyhow::{Result, bail};
/// Builds it from the pinned source (`build.sources`), fetching inside `produce`'s closure only.
pub fn run(_build: &Build) -> Result<Kernel> {
    bail!("stage kernel is being written")
}
