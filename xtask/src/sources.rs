//! `sources.toml` -> `Sources`. In: the file's text. Out: pins that were checked, every one.
//! Must never: reach for the network, or let a pin through that has no hash.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::Spanned;

/// The file as written; unknown fields are errors, so that a misspelt one is found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSources {
    epoch: u64,
    source: BTreeMap<String, Spanned<RawSource>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    version: String,
    licence: String,
    licence_files: Spanned<Vec<String>>,
    origin: Vec<Spanned<RawOrigin>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrigin {
    url: Option<Spanned<String>>,
    debian: Option<Spanned<String>>,
    suites: Option<Spanned<Vec<String>>>,
    file: Option<Spanned<String>>,
    sha256: Spanned<String>,
    hash_from: String,
}

/// The pins, resolved.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Seconds since 1970: every time stamp in the image.
    pub epoch: u64,
    /// The Linux kernel.
    pub linux: Source,
    /// BusyBox.
    pub busybox: Source,
    /// Tini.
    pub tini: Source,
    /// iproute2.
    pub iproute2: Source,
}

/// One pinned source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its key in `sources.toml`.
    pub name: String,
    /// The upstream version.
    pub version: String,
    /// SPDX expression.
    pub licence: String,
    /// The files of the source, relative to its top folder, that hold the licence's text; at least one.
    pub licence_files: Vec<String>,
    /// Where it can be had, in the order in which to try; at least one.
    pub origins: Vec<Origin>,
}

/// A place to have a source from, and the hash of what it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The place.
    pub place: Place,
    /// The tarball's file name there.
    pub file: String,
    /// Lower-case hexadecimal sha256 of the tarball.
    pub sha256: String,
    /// Where the hash was taken from.
    pub hash_from: String,
}

/// Kinds of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A plain address.
    Url(String),
    /// A Debian source package, found through the machine's own apt configuration.
    Debian {
        /// The source package's name.
        package: String,
        /// Suites to look in; alternatives of each other.
        suites: Vec<String>,
    },
}

impl Sources {
    /// Reads and checks the file at `path`. Errors name file, line and field.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Checks the text of such a file, which errors call `file`.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let raw: RawSources = toml::from_str(text).map_err(|error| toml_error(file, text, &error))?;
        let mut resolved = BTreeMap::new();
        let mut lines = BTreeMap::new();
        for (name, source) in raw.source {
            lines.insert(name.clone(), line_of(text, source.span()));
            let at = |span: Range<usize>, field: &str| {
                format!("{file}:{}: source.{name}{field}", line_of(text, span))
            };
            let source = resolve(&name, source, &at)?;
            resolved.insert(name, source);
        }
        let mut take = |name: &str| {
            resolved
                .remove(name)
                .with_context(|| format!("{file}: source.{name} is missing; the pipeline builds it"))
        };
        let (linux, busybox, tini, iproute2) =
            (take("linux")?, take("busybox")?, take("tini")?, take("iproute2")?);
        if let Some(name) = resolved.keys().next() {
            let line = lines.get(name).copied().unwrap_or(1);
            bail!(
                "{file}:{line}: source.{name}: no stage uses this source; remove it or spell its name as a stage does"
            );
        }
        Ok(Self { epoch: raw.epoch, linux, busybox, tini, iproute2 })
    }

    /// All sources in the order of their names.
    pub fn all(&self) -> [&Source; 4] {
        [&self.busybox, &self.iproute2, &self.linux, &self.tini]
    }
}

impl Source {
    /// What identifies the pin, whichever origin serves it: goes into stage keys.
    pub fn pin(&self) -> String {
        let hashes: Vec<&str> = self.origins.iter().map(|origin| origin.sha256.as_str()).collect();
        format!("{} {} {}", self.name, self.version, hashes.join(" "))
    }
}

/// `at` names the place of a field: file, line, and the field's path.
fn resolve(name: &str, raw: Spanned<RawSource>, at: &dyn Fn(Range<usize>, &str) -> String) -> Result<Source> {
    let (header, raw) = (raw.span(), raw.into_inner());
    if raw.origin.is_empty() {
        bail!("{}: has no [[source.{name}.origin]]; add at least one", at(header, ".origin"));
    }
    if raw.licence_files.get_ref().is_empty() {
        bail!(
            "{}: is empty; name the files of the source that hold its licence's text",
            at(raw.licence_files.span(), ".licence_files")
        );
    }
    let mut origins = Vec::new();
    for (index, origin) in raw.origin.into_iter().enumerate() {
        let at = |span: Range<usize>, field: &str| at(span, &format!(".origin[{index}].{field}"));
        origins.push(resolve_origin(origin, &at)?);
    }
    Ok(Source {
        name: name.to_owned(),
        version: raw.version,
        licence: raw.licence,
        licence_files: raw.licence_files.into_inner(),
        origins,
    })
}

