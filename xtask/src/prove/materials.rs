//! What goes into an image. In: the image, the pins, Cargo.lock, the machine's tools. Out: `Materials`.
//! Must never: leave out a part because it comes from the machine's packages: GRUB and the C libraries are in the image.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::context::Build;
use crate::pipeline::Image;
use crate::sources::Sources;

/// All that an image is made of, and what came out.
#[derive(Debug)]
pub struct Materials<'a> {
    /// Coracle's version.
    pub version: &'static str,
    /// Every time stamp.
    pub epoch: u64,
    /// The pinned C sources.
    pub sources: &'a Sources,
    /// The Rust crates in the static program.
    pub crates: Vec<Crate>,
    /// What comes from the machine's own packages.
    pub linked: Vec<Linked>,
    /// Versions of the tools that can change what comes out.
    pub tools: BTreeMap<&'static str, String>,
    /// The stages with their keys.
    pub stages: BTreeMap<&'static str, &'a Artifact>,
    /// The files of dist/ that stages made.
    pub files: BTreeMap<&'static str, &'a Artifact>,
    /// The user's bundles, by name.
    pub bundles: Vec<String>,
}

/// A crate that is linked into the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SPDX expression.
    pub licence: String,
    /// sha256 of the crate's archive, as Cargo.lock has it.
    pub sha256: String,
}

/// What comes from the machine's own packages and ends up in the image.
#[derive(Debug, Serialize)]
pub struct Linked {
    /// Its name.
    pub name: &'static str,
    /// SPDX expression.
    pub licence: &'static str,
    /// As the machine says it.
    pub version: String,
    /// The files of the image that hold it.
    pub part_of: &'static str,
}

/// Programs whose version can change what comes out, with the word that makes them say it.
const TOOLS: [(&str, &str); 13] = [
    ("gcc", "--version"),
    ("ld", "--version"),
    ("make", "--version"),
    ("flex", "--version"),
    ("bison", "--version"),
    // They write tables of the kernel; mawk knows only this word, and gawk knows it too.
    ("awk", "-Wversion"),
    ("bc", "--version"),
    ("perl", "--version"),
    // Packs the kernel.
    ("zstd", "--version"),
    ("rustc", "--version"),
    ("grub-mkimage", "--version"),
    ("xorriso", "-version"),
    ("mformat", "--version"),
];

impl<'a> Materials<'a> {
    /// Gathers them.
    pub fn gather(build: &'a Build, image: &'a Image) -> Result<Self> {
        let lock = build.layout.root().join("Cargo.lock");
        let lock =
            std::fs::read_to_string(&lock).with_context(|| format!("{}: cannot read", lock.display()))?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            epoch: build.sources.epoch,
            sources: &build.sources,
            crates: crates(&image.parts.runtime.crates.path, &lock)?,
            linked: linked(build)?,
            tools: tools(build)?,
            stages: BTreeMap::from([
                ("kernel", &image.kernel.image),
                ("busybox", &image.parts.busybox.program),
                ("tini", &image.parts.tini.0),
                ("iproute2", &image.parts.ip.0),
                ("runtime", &image.parts.runtime.program),
                ("initramfs", &image.initramfs.archive),
                ("licences", &image.licences.0),
                ("iso", &image.iso.0),
            ]),
            files: BTreeMap::from([
                ("coracle.iso", &image.iso.0),
                ("vmlinuz", &image.kernel.image),
                ("initramfs.cpio.gz", &image.initramfs.archive),
                ("coracle", &image.parts.runtime.program),
                ("licences.txt", &image.licences.0),
            ]),
            bundles: image.bundles.clone(),
        })
    }

    /// What tells this image from every other: the hash of its files' hashes.
    pub fn identity(&self) -> String {
        let lines: Vec<String> =
            self.files.iter().map(|(name, artifact)| format!("{name} {}\n", artifact.sha256)).collect();
        lines.concat()
    }
}

/// Headers that are compiled in, each with the definition that tells its version.
const HEADERS: [(&str, &str, &str); 2] = [
    ("the kernel's user-space headers", "/usr/include/linux/version.h", "LINUX_VERSION_CODE"),
    // objtool, which rewrites the kernel's objects, is linked with its library.
    ("libelf's headers", "/usr/include/elfutils/version.h", "_ELFUTILS_VERSION"),
];

/// The tools, the C libraries and the headers, with their versions.
pub fn tools(build: &Build) -> Result<BTreeMap<&'static str, String>> {
    let programs = TOOLS.map(|(program, word)| Ok((program, build.host.version(program, word)?)));
    let mut tools: BTreeMap<&'static str, String> = programs.into_iter().collect::<Result<_>>()?;
    tools.insert("musl", crate::stage::musl::version());
    for (name, path, word) in HEADERS {
        // Another distribution may keep it elsewhere; that is a difference too, and so it is said.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        tools.insert(name, defined(&text, word).unwrap_or("unknown").to_owned());
    }
    Ok(tools)
}

