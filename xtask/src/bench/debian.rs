//! A Debian package -> its files. In: its name, a folder of the cache. Out: the unpacked tree. Must never: install
//! anything on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::context::Build;

/// Downloads `package` by the machine's own apt into `room`, and unpacks it there.
pub fn unpack(build: &Build, package: &str, room: &Path) -> Result<()> {
    if build.fetch.offline {
        bail!("{package} is not in the cache, and --offline was said");
    }
    std::fs::create_dir_all(room).with_context(|| format!("{}: cannot create", room.display()))?;
    build.ui.say("bench", &format!("downloading {package}, once for this machine"));
    let apt_get = build.host.find("apt-get").context("this machine has no apt")?;
    run(Command::new(apt_get)
        .args(["-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(room))?;
    let archive = archive(room).context("apt-get download left no package")?;
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(room)).map(drop)
}

fn archive(room: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(room).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "deb")).last()
}

/// Runs a command and gives what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}: cannot run"))?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
