//! `sources`: what the GPL asks to hand on with the image. In: the pins, this checkout, the machine's packages. Out: a
//! folder with the exact tarballs, this repository's files (fragments, recipes, scripts), the crates, the sources of GRUB,
//! and a README that says how to build from it. Must never: call an incomplete folder complete.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};

use crate::artifact::sha256_file;
use crate::cli::SourcesArgs;
use crate::context::Build;
use crate::stage::crates;
use crate::stage::fetch::{self, machine};
use crate::stamp::{copy_whole, write_whole};

/// Packages of the machine whose code is in the image under a licence that asks for its source, as Debian calls them.
const MACHINE: [(&str, &str); 1] = [("GRUB", "grub-pc-bin")];

const README: &str = "\
What Coracle's image was built from.

*.tar.*            the pinned sources of Linux, BusyBox, Tini and iproute2, as they were unpacked
coracle.tar.gz     this repository: kernel and BusyBox configuration, build recipes, scripts, our own program
crates/            the Rust crates in our program, as the registry has them
machine/           the building machine's packages of which code is in the image: GRUB
SHA256SUMS         for `sha256sum -c`

To build the image again, without a network for the pinned sources:

    mkdir coracle && tar -xzf coracle.tar.gz -C coracle && cd coracle
    cargo fetch
    cargo xtask --offline --mirror DIR iso

DIR is this folder. README.md in coracle.tar.gz says what the machine needs.
";

/// Gathers everything, and says at the end what could not be had.
pub fn run(build: &Build, args: &SourcesArgs) -> Result<()> {
    let out = std::path::absolute(&args.out)
        .with_context(|| format!("--out {}: is not a path", args.out.display()))?;
    let mut failures = Vec::new();
    for source in build.sources.all() {
        match fetch::run(build, source) {
            Ok(tarball) => put(&tarball.path, &out)?,
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    write_whole(&out.join("coracle.tar.gz"), &repository(build)?)?;
    match crate::pipeline::runtime(build).and_then(|program| crates::archives(build, &program)) {
        Ok(archives) => archives.iter().try_for_each(|(_, path)| put(path, &out.join("crates")))?,
        Err(error) => failures.push(format!("the crates in our program: {error:#}")),
    }
    let wanted = if args.pinned_only { &[][..] } else { &MACHINE[..] };
    for (name, package) in wanted {
        match machine::source(build, package) {
            Ok(files) => files.iter().try_for_each(|file| put(file, &out.join("machine")))?,
            Err(error) => failures.push(format!("{name}, from this machine's package {package}: {error:#}")),
        }
    }
    write_whole(&out.join("README"), README.as_bytes())?;
    write_whole(&out.join("SHA256SUMS"), sums(&out)?.as_bytes())?;
    if !failures.is_empty() {
        bail!("{}: is not complete:\n  {}", out.display(), failures.join("\n  "));
    }
    let but = if args.pinned_only { ", but for GRUB's" } else { "" };
    build.ui.say("sources", &format!("{}: complete{but}", out.display()));
    Ok(())
}

fn put(file: &Path, dir: &Path) -> Result<()> {
    let name = file.file_name().with_context(|| format!("{}: is no file name", file.display()))?;
    copy_whole(file, &dir.join(name))
}

/// Every file of this checkout that git knows or would take, as .tar.gz: in order, without owners and times.
fn repository(build: &Build) -> Result<Vec<u8>> {
    let root = build.layout.root();
    let encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(encoder);
    archive.mode(tar::HeaderMode::Deterministic);
    archive.follow_symlinks(false);
    for name in checkout_files(build)? {
        let path = root.join(&name);
        // Removed here, and not yet committed so.
        if path.symlink_metadata().is_err() {
            continue;
        }
        archive
            .append_path_with_name(&path, &name)
            .with_context(|| format!("{}: cannot pack", path.display()))?;
    }
    let encoder = archive.into_inner().context("the repository could not be packed")?;
    encoder.finish().context("the repository could not be packed")
}

/// The checkout's files, relative to its top, in order.
pub fn checkout_files(build: &Build) -> Result<Vec<String>> {
    let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let said = build.host.git(build.layout.root(), &words)?;
    let text = String::from_utf8(said).context("git ls-files: a name is not UTF-8")?;
    let mut names: Vec<String> =
        text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// SHA256SUMS of all files below `dir`.
fn sums(dir: &Path) -> Result<String> {
    let mut lines = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("{}: cannot list", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("{}: cannot list", folder.display()))?.path();
            let name = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name != "SHA256SUMS" {
                lines.insert(name.clone(), format!("{}  {name}\n", sha256_file(&path)?.0));
            }
        }
    }
    Ok(lines.into_values().collect())
}
