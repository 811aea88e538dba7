//! Linux source + fragments -> bzImage, .config, sizes by folder. In: the pinned tarball, kernel-config/, the host's
//! compiler, the recommendations that the configuration is judged by.
//! Out: the same bytes whichever origin the tarball came from and wherever it is built.
//! Must never: compile before every symbol of the fragments came out as asked, and each recommendation is followed or waived.

mod folders;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Cmd, Shell, cmd};

use crate::artifact::Kernel;
use crate::context::Build;
use crate::kconfig::{Config, Fragments, Recommendations, Tree};
use crate::stage::{fetch, unpack};
use crate::stamp::{Inputs, produce, produce_kept, remove_tree, write_whole};
use crate::ui::Log;

pub use folders::Folders;

/// What gcc gets besides kbuild's own flags. At -Os it writes memset and memcpy out as `rep stosb` and `rep movsb`; called,
/// they are what suits the processor. An emulator takes a microsecond for each byte where it holds translated code of the
/// memory, and the kernel overwrites all of its code that was for the start alone (docs/performance.md, "Boot").
const FLAGS: &str = "KCFLAGS=-mstringop-strategy=libcall";

/// Builds the kernel.
pub fn run(build: &Build) -> Result<Kernel> {
    let recommended = Recommendations::load(&build.layout.recommendations())?;
    let inputs = Inputs::new("kernel", 4)
        .text("source", &build.sources.linux.pin())
        .text("epoch", &build.sources.epoch.to_string())
        .tree("kernel-config", &build.layout.kernel_config())?
        .text("gcc", &build.host.version("gcc", "--version")?)
        .text("ld", &build.host.version("ld", "--version")?)
        .text("zstd", &build.host.version("zstd", "--version")?);
    let outputs = ["bzImage", "config", "folders.json"];
    let build_in = |log: &mut Log, source: &Path, out: &Path| {
        configure(build, log, source)?;
        recommended.check(&Config::load(&source.join(".config"))?)?;
        compile(build, log, source, out)
    };
    let [image, config, folders] = if build.incremental {
        produce_kept(build, &inputs, outputs, |log, kept, out| {
            build_in(log, &kept_source(build, kept)?, out)
        })?
    } else {
        produce(build, inputs, outputs, |shop| {
            build_in(&mut shop.log, &unpacked(build, &shop.scratch)?, &shop.out)
        })?
    };
    // The recommendations are no input: they change no byte, so a kernel of the cache is judged by them as they are now.
    recommended.check(&Config::load(&config.path)?)?;
    Ok(Kernel { image, config, folders })
}

/// Compiles a configured `source`, and takes what was announced to `out`.
fn compile(build: &Build, log: &mut Log, source: &Path, out: &Path) -> Result<()> {
    let shell = shell_in(build, source)?;
    let jobs = format!("-j{}", build.jobs);
    // This text is what `uname -v` shows, so it is a date for people; the other stages have only its number.
    let when = format!("@{}", build.sources.epoch);
    let date = cmd!(shell, "date -u -d {when} '+%a %b %e %H:%M:%S UTC %Y'").quiet().read()?;
    shell.set_var("KBUILD_BUILD_TIMESTAMP", date);
    log.run(make(build, &shell, &[FLAGS, &jobs, "bzImage"])?)?;
    copy(&source.join("arch/x86/boot/bzImage"), &out.join("bzImage"))?;
    copy(&source.join(".config"), &out.join("config"))?;
    let members = cmd!(shell, "ar t vmlinux.a").quiet().read()?;
    let folders = serde_json::to_vec_pretty(&folders::measure(source, &members)?)?;
    write_whole(&out.join("folders.json"), &folders)
}

/// The source in `kept`: unpacked there once for each pin.
fn kept_source(build: &Build, kept: &Path) -> Result<PathBuf> {
    let (tree, note, pin) = (kept.join("source"), kept.join("pin"), build.sources.linux.pin());
    if std::fs::read_to_string(&note).is_ok_and(|text| text == pin) {
        return unpack::top_folder(&tree);
    }
    for path in [&note, &tree] {
        remove_tree_or_file(path)?;
    }
    let source = unpacked(build, &tree)?;
    // Last: a source that is not whole has no note.
    write_whole(&note, pin.as_bytes())?;
    Ok(source)
}

fn remove_tree_or_file(path: &Path) -> Result<()> {
    if path.is_file() {
        return std::fs::remove_file(path).with_context(|| format!("{}: cannot remove", path.display()));
    }
    remove_tree(path)
}

fn unpacked(build: &Build, into: &Path) -> Result<PathBuf> {
    let tarball = fetch::run(build, &build.sources.linux)?;
    build.ui.say("kernel", "unpacking");
    unpack::run(&tarball, into)
}

/// Unpacks the source into `scratch`, configures it from the fragments, checks the outcome, and returns its folder.
pub fn configured(build: &Build, log: &mut Log, scratch: &Path) -> Result<PathBuf> {
    let source = unpacked(build, scratch)?;
    configure(build, log, &source)?;
    Ok(source)
}

/// Configures `source` from the fragments, and checks the outcome.
fn configure(build: &Build, log: &mut Log, source: &Path) -> Result<()> {
    let fragments = Fragments::load(&build.layout.kernel_config())?;
    let shell = shell_in(build, source)?;
    log.run(make(build, &shell, &["tinyconfig"])?)?;
    let path = source.join(".config");
    // Kconfig takes the last assignment of a symbol.
    let base = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let asked = base + &fragments.merged_text();
    std::fs::write(&path, asked).with_context(|| format!("{}: cannot write", path.display()))?;
    log.run(make(build, &shell, &["olddefconfig"])?)?;
    fragments.check(&Config::load(&path)?, &Tree::load(source, "Kconfig")?)
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
