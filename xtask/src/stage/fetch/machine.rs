//! A package of this machine -> the source that it was built from. In: a file that the package brings. Out: the files of
//! its Debian source package, each with the hash that the archive's signed index has. Must never: take another version
//! than the one installed: that is the one whose code is in the image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian::{self, Apt, output};
use super::{Fault, http};
use crate::artifact::sha256_file;
use crate::context::Build;

/// The source package behind the installed package `package`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Package {
    source: String,
    version: String,
}

/// One file of a source package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    directory: String,
    file: String,
    sha256: String,
}

/// Puts the source of the installed `package` into the cache, and returns its files.
pub fn source(build: &Build, package: &str) -> Result<Vec<PathBuf>> {
    let query = build.host.find("dpkg-query").context("this machine's packages are not Debian's")?;
    let format = "${source:Package} ${source:Version}";
    let said = output(Command::new(query).args(["--show", "--showformat", format, package]))?;
    let (source, version) =
        said.trim().split_once(' ').context("dpkg-query: said neither name nor version")?;
    let package = Package { source: source.to_owned(), version: version.to_owned() };
    let subject = format!("{} {}", package.source, package.version);
    let apt_get = build.host.require("apt-get")?;
    let lines = debian::machine_lines(&apt_get)?;
    let apt = Apt::prepare(build, &apt_get, &lines)?;
    if !build.fetch.offline {
        apt.update(build)?;
    }
    let entries = entries(&apt.showsrc(build, &package.source)?, &package);
    if entries.is_empty() {
        bail!("{subject}: no archive of this machine lists this version any more");
    }
    let archives: Vec<&str> = lines.iter().map(|(archive, _)| archive.as_str()).collect();
    entries.iter().map(|entry| fetch(build, &subject, &archives, entry)).collect()
}

fn fetch(build: &Build, subject: &str, archives: &[&str], entry: &Entry) -> Result<PathBuf> {
    let home = build.layout.sources().join(&entry.sha256).join(&entry.file);
    if home.is_file() && sha256_file(&home)?.0 == entry.sha256 {
        return Ok(home);
    }
    if build.fetch.offline {
        bail!("{subject}: {} is not in the cache, and --offline was said", entry.file);
    }
    let part = build.layout.sources().join("partial").join(format!("{}.part", entry.sha256));
    for dir in [part.parent(), home.parent()].into_iter().flatten() {
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    }
    let mut failures = Vec::new();
    for archive in archives {
        let url = format!("{archive}/{}/{}", entry.directory, entry.file);
        let failure = match http::download(build, subject, &url, &part) {
            Ok(_) if sha256_file(&part)?.0 == entry.sha256 => {
                std::fs::rename(&part, &home).with_context(|| format!("{}: cannot write", home.display()))?;
                return Ok(home);
            }
            Ok(_) => {
                std::fs::remove_file(&part).with_context(|| format!("{}: cannot remove", part.display()))?;
                format!("{url}: wrong hash")
            }
            Err(Fault::Machine(error)) => return Err(error),
            Err(Fault::Origin(error)) => format!("{url}: {error:#}"),
        };
        failures.push(failure);
    }
    bail!("{subject}: {} cannot be had: {}", entry.file, failures.join("; "))
}

/// The files of that version, as `apt-cache showsrc` lists them.
fn entries(index: &str, package: &Package) -> Vec<Entry> {
    let field = |paragraph: &str, name: &str| {
        let mut lines = paragraph.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    };
    let wanted = |paragraph: &&str| {
        field(paragraph, "Package").as_deref() == Some(&package.source)
            && field(paragraph, "Version").as_deref() == Some(&package.version)
    };
    let Some(paragraph) = index.split("\n\n").find(wanted) else { return Vec::new() };
    let directory = field(paragraph, "Directory").unwrap_or_default();
    let lines = paragraph.lines().skip_while(|line| !line.starts_with("Checksums-Sha256:")).skip(1);
    lines
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (sha256, file) = (words.next()?.to_owned(), words.nth(1)?.to_owned());
            let plain = Path::new(&file).file_name().is_some_and(|name| name == file.as_str());
            plain.then(|| Entry { directory: directory.clone(), file, sha256 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_version_is_taken_and_no_other() {
        let index = "Package: grub2\nVersion: 2.12-1\nChecksums-Sha256:\n aa 5 grub2_2.12.dsc\nDirectory: pool/new\n\n\
            Package: grub2\nVersion: 2.06-13\nFiles:\n bb 5 grub2_2.06.dsc\nChecksums-Sha256:\n cc 5 grub2_2.06.dsc\n \
            dd 6 grub2_2.06.orig.tar.xz\n ee 7 ../x\nDirectory: pool/old\n";
        let package = |version: &str| Package { source: "grub2".to_owned(), version: version.to_owned() };
        let found = entries(index, &package("2.06-13"));
        let names: Vec<(&str, &str)> =
            found.iter().map(|entry| (entry.sha256.as_str(), entry.file.as_str())).collect();
        assert_eq!(names, [("cc", "grub2_2.06.dsc"), ("dd", "grub2_2.06.orig.tar.xz")]);
        assert_eq!(found[0].directory, "pool/old");
        assert_eq!(entries(index, &package("2.06")), []);
    }
}