fn resolve_origin(raw: Spanned<RawOrigin>, at: &dyn Fn(Range<usize>, &str) -> String) -> Result<Origin> {
    let (header, raw) = (raw.span(), raw.into_inner());
    let sha256 = raw.sha256.get_ref();
    if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        bail!(
            "{}: {sha256:?} is not a sha256: 64 lower-case hexadecimal digits",
            at(raw.sha256.span(), "sha256")
        );
    }
    let (place, file) = match (raw.url, raw.debian) {
        (Some(url), None) => {
            let (span, url) = (url.span(), url.into_inner());
            let last = url.rsplit('/').next().unwrap_or_default().to_owned();
            if !(url.starts_with("https://") || url.starts_with("http://")) || last.is_empty() {
                bail!("{}: {url:?} is not an http(s) address of a file", at(span, "url"));
            }
            (Place::Url(url), raw.file.unwrap_or_else(|| Spanned::new(span, last)))
        }
        (None, Some(package)) => {
            let (span, suites) = match raw.suites {
                Some(suites) => (suites.span(), suites.into_inner()),
                None => (package.span(), Vec::new()),
            };
            if suites.is_empty() {
                bail!("{}: name at least one suite, such as \"bookworm\"", at(span, "suites"));
            }
            let Some(file) = raw.file else {
                bail!(
                    "{}: is missing; a Debian origin needs the tarball's file name",
                    at(package.span(), "file")
                );
            };
            (Place::Debian { package: package.into_inner(), suites }, file)
        }
        (Some(url), Some(_)) => {
            bail!("{}: an origin has either `url` or `debian`, not both", at(url.span(), "url"))
        }
        (None, None) => bail!("{}: is missing, and so is `debian`; give one of the two", at(header, "url")),
    };
    let (span, file) = (file.span(), file.into_inner());
    if file.contains('/') || file.starts_with('.') {
        bail!("{}: {file:?} is not a plain file name", at(span, "file"));
    }
    Ok(Origin { place, file, sha256: raw.sha256.into_inner(), hash_from: raw.hash_from })
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    text[..span.start.min(text.len())].matches('\n').count() + 1
}

fn toml_error(file: &str, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let line = error.span().map_or(1, |span| line_of(text, span));
    anyhow::anyhow!("{file}:{line}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = include_str!("../sources.toml");

    fn error_of(text: &str) -> String {
        Sources::parse(text, "sources.toml").unwrap_err().to_string()
    }

    #[test]
    fn the_real_file_resolves() {
        let sources = Sources::parse(REAL, "sources.toml").unwrap();
        assert_eq!(sources.linux.origins.len(), 2);
        assert_eq!(sources.linux.origins[0].file, "linux-6.12.95.tar.xz");
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let text = REAL.replace("licence = \"MIT\"", "license = \"MIT\"");
        let line = text.lines().position(|line| line.starts_with("license")).unwrap() + 1;
        let message = error_of(&text);
        assert!(message.starts_with(&format!("sources.toml:{line}:")), "{message}");
        assert!(message.contains("license"), "{message}");
    }

    #[test]
    fn a_short_hash_is_named_with_its_field() {
        let message = error_of(&REAL.replacen("a9e8c51f", "a9e8", 1));
        assert!(message.contains("source.linux.origin[0].sha256"), "{message}");
    }

    #[test]
    fn a_source_without_a_licence_text_is_refused() {
        let message = error_of(&REAL.replacen("licence_files = [\"LICENSE\"]", "licence_files = []", 1));
        assert!(message.contains("licence_files: is empty"), "{message}");
    }

    #[test]
    fn an_origin_of_two_kinds_or_none_is_refused() {
        let message =
            error_of(&REAL.replacen("debian = \"tini\"", "debian = \"tini\"\nurl = \"https://x/y\"", 1));
        assert!(message.contains("source.tini.origin[1]"), "{message}");
    }

    #[test]
    fn a_missing_source_is_named() {
        let text = REAL.replace("source.tini", "source.dumb-init");
        assert!(error_of(&text).contains("source.tini is missing"));
    }

    #[test]
    fn broken_toml_names_its_line() {
        assert!(error_of("epoch = 1\n[source\n").starts_with("sources.toml:2:"));
    }
}
