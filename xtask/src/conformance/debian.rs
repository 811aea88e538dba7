//! A Debian root -> a folder. In: a release, packages, hooks. Out: the tree, made by mmdebstrap. Must never: be made
//! without root: the tree has owners and devices.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::context::Build;
use crate::stage::fetch::debian_archives;
use crate::stamp::Workshop;

/// What a root is made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The release's name.
    pub release: &'a str,
    /// Packages besides the essential ones.
    pub packages: &'a [String],
    /// mmdebstrap's hooks: option and shell text, in which `$1` is the tree.
    pub hooks: &'a [(&'static str, String)],
}

/// Makes the root in the folder `into`.
pub fn make(build: &Build, shop: &mut Workshop, recipe: &Recipe<'_>, into: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a Debian root with its owners can only be made by root; run `cargo xtask conformance` as root"
        );
    }
    if build.fetch.offline {
        bail!("Debian packages are needed, and --offline forbids to get them; run once without it");
    }
    let archives = debian_archives(build)?;
    let archive = archives.first().context("apt knows no Debian archive")?;
    let mut command = Command::new(build.host.require("mmdebstrap")?);
    command
        .args(["--variant=apt", "--mode=root", "--format=directory"])
        // A mirror may stand still (sid's lists are valid for a week); what it holds is signed all the same.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        // A tree that a crash may spoil is made anew.
        .arg("--dpkgopt=force-unsafe-io")
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        .arg(format!("--include={}", recipe.packages.join(",")));
    for (option, text) in recipe.hooks {
        command.arg(format!("{option}={text}"));
    }
    command.arg(recipe.release).arg(into).arg(archive).env("LC_ALL", "C");
    shop.log.run(command)
}

/// A path as one word of a hook's shell text.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
