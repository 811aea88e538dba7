//! runtime/ -> the static program `coracle`, and its test programs for the VM. In: the crate, the lock file, the
//! toolchain. Out: ELF files with no interpreter and no NEEDED entry. Must never: let the checkout's or the user's paths into the program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::artifact::{Artifact, RuntimeProgram};
use crate::context::Build;
use crate::stage::musl;
use crate::stamp::{Inputs, Workshop, produce};

/// What the program is compiled for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The folders of runtime/ that the program is compiled from.
const SOURCES: [&str; 6] = ["src", "cni", "netlink", "oci", "spec", "sys"];

/// The linker's rules for the program that ships.
const RULES: &str = "runtime/shipped.ld";

/// Which functions lie together; `cargo xtask order` writes it.
pub const ORDER: &str = "runtime/order.ld";

/// Whether a program unwinds its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwinds {
    /// What ships aborts where it panics.
    Never,
    /// A test program reports the test and goes on.
    ByPanic,
}

/// Builds the program.
pub fn run(build: &Build) -> Result<RuntimeProgram> {
    let inputs = inputs(build, "runtime", Unwinds::Never)?;
    let [program, crates] = produce(build, inputs, ["coracle", "crates.json"], |shop| {
        let what = ["build", "--release", "--bin", "coracle"];
        cargo(build, shop, &what, "static", Unwinds::Never)?;
        take(&build.layout.target().join("static").join(TARGET).join("release/coracle"), shop, "coracle")?;
        list_crates(build, &shop.out.join("crates.json"))
    })?;
    Ok(RuntimeProgram { program, crates })
}

/// The program as it ships, but with its symbols: to see what takes up space in it.
pub fn with_symbols(build: &Build) -> Result<Artifact> {
    let inputs = inputs(build, "runtime-symbols", Unwinds::Never)?;
    let [program] = produce(build, inputs, ["coracle"], |shop| {
        let what = ["build", "--release", "--bin", "coracle", "--config", "profile.release.strip=false"];
        cargo(build, shop, &what, "static-symbols", Unwinds::Never)?;
        let made = build.layout.target().join("static-symbols").join(TARGET).join("release/coracle");
        take(&made, shop, "coracle")
    })?;
    Ok(program)
}

/// Builds runtime/tests/NAME.rs as a static test program, to be run in the VM.
pub fn test_program(build: &Build, name: &str) -> Result<Artifact> {
    let tests = build.layout.root().join("runtime/tests");
    let inputs =
        inputs(build, "vm-test", Unwinds::ByPanic)?.text("name", name).tree("runtime/tests", &tests)?;
    let [program] = produce(build, inputs, ["test"], |shop| {
        let what = ["test", "--no-run", "--test", name];
        cargo(build, shop, &what, "static-tests", Unwinds::ByPanic)?;
        let made = build.layout.target().join("static-tests").join(TARGET).join("debug/deps");
        take(&newest(&made, name)?, shop, "test")
    })?;
    Ok(program)
}

fn inputs(build: &Build, stage: &'static str, unwinds: Unwinds) -> Result<Inputs> {
    let root = build.layout.root();
    let mut inputs = Inputs::new(stage, 5);
    for name in SOURCES.map(|folder| format!("runtime/{folder}")) {
        inputs = inputs.tree(&name, &root.join(&name))?;
    }
    if unwinds == Unwinds::Never {
        inputs = musl::library(build, inputs)?;
    }
    Ok(inputs
        .file("runtime/Cargo.toml", &root.join("runtime/Cargo.toml"))?
        .file("Cargo.toml", &root.join("Cargo.toml"))?
        .file("Cargo.lock", &root.join("Cargo.lock"))?
        .file("rust-toolchain.toml", &root.join("rust-toolchain.toml"))?
        .text("rustc", &build.host.version("rustc", "-vV")?)
        .text("linker", &build.host.version("ld", "--version")?)
        .file(RULES, &root.join(RULES))?
        .file(ORDER, &root.join(ORDER))?
        .text("flags", &flags(&Folders::names(), unwinds)))
}

fn cargo(
    build: &Build,
    shop: &mut Workshop,
    what: &[&str],
    target_dir: &str,
    unwinds: Unwinds,
) -> Result<()> {
    let root = build.layout.root();
    let shell = Shell::new()?;
    shell.change_dir(root);
    let target_dir = build.layout.target().join(target_dir);
    let jobs = build.jobs.to_string();
    let folders = Folders { root, cargo_home: &cargo_home()?, musl: musl::folder()? };
    let (epoch, flags) = (build.sources.epoch.to_string(), flags(&folders, unwinds));
    let locked = cargo_offline(build);
    let command = cmd!(shell, "cargo {what...} --locked {locked...} --package runtime --target {TARGET} --target-dir {target_dir} --jobs {jobs}")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("SOURCE_DATE_EPOCH", epoch);
    shop.log.run(command)
}

/// Writes name, version and licence of every crate that is linked into the program, as Cargo.lock has them. Procedural
/// macros run at build time and are not among them.
fn list_crates(build: &Build, to: &Path) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(build.layout.root());
    let locked = cargo_offline(build);
    let format = "{p}|{l}";
    let text = cmd!(shell, "cargo tree --locked {locked...} --package runtime --edges normal,no-proc-macro --target {TARGET} --prefix none --no-dedupe --format {format}")
        .ignore_stderr()
        .quiet()
        .read()
        .context("cargo tree could not list the program's crates")?;
    let mut crates: Vec<_> = text.lines().filter_map(parse_crate).collect();
    crates.sort();
    crates.dedup();
    let crates: Vec<_> = crates
        .into_iter()
        .map(|(name, version, licence)| serde_json::json!({ "name": name, "version": version, "licence": licence }))
        .collect();
    crate::stamp::write_whole(to, &serde_json::to_vec_pretty(&crates)?)
}

