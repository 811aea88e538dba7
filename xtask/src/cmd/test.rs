//! `test`: host steps, then the image, the same by a second build, then the boot tests. In: `TestArgs`. Out: a table, the line `N passed, N failed`,
//! target/xtask/junit.xml, exit status 1 when anything failed. Must never: stop at the first failure, or skip a step
//! without a word.

mod as_user;
mod deny;
mod weakened;

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::boot_test::{self, Finding, Report};
use crate::cli::{TestArgs, VerifyArgs};
use crate::context::Build;
use crate::stage::rootfs::Contents;

/// A step on this machine: its name, its budget in minutes on two cold cores (docs/testing.md), what it does.
type HostStep = (&'static str, u32, fn(&Build) -> Result<()>);

/// In this order. A new step is a line here, a function below, and a line in docs/testing.md.
const HOST_STEPS: &[HostStep] = &[
    ("fmt", 1, |build| cargo(build, &["fmt", "--all", "--check"])),
    ("clippy", 5, |build| {
        cargo(build, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    }),
    ("unit tests", 6, unit_tests),
    ("dependencies", 8, deny::run),
];

/// Runs everything, or what the names choose.
pub fn run(build: &Build, args: &TestArgs) -> Result<ExitCode> {
    let cases = boot_test::load(build)?;
    let chosen = boot_test::list(&cases, &args.names)?;
    if args.list {
        for (name, about) in chosen {
            println!("{name:34} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.weakened {
        return weakened::run(build, &cases, &args.names);
    }
    let mut report = Report::default();
    if args.names.is_empty() {
        for &(name, budget_minutes, step) in HOST_STEPS {
            host_step(build, &mut report, name, budget_minutes, || step(build));
        }
    }
    let mut files = None;
    host_step(build, &mut report, "image", 20, || {
        files = Some(super::qemu::files(&super::iso::make(build, &Contents::default())?));
        Ok(())
    });
    if files.is_some() && args.names.is_empty() {
        host_step(build, &mut report, "verify --quick", 8, || {
            super::verify::run(build, &VerifyArgs { quick: true, against: None, record: false })
        });
        host_step(build, &mut report, "qemu as a user calls it", 3, || as_user::run(build));
    }
    if let Some(files) = files {
        let acceleration = crate::vm::probe(build)?;
        boot_test::run(build, files, acceleration, &cases, &args.names, &mut report)?;
    }
    report.write_junit(&build.layout.notes().join("junit.xml"))?;
    println!("{}", report.table());
    Ok(if report.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn host_step(
    build: &Build,
    report: &mut Report,
    name: &str,
    budget_minutes: u32,
    step: impl FnOnce() -> Result<()>,
) {
    build.ui.say("test", name);
    let started = Instant::now();
    let failure = step().err().map(|error| format!("{error:#}"));
    let duration = started.elapsed();
    let minutes = duration.as_secs_f64() / 60.0;
    let verdict = if failure.is_none() { "ok" } else { "FAILED" };
    build.ui.say(verdict, &format!("{name} ({minutes:.1} min of {budget_minutes})"));
    if let Some(why) = &failure {
        build.ui.say("", why);
    }
    if duration > Duration::from_secs(60) * budget_minutes {
        // A slow machine is no failure; a step that has grown should be seen.
        build.ui.say("", &format!("{name} took longer than its budget in docs/testing.md"));
    }
    report.add(Finding { kind: "host", name: name.to_owned(), duration, failure });
}

/// This very program. Not by its path: the step "unit tests" may have put a newer one there.
fn xtask() -> Command {
    Command::new("/proc/self/exe")
}

/// All crates' tests. Passes on what cargo prints, and names in the error what failed.
fn unit_tests(build: &Build) -> Result<()> {
    // One crate's failure must not hide another's.
    let words = ["test", "--workspace", "--no-fail-fast"];
    let mut child =
        cargo_command(build, &words).stdout(Stdio::piped()).spawn().context("cargo: cannot run")?;
    let mut failed = Vec::new();
    for line in BufReader::new(child.stdout.take().context("cargo: no output")?).lines() {
        let line = line.context("cargo test: cannot read its output")?;
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            failed.push(name.to_owned());
        }
        build.ui.pass_on(&line);
    }
    let status = child.wait().context("cargo: cannot wait for it")?;
    if !status.success() {
        bail!("cargo {} failed ({status})\n{}", words.join(" "), failed.join("\n"));
    }
    Ok(())
}

/// The cargo that runs this program, in the checkout, with its words on stderr.
fn cargo(build: &Build, words: &[&str]) -> Result<()> {
    let status =
        cargo_command(build, words).stdout(std::io::stderr()).status().context("cargo: cannot run")?;
    if !status.success() {
        bail!("cargo {} failed ({status})", words.join(" "));
    }
    Ok(())
}

fn cargo_command(build: &Build, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(build.layout.root());
    command
}
