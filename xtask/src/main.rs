//! `cargo xtask`: the one way in. In: words. Out: results in dist/, words on stderr, an exit code.
//! Must never: do the work itself; this file parses, has what was said resolved, and matches.

mod artifact;
mod bench;
mod boot_test;
mod cli;
mod cmd;
mod conformance;
mod context;
mod elf;
mod host;
mod kconfig;
mod layout;
mod pipeline;
mod prove;
mod resolve;
mod sources;
mod stage;
mod stamp;
mod ui;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cli::Cli;
use crate::resolve::Job;

fn main() -> ExitCode {
    let done = match vm::tether::asked() {
        Some(words) => vm::tether::hold(words),
        None => run(Cli::parse()),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let build = resolve::build(&cli.global)?;
    let job = Job::resolve(&build.layout, cli.verb)?;
    if !matches!(job, Job::Doctor) || cli.global.install_deps {
        build.host.preflight(job.needs(), cli.global.install_deps)?;
    }
    match job {
        Job::Doctor => return cmd::doctor::run(&build),
        Job::Fetch => cmd::fetch::run(&build)?,
        Job::Kernel(args) => cmd::kernel::run(&build, &args)?,
        Job::Busybox => cmd::report(&build, &[&pipeline::busybox(&build)?.program]),
        Job::Tini => cmd::report(&build, &[&pipeline::tini(&build)?.0]),
        Job::Iproute2 => cmd::report(&build, &[&pipeline::iproute2(&build)?.0]),
        Job::Runtime => cmd::report(&build, &[&pipeline::runtime(&build)?.program]),
        Job::Initramfs(contents) => cmd::report(&build, &[&pipeline::initramfs(&build, &contents)?.archive]),
        Job::Iso(contents, key) => cmd::iso::run(&build, &contents, key.as_deref())?,
        Job::Update(args) => cmd::update::run(&build, &args)?,
        Job::Verify(args) => cmd::verify::run(&build, &args)?,
        Job::Manual(args) => cmd::manual::run(&build, &args)?,
        Job::Sources(args) => cmd::sources::run(&build, &args)?,
        Job::Qemu(plan) => return cmd::qemu::run(&build, &plan),
        Job::Test(args) => return cmd::test::run(&build, &args),
        Job::Conformance(plan) => return conformance::run(&build, &plan),
        Job::Plugins(args) => return conformance::run_plugins(&build, &args),
        Job::Callers(args) => return conformance::run_callers(&build, &args),
        Job::Menuconfig(which) => cmd::menuconfig::run(&build, which)?,
        Job::Size(plan) => cmd::size::run(&build, &plan)?,
        Job::Order(args) => cmd::order::run(&build, &args)?,
        Job::Bench(args) => bench::run(&build, &args)?,
        Job::Clean(args) => cmd::clean::run(&build, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