/// What a C header defines `word` as.
fn defined<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line.strip_prefix("#define")?.split_whitespace();
        (words.next() == Some(word)).then(|| words.next())?
    })
}

/// The crates that the runtime stage listed, with their hashes from Cargo.lock.
pub fn crates(list: &Path, lock: &str) -> Result<Vec<Crate>> {
    #[derive(Deserialize)]
    struct Listed {
        name: String,
        version: String,
        licence: String,
    }
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let text = std::fs::read(list).with_context(|| format!("{}: cannot read", list.display()))?;
    let listed: Vec<Listed> =
        serde_json::from_slice(&text).with_context(|| format!("{}: not a list of crates", list.display()))?;
    let lock: Lock = toml::from_str(lock).context("Cargo.lock: not as cargo writes it")?;
    let checksums: BTreeMap<(String, String), String> = lock
        .package
        .into_iter()
        .filter_map(|package| Some(((package.name, package.version), package.checksum?)))
        .collect();
    listed
        .into_iter()
        .map(|Listed { name, version, licence }| {
            let key = (name, version);
            let sha256 = checksums.get(&key).cloned();
            let sha256 = sha256.with_context(|| format!("Cargo.lock: no checksum of {} {}", key.0, key.1))?;
            Ok(Crate { name: key.0, version: key.1, licence: expression(&licence), sha256 })
        })
        .collect()
}

/// Cargo's older form of a choice, `MIT/Apache-2.0`, as an SPDX expression.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// The C libraries and GRUB: their versions are those of the machine, and so their licences apply as it has them.
fn linked(build: &Build) -> Result<Vec<Linked>> {
    let linked = |name, licence, version, part_of| Linked { name, licence, version, part_of };
    let (gcc, rustc) = (build.host.version("gcc", "--version")?, build.host.version("rustc", "--version")?);
    let exception = "GPL-3.0-or-later WITH GCC-exception-3.1";
    Ok(vec![
        linked("GRUB", "GPL-3.0-or-later", build.host.version("grub-mkimage", "--version")?, "coracle.iso"),
        linked("libgcc", exception, gcc, "busybox, coracle, ip, tini"),
        linked("musl", "MIT", crate::stage::musl::version(), "busybox, coracle, ip, tini"),
        linked("Rust's standard library", "Apache-2.0 OR MIT", rustc, "coracle"),
    ])
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Materials with the real pins, and every crate of the real lock file under a licence of an older form.
    pub fn real() -> Materials<'static> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
        let packages: toml::Value = toml::from_str(&lock).unwrap();
        let listed: Vec<_> = packages["package"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|package| package.get("checksum").is_some())
            .map(|package| {
                let text = |field: &str| package[field].as_str().unwrap().to_owned();
                serde_json::json!({ "name": text("name"), "version": text("version"), "licence": "MIT/Apache-2.0" })
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("crates.json");
        std::fs::write(&list, serde_json::to_vec(&listed).unwrap()).unwrap();
        let artifact = |letter: &str| -> &'static Artifact {
            Box::leak(Box::new(Artifact {
                path: "/nowhere".into(),
                sha256: letter.repeat(64),
                size: 7,
                key: letter.repeat(64),
            }))
        };
        Materials {
            version: "0.1.0",
            epoch: 1_793_491_200,
            sources: Box::leak(Box::new(Sources::load(&root.join("xtask/sources.toml")).unwrap())),
            crates: crates(&list, &lock).unwrap(),
            linked: vec![Linked {
                name: "GRUB",
                licence: "GPL-3.0-or-later",
                version: "grub-mkimage (GRUB) 2.06-13+deb12u2".to_owned(),
                part_of: "coracle.iso",
            }],
            tools: BTreeMap::from([("gcc", "gcc 12".to_owned())]),
            stages: BTreeMap::from([("iso", artifact("a"))]),
            files: BTreeMap::from([("coracle.iso", artifact("a")), ("coracle", artifact("b"))]),
            bundles: vec!["web".to_owned()],
        }
    }

    #[test]
    fn a_crate_has_the_hash_that_cargo_lock_has() {
        let materials = real();
        let serde = materials.crates.iter().find(|part| part.name == "serde").unwrap();
        assert_eq!((serde.sha256.len(), serde.licence.as_str()), (64, "MIT OR Apache-2.0"));
    }

    #[test]
    fn a_header_tells_its_version() {
        let text = "#ifndef _V_H\n#define _V_H\t1\n#define _V\t188\n#define _V_MORE 2\n";
        assert_eq!((defined(text, "_V"), defined(text, "_W")), (Some("188"), None));
    }

    #[test]
    fn a_crate_that_cargo_lock_does_not_know_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("crates.json");
        std::fs::write(&list, r#"[{"name":"x","version":"1.0.0","licence":"MIT"}]"#).unwrap();
        let message = crates(&list, "version = 4\n").unwrap_err().to_string();
        assert_eq!(message, "Cargo.lock: no checksum of x 1.0.0");
    }
}
