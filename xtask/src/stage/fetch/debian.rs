//! Debian source package -> tarball. In: a package name, suites, a sha256. Out: that one tarball, found through the
//! machine's own apt configuration. Must never: change the machine's apt state (lists are private), or need the .dsc:
//! a mirror can miss single files, and a newer Debian revision of the same tarball changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::artifact::sha256_bytes;
use crate::context::Build;
use crate::sources::Origin;
use crate::stage::fetch::{Begun, Fault, http};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads the tarball that `origin` pins, from `package` in any of `suites`.
pub fn download(
    build: &Build,
    name: &str,
    package: &str,
    suites: &[String],
    origin: &Origin,
    part: &Path,
) -> Result<Begun, Fault> {
    let (archives, directory) = find(build, package, suites, origin).map_err(Fault::Origin)?;
    let mut failures = Vec::new();
    for archive in &archives {
        let url = format!("{archive}/{directory}/{}", origin.file);
        let error = match http::download(build, name, &url, part) {
            Err(Fault::Origin(error)) => error,
            done => return done,
        };
        match helper_download(build, &url, origin, part) {
            Ok(()) => return Ok(Begun::Now),
            Err(helper) => failures.push(format!("{url}: {error:#}; by apt: {helper:#}")),
        }
    }
    Err(Fault::Origin(anyhow!(failures.join("; "))))
}

/// The machine's Debian archives, and the folder in them that holds the pinned tarball.
fn find(
    build: &Build,
    package: &str,
    suites: &[String],
    origin: &Origin,
) -> Result<(BTreeSet<String>, String)> {
    let Some(apt_get) = build.host.find("apt-get") else { bail!("this machine has no apt") };
    let archives = archives(&apt_get)?;
    let index = index(build, &apt_get, package, suites)?;
    let directory = directory_of(&index, origin)
        .with_context(|| format!("no suite lists a tarball with sha256 {}", origin.sha256))?;
    Ok((archives, directory))
}

/// The entries of `package` in the source indices of `suites`, brought up to date.
pub fn index(build: &Build, apt_get: &Path, package: &str, suites: &[String]) -> Result<String> {
    let archives = archives(apt_get)?;
    let lines =
        archives.iter().flat_map(|archive| suites.iter().map(|suite| (archive.clone(), suite.clone())));
    let apt = Apt::prepare(build, apt_get, &lines.collect())?;
    apt.update(build)?;
    apt.showsrc(build, package)
}

/// The Debian archives that the machine is configured with.
pub fn debian_archives(build: &Build) -> Result<BTreeSet<String>> {
    archives(&build.host.require("apt-get")?)
}

fn archives(apt_get: &Path) -> Result<BTreeSet<String>> {
    let text = output(Command::new(apt_get).args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let archives: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Debian|Debian|"))
        .map(|uri| uri.trim_end_matches('/').to_owned())
        .collect();
    if archives.is_empty() {
        bail!("apt knows no Debian archive; `apt-get update` may mend that");
    }
    Ok(archives)
}

/// Every archive and suite of Debian's that the machine takes packages from, security updates included.
pub fn machine_lines(apt_get: &Path) -> Result<BTreeSet<(String, String)>> {
    let text = output(Command::new(apt_get).args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(REPO_URI)|$(RELEASE)",
        "Created-By: Packages",
    ]))?;
    let lines: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Debian|")?.split_once('|'))
        .map(|(archive, suite)| (archive.trim_end_matches('/').to_owned(), suite.to_owned()))
        .collect();
    if lines.is_empty() {
        bail!("apt knows no Debian archive; `apt-get update` may mend that");
    }
    Ok(lines)
}

/// apt with lists of its own and only source lines of ours.
pub struct Apt {
    apt_get: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// One that looks into these archives' suites.
    pub fn prepare(build: &Build, apt_get: &Path, lines: &BTreeSet<(String, String)>) -> Result<Self> {
        let signed =
            if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let lines: Vec<String> = lines
            .iter()
            .map(|(archive, suite)| format!("deb-src {signed}{archive} {suite} main\n"))
            .collect();
        let home = build.layout.cache().join("apt").join(&sha256_bytes(lines.concat().as_bytes())[..16]);
        std::fs::create_dir_all(home.join("lists/partial"))
            .with_context(|| format!("{}: cannot create", home.display()))?;
        let list = home.join("sources.list");
        std::fs::write(&list, lines.concat()).with_context(|| format!("{}: cannot write", list.display()))?;
        let options = [
            format!("Dir::Etc::SourceList={}", list.display()),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State::Lists={}", home.join("lists").display()),
            format!("Dir::Cache={}", home.display()),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "Acquire::http::Timeout=20".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        Ok(Self { apt_get: apt_get.to_owned(), options })
    }

    /// Brings the lists up to date. The suites are alternatives of each other, so one that fails is no error here.
    pub fn update(&self, build: &Build) -> Result<()> {
        let mut command = Command::new(&self.apt_get);
        command
            .args(&self.options)
            .arg("update")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let done = command.output().context("apt-get: cannot run")?;
        if !done.status.success() {
            build.ui.detail(
                "fetch",
                &format!("apt-get update: {}", String::from_utf8_lossy(&done.stderr).trim()),
            );
        }
        Ok(())
    }

    /// The index entries of a source package.
    pub fn showsrc(&self, build: &Build, package: &str) -> Result<String> {
        let apt_cache = build.host.require("apt-cache")?;
        output(Command::new(apt_cache).args(&self.options).args(["showsrc", package]))
    }
}

/// The archive folder of the source package version whose index entry lists the pinned tarball.
fn directory_of(index: &str, origin: &Origin) -> Option<String> {
    index
        .split("\n\n")
        .find(|entry| {
            entry
                .lines()
                .any(|line| line.trim_start().starts_with(&origin.sha256) && line.ends_with(&origin.file))
        })
        .and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("Directory: ")))
        .map(|directory| directory.trim().to_owned())
}

/// apt's own downloader: it knows proxies and transports that plain HTTP does not.
fn helper_download(build: &Build, url: &str, origin: &Origin, part: &Path) -> Result<()> {
    let helper = Path::new("/usr/lib/apt/apt-helper");
    if !helper.exists() {
        bail!("no apt-helper here");
    }
    build.ui.detail("fetch", &format!("{url}: by apt's own downloader"));
    output(
        Command::new(helper).arg("download-file").arg(url).arg(part).arg(format!("SHA256:{}", origin.sha256)),
    )
    .map(drop)
}

/// What a program says on stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program}: cannot run"))?;
    if !done.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Place;

    #[test]
    fn the_version_with_the_pinned_tarball_is_found() {
        let hash = "a".repeat(64);
        let origin = Origin {
            place: Place::Debian { package: "x".into(), suites: vec!["sid".into()] },
            file: "x_1.orig.tar.xz".into(),
            sha256: hash.clone(),
            hash_from: String::new(),
        };
        let index = format!(
            "Package: x\nChecksums-Sha256:\n {} 5 x_2.orig.tar.xz\nDirectory: pool/new\n\nPackage: x\nChecksums-Sha256:\n {hash} 5 x_1.orig.tar.xz\nDirectory: pool/old\n",
            "b".repeat(64)
        );
        assert_eq!(directory_of(&index, &origin).as_deref(), Some("pool/old"));
        assert_eq!(directory_of("Package: x\n", &origin), None);
    }
}
