//! Tini source -> the static `tini`, PID 1 of the image. In: the pinned tarball. Must never: need CMake; it is one C file.

use anyhow::{Context, Result};
use xshell::cmd;

use crate::artifact::Tini;
use crate::context::Build;
use crate::stage::{fetch, kernel, musl, unpack};
use crate::stamp::{Inputs, produce};

/// Builds Tini.
pub fn run(build: &Build) -> Result<Tini> {
    let inputs = Inputs::new("tini", 1).text("source", &build.sources.tini.pin());
    let [program] = produce(build, musl::inputs(build, inputs)?, ["tini"], |shop| {
        let source = unpack::run(&fetch::run(build, &build.sources.tini)?, &shop.scratch)?;
        // CMake would fill this header; all that it defines is given on the command line.
        let header = source.join("src/tiniConfig.h");
        std::fs::write(&header, "").with_context(|| format!("{}: cannot write", header.display()))?;
        let shell = kernel::shell_in(build, &source)?;
        let (cflags, ldflags) = (musl::CFLAGS.split_whitespace(), musl::LDFLAGS.split_whitespace());
        let version = format!("-DTINI_VERSION=\"{}\"", build.sources.tini.version);
        let git = "-DTINI_GIT=\"\"";
        let program = shop.out.join("tini");
        shop.log.run(cmd!(shell, "musl-gcc {cflags...} {version} {git} -o {program} src/tini.c {ldflags...}"))
    })?;
    Ok(Tini(program))
}
