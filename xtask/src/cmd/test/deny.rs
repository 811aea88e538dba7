//! cargo-deny, pinned and kept in the cache. In: deny.toml, Cargo.lock. Out: licences, bans and sources judged; advisories
//! where their database can be had, else a line that says they were skipped. Must never: take another version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::context::Build;

const VERSION: &str = "0.20.2";

/// Judges the dependencies.
pub fn run(build: &Build) -> Result<()> {
    let program = installed(build)?;
    judge(build, &program, &["bans", "licenses", "sources"])?;
    // The database is a git repository; a machine with no way out has none, and that is no verdict on the dependencies.
    if build.fetch.offline || !reachable() {
        build.ui.say("deny", "advisories skipped: the advisory database can't be reached from here");
        return Ok(());
    }
    judge(build, &program, &["advisories"])
}

fn judge(build: &Build, program: &PathBuf, checks: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(["--log-level", "error", "check", "--hide-inclusion-graph"])
        .args(checks)
        .current_dir(build.layout.root())
        .stdout(std::io::stderr())
        .status()
        .context("cargo-deny: cannot run")?;
    if !status.success() {
        bail!("cargo-deny check {} failed ({status}); deny.toml says what is allowed", checks.join(" "));
    }
    Ok(())
}

/// Whether the host of the advisory database answers within seconds.
fn reachable() -> bool {
    use std::net::ToSocketAddrs;
    let timeout = std::time::Duration::from_secs(3);
    let addresses = "github.com:443".to_socket_addrs();
    addresses.is_ok_and(|mut all| {
        all.any(|address| std::net::TcpStream::connect_timeout(&address, timeout).is_ok())
    })
}

/// The pinned version, built once a machine. A debug build: it starts as quickly, and is made in half the time.
fn installed(build: &Build) -> Result<PathBuf> {
    let home = build.layout.tools().join(format!("cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    build.ui.say("deny", &format!("building cargo-deny {VERSION}, once for this machine"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["install", "cargo-deny", "--version", VERSION, "--locked", "--debug", "--quiet", "--root"])
        .arg(&home)
        .arg("--target-dir")
        .arg(build.layout.target().join("cargo-deny"))
        .stdout(std::io::stderr())
        .status()
        .context("cargo: cannot run")?;
    if !status.success() {
        bail!("cargo-deny {VERSION} could not be installed ({status}); it needs the crate registry");
    }
    Ok(program)
}
