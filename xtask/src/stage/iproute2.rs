//! Being written.
use crate::artifact::Ip;
use crate::context::Build;
use anyhow::{Result, bail};
/// Builds it from the pinned source (`build.sources`), fetching inside `produce`'s closure only.
pub fn run(_build: &Build) -> Result<Ip> {
    bail!("stage iproute2 is being written")
}
