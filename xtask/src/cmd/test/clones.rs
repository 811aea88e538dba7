//! Two clones, one image. In: this checkout's committed state. Out: an error if a clone in a folder of another name and
//! depth, with a cache of its own, makes other bytes. Must never: let the clone find the first one's artefacts: only the
//! sources and the kernel are handed on, since building the kernel twice would take as long as all the rest.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::artifact::sha256_file;
use crate::context::Build;
use crate::stage::rootfs::Contents;
use crate::stamp::remove_tree;

/// What must be the same to the bit.
const FILES: [&str; 4] = ["coracle.iso", "initramfs.cpio.gz", "coracle", "manifest.json"];

/// Builds the image a second time and compares.
pub fn run(build: &Build) -> Result<()> {
    let image = crate::cmd::iso::make(build, &Contents::default())?;
    let room = build.layout.target().join("two-clones");
    remove_tree(&room)?;
    let clone = room.join("a/folder/of another name");
    let cache = room.join("cache");
    git(build, &["clone", "--quiet", "--no-hardlinks", path(build.layout.root())?, path(&clone)?])?;
    // What is not committed yet is part of what is tested.
    overlay_changes(build, &clone)?;
    hand_on(&build.layout.sources(), &cache.join("sources"))?;
    let kernel = image.kernel.image.path.parent().context("the kernel lies in no folder")?;
    let key = kernel.file_name().context("the kernel's folder has no name")?;
    hand_on(kernel, &cache.join("built/kernel").join(key))?;
    // xtask works on the checkout around its current folder, so it need not be built again; the image's program is.
    let status = super::xtask()
        .args(["--cache-dir", path(&cache)?, "iso"])
        .current_dir(&clone)
        .env("TZ", "Asia/Kathmandu")
        .stdout(std::io::stderr())
        .status()
        .context("xtask: cannot run")?;
    if !status.success() {
        bail!("the second clone's image could not be built ({status})");
    }
    compare(&build.layout.dist(), &clone.join("dist"))?;
    remove_tree(&room)
}

fn compare(one: &Path, other: &Path) -> Result<()> {
    let mut different = Vec::new();
    for name in FILES {
        let (first, second) = (sha256_file(&one.join(name))?, sha256_file(&other.join(name))?);
        if first != second {
            different
                .push(format!("{name}: {} bytes {} and {} bytes {}", first.1, first.0, second.1, second.0));
        }
    }
    if different.is_empty() {
        return Ok(());
    }
    bail!(
        "two clones made different files; compare {} and {}:\n{}",
        one.display(),
        other.display(),
        different.join("\n")
    );
}

fn overlay_changes(build: &Build, clone: &Path) -> Result<()> {
    let output = Command::new(build.host.require("git")?)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(build.layout.root())
        .output()
        .context("git: cannot run")?;
    for name in String::from_utf8_lossy(&output.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (build.layout.root().join(name), clone.join(name));
        let Ok(facts) = from.symlink_metadata() else {
            // Deleted here, and not yet committed so.
            let _ = std::fs::remove_file(&to);
            continue;
        };
        if facts.is_symlink()
            || to.symlink_metadata().is_ok_and(|there| there.len() == facts.len() && same(&from, &to))
        {
            continue;
        }
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("{}: cannot create", parent.display()))?;
        }
        std::fs::copy(&from, &to).with_context(|| format!("{}: cannot copy", from.display()))?;
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((sha256_file(one), sha256_file(other)), (Ok(one), Ok(other)) if one == other)
}

/// Copies a folder of files, with folders below it.
fn hand_on(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("{}: cannot create", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("{}: cannot list", from.display()))? {
        let path: PathBuf = entry.with_context(|| format!("{}: cannot list", from.display()))?.path();
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.is_dir() {
            hand_on(&path, &target)?;
        } else if std::fs::hard_link(&path, &target).is_err() {
            std::fs::copy(&path, &target).with_context(|| format!("{}: cannot copy", path.display()))?;
        }
    }
    Ok(())
}

fn git(build: &Build, words: &[&str]) -> Result<()> {
    let status = Command::new(build.host.require("git")?)
        .args(words)
        .current_dir(build.layout.root())
        .stdout(std::io::stderr())
        .status()
        .context("git: cannot run")?;
    if !status.success() {
        bail!("git {} failed ({status})", words.join(" "));
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: not UTF-8", path.display()))
}
