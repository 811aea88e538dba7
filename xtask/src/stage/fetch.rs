//! Pin -> verified tarball. In: a `Source`. Out: a file in `<cache>/sources/<sha256>/` whose hash is the recorded one.
//!
//! Origins are tried in order: a mirror if one was named, then those of the pin. A download is kept under a temporary
//! name, so that a cut is resumed; it is renamed only when its hash is right.
//! Must never: let a wrong hash into the cache, or make a machine without a way out wait for more than seconds.

pub mod debian;
mod http;
pub mod machine;

pub use debian::debian_archives;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::artifact::sha256_file;
use crate::context::{Build, Mirror};
use crate::sources::{Origin, Place, Source};
use crate::stamp::{copy_whole, lock, way_out};

/// A verified tarball.
#[derive(Debug, Clone)]
pub struct Tarball {
    /// Where it lies.
    pub path: PathBuf,
    /// Its hash: one of the pin's.
    pub sha256: String,
}

/// Why an attempt failed, which tells whether another one may help.
#[derive(Debug)]
pub enum Fault {
    /// The origin does not have it, or not now: the next one is tried.
    Origin(anyhow::Error),
    /// This machine can't keep it: no other origin would change that.
    Machine(anyhow::Error),
}

impl Fault {
    /// `path` could not be written.
    fn writing(path: &Path, error: std::io::Error) -> Self {
        let mend = way_out(&error);
        Self::Machine(anyhow::Error::new(error).context(format!(
            "{}: cannot write; {mend} and run again, or keep the cache elsewhere with --cache-dir DIR",
            path.display()
        )))
    }

    /// The same; an origin's fault is said to have had this consequence.
    fn in_context(self, consequence: impl FnOnce() -> String) -> Self {
        match self {
            Self::Origin(error) => Self::Origin(error.context(consequence())),
            Self::Machine(error) => Self::Machine(error),
        }
    }
}

/// When a download that is now whole was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// By this attempt.
    Now,
    /// By an earlier run, maybe from another place.
    Earlier,
}

/// Returns `source` from the cache, or from the first origin that has it. When all fail, the one error names every
/// origin, why it failed, and what to do. A failure that another origin mended is said in one line.
pub fn run(build: &Build, source: &Source) -> Result<Tarball> {
    if let Some(tarball) = cached(build, source)? {
        build.ui.detail("fetch", &format!("{} {}: in the cache", source.name, source.version));
        return Ok(tarball);
    }
    let _lock = lock(build, "fetch", &format!("fetch-{}", source.name))?;
    remove_spoilt(build, source)?;
    if let Some(tarball) = cached(build, source)? {
        return Ok(tarball);
    }
    let subject = format!("{} {}", source.name, source.version);
    let mut failures = Vec::new();
    for attempt in attempts(build, source) {
        build.ui.say("fetch", &format!("{subject}: trying {}", attempt.name()));
        match attempt.carry_out(build, source) {
            Ok(tarball) => {
                for failure in failures {
                    build.ui.say("fetch", &format!("{subject}: could not be had from {failure}"));
                }
                return Ok(tarball);
            }
            Err(Fault::Origin(error)) => failures.push(format!("{}: {error:#}", attempt.name())),
            Err(Fault::Machine(error)) => {
                return Err(error.context(format!("source {subject} can't be kept")));
            }
        }
    }
    Err(nothing_had(build, source, &failures))
}

/// The text at `url`: a listing, a list of hashes. At most a few megabytes.
pub fn text(build: &Build, url: &str) -> Result<String> {
    http::text(build, url)
}

/// The one error, when all have failed.
fn nothing_had(build: &Build, source: &Source, failures: &[String]) -> anyhow::Error {
    let mut files: Vec<&str> = source.origins.iter().map(|origin| origin.file.as_str()).collect();
    files.dedup();
    let way_out = if build.fetch.offline { "without --offline" } else { "when an origin can be reached" };
    let tried = if failures.is_empty() {
        "is not in the cache, and --offline without --mirror DIR leaves nothing to try".to_owned()
    } else {
        let lines: Vec<String> = failures.iter().map(|failure| format!("  {failure}")).collect();
        format!("cannot be had; tried:\n{}", lines.join("\n"))
    };
    anyhow!(
        "source {} {} {tried}\nput {} into a folder and name it with --mirror DIR, or run again {way_out}",
        source.name,
        source.version,
        files.join(" or ")
    )
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

    fn origin(&self) -> &Origin {
        match self {
            Self::Mirror(_, origin) | Self::Origin(origin) => origin,
        }
    }

    fn carry_out(&self, build: &Build, source: &Source) -> Result<Tarball, Fault> {
        let origin = self.origin();
        let part = partial(build, origin);
        if let Some(dir) = part.parent() {
            std::fs::create_dir_all(dir).map_err(|error| Fault::writing(dir, error))?;
        }
        let begun = self.get(build, source, &part)?;
        let admitted = admit(build, origin, &part);
        if begun == Begun::Earlier && matches!(admitted, Err(Fault::Origin(_))) {
            // The fault may lie in the part that was here before. It is gone now, so this one starts clean.
            build.ui.say(
                "fetch",
                &format!("{}: what an earlier run left did not fit; from the start", source.name),
            );
            self.get(build, source, &part)?;
            return admit(build, origin, &part);
        }
        admitted
    }

    /// Gets the tarball to `part`, unchecked.
    fn get(&self, build: &Build, source: &Source, part: &Path) -> Result<Begun, Fault> {
        match self {
            Self::Mirror(Mirror::Folder(dir), origin) => from_folder(&dir.join(&origin.file), part),
            Self::Mirror(Mirror::Url(url), origin) => {
                http::download(build, &source.name, &mirror_url(url, origin), part)
            }
            Self::Origin(origin) => match &origin.place {
                Place::Url(url) => http::download(build, &source.name, url, part),
                Place::Debian { package, suites } => {
                    debian::download(build, &source.name, package, suites, origin, part)
                }
            },
        }
    }
}

