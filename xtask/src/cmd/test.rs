//! Being written.
use crate::cli::TestArgs;
use crate::context::Build;
use anyhow::{Result, bail};
/// Being written.
pub fn run(_build: &Build, _args: &TestArgs) -> Result<std::process::ExitCode> {
    bail!("test is being written")
}
