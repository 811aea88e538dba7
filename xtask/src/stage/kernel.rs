//! Linux source + fragments -> bzImage and .config. In: the pinned tarball, kernel-config/, the host's compiler.
//! Out: the same bytes whichever origin the tarball came from and wherever it is built.
//! Must never: compile before every symbol of the fragments came out as asked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Cmd, Shell, cmd};

use crate::artifact::Kernel;
use crate::context::Build;
use crate::kconfig::{Config, Fragments, Tree};
use crate::stage::{fetch, unpack};
use crate::stamp::{Inputs, produce};
use crate::ui::Log;

/// Builds the kernel.
pub fn run(build: &Build) -> Result<Kernel> {
    let inputs = Inputs::new("kernel", 2)
        .text("source", &build.sources.linux.pin())
        .text("epoch", &build.sources.epoch.to_string())
        .tree("kernel-config", &build.layout.kernel_config())?
        .text("gcc", &build.host.version("gcc", "--version")?)
        .text("ld", &build.host.version("ld", "--version")?)
        .text("zstd", &build.host.version("zstd", "--version")?);
    let [image, config] = produce(build, inputs, ["bzImage", "config"], |shop| {
        let source = configured(build, &mut shop.log, &shop.scratch)?;
        let shell = shell_in(build, &source)?;
        let jobs = format!("-j{}", build.jobs);
        // This text is what `uname -v` shows, so it is a date for people; the other stages have only its number.
        let when = format!("@{}", build.sources.epoch);
        let date = cmd!(shell, "date -u -d {when} '+%a %b %e %H:%M:%S UTC %Y'").quiet().read()?;
        shell.set_var("KBUILD_BUILD_TIMESTAMP", date);
        shop.log.run(make(build, &shell, &[&jobs, "bzImage"])?)?;
        copy(&source.join("arch/x86/boot/bzImage"), &shop.out.join("bzImage"))?;
        copy(&source.join(".config"), &shop.out.join("config"))
    })?;
    Ok(Kernel { image, config })
}

/// Unpacks the source into `scratch`, configures it from the fragments, checks the outcome, and returns its folder.
pub fn configured(build: &Build, log: &mut Log, scratch: &Path) -> Result<PathBuf> {
    let fragments = Fragments::load(&build.layout.kernel_config())?;
    let tarball = fetch::run(build, &build.sources.linux)?;
    build.ui.say("kernel", "unpacking");
    let source = unpack::run(&tarball, scratch)?;
    let shell = shell_in(build, &source)?;
    log.run(make(build, &shell, &["tinyconfig"])?)?;
    let path = source.join(".config");
    // Kconfig takes the last assignment of a symbol.
    let base = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let asked = base + &fragments.merged_text();
    std::fs::write(&path, asked).with_context(|| format!("{}: cannot write", path.display()))?;
    log.run(make(build, &shell, &["olddefconfig"])?)?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    fragments.check(&Config::parse(&text), &Tree::load(&source, "Kconfig")?)?;
    Ok(source)
}

/// A shell in `dir` whose environment holds what kbuild writes into the image, fixed.
pub fn shell_in(build: &Build, dir: &Path) -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(dir);
    let epoch = build.sources.epoch;
    for (name, value) in [
        ("KBUILD_BUILD_TIMESTAMP", format!("@{epoch}")),
        ("KBUILD_BUILD_USER", "coracle".to_owned()),
        ("KBUILD_BUILD_HOST", "coracle".to_owned()),
        ("KBUILD_BUILD_VERSION", "1".to_owned()),
        ("SOURCE_DATE_EPOCH", epoch.to_string()),
        ("LC_ALL", "C".to_owned()),
        ("TZ", "UTC".to_owned()),
    ] {
        shell.set_var(name, value);
    }
    Ok(shell)
}

/// `make ARCH=x86_64 WORDS`, without what a calling make or a user's shell might hand down.
pub fn make<'a>(build: &Build, shell: &'a Shell, words: &[&str]) -> Result<Cmd<'a>> {
    let program = build.host.require("make")?;
    let command = cmd!(shell, "{program} ARCH=x86_64 {words...}");
    let unwanted = ["MAKEFLAGS", "MFLAGS", "CFLAGS", "CC", "LD", "KCFLAGS", "CROSS_COMPILE", "LLVM"];
    Ok(unwanted.iter().fold(command, |command, name| command.env_remove(name)))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("{}: cannot copy", from.display()))?;
    Ok(())
}