fn from_folder(file: &Path, part: &Path) -> Result<Begun, Fault> {
    // A file that can't be read is the mirror's fault, and told from one that can't be written here.
    File::open(file).context("cannot open").map_err(Fault::Origin)?;
    copy_whole(file, part).map_err(Fault::Machine)?;
    Ok(Begun::Now)
}

fn mirror_url(url: &str, origin: &Origin) -> String {
    format!("{}/{}", url.trim_end_matches('/'), origin.file)
}

/// Moves a complete download into the cache if its hash is right, and removes it if not.
fn admit(build: &Build, origin: &Origin, part: &Path) -> Result<Tarball, Fault> {
    let (found, _) = sha256_file(part).map_err(Fault::Machine)?;
    if found != origin.sha256 {
        std::fs::remove_file(part)
            .with_context(|| format!("{}: cannot remove", part.display()))
            .map_err(Fault::Machine)?;
        return Err(Fault::Origin(anyhow!(
            "wrong hash: expected sha256 {}, got {found}; the file was thrown away",
            origin.sha256
        )));
    }
    let home = place(build, origin);
    if let Some(dir) = home.parent() {
        std::fs::create_dir_all(dir).map_err(|error| Fault::writing(dir, error))?;
    }
    std::fs::rename(part, &home).map_err(|error| Fault::writing(&home, error))?;
    Ok(Tarball { path: home, sha256: origin.sha256.clone() })
}

/// Whichever origin's tarball is in the cache, whole.
fn cached(build: &Build, source: &Source) -> Result<Option<Tarball>> {
    for origin in &source.origins {
        let path = place(build, origin);
        if exists(&path)? && sha256_file(&path)?.0 == origin.sha256 {
            return Ok(Some(Tarball { path, sha256: origin.sha256.clone() }));
        }
    }
    Ok(None)
}

/// Removes what is no longer what was put into the cache. The lock on the source is held.
fn remove_spoilt(build: &Build, source: &Source) -> Result<()> {
    for origin in &source.origins {
        let path = place(build, origin);
        if exists(&path)? && sha256_file(&path)?.0 != origin.sha256 {
            build.ui.say("fetch", &format!("{}: not what was put there; removed", path.display()));
            std::fs::remove_file(&path).with_context(|| format!("{}: cannot remove", path.display()))?;
        }
    }
    Ok(())
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("{}: cannot look at", path.display()))
}

fn place(build: &Build, origin: &Origin) -> PathBuf {
    build.layout.sources().join(&origin.sha256).join(&origin.file)
}

fn partial(build: &Build, origin: &Origin) -> PathBuf {
    build.layout.sources().join("partial").join(format!("{}.part", origin.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{FetchOptions, Patience};
    use crate::host::Host;
    use crate::layout::Layout;
    use crate::sources::Sources;
    use crate::ui::Ui;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::num::NonZeroUsize;
    use std::time::Duration;

    /// Longer than any test runs.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    /// What is said of two origins of which the first one behaves as `patience` is to notice and nobody listens at the
    /// second one.
    fn failure(first: &TcpListener, patience: Patience) -> String {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned(),
            dir.path().to_owned(),
        );
        let build = Build {
            sources: Sources::load(&layout.sources_toml()).unwrap(),
            layout,
            host: Host::probe(),
            fetch: FetchOptions { offline: false, mirror: None, patience },
            jobs: NonZeroUsize::MIN,
            incremental: false,
            ui: Ui::new(false),
        };
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let origin = |address| Origin {
            place: Place::Url(format!("http://{address}/x.tar.gz")),
            file: "x.tar.gz".to_owned(),
            sha256: "0".repeat(64),
            hash_from: "the test".to_owned(),
        };
        let source = Source {
            name: "x".to_owned(),
            version: "1".to_owned(),
            licence: "MIT".to_owned(),
            licence_files: vec!["LICENSE".to_owned()],
            origins: [first.local_addr().unwrap(), nobody].map(origin).into(),
        };
        let message = format!("{:#}", run(&build, &source).unwrap_err());
        assert!(message.contains("Connection refused"), "the second origin was not tried: {message}");
        message
    }

    #[test]
    fn an_origin_that_takes_no_connection_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Room for one connection that nobody accepts; what comes behind it is not even refused.
        rustix::net::listen(&listener, 0).unwrap();
        let _first = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let patience = Patience { connect: Duration::from_millis(200), answer: FOR_EVER, stall: FOR_EVER };
        let message = failure(&listener, patience);
        assert!(message.contains("no connection within 0.2 s"), "{message}");
    }

    #[test]
    fn an_origin_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let patience = Patience { connect: FOR_EVER, answer: Duration::from_millis(200), stall: FOR_EVER };
        let message = failure(&listener, patience);
        assert!(message.contains("no answer within 0.2 s"), "{message}");
    }

    #[test]
    fn an_origin_that_stops_in_the_middle_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
            std::thread::sleep(FOR_EVER);
        });
        let patience = Patience { connect: FOR_EVER, answer: FOR_EVER, stall: Duration::from_millis(200) };
        let message = failure(&listener, patience);
        assert!(
            message.contains("cut after 4 of 9 bytes") && message.contains("nothing came for 0.2 s"),
            "{message}"
        );
    }

    #[test]
    fn patience_ends_within_seconds() {
        let Patience { connect, answer, stall } = Patience::default();
        assert!([connect, answer, stall].iter().all(|limit| *limit <= Duration::from_secs(30)));
    }
}
