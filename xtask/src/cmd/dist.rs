//! dist/: the results. In: a whole image. Out: coracle.iso, vmlinuz, initramfs.cpio.gz, coracle, manifest.json,
//! SHA256SUMS. Must never: replace a whole file by a partial one; anything of this machine's paths stays out of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::artifact::{Artifact, sha256_bytes, sha256_file};
use crate::context::Build;
use crate::pipeline::Image;
use crate::stamp::{copy_whole, write_whole};

/// What the image was made of; no path and no time of this machine is in it.
#[derive(Serialize)]
struct Manifest<'a> {
    name: &'static str,
    version: &'static str,
    epoch: u64,
    sources: Vec<SourceEntry<'a>>,
    linked: Vec<Linked>,
    crates: serde_json::Value,
    tools: BTreeMap<&'static str, String>,
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

/// What comes from the machine's own packages and ends up in the image.
#[derive(Serialize)]
struct Linked {
    name: &'static str,
    licence: &'static str,
    version: String,
    part_of: &'static str,
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

/// Programs whose version can change what comes out, with the word that makes them say it.
const TOOLS: [(&str, &str); 9] = [
    ("gcc", "--version"),
    ("ld", "--version"),
    ("make", "--version"),
    ("flex", "--version"),
    ("bison", "--version"),
    ("rustc", "--version"),
    ("grub-mkimage", "--version"),
    ("xorriso", "-version"),
    ("mformat", "--version"),
];

/// Fills dist/ from `image`. A file that is already right is left alone, its time stamp too.
pub fn fill(build: &Build, image: &Image) -> Result<()> {
    let dist = build.layout.dist();
    let files = results(image);
    for (name, artifact) in &files {
        place(artifact, &dist.join(name))?;
    }
    let manifest = serde_json::to_vec_pretty(&manifest(build, image, &files)?)?;
    let mut sums: Vec<String> =
        files.iter().map(|(name, artifact)| format!("{}  {name}\n", artifact.sha256)).collect();
    sums.push(format!("{}  manifest.json\n", sha256_bytes(&manifest)));
    sums.sort_by(|one, other| one[64..].cmp(&other[64..]));
    write_if_changed(&dist.join("manifest.json"), &manifest)?;
    write_if_changed(&dist.join("SHA256SUMS"), sums.concat().as_bytes())
}

/// The files of dist/ that stages made, by name.
fn results(image: &Image) -> BTreeMap<&'static str, &Artifact> {
    BTreeMap::from([
        ("coracle.iso", &image.iso.0),
        ("vmlinuz", &image.kernel.image),
        ("initramfs.cpio.gz", &image.initramfs.archive),
        ("coracle", &image.parts.runtime.program),
    ])
}

fn manifest<'a>(
    build: &'a Build,
    image: &'a Image,
    files: &BTreeMap<&'static str, &'a Artifact>,
) -> Result<Manifest<'a>> {
    let stage = |artifact: &'a Artifact| StageEntry {
        key: &artifact.key,
        sha256: &artifact.sha256,
        size: artifact.size,
    };
    let sources = build.sources.all().map(|source| SourceEntry {
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
    let mut tools = BTreeMap::new();
    for (program, argument) in TOOLS {
        tools.insert(program, build.host.version(program, argument)?);
    }
    Ok(Manifest {
        name: "coracle",
        version: env!("CARGO_PKG_VERSION"),
        epoch: build.sources.epoch,
        sources: sources.into(),
        linked: linked(build)?,
        crates: serde_json::from_slice(&crates).context("the list of crates is not JSON")?,
        tools,
        stages: BTreeMap::from([
            ("kernel", stage(&image.kernel.image)),
            ("busybox", stage(&image.parts.busybox.program)),
            ("tini", stage(&image.parts.tini.0)),
            ("iproute2", stage(&image.parts.ip.0)),
            ("runtime", stage(&image.parts.runtime.program)),
            ("initramfs", stage(&image.initramfs.archive)),
            ("iso", stage(&image.iso.0)),
        ]),
        kernel_config_sha256: &image.kernel.config.sha256,
        files: files
            .iter()
            .map(|(name, artifact)| (*name, FileEntry { sha256: &artifact.sha256, size: artifact.size }))
            .collect(),
    })
}

/// The C libraries and GRUB: their versions are those of the machine, and so their licences apply as it has them.
fn linked(build: &Build) -> Result<Vec<Linked>> {
    let linked = |name, licence, version, part_of| Linked { name, licence, version, part_of };
    let libc = build.host.version("ldd", "--version")?;
    Ok(vec![
        linked("GRUB", "GPL-3.0-or-later", build.host.version("grub-mkimage", "--version")?, "coracle.iso"),
        linked("glibc", "LGPL-2.1-or-later", libc, "coracle"),
        linked("musl", "MIT", crate::stage::musl::version(), "busybox, tini, ip"),
        linked(
            "Rust's standard library",
            "Apache-2.0 OR MIT",
            build.host.version("rustc", "--version")?,
            "coracle",
        ),
    ])
}

fn place(artifact: &Artifact, to: &Path) -> Result<()> {
    let same_size = to.metadata().is_ok_and(|facts| facts.len() == artifact.size);
    if same_size && sha256_file(to)?.0 == artifact.sha256 {
        return Ok(());
    }
    copy_whole(&artifact.path, to)
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    match std::fs::read(path) {
        Ok(found) if found == bytes => Ok(()),
        _ => write_whole(path, bytes).context("dist/ could not be filled"),
    }
}
