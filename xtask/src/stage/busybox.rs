//! BusyBox source + fragments -> one static program and the list of its applets. In: the pinned tarball,
//! xtask/busybox-config/. Must never: compile before every symbol of the fragments came out as asked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::artifact::BusyBox;
use crate::context::Build;
use crate::kconfig::{Config, Fragments, Tree};
use crate::stage::{fetch, kernel, musl, unpack};
use crate::stamp::{Inputs, produce};
use crate::ui::Log;

/// Builds BusyBox.
pub fn run(build: &Build) -> Result<BusyBox> {
    let inputs = Inputs::new("busybox", 1)
        .text("source", &build.sources.busybox.pin())
        .text("epoch", &build.sources.epoch.to_string())
        .tree("busybox-config", &build.layout.busybox_config())?;
    let [program, links] =
        produce(build, musl::inputs(build, inputs)?, ["busybox", "busybox.links"], |shop| {
            let source = configured(build, &mut shop.log, &shop.scratch)?;
            let shell = kernel::shell_in(build, &source)?;
            let jobs = format!("-j{}", build.jobs);
            shop.log.run(make(build, &shell, &[&jobs, "busybox", "busybox.links"])?)?;
            for name in ["busybox", "busybox.links"] {
                std::fs::copy(source.join(name), shop.out.join(name))
                    .with_context(|| format!("{name}: cannot copy"))?;
            }
            Ok(())
        })?;
    Ok(BusyBox { program, links })
}

/// Unpacks the source into `scratch`, configures it from the fragments, checks the outcome, and returns its folder.
pub fn configured(build: &Build, log: &mut Log, scratch: &Path) -> Result<PathBuf> {
    let fragments = Fragments::load(&build.layout.busybox_config())?;
    let tarball = fetch::run(build, &build.sources.busybox)?;
    let source = unpack::run(&tarball, scratch)?;
    let shell = kernel::shell_in(build, &source)?;
    log.run(make(build, &shell, &["allnoconfig"])?)?;
    let path = source.join(".config");
    let base = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    // BusyBox's Kconfig takes the first assignment of a symbol, so the base must not have one.
    let asked = fragments.without_wanted(&base) + &fragments.merged_text();
    std::fs::write(&path, asked).with_context(|| format!("{}: cannot write", path.display()))?;
    let answers = scratch.join("answers");
    std::fs::write(&answers, "\n".repeat(4096))
        .with_context(|| format!("{}: cannot write", answers.display()))?;
    // `oldconfig` asks for each symbol that is new by then; empty answers take its default.
    let program = build.host.require("make")?;
    log.run(cmd!(shell, "sh -c 'exec \"$0\" oldconfig < \"$1\"' {program} {answers}"))?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    fragments.check(&Config::parse(&text), &Tree::load(&source, "Config.in")?)?;
    Ok(source)
}

/// BusyBox's make with musl and the size flags.
fn make<'a>(build: &Build, shell: &'a Shell, words: &[&str]) -> Result<xshell::Cmd<'a>> {
    let compiler = format!("CC=musl-gcc {}", musl::CFLAGS);
    let mut all = vec![compiler.as_str(), "SKIP_STRIP=n", "CONFIG_EXTRA_LDFLAGS=-Wl,--build-id=none"];
    all.extend(words);
    kernel::make(build, shell, &all)
}
