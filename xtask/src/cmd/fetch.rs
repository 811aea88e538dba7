//! `fetch`: all sources at once. In: `Build`. Out: tarballs in the cache. Must never: stop before each was tried.

use anyhow::{Result, bail};

use crate::context::Build;
use crate::stage;

/// Fetches every pinned source.
pub fn run(build: &Build) -> Result<()> {
    let mut failures = Vec::new();
    for source in build.sources.all() {
        match stage::fetch::run(build, source) {
            Ok(tarball) => build
                .ui
                .say("fetch", &format!("{} {}: {}", source.name, source.version, tarball.path.display())),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.join("\n"));
}
