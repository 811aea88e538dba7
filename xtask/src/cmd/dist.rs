//! dist/: the results. In: a whole image. Out: coracle.iso, vmlinuz, initramfs.cpio.gz, coracle, its papers (manifest.json,
//! two bills of materials, licences.txt, provenance.json), SHA256SUMS. Must never: replace a whole file by a partial one; anything of this machine's paths stays out of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::artifact::{Artifact, sha256_bytes, sha256_file};
use crate::context::Build;
use crate::pipeline::Image;
use crate::prove::materials::Linked;
use crate::prove::{Materials, cyclonedx, provenance, spdx};
use crate::stamp::{copy_whole, write_whole};

/// What the image was made of; no path and no time of this machine is in it.
#[derive(Serialize)]
struct Manifest<'a> {
    name: &'static str,
    version: &'static str,
    epoch: u64,
    sources: Vec<SourceEntry<'a>>,
    linked: &'a [Linked],
    crates: serde_json::Value,
    tools: &'a BTreeMap<&'static str, String>,
    stages: BTreeMap<&'static str, StageEntry<'a>>,
    kernel_config_sha256: &'a str,
    files: BTreeMap<&'static str, FileEntry<'a>>,
}

#[derive(Serialize)]
struct SourceEntry<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
    origins: Vec<OriginEntry<'a>>,
}

#[derive(Serialize)]
struct OriginEntry<'a> {
    file: &'a str,
    sha256: &'a str,
    hash_from: &'a str,
}

#[derive(Serialize)]
struct StageEntry<'a> {
    key: &'a str,
    sha256: &'a str,
    size: u64,
}

#[derive(Serialize)]
struct FileEntry<'a> {
    sha256: &'a str,
    size: u64,
}

/// The signature of SHA256SUMS, if it was asked for.
const SIGNATURE: &str = "SHA256SUMS.sig";

/// Fills dist/ from `image`. A file that is already right is left alone, its time stamp too.
pub fn fill(build: &Build, image: &Image) -> Result<()> {
    let dist = build.layout.dist();
    let materials = Materials::gather(build, image)?;
    let mut sums: BTreeMap<&str, String> = BTreeMap::new();
    for (name, artifact) in &materials.files {
        place(artifact, &dist.join(name))?;
        sums.insert(name, artifact.sha256.clone());
    }
    for (name, paper) in [
        ("manifest.json", serde_json::to_value(manifest(&materials, image)?)?),
        ("coracle.cdx.json", cyclonedx::document(&materials)),
        ("coracle.spdx.json", spdx::document(&materials)),
    ] {
        sums.insert(name, write_paper(&dist.join(name), &paper)?);
    }
    // The last paper: it speaks of all the others.
    let commit = provenance::commit(build.layout.root());
    let statement = provenance::statement(&materials, commit.as_ref(), &sums);
    sums.insert("provenance.json", write_paper(&dist.join("provenance.json"), &statement)?);
    let lines: Vec<String> = sums.iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect();
    if write_if_changed(&dist.join("SHA256SUMS"), lines.concat().as_bytes())? {
        // It was for other bytes.
        remove_file(&dist.join(SIGNATURE))?;
    }
    Ok(())
}

/// Writes a paper, and returns its sha256.
fn write_paper(path: &Path, paper: &serde_json::Value) -> Result<String> {
    let mut text = serde_json::to_vec_pretty(paper)?;
    text.push(b'\n');
    write_if_changed(path, &text)?;
    Ok(sha256_bytes(&text))
}

fn manifest<'a>(materials: &'a Materials, image: &'a Image) -> Result<Manifest<'a>> {
    let sources = materials.sources.all().map(|source| SourceEntry {
        name: &source.name,
        version: &source.version,
        licence: &source.licence,
        origins: source
            .origins
            .iter()
            .map(|origin| OriginEntry {
                file: &origin.file,
                sha256: &origin.sha256,
                hash_from: &origin.hash_from,
            })
            .collect(),
    });
    let crates = &image.parts.runtime.crates.path;
    let crates = std::fs::read(crates).with_context(|| format!("{}: cannot read", crates.display()))?;
    let stage = |artifact: &'a Artifact| StageEntry {
        key: &artifact.key,
        sha256: &artifact.sha256,
        size: artifact.size,
    };
    let file = |artifact: &'a Artifact| FileEntry { sha256: &artifact.sha256, size: artifact.size };
    Ok(Manifest {
        name: "coracle",
        version: materials.version,
        epoch: materials.epoch,
        sources: sources.into(),
        linked: &materials.linked,
        crates: serde_json::from_slice(&crates).context("the list of crates is not JSON")?,
        tools: &materials.tools,
        stages: materials.stages.iter().map(|(name, artifact)| (*name, stage(artifact))).collect(),
        kernel_config_sha256: &image.kernel.config.sha256,
        files: materials.files.iter().map(|(name, artifact)| (*name, file(artifact))).collect(),
    })
}

fn place(artifact: &Artifact, to: &Path) -> Result<()> {
    let same_size = to.metadata().is_ok_and(|facts| facts.len() == artifact.size);
    if same_size && sha256_file(to)?.0 == artifact.sha256 {
        return Ok(());
    }
    copy_whole(&artifact.path, to)
}

/// Whether it had to be written.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    match std::fs::read(path) {
        Ok(found) if found == bytes => Ok(false),
        _ => write_whole(path, bytes).context("dist/ could not be filled").map(|()| true),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: cannot remove", path.display()))
        }
        _ => Ok(()),
    }
}
