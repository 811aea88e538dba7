//! The image a second time, from source, under other circumstances. In: this checkout as it is, the first image. Out: a
//! second dist/, and what was otherwise. Must never: let the second build find an artefact of the first (sources are
//! handed on, and with `--quick` the kernel), or write into what belongs to the first: it gets copies.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::context::Build;
use crate::pipeline::Image;
use crate::stage::runtime;
use crate::stamp::remove_tree;

/// `nobody`, on every distribution.
const OTHER_USER: u32 = 65534;

/// The second build.
#[derive(Debug)]
pub struct Second {
    /// All of it lies here.
    pub room: PathBuf,
    /// Its dist/.
    pub dist: PathBuf,
    /// Its cache.
    pub cache: PathBuf,
    /// What was otherwise than in the first.
    pub varied: Vec<&'static str>,
    /// What could not be made otherwise here, and why.
    pub same: Vec<&'static str>,
}

/// Builds it. The kernel is handed on when `quick`.
pub fn run(build: &Build, image: &Image, quick: bool) -> Result<Second> {
    let mut circumstances = Circumstances::of(build);
    let room = room(build, circumstances.user)?;
    remove_tree(&room)?;
    let plain = room.join("plain");
    make_folder(&plain)?;
    let clone = Path::new("a/folder/of another name");
    copy_checkout(build, &plain.join(clone))?;
    hand_on(&build.layout.sources(), &plain.join("cache/sources"), &|_| true)?;
    if quick {
        let kernel = image.kernel.image.path.parent().context("the kernel lies in no folder")?;
        let key = kernel.file_name().context("the kernel's folder has no name")?;
        hand_on(kernel, &plain.join("cache/built/kernel").join(key), &|_| true)?;
    }
    hand_on_crates(build, &plain.join("cargo home"))?;
    for folder in ["home", "tmp"] {
        make_folder(&plain.join(folder))?;
    }
    let toolchain = toolchain(build, &room, circumstances.user)?;
    let front = true_time_rustc(&room, &toolchain)?;
    let program = room.join("xtask");
    std::fs::copy("/proc/self/exe", &program).context("xtask: cannot copy itself")?;
    open_to_all(&program)?;
    if let Some(user) = circumstances.user {
        give_to(&plain, user)?;
    }
    let shuffled = Shuffled::mount(build, &plain, &room.join("shuffled"), circumstances.user.is_some());
    match &shuffled {
        Some(_) => circumstances.varied.push("order of folders"),
        None => circumstances.same.push("order of folders (disorderfs is not here, or may not mount)"),
    }
    let top = shuffled.as_ref().map_or(plain.as_path(), |shuffled| shuffled.at.as_path());
    let mut command = circumstances.launch();
    command.arg(&program).arg("--cache-dir").arg(top.join("cache"));
    command.args(["--offline", "--jobs", &(build.jobs.get() + 1).to_string(), "iso"]);
    command.current_dir(top.join(clone)).env_clear().env("PATH", path(&front, &toolchain)?);
    for (name, value) in [("HOME", "home"), ("CARGO_HOME", "cargo home"), ("TMPDIR", "tmp")] {
        command.env(name, top.join(value));
    }
    // Turkish: its lower-case i has tripped many a build.
    command.env("TZ", "Asia/Kathmandu").env("LC_ALL", "tr_TR.UTF-8").env("LANG", "tr_TR.UTF-8");
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("{command:?}: cannot run"))?;
    drop(shuffled);
    if !status.success() {
        bail!("the second build failed ({status}); it lies in {}", room.display());
    }
    Ok(Second {
        dist: plain.join(clone).join("dist"),
        cache: plain.join("cache"),
        room,
        varied: circumstances.varied,
        same: circumstances.same,
    })
}

/// Who builds, where and when.
struct Circumstances {
    user: Option<u32>,
    launcher: Vec<String>,
    varied: Vec<&'static str>,
    same: Vec<&'static str>,
}

