//! `suites.toml` -> `Suites`. In: the file's text. Out: the pins of the upstream suites, and the root that they run in.
//! Must never: let a pin through that has no hash, or a suite that has no source.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::context::Build;
use crate::sources::{Origin, Place, Source};
use crate::stage::fetch::{self, Tarball};

/// An upstream suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// runc's own, in bats.
    Runc,
    /// The same, called by a user who is not root.
    RuncRootless,
    /// The same with systemd's cgroup driver, where systemd is PID 1.
    RuncSystemd,
    /// The same with the cgroup driver of the user's systemd.
    RuncSystemdRootless,
    /// crun's own, in Python.
    Crun,
    /// The CNI reference plugins' own, in Go: `conformance cni`.
    #[value(skip)]
    CniPlugins,
}

impl Suite {
    /// Those with a source of their own.
    const SOURCES: [Suite; 3] = [Suite::Runc, Suite::Crun, Suite::CniPlugins];

    /// Those of the OCI runtime.
    pub const OCI: [Suite; 5] =
        [Suite::Runc, Suite::RuncRootless, Suite::RuncSystemd, Suite::RuncSystemdRootless, Suite::Crun];

    /// The suite that it is another way of calling, or itself.
    pub fn source(self) -> Self {
        match self {
            Self::RuncRootless | Self::RuncSystemd | Self::RuncSystemdRootless => Self::Runc,
            Self::Runc | Self::Crun | Self::CniPlugins => self,
        }
    }

    /// Its name, as the command line and the data files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::RuncRootless => "runc-rootless",
            Self::RuncSystemd => "runc-systemd",
            Self::RuncSystemdRootless => "runc-systemd-rootless",
            Self::Crun => "crun",
            Self::CniPlugins => "cni-plugins",
        }
    }
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suites {
    /// What the suites run in.
    pub root: Root,
    /// What the plugins' suites run in.
    pub cni_root: Root,
    /// What the real callers run in.
    pub callers: Root,
    /// What podman with its CNI backend runs in.
    pub callers_cni: Root,
    runc: Vec<Pin>,
    crun: Vec<Pin>,
    cni_plugins: Vec<Pin>,
    cnitool: Vec<Pin>,
}

/// A Debian release and what is installed of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The release's name.
    pub release: String,
    /// Packages besides the essential ones.
    pub packages: Vec<String>,
}

/// A Debian source package that holds a suite.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    version: String,
    package: String,
    suites: Vec<String>,
    file: String,
    sha256: String,
    built_in: String,
}

/// A suite's source, had and checked.
#[derive(Debug)]
pub struct Found {
    /// The upstream version.
    pub version: String,
    /// The Debian release whose packages its programs are built with.
    pub built_in: String,
    /// The source.
    pub tarball: Tarball,
    /// Why an earlier pin was passed over, if one was.
    pub passed_over: Option<String>,
}

impl Suites {
    /// Reads the file of this checkout.
    pub fn load(build: &Build) -> Result<Self> {
        let path = build.layout.conformance().join("suites.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}: cannot be used", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let suites: Self = toml::from_str(text)?;
        let pinned = Suite::SOURCES.map(|suite| (suite.name(), suites.pins(suite)));
        for (name, pins) in pinned.into_iter().chain([("cnitool", suites.cnitool.as_slice())]) {
            if pins.is_empty() {
                bail!("{name}: has no source");
            }
            let wrong =
                |pin: &&Pin| pin.sha256.len() != 64 || pin.file.contains('/') || pin.suites.is_empty();
            if let Some(pin) = pins.iter().find(wrong) {
                bail!(
                    "{name} {}: needs a sha256 of 64 digits, a plain file name, and a Debian suite at least",
                    pin.version
                );
            }
        }
        Ok(suites)
    }

    fn pins(&self, suite: Suite) -> &[Pin] {
        match suite.source() {
            Suite::Crun => &self.crun,
            Suite::CniPlugins => &self.cni_plugins,
            _ => &self.runc,
        }
    }

    /// The first source of `suite` that can be had.
    pub fn find(&self, build: &Build, suite: Suite) -> Result<Found> {
        first(build, suite.name(), self.pins(suite))
    }

    /// The first source that can be had of the reference's tool that calls plugins.
    pub fn find_cnitool(&self, build: &Build) -> Result<Found> {
        first(build, "cnitool", &self.cnitool)
    }
}

/// The first of the sources of `name` that can be had.
fn first(build: &Build, name: &str, pins: &[Pin]) -> Result<Found> {
    let mut failures = Vec::new();
    for pin in pins {
        match fetch::run(build, &pin.source()) {
            Ok(tarball) => {
                return Ok(Found {
                    version: pin.version.clone(),
                    built_in: pin.built_in.clone(),
                    tarball,
                    passed_over: (!failures.is_empty()).then(|| failures.join("\n")),
                });
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("suite {name}: none of its sources can be had:\n{}", failures.join("\n"))
}

impl Pin {
    fn source(&self) -> Source {
        Source {
            name: self.package.clone(),
            version: self.version.clone(),
            // Nothing of it is in the image.
            licence: String::new(),
            licence_files: Vec::new(),
            origins: vec![Origin {
                place: Place::Debian { package: self.package.clone(), suites: self.suites.clone() },
                file: self.file.clone(),
                sha256: self.sha256.clone(),
                hash_from: "Debian's source index".to_owned(),
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = include_str!("../../conformance/suites.toml");

    #[test]
    fn the_real_file_resolves() {
        let suites = Suites::parse(REAL).unwrap();
        assert_eq!(suites.pins(Suite::Runc)[0].source().origins[0].file, "runc_1.3.6+ds1.orig.tar.xz");
        assert!(suites.root.packages.iter().any(|package| package == "bats"));
    }

    #[test]
    fn a_pin_without_a_whole_hash_is_refused() {
        let message = Suites::parse(&REAL.replacen("4bfb700e", "4b", 1)).unwrap_err().to_string();
        assert!(message.starts_with("crun 1.21"), "{message}");
        let message = Suites::parse(&REAL.replacen("78fed6b6", "78", 1)).unwrap_err().to_string();
        assert!(message.starts_with("cnitool 1.3.0"), "{message}");
    }
}
