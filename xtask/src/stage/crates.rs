//! A crate in our program -> its archive, as the registry has it. In: cargo's own cache. Out: .crate files whose hashes are
//! those of Cargo.lock. Must never: take cargo's unpacked folders, which anything may have changed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::artifact::{RuntimeProgram, sha256_bytes};
use crate::context::Build;
use crate::prove::materials::{self, Crate};
use crate::stage::runtime;

/// Every crate in `program` with its archive. What cargo does not have is fetched by it.
pub fn archives(build: &Build, program: &RuntimeProgram) -> Result<Vec<(Crate, PathBuf)>> {
    let lock = build.layout.root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).with_context(|| format!("{}: cannot read", lock.display()))?;
    let crates = materials::crates(&program.crates.path, &lock)?;
    let find = |part: &Crate| Ok::<_, anyhow::Error>((part.clone(), archive(part)?));
    let found: Vec<(Crate, Option<PathBuf>)> = crates.iter().map(find).collect::<Result<_>>()?;
    if found.iter().any(|(_, path)| path.is_none()) {
        fetch(build)?;
    }
    crates
        .iter()
        .map(|part| {
            let path = archive(part)?.with_context(|| {
                format!(
                    "crate {} {}: cargo keeps no archive with the hash in Cargo.lock",
                    part.name, part.version
                )
            })?;
            Ok((part.clone(), path))
        })
        .collect()
}

fn archive(part: &Crate) -> Result<Option<PathBuf>> {
    let cache = runtime::cargo_home()?.join("registry/cache");
    let registries = std::fs::read_dir(&cache).into_iter().flatten().flatten();
    let name = format!("{}-{}.crate", part.name, part.version);
    let mut places = registries.map(|registry| registry.path().join(&name));
    Ok(places.find(|path| std::fs::read(path).is_ok_and(|bytes| sha256_bytes(&bytes) == part.sha256)))
}

fn fetch(build: &Build) -> Result<()> {
    let output = Command::new("cargo")
        .args(["fetch", "--locked", "--target", runtime::TARGET])
        .args(runtime::cargo_offline(build))
        .current_dir(build.layout.root())
        .stdin(Stdio::null())
        .output()
        .context("cargo: cannot run")?;
    if !output.status.success() {
        bail!("cargo fetch: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The files at the top of an archive whose names `wanted` likes, by name.
pub fn top_files(archive: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>> {
    let subject = || format!("{}: cannot unpack", archive.display());
    let bytes = std::fs::read(archive).with_context(subject)?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
    let mut files = BTreeMap::new();
    for entry in tar.entries().with_context(subject)? {
        let mut entry = entry.with_context(subject)?;
        let path = entry.path().with_context(subject)?.into_owned();
        let [_, name] = path.iter().collect::<Vec<_>>()[..] else { continue };
        let name = name.to_string_lossy().into_owned();
        if entry.header().entry_type().is_file() && wanted(&name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(subject)?;
            files.insert(name, bytes);
        }
    }
    Ok(files)
}
