//! `cargo xtask`: the one way in. In: words. Out: results in dist/, words on stderr, an exit code.
//! Must never: do the work itself; this file parses, makes the `Build` and matches.

mod artifact;
mod boot_test;
mod cli;
mod cmd;
mod context;
mod host;
mod kconfig;
mod layout;
mod pipeline;
mod sources;
mod stage;
mod stamp;
mod ui;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::cli::{Cli, Global, Verb};
use crate::context::{Build, FetchOptions, Mirror};
use crate::host::{Host, Need};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let build = resolve(&cli.global)?;
    let needs = needs(&cli.verb);
    if !matches!(cli.verb, Verb::Doctor) || cli.global.install_deps {
        build.host.preflight(needs, cli.global.install_deps)?;
    }
    match cli.verb {
        Verb::Doctor => return cmd::doctor::run(&build),
        Verb::Fetch => cmd::fetch::run(&build)?,
        Verb::Kernel => cmd::report(&build, &[&pipeline::kernel(&build)?.image]),
        Verb::Busybox => cmd::report(&build, &[&pipeline::busybox(&build)?.program]),
        Verb::Tini => cmd::report(&build, &[&pipeline::tini(&build)?.0]),
        Verb::Iproute2 => cmd::report(&build, &[&pipeline::iproute2(&build)?.0]),
        Verb::Runtime => cmd::report(&build, &[&pipeline::runtime(&build)?.0]),
        Verb::Initramfs(args) => cmd::report(&build, &[&pipeline::initramfs(&build, &args)?.archive]),
        Verb::Iso(args) => cmd::iso::run(&build, &args)?,
        Verb::Qemu(args) => return cmd::qemu::run(&build, &args),
        Verb::Test(args) => return cmd::test::run(&build, &args),
        Verb::Menuconfig { which } => cmd::menuconfig::run(&build, which)?,
        Verb::Size(args) => cmd::size::run(&build, &args)?,
        Verb::Clean(args) => cmd::clean::run(&build, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What each command needs the machine for.
fn needs(verb: &Verb) -> &'static [Need] {
    use Need::{Iso, Kernel, Runtime, Test, Userland, Vm};
    match verb {
        Verb::Doctor => &host::ALL_NEEDS,
        Verb::Fetch | Verb::Clean(_) => &[],
        Verb::Kernel => &[Kernel],
        Verb::Busybox | Verb::Tini | Verb::Iproute2 => &[Userland],
        Verb::Runtime => &[Runtime],
        Verb::Initramfs(_) => &[Userland, Runtime],
        Verb::Menuconfig { .. } => &[Kernel, Userland],
        Verb::Iso(_) | Verb::Size(_) => &[Kernel, Userland, Runtime, Iso],
        Verb::Qemu(_) => &[Kernel, Userland, Runtime, Iso, Vm],
        Verb::Test(_) => &[Kernel, Userland, Runtime, Iso, Vm, Test],
    }
}

/// Global options and probed facts -> `Build`.
fn resolve(global: &Global) -> Result<Build> {
    let root =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no checkout")?.to_owned();
    let cache = match &global.cache_dir {
        Some(dir) => std::path::absolute(dir).with_context(|| format!("{}: not a path", dir.display()))?,
        None => default_cache()?,
    };
    let mirror = match &global.mirror {
        None => None,
        Some(place) if place.starts_with("http://") || place.starts_with("https://") => {
            Some(Mirror::Url(place.clone()))
        }
        Some(place) if std::path::Path::new(place).is_dir() => Some(Mirror::Folder(PathBuf::from(place))),
        Some(place) => bail!("--mirror {place}: neither a folder that exists nor an http(s) address"),
    };
    let host = Host::probe();
    let layout = layout::Layout::new(root, cache);
    Ok(Build {
        sources: sources::Sources::load(&layout.sources_toml())?,
        layout,
        jobs: global.jobs.unwrap_or(host.cores),
        host,
        fetch: FetchOptions { offline: global.offline, mirror },
        ui: ui::Ui::new(global.verbose),
    })
}

fn default_cache() -> Result<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|dir| PathBuf::from(dir).join(".cache")));
    Ok(home
        .context("neither XDG_CACHE_HOME nor HOME is set; say where with --cache-dir DIR")?
        .join("coracle"))
}