/// `NAME vVERSION (PLACE)|LICENCE`; a crate of this workspace has a place, and is not listed.
fn parse_crate(line: &str) -> Option<(&str, &str, &str)> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    words.next().is_none().then_some((name, version, licence))
}

fn take(made: &Path, shop: &Workshop, name: &str) -> Result<()> {
    check_static(made)?;
    std::fs::copy(made, shop.out.join(name)).with_context(|| format!("{}: cannot copy", made.display()))?;
    Ok(())
}

/// The newest program `NAME-HASH` in cargo's folder: the one that was just built.
fn newest(folder: &Path, name: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot list", folder.display()))?;
    let mine = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-') && !rest.contains('.'))
    };
    let programs = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(mine);
    let newest = programs.max_by_key(|path| path.metadata().and_then(|facts| facts.modified()).ok());
    newest.with_context(|| format!("{}: cargo left no test program {name}", folder.display()))
}

/// cargo's own word for no network, where it was asked for.
pub fn cargo_offline(build: &Build) -> &'static [&'static str] {
    if build.fetch.offline { &["--offline"] } else { &[] }
}

/// Folders of this machine that the compiler is told.
struct Folders<'a> {
    root: &'a Path,
    cargo_home: &'a Path,
    musl: &'a Path,
}

impl Folders<'static> {
    /// In their places, for a stage's key, which is the same on every machine.
    fn names() -> Self {
        let [root, cargo_home, musl] = ["ROOT", "CARGO_HOME", "MUSL"].map(Path::new);
        Self { root, cargo_home, musl }
    }
}

/// The compiler's flags, as CARGO_ENCODED_RUSTFLAGS wants them. Paths of this machine are replaced by fixed words.
fn flags(folders: &Folders, unwinds: Unwinds) -> String {
    let Folders { root, cargo_home, musl } = folders;
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        // At a fixed address, with nothing to relocate: docs/decisions/0014-fixed-address.md has what that is worth.
        "-Crelocation-model=static".to_owned(),
        format!("--remap-path-prefix={}=coracle", root.display()),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
    ];
    if unwinds == Unwinds::Never {
        // docs/decisions/0018-musl-for-the-program.md; test programs unwind, and stay with glibc.
        let file = |name: &str| musl.join(name).display().to_string();
        let own = ["-nostartfiles".to_owned(), format!("-L{}", musl.display())];
        let words = own.into_iter().chain(["crt1.o", "crti.o", "crtn.o"].map(file));
        flags.extend(words.map(|word| format!("-Clink-arg={word}")));
        // Names that tell instances of one generic function apart: order.ld goes by them.
        flags.push("-Csymbol-mangling-version=v0".to_owned());
        // How stacks are unwound is 348 kB of the program, 124 kB gzipped.
        for script in [RULES, ORDER] {
            flags.push(format!("-Clink-arg=-Wl,-T,{}", root.join(script).display()));
        }
        flags.push("-Clink-arg=-Wl,--no-eh-frame-hdr".to_owned());
    }
    flags.join("\x1f")
}

/// Where cargo keeps what it downloads.
pub fn cargo_home() -> Result<std::path::PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    home.context("neither CARGO_HOME nor HOME is set")
}

/// Refuses a program that asks for an interpreter or a shared library (ELF-64, little endian; elf(5)).
fn check_static(path: &Path) -> Result<()> {
    const PT_INTERP: u32 = 3;
    const PT_DYNAMIC: u32 = 2;
    const DT_NEEDED: u64 = 1;
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    for (kind, content) in
        segments(&bytes).with_context(|| format!("{}: not an ELF program", path.display()))?
    {
        if kind == PT_INTERP {
            bail!("{}: asks for an interpreter; it must be static", path.display());
        }
        let needs_library =
            |content: &[u8]| content.chunks_exact(16).any(|entry| u64_at(entry, 0) == Some(DT_NEEDED));
        if kind == PT_DYNAMIC && needs_library(content) {
            bail!("{}: asks for a shared library; it must be static", path.display());
        }
    }
    Ok(())
}

/// Program headers with the bytes that they cover; None when `bytes` is not a whole ELF-64 file.
fn segments(bytes: &[u8]) -> Option<Vec<(u32, &[u8])>> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64_at(bytes, 32)?).ok()?;
    let (size, count) = (usize::from(u16_at(bytes, 54)?), usize::from(u16_at(bytes, 56)?));
    (0..count)
        .map(|index| {
            let header = bytes.get(table.checked_add(index * size)?..)?;
            let kind = u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
            let (offset, length) = (u64_at(header, 8)?, u64_at(header, 32)?);
            let start = usize::try_from(offset).ok()?;
            Some((kind, bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)?))
        })
        .collect()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_is_dynamic_and_refused() {
        let message = check_static(&std::env::current_exe().unwrap()).unwrap_err().to_string();
        assert!(message.contains("must be static"), "{message}");
    }

    #[test]
    fn a_crate_is_a_name_a_version_and_a_licence() {
        assert_eq!(
            parse_crate("libc v0.2.1|MIT OR Apache-2.0"),
            Some(("libc", "0.2.1", "MIT OR Apache-2.0"))
        );
        assert_eq!(parse_crate("runtime v0.1.0 (/somewhere/runtime)|Apache-2.0"), None);
    }

    #[test]
    fn a_text_file_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, "hello").unwrap();
        assert!(check_static(&path).unwrap_err().to_string().contains("not an ELF program"));
    }
}