impl Circumstances {
    /// As far from the first build's as this machine lets them be.
    fn of(build: &Build) -> Self {
        let mut varied = vec!["folder", "HOME", "TZ", "locale", "umask", "jobs"];
        let (mut launcher, mut same, mut user) = (Vec::new(), Vec::new(), None);
        let mut add = |words: &[&str]| launcher.extend(words.iter().map(|word| (*word).to_owned()));
        let root = rustix::process::geteuid().is_root();
        let works = |words: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if root && works(&["unshare", "--uts", "hostname", "another"]) {
            add(&["unshare", "--uts", "sh", "-c", "hostname another.example && exec \"$@\"", "sh"]);
            varied.push("host name");
        } else {
            same.push("host name (needs root and unshare)");
        }
        let number = OTHER_USER.to_string();
        let change = ["setpriv", "--reuid", &number, "--regid", &number, "--clear-groups", "--"];
        if root && works(&[&change[..], &["true"]].concat()) {
            add(&change);
            user = Some(OTHER_USER);
            varied.push("user");
        } else {
            same.push("user (needs root and setpriv)");
        }
        add(&["sh", "-c", "umask 0077; exec \"$@\"", "sh"]);
        if build.host.find("faketime").is_some() && works(&["faketime", "-f", "+500d", "true"]) {
            add(&["faketime", "-f", "+500d"]);
            varied.push("date (but for the Rust compiler)");
        } else {
            same.push("date (needs faketime)");
        }
        Self { user, launcher, varied, same }
    }

    fn launch(&self) -> Command {
        // There is a shell for the umask at least.
        let mut command = Command::new(&self.launcher[0]);
        command.args(&self.launcher[1..]);
        command
    }
}

/// A view of a folder in which each listing comes in another order.
struct Shuffled {
    at: PathBuf,
    umount: PathBuf,
}

impl Shuffled {
    fn mount(build: &Build, plain: &Path, at: &Path, for_others: bool) -> Option<Self> {
        let (disorderfs, umount) = (build.host.find("disorderfs")?, build.host.find("fusermount"));
        let umount = umount.or_else(|| build.host.find("fusermount3"))?;
        make_folder(at).ok()?;
        let others = if for_others { "--multi-user=yes" } else { "--multi-user=no" };
        let words = ["--quiet", "--shuffle-dirents=yes", "--share-locks=yes", others];
        let done =
            Command::new(disorderfs).args(words).arg(plain).arg(at).stdin(Stdio::null()).output().ok()?;
        done.status.success().then(|| Self { at: at.to_owned(), umount })
    }
}

impl Drop for Shuffled {
    fn drop(&mut self) {
        // A mount that stays is seen when the room is removed.
        let _ = Command::new(&self.umount).args(["-u"]).arg(&self.at).status();
    }
}

/// Below target/, or, where the other user may not pass through to there, in the folder for temporary files.
fn room(build: &Build, user: Option<u32>) -> Result<PathBuf> {
    let own = build.layout.target().join("verify");
    if user.is_none() || passable(&own) {
        return Ok(own);
    }
    let other = std::env::temp_dir().join(format!("coracle-verify-{}", std::process::id()));
    if passable(&other) {
        return Ok(other);
    }
    bail!("neither {} nor {} can be reached by another user", own.display(), other.display());
}

fn passable(path: &Path) -> bool {
    let open = |dir: &Path| dir.metadata().map_or(true, |facts| facts.permissions().mode() & 0o001 != 0);
    path.ancestors().skip(1).all(open)
}

/// The folder of the toolchain's programs: its own, or a copy by hard links where the other user can't reach that.
fn toolchain(build: &Build, room: &Path, user: Option<u32>) -> Result<PathBuf> {
    let mut command = Command::new(build.host.require("rustc")?);
    let said = command.args(["--print", "sysroot"]).current_dir(build.layout.root()).output();
    let said = said.context("rustc: cannot run")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    if user.is_none() || passable(&sysroot.join("bin/rustc")) {
        return Ok(sysroot.join("bin"));
    }
    for folder in ["bin", "lib"] {
        link(&sysroot.join(folder), &room.join("toolchain").join(folder))?;
    }
    // The terms of the standard library are beside its documentation, which is large.
    let terms = Path::new("share/doc/rust");
    make_folder(&room.join("toolchain").join(terms))?;
    for entry in std::fs::read_dir(sysroot.join(terms)).into_iter().flatten().flatten() {
        if entry.path().is_file() {
            let to = room.join("toolchain").join(terms).join(entry.file_name());
            std::fs::copy(entry.path(), &to).with_context(|| format!("{}: cannot write", to.display()))?;
        }
    }
    Ok(room.join("toolchain/bin"))
}

/// A folder whose `rustc` is the toolchain's, at the true date: its allocator asks for the time before faketime's library is
/// ready, and now and then it waits for ever.
fn true_time_rustc(room: &Path, toolchain: &Path) -> Result<PathBuf> {
    let front = room.join("front");
    make_folder(&front)?;
    let program = toolchain.join("rustc").display().to_string().replace('\'', "'\\''");
    let path = front.join("rustc");
    std::fs::write(&path, format!("#!/bin/sh\nunset LD_PRELOAD\nexec '{program}' \"$@\"\n"))
        .with_context(|| format!("{}: cannot write", path.display()))?;
    open_to_all(&path)?;
    Ok(front)
}

