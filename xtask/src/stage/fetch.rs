//! Pin -> verified tarball. In: a `Source`. Out: a file in `<cache>/sources/<sha256>/` whose hash is the recorded one.
//!
//! Origins are tried in order: a mirror if one was named, then those of the pin. A download is kept under a temporary
//! name, so that a cut is resumed; it is renamed only when its hash is right.
//! Must never: let a wrong hash into the cache, or make a machine without a way out wait for more than seconds.

mod debian;
mod http;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;

use crate::artifact::sha256_file;
use crate::context::{Build, Mirror};
use crate::sources::{Origin, Place, Source};
use crate::stamp::copy_whole;

/// A verified tarball.
#[derive(Debug, Clone)]
pub struct Tarball {
    /// Where it lies.
    pub path: PathBuf,
    /// Its hash: one of the pin's.
    pub sha256: String,
}

/// Returns `source` from the cache, or from the first origin that has it. When all fail, the one error names every
/// origin, why it failed, and what to do.
pub fn run(build: &Build, source: &Source) -> Result<Tarball> {
    if let Some(tarball) = cached(build, source)? {
        build.ui.detail("fetch", &format!("{} {}: in the cache", source.name, source.version));
        return Ok(tarball);
    }
    let _lock = lock(build, source)?;
    if let Some(tarball) = cached(build, source)? {
        return Ok(tarball);
    }
    let mut failures = Vec::new();
    for attempt in attempts(build, source) {
        match attempt.carry_out(build, source) {
            Ok(tarball) => return Ok(tarball),
            Err(error) => {
                build.ui.say(
                    "fetch",
                    &format!("{} {}: {}: {error:#}", source.name, source.version, attempt.name()),
                );
                failures.push(format!("  {}: {error:#}", attempt.name()));
            }
        }
    }
    let tried = if failures.is_empty() {
        "  nothing: --offline, and no --mirror folder".to_owned()
    } else {
        failures.join("\n")
    };
    let files: Vec<&str> = source.origins.iter().map(|origin| origin.file.as_str()).collect();
    bail!(
        "source {} {} cannot be had; tried:\n{tried}\nput one of {} into a folder and name it with --mirror DIR, or run again with a network",
        source.name,
        source.version,
        files.join(", ")
    );
}

/// One thing to try.
enum Attempt<'a> {
    Mirror(&'a Mirror, &'a Origin),
    Origin(&'a Origin),
}

fn attempts<'a>(build: &'a Build, source: &'a Source) -> Vec<Attempt<'a>> {
    let network = !build.fetch.offline;
    let mirror = build.fetch.mirror.as_ref().filter(|mirror| network || matches!(mirror, Mirror::Folder(_)));
    let mut attempts = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    if let Some(mirror) = mirror {
        let distinct = source.origins.iter().filter(|origin| seen.insert(origin.file.as_str()));
        attempts.extend(distinct.map(|origin| Attempt::Mirror(mirror, origin)));
    }
    if network {
        attempts.extend(source.origins.iter().map(Attempt::Origin));
    }
    attempts
}

impl Attempt<'_> {
    fn name(&self) -> String {
        match self {
            Self::Mirror(Mirror::Folder(dir), origin) => dir.join(&origin.file).display().to_string(),
            Self::Mirror(Mirror::Url(url), origin) => mirror_url(url, origin),
            Self::Origin(origin) => match &origin.place {
                Place::Url(url) => url.clone(),
                Place::Debian { package, suites } => {
                    format!("Debian source package {package} ({})", suites.join(", "))
                }
            },
        }
    }

    fn carry_out(&self, build: &Build, source: &Source) -> Result<Tarball> {
        let origin = match self {
            Self::Mirror(_, origin) | Self::Origin(origin) => origin,
        };
        let part = partial(build, origin);
        if let Some(dir) = part.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
        }
        match self {
            Self::Mirror(Mirror::Folder(dir), origin) => copy_whole(&dir.join(&origin.file), &part)?,
            Self::Mirror(Mirror::Url(url), origin) => {
                http::download(build, &source.name, &mirror_url(url, origin), &part)?
            }
            Self::Origin(origin) => match &origin.place {
                Place::Url(url) => http::download(build, &source.name, url, &part)?,
                Place::Debian { package, suites } => {
                    debian::download(build, &source.name, package, suites, origin, &part)?
                }
            },
        }
        admit(build, origin, &part)
    }
}

fn mirror_url(url: &str, origin: &Origin) -> String {
    format!("{}/{}", url.trim_end_matches('/'), origin.file)
}

/// Moves a complete download into the cache if its hash is right, and removes it if not.
fn admit(build: &Build, origin: &Origin, part: &Path) -> Result<Tarball> {
    let (found, _) = sha256_file(part)?;
    if found != origin.sha256 {
        std::fs::remove_file(part).with_context(|| format!("{}: cannot remove", part.display()))?;
        bail!("wrong hash: expected sha256 {}, got {found}; the file was thrown away", origin.sha256);
    }
    let home = place(build, origin);
    if let Some(dir) = home.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    }
    std::fs::rename(part, &home).with_context(|| format!("{}: cannot put in place", home.display()))?;
    Ok(Tarball { path: home, sha256: origin.sha256.clone() })
}

/// Whichever origin's tarball is in the cache. It was verified before it got there; whoever unpacks it verifies again.
fn cached(build: &Build, source: &Source) -> Result<Option<Tarball>> {
    for origin in &source.origins {
        let path = place(build, origin);
        if path.try_exists().with_context(|| format!("{}: cannot look at", path.display()))? {
            return Ok(Some(Tarball { path, sha256: origin.sha256.clone() }));
        }
    }
    Ok(None)
}

fn place(build: &Build, origin: &Origin) -> PathBuf {
    build.layout.sources().join(&origin.sha256).join(&origin.file)
}

fn partial(build: &Build, origin: &Origin) -> PathBuf {
    build.layout.sources().join("partial").join(format!("{}.part", origin.sha256))
}

fn lock(build: &Build, source: &Source) -> Result<File> {
    let dir = build.layout.locks();
    std::fs::create_dir_all(&dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    let path = dir.join(format!("fetch-{}", source.name));
    let file = File::create(&path).with_context(|| format!("{}: cannot create", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("{}: cannot lock", path.display()))?;
    Ok(file)
}
