//! `size`: what takes up space in the image. In: the artefacts, the initramfs's list of contents. Out: a table part by
//! part, and file by file, on stdout. Must never: estimate what can be measured: a file's compressed size is its own.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use crate::artifact::Artifact;
use crate::context::Build;
use crate::stage::rootfs::Contents;

#[derive(Debug, Deserialize)]
struct Content {
    path: String,
    bytes: u64,
}

/// Prints the tables.
pub fn run(build: &Build, contents: &Contents) -> Result<()> {
    let image = super::iso::make(build, contents)?;
    let (iso, kernel, archive) = (&image.iso.0, &image.kernel.image, &image.initramfs.archive);
    let rest = iso.size.saturating_sub(kernel.size + archive.size);
    let mut out = String::from("   bytes    share  part of coracle.iso\n");
    for (name, bytes) in [
        ("kernel", kernel.size),
        ("initramfs, compressed", archive.size),
        ("GRUB, EFI image, ISO 9660", rest),
        ("all", iso.size),
    ] {
        out += &format!("{bytes:>8}  {:>6.1}%  {name}\n", bytes as f64 * 100.0 / iso.size as f64);
    }
    out += "\n   bytes  gzipped  program\n";
    let programs = [
        ("coracle (runtime and network)", &image.parts.runtime.program),
        ("busybox", &image.parts.busybox.program),
        ("ip", &image.parts.ip.0),
        ("tini", &image.parts.tini.0),
    ];
    for (name, artifact) in programs {
        out += &format!("{:>8} {:>8}  {name}\n", artifact.size, gzipped(artifact)?);
    }
    let path = &image.initramfs.contents.path;
    let text = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let mut contents: Vec<Content> =
        serde_json::from_slice(&text).with_context(|| format!("{}: not such a list", path.display()))?;
    contents.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.path.cmp(&other.path)));
    let total: u64 = contents.iter().map(|content| content.bytes).sum();
    out += &format!("\n   bytes  file of the initramfs ({} entries, {total} bytes)\n", contents.len());
    for content in contents.iter().filter(|content| content.bytes > 0) {
        out += &format!("{:>8}  /{}\n", content.bytes, content.path);
    }
    match std::io::stdout().write_all(out.as_bytes()) {
        // `| head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("stdout: cannot write"),
    }
}

fn gzipped(artifact: &Artifact) -> Result<usize> {
    let bytes =
        std::fs::read(&artifact.path).with_context(|| format!("{}: cannot read", artifact.path.display()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(&bytes)
        .and_then(|()| encoder.finish())
        .map(|packed| packed.len())
        .context("cannot compress")
}
