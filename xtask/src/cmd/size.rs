//! `size`: what takes up space in the image. In: the artefacts, the lists of what the kernel and the initramfs hold. Out: a
//! table part by part, the kernel by subsystem, and file by file, on stdout; on demand the program by crate, another commit's sizes, a picture. Must never:
//! estimate what can be measured: a file's compressed size is its own.

mod compare;
mod crates;
mod treemap;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use crate::artifact::Artifact;
use crate::cli::SizeArgs;
use crate::context::Build;
use crate::layout::Layout;
use crate::pipeline::Image;
use crate::stage::kernel::Folders;
use crate::stage::rootfs::Contents;
use crate::stamp::write_whole;

#[derive(Debug, Deserialize)]
struct Content {
    path: String,
    bytes: u64,
}

/// Names and bytes.
type Items = Vec<(String, u64)>;

/// What to show besides the table.
#[derive(Debug)]
pub struct Plan {
    contents: Contents,
    crates: bool,
    compare: Option<String>,
    svg: Option<PathBuf>,
}

impl Plan {
    /// Checks what the user said.
    pub fn resolve(layout: &Layout, args: SizeArgs) -> Result<Self> {
        let contents = Contents::resolve(layout, &args.image)?;
        Ok(Self { contents, crates: args.crates, compare: args.compare, svg: args.svg })
    }
}

/// Prints the tables, and draws the picture.
pub fn run(build: &Build, plan: &Plan) -> Result<()> {
    let (image, mut out, files) = tables(build, &plan.contents)?;
    let crates = if plan.crates || plan.svg.is_some() { by_crate(build, &image)? } else { Vec::new() };
    if plan.crates {
        out += "\n   bytes  crate in the program\n";
        for (name, bytes) in &crates {
            out += &format!("{bytes:>8}  {name}\n");
        }
    }
    if let Some(revision) = &plan.compare {
        out += &compared(build, &image, revision)?;
    }
    if let Some(path) = &plan.svg {
        let panels = [
            ("coracle.iso", parts(&image).into()),
            (
                "objects of the kernel by subsystem, before compression",
                Folders::load(&image.kernel.folders.path)?.subsystems(),
            ),
            ("files of the initramfs, unpacked", files),
            ("the static program by crate", crates),
        ];
        let panels = panels.map(|(title, items)| treemap::Panel { title: title.to_owned(), items });
        write_whole(path, treemap::svg(&panels).as_bytes())?;
    }
    match std::io::stdout().write_all(out.as_bytes()) {
        // `| head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("stdout: cannot write"),
    }
}

/// What differs from another commit's image.
fn compared(build: &Build, image: &Image, revision: &str) -> Result<String> {
    let other = compare::build_other(build, revision)?;
    let (mut then, mut now) = (compare::measure(&other)?, compare::measure(&build.layout.dist())?);
    let Some(folders) = compare::folders_of(&other, build.layout.cache())? else {
        return Ok(
            compare::table(revision, &then, &now) + "the kernel's parts are not known of that commit\n"
        );
    };
    then.extend(compare::parts(&folders)?);
    now.extend(compare::parts(&image.kernel.folders.path)?);
    Ok(compare::table(revision, &then, &now))
}

/// The program's crates, the largest first.
fn by_crate(build: &Build, image: &Image) -> Result<Items> {
    let with_symbols = crate::stage::runtime::with_symbols(build)?;
    let mut sizes: Vec<_> = crates::run(&with_symbols, &image.parts.runtime.program)?.into_iter().collect();
    sizes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    Ok(sizes)
}

/// The parts of the ISO with their bytes.
fn parts(image: &Image) -> [(String, u64); 3] {
    let (iso, kernel, archive) = (&image.iso.0, &image.kernel.image, &image.initramfs.archive);
    let rest = iso.size.saturating_sub(kernel.size + archive.size);
    [("kernel", kernel.size), ("initramfs, compressed", archive.size), ("GRUB, EFI image, ISO 9660", rest)]
        .map(|(name, bytes)| (name.to_owned(), bytes))
}

/// The image, the tables as text, and the files of the initramfs.
fn tables(build: &Build, contents: &Contents) -> Result<(Image, String, Items)> {
    let image = super::iso::make(build, contents)?;
    let iso = &image.iso.0;
    let mut out = String::from("   bytes    share  part of coracle.iso\n");
    for (name, bytes) in parts(&image).into_iter().chain([("all".to_owned(), iso.size)]) {
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
    let folders = Folders::load(&image.kernel.folders.path)?;
    let subsystems = folders.subsystems();
    let linked: u64 = subsystems.iter().map(|(_, bytes)| bytes).sum();
    out += &format!(
        "\n   bytes  part of the kernel ({linked} bytes of objects, {} unpacked)\n",
        folders.unpacked
    );
    for (name, bytes) in subsystems {
        out += &format!("{bytes:>8}  {name}\n");
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
    let files = contents.into_iter().map(|content| (format!("/{}", content.path), content.bytes)).collect();
    Ok((image, out, files))
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
