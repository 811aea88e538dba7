//! The boot tests. In: qemu/cases/, the built image. Out: a finding for each case and way of booting; the serial log of
//! each that failed. Must never: go on with a machine on which a case has failed.

mod case;
mod machine;
mod plan;
mod report;
mod trial;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

#[cfg(test)]
pub use case::parse;
pub use case::{Case, Weakened};
pub use machine::Bench;
pub use report::{Finding, Report};

use crate::context::Build;
use crate::vm::{Acceleration, Files};

/// Reads all cases; what can't be read stops here, before anything is built.
pub fn load(build: &Build) -> Result<Vec<Case>> {
    let qemu = build.layout.qemu();
    case::load(&qemu.join("cases"), &qemu.join("shares"))
}

/// Name and sentence of each trial that `words` choose.
pub fn list(cases: &[Case], words: &[String]) -> Result<Vec<(String, String)>> {
    let chosen = plan::trials(cases, words);
    if chosen.is_empty() {
        bail!("no boot test has {} in its name; `cargo xtask test --list` shows them", words.join(" or "));
    }
    Ok(chosen.into_iter().map(|trial| (trial.name, trial.case.about.clone())).collect())
}

/// Runs what `words` choose.
pub fn run(
    build: &Build,
    files: Files,
    acceleration: Acceleration,
    cases: &[Case],
    words: &[String],
    report: &mut Report,
) -> Result<()> {
    let room = build.layout.notes().join("boot-test");
    // Logs of an earlier run would be taken for this one's.
    if room.exists() {
        std::fs::remove_dir_all(&room).with_context(|| format!("{}: cannot remove", room.display()))?;
    }
    std::fs::create_dir_all(&room).with_context(|| format!("{}: cannot create", room.display()))?;
    let bench = Bench { build, files, acceleration, room };
    for group in plan::groups(plan::trials(cases, words)) {
        run_group(&bench, &group, report);
    }
    remove_scratch(&bench.room)
}

/// One machine, and another one after each failure.
fn run_group(bench: &Bench<'_>, group: &plan::Group<'_>, report: &mut Report) {
    let log = bench.room.join("machine.serial");
    let mut machine = None;
    for trial in &group.trials {
        let started = Instant::now();
        let result = match machine.take() {
            Some(machine) => Ok(machine),
            None => bench.boot(group.machine, group.boot, &log).context("the machine did not come up"),
        };
        let result = result.and_then(|mut running| {
            trial::run(trial.case, &mut running)?;
            Ok(running)
        });
        let failure = match result {
            Ok(running) => {
                machine = Some(running);
                None
            }
            Err(error) => Some(format!("{error:#}\n{}", keep(&log, &bench.room, &trial.name))),
        };
        let duration = started.elapsed();
        let voice = &bench.build.ui;
        match &failure {
            None => voice.say("ok", &format!("{} ({:.1} s)", trial.name, duration.as_secs_f64())),
            Some(why) => voice.say("FAILED", &format!("{}: {why}", trial.name)),
        }
        report.add(Finding { kind: "boot", name: trial.name.clone(), duration, failure });
    }
}

/// Keeps the serial log under the case's name, and says where.
fn keep(log: &Path, room: &Path, name: &str) -> String {
    let kept: PathBuf = room.join(format!("{}.log", name.replace('/', "-")));
    match std::fs::copy(log, &kept) {
        Ok(_) => format!("serial log: {}", kept.display()),
        Err(error) => format!("{}: the serial log could not be kept: {error}", kept.display()),
    }
}

/// Leaves the logs of what failed, and nothing else.
fn remove_scratch(room: &Path) -> Result<()> {
    for item in std::fs::read_dir(room).with_context(|| format!("{}: cannot list", room.display()))? {
        let path = item.with_context(|| format!("{}: cannot list", room.display()))?.path();
        if path.extension().is_some_and(|ending| ending == "img" || ending == "serial") {
            std::fs::remove_file(&path).with_context(|| format!("{}: cannot remove", path.display()))?;
        }
    }
    Ok(())
}
