//! The image of another commit beside this one. In: a revision that git knows. Out: parts and files with both sizes. Must
//! never: touch this checkout: the other commit is built in a worktree of its own, by its own xtask.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::context::Build;
use crate::prove::differ;
use crate::stage::kernel::Folders;

/// Bytes of what dist/ holds, by name; files of the initramfs under `/`.
pub fn measure(dist: &Path) -> Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for name in ["coracle.iso", "vmlinuz", "initramfs.cpio.gz", "coracle"] {
        let path = dist.join(name);
        let facts = path.metadata().with_context(|| format!("{}: cannot look at", path.display()))?;
        sizes.insert(name.to_owned(), facts.len());
    }
    sizes.extend(differ::archive_sizes(&dist.join("initramfs.cpio.gz"))?);
    Ok(sizes)
}

/// Bytes of the kernel's parts.
pub fn parts(folders: &Path) -> Result<BTreeMap<String, u64>> {
    let parts = Folders::load(folders)?.subsystems();
    Ok(parts.into_iter().map(|(name, bytes)| (format!("kernel: {name}"), bytes)).collect())
}

/// The list of the kernel's parts that belongs to `dist`; None for a commit from before there were such lists.
pub fn folders_of(dist: &Path, cache: &Path) -> Result<Option<PathBuf>> {
    let folders = cache.join("built/kernel").join(kernel_key(dist)?).join("folders.json");
    Ok(folders.is_file().then_some(folders))
}

/// The key of the kernel that dist/ holds.
fn kernel_key(dist: &Path) -> Result<String> {
    let path = dist.join("manifest.json");
    let text = std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{}: not a manifest", path.display()))?;
    let key = manifest["stages"]["kernel"]["key"].as_str();
    Ok(key.with_context(|| format!("{}: tells no key of a kernel", path.display()))?.to_owned())
}

/// Builds the image of `revision` and returns its dist/.
pub fn build_other(build: &Build, revision: &str) -> Result<PathBuf> {
    let commit = git(build, &["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")])
        .with_context(|| format!("--compare {revision}: git knows no such commit"))?;
    let tree = build.layout.target().join("compare").join(&commit[..12]);
    if !tree.join("Cargo.toml").is_file() {
        git(build, &["worktree", "prune"])?;
        let path = tree.to_str().with_context(|| format!("{}: not UTF-8", tree.display()))?;
        git(build, &["worktree", "add", "--detach", "--force", path, &commit])?;
    }
    build.ui.say("size", &format!("building {revision} ({}) in {}", &commit[..12], tree.display()));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "xtask", "--"])
        .arg("--cache-dir")
        .arg(build.layout.cache())
        .arg("iso")
        .current_dir(&tree)
        // One for all that are compared: their xtasks share most crates.
        .env("CARGO_TARGET_DIR", build.layout.target().join("compare/target"))
        .stdout(std::io::stderr())
        .status()
        .context("cargo: cannot run")?;
    if !status.success() {
        bail!("--compare {revision}: its image could not be built ({status})");
    }
    Ok(tree.join("dist"))
}

/// The table of what differs.
pub fn table(revision: &str, then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> String {
    let mut out = format!("\n    then      now   change  since {revision}\n");
    let names: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let of = |sizes: &BTreeMap<String, u64>, name: &String| sizes.get(name).copied().unwrap_or_default();
    let mut rows: Vec<(i128, &String, u64, u64)> = names
        .into_iter()
        .map(|name| (name, of(then, name), of(now, name)))
        .filter(|(_, then, now)| then != now)
        .map(|(name, then, now)| (i128::from(now) - i128::from(then), name, then, now))
        .collect();
    rows.sort_by_key(|(change, name, _, _)| (std::cmp::Reverse(change.abs()), *name));
    if rows.is_empty() {
        return out + "every part has the same size\n";
    }
    for (change, name, then, now) in rows {
        out += &format!("{then:>8} {now:>8} {change:>+8}  {name}\n");
    }
    out
}

fn git(build: &Build, words: &[&str]) -> Result<String> {
    let said = build.host.git(build.layout.root(), words)?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_change_comes_first_and_what_is_equal_not_at_all() {
        let map =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
        let (then, now) =
            (map(&[("a", 5), ("b", 100), ("c", 7)]), map(&[("a", 6), ("b", 60), ("c", 7), ("d", 2)]));
        let text = table("HEAD~1", &then, &now);
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "     100       60      -40  b",
                "       0        2       +2  d",
                "       5        6       +1  a"
            ]
        );
        assert!(table("x", &then, &then).contains("the same size"));
    }
}