/// The compiler and its toolchain first, then the system's own folders; none of this user's.
fn path(front: &Path, toolchain: &Path) -> Result<std::ffi::OsString> {
    let system = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let own = [front.to_owned(), toolchain.to_owned()];
    std::env::join_paths(own.into_iter().chain(system)).context("PATH can't be made")
}

/// The checkout as it is now, what is not committed included, with git's own folder.
pub fn copy_checkout(build: &Build, to: &Path) -> Result<()> {
    let root = build.layout.root();
    if root.join(".git").exists() {
        // Without the commit's files: what was removed or moved since must not be there. But git's list of them is.
        let clone = ["clone", "--quiet", "--no-hardlinks", "--no-checkout", "."].map(OsStr::new);
        build.host.git(root, &[&clone[..], &[to.as_os_str()]].concat())?;
        build.host.git(to, &["reset", "--quiet"])?;
    }
    for name in crate::cmd::sources::checkout_files(build)? {
        let (from, to) = (root.join(&name), to.join(&name));
        // Removed here, and git was not told.
        let Ok(facts) = from.symlink_metadata() else { continue };
        make_folder(to.parent().with_context(|| format!("{}: has no folder", to.display()))?)?;
        if facts.is_symlink() {
            let target =
                std::fs::read_link(&from).with_context(|| format!("{}: cannot read", from.display()))?;
            std::os::unix::fs::symlink(target, &to)
                .with_context(|| format!("{}: cannot make", to.display()))?;
        } else {
            std::fs::copy(&from, &to).with_context(|| format!("{}: cannot copy", from.display()))?;
        }
    }
    Ok(())
}

/// Of cargo's home what an offline build needs: the index, and the archives that Cargo.lock names.
fn hand_on_crates(build: &Build, to: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let registry = runtime::cargo_home()?.join("registry");
    make_folder(&to.join("registry"))?;
    // A checkout whose program needs no crate may run where cargo never fetched one.
    if !registry.is_dir() {
        return Ok(());
    }
    let lock = build.layout.root().join("Cargo.lock");
    let text = std::fs::read_to_string(&lock).with_context(|| format!("{}: cannot read", lock.display()))?;
    let lock: Lock =
        toml::from_str(&text).with_context(|| format!("{}: not as cargo writes it", lock.display()))?;
    let archives: std::collections::BTreeSet<String> =
        lock.package.iter().map(|package| format!("{}-{}.crate", package.name, package.version)).collect();
    if archives.len() > 1 {
        hand_on(&registry.join("index"), &to.join("registry/index"), &|_| true)?;
        hand_on(&registry.join("cache"), &to.join("registry/cache"), &|name| archives.contains(name))?;
    }
    Ok(())
}

/// Copies the files below `from` whose names `wanted` likes.
pub fn hand_on(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    each(from, to, &mut |from, to| {
        if wanted(&to.file_name().unwrap_or_default().to_string_lossy()) {
            std::fs::copy(from, to).with_context(|| format!("{}: cannot copy", from.display()))?;
        }
        Ok(())
    })
}

/// The same by hard links, where the file system has them.
fn link(from: &Path, to: &Path) -> Result<()> {
    each(from, to, &mut |from, to| {
        if std::fs::hard_link(from, to).is_err() {
            std::fs::copy(from, to).with_context(|| format!("{}: cannot copy", from.display()))?;
        }
        Ok(())
    })
}

fn each(from: &Path, to: &Path, with: &mut dyn FnMut(&Path, &Path) -> Result<()>) -> Result<()> {
    make_folder(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("{}: cannot list", from.display()))? {
        let entry = entry.with_context(|| format!("{}: cannot list", from.display()))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            each(&path, &target, with)?;
        } else {
            with(&path, &target)?;
        }
    }
    Ok(())
}

/// A folder that others may pass, whatever the umask.
fn make_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    std::fs::create_dir(path).with_context(|| format!("{}: cannot create", path.display()))?;
    open_to_all(path)
}

fn open_to_all(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("{}: cannot change its mode", path.display()))
}

/// Makes `user` the owner of `path` and of all below it.
fn give_to(path: &Path, user: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(user), Some(user))
        .with_context(|| format!("{}: cannot give away", path.display()))?;
    let facts = path.symlink_metadata().with_context(|| format!("{}: cannot look at", path.display()))?;
    if facts.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| format!("{}: cannot list", path.display()))? {
            give_to(&entry.with_context(|| format!("{}: cannot list", path.display()))?.path(), user)?;
        }
    }
    Ok(())
}
